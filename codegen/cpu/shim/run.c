/* ONNX Runtime custom ops over kernels that TVM made. It includes "kernels.h", written by library.py: QCC_OPS, how many
 * ops there are, and `targets`, for each processor that the library was built for what its code needs and its ops. */
#include "shim.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include "kernels.h"

const char *const qcc_provider = "CPUExecutionProvider";

enum { WORK = 1 << 18 /* products of a task, at least */, NORM_WORK = 32 /* products that take as long as one value of a norm */,
       EACH = 4 /* tasks for each thread that was seen: with more than those, others are seen */ };

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
int is_many(const Layer *l, int64_t rows) { return rows >= l->spec->family->many && l->k <= LONGEST; }
void fail(Call *call) { __atomic_store_n(&call->failed, 1, __ATOMIC_RELAXED); }
int failed(const Call *call) { return __atomic_load_n(&call->failed, __ATOMIC_RELAXED); }

static int64_t nothing;
const Tensor none_filled = {&nothing, 1, 0, 1, 2, 32, 1, &nothing, NULL, 0};

/* The steps behind a tile of a part, rows `stride` apart: as many columns as there are, from a column of the part on. */
typedef struct { const float *from; int64_t stride, row, rows; } Tile;
static void finish_part(Call *call, int number, const Tile *tile, int64_t skip, int64_t first, int64_t count) {
  const Spec *spec = call->layer->spec;
  const Member *part = spec->parts + number;
  int64_t n = call->layer->sizes[number], at = tile->row * n + first;
  int before = 0;
  for (int i = 0; i < number; i++) before += spec->parts[i].operands;
  if (first + count > n) count = n - first;
  Any args[part->operands + 7], *next = args;
  *next++ = (Any)POINTER(tile->from + skip);
  for (int i = before; i < before + part->operands; i++)
    *next++ = (Any)POINTER(call->operands[i] + (spec->operands[i] == 'v' ? first : at));
  const Any last[] = {POINTER(call->to[number] + at), TENSOR(&none_filled), NUMBER(tile->stride), NUMBER(n),
                      NUMBER(tile->rows), NUMBER(count)};
  memcpy(next, last, sizeof last);
  if (CALL(part->chain, args)) fail(call);
}

/* The same of all parts that so many columns from the first on belong to. */
void finish(Call *call, const float *from, int64_t stride, int64_t row, int64_t rows, int64_t first, int64_t count) {
  const Layer *l = call->layer;
  const Tile tile = {from, stride, row, rows};
  if (l->spec->count == 1) finish_part(call, 0, &tile, 0, first, count);
  else if (l->spec->woven)
    for (int64_t strip = 0; strip < count; strip += STRIP)
      finish_part(call, (int)(strip / STRIP % 2), &tile, strip, (first + strip) / (2 * STRIP) * STRIP, STRIP);
  else
    for (int64_t start = 0, part = 0; part < l->spec->count; start += l->sizes[part++]) {
      int64_t begin = start < first ? first : start, end = start + l->sizes[part];
      if (end > first + count) end = first + count;
      if (begin < end) finish_part(call, (int)part, &tile, begin - first, begin - start, end - begin);
    }
}

void norm_rows(Call *call, int64_t first, int64_t rows) {
  const Layer *l = call->layer;
  int64_t at = first * l->n;
  int chained = l->spec->parts->operands;
  Any args[strlen(l->spec->operands) - (size_t)chained + 6], *next = args;
  *next++ = (Any)POINTER(call->to[0] + at);
  for (const float **operand = call->operands + chained; *operand; operand++) *next++ = (Any)POINTER(*operand);
  const Any last[] = {POINTER(&l->epsilon), POINTER(call->y + at), TENSOR(&none_filled), NUMBER(l->n), NUMBER(rows)};
  memcpy(next, last, sizeof last);
  if (CALL(l->spec->norm, args)) fail(call);
}

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
  if (call->whole) {
    Any args[] = {POINTER(call->x + at * CHUNK), POINTER(call->inputs + at * CHUNK * call->wide), POINTER(call->steps + first),
                  POINTER((int32_t *)call->sums + first), TENSOR(&none_filled), NUMBER(l->chunks), NUMBER(rows)};
    if (CALL(family->round, args)) fail(call);
    return;
  }
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
    int64_t left = end - row, four = left >= 4 || call->whole || (left == 3 && family->rounds); /* our own rows have spare room */
    rows = four ? (left < 4 ? left : 4) : 1;
    int64_t size = (four ? 4 : 1) * count * STRIP, at = row * call->each, from = row * l->k;
    Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
    const void *in = family->rounds ? (const void *)(call->inputs + from * call->wide) : (const void *)(call->read + from);
    Any args[] = {POINTER(in), POINTER(call->steps + at), POINTER((int32_t *)call->sums + at), POINTER(l->words),
                  POINTER(l->scale), POINTER(l->offset), TENSOR(&y), NUMBER(l->chunks), NUMBER(l->chunks / l->groups),
                  NUMBER(first), NUMBER(count)};
    if (CALL(call->whole ? family->whole : four ? family->four : family->one, args)) { fail(call); return; }
    finish(call, out, count * STRIP, row, rows, first * STRIP, count * STRIP);
  }
}

/* The same, so many strips at a time that their weights stay in the second cache for all the rows. */
static void multiply_strips(Call *call, int64_t row, int64_t end, int64_t first, int64_t last) {
  const Layer *l = call->layer;
  int64_t some = l->spec->family->meets / (STRIP * l->k * l->spec->bits / 8) + 1;
  some += some % 2 * l->spec->woven;
  if (end - row <= 4) some = last - first;
  for (; first < last && !failed(call); first += some) multiply_rows(call, row, end, first, least(some, last - first));
}

/* Some rows times some strips: tasks lie side by side, `across` of them for the same rows. */
static void gemv_task(void *p, size_t task) {
  Call *call = p;
  int64_t row = (int64_t)task / call->across * call->down, first = (int64_t)task % call->across * call->share;
  multiply_strips(call, row, least(row + call->down, call->rows), first, least(first + call->share, call->layer->strips));
}

/* All of some rows, from rounding to the norm: what a thread wrote it reads. */
static void rows_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  int64_t row = (int64_t)task * call->down, end = least(row + call->down, call->rows);
  prepare_rows(call, row, end - row);
  multiply_strips(call, row, end, 0, l->strips);
  if (l->spec->norm && !failed(call)) norm_rows(call, row, end - row);
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
void *spread_grid(void *context, Call *call, void (*task)(void *, size_t), int64_t across, int64_t down, int64_t tasks) {
  call->share = tasks < across ? across / tasks : 1;
  int64_t together = call->layer->spec->woven ? 2 * STRIP * across / call->layer->n : 1; /* the strips of both parts */
  if (together > 1) call->share = (call->share + together - 1) / together * together;
  call->across = (across + call->share - 1) / call->share;
  int64_t each = least((tasks + call->across - 1) / call->across, down);
  call->down = (down + each - 1) / each;
  int64_t deep = (down + call->down - 1) / call->down;
  call->down *= call->unit;
  return spread(&call->layer->others, context, call, task, call->across * deep);
}

/* Room for so many bytes of activations, and for a step and a sum of each unit of them that may be rounded. */
int take_room(Call *call, size_t bytes, size_t units) {
  size_t each = padded(units * 4);
  if (!(call->inputs = arena(CALL_ARENA, padded(bytes) + 2 * each))) return 0;
  call->steps = (float *)(call->inputs + padded(bytes)), call->sums = call->inputs + padded(bytes) + each;
  for (size_t i = 0; i < units && call->layer->spec->fixed; i++) call->steps[i] = call->layer->step;
  return 1;
}

/* How rows are multiplied where they are no tiles, and room for them. */
static int take_rows(Call *call) {
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  call->whole = family->whole && call->many, call->each = call->whole ? 1 : l->chunks;
  call->wide = call->whole && family->widens ? 2 : 1;
  size_t rows = (size_t)call->rows + 3, values = rows * (size_t)l->k;
  size_t bytes = !family->quantize ? 0 : family->rounds ? values * (size_t)call->wide : values * 4;
  if (!take_room(call, bytes, rows * (size_t)call->each)) return 0;
  call->read = family->quantize && !family->rounds ? (const float *)call->inputs : call->x;
  if (family->quantize) /* stray denormals are slow */
    memset(call->steps + call->rows * call->each, 0, 3 * (size_t)call->each * 4);
  return 1;
}

static int takes_tiles(const Call *call) { return call->layer->spec->family->gemm && call->many; }

void multiply_alone(Call *call) {
  if (takes_tiles(call)) { multiply_many_alone(call); return; }
  if (!take_rows(call)) { fail(call); return; }
  call->down = call->rows;
  rows_task(call, 0);
}

int64_t row_tasks(const Layer *l, int64_t rows, int64_t tasks) {
  const Family *family = l->spec->family;
  if (family->gemm && is_many(l, rows)) return tile_tasks(l, (rows + 15) / 16, tasks);
  return tasks == 1 || rows >= tasks * OWN_ROWS ? tasks : 0;
}

static void *multiply_spread(void *context, Call *call) {
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  if (l->spec->high) return multiply_tiles(context, call);
  call->many = is_many(l, call->rows);
  if (takes_tiles(call)) return multiply_many(l, context, call);
  if (!take_rows(call)) return status(FAIL, "qcc: out of memory");
  int64_t tasks = tasks_of(&l->others, call->rows * l->k * l->strips * STRIP);
  if (row_tasks(l, call->rows, tasks)) {
    call->down = ((call->rows + tasks - 1) / tasks + 3) / 4 * 4, call->normed = 1;
    return spread(&l->others, context, call, rows_task, (call->rows + call->down - 1) / call->down);
  }
  int prepared = !family->quantize && (family->rounds || l->spec->symmetric);
  void *bad = prepared ? NULL : spread_tasks(context, call, prepare_task, call->rows, l->k * ROUND_WORK);
  if (bad) return bad;
  call->unit = 4;
  return spread_grid(context, call, gemv_task, l->strips, (call->rows + 3) / 4, tasks);
}

void *multiply_all(void *context, Call *call) {
  const Layer *l = call->layer;
  void *bad = multiply_spread(context, call);
  if (bad) return bad;
  if (!call->failed && !call->normed && l->spec->norm && (bad = spread_tasks(context, call, norm_task, call->rows, l->n * NORM_WORK)))
    return bad;
  return call->failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

/* Tensors among the operands: of the output's shape. */
void *take_tensors(const Layer *l, void *context, const Input *shape, const float **operands) {
  const char *kinds = l->spec->operands;
  for (size_t i = 0; kinds[i]; i++) {
    Input tensor;
    if (kinds[i] != 't') continue;
    if (l->spec->woven) { operands[i] = NULL; continue; } /* it is made on the way */
    void *bad = input(context, l->begin + (size_t)weight_inputs(l->spec) + i, &tensor);
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
  memcpy(taken, l->vectors, sizeof taken);
  for (int part = 0; part < l->spec->count; part++) {
    x.dims[x.rank - 1] = l->sizes[part];
    if (!part && (bad = take_tensors(l, context, &x, taken))) return bad;
    if (part && l->spec->woven) call.to[part] = call.to[0];
    else if ((bad = output(context, (size_t)part, &x, call.to + part))) return bad;
  }
  for (size_t i = 0; i + 1 < operands; i++) if (!taken[i]) taken[i] = call.to[0];
  call.y = call.to[0];
  if (l->spec->keeps && (bad = output(context, 1, &x, call.to))) return bad;
  if (!call.rows) return NULL;
  call.x = x.data;
  return multiply_all(context, &call);
}

static void *create(const void *spec, const void *info, void **kernel) {
  Layer *layer = NULL;
  void *bad = make_layer(spec, info, 1, &layer);
  *kernel = layer;
  return bad;
}

/* ---- the ops that are served here ---- */
int input_type_of(const Spec *spec, size_t index) {
  int widths[4], scale = planes_of(spec->bits, widths), each = weight_inputs(spec);
  if ((int)index < each * spec->count) index %= (size_t)each;
  if (spec->high && (int)index == each - spec->fixed - 1) return 0; /* uint16 or int32, looked at as well */
  if (spec->bits >= 16) return !index && spec->bits == 16 ? BFLOAT16 : FLOAT;
  if ((int)index < scale) return UINT8;
  if ((int)index == scale) return 0; /* float16 or float32, looked at when the kernel is made */
  return (int)index == scale + 1 && !spec->symmetric ? INT8 : FLOAT;
}

static int input_type(const void *spec, size_t index) { return index ? input_type_of(spec, index - 1) : FLOAT; }

/* Those of the first target whose instructions the processor has; on one without, none. */
void *serve(const Served **ops, int *count) {
  static Served served[QCC_OPS];
  for (size_t t = 0; t < sizeof targets / sizeof *targets; t++) {
    if (!usable(targets[t].needs)) continue;
    if (pthread_key_create(&key, release_arenas)) return status(FAIL, "qcc: no thread key");
    for (int i = 0; i < targets[t].ops; i++) {
      const Spec *spec = targets[t].specs + i;
      served[i] = (Served){
          .name = spec->name, .spec = spec, .input_type = input_type, .create = create,
          .compute = compute, .destroy = free_layer, .outputs = (size_t)(spec->count + spec->keeps - spec->woven),
          .inputs = 1 + inputs_of(spec)};
    }
    Served *next = served + targets[t].ops;
    for (int i = 0; i < targets[t].pairs; i++) serve_sequence(targets[t].sequences + i, next++);
    for (int i = 0; i < targets[t].others; i++) targets[t].apart[i].serve(targets[t].apart[i].spec, next++);
    *ops = served, *count = (int)(next - served);
    break;
  }
  return NULL;
}
