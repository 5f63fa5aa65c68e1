/* Attention over the blocks of scores that are kept: of its own segment a block of queries meets all up to itself, of the sorted
 * keys of those before it what a table says. Keys lie by channels, so that a vector holds as many of them; each block of queries is
 * a task, and what it makes grows where it belongs. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

enum { QUERIES, KEYS, VALUES, SORTED_KEYS, SORTED_VALUES, KEPT, INPUTS, ROWS = 4, BOOLEAN = 9 };

typedef struct { const AttendSpec *spec; int others; } Attend;

typedef struct {
  const AttendSpec *spec;
  const float *in[KEPT];
  const uint8_t *kept;
  float *turned, *y; /* keys and then sorted ones: [samples * heads, blocks, channels, block] */
  int64_t heads, each, blocks; /* samples times heads of keys, heads of queries for each, and blocks of a text */
  int failed;
} Meeting;

static void *create(const void *spec, const void *info, void **kernel) {
  (void)info;
  Attend *made = calloc(1, sizeof *made);
  if (!made) return status(FAIL, "qcc: out of memory");
  made->spec = spec;
  *kernel = made;
  return NULL;
}

/* A block of keys, by channels. */
static void turn_task(void *p, size_t task) {
  Meeting *m = p;
  int64_t block = m->spec->block, channels = m->spec->channels, half = m->heads * m->blocks, at = (int64_t)task % half;
  const float *from = m->in[(int64_t)task < half ? KEYS : SORTED_KEYS] + at * block * channels;
  float *to = m->turned + (int64_t)task * block * channels;
  for (int64_t c = 0; c < channels; c++)
    for (int64_t r = 0; r < block; r++) to[c * block + r] = from[r * channels + c];
}

static int meet(const Meeting *m, const float *q, int sorted, int64_t head, int64_t key, int64_t seen, float *room, float *made) {
  int64_t block = m->spec->block, size = block * m->spec->channels, at = head * m->blocks + key;
  const float *keys = m->turned + (at + (sorted ? m->heads * m->blocks : 0)) * size;
  float *top = room + ROWS * block, *sums = top + block;
  Any args[] = {POINTER(q), POINTER(keys), POINTER(m->in[sorted ? SORTED_VALUES : VALUES] + at * size), POINTER(room), POINTER(made),
                POINTER(top), POINTER(sums), TENSOR(&none_filled), NUMBER(block / ROWS), NUMBER(seen)};
  return !CALL(m->spec->attend, args);
}

static void block_task(void *p, size_t task) {
  Meeting *m = p;
  int64_t block = m->spec->block, channels = m->spec->channels, own = (int64_t)task % m->blocks, head = (int64_t)task / m->blocks / m->each;
  int64_t first = own / (m->spec->segment / block) * (m->spec->segment / block);
  const float *q = m->in[QUERIES] + (int64_t)task * block * channels;
  float *made = m->y + (int64_t)task * block * channels, *room = arena(TASK_ARENA, (size_t)(block * (ROWS + 2)) * 4);
  if (!room) { __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED); return; }
  float *top = room + ROWS * block, *sums = top + block;
  memset(made, 0, (size_t)(block * channels) * 4);
  for (int64_t r = 0; r < block; r++) top[r] = -3e38f, sums[r] = 0;
  int ok = 1;
  for (int64_t key = first; key <= own && ok; key++) ok = meet(m, q, 0, head, key, key == own ? 1 : block, room, made);
  for (int64_t key = 0; key < first && ok; key++)
    if (m->kept[(int64_t)task * m->blocks + key]) ok = meet(m, q, 1, head, key, block, room, made);
  if (!ok) { __atomic_store_n(&m->failed, 1, __ATOMIC_RELAXED); return; }
  for (int64_t r = 0; r < block; r++)
    for (int64_t c = 0; c < channels; c++) made[r * channels + c] /= sums[r];
}

static void *compute(void *kernel, void *context) {
  Attend *a = kernel;
  const AttendSpec *spec = a->spec;
  Meeting m = {.spec = spec};
  Input in[INPUTS];
  for (size_t i = 0; i < INPUTS; i++) {
    void *bad = input(context, i, in + i);
    if (bad) return bad;
    if (i < KEPT) m.in[i] = in[i].data; else m.kept = in[i].data;
  }
  const int64_t *q = in[QUERIES].dims, rows = q[3];
  int fits = in[QUERIES].rank == 5 && in[KEPT].rank == 5 && in[KEPT].type == BOOLEAN && q[4] == spec->channels && rows % spec->segment == 0;
  for (size_t i = KEYS; i < KEPT && fits; i++) {
    size_t last = i < SORTED_KEYS ? 4 : 3;
    fits = in[i].rank == last + 1 && in[i].dims[0] == q[0] && in[i].dims[1] == q[1] && in[i].dims[last - 1] == rows && in[i].dims[last] == q[4];
  }
  m.blocks = fits ? rows / spec->block : 0, m.heads = q[0] * q[1], m.each = q[2];
  if (!fits || memcmp(in[KEPT].dims, q, 3 * sizeof *q) || in[KEPT].dims[3] != m.blocks || in[KEPT].dims[4] != m.blocks)
    return status(INVALID, "qcc: queries, keys, values and the table of blocks do not fit each other");
  void *bad = output(context, 0, in + QUERIES, &m.y);
  if (bad) return bad;
  int64_t turned = 2 * m.heads * m.blocks, tasks = m.heads * m.each * m.blocks;
  if (!tasks) return NULL;
  if (!(m.turned = arena(CALL_ARENA, (size_t)(turned * spec->block * spec->channels) * 4))) return status(FAIL, "qcc: out of memory");
  if ((bad = spread(&a->others, context, &m, turn_task, turned)) || (bad = spread(&a->others, context, &m, block_task, tasks))) return bad;
  return m.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

static int input_type(const void *of, size_t index) {
  (void)of;
  return index == KEPT ? BOOLEAN : FLOAT;
}

void serve_attend(const void *of, Served *served) {
  const AttendSpec *spec = of;
  *served = (Served){.name = spec->name, .spec = spec, .input_type = input_type, .create = create,
                     .compute = compute, .destroy = free, .outputs = 1, .inputs = INPUTS};
}
