/* Attention over rows that are all given. Heads are read where they lie, a task is some blocks of queries of some heads, and no
 * table of scores is written. What is added to scores is made ready once a call: as logarithms to base 2, like scores, and
 * where it is another for each score, by keys. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

enum { QUERIES, KEYS, VALUES, MASK, BOOLEAN = 9, LANES = 16, AXES = 4, FEW = 3 /* queries that meet keys one by one */ };
static const float LOG2_E = 1.44269504f, LOWEST = -3.40282347e+38f /* and less: the runtime takes it for infinite */;
/* Beside what is seen, what is hidden weighs exactly nothing, unless scores are larger than both. */
static const float SEEN = -1e20f, HIDDEN = -1e30f;

typedef struct { const DenseSpec *spec; float scale; int others; } Dense;

typedef struct { int64_t first, end; } Range;

typedef struct {
  const DenseSpec *spec;
  const float *in[MASK];
  float scale, *y;
  int64_t samples, rows, columns, width, blocks /* of so many queries */, share /* blocks of a task */;
  const void *mask;
  int flags, scored /* a mask for each row */;
  int64_t sizes[AXES] /* of the mask */, makings /* of it */;
  float *bias;
  Range *seen; /* columns of each making */
  int failed;
} Meeting;

static void *create(const void *spec, const void *info, void **kernel) {
  Dense *made = calloc(1, sizeof *made);
  if (!made) return status(FAIL, "qcc: out of memory");
  made->spec = spec;
  *kernel = made;
  void *bad = ORT(FLOAT_ATTRIBUTE, const void *, const char *, float *)(info, "scale", &made->scale);
  made->scale *= LOG2_E;
  return bad;
}

/* ---- what is added to scores ---- */
/* Of a row of a mask, from a number of it on; `wide`: it has one for each column. */
static void take_row(const Meeting *m, int64_t at, int64_t wide, float *restrict to) {
  const float *restrict numbers = (const float *)m->mask + at;
  const uint8_t *restrict flags = (const uint8_t *)m->mask + at;
  int64_t count = wide > 1 ? m->columns : 1;
  if (m->flags) for (int64_t c = 0; c < count; c++) to[c] = flags[c] ? 0 : -__builtin_inff();
  else
    for (int64_t c = 0; c < count; c++) {
      float made = numbers[c] * LOG2_E;
      made = made < LOWEST ? LOWEST : made;
      to[c] = numbers[c] <= LOWEST ? -__builtin_inff() : made;
    }
  for (int64_t c = count; c < m->columns; c++) to[c] = *to;
}

static int64_t width_of(const Meeting *m, int64_t block) {
  return m->width > 1 && m->rows - block * m->width <= LANES ? LANES : m->width;
}

/* A mask of a block of queries, or of all where it is the same for each; and which columns there are seen, all of them where a row
 * sees none: such are alike then. */
static void make_task(void *p, size_t task) {
  Meeting *m = p;
  int64_t each = m->scored ? m->blocks : 1, block = (int64_t)task % each, of = (int64_t)task / each, width = m->scored ? width_of(m, block) : 1;
  int64_t begin = block * m->width, wide = m->sizes[3], seen_rows = 0;
  float *to = m->bias + (int64_t)task * m->columns * (m->scored ? m->width : 1), *made = width > 1 ? arena(TASK_ARENA, (size_t)m->columns * 4) : to;
  if (!made) { __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED); return; }
  Range range = {m->columns, 0};
  for (int64_t row = 0; row < width; row++) {
    int64_t first = 0, sees = 0, end = m->columns;
    take_row(m, (of * m->sizes[2] + (m->scored ? least(begin + row, m->rows - 1) : 0)) * wide, wide, made);
    while (first < range.first && made[first] <= HIDDEN) first++;
    while (end > range.end && made[end - 1] <= HIDDEN) end--;
    while (sees < m->columns && !(made[sees] >= SEEN)) sees++;
    if (first < range.first) range.first = first;
    if (end > range.end) range.end = end;
    seen_rows += sees < m->columns;
    for (int64_t c = 0; c < m->columns && width > 1; c++) to[c * width + row] = made[c];
  }
  m->seen[task] = seen_rows < width || m->spec->causal ? (Range){0, m->columns} : range;
}

/* Exporters spread a mask of columns over all rows. */
static int rows_differ(const Meeting *m) {
  int64_t bytes = m->sizes[3] * (m->flags ? 1 : 4), rows = m->sizes[2];
  const char *at = m->mask;
  for (int64_t of = m->sizes[0] * m->sizes[1]; of--; at += bytes)
    for (int64_t row = 1; row < rows; row++, at += bytes)
      if (memcmp(at, at + bytes, (size_t)bytes)) return 1;
  return 0;
}

static void *take_mask(Meeting *m, int *others, void *context) {
  Input in;
  void *bad = input(context, MASK, &in);
  if (bad) return bad;
  int64_t all[AXES] = {m->samples, m->spec->heads, m->rows, m->columns};
  int fits = in.rank >= 2 && in.rank <= AXES && (in.type == FLOAT || in.type == BOOLEAN);
  for (size_t i = 0; i < AXES && fits; i++) {
    m->sizes[i] = i + in.rank < AXES ? 1 : in.dims[i + in.rank - AXES];
    fits = m->sizes[i] == 1 || m->sizes[i] == all[i];
  }
  if (!fits) return status(INVALID, "qcc: a mask does not fit the scores");
  m->mask = in.data, m->flags = in.type == BOOLEAN, m->scored = rows_differ(m);
  int64_t tasks = m->sizes[0] * m->sizes[1] * (m->scored ? m->blocks : 1), each = m->columns * (m->scored ? m->width : 1);
  size_t bytes = padded((size_t)(tasks * each + LANES /* are read whole */) * 4);
  m->bias = arena(CALL_ARENA, bytes + (size_t)tasks * sizeof *m->seen);
  if (!m->bias) return status(FAIL, "qcc: out of memory");
  m->seen = (Range *)((char *)m->bias + bytes);
  if (tasks_of(others, tasks * each * ROUND_WORK) > 1) return spread(others, context, m, make_task, tasks);
  for (int64_t task = 0; task < tasks; task++) make_task(m, (size_t)task);
  return NULL;
}

/* ---- queries meet keys ---- */
static int meet(const Meeting *m, int64_t sample, int64_t head, int64_t block, float *room) {
  const DenseSpec *spec = m->spec;
  int64_t begin = block * m->width, rows = least(m->width, m->rows - begin), width = width_of(m, block);
  int64_t kept = head / (spec->heads / spec->kept), row = sample * m->rows + begin, few = width < m->width;
  Range range = {0, m->columns};
  const float *bias = &m->scale; /* is not read */
  if (spec->masked) {
    int64_t making = (m->sizes[0] > 1 ? sample : 0) * m->sizes[1] + (m->sizes[1] > 1 ? head : 0);
    making = m->scored ? making * m->blocks + block : making;
    range = m->seen[making];
    bias = m->bias + (making * (m->scored ? m->width : 1) * m->columns) + range.first * (m->scored ? width : 1);
  }
  if (spec->causal) range.end = least(range.end, begin + rows);
  int64_t column = (sample * m->columns + range.first) * spec->kept + kept, at = (row * spec->heads + head) * spec->channels;
  Any args[] = {POINTER(m->in[QUERIES] + at), POINTER(m->in[KEYS] + column * spec->channels), POINTER(m->in[VALUES] + column * spec->channels),
                POINTER(bias), POINTER(&m->scale), POINTER(room), POINTER(m->y + at), TENSOR(&none_filled),
                NUMBER(rows), NUMBER(range.end - range.first), NUMBER(begin)};
  return !CALL(m->width == 1 ? spec->one : (m->scored ? spec->by_score : spec->by_key)[few], args);
}

static void meet_task(void *p, size_t task) {
  Meeting *m = p;
  int64_t units = m->samples * m->spec->heads * m->blocks, unit = (int64_t)task * m->share, end = least(unit + m->share, units), ok = 1;
  float *room = arena(TASK_ARENA, (size_t)m->spec->room * 4);
  for (; room && ok && unit < end; unit++) {
    int64_t head = unit / m->blocks;
    ok = meet(m, head / m->spec->heads, head % m->spec->heads, unit % m->blocks, room);
  }
  if (!room || !ok) __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED);
}

static void *compute(void *kernel, void *context) {
  Dense *of = kernel;
  const DenseSpec *spec = of->spec;
  Meeting m = {.spec = spec, .scale = of->scale};
  Input in[MASK];
  int fits = 1;
  void *bad;
  for (size_t i = 0; i < MASK; i++) {
    if ((bad = input(context, i, in + i))) return bad;
    m.in[i] = in[i].data;
    int64_t heads = i ? spec->kept : spec->heads;
    fits = fits && in[i].rank == 3 && in[i].dims[0] == in[0].dims[0] && in[i].dims[1] == in[i ? KEYS : 0].dims[1] && in[i].dims[2] == heads * spec->channels;
  }
  if (!fits) return status(INVALID, "qcc: queries, keys and values do not fit each other");
  if ((bad = output(context, 0, in, &m.y))) return bad;
  m.samples = in[0].dims[0], m.rows = in[0].dims[1], m.columns = in[KEYS].dims[1];
  m.width = m.rows <= FEW ? 1 : spec->width, m.blocks = (m.rows + m.width - 1) / m.width;
  int64_t units = m.samples * spec->heads * m.blocks;
  if (!m.columns) { memset(m.y, 0, (size_t)(m.samples * m.rows * spec->heads * spec->channels) * 4); return NULL; }
  if (!units || (spec->masked && (bad = take_mask(&m, &of->others, context)))) return units ? bad : NULL;
  int64_t tasks = least(tasks_of(&of->others, 2 * m.rows * m.columns * spec->channels * m.samples * spec->heads), units);
  m.share = (units + tasks - 1) / tasks;
  if ((bad = spread(&of->others, context, &m, meet_task, (units + m.share - 1) / m.share))) return bad;
  return m.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

static int input_type(const void *of, size_t index) {
  (void)of;
  return index == MASK ? 0 : FLOAT; /* floats or flags, looked at when it runs */
}

void serve_dense(const void *of, Served *served) {
  const DenseSpec *spec = of;
  *served = (Served){.name = spec->name, .spec = spec, .input_type = input_type, .create = create,
                     .compute = compute, .destroy = free, .outputs = 1, .inputs = MASK + (size_t)spec->masked};
}
