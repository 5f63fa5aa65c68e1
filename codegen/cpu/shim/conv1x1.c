/* Convolutions of one point: weight [out, in] times x [in, positions] of each image, as NCHW has it. Codes are decoded
 * once, when a layer is made; its words are tiles of bfloat16 [out / 32, 2, chunks, 16, 32], filled up with zeros. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

enum { PANEL = 64 << 10 /* bytes of activations that a task packs at once, about */,
       TASK_WORK = 1 << 20 /* products of a task, at least */ };

static uint16_t to_bfloat16(float value) {
  union { float f; uint32_t u; } in = {.f = value};
  if (value != value) return (uint16_t)(in.u >> 16 | 64);
  return (uint16_t)((in.u + 0x7fff + (in.u >> 16 & 1)) >> 16);
}

static void *make_tiles(Layer *layer, int64_t outputs, int64_t inputs) {
  if (outputs < 1 || inputs < 8 || inputs % 8) return status(INVALID, "qcc: channels are a multiple of 8");
  layer->n = outputs, layer->k = inputs, layer->chunks = (inputs + CHUNK - 1) / CHUNK;
  size_t bytes = (size_t)((outputs + 31) / 32 * layer->chunks) * 2048;
  if (!(layer->words = keep(bytes))) return status(FAIL, "qcc: out of memory");
  memset(layer->words, 0, bytes);
  return NULL;
}

static void put(Layer *layer, int64_t n, int64_t k, uint16_t value) {
  ((uint16_t *)layer->words)[((n / 16 * layer->chunks + k / 32) * 16 + n % 16) * 32 + k % 32] = value;
}

static void *decode(Layer *layer, const void *info, uint8_t *codes, int planes) {
  const Spec *spec = layer->spec;
  Input scale, zero;
  int64_t group = spec->group ? spec->group : layer->k;
  if (layer->k % group) return status(INVALID, "qcc: channels are a multiple of the group");
  layer->groups = layer->k / group;
  void *bad = find_scales(layer, info, 1 + (size_t)planes, layer->n, &scale, &zero);
  if (bad) return bad;
  for (int64_t n = 0; n < layer->n; n++)
    for (int64_t k = 0; k < layer->k; k++) {
      int64_t at = n * layer->groups + k / group;
      int code = codes[n * layer->k + k];
      float number = spec->numbers ? spec->numbers[code] : (float)(code - middle_of(spec, &zero, at));
      put(layer, n, k, to_bfloat16(number * scale_of(layer, &scale, n, k / group)));
    }
  return NULL;
}

static void *fill_codes(Layer *layer, const void *info) {
  int widths[4], count = planes_of(layer->spec->bits, widths);
  uint8_t *codes = NULL;
  Input plane;
  void *bad = NULL;
  for (int p = 0, first = 0; p < count && !bad; first += widths[p++]) {
    if ((bad = constant(info, 1 + (size_t)p, &plane))) break;
    if (plane.type != UINT8 || plane.rank != 2) { bad = status(INVALID, "qcc: a plane is a matrix of uint8"); break; }
    if (!p) {
      if ((bad = make_tiles(layer, plane.dims[0], plane.dims[1] * 8 / widths[0]))) break;
      if (!(codes = calloc((size_t)layer->n, (size_t)layer->k))) { bad = status(FAIL, "qcc: out of memory"); break; }
    }
    if (!is_matrix(&plane, layer->n, layer->k * widths[p] / 8)) { bad = status(INVALID, "qcc: a plane's shape is wrong"); break; }
    int each = 8 / widths[p], mask = (1 << widths[p]) - 1;
    for (int64_t i = 0; i < layer->n * layer->k; i++) /* rows are whole bytes */
      codes[i] |= (uint8_t)((((const uint8_t *)plane.data)[i / each] >> widths[p] * (i % each) & mask) << first);
  }
  if (!bad) bad = decode(layer, info, codes, count);
  free(codes);
  return bad;
}

void *fill_filters(Layer *layer, const void *info) {
  if (layer->spec->bits < 16) return fill_codes(layer, info);
  Input input;
  void *bad = constant(info, 1, &input);
  if (bad) return bad;
  if (input.type != BFLOAT16 || input.rank != 2) return status(INVALID, "qcc: the weight is a matrix of bfloat16");
  if ((bad = make_tiles(layer, input.dims[0], input.dims[1]))) return bad;
  for (int64_t n = 0; n < layer->n; n++)
    for (int64_t k = 0; k < layer->k; k++) put(layer, n, k, ((const uint16_t *)input.data)[n * layer->k + k]);
  return NULL;
}

/* ---- a call ---- */
typedef struct {
  const Layer *layer;
  const float *x;
  float *y;
  const float **operands;
  int64_t images, positions, pairs, share; /* pairs: of 16 positions of an image; share: of a task */
  int failed;
} Conv;

/* The panel of so many pairs of tiles from a position on; False where a kernel fails. The last tile may have fewer
 * positions than are read: then the next channel's are in it, which no result depends on, but the last channels of all
 * are copied first, for there is nothing behind them. */
static int pack(const Conv *conv, const float *x, int64_t at, int64_t pairs, char *panel, float *end) {
  const Layer *l = conv->layer;
  int64_t left = conv->positions - at, tiles = left < pairs * 32 ? (left + 15) / 16 : pairs * 2;
  int64_t over = tiles * 16 - left, rows = l->k / 2, whole = rows;
  Kernel kernel = l->spec->family->pack;
  if (over > 0) {
    int64_t unsafe = (over + conv->positions - 1) / conv->positions; /* channels whose reads end behind the tensor */
    whole -= (unsafe + 1) / 2;
    if (whole < 0) whole = 0;
    for (int64_t k = 2 * whole; k < l->k; k++) {
      memset(end + (k - 2 * whole) * tiles * 16, 0, (size_t)tiles * 64);
      memcpy(end + (k - 2 * whole) * tiles * 16, x + k * conv->positions + at, (size_t)left * 4);
    }
  }
  Any most[] = {POINTER(x + at), POINTER(panel), TENSOR(&none_filled), NUMBER(conv->positions), NUMBER(0), NUMBER(whole),
                NUMBER(tiles), NUMBER(l->chunks)};
  if (CALL(kernel, most)) return 0;
  Any last[] = {POINTER(end), POINTER(panel), TENSOR(&none_filled), NUMBER(tiles * 16), NUMBER(whole), NUMBER(rows),
                NUMBER(tiles), NUMBER(l->chunks)};
  if (whole < rows && CALL(kernel, last)) return 0;
  for (int64_t tile = 0; tile < pairs * 2; tile++) {
    char *start = panel + (tile / 2 * l->chunks * 2 + tile % 2) * 1024, *tail = start + (l->chunks - 1) * 2048;
    if (tile < tiles) memset(tail + (rows - (l->chunks - 1) * 16) * 64, 0, (size_t)(l->chunks * 16 - rows) * 64);
    else for (int64_t chunk = 0; chunk < l->chunks; chunk++) memset(start + chunk * 2048, 0, 1024);
  }
  return 1;
}

static void conv_task(void *p, size_t task) {
  Conv *conv = p;
  const Layer *l = conv->layer;
  const Spec *spec = l->spec;
  int64_t blocks = (conv->pairs + conv->share - 1) / conv->share;
  int64_t image = (int64_t)task / blocks, first = (int64_t)task % blocks * conv->share, pairs = conv->share;
  if (first + pairs > conv->pairs) pairs = conv->pairs - first;
  int64_t at = first * 32, count = conv->positions - at, place = image * l->n * conv->positions + at;
  if (count > pairs * 32) count = pairs * 32;
  size_t panel = (size_t)(pairs * l->chunks) * 2048, part = 4096;
  char *scratch = arena(TASK_ARENA, panel + part + (size_t)((conv->positions < 16 ? 16 : 2) * pairs) * 128);
  if (!scratch) { __atomic_store_n(&conv->failed, 1, __ATOMIC_RELAXED); return; }
  int ok = pack(conv, conv->x + image * l->k * conv->positions, at, pairs, scratch, (float *)(scratch + panel + part));
  int chained = spec->parts->operands;
  Any args[chained + 11], *next = args;
  const Any own[] = {POINTER(l->words), POINTER(scratch), POINTER(scratch + panel), POINTER(tile_config)};
  const Any last[] = {POINTER(conv->y + place), TENSOR(&none_filled), NUMBER(l->chunks), NUMBER(pairs), NUMBER(conv->positions),
                      NUMBER(l->n), NUMBER(count)};
  memcpy(next, own, sizeof own), next += 4;
  for (int i = 0; i < chained; i++) *next++ = (Any)POINTER(conv->operands[i] + (spec->operands[i] == 'v' ? 0 : place));
  memcpy(next, last, sizeof last);
  if (!ok || CALL(spec->parts->chain, args)) __atomic_store_n(&conv->failed, 1, __ATOMIC_RELAXED);
}

void *convolve(void *layer, void *context) {
  const Layer *l = layer;
  const float *taken[strlen(l->spec->operands) + 1];
  Conv conv = {.layer = l, .operands = taken, .images = 1, .positions = 1};
  Input x;
  void *bad = input(context, 0, &x);
  if (bad) return bad;
  if (x.rank < 2 || x.dims[1] != l->k) return status(INVALID, "qcc: the channels of the input do not fit the weights");
  conv.images = x.dims[0], conv.x = x.data;
  for (size_t i = 2; i < x.rank; i++) conv.positions *= x.dims[i];
  x.dims[1] = l->n;
  memcpy(taken, l->vectors, sizeof taken);
  if ((bad = take_tensors(l, context, &x, taken)) || (bad = output(context, 0, &x, &conv.y))) return bad;
  if (!conv.images || !conv.positions) return NULL;
  conv.pairs = (conv.positions + 31) / 32;
  int64_t least = (TASK_WORK + l->n * l->k * 32 - 1) / (l->n * l->k * 32), most = PANEL / (l->chunks * 2048);
  int64_t wanted = tasks_of(&l->others, conv.images * conv.pairs * 32 * l->n * l->k / 4); /* 4 take the time of one elsewhere */
  conv.share = (conv.images * conv.pairs + wanted - 1) / wanted;
  if (conv.share > most) conv.share = most;
  if (conv.share < least) conv.share = least;
  if (conv.share > conv.pairs) conv.share = conv.pairs;
  if (conv.share < 1) conv.share = 1;
  int64_t tasks = conv.images * ((conv.pairs + conv.share - 1) / conv.share);
  if ((bad = spread(&l->others, context, &conv, conv_task, tasks))) return bad;
  return conv.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}
