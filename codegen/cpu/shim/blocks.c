/* Weights of which some tiles are stored alone: each a row of the first input, in the order of its number in the last,
 * [tiles down, tiles across], from 1 on; 0 is a tile of zeros, of which nothing is kept here. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64 /* that all strips of a task are multiplied with while they are in the second cache */,
       ALONE = 4 /* rows that are faster one by one than filled up */, TURN_WORK = 8 /* products that take as long as a value */ };

static int64_t number_of(const Input *numbers, int64_t at) {
  return numbers->type == UINT16 ? ((const uint16_t *)numbers->data)[at] : ((const int32_t *)numbers->data)[at];
}

/* The starts and places of tiles that are kept; `of` is their numbers, so many in all. */
static void *find_places(Layer *layer, const Input *numbers, int64_t stored, int32_t **of, int64_t *count) {
  int64_t down = numbers->dims[0], across = numbers->dims[1], kept = 0;
  for (int64_t at = 0; at < down * across; at++) {
    int64_t number = number_of(numbers, at);
    if (number < 0 || number > stored) return status(INVALID, "qcc: there is no tile of such a number");
    kept += number > 0;
  }
  size_t room = padded((size_t)(kept + 1) * 4);
  layer->starts = aligned_alloc(64, padded((size_t)(down + 1) * 4)), layer->places = aligned_alloc(64, room);
  if (!layer->starts || !layer->places || !(*of = malloc(room))) return status(FAIL, "qcc: out of memory");
  kept = 0;
  for (int64_t at = 0; at < down * across; at++) {
    if (at % across == 0) layer->starts[at / across] = (int32_t)kept;
    int64_t number = number_of(numbers, at);
    if (number) (*of)[kept] = (int32_t)number, layer->places[kept++] = (int32_t)(at % across);
  }
  layer->starts[down] = (int32_t)kept, *count = kept;
  return NULL;
}

/* A tile [high, wide] with the weights of so many neighbouring outputs for one input side by side. */
static void turn(const float *from, float *to, int64_t high, int64_t wide, int64_t lanes) {
  for (int64_t n = 0; n < high; n++)
    for (int64_t k = 0; k < wide; k++) to[(n / lanes * wide + k) * lanes + n % lanes] = from[n * wide + k];
}

void *fill_tiles(Layer *layer, const void *info) {
  const Spec *spec = layer->spec;
  int64_t high = spec->high, wide = spec->wide, size = high * wide, count = 0;
  Input tiles, numbers;
  void *bad = constant(info, 1, &tiles);
  if (bad || (bad = constant(info, (size_t)weight_inputs(spec), &numbers))) return bad;
  if (tiles.type != FLOAT || tiles.rank != 2 || tiles.dims[1] != size)
    return status(INVALID, "qcc: tiles are rows of float32, as long as a tile is large");
  if ((numbers.type != UINT16 && numbers.type != INT32) || numbers.rank != 2 || numbers.dims[0] < 1 || numbers.dims[1] < 1)
    return status(INVALID, "qcc: the numbers of tiles are a matrix of uint16 or int32");
  layer->n = numbers.dims[0] * high, layer->k = numbers.dims[1] * wide;
  int32_t *of = NULL;
  bad = find_places(layer, &numbers, tiles.dims[0], &of, &count);
  if (!bad && !(layer->words = aligned_alloc(64, padded((size_t)(count * size) * 4 + 4)))) bad = status(FAIL, "qcc: out of memory");
  for (int64_t at = 0; at < count && !bad; at++)
    turn((const float *)tiles.data + (of[at] - 1) * size, (float *)layer->words + at * size, high, wide, spec->family->lanes);
  free(of);
  return bad;
}

/* ---- a call: strips of at least 64 outputs ---- */
static int64_t rows_of_strip(const Spec *spec) { return spec->high < STRIP ? STRIP / spec->high : 1; }

/* The rows that are multiplied some at a time; where they lie side by side, a last few are filled up. */
static int64_t whole_rows(const Call *call) {
  const Family *family = call->layer->spec->family;
  int64_t rest = call->rows % family->together;
  return call->rows - rest + (family->panels && rest > ALONE ? family->together : 0);
}

/* Rows side by side: [groups, inputs, together]. */
static void side_task(void *p, size_t task) {
  Call *call = p;
  int64_t k = call->layer->k, each = call->layer->spec->family->together, row = (int64_t)task * call->share * each;
  for (int64_t end = row + call->share * each; row < end && row < call->tiles * each; row++) {
    float *to = (float *)call->inputs + row / each * each * k + row % each;
    const float *from = call->x + row * k;
    for (int64_t i = 0; i < k; i++) to[i * each] = row < call->rows ? from[i] : 0;
  }
}

/* A strip of rows that are whole groups, or single ones. */
static int strip(Call *call, int64_t row, int64_t rows, int64_t first, int64_t count, float *out, int64_t stride, int one) {
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  const float *x = !one && family->panels ? (const float *)call->inputs : call->x;
  int64_t size = 1 << 30;
  Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
  Any args[] = {POINTER(x + row * l->k), POINTER(l->words), POINTER(l->starts), POINTER(l->places), TENSOR(&y),
                NUMBER(one ? rows : rows / family->together), NUMBER(l->k), NUMBER(stride), NUMBER(first), NUMBER(count)};
  return CALL(one ? family->one : family->some, args);
}

static void tiles_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  const Spec *spec = l->spec;
  int64_t each = rows_of_strip(spec), down = l->n / spec->high, stride = (each * spec->high + 15) / 16 * 16;
  int64_t whole = whole_rows(call), all = whole > call->rows ? whole : call->rows;
  float *out = arena(TASK_ARENA, (size_t)((all < ROWS ? all : ROWS) * stride) * 4);
  if (!out) { fail(call); return; }
  int64_t begin = (int64_t)task * call->share * each, end = begin + call->share * each < down ? begin + call->share * each : down;
  for (int64_t row = 0, rows; row < call->rows; row += rows) {
    int64_t end_row = row < whole ? whole : call->rows;
    rows = end_row - row < ROWS ? end_row - row : ROWS;
    int64_t there = row + rows < call->rows ? rows : call->rows - row;
    for (int64_t first = begin; first < end; first += each) {
      int64_t count = end - first < each ? end - first : each;
      if (strip(call, row, rows, first, count, out, stride, row >= whole)) { fail(call); return; }
      finish(call, out, stride, row, there, first * spec->high, count * spec->high);
    }
  }
}

void *multiply_tiles(void *context, Call *call) {
  const Layer *l = call->layer;
  const Spec *spec = l->spec;
  const Family *family = spec->family;
  int64_t down = l->n / spec->high, each = rows_of_strip(spec), strips = (down + each - 1) / each;
  int64_t kept = (int64_t)l->starts[down] * spec->high * spec->wide, whole = whole_rows(call);
  if (family->panels && whole) {
    call->tiles = whole / family->together;
    if (!(call->inputs = arena(CALL_ARENA, (size_t)(whole * l->k) * 4))) return status(FAIL, "qcc: out of memory");
    void *bad = spread_tasks(context, call, side_task, call->tiles, l->k * family->together * TURN_WORK, 1);
    if (bad) return bad;
  }
  return spread_tasks(context, call, tiles_task, strips, call->rows * (kept / strips) + 1, 1);
}
