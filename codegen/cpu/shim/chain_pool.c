/* Pools of bytes with channels last: the largest number that a window sees of a channel, or the mean. Windows that reach beyond the
 * image see a copy of some lines, as do those of few channels, of which more is read; others read where it lies. */
#include "chain.h"
#include <stdlib.h>
#include <string.h>

enum { SEEN_SCALE, SEEN_ZERO, MADE, MADE_ZERO, SEEN, POOL_FACTS }; /* pool.py */

typedef struct { const PoolSpec *spec; float facts[POOL_FACTS]; int others; } Pool;

typedef struct {
  const Pool *pool;
  const Window *window;
  float facts[POOL_FACTS];
  const uint8_t *x;
  uint8_t *y;
  Image image;
  Lines lines;
  int64_t *runs, count, share, total; /* total: rows */
  int copies, failed;
} Run;

static void *create(const void *spec, const void *info, void **kernel) {
  Pool *pool = calloc(1, sizeof *pool);
  if (!pool) return status(FAIL, "qcc: out of memory");
  pool->spec = spec;
  void *bad = NULL;
  for (size_t i = 0; i < 4 && pool->spec->mean && !bad; i++) bad = number(info, 1 + i, i % 2 ? UINT8 : FLOAT, pool->facts + i);
  if (bad) free(pool); else *kernel = pool;
  return bad;
}

/* Where what a row sees begins, if that is read where it lies. */
static const uint8_t *begin_of(const Run *run, int64_t at) {
  const Image *image = &run->image;
  int64_t plane = at / image->to[1], deep = plane / image->to[0] * image->from[0] + plane % image->to[0] * run->window->strides[0];
  return run->x + deep * run->lines.plane + at % image->to[1] * run->window->strides[1] * run->lines.row;
}

static int pool_row(const Run *run, const uint8_t *a, int64_t at, uint8_t *spare) {
  int64_t c = run->image.channels, across = run->image.to[2], narrow = c < LANE;
  uint8_t *to = narrow ? spare : run->y + at * across * c;
  Any args[] = {POINTER(a), POINTER(run->runs), POINTER(run->facts), POINTER(to), TENSOR(&none_filled), NUMBER(run->count),
                NUMBER(run->window->strides[2] * c), NUMBER(across), NUMBER(narrow ? LANE : c), NUMBER(narrow ? LANE : c)};
  if (CALL(run->pool->spec->pool, args)) return 0;
  if (narrow) put_narrow(run->y, c, to, at * across, across);
  return 1;
}

static void rows_task(void *p, size_t task) {
  Run *run = p;
  const Lines *lines = &run->lines;
  int64_t end = least(((int64_t)task + 1) * run->share, run->total);
  size_t copied = padded((size_t)(lines->plane * run->window->kernel[0] + SLACK));
  uint8_t *room = run->copies ? arena(TASK_ARENA, copied + (size_t)(run->image.to[2] * LANE)) : NULL;
  int ok = room || !run->copies;
  for (int64_t at = (int64_t)task * run->share, rows; at < end && ok; at += rows) {
    rows = run->copies ? least(least(end - at, run->image.to[1] - at % run->image.to[1]), lines->fit) : 1;
    if (run->copies) copy_lines(lines, at, rows, room);
    for (int64_t r = 0; r < rows && ok; r++)
      ok = pool_row(run, run->copies ? room + r * run->window->strides[1] * lines->row : begin_of(run, at), at + r, room ? room + copied : NULL);
  }
  if (!ok) __atomic_store_n(&run->failed, 1, __ATOMIC_RELAXED);
}

/* A window that sees all of an image. */
static void see_all(const Input *x, Window *window) {
  int first = window->axes == 3 ? 0 : 1;
  for (int axis = 0; axis < 3; axis++) {
    int inside = axis >= first && axis < first + window->axes && x->rank == (size_t)window->axes + 2;
    window->kernel[axis] = inside ? (int)x->dims[1 + axis - first] : 1;
  }
}

static void *compute(void *kernel, void *context) {
  Pool *pool = kernel;
  Window window = pool->spec->window;
  Run run = {.pool = pool, .window = &window};
  Input x, made;
  void *bad = input(context, 0, &x);
  if (bad) return bad;
  if (pool->spec->all) see_all(&x, &window);
  if ((bad = measure(&window, &x, &run.image))) return bad;
  run.x = x.data, run.count = positions_of(&window), run.copies = run.image.channels < LANE;
  for (int axis = 0; axis < 3; axis++) run.copies |= window.begins[axis] || window.ends[axis];
  shape_of(&window, &run.image, run.image.channels, &made);
  if ((bad = output(context, 0, &made, &run.y))) return bad;
  run.total = run.image.images * run.image.to[0] * run.image.to[1];
  if (!run.total || !run.image.to[2] || !run.image.channels || !run.count) return NULL;
  memcpy(run.facts, pool->facts, sizeof run.facts);
  run.facts[SEEN] = (float)run.count;
  if (pool->spec->all) run.facts[SEEN_SCALE] = run.facts[SEEN_SCALE] / (run.facts[MADE] * run.facts[SEEN]);
  run.lines = (Lines){.window = &window, .image = &run.image, .x = run.x, .zero = pool->spec->mean ? (uint8_t)run.facts[SEEN_ZERO] : 0};
  lay_lines(&run.lines);
  if (!run.copies) run.lines.row = run.image.from[2] * run.image.channels, run.lines.plane = run.image.from[1] * run.lines.row;
  run.runs = arena(CALL_ARENA, (size_t)run.count * sizeof *run.runs);
  if (!run.runs) return status(FAIL, "qcc: out of memory");
  for (int64_t at = 0; at < run.count; at++) run.runs[at] = place_in(&run.lines, at);
  int64_t tasks = tasks_of(&pool->others, run.total * run.image.to[2] * run.count * run.image.channels);
  run.share = (run.total + tasks - 1) / tasks;
  if ((bad = spread(&pool->others, context, &run, rows_task, (run.total + run.share - 1) / run.share))) return bad;
  return run.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

static int input_type(const void *of, size_t index) {
  (void)of;
  return index == 1 || index == 3 ? FLOAT : UINT8;
}

static int output_type(const void *of, size_t index) {
  (void)of, (void)index;
  return UINT8;
}

void serve_pool(const void *of, Served *served) {
  const PoolSpec *spec = of;
  *served = (Served){.name = spec->name, .spec = spec, .input_type = input_type, .create = create, .compute = compute,
                     .destroy = free, .outputs = 1, .output_type = output_type, .inputs = spec->mean ? 5 : 1};
}
