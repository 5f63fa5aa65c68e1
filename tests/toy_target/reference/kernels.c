/* y = x @ ((codes - 128) * scale).T + bias, a number at a time. */
#include "ops.h"
#include <stdlib.h>

typedef struct { const char *name; size_t inputs; } Row;
static const Row rows[] = {
#include "ops.inc"
    {NULL, 0}};
enum { COUNT = sizeof rows / sizeof *rows - 1 };

typedef struct { Input codes, scale, bias; } Layer; /* constants stay as long as the kernel does */

static int input_type(const void *spec, size_t index) {
  (void)spec;
  return index == 1 ? UINT8 : index == 2 ? 0 : FLOAT;
}

static void *create(const void *spec, const void *info, void **kernel) {
  Layer *layer = calloc(1, sizeof *layer);
  if (!layer) return status(FAIL, "toy: out of memory");
  void *bad = constant(info, 1, &layer->codes);
  if (!bad) bad = constant(info, 2, &layer->scale);
  if (!bad && ((const Row *)spec)->inputs > 3) bad = constant(info, 3, &layer->bias);
  if (bad) free(layer); else *kernel = layer;
  return bad;
}

static float scale_of(const Input *scale, int64_t row) {
  return scale->type == FLOAT ? ((const float *)scale->data)[row] : half_to_float(((const uint16_t *)scale->data)[row]);
}

static void *compute(void *kernel, void *context) {
  const Layer *layer = kernel;
  int64_t out = layer->codes.dims[0], in = layer->codes.dims[1], count = 1;
  Input x;
  float *y;
  void *bad = input(context, 0, &x);
  if (bad) return bad;
  for (size_t i = 0; i + 1 < x.rank; i++) count *= x.dims[i];
  x.dims[x.rank - 1] = out;
  if ((bad = output(context, 0, &x, &y))) return bad;
  for (int64_t row = 0; row < count; row++)
    for (int64_t n = 0; n < out; n++) {
      const uint8_t *codes = (const uint8_t *)layer->codes.data + n * in;
      float sum = 0;
      for (int64_t k = 0; k < in; k++) sum += ((const float *)x.data)[row * in + k] * (float)(codes[k] - 128);
      y[row * out + n] = sum * scale_of(&layer->scale, n) + (layer->bias.data ? ((const float *)layer->bias.data)[n] : 0);
    }
  return NULL;
}

const char *const qcc_provider = "CPUExecutionProvider";

void *serve(const Served **ops, int *count) {
  static Served served[COUNT + 1];
  for (int i = 0; i < COUNT; i++)
    served[i] = (Served){.name = rows[i].name, .inputs = rows[i].inputs, .outputs = 1,
                         .spec = rows + i, .input_type = input_type, .create = create, .compute = compute, .destroy = free};
  *ops = served, *count = COUNT;
  return NULL;
}
