/* Convolutions of bytes with channels last: x [images, planes, rows, columns, channels], of whose axes some may be missing, times
 * weights [out, in / groups, planes, rows, columns] or, depthwise, [channels, 1, ...]. What a kernel sees is read from a copy of some
 * lines with the code of zero around them; pixels that it meets one by one are read where they lie. */
#include "chain.h"
#include <string.h>

enum { DEEP = 128 << 10 /* bytes of pixels that all filters meet together */ };

typedef struct {
  const Filter *filter;
  const uint8_t *x, *other;
  uint8_t *y;
  Image image;
  Lines lines;
  int64_t *runs; /* where those of a kernel begin */
  int64_t n; /* outputs of all groups */
  int64_t share, total; /* of a task, and in all: rows, or pixels where they are read as they lie */
  int failed;
} Run;

/* So many neighbouring pixels, which begin at `a`, `step` bytes apart, and become those from `pixel` on. */
static int multiply(const Run *run, const uint8_t *a, int64_t step, int64_t pixel, int64_t pixels, uint8_t *spare) {
  const Filter *f = run->filter;
  int narrow = run->n < f->spec->lanes; /* then there is one group */
  int64_t stride = narrow ? LANE : run->n, numbers = f->blocks * f->spec->lanes, words = f->blocks * f->runs * f->fours * 64;
  for (int64_t group = 0; group < f->groups; group++) {
    int64_t at = pixel * run->n + group * f->n;
    uint8_t *to = narrow ? spare : run->y + at;
    Any args[] = {POINTER(a + group * f->c), POINTER(run->runs), POINTER(f->words + group * words), POINTER(f->bias + group * numbers),
                  POINTER(f->scale + group * numbers), POINTER(f->facts), POINTER(run->other ? run->other + at : NULL), POINTER(to),
                  TENSOR(&none_filled), NUMBER(f->runs), NUMBER(f->fours), NUMBER(step), NUMBER(pixels), NUMBER(stride), NUMBER(f->whole),
                  NUMBER(f->blocks), NUMBER(f->last)};
    if (CALL(f->spec->product, args)) return 0;
  }
  if (narrow) put_narrow(run->y, run->n, spare, pixel, pixels);
  return 1;
}

/* One part of channels of rows, depthwise: so many pixels of each, from a byte on. */
static int filter_part(const Run *run, const Part *part, const uint8_t *a, uint8_t *to, int64_t stride, int64_t rows, int64_t pixels) {
  const Filter *f = run->filter;
  Any args[] = {POINTER(a), POINTER(run->runs), POINTER(f->words + part->words), POINTER(f->bias + part->at), POINTER(f->scale + part->at),
                POINTER(f->facts), POINTER(to), TENSOR(&none_filled), NUMBER(f->spec->window.strides[1] * run->lines.row), NUMBER(f->c),
                NUMBER(pixels), NUMBER(rows), NUMBER(stride), NUMBER(stride * run->image.to[2])};
  return !CALL(f->spec->of[part->which], args);
}

/* Rows of what is made, depthwise, on a copy. */
static int filter_rows(const Run *run, const uint8_t *a, int64_t pixel, int64_t rows, uint8_t *spare) {
  const Filter *f = run->filter;
  int64_t across = run->image.to[2], line = across * f->n;
  if (f->folded && line >= f->folded) { /* the last ends where the row does */
    for (int64_t at = 0; at < line; at += f->folded) {
      int64_t start = least(at, line - f->folded);
      if (!filter_part(run, f->parts + f->count, a + start, run->y + pixel * f->n + start, f->n, rows, 1)) return 0;
    }
    return 1;
  }
  int narrow = f->n < LANE;
  uint8_t *to = narrow ? spare : run->y + pixel * f->n;
  for (const Part *part = f->parts; part < f->parts + f->count; part++)
    if (!filter_part(run, part, a + part->start, to + part->start, narrow ? LANE : f->n, rows, across)) return 0;
  if (narrow) put_narrow(run->y, run->n, spare, pixel, rows * across);
  return 1;
}

/* Rows of what is made, by products: those of one pixel each are neighbours. */
static int multiply_rows(const Run *run, const uint8_t *a, int64_t pixel, int64_t rows, uint8_t *spare) {
  const Window *window = &run->filter->spec->window;
  int64_t line = window->strides[1] * run->lines.row, across = run->image.to[2], step = window->strides[2] * run->image.channels;
  if (across == 1) return multiply(run, a, line, pixel, rows, spare);
  for (int64_t r = 0; r < rows; r++)
    if (!multiply(run, a + r * line, step, pixel + r * across, across, spare)) return 0;
  return 1;
}

static void rows_task(void *p, size_t task) {
  Run *run = p;
  const Lines *lines = &run->lines;
  int64_t end = least(((int64_t)task + 1) * run->share, run->total), across = run->image.to[2];
  size_t copied = padded((size_t)(lines->plane * run->filter->spec->window.kernel[0] + SLACK));
  uint8_t *room = arena(TASK_ARENA, copied + (size_t)(lines->fit * across * LANE));
  if (!room) { __atomic_store_n(&run->failed, 1, __ATOMIC_RELAXED); return; }
  memset(room + lines->plane * run->filter->spec->window.kernel[0], 0, SLACK);
  for (int64_t at = (int64_t)task * run->share, rows; at < end; at += rows) {
    rows = least(least(end - at, run->image.to[1] - at % run->image.to[1]), lines->fit);
    copy_lines(lines, at, rows, room);
    int (*make)(const Run *, const uint8_t *, int64_t, int64_t, uint8_t *) = run->filter->spec->depthwise ? filter_rows : multiply_rows;
    if (!make(run, room, at * across, rows, room + copied)) { __atomic_store_n(&run->failed, 1, __ATOMIC_RELAXED); return; }
  }
}

static void pixels_task(void *p, size_t task) {
  Run *run = p;
  int64_t n = run->n, c = run->image.channels, fit = most(DEEP / c / 6, 1) * 6, end = least(((int64_t)task + 1) * run->share, run->total);
  for (int64_t at = (int64_t)task * run->share, pixels; at < end; at += pixels) {
    pixels = least(end - at, fit);
    uint8_t *spare = n < LANE ? arena(TASK_ARENA, (size_t)(pixels * LANE)) : NULL;
    if ((n < LANE && !spare) || !multiply(run, run->x + at * c, c, at, pixels, spare)) {
      __atomic_store_n(&run->failed, 1, __ATOMIC_RELAXED);
      return;
    }
  }
}

/* Every pixel is met as it lies. */
static int is_flat(const Run *run) {
  const Window *window = &run->filter->spec->window;
  int same = positions_of(window) == 1 && run->filter->c % 4 == 0 && !run->filter->spec->depthwise;
  for (int axis = 0; axis < 3; axis++) same &= window->strides[axis] == 1 && run->image.from[axis] == run->image.to[axis];
  return same;
}

static void *compute(void *kernel, void *context) {
  const Filter *f = kernel;
  const ChainSpec *spec = f->spec;
  Run run = {.filter = f, .n = f->n * f->groups};
  Input x, other, made;
  void *bad = input(context, X, &x);
  if (bad || (bad = measure(&spec->window, &x, &run.image))) return bad;
  if (run.image.channels != f->all) return status(INVALID, "qcc: the channels of the input, its last axis, do not fit the weights");
  run.x = x.data;
  shape_of(&spec->window, &run.image, run.n, &made);
  if (spec->adds) {
    if ((bad = input(context, residual(spec), &other))) return bad;
    if (other.rank != made.rank || memcmp(other.dims, made.dims, made.rank * sizeof *made.dims)) return status(INVALID, "qcc: what is added does not have the output's shape");
    run.other = other.data;
  }
  if ((bad = output(context, 0, &made, &run.y))) return bad;
  int64_t lines = run.image.images * run.image.to[0] * run.image.to[1], pixels = lines * run.image.to[2], positions = positions_of(&spec->window);
  if (!pixels) return NULL;
  run.lines = (Lines){.window = &spec->window, .image = &run.image, .x = run.x, .zero = f->zero};
  lay_lines(&run.lines);
  run.runs = arena(CALL_ARENA, (size_t)f->runs * sizeof *run.runs);
  if (!run.runs) return status(FAIL, "qcc: out of memory");
  for (int64_t at = 0; at < f->runs; at++) run.runs[at] = place_in(&run.lines, at * f->joined);
  int flat = is_flat(&run);
  int64_t tasks = tasks_of(&f->others, pixels * run.n * positions * (spec->depthwise ? 4 : f->c) / 2);
  run.total = flat ? pixels : lines;
  run.share = (run.total + tasks - 1) / tasks;
  if (flat) run.share = (run.share + 5) / 6 * 6;
  if ((bad = spread(&f->others, context, &run, flat ? pixels_task : rows_task, (run.total + run.share - 1) / run.share))) return bad;
  return run.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

static int input_type(const void *of, size_t index) {
  const ChainSpec *spec = of;
  size_t first = residual(spec);
  if (index == X || index == X_ZERO || index == chain_input(spec, Y_ZERO)) return UINT8;
  if ((index >= CODES && index < chain_input(spec, SCALE)) || index == chain_input(spec, ZERO)) return 0; /* looked at when the kernel is made */
  if (index == chain_input(spec, BIAS)) return INT32;
  return index == first || index == first + 2 || index == first + 4 ? UINT8 : FLOAT;
}

static int output_type(const void *of, size_t index) {
  (void)of, (void)index;
  return UINT8;
}

void serve_filter(const void *of, Served *served) {
  const ChainSpec *spec = of;
  *served = (Served){.name = spec->name, .spec = spec, .input_type = input_type, .create = make_filter,
                     .compute = compute, .destroy = free_filter, .outputs = 1, .output_type = output_type,
                     .inputs = residual(spec) + (spec->adds ? 5 : 0)};
}
