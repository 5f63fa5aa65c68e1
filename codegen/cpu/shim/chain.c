/* Convolutions of bytes with channels last: x [images, rows, columns, channels] times weights [out, in, high, wide] or, depthwise,
 * [channels, 1, high, wide]. Pixels whose kernel reaches beyond the image are computed on a copy of some rows with the code of zero
 * around them; others are read where they lie. A layer's words are as product.py or depthwise.py has them. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

enum { X, X_SCALE, X_ZERO, CODES, SCALE, ZERO, BIAS, BIAS_SCALE, Y_SCALE, Y_ZERO, CUT /* two, where it cuts off; then the residual */,
       LANE = 16 /* bytes that interleave */, SLACK = 128 /* bytes that are read behind the last pixel */, ROOM = 96 << 10 /* bytes of copied rows, about */,
       DEEP = 128 << 10 /* bytes of pixels that all filters meet together */,
       PLANES = 4, BLOCK_MOST = 64, FOUR = 64 /* bytes of weights of a block, four inputs */ };
enum { LOW, HIGH, Y, OWN, OTHERS, OTHER_ZERO, SUM_LOW, SUM_HIGH, SUM_ZERO, FACTS }; /* requantize.py */

typedef struct { int64_t start, at, words; int which; } Part; /* of channels: where they and their numbers begin */

typedef struct {
  const ChainSpec *spec;
  int64_t n, c, fours, whole, blocks, last;
  int8_t *words;
  int32_t *bias;
  float *scale, facts[FACTS];
  Part *parts;
  int64_t count, folded; /* bytes of neighbouring pixels that are computed at once, where channels are few; else 0 */
  uint8_t zero;
  int others;
} Filter;

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
/* Of an input: planes and their shape stand where codes do. */
static size_t at(const ChainSpec *spec, size_t index) {
  int widths[PLANES];
  return index > CODES && spec->bits ? index + (size_t)planes_of(spec->bits, widths) : index;
}
static size_t residual(const ChainSpec *spec) { return at(spec, CUT) + (spec->cuts == 2 ? 2 : 0); }

static void free_filter(void *p) {
  Filter *f = p;
  if (f) free(f->words), free(f->bias), free(f->scale), free(f->parts), free(f);
}

static void *number(const void *info, size_t at, int type, float *found) {
  Input input;
  void *bad = constant(info, at, &input);
  if (bad) return bad;
  if (input.type != type) return status(INVALID, "qcc: a step or a code of zero has another type");
  *found = type == FLOAT ? *(const float *)input.data : (float)*(const uint8_t *)input.data;
  return NULL;
}

/* The weights less their zeros, with a sign; or all codes, packed in planes, whose numbers are laid apart as far as 7 bits go. */
typedef struct {
  const uint8_t *codes, *zeros, *planes[PLANES];
  int is_signed, bits, widths[PLANES];
  int64_t each, zero_step;
  const int32_t *bias;
  const float *scale;
} Given;
static int unpacked(const Given *given, int64_t i) {
  int code = 0;
  for (int plane = 0, shift = 0; shift < given->bits; shift += given->widths[plane++]) {
    int width = given->widths[plane], each = 8 / width;
    code |= (given->planes[plane][i / each] >> width * (int)(i % each) & ((1 << width) - 1)) << shift;
  }
  return (code - (1 << (given->bits - 1))) * (1 << (7 - given->bits));
}
static int weight(const Given *given, int64_t n, int64_t at) {
  int64_t i = n * given->each + at, z = n * given->zero_step;
  if (given->bits) return unpacked(given, i);
  return given->is_signed ? (int8_t)given->codes[i] - (int8_t)given->zeros[z] : given->codes[i] - given->zeros[z];
}

static void put_numbers(Filter *f, const Given *given, int64_t n, int64_t at, float step, float made) {
  int64_t sum = 0;
  for (int64_t i = 0; i < given->each; i++) sum += weight(given, n, i);
  f->bias[at] = (int32_t)(uint32_t)(given->bias[n] - f->zero * sum);
  f->scale[at] = step * given->scale[n] / made;
}

/* One of those of a lane, which has bytes, or two numbers of 16 bits. */
static void put_weight(const ChainSpec *spec, int8_t *vector, int64_t lane, int64_t at, int weight) {
  if (spec->lanes == 8) ((int16_t *)vector)[lane * 2 + at % 2] = (int16_t)weight;
  else vector[lane * 4 + at % 4] = (int8_t)weight;
}

static void *make_product(Filter *f, const Given *given, float step, float made) {
  const ChainSpec *spec = f->spec;
  int64_t each = spec->lanes, together = each / 4, wide = together * each; /* vectors that are packed together */
  f->fours = (spec->wide * f->c + 3) / 4, f->whole = f->n / wide;
  f->blocks = f->whole * together + (f->n % wide + each - 1) / each, f->last = most(f->n - each, 0);
  size_t deep = (size_t)(spec->high * f->fours) * FOUR, lanes = ((size_t)f->blocks * (size_t)each + 15) / 16 * 16;
  f->words = aligned_alloc(64, deep * (size_t)f->blocks), f->bias = aligned_alloc(64, lanes * 4), f->scale = aligned_alloc(64, lanes * 4);
  if (!f->words || !f->bias || !f->scale) return status(FAIL, "qcc: out of memory");
  memset(f->words, 0, deep * (size_t)f->blocks), memset(f->bias, 0, lanes * 4), memset(f->scale, 0, lanes * 4);
  for (int64_t b = 0; b < f->blocks; b++)
    for (int64_t i = 0; i < each; i++) {
      int64_t n = b < f->whole * together ? b / together * wide + i / 4 * together * 4 + b % together * 4 + i % 4 : least(b * each, f->last) + i;
      if (n >= f->n) break;
      put_numbers(f, given, n, b * each + i, step, made);
      for (int64_t r = 0; r < spec->high; r++)
        for (int64_t k = 0; k < spec->wide * f->c; k++) {
          int64_t in = k % f->c, column = k / f->c;
          int8_t *four = f->words + ((b * spec->high + r) * f->fours + k / 4) * FOUR;
          put_weight(spec, four + (each == 8 ? k % 2 * 32 : 0), i, each == 8 ? k / 2 : k, weight(given, n, (in * spec->high + r) * spec->wide + column));
        }
    }
  return NULL;
}

/* The numbers of a part's channels; of one that is folded they come again and again. */
static void put_part(Filter *f, const Given *given, const Part *part, float step, float made) {
  const ChainSpec *spec = f->spec;
  int64_t each = spec->lanes / 4, groups = (spec->high + each - 1) / each, width = 64 >> part->which;
  for (int64_t i = 0; i < width && (part == f->parts + f->count || part->start + i < f->n); i++) {
    int64_t n = (part->start + i) % f->n, vector = i % LANE / 4, lane = i / LANE * 4 + i % 4; /* where interleaving puts it */
    put_numbers(f, given, n, part->at + vector * width / 4 + lane, step, made);
    for (int64_t r = 0; r < spec->high; r++)
      for (int64_t k = 0; k < spec->wide; k++)
        put_weight(spec, f->words + part->words + ((k * groups + r / each) * 4 + vector) * width, lane, r, weight(given, n, r * spec->wide + k));
  }
}

/* Parts of channels; and where so few stand in neighbouring pixels that several fill a vector, one of those, which is not counted. */
static void *make_depthwise(Filter *f, const Given *given, float step, float made) {
  const ChainSpec *spec = f->spec;
  int64_t each = spec->lanes / 4, groups = (spec->high + each - 1) / each, vectors = spec->wide * groups * 4;
  int64_t room = (f->n / LANE + 4) * BLOCK_MOST, widest = spec->of[0] ? 0 : 1;
  f->parts = calloc((size_t)(f->n / LANE + 4), sizeof *f->parts);
  f->words = aligned_alloc(64, (size_t)(room * vectors)), f->bias = aligned_alloc(64, (size_t)room * 4), f->scale = aligned_alloc(64, (size_t)room * 4);
  if (!f->parts || !f->words || !f->bias || !f->scale) return status(FAIL, "qcc: out of memory");
  memset(f->words, 0, (size_t)(room * vectors)), memset(f->bias, 0, (size_t)room * 4), memset(f->scale, 0, (size_t)room * 4);
  for (int64_t at = 0, which; at < f->n; f->count++, at += 64 >> which) {
    int64_t left = f->n - at, width;
    which = left >= 64 ? widest : left >= 32 ? 1 : 2, width = 64 >> which;
    f->parts[f->count] = (Part){left < width ? most(f->n - width, 0) : at, f->count * BLOCK_MOST, f->count * BLOCK_MOST * vectors, (int)which};
  }
  for (int64_t p = 0; p < f->count; p++) put_part(f, given, f->parts + p, step, made);
  f->folded = spec->across == 1 && f->n <= LANE && (64 >> widest) % f->n == 0 ? 64 >> widest : 0;
  f->parts[f->count] = (Part){0, f->count * BLOCK_MOST, f->count * BLOCK_MOST * vectors, (int)widest};
  if (f->folded) put_part(f, given, f->parts + f->count, step, made);
  return NULL;
}

/* Planes of codes, and the shape that they have as bytes. */
static void *take_planes(const ChainSpec *spec, const void *info, Input *codes, Given *given) {
  Input shape, plane;
  int count = planes_of(spec->bits, given->widths);
  void *bad = constant(info, (size_t)(CODES + count), &shape);
  if (bad) return bad;
  if (shape.type != INT64 || shape.rank != 1 || shape.dims[0] > 8) return status(INVALID, "qcc: a shape is a list of sizes");
  *codes = (Input){.type = INT8, .rank = (size_t)shape.dims[0]};
  int64_t all = 1;
  for (size_t i = 0; i < codes->rank; i++) all *= codes->dims[i] = ((const int64_t *)shape.data)[i];
  for (int i = 0; i < count; i++) {
    if ((bad = constant(info, (size_t)(CODES + i), &plane))) return bad;
    if (plane.type != UINT8 || plane.rank != 1 || all < 1 || plane.dims[0] != (all + 7) / 8 * given->widths[i])
      return status(INVALID, "qcc: planes hold the codes of all weights, filled up to a multiple of 8");
    given->planes[i] = plane.data;
  }
  given->bits = spec->bits;
  return NULL;
}

static void *take_weights(const ChainSpec *spec, const void *info, Input *codes, Given *given) {
  Input scale, zero, bias;
  void *bad = spec->bits ? take_planes(spec, info, codes, given) : constant(info, CODES, codes);
  if (bad || (bad = constant(info, at(spec, SCALE), &scale)) || (bad = constant(info, at(spec, ZERO), &zero)) ||
      (bad = constant(info, at(spec, BIAS), &bias))) return bad;
  int whole = codes->rank == 4 && (codes->type == INT8 || codes->type == UINT8) && zero.type == codes->type && scale.type == FLOAT && bias.type == INT32;
  int64_t n = codes->dims[0], zeros = zero.rank ? zero.dims[0] : 1;
  if (!whole || scale.rank != 1 || scale.dims[0] != n || bias.rank != 1 || bias.dims[0] != n || (zeros != 1 && zeros != n) || (spec->depthwise && codes->dims[1] != 1))
    return status(INVALID, "qcc: weights of a convolution of bytes are bytes with a scale, a zero and a bias a filter");
  given->codes = codes->data, given->zeros = zero.data, given->is_signed = codes->type == INT8, given->zero_step = zeros == n;
  given->each = codes->dims[1] * codes->dims[2] * codes->dims[3], given->bias = bias.data, given->scale = scale.data;
  return NULL;
}

/* A bound, rounded half to even as values are. */
static float within(const float *facts, float bound) {
  if (!(bound > facts[LOW])) bound = facts[LOW];
  if (bound > facts[HIGH]) bound = facts[HIGH];
  volatile float whole = bound + 0x1.8p23f;
  return whole - 0x1.8p23f;
}

/* The numbers behind the sums; all bounds are counted from the code of zero. */
static void *take_facts(Filter *f, const void *info, float *step, float *made) {
  const ChainSpec *spec = f->spec;
  float zero, y_zero, low = 0, high = 0, *facts = f->facts;
  void *bad = number(info, X_SCALE, FLOAT, step);
  if (bad || (bad = number(info, X_ZERO, UINT8, &zero)) || (bad = number(info, at(spec, Y_SCALE), FLOAT, made)) || (bad = number(info, at(spec, Y_ZERO), UINT8, &y_zero))) return bad;
  f->zero = (uint8_t)zero;
  facts[LOW] = -y_zero, facts[HIGH] = 255 - y_zero, facts[Y] = y_zero;
  if (spec->cuts == 1) facts[LOW] = within(facts, 0);
  if (spec->cuts == 2) {
    if ((bad = number(info, at(spec, CUT), FLOAT, &low)) || (bad = number(info, at(spec, CUT) + 1, FLOAT, &high))) return bad;
    low = within(facts, low / *made), high = within(facts, high / *made);
    facts[LOW] = low < high ? low : high, facts[HIGH] = high;
  }
  if (!spec->adds) return NULL;
  size_t first = residual(spec) + 1;
  float other, other_zero, sum, sum_zero;
  if ((bad = number(info, first, FLOAT, &other)) || (bad = number(info, first + 1, UINT8, &other_zero)) ||
      (bad = number(info, first + 2, FLOAT, &sum)) || (bad = number(info, first + 3, UINT8, &sum_zero))) return bad;
  facts[OWN] = *made / sum, facts[OTHERS] = other / sum, facts[OTHER_ZERO] = other_zero;
  facts[SUM_LOW] = spec->cuts_sum ? 0 : -sum_zero, facts[SUM_HIGH] = 255 - sum_zero, facts[SUM_ZERO] = sum_zero;
  return NULL;
}

static void *create(const void *spec, const void *info, void **kernel) {
  Filter *f = calloc(1, sizeof *f);
  if (!f) return status(FAIL, "qcc: out of memory");
  f->spec = spec;
  Input codes;
  Given given = {0};
  float step, made;
  void *bad = take_weights(f->spec, info, &codes, &given);
  if (!bad && (codes.dims[2] != f->spec->high || codes.dims[3] != f->spec->wide)) bad = status(INVALID, "qcc: weights do not have the kernel's size");
  if (!bad) bad = take_facts(f, info, &step, &made);
  if (!bad) {
    f->n = codes.dims[0], f->c = f->spec->depthwise ? f->n : codes.dims[1];
    bad = f->spec->depthwise ? make_depthwise(f, &given, step, made) : make_product(f, &given, step, made);
  }
  if (!bad) bad = let_go(info, CODES, at(f->spec, SCALE) - CODES);
  if (bad) free_filter(f); else *kernel = f;
  return bad;
}

/* ---- a call ---- */
typedef struct {
  const Filter *filter;
  const uint8_t *x, *other;
  uint8_t *y;
  int64_t images, rows, columns, down, across; /* of what is read; rows and columns of what is made */
  int64_t share, total; /* of a task, and in all: rows, or pixels where they are read as they lie */
  int failed;
} Run;

/* Pixels of fewer channels than are computed at once, where they belong: what is copied beyond one the next covers. */
static void put_narrow(const Run *run, const uint8_t *spare, int64_t pixel, int64_t pixels) {
  int64_t n = run->filter->n, i = 0;
  uint8_t *to = run->y + pixel * n;
  for (; i * n + LANE <= pixels * n; i++) memcpy(to + i * n, spare + i * LANE, LANE);
  for (; i < pixels; i++) memcpy(to + i * n, spare + i * LANE, (size_t)n);
}

/* So many neighbouring pixels, which begin at `a`, `step` bytes apart, and become those from `pixel` on. */
static int multiply(const Run *run, const uint8_t *a, int64_t row, int64_t step, int64_t pixel, int64_t pixels, uint8_t *spare) {
  const Filter *f = run->filter;
  int narrow = f->n < f->spec->lanes;
  int64_t stride = narrow ? LANE : f->n;
  uint8_t *to = narrow ? spare : run->y + pixel * f->n;
  Any args[] = {POINTER(a), POINTER(f->words), POINTER(f->bias), POINTER(f->scale), POINTER(f->facts),
                POINTER(run->other ? run->other + pixel * f->n : NULL), POINTER(to), TENSOR(&none_filled), NUMBER(f->spec->high), NUMBER(f->fours),
                NUMBER(row), NUMBER(step), NUMBER(pixels), NUMBER(stride), NUMBER(f->whole), NUMBER(f->blocks), NUMBER(f->last)};
  if (CALL(f->spec->product, args)) return 0;
  if (narrow) put_narrow(run, spare, pixel, pixels);
  return 1;
}

/* One part of channels of rows, depthwise: so many pixels of each, from a byte on. */
static int filter_part(const Run *run, const Part *part, const uint8_t *a, int64_t row, uint8_t *to, int64_t stride, int64_t rows, int64_t pixels) {
  const Filter *f = run->filter;
  Any args[] = {POINTER(a), POINTER(f->words + part->words), POINTER(f->bias + part->at), POINTER(f->scale + part->at), POINTER(f->facts),
                POINTER(to), TENSOR(&none_filled), NUMBER(row), NUMBER(f->c), NUMBER(pixels), NUMBER(rows), NUMBER(stride),
                NUMBER(stride * run->across)};
  return !CALL(f->spec->of[part->which], args);
}

/* Rows of what is made, depthwise, on a copy. */
static int filter_rows(const Run *run, const uint8_t *a, int64_t row, int64_t pixel, int64_t rows, uint8_t *spare) {
  const Filter *f = run->filter;
  int64_t line = run->across * f->n;
  if (f->folded && line >= f->folded) { /* the last ends where the row does */
    for (int64_t at = 0; at < line; at += f->folded) {
      int64_t start = least(at, line - f->folded);
      if (!filter_part(run, f->parts + f->count, a + start, row, run->y + pixel * f->n + start, f->n, rows, 1)) return 0;
    }
    return 1;
  }
  int narrow = f->n < LANE;
  uint8_t *to = narrow ? spare : run->y + pixel * f->n;
  for (const Part *part = f->parts; part < f->parts + f->count; part++)
    if (!filter_part(run, part, a + part->start, row, to + part->start, narrow ? LANE : f->n, rows, run->across)) return 0;
  if (narrow) put_narrow(run, spare, pixel, rows * run->across);
  return 1;
}

/* Rows of an image from one on, which may lie outside, with what is around them: `wide` pixels each. */
static void copy_rows(const Run *run, int64_t image, int64_t first, int64_t rows, int64_t wide, uint8_t *to) {
  const Filter *f = run->filter;
  int64_t left = f->spec->left, inside = least(run->columns, wide - left);
  for (int64_t r = first; r < first + rows; r++, to += wide * f->c) {
    if (r < 0 || r >= run->rows) { memset(to, f->zero, (size_t)(wide * f->c)); continue; }
    memset(to, f->zero, (size_t)(left * f->c));
    memcpy(to + left * f->c, run->x + (image * run->rows + r) * run->columns * f->c, (size_t)(inside * f->c));
    memset(to + (left + inside) * f->c, f->zero, (size_t)((wide - left - inside) * f->c));
  }
}

static void rows_task(void *p, size_t task) {
  Run *run = p;
  const Filter *f = run->filter;
  const ChainSpec *spec = f->spec;
  int64_t wide = most((run->across - 1) * spec->across + spec->wide, spec->left), row = wide * f->c;
  int64_t fit = most((ROOM / row - spec->high) / spec->down + 1, 1), end = least(((int64_t)task + 1) * run->share, run->total);
  for (int64_t at = (int64_t)task * run->share, rows; at < end; at += rows) {
    int64_t image = at / run->down, first = at % run->down;
    rows = least(least(end - at, run->down - first), fit);
    int64_t read = (rows - 1) * spec->down + spec->high;
    size_t copied = padded((size_t)(read * row + SLACK)), spare = (size_t)(rows * run->across * LANE);
    uint8_t *room = arena(TASK_ARENA, copied + spare);
    if (!room) { __atomic_store_n(&run->failed, 1, __ATOMIC_RELAXED); return; }
    copy_rows(run, image, first * spec->down - spec->top, read, wide, room);
    memset(room + read * row, 0, SLACK);
    int ok = 1;
    if (spec->depthwise) ok = filter_rows(run, room, row, at * run->across, rows, room + copied);
    for (int64_t r = 0; r < rows && ok && !spec->depthwise; r++)
      ok = multiply(run, room + r * spec->down * row, row, spec->across * f->c, (at + r) * run->across, run->across, room + copied);
    if (!ok) { __atomic_store_n(&run->failed, 1, __ATOMIC_RELAXED); return; }
  }
}

static void pixels_task(void *p, size_t task) {
  Run *run = p;
  const Filter *f = run->filter;
  int64_t fit = most(DEEP / f->c / 6, 1) * 6, end = least(((int64_t)task + 1) * run->share, run->total);
  for (int64_t at = (int64_t)task * run->share, pixels; at < end; at += pixels) {
    pixels = least(end - at, fit);
    uint8_t *spare = f->n < LANE ? arena(TASK_ARENA, (size_t)(pixels * LANE)) : NULL;
    if ((f->n < LANE && !spare) || !multiply(run, run->x + at * f->c, 0, f->c, at, pixels, spare)) {
      __atomic_store_n(&run->failed, 1, __ATOMIC_RELAXED);
      return;
    }
  }
}

static void *compute(void *kernel, void *context) {
  const Filter *f = kernel;
  const ChainSpec *spec = f->spec;
  Run run = {.filter = f};
  Input x, other;
  void *bad = input(context, X, &x);
  if (bad) return bad;
  if (x.rank != 4 || x.dims[3] != f->c) return status(INVALID, "qcc: the channels of the input, its last axis, do not fit the weights");
  run.x = x.data, run.images = x.dims[0], run.rows = x.dims[1], run.columns = x.dims[2];
  int64_t high = run.rows + spec->top + spec->bottom - spec->high, wide = run.columns + spec->left + spec->right - spec->wide;
  if (high < 0 || wide < 0) return status(INVALID, "qcc: the image is smaller than the kernel");
  run.down = high / spec->down + 1, run.across = wide / spec->across + 1;
  x.dims[1] = run.down, x.dims[2] = run.across, x.dims[3] = f->n;
  if (spec->adds) {
    if ((bad = input(context, residual(spec), &other))) return bad;
    if (other.rank != 4 || memcmp(other.dims, x.dims, 4 * sizeof *x.dims)) return status(INVALID, "qcc: what is added does not have the output's shape");
    run.other = other.data;
  }
  if ((bad = output(context, 0, &x, &run.y))) return bad;
  if (!run.images || !run.down || !run.across) return NULL;
  int64_t pixels = run.images * run.down * run.across, reach = spec->high * spec->wide;
  int flat = !spec->depthwise && reach == 1 && spec->down * spec->across == 1 && run.down == run.rows && run.across == run.columns && f->c % 4 == 0;
  int64_t tasks = tasks_of(&f->others, pixels * f->n * reach * (spec->depthwise ? 4 : f->c) / 2);
  run.total = flat ? pixels : run.images * run.down;
  run.share = (run.total + tasks - 1) / tasks;
  if (flat) run.share = (run.share + 5) / 6 * 6;
  if ((bad = spread(&f->others, context, &run, flat ? pixels_task : rows_task, (run.total + run.share - 1) / run.share))) return bad;
  return run.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

static int input_type(const void *of, size_t index) {
  const ChainSpec *spec = of;
  size_t first = residual(spec);
  if (index == X || index == X_ZERO || index == at(spec, Y_ZERO)) return UINT8;
  if ((index >= CODES && index < at(spec, SCALE)) || index == at(spec, ZERO)) return 0; /* looked at when the kernel is made */
  if (index == at(spec, BIAS)) return INT32;
  return index == first || index == first + 2 || index == first + 4 ? UINT8 : FLOAT;
}

static int output_type(const void *of, size_t index) {
  (void)of, (void)index;
  return UINT8;
}

void serve_filter(const void *of, Served *served) {
  const ChainSpec *spec = of;
  *served = (Served){.name = spec->name, .spec = spec, .input_type = input_type, .create = create,
                     .compute = compute, .destroy = free_filter, .outputs = 1, .output_type = output_type,
                     .inputs = residual(spec) + (spec->adds ? 5 : 0)};
}
