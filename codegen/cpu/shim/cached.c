/* Attention over rows that are kept as codes. New rows are put behind a copy of those that were fed, and no row becomes a
 * float anywhere but in registers. Few queries meet some rows a task, and what each task made is put together; of many
 * queries each task has some, which meet all rows. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

enum { SIDES = 2, LANES = 16, MOST = 256 /* rows of a call */, FEW = 16 /* queries of a head of keys that rows are divided for */,
       MOST_WIDTH = 512, MOST_TOGETHER = 4, LEAST_CODE = 8 };
static const float LOWEST = -3.40282347e+38f, SMALL = 0x1p-100f, HIDDEN = -1e30f /* and less: beside any score it is nothing */, ROUND = 0x1.8p23f /* added to a number, it leaves whole ones */;

/* No library of mathematics is linked for these few. */
static inline float larger(float a, float b) { return a > b ? a : b; }
static inline float whole_between(float value, float low, float high) {
  value = value < low ? low : value > high ? high : value;
  return value + ROUND - ROUND;
}
/* exp of what is not above 0, to 1e-7 of itself, as codegen/tir/steps.py has it. */
static float power_of_e(float value) {
  if (value < -87) return 0;
  float number = value * 1.44269504f + ROUND - ROUND, rest = value - number * 0.693359375f + number * 2.12194440e-4f;
  float sum = (((0.00138825f * rest + 0.00836665f) * rest + 0.0416672f) * rest + 0.16666543f) * rest + 0.49999998f;
  union { uint32_t u; float f; } power = {.u = (uint32_t)((int)number + 127) << 23};
  return power.f * (rest + rest * rest * sum + 1);
}

typedef struct { const CachedSpec *spec; int others; } Cached;

typedef struct {
  const RowCode *code;
  const char *past, *past_scales; /* [samples, kept heads, earlier, ..] */
  char *present, *present_scales; /* with the new ones behind */
  const float *fed, *first;       /* new rows as they come; those that stand before all in floats */
  int64_t bytes, scale_bytes;     /* of a row, and of its scales */
} Side;

typedef struct {
  const CachedSpec *spec;
  Side sides[SIDES];
  const float *q, *bias;
  float *y, *parts; /* what each task made, where rows are divided: values, then the largest score and the sum of powers */
  int64_t samples, fresh, added /* new rows of queries, and of keys that are kept: first ones are not */, earlier;
  int64_t rows /* earlier and added */, first, each /* queries of a head of keys, for one new row */;
  int64_t bias_sizes[3] /* samples, heads, new rows: 1 or all */, cuts, share /* parts of rows; rows of a part, or new rows of a task */;
  int failed;
} Meeting;

static void *create(const void *spec, const void *info, void **kernel) {
  (void)info;
  Cached *made = calloc(1, sizeof *made);
  if (!made) return status(FAIL, "qcc: out of memory");
  made->spec = spec;
  *kernel = made;
  return NULL;
}

/* ---- how a row becomes codes: as the op's body has it (ir/onnx/attention/cached/body.py) ---- */
static float power_of_two(int byte) {
  union { uint32_t u; float f; } of = {.u = (uint32_t)byte << 23};
  return byte ? of.f : 0x1p-127f;
}

static uint16_t half_of(float value) { /* of numbers that are not negative; to the nearest, the even one of two */
  union { float f; uint32_t u; } of = {.f = value}, small = {.f = value + 0.5f};
  if (of.u >= 0x47800000u) return of.u > 0x7f800000u ? 0x7e00 : 0x7c00;
  if (of.u < 0x38800000u) return (uint16_t)(small.u - 0x3f000000u);
  return (uint16_t)((of.u + 0xc8000fffu + (of.u >> 13 & 1)) >> 13);
}

/* The scale of a group, as it is kept and as a factor. */
static float put_scale(const RowCode *code, const float *from, char *to, int64_t at) {
  float top = SMALL;
  for (int i = 0; i < code->group; i++) top = larger(larger(from[i], -from[i]), top);
  if (code->scale == 3) {
    union { float f; uint32_t u; } of = {.f = top};
    int power = (int)(of.u >> 23) + ((of.u & 0x7fffff) >= 0x7fff8c) /* as good as the next */ - (code->bits - 2);
    uint8_t byte = (uint8_t)(power < 0 ? 0 : power > 254 ? 254 : power);
    ((uint8_t *)to)[at] = byte;
    return power_of_two(byte);
  }
  float least = code->scale == 1 ? 0x1p-14f : 0x1p-126f, scale = top / (float)((1 << (code->bits - 1)) - 1);
  if (scale < least) scale = least;
  if (code->scale == 2) { ((float *)to)[at] = scale; return scale; }
  uint16_t half = half_of(scale);
  ((uint16_t *)to)[at] = half;
  return half_to_float(half);
}

static void put_row(const Side *side, int64_t width, const float *from, char *to, char *scales) {
  const RowCode *code = side->code;
  if (code->bits == 32) { memcpy(to, from, (size_t)width * 4); return; }
  float moved[MOST_WIDTH], top = (float)((1 << (code->bits - 1)) - 1), low = code->group ? -top : -top - 1;
  for (int64_t start = 0, size = code->group ? code->group : width; start < width; start += size) {
    float scale = code->group ? put_scale(code, from + start, scales, start / size) : 1;
    for (int64_t i = start; i < start + size; i++) moved[i] = code->group ? from[i] / scale : from[i];
  }
  if (code->bits == 8) {
    for (int64_t i = 0; i < width; i++) to[i] = (char)(int8_t)whole_between(moved[i], low, top);
    return;
  }
  uint8_t codes[MOST_WIDTH];
  for (int64_t i = 0; i < width; i++) codes[i] = (uint8_t)whole_between(moved[i] + LEAST_CODE, low + LEAST_CODE, 15);
  for (int64_t i = 0; i < width / 2; i++) to[i] = (char)(codes[i] | codes[width / 2 + i] << 4);
}

/* New rows of a head of keys behind those that were fed; these too from the last whole vector on, since that is read there. */
static void put_task(void *p, size_t task) {
  Meeting *m = p;
  int64_t kept = m->spec->kept, width = m->spec->channels, whole = m->earlier / LANES * LANES, head = (int64_t)task;
  for (int s = 0; s < SIDES; s++) {
    Side *side = m->sides + s;
    int64_t to = head * m->rows, from = head * m->earlier, rest = m->earlier - whole;
    memcpy(side->present + (to + whole) * side->bytes, side->past + (from + whole) * side->bytes, (size_t)(rest * side->bytes));
    if (side->scale_bytes)
      memcpy(side->present_scales + (to + whole) * side->scale_bytes, side->past_scales + (from + whole) * side->scale_bytes, (size_t)(rest * side->scale_bytes));
    for (int64_t r = 0; r < m->added; r++) {
      const float *row = side->fed + ((head / kept * m->added + r) * kept + head % kept) * width;
      int64_t at = to + m->earlier + r;
      put_row(side, width, row, side->present + at * side->bytes, side->present_scales + at * side->scale_bytes);
    }
  }
}

/* ---- queries meet rows ---- */
typedef struct {
  const Meeting *m;
  int64_t head, row;       /* of keys, over all samples; the new row that queries are of */
  const float *q, *bias;   /* of the first of those together, and of its first row */
  int64_t apart;           /* between biases of heads */
  float *made, *top, *sums, *room; /* room: scores, a bias a query, and rows that are filled up */
} Queries;

typedef struct { const char *codes, *scales; int64_t bytes, scale_bytes; } Rows;

/* All these rows are hidden from queries that have seen others: what they would add is exactly nothing. */
static int hidden(const Queries *queries, int64_t at, int64_t count) {
  for (int64_t r = 0; r < queries->m->spec->together; r++) {
    if (!(queries->top[r] > HIDDEN / 10)) return 0;
    for (int64_t i = at; i < at + count; i++) if (!(queries->bias[r * queries->apart + i] <= HIDDEN)) return 0;
  }
  return 1;
}

/* `count` rows behind each other, `at` of all; those that fill no vector are filled up with such as are hidden. */
static int meet(const Queries *queries, Kernel kernel, const Rows *rows, int64_t at, int64_t count) {
  const CachedSpec *spec = queries->m->spec;
  int64_t together = spec->together, whole = count / LANES * LANES;
  if (hidden(queries, at, count)) return 1;
  float *filled = queries->room + together * MOST;
  for (int part = 0; part < 2; part++) {
    int64_t some = part ? count - whole : whole;
    if (!some) continue;
    const char *of[4];
    const float *bias = queries->bias + at;
    int64_t apart = queries->apart;
    for (int s = 0; s < SIDES; s++) of[2 * s] = rows[s].codes, of[2 * s + 1] = rows[s].scales;
    if (part) {
      char *to = (char *)(filled + together * LANES);
      for (int s = 0; s < SIDES; s++)
        for (int scaled = 0; scaled < 2; scaled++) {
          int64_t bytes = scaled ? rows[s].scale_bytes : rows[s].bytes;
          memset(to, 0, (size_t)(LANES * bytes));
          if (bytes) memcpy(to, of[2 * s + scaled] + whole * bytes, (size_t)(some * bytes));
          of[2 * s + scaled] = to, to += padded((size_t)(LANES * bytes));
        }
      for (int64_t r = 0; r < together; r++)
        for (int64_t i = 0; i < LANES; i++) filled[r * LANES + i] = i < some ? bias[r * apart + whole + i] : -__builtin_inff();
      bias = filled, apart = LANES;
    }
    Any args[] = {POINTER(queries->q), POINTER(of[0]), POINTER(of[1] ? of[1] : of[0]), POINTER(of[2]), POINTER(of[3] ? of[3] : of[2]),
                  POINTER(bias), POINTER(queries->room), POINTER(queries->made), POINTER(queries->top), POINTER(queries->sums),
                  TENSOR(&none_filled), NUMBER((some + LANES - 1) / LANES), NUMBER(apart)};
    if (CALL(kernel, args)) return 0;
  }
  return 1;
}

/* Rows from one to another of those that stand behind the first in floats; what was fed is read where it was. */
static int meet_kept(const Queries *queries, int64_t from, int64_t end) {
  const Meeting *m = queries->m;
  int64_t whole = m->earlier / LANES * LANES;
  for (int64_t count; from < end; from += count) {
    int old = from < whole;
    count = least(MOST, (old ? least(whole, end) : end) - from);
    int64_t at = queries->head * (old ? m->earlier : m->rows) + from;
    Rows rows[SIDES];
    for (int s = 0; s < SIDES; s++) {
      const Side *side = m->sides + s;
      const char *codes = old ? side->past : side->present, *scales = old ? side->past_scales : side->present_scales;
      rows[s] = (Rows){codes + at * side->bytes, side->scale_bytes ? scales + at * side->scale_bytes : NULL, side->bytes, side->scale_bytes};
    }
    if (!meet(queries, m->spec->meet, rows, m->first + from, count)) return 0;
  }
  return 1;
}

static int meet_first(const Queries *queries) {
  const Meeting *m = queries->m;
  int64_t bytes = m->spec->channels * 4;
  for (int64_t from = 0, count; from < m->first; from += count) {
    count = least(MOST, m->first - from);
    Rows rows[SIDES];
    for (int s = 0; s < SIDES; s++)
      rows[s] = (Rows){(const char *)m->sides[s].first + (queries->head * m->first + from) * bytes, NULL, bytes, 0};
    if (!meet(queries, m->spec->floats, rows, from, count)) return 0;
  }
  return 1;
}

/* Rows that were fed, as they are given back; a part of them, which is in the cache now that it was read. */
static void copy_rows(const Meeting *m, int64_t head, int64_t from, int64_t end) {
  int64_t whole = m->earlier / LANES * LANES;
  if (end > whole) end = whole;
  for (int s = 0; s < SIDES && from < end; s++) {
    const Side *side = m->sides + s;
    memcpy(side->present + (head * m->rows + from) * side->bytes, side->past + (head * m->earlier + from) * side->bytes, (size_t)((end - from) * side->bytes));
    if (side->scale_bytes)
      memcpy(side->present_scales + (head * m->rows + from) * side->scale_bytes, side->past_scales + (head * m->earlier + from) * side->scale_bytes, (size_t)((end - from) * side->scale_bytes));
  }
}

static size_t room_bytes(const Meeting *m) {
  size_t bytes = (size_t)(m->spec->together * (MOST + LANES)) * 4, floats = m->first ? 2 * padded((size_t)(LANES * m->spec->channels) * 4) : 0;
  for (int s = 0; s < SIDES; s++) bytes += padded((size_t)(LANES * m->sides[s].bytes)) + padded((size_t)(LANES * m->sides[s].scale_bytes));
  return padded(bytes) + floats + 64;
}

static void start(Queries *queries, const Meeting *m, int64_t head, int64_t row, int64_t query, float *made, float *top, float *sums, float *room) {
  int64_t sample = head / m->spec->kept, of = head % m->spec->kept * m->each + query;
  const int64_t *sizes = m->bias_sizes;
  int64_t all = m->first + m->rows, at = sizes[0] > 1 ? sample : 0;
  at = at * sizes[1] + (sizes[1] > 1 ? of : 0), at = at * sizes[2] + (sizes[2] > 1 ? row : 0);
  *queries = (Queries){.m = m, .head = head, .row = row, .q = m->q + ((sample * m->fresh + row) * m->spec->heads + of) * m->spec->channels,
                       .bias = m->bias + at * all, .apart = sizes[1] > 1 ? sizes[2] * all : 0, .made = made, .top = top, .sums = sums, .room = room};
  memset(made, 0, (size_t)(m->spec->together * m->spec->channels) * 4);
  for (int64_t r = 0; r < m->spec->together; r++) top[r] = LOWEST, sums[r] = 0;
}

/* Some rows, which all queries of a head of keys meet. */
static void part_task(void *p, size_t task) {
  Meeting *m = p;
  int64_t head = (int64_t)task / m->cuts, cut = (int64_t)task % m->cuts, width = m->spec->channels, together = m->spec->together;
  int64_t from = cut * m->share, end = least(from + m->share, m->rows);
  float *room = arena(TASK_ARENA, room_bytes(m));
  if (!room) { __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED); return; }
  int ok = 1;
  for (int64_t row = 0; row < m->fresh && ok; row++)
    for (int64_t query = 0; query < m->each && ok; query += together) {
      float *made = m->parts + (((int64_t)task * m->fresh + row) * m->each + query) * (width + 2);
      Queries queries;
      start(&queries, m, head, row, query, made, made + together * width, made + together * (width + 1), room);
      ok = (cut || meet_first(&queries)) && meet_kept(&queries, from, end);
    }
  copy_rows(m, head, from, end);
  if (!ok) __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED);
}

/* What the parts of rows made of some queries, put together by their largest scores. */
static void put_together(const Meeting *m, int64_t head, int64_t row, int64_t query) {
  int64_t width = m->spec->channels, together = m->spec->together, size = m->fresh * m->each * (width + 2);
  const float *first = m->parts + ((head * m->cuts * m->fresh + row) * m->each + query) * (width + 2);
  int64_t of = head % m->spec->kept * m->each + query;
  float *y = m->y + ((head / m->spec->kept * m->fresh + row) * m->spec->heads + of) * width;
  for (int64_t r = 0; r < together; r++, y += width) {
    float most = LOWEST, sum = 0;
    for (int64_t cut = 0; cut < m->cuts; cut++) most = larger(most, first[cut * size + together * width + r]);
    memset(y, 0, (size_t)width * 4);
    for (int64_t cut = 0; cut < m->cuts; cut++) {
      const float *made = first + cut * size;
      float factor = m->cuts == 1 ? 1 : power_of_e(made[together * width + r] - most);
      sum += factor * made[together * (width + 1) + r];
      for (int64_t c = 0; c < width; c++) y[c] += factor * made[r * width + c];
    }
    for (int64_t c = 0; c < width; c++) y[c] /= sum;
  }
}

/* Some new rows of queries, which meet all rows of a head of keys. */
static void rows_task(void *p, size_t task) {
  Meeting *m = p;
  int64_t tasks = (m->fresh + m->share - 1) / m->share, head = (int64_t)task / tasks, at = (int64_t)task % tasks;
  int64_t together = m->spec->together, width = m->spec->channels, kept = m->spec->kept;
  float *room = arena(TASK_ARENA, room_bytes(m)), top[MOST_TOGETHER], sums[MOST_TOGETHER];
  if (!room) { __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED); return; }
  for (int64_t row = at * m->share; row < least((at + 1) * m->share, m->fresh); row++)
    for (int64_t query = 0; query < m->each; query += together) {
      float *y = m->y + ((head / kept * m->fresh + row) * m->spec->heads + head % kept * m->each + query) * width;
      Queries queries;
      start(&queries, m, head, row, query, y, top, sums, room);
      if (!meet_first(&queries) || !meet_kept(&queries, 0, m->rows)) { __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED); return; }
      for (int64_t r = 0; r < together; r++)
        for (int64_t c = 0; c < width; c++) y[r * width + c] /= sums[r];
    }
  if (!at) copy_rows(m, head, 0, m->rows);
}

/* ---- what is fed ---- */
static int64_t scale_size(const RowCode *code) { return code->scale == 1 ? 2 : code->scale == 2 ? 4 : 1; }

static int type_of(const RowCode *code, int scaled) {
  if (scaled) return code->scale == 1 ? FLOAT16 : code->scale == 2 ? FLOAT : UINT8;
  return code->bits == 32 ? FLOAT : code->bits == 8 ? INT8 : UINT8;
}

static int is_shape(const Input *of, size_t rank, const int64_t *sizes) {
  return of->rank == rank && !memcmp(of->dims, sizes, rank * sizeof *sizes);
}

/* A cache, and what is returned in its place; the next input and output. */
static void *take_side(Meeting *m, void *context, int s, size_t *next, size_t *given) {
  Side *side = m->sides + s;
  int64_t width = m->spec->channels, of[2] = {side->code->bits == 4 ? width / 2 : width, side->code->group ? width / side->code->group : 0};
  side->bytes = of[0] * (side->code->bits == 32 ? 4 : 1), side->scale_bytes = of[1] * scale_size(side->code);
  for (int scaled = 0; scaled < 1 + !!side->code->group; scaled++) {
    Input past;
    void *bad = input(context, (*next)++, &past);
    if (bad) return bad;
    if (past.rank != 4) return status(INVALID, "qcc: a cache has four axes");
    if (!s && !scaled) m->earlier = past.dims[2], m->rows = m->earlier + m->added;
    int64_t sizes[] = {m->samples, m->spec->kept, m->earlier, of[scaled]};
    if (!is_shape(&past, 4, sizes)) return status(INVALID, "qcc: caches and new rows do not fit each other");
    past.dims[2] = m->rows;
    if (scaled) side->past_scales = past.data; else side->past = past.data;
    if ((bad = output(context, (*given)++, &past, scaled ? &side->present_scales : &side->present))) return bad;
  }
  return NULL;
}

static void *take_bias(Meeting *m, const Input *bias) {
  int64_t all[] = {m->samples, m->spec->heads, m->fresh};
  int fits = bias->rank == 4 && bias->dims[3] == m->first + m->rows;
  for (size_t i = 0; i < 3 && fits; i++) m->bias_sizes[i] = bias->dims[i], fits = bias->dims[i] == 1 || bias->dims[i] == all[i];
  m->bias = bias->data;
  return fits ? NULL : status(INVALID, "qcc: what is added to scores does not fit them");
}

static void *take(Meeting *m, void *context) {
  const CachedSpec *spec = m->spec;
  Input in[3], bias;
  for (size_t i = 0; i < 3; i++) {
    void *bad = input(context, i, in + i);
    if (bad) return bad;
    int64_t sizes[] = {in[0].dims[0], in[i && spec->first ? 1 : 0].dims[1], (i ? spec->kept : spec->heads) * spec->channels};
    if (!is_shape(in + i, 3, sizes) || sizes[1] > in[0].dims[1]) return status(INVALID, "qcc: queries, keys and values do not fit each other");
    if (i) m->sides[i - 1].fed = in[i].data; else m->q = in[i].data;
  }
  m->samples = in[0].dims[0], m->fresh = in[0].dims[1], m->added = in[1].dims[1], m->each = spec->heads / spec->kept;
  size_t next = 3, given = 1;
  void *bad = take_side(m, context, 0, &next, &given);
  if (bad || (bad = take_side(m, context, 1, &next, &given)) || (bad = input(context, next++, &bias))) return bad;
  for (int s = 0; s < SIDES && spec->first; s++) {
    Input first;
    if ((bad = input(context, next++, &first))) return bad;
    if (!s) m->first = first.rank == 4 ? first.dims[2] : 0;
    int64_t sizes[] = {m->samples, spec->kept, m->first, spec->channels};
    if (!is_shape(&first, 4, sizes)) return status(INVALID, "qcc: first rows do not fit the others");
    m->sides[s].first = first.data;
  }
  if ((bad = take_bias(m, &bias))) return bad;
  return output(context, 0, in, &m->y);
}

static void *compute(void *kernel, void *context) {
  Cached *of = kernel;
  const CachedSpec *spec = of->spec;
  Meeting m = {.spec = spec, .sides = {{.code = &spec->keys}, {.code = &spec->values}}};
  void *bad = take(&m, context);
  int64_t heads = m.samples * spec->kept;
  if (bad || !heads) return bad;
  int64_t work = (m.first + m.rows) * spec->channels * m.each * m.fresh;
  if (tasks_of(&of->others, heads * m.added * spec->channels * ROUND_WORK) == 1)
    for (int64_t head = 0; head < heads; head++) put_task(&m, (size_t)head);
  else if ((bad = spread(&of->others, context, &m, put_task, heads)))
    return bad;
  if (!m.fresh) { for (int64_t head = 0; head < heads; head++) copy_rows(&m, head, 0, m.rows); return NULL; }
  int64_t tasks = tasks_of(&of->others, heads * work);
  if (m.fresh * m.each > FEW) {
    int64_t down = (tasks + heads - 1) / heads;
    m.share = (m.fresh + down - 1) / down;
    if ((bad = spread(&of->others, context, &m, rows_task, heads * ((m.fresh + m.share - 1) / m.share)))) return bad;
    return m.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
  }
  m.share = 2 * MOST, m.cuts = m.rows ? (m.rows + m.share - 1) / m.share : 1; /* by rows alone, so that sums are the same on any machine */
  m.parts = arena(CALL_ARENA, (size_t)(heads * m.cuts * m.fresh * m.each * (spec->channels + 2)) * 4);
  if (!m.parts) return status(FAIL, "qcc: out of memory");
  if ((bad = spread(&of->others, context, &m, part_task, heads * m.cuts))) return bad;
  for (int64_t head = 0; head < heads; head++)
    for (int64_t row = 0; row < m.fresh; row++)
      for (int64_t query = 0; query < m.each; query += spec->together) put_together(&m, head, row, query);
  return m.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

/* ---- what the runtime asks ---- */
static int kept_type(const CachedSpec *spec, size_t at) {
  for (int s = 0; s < SIDES; s++) {
    const RowCode *code = s ? &spec->values : &spec->keys;
    if (at == 0) return type_of(code, 0);
    if (at == 1 && code->group) return type_of(code, 1);
    at -= 1 + (size_t)!!code->group;
  }
  return FLOAT;
}

static int input_type(const void *of, size_t index) { return index < 3 ? FLOAT : kept_type(of, index - 3); }

static int output_type(const void *of, size_t index) { return index ? kept_type(of, index - 1) : FLOAT; }

void serve_cached(const void *of, Served *served) {
  const CachedSpec *spec = of;
  size_t kept = 2 + (size_t)!!spec->keys.group + (size_t)!!spec->values.group;
  *served = (Served){.name = spec->name, .spec = spec, .input_type = input_type, .output_type = output_type, .create = create,
                     .compute = compute, .destroy = free, .outputs = 1 + kept, .inputs = 4 + kept + (spec->first ? 2 : 0)};
}
