/* ONNX Runtime custom ops over kernels that TVM made. It includes "kernels.h", written by library.py: QCC_OPS, how many
 * ops there are, and `targets`, for each processor that the library was built for what its code needs and its ops. */
#include "shim.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "kernels.h"

enum { WORK = 1 << 18 /* products of a task, at least */, KEPT_TILES = 4 /* of rows that a kept panel meets at once */,
       NORM_WORK = 32, ROUND_WORK = 16 /* products that take as long as one value of a norm, or one that is rounded */,
       EACH = 4 /* tasks for each thread that was seen: with more than those, others are seen */,
       OWN_ROWS = 32 /* of a task that takes all outputs, at least: it reads all weights */,
       STRIPS = 128 << 10 /* bytes of weights that a task's rows meet before the next, about: in the second cache */,
       DECODING = 4 /* tiles of rows that take as long to multiply as a panel to decode */ };

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
static int failed(const Call *call) { return __atomic_load_n(&call->failed, __ATOMIC_RELAXED); }

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

static void norm_rows(Call *call, int64_t first, int64_t rows) {
  const Layer *l = call->layer;
  int64_t at = first * l->n;
  Any args[strlen(l->spec->operands) - (size_t)l->spec->chained + 6], *next = args;
  *next++ = (Any)POINTER(call->to + at);
  for (const float **operand = call->operands + l->spec->chained; *operand; operand++) *next++ = (Any)POINTER(*operand);
  const Any last[] = {POINTER(&l->epsilon), POINTER(call->y + at), TENSOR(&none_filled), NUMBER(l->n), NUMBER(rows)};
  memcpy(next, last, sizeof last);
  if (CALL(l->spec->norm, args)) fail(call);
}

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void norm_task(void *p, size_t task) {
  Call *call = p;
  int64_t first = (int64_t)task * call->share;
  norm_rows(call, first, least(call->share, call->rows - first));
}

/* Rows that `one` and `four` are to read: rounded, and added up, as far as they need that. */
static void prepare_rows(Call *call, int64_t first, int64_t rows) {
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  int64_t at = first * l->chunks, chunks = rows * l->chunks;
  if (family->quantize) {
    Any args[] = {POINTER(call->x + at * CHUNK), POINTER(call->inputs + at * CHUNK * (family->rounds ? 1 : 4)),
                  POINTER(call->steps + at), POINTER((int32_t *)call->sums + at), TENSOR(&none_filled), NUMBER(chunks)};
    if (CALL(family->quantize, args)) { fail(call); return; }
  }
  if (family->rounds || l->spec->symmetric) return;
  for (int64_t c = at; c < at + chunks; c++) {
    float sum = 0;
    for (int k = 0; k < CHUNK; k++) sum += call->read[c * CHUNK + k];
    ((float *)call->sums)[c] = sum;
  }
}

static void prepare_task(void *p, size_t task) {
  Call *call = p;
  int64_t first = (int64_t)task * call->share;
  prepare_rows(call, first, least(call->share, call->rows - first));
}

/* Rows from one to another, by fours, times some strips. */
static void multiply_rows(Call *call, int64_t row, int64_t end, int64_t first, int64_t count) {
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  float *out = arena(TASK_ARENA, (size_t)(4 * count * STRIP) * 4);
  if (!out) { fail(call); return; }
  for (int64_t rows; row < end; row += rows) {
    int64_t left = end - row, four = left >= 4 || (left == 3 && family->rounds); /* our own rows have spare room */
    rows = four ? (left < 4 ? left : 4) : 1;
    int64_t size = (four ? 4 : 1) * count * STRIP, at = row * l->chunks;
    Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
    const void *in = family->rounds ? (const void *)(call->inputs + at * CHUNK) : (const void *)(call->read + at * CHUNK);
    Any args[] = {POINTER(in), POINTER(call->steps + at), POINTER((int32_t *)call->sums + at), POINTER(l->words),
                  POINTER(l->scale), POINTER(l->offset), TENSOR(&y), NUMBER(l->chunks), NUMBER(l->chunks / l->groups),
                  NUMBER(first), NUMBER(count)};
    if (CALL(four ? family->four : family->one, args)) { fail(call); return; }
    finish(call, out, count * STRIP, row, rows, first * STRIP, count * STRIP);
  }
}

/* Some rows times some strips: tasks lie side by side, `across` of them for the same rows. */
static void gemv_task(void *p, size_t task) {
  Call *call = p;
  int64_t row = (int64_t)task / call->across * call->down, first = (int64_t)task % call->across * call->share;
  multiply_rows(call, row, least(row + call->down, call->rows), first, least(call->share, call->layer->strips - first));
}

/* All of some rows, from rounding to the norm: what a thread wrote it reads. */
static void rows_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  int64_t row = (int64_t)task * call->down, end = least(row + call->down, call->rows);
  int64_t some = STRIPS / (STRIP * l->k * l->spec->bits / 8) + 1;
  prepare_rows(call, row, end - row);
  for (int64_t first = 0; first < l->strips && !failed(call); first += some)
    multiply_rows(call, row, end, first, least(some, l->strips - first));
  if (l->spec->norm && !failed(call)) norm_rows(call, row, end - row);
}

const uint8_t tile_config[64] __attribute__((aligned(64))) = {
    [0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
    [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};

static void gemm_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  int64_t first = (int64_t)task % call->across * call->share, pairs = (l->n + 31) / 32 - first;
  int64_t start = (int64_t)task / call->across * call->down, end = least(start + call->down, call->tiles);
  int64_t block = end - start <= family->block ? end - start : KEPT_TILES;
  int64_t count = (l->chunks + family->chunks - 1) / family->chunks; /* steps along the inputs */
  if (pairs > call->share) pairs = call->share;
  int keep = block < end - start; /* other rows will need the panel */
  size_t panel = (size_t)(keep ? pairs * count : family->depth) * 2048, parts = (size_t)block * 2048;
  char *scratch = arena(TASK_ARENA, panel + parts + (size_t)(block * pairs) * 2048);
  if (!scratch) { fail(call); return; }
  for (int64_t tile = start, tiles; tile < end; tile += tiles) {
    tiles = least(end - tile, block);
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
                  NUMBER(tile == start || !keep), NUMBER(keep)};
    if (CALL(family->gemm, args)) { fail(call); return; }
    if (!whole || !l->spec->copies) finish(call, out, stride, row, rows, first * 32, pairs * 32);
  }
}

/* ---- threads: the runtime does not tell how many a session has, so a layer sees how many of its tasks run at once ---- */
typedef struct { void (*task)(void *, size_t); void *argument; int running, most; } Spread;

static void raise_to(int *most, int seen) {
  int before = __atomic_load_n(most, __ATOMIC_RELAXED);
  while (seen > before && !__atomic_compare_exchange_n(most, &before, seen, 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
}

static void counted_task(void *p, size_t task) {
  Spread *spread = p;
  raise_to(&spread->most, __atomic_add_fetch(&spread->running, 1, __ATOMIC_RELAXED));
  spread->task(spread->argument, task);
  __atomic_sub_fetch(&spread->running, 1, __ATOMIC_RELAXED);
}

int64_t tasks_of(const int *others, int64_t work) {
  int64_t most = (int64_t)EACH * (1 + __atomic_load_n(others, __ATOMIC_RELAXED));
  return work < 2 * WORK ? 1 : least(work / WORK, most);
}

void *spread(const int *others, void *context, void *argument, void (*task)(void *, size_t), int64_t tasks) {
  if (tasks == 1) { task(argument, 0); return NULL; }
  Spread all = {task, argument, 0, 0};
  void *bad = ORT(PARALLEL_FOR, const void *, void (*)(void *, size_t), size_t, size_t, void *)(context, counted_task, (size_t)tasks, 0, &all);
  raise_to((int *)others, all.most - 1); /* of all that a layer is, this alone is learned while it runs */
  return bad;
}

void *spread_tasks(void *context, Call *call, void (*task)(void *, size_t), int64_t units, int64_t work) {
  int64_t tasks = tasks_of(&call->layer->others, units * work);
  call->share = tasks < units ? units / tasks : 1;
  if (tasks == 1) call->share = units;
  return spread(&call->layer->others, context, call, task, (units + call->share - 1) / call->share);
}

/* So many units across, and so many down, as tasks: those across first, since what is down is read anew by each. */
static void *spread_grid(void *context, Call *call, void (*task)(void *, size_t), int64_t across, int64_t down, int64_t tasks) {
  call->share = tasks < across ? across / tasks : 1;
  call->across = (across + call->share - 1) / call->share;
  int64_t each = least((tasks + call->across - 1) / call->across, down);
  call->down = (down + each - 1) / each;
  int64_t deep = (down + call->down - 1) / call->down;
  call->down *= call->unit;
  return spread(&call->layer->others, context, call, task, call->across * deep);
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
  void *bad = spread_tasks(context, call, pack_task, call->tiles, l->k * 16 * ROUND_WORK);
  if (bad) return bad;
  int64_t fit = family->panel / (count * 2048), tasks = tasks_of(&l->others, (call->tiles + DECODING) * pairs * l->k * 32);
  if (fit && tasks < (pairs + fit - 1) / fit) tasks = (pairs + fit - 1) / fit; /* panels stay in the second cache */
  call->unit = family->block;
  return spread_grid(context, call, gemm_task, pairs, (call->tiles + family->block - 1) / family->block, tasks);
}

static void *multiply(const Layer *l, void *context, Call *call) {
  const Family *family = l->spec->family;
  int64_t chunks = call->rows * l->chunks;
  if (l->spec->high) return multiply_tiles(context, call);
  if (family->gemm && call->rows >= family->many && l->k <= LONGEST) return multiply_many(l, context, call);
  size_t units = (size_t)(chunks + 3 * l->chunks);
  size_t bytes = !family->quantize ? 0 : family->rounds ? units * CHUNK : units * CHUNK * 4;
  if (!take_room(call, bytes, units)) return status(FAIL, "qcc: out of memory");
  call->read = family->quantize && !family->rounds ? (const float *)call->inputs : call->x;
  if (family->quantize && call->rows % 4 == 3)
    memset(call->steps + chunks, 0, (size_t)l->chunks * 4); /* stray denormals are slow */
  int64_t tasks = tasks_of(&l->others, call->rows * l->k * l->strips * STRIP);
  if (tasks == 1 || call->rows >= tasks * OWN_ROWS) {
    call->down = ((call->rows + tasks - 1) / tasks + 3) / 4 * 4, call->normed = 1;
    return spread(&l->others, context, call, rows_task, (call->rows + call->down - 1) / call->down);
  }
  int prepared = !family->quantize && (family->rounds || l->spec->symmetric);
  void *bad = prepared ? NULL : spread_tasks(context, call, prepare_task, call->rows, l->k * ROUND_WORK);
  if (bad) return bad;
  call->unit = 4;
  return spread_grid(context, call, gemv_task, l->strips, (call->rows + 3) / 4, tasks);
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
  if (!call.failed && !call.normed && l->spec->norm && (bad = spread_tasks(context, &call, norm_task, call.rows, l->n * NORM_WORK)))
    return bad;
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
  if (spec->high && (int)index == weight_inputs(spec) - spec->fixed) return 0; /* uint16 or int32, looked at as well */
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
    for (int i = 0; i < targets[t].filters; i++) serve_filter(targets[t].chains + i, served + targets[t].ops + i);
    int first = targets[t].ops + targets[t].filters;
    for (int i = 0; i < targets[t].attentions; i++) serve_attend(targets[t].attends + i, served + first + i);
    *ops = served, *count = first + targets[t].attentions;
    break;
  }
  return NULL;
}
