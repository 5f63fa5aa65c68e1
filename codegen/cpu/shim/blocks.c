/* Weights of which some tiles are stored alone: each a row of what the first inputs hold, in the order of its number in
 * the last, [tiles down, tiles across], from 1 on; 0 is a tile of zeros, of which nothing is kept here. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64 /* that all strips of a task are multiplied with while they are in the second cache */,
       ALONE = 4 /* rows that are faster one by one than filled up */, TURN_WORK = 8 /* products that take as long as a value */,
       LANES = 16, FEW = 16 /* rows with which strips are */, LONG = 8 /* times as long */ };
static const char NO_MEMORY[] = "qcc: out of memory";

/* What rows of tiles are stored as: numbers, or codes [count, size] with their scales by groups. */
typedef struct { Layer rows; Input values, scale, zero; uint8_t *codes; int64_t size, group; } Stored;

static void *read_codes(Stored *stored, const void *info) {
  int widths[4], count = planes_of(stored->rows.spec->bits, widths);
  Input plane;
  for (int p = 0, first = 0; p < count; first += widths[p++]) {
    void *bad = constant(info, 1 + (size_t)p, &plane);
    if (bad) return bad;
    if (plane.type == UINT8 && plane.rank == 2 && !p) stored->rows.n = plane.dims[0];
    int64_t bytes = (stored->size + 7) / 8 * widths[p];
    if (plane.type != UINT8 || !is_matrix(&plane, stored->rows.n, bytes))
      return status(INVALID, "qcc: a plane is a matrix of uint8, tiles as rows");
    if (!p && !(stored->codes = calloc((size_t)stored->rows.n + 1, (size_t)stored->size))) return status(FAIL, NO_MEMORY);
    int each = 8 / widths[p], mask = (1 << widths[p]) - 1;
    for (int64_t row = 0; row < stored->rows.n; row++)
      for (int64_t i = 0; i < stored->size; i++) {
        uint8_t byte = ((const uint8_t *)plane.data)[row * bytes + i / each];
        stored->codes[row * stored->size + i] |= (uint8_t)((byte >> widths[p] * (i % each) & mask) << first);
      }
  }
  stored->group = stored->rows.spec->group ? stored->rows.spec->group : stored->size;
  if (stored->size % stored->group) return status(INVALID, "qcc: tiles are a multiple of the group");
  stored->rows.groups = stored->size / stored->group;
  return find_scales(&stored->rows, info, 1 + (size_t)count, stored->rows.n, &stored->scale, &stored->zero);
}

static void *read_stored(Stored *stored, const void *info) {
  int bits = stored->rows.spec->bits;
  if (bits < 16) return read_codes(stored, info);
  void *bad = constant(info, 1, &stored->values);
  if (bad) return bad;
  if (stored->values.type != (bits == 16 ? BFLOAT16 : FLOAT) || stored->values.rank != 2 || stored->values.dims[1] != stored->size)
    return status(INVALID, "qcc: tiles are rows of floats, as long as a tile is large");
  stored->rows.n = stored->values.dims[0];
  return NULL;
}

/* A code less its zero; what it stands for, scale included. */
static int whole_at(const Stored *stored, int64_t row, int64_t i) {
  return stored->codes[row * stored->size + i] - middle_of(stored->rows.spec, &stored->zero, row * stored->rows.groups + i / stored->group);
}

static float float_at(const Stored *stored, int64_t row, int64_t i) {
  const Spec *spec = stored->rows.spec;
  int64_t at = row * stored->size + i;
  if (spec->bits == 32) return ((const float *)stored->values.data)[at];
  if (spec->bits == 16) { union { uint32_t u; float f; } wide = {.u = (uint32_t)((const uint16_t *)stored->values.data)[at] << 16}; return wide.f; }
  float number = spec->numbers ? spec->numbers[stored->codes[at]] : (float)whole_at(stored, row, i);
  return number * scale_of(&stored->rows, &stored->scale, row, i / stored->group);
}

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
  if (!layer->starts || !layer->places || !(*of = malloc(room))) return status(FAIL, NO_MEMORY);
  kept = 0;
  for (int64_t at = 0; at < down * across; at++) {
    if (at % across == 0) layer->starts[at / across] = (int32_t)kept;
    int64_t number = number_of(numbers, at);
    if (number) (*of)[kept] = (int32_t)number, layer->places[kept++] = (int32_t)(at % across);
  }
  layer->starts[down] = (int32_t)kept, layer->places[kept] = 0 /* looked at ahead */, *count = kept;
  return NULL;
}

/* A tile [high, wide] with the weights of so many neighbouring outputs for one input side by side. */
static void turn_floats(const Stored *stored, int64_t row, float *to, int64_t high, int64_t wide, int64_t lanes) {
  for (int64_t n = 0; n < high; n++)
    for (int64_t k = 0; k < wide; k++) to[(n / lanes * wide + k) * lanes + n % lanes] = float_at(stored, row, n * wide + k);
}

/* The same of whole numbers, so many inputs of 16 outputs side by side, and the scale of each output; four are 128 more
 * where activations have a sign, and else what 128 more of those add is counted. */
static void turn_whole(const Stored *stored, int64_t row, int8_t *to, float *scale, float *less, const Spec *spec) {
  int64_t high = spec->high, wide = spec->wide, beside = spec->family->beside;
  int more = beside == 4 && !less ? 128 : 0;
  for (int64_t n = 0; n < high; n++) {
    scale[n] = scale_of(&stored->rows, &stored->scale, row, n * wide / stored->group);
    int32_t sum = 0;
    for (int64_t k = 0, code; k < wide; k++) {
      sum += (int32_t)(code = whole_at(stored, row, n * wide + k));
      to[((n / LANES * wide + k) / beside * LANES + n % LANES) * beside + k % beside] = (int8_t)(code + more);
    }
    if (less) less[n] -= scale[n] * (float)(128 * sum);
  }
}

static uint16_t to_bfloat16(float number) {
  union { float f; uint32_t u; } wide = {.f = number};
  if ((wide.u & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;
  return (uint16_t)((wide.u + 0x7FFF + (wide.u >> 16 & 1)) >> 16);
}

/* The same as bfloat16, tile by tile of AMX: so many inputs of 16 outputs, pairs of inputs side by side. */
static void turn_tiles(const Stored *stored, int64_t row, uint16_t *to, int64_t high, int64_t wide, int64_t step) {
  for (int64_t n = 0; n < high; n++)
    for (int64_t k = 0; k < wide; k++) {
      int64_t tile = n / LANES * (wide / step) + k / step;
      to[((tile * step + k % step) / 2 * LANES + n % LANES) * 2 + k % 2] = to_bfloat16(float_at(stored, row, n * wide + k));
    }
}

static void *turn_all(Layer *layer, const Stored *stored, const int32_t *of, int64_t count) {
  const Spec *spec = layer->spec;
  const Family *family = spec->family;
  int64_t size = stored->size, whole = family->rounds;
  layer->words = keep((size_t)(count * size) * (whole ? 1 : family->gemm ? 2 : 4) + 64);
  if (whole) layer->scale = keep((size_t)(count * spec->high) * 4 + 64);
  if (family->stepped) layer->less = aligned_alloc(64, padded((size_t)layer->n * 4));
  if (!layer->words || (whole && !layer->scale) || (family->stepped && !layer->less)) return status(FAIL, NO_MEMORY);
  if (layer->less) memset(layer->less, 0, (size_t)layer->n * 4);
  for (int64_t at = 0, down = 0; at < count; at++) {
    while (layer->starts[down + 1] <= at) down++;
    float *less = layer->less ? layer->less + down * spec->high : NULL;
    if (whole) turn_whole(stored, of[at] - 1, (int8_t *)layer->words + at * size, (float *)layer->scale + at * spec->high, less, spec);
    else if (family->gemm) turn_tiles(stored, of[at] - 1, (uint16_t *)layer->words + at * size, spec->high, spec->wide, family->chunks);
    else turn_floats(stored, of[at] - 1, (float *)layer->words + at * size, spec->high, spec->wide, spec->family->lanes);
  }
  return NULL;
}

void *fill_tiles(Layer *layer, const void *info) {
  const Spec *spec = layer->spec;
  Stored stored = {.rows = {.spec = spec}, .size = (int64_t)spec->high * spec->wide};
  Input numbers;
  int32_t *of = NULL;
  int64_t count = 0;
  void *bad = constant(info, (size_t)(weight_inputs(spec) - spec->fixed), &numbers);
  if (!bad && ((numbers.type != UINT16 && numbers.type != INT32) || numbers.rank != 2 || numbers.dims[0] < 1 || numbers.dims[1] < 1))
    bad = status(INVALID, "qcc: the numbers of tiles are a matrix of uint16 or int32");
  if (!bad) bad = read_stored(&stored, info);
  if (!bad) {
    layer->n = numbers.dims[0] * spec->high, layer->k = numbers.dims[1] * spec->wide;
    bad = find_places(layer, &numbers, stored.rows.n, &of, &count);
  }
  if (!bad) bad = turn_all(layer, &stored, of, count);
  free(of), free(stored.codes);
  return bad;
}

/* ---- a call: strips of at least 64 outputs ---- */
static int64_t rows_of_strip(const Spec *spec) { return spec->high < STRIP ? STRIP / spec->high : 1; }

/* Rows are multiplied some at a time, the rest of them by fours, and one by one. */
typedef struct { Kernel kernel; int64_t end, each; } Zone;

/* The rows that are multiplied some at a time; where they are copied for it, a last few are filled up. */
static int64_t whole_rows(const Call *call) {
  const Family *family = call->layer->spec->family;
  int64_t rest = call->rows % family->together;
  if (family->gemm) return call->rows < family->many ? 0 : call->rows - rest + (rest ? family->together : 0);
  return call->rows - rest + (family->panels && rest > ALONE ? family->together : 0);
}

static Zone zone_of(const Call *call, int64_t row) {
  const Family *family = call->layer->spec->family;
  int64_t whole = whole_rows(call), fours = call->rows - call->rows % 4;
  if (row < whole) return (Zone){family->gemm ? family->gemm : family->some, whole, family->together};
  if (family->four && row < fours) return (Zone){family->four, fours, 4};
  return (Zone){family->one, call->rows, 1};
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

static const uint8_t narrow_config[64] __attribute__((aligned(64))) = { /* activations and weights are half as wide */
    [0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 32, [26] = 32, [28] = 64, [30] = 64,
    [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 8, [55] = 8};

/* A strip of rows of one zone. */
static int strip(Call *call, int64_t row, int64_t rows, int64_t first, int64_t count, float *out, int64_t stride, Zone zone) {
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  const float *x = zone.each > 1 && family->panels && zone.kernel == family->some ? (const float *)call->inputs : call->x;
  int64_t size = 1 << 30, groups = rows / zone.each;
  Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
  if (family->stepped) {
    Any args[] = {POINTER(call->inputs + row * l->k), POINTER(call->steps + row), POINTER(l->words), POINTER(l->scale),
                  POINTER(l->less), POINTER(l->starts), POINTER(l->places), TENSOR(&y),
                  NUMBER(groups), NUMBER(l->k), NUMBER(stride), NUMBER(first), NUMBER(count)};
    return CALL(zone.kernel, args);
  }
  if (family->rounds) {
    Any args[] = {POINTER((const int16_t *)call->inputs + row * l->k), POINTER(call->steps + row * (l->k / family->chunks)),
                  POINTER(l->words), POINTER(l->scale), POINTER(l->starts), POINTER(l->places), TENSOR(&y),
                  NUMBER(groups), NUMBER(l->k), NUMBER(stride), NUMBER(first), NUMBER(count)};
    return CALL(zone.kernel, args);
  }
  if (family->gemm && zone.kernel == family->gemm) {
    Any args[] = {POINTER(call->inputs + row * l->k * 2), POINTER(l->words), POINTER(l->starts), POINTER(l->places),
                  POINTER(family->chunks < CHUNK ? narrow_config : tile_config), TENSOR(&y),
                  NUMBER(groups), NUMBER(l->k), NUMBER(stride), NUMBER(first), NUMBER(count)};
    return CALL(zone.kernel, args);
  }
  Any args[] = {POINTER(x + row * l->k), POINTER(l->words), POINTER(l->starts), POINTER(l->places), TENSOR(&y),
                NUMBER(groups), NUMBER(l->k), NUMBER(stride), NUMBER(first), NUMBER(count)};
  return CALL(zone.kernel, args);
}

static void tiles_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  const Spec *spec = l->spec;
  int64_t each = rows_of_strip(spec), down = l->n / spec->high, filled = whole_rows(call), most = call->rows <= FEW ? each * LONG : each;
  int64_t begin = (int64_t)task * call->share * each, end = begin + call->share * each < down ? begin + call->share * each : down;
  if (most > end - begin) most = end - begin;
  int64_t stride = (most * spec->high + 15) / 16 * 16, all = filled > call->rows ? filled : call->rows;
  float *out = arena(TASK_ARENA, (size_t)((all < ROWS ? all : ROWS) * stride) * 4);
  if (!out) { fail(call); return; }
  for (int64_t row = 0, rows; row < call->rows; row += rows) {
    Zone zone = zone_of(call, row);
    rows = zone.end - row < ROWS ? zone.end - row : ROWS;
    int64_t there = row + rows < call->rows ? rows : call->rows - row;
    int whole = there == rows && spec->high % 16 == 0 && (uintptr_t)call->to[0] % 64 == 0; /* goes where it belongs */
    for (int64_t first = begin; first < end; first += most) {
      int64_t count = end - first < most ? end - first : most, apart = whole ? l->n : stride;
      float *to = whole ? call->to[0] + row * l->n + first * spec->high : out;
      if (strip(call, row, rows, first, count, to, apart, zone)) { fail(call); return; }
      if (!whole || !spec->parts->copies) finish(call, to, apart, row, there, first * spec->high, count * spec->high);
    }
  }
}

/* Rows as tiles of AMX: [groups, steps, 16, inputs of a step] bfloat16. */
static void pack_tiles_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  int64_t row = (int64_t)task * call->share * LANES, rows = call->rows - row < call->share * LANES ? call->rows - row : call->share * LANES;
  Any args[] = {POINTER(call->x + row * l->k), POINTER(call->inputs + row * l->k * 2), TENSOR(&none_filled),
                NUMBER(l->k / l->spec->family->chunks), NUMBER(rows)};
  if (CALL(l->spec->family->pack, args)) fail(call);
}

static void *pack_tiles(void *context, Call *call, int64_t whole) {
  int64_t k = call->layer->k;
  if (!(call->inputs = arena(CALL_ARENA, (size_t)(whole * k) * 2))) return status(FAIL, NO_MEMORY);
  if (call->rows < whole) memset(call->inputs + (whole - LANES) * k * 2, 0, (size_t)(LANES * k) * 2);
  call->tiles = whole / LANES;
  return spread_tasks(context, call, pack_tiles_task, call->tiles, k * LANES);
}

/* Rows as bytes, each by a step of its own or of the model's; or by neighbours. */
static void round_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  int64_t row = (int64_t)task * call->share, rows = call->rows - row < call->share ? call->rows - row : call->share;
  int64_t chunks = family->stepped ? 1 : l->k / family->chunks;
  float *steps = call->steps + row * chunks;
  for (int64_t at = 0; l->spec->fixed && at < rows * chunks; at++) steps[at] = l->step;
  if (family->stepped) {
    Any args[] = {POINTER(call->x + row * l->k), POINTER(call->inputs + row * l->k), POINTER(steps),
                  TENSOR(&none_filled), NUMBER(l->k), NUMBER(rows)};
    if (CALL(family->quantize, args)) fail(call);
    return;
  }
  Any args[] = {POINTER(call->x + row * l->k), POINTER((int16_t *)call->inputs + row * l->k), POINTER(steps),
                TENSOR(&none_filled), NUMBER(rows * chunks)};
  if (CALL(family->quantize, args)) fail(call);
}

static void *round_rows(void *context, Call *call) {
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  size_t steps = (size_t)(family->stepped ? call->rows : call->rows * (l->k / family->chunks));
  size_t bytes = padded((size_t)(call->rows * l->k) * (family->stepped ? 1 : 2));
  if (!(call->inputs = arena(CALL_ARENA, bytes + steps * 4))) return status(FAIL, NO_MEMORY);
  call->steps = (float *)(call->inputs + bytes);
  return spread_tasks(context, call, round_task, call->rows, l->k * TURN_WORK);
}

void *multiply_tiles(void *context, Call *call) {
  const Layer *l = call->layer;
  const Spec *spec = l->spec;
  const Family *family = spec->family;
  int64_t down = l->n / spec->high, each = rows_of_strip(spec), strips = (down + each - 1) / each;
  int64_t kept = (int64_t)l->starts[down] * spec->high * spec->wide, whole = whole_rows(call);
  if (family->rounds) {
    void *bad = round_rows(context, call);
    if (bad) return bad;
  }
  if (family->gemm && whole) {
    void *bad = pack_tiles(context, call, whole);
    if (bad) return bad;
  }
  if (family->panels && whole) {
    call->tiles = whole / family->together;
    if (!(call->inputs = arena(CALL_ARENA, (size_t)(whole * l->k) * 4))) return status(FAIL, NO_MEMORY);
    void *bad = spread_tasks(context, call, side_task, call->tiles, l->k * family->together * TURN_WORK);
    if (bad) return bad;
  }
  return spread_tasks(context, call, tiles_task, strips, call->rows * (kept / strips) + 1);
}
