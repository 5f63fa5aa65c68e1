/* ONNX Runtime custom ops over kernels that TVM made. It includes "kernels.h", written by library.py: QCC_OPS, how many
 * ops there are, and `targets`, for each processor that the library was built for what its code needs and its ops. */
#include "shim.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "kernels.h"

enum { WORK = 1 << 20 /* products of a task, at least */, KEPT_TILES = 4 /* of rows that a kept panel meets at once */,
       NORM_WORK = 32 /* products that take as long as one value of a norm */ };

void TVMFFIErrorSetRaisedFromCStrParts(const char *kind, const char **parts, int count) {
  (void)kind, (void)parts, (void)count; /* the non-zero return becomes a status */
}

/* ---- memory: a thread keeps what it needed most, and gives it back when it ends ---- */
typedef struct { char *data; size_t size; } Arena;
static pthread_key_t key;
static void release_arenas(void *p) { for (int i = 0; i < ARENAS; i++) free(((Arena *)p)[i].data); free(p); }
void *arena(int which, size_t size) {
  Arena *mine = pthread_getspecific(key);
  if (!mine) {
    if (!(mine = calloc(ARENAS, sizeof(Arena)))) return NULL;
    if (pthread_setspecific(key, mine)) { free(mine); return NULL; }
  }
  Arena *a = mine + which;
  if (a->size < size) {
    free(a->data);
    a->data = aligned_alloc(64, (size + 63) & ~(size_t)63);
    a->size = a->data ? size : 0;
  }
  return a->data;
}

/* ---- a call ---- */
void fail(Call *call) { __atomic_store_n(&call->failed, 1, __ATOMIC_RELAXED); }

static int64_t nothing;
const Tensor none_filled = {&nothing, 1, 0, 1, 2, 32, 1, &nothing, NULL, 0};

/* The steps behind a tile of the product, rows `stride` apart: as many columns as there are. */
void finish(Call *call, const float *from, int64_t stride, int64_t row, int64_t rows, int64_t first, int64_t count) {
  const Spec *spec = call->layer->spec;
  int64_t n = call->layer->n, at = row * n + first;
  if (first + count > n) count = n - first;
  Any args[spec->chained + 7], *next = args;
  *next++ = (Any)POINTER(from);
  for (int i = 0; i < spec->chained; i++)
    *next++ = (Any)POINTER(call->operands[i] + (spec->operands[i] == 'v' ? first : at));
  const Any last[] = {POINTER(call->to + at), TENSOR(&none_filled), NUMBER(stride), NUMBER(n), NUMBER(rows), NUMBER(count)};
  memcpy(next, last, sizeof last);
  if (CALL(spec->chain, args)) fail(call);
}

static void norm_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  int64_t first = (int64_t)task * call->share, rows = call->share, at = first * l->n;
  if (first + rows > call->rows) rows = call->rows - first;
  Any args[strlen(l->spec->operands) - (size_t)l->spec->chained + 6], *next = args;
  *next++ = (Any)POINTER(call->to + at);
  for (const float **operand = call->operands + l->spec->chained; *operand; operand++) *next++ = (Any)POINTER(*operand);
  const Any last[] = {POINTER(&l->epsilon), POINTER(call->y + at), TENSOR(&none_filled), NUMBER(l->n), NUMBER(rows)};
  memcpy(next, last, sizeof last);
  if (CALL(l->spec->norm, args)) fail(call);
}

static void gemv_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  int64_t first = (int64_t)task * call->share, count = call->share;
  if (first + count > l->strips) count = l->strips - first;
  float *out = arena(TASK_ARENA, (size_t)(4 * count * STRIP) * 4);
  if (!out) { fail(call); return; }
  for (int64_t row = 0, rows; row < call->rows; row += rows) {
    int64_t left = call->rows - row, four = left >= 4 || (left == 3 && family->rounds); /* our own rows have spare room */
    rows = four ? (left < 4 ? left : 4) : 1;
    int64_t size = (four ? 4 : 1) * count * STRIP, at = row * l->chunks;
    Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
    const void *in = family->rounds ? (const void *)(call->inputs + at * CHUNK) : (const void *)(call->x + at * CHUNK);
    Any args[] = {POINTER(in), POINTER(call->steps + at), POINTER((int32_t *)call->sums + at), POINTER(l->words),
                  POINTER(l->scale), POINTER(l->offset), TENSOR(&y), NUMBER(l->chunks), NUMBER(l->chunks / l->groups),
                  NUMBER(first), NUMBER(count)};
    if (CALL(four ? family->four : family->one, args)) { fail(call); return; }
    finish(call, out, count * STRIP, row, rows, first * STRIP, count * STRIP);
  }
}

const uint8_t tile_config[64] __attribute__((aligned(64))) = {
    [0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
    [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};

static void gemm_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  int64_t first = (int64_t)task * call->share, pairs = (l->n + 31) / 32 - first, block = call->block;
  int64_t count = (l->chunks + family->chunks - 1) / family->chunks; /* steps along the inputs */
  if (pairs > call->share) pairs = call->share;
  int keep = block < call->tiles; /* other rows will need the panel */
  size_t panel = (size_t)(keep ? pairs * count : family->depth) * 2048, parts = (size_t)block * 2048;
  char *scratch = arena(TASK_ARENA, panel + parts + (size_t)(block * pairs) * 2048);
  if (!scratch) { fail(call); return; }
  for (int64_t tile = 0, tiles; tile < call->tiles; tile += tiles) {
    tiles = call->tiles - tile < block ? call->tiles - tile : block;
    int64_t rows = call->rows - tile * 16, row = tile * 16, size = 1 << 30;
    if (rows > tiles * 16) rows = tiles * 16;
    float *out = call->to + row * l->n + first * 32;
    /* whole tiles go where they belong; the steps change them there, if they are whole vectors there, too */
    int whole = rows == tiles * 16 && (first + pairs) * 32 <= l->n;
    if (!l->spec->copies && (l->n % 16 || (uintptr_t)out % 64)) whole = 0;
    int64_t stride = whole ? l->n : pairs * 32;
    if (!whole) out = (float *)(scratch + panel + parts);
    Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
    Any args[] = {POINTER(call->inputs + tile * count * 1024), POINTER(l->words), POINTER(call->steps + row),
                  POINTER((int32_t *)call->sums + row), POINTER(l->scale), POINTER(l->offset), POINTER(scratch),
                  POINTER(scratch + panel), POINTER(tile_config), TENSOR(&y), NUMBER(l->chunks),
                  NUMBER(l->chunks / l->groups), NUMBER(first), NUMBER(pairs), NUMBER(tiles), NUMBER(stride),
                  NUMBER(!tile || !keep), NUMBER(keep)};
    if (CALL(family->gemm, args)) { fail(call); return; }
    if (!whole || !l->spec->copies) finish(call, out, stride, row, rows, first * 32, pairs * 32);
  }
}

void *spread_tasks(void *context, Call *call, void (*task)(void *, size_t), int64_t units, int64_t work, int64_t least) {
  call->share = work >= WORK ? 1 : (WORK + work - 1) / work;
  if (call->share < least) call->share = least;
  int64_t tasks = (units + call->share - 1) / call->share;
  if (tasks == 1) { task(call, 0); return NULL; }
  return ORT(PARALLEL_FOR, const void *, void (*)(void *, size_t), size_t, size_t, void *)(context, task, (size_t)tasks, 0, call);
}

/* Room for so many bytes of activations, and for a step and a sum of each unit of them that may be rounded. */
static int take_room(Call *call, size_t bytes, size_t units) {
  size_t each = padded(units * 4);
  if (!(call->inputs = arena(CALL_ARENA, padded(bytes) + 2 * each))) return 0;
  call->steps = (float *)(call->inputs + padded(bytes)), call->sums = call->inputs + padded(bytes) + each;
  for (size_t i = 0; i < units && call->layer->spec->fixed; i++) call->steps[i] = call->layer->step;
  return 1;
}

/* Rows as tiles: so many tiles a task. */
static void pack_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  int64_t first = (int64_t)task * call->share, row = first * 16, rows = call->rows - row;
  int64_t count = (l->chunks + family->chunks - 1) / family->chunks;
  if (rows > call->share * 16) rows = call->share * 16;
  Any args[] = {POINTER(call->x + row * l->k), POINTER(call->inputs + first * count * 1024), POINTER(call->steps + row),
                POINTER((int32_t *)call->sums + row), TENSOR(&none_filled), NUMBER(l->chunks), NUMBER(rows)};
  if (CALL(family->pack, args)) fail(call);
}

static void *multiply_many(const Layer *l, void *context, Call *call) {
  const Family *family = l->spec->family;
  int64_t count = (l->chunks + family->chunks - 1) / family->chunks, pairs = (l->n + 31) / 32;
  call->tiles = (call->rows + 15) / 16;
  size_t tile = (size_t)count * 1024, bytes = (size_t)call->tiles * tile, units = (size_t)call->tiles * 16;
  if (!take_room(call, bytes, units)) return status(FAIL, "qcc: out of memory");
  if (call->rows % 16) {
    size_t rest = (units - (size_t)call->rows) * 4;
    memset(call->inputs + bytes - tile, 0, tile);
    memset(call->steps + call->rows, 0, rest), memset((int32_t *)call->sums + call->rows, 0, rest);
  }
  void *bad = spread_tasks(context, call, pack_task, call->tiles, l->k * 16 * 32, 1);
  if (bad) return bad;
  call->block = call->tiles <= family->block ? call->tiles : KEPT_TILES;
  int64_t fit = family->panel / (count * 2048), most = pairs / 4; /* some for each of four threads */
  return spread_tasks(context, call, gemm_task, pairs, call->tiles * l->k * 32, fit < most ? fit : most);
}

static void *multiply(const Layer *l, void *context, Call *call) {
  const Family *family = l->spec->family;
  int64_t chunks = call->rows * l->chunks;
  if (l->spec->high) return multiply_tiles(context, call);
  if (family->gemm && call->rows >= family->many && l->k <= LONGEST) return multiply_many(l, context, call);
  size_t units = (size_t)(chunks + 3 * l->chunks);
  size_t bytes = !family->quantize ? 0 : family->rounds ? units * CHUNK : units * CHUNK * 4;
  if (!take_room(call, bytes, units)) return status(FAIL, "qcc: out of memory");
  if (family->quantize) {
    if (call->rows % 4 == 3) memset(call->steps + chunks, 0, (size_t)l->chunks * 4); /* stray denormals are slow */
    Any args[] = {POINTER(call->x), POINTER(call->inputs), POINTER(call->steps), POINTER(call->sums), TENSOR(&none_filled), NUMBER(chunks)};
    if (CALL(family->quantize, args)) return status(FAIL, "qcc: a kernel failed");
    if (!family->rounds) call->x = (const float *)call->inputs;
  }
  if (!family->rounds && !l->spec->symmetric) {
    for (int64_t c = 0; c < chunks; c++) {
      float sum = 0;
      for (int k = 0; k < CHUNK; k++) sum += call->x[c * CHUNK + k];
      ((float *)call->sums)[c] = sum;
    }
  }
  return spread_tasks(context, call, gemv_task, l->strips, call->rows * l->k * STRIP, 1);
}

/* Tensors among the operands: of the output's shape. */
void *take_tensors(const Layer *l, void *context, const Input *shape, const float **operands) {
  const char *kinds = l->spec->operands;
  for (size_t i = 0; kinds[i]; i++) {
    Input tensor;
    if (kinds[i] != 't') continue;
    void *bad = input(context, 1 + (size_t)weight_inputs(l->spec) + i, &tensor);
    if (bad) return bad;
    if (tensor.rank != shape->rank || memcmp(tensor.dims, shape->dims, shape->rank * sizeof *shape->dims))
      return status(INVALID, "qcc: a tensor that is added or multiplied does not have the output's shape");
    operands[i] = tensor.data;
  }
  return NULL;
}

static void *compute(void *kernel, void *context) {
  const Layer *l = kernel;
  if (l->spec->pointwise) return convolve(kernel, context);
  size_t operands = strlen(l->spec->operands) + 1;
  const float *taken[operands];
  Call call = {.layer = l, .rows = 1, .operands = taken};
  Input x;
  void *bad = input(context, 0, &x);
  if (bad) return bad;
  if (!x.rank || x.dims[x.rank - 1] != l->k) return status(INVALID, "qcc: the last axis of the input does not fit the weights");
  for (size_t i = 0; i + 1 < x.rank; i++) call.rows *= x.dims[i];
  x.dims[x.rank - 1] = l->n;
  memcpy(taken, l->vectors, sizeof taken);
  if ((bad = take_tensors(l, context, &x, taken))) return bad;
  if ((bad = output(context, 0, &x, &call.y))) return bad;
  call.to = call.y;
  if (l->spec->keeps && (bad = output(context, 1, &x, &call.to))) return bad;
  if (!call.rows) return NULL;
  call.x = x.data;
  if ((bad = multiply(l, context, &call))) return bad;
  if (!call.failed && l->spec->norm && (bad = spread_tasks(context, &call, norm_task, call.rows, l->n * NORM_WORK, 1))) return bad;
  return call.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

static void *create(const void *spec, const void *info, void **kernel) {
  Layer *layer = NULL;
  void *bad = make_layer(spec, info, &layer);
  *kernel = layer;
  return bad;
}

/* ---- the ops that are served here ---- */
static int input_type(const void *of, size_t index) {
  const Spec *spec = of;
  int widths[4], scale = 1 + planes_of(spec->bits, widths);
  if (!index) return FLOAT;
  if (spec->high && (int)index == weight_inputs(spec)) return 0; /* uint16 or int32, looked at as well */
  if (spec->bits >= 16) return index == 1 && spec->bits == 16 ? BFLOAT16 : FLOAT;
  if ((int)index < scale) return UINT8;
  if ((int)index == scale) return 0; /* float16 or float32, looked at when the kernel is made */
  return (int)index == scale + 1 && !spec->symmetric ? INT8 : FLOAT;
}

/* Those of the first target whose instructions the processor has; on one without, none. */
void *serve(const Served **ops, int *count) {
  static Served served[QCC_OPS];
  for (size_t t = 0; t < sizeof targets / sizeof *targets; t++) {
    if (!usable(targets[t].needs)) continue;
    if (pthread_key_create(&key, release_arenas)) return status(FAIL, "qcc: no thread key");
    for (int i = 0; i < targets[t].ops; i++) {
      const Spec *spec = targets[t].specs + i;
      served[i] = (Served){
          .name = spec->name, .provider = "CPUExecutionProvider", .spec = spec, .input_type = input_type, .create = create,
          .compute = compute, .destroy = free_layer, .outputs = 1 + (size_t)spec->keeps,
          .inputs = 1 + (size_t)weight_inputs(spec) + strlen(spec->operands)};
    }
    *ops = served, *count = targets[t].ops;
    break;
  }
  return NULL;
}
