/* A layer, made from an op's constant inputs: its weights in the kernels' layout, and the vectors of its steps. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

static const char NO_MEMORY[] = "qcc: out of memory";

void free_layer(void *p) {
  Layer *layer = p;
  if (!layer) return;
  for (size_t i = 0; layer->vectors && layer->spec->operands[i]; i++) free(layer->vectors[i]);
  let_loose(layer->words), let_loose(layer->scale), let_loose(layer->offset), free(layer->vectors);
  free(layer->starts), free(layer->places), free(layer->less), free(layer);
}

int weight_inputs(const Spec *spec) {
  int widths[4];
  if (spec->bits >= 16) return 1 + !!spec->high;
  return !!spec->high + planes_of(spec->bits, widths) + 1 + !spec->symmetric + spec->fixed;
}

/* Where an output of a part lies among all of the layer. */
static int64_t place_of(const Layer *layer, int part, int64_t n) {
  if (layer->spec->woven) return n / STRIP * 2 * STRIP + part * STRIP + n % STRIP;
  for (int i = 0; i < part; i++) n += layer->sizes[i];
  return n;
}

/* Where quads lie: `place` of emit.py. */
static void pack_plane(Layer *layer, int part, const uint8_t *plane, int width, int first) {
  int64_t row_bytes = layer->k * width / 8, bits = layer->spec->bits;
  int per_byte = 8 / width, half = 4 / width, mask = (1 << width) - 1;
  for (int64_t row = 0; row < layer->sizes[part]; row++)
    for (int64_t chunk = 0, n = place_of(layer, part, row); chunk < layer->chunks; chunk++) {
      const uint8_t *from = plane + row * row_bytes + chunk * 4 * width;
      uint8_t *to = (uint8_t *)(layer->words + (((n / 16) * layer->chunks + chunk) * bits + first) * 16 + n % 16);
      for (int k = 0; k < CHUNK; k++) {
        int code = from[k / per_byte] >> width * (k % per_byte) & mask, quad = k / 4;
        int at = width == 8 ? quad : quad % 4 / half, bit = width == 8 ? 0 : width * (quad % half) + 4 * (quad / 4);
        to[at * 64 + k % 4] |= (uint8_t)(code << bit);
      }
    }
}

/* Sizes, and room for the words; the groups are of so many inputs. */
static void *make_room(Layer *layer, int64_t outputs, int64_t inputs, int64_t group) {
  layer->n = outputs, layer->k = inputs, layer->chunks = inputs / CHUNK;
  if (outputs < 1 || inputs < CHUNK || inputs % CHUNK || inputs % group)
    return status(INVALID, "qcc: inputs are a multiple of 32 and of the group");
  layer->groups = inputs / group, layer->strips = (outputs + STRIP - 1) / STRIP;
  size_t bytes = (size_t)(layer->strips * STRIP * layer->chunks * layer->spec->bits) * 4 + OVER;
  layer->words = keep(bytes);
  if (!layer->words) return status(FAIL, NO_MEMORY);
  memset(layer->words, 0, bytes);
  return NULL;
}

static void *fill_floats(Layer *layer, const void *info) {
  Input input;
  void *bad = constant(info, layer->begin, &input);
  if (bad) return bad;
  if (input.type != BFLOAT16 || input.rank != 2) return status(INVALID, "qcc: the weight is a matrix of bfloat16");
  if ((bad = make_room(layer, input.dims[0], input.dims[1], input.dims[1] ? input.dims[1] : 1))) return bad;
  const uint16_t *from = input.data;
  uint16_t *to = (uint16_t *)layer->words;
  for (int64_t n = 0; n < layer->n; n++)
    for (int64_t k = 0; k < layer->k; k++) {
      int64_t tile = (n / 32 * layer->chunks + k / 32) * 2 + n / 16 % 2;
      to[(tile * 16 + k % 32 / 2) * 32 + n % 16 * 2 + k % 2] = from[n * layer->k + k];
    }
  return NULL;
}

/* The scales and, where there are such, zero points of a layer whose sizes are known. */
void *find_scales(const Layer *layer, const void *info, size_t first, int64_t rows, Input *scale, Input *zero) {
  *zero = (Input){0};
  void *bad = constant(info, first, scale);
  if (bad) return bad;
  if (layer->spec->scales) { /* rows of bytes are filled up to whole units */
    if (scale->type != UINT8 || !is_matrix(scale, rows, (layer->groups + 7) / 8 * 8))
      return status(INVALID, "qcc: scales are uint8 [out, groups filled up to a multiple of 8]");
  } else if ((scale->type != FLOAT && scale->type != FLOAT16) || !is_matrix(scale, rows, layer->groups))
    return status(INVALID, "qcc: scales are float16 or float32 [out, groups]");
  if (layer->spec->family->halves && scale->type != FLOAT16) return status(INVALID, "qcc: scales of groups are float16");
  if (layer->spec->symmetric) return NULL;
  if ((bad = constant(info, first + 1, zero))) return bad;
  if (zero->type != INT8 || !is_matrix(zero, rows, layer->groups))
    return status(INVALID, "qcc: zero points are int8 [out, groups]");
  return NULL;
}

float scale_of(const Layer *layer, const Input *scale, int64_t n, int64_t group) {
  int64_t at = n * scale->dims[1] + group;
  if (scale->type == UINT8) return layer->spec->scales[((const uint8_t *)scale->data)[at]];
  return scale->type == FLOAT ? ((const float *)scale->data)[at] : half_to_float(((const uint16_t *)scale->data)[at]);
}

/* The code of zero. */
int middle_of(const Spec *spec, const Input *zero, int64_t at) {
  return (1 << (spec->bits - 1)) + (zero->data ? ((const int8_t *)zero->data)[at] : 0);
}

/* The sizes that the first plane of each part tells, and room for all. */
static void *measure_parts(Layer *layer, const void *info) {
  const Spec *spec = layer->spec;
  int widths[4];
  int64_t outputs = 0, k = 0;
  planes_of(spec->bits, widths);
  for (int part = 0; part < spec->count; part++) {
    Input input;
    void *bad = constant(info, layer->begin + (size_t)(part * weight_inputs(spec)), &input);
    if (bad) return bad;
    if (input.type != UINT8 || input.rank != 2) return status(INVALID, "qcc: a plane is a matrix of uint8");
    int64_t inputs = input.dims[1] * 8 / widths[0];
    outputs += layer->sizes[part] = input.dims[0];
    if (spec->count > 1 && (input.dims[0] % STRIP || (part && inputs != k)))
      return status(INVALID, "qcc: outputs of products of one input are multiples of 64");
    k = inputs;
  }
  if (spec->woven && layer->sizes[0] != layer->sizes[1]) return status(INVALID, "qcc: both products have as many outputs");
  void *bad = make_room(layer, outputs, k, spec->group ? spec->group : k ? k : 1);
  if (bad) return bad;
  size_t scales = (size_t)(layer->strips * STRIP * layer->groups), each = spec->family->halves ? 2 : 4;
  layer->scale = keep(scales * each);
  layer->offset = spec->symmetric ? NULL : keep(scales * 2);
  if (!layer->scale || (!spec->symmetric && !layer->offset)) return status(FAIL, NO_MEMORY);
  memset(layer->scale, 0, scales * each);
  if (layer->offset) memset(layer->offset, 0, scales * 2);
  return NULL;
}

static void *fill_part(Layer *layer, const void *info, int part) {
  const Spec *spec = layer->spec;
  int widths[4], count = planes_of(spec->bits, widths);
  size_t begin = layer->begin + (size_t)(part * weight_inputs(spec));
  Input input, scale, zero;
  void *bad;
  for (int p = 0, first = 0; p < count; first += widths[p++]) {
    if ((bad = constant(info, begin + (size_t)p, &input))) return bad;
    if (input.type != UINT8 || !is_matrix(&input, layer->sizes[part], layer->k * widths[p] / 8))
      return status(INVALID, "qcc: a plane's shape is wrong");
    pack_plane(layer, part, input.data, widths[p], first);
  }
  if ((bad = find_scales(layer, info, begin + (size_t)count, layer->sizes[part], &scale, &zero))) return bad;
  for (int64_t row = 0; row < layer->sizes[part]; row++)
    for (int64_t g = 0, n = place_of(layer, part, row); g < layer->groups; g++) {
      int64_t from = row * layer->groups + g, to = ((n / 16) * layer->groups + g) * 16 + n % 16;
      if (spec->family->halves) ((uint16_t *)layer->scale)[to] = ((const uint16_t *)scale.data)[from];
      else ((float *)layer->scale)[to] = scale_of(layer, &scale, row, g);
      if (layer->offset) layer->offset[to] = (int16_t)middle_of(spec, &zero, from);
    }
  return NULL;
}

static void *fill_codes(Layer *layer, const void *info) {
  void *bad = measure_parts(layer, info);
  for (int part = 0; !bad && part < layer->spec->count; part++) bad = fill_part(layer, info, part);
  return bad;
}

static void *fill_step(Layer *layer, const void *info) {
  Input input;
  if (!layer->spec->fixed) return NULL;
  void *bad = constant(info, layer->begin + (size_t)weight_inputs(layer->spec) - 1, &input);
  if (bad) return bad;
  if (input.type != FLOAT || input.rank) return status(INVALID, "qcc: the step of the activations is one float32");
  if (layer->k > LONGEST) return status(INVALID, "qcc: the layer has too many inputs to add up as integers");
  layer->step = *(const float *)input.data;
  if (layer->step >= 0x1p-126f && layer->step <= 0x1p126f) return NULL; /* the inverse is a normal number, too */
  return status(INVALID, "qcc: the step of the activations is out of range");
}

static void *fill_vectors(Layer *layer, const void *info) {
  const char *operands = layer->spec->operands;
  const Spec *spec = layer->spec;
  size_t count = strlen(operands), next = layer->begin + (size_t)(weight_inputs(spec) * spec->count);
  if (!(layer->vectors = calloc(count + 1, sizeof(float *)))) return status(FAIL, NO_MEMORY);
  for (int i = 0, part = 0, end = spec->parts->operands; i < (int)count; i++) {
    Input input;
    while (part + 1 < spec->count && i >= end) end += spec->parts[++part].operands;
    if (operands[i] != 'v') { next += !spec->woven; continue; }
    void *bad = constant(info, next++, &input);
    if (bad) return bad;
    if (input.type != FLOAT || input.rank != 1 || input.dims[0] != layer->sizes[part])
      return status(INVALID, "qcc: the vectors of steps (bias, gain, shift) are float32 [out]");
    size_t bytes = (size_t)input.dims[0] * 4;
    if (!(layer->vectors[i] = malloc(bytes))) return status(FAIL, NO_MEMORY);
    memcpy(layer->vectors[i], input.data, bytes);
  }
  if (!layer->spec->norm) return NULL;
  return ORT(FLOAT_ATTRIBUTE, const void *, const char *, float *)(info, "epsilon", &layer->epsilon);
}

size_t inputs_of(const Spec *spec) {
  return (size_t)(weight_inputs(spec) * spec->count - spec->woven) + strlen(spec->operands);
}

void *make_layer(const Spec *spec, const void *info, size_t begin, Layer **made) {
  Layer *layer = calloc(1, sizeof *layer);
  if (!layer) return status(FAIL, NO_MEMORY);
  layer->spec = spec, layer->begin = begin;
  void *bad = spec->pointwise ? fill_filters(layer, info) : spec->high ? fill_tiles(layer, info) : spec->bits == 16 ? fill_floats(layer, info) : fill_codes(layer, info);
  if (spec->count == 1) layer->sizes[0] = layer->n;
  if (!bad) bad = fill_step(layer, info);
  if (!bad) bad = fill_vectors(layer, info);
  if (!bad) bad = let_go(info, begin, (size_t)(weight_inputs(spec) * spec->count));
  if (bad) free_layer(layer); else *made = layer;
  return bad;
}
