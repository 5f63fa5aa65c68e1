/* Two products behind each other as one op: what the first makes of some rows, the second reads while it is in the
 * second cache; or, where rows are few, from memory that is the thread's own. */
#include "shim.h"
#include <stdlib.h>
#include <string.h>

enum { UNIT = 16 /* rows of tiles, and some fours */, TOUCHED = 3 /* times that what lies between would move: written, for which it is read, and read */ };

typedef struct { const Sequence *sequence; Layer *first, *second; } Pair;
typedef struct { Call first, second; int64_t down, each; } Both; /* rows of a task, and of those at a time */

static void free_pair(void *p) {
  Pair *pair = p;
  if (!pair) return;
  free_layer(pair->first), free_layer(pair->second), free(pair);
}

static void *create(const void *of, const void *info, void **kernel) {
  Pair *pair = calloc(1, sizeof *pair);
  if (!pair) return status(FAIL, "qcc: out of memory");
  pair->sequence = of;
  const Sequence *sequence = of;
  void *bad = make_layer(sequence->first, info, 1, &pair->first);
  if (!bad) bad = make_layer(sequence->second, info, 1 + inputs_of(sequence->first), &pair->second);
  if (!bad && pair->second->k != pair->first->sizes[0]) bad = status(INVALID, "qcc: the second product reads what the first makes");
  if (bad) free_pair(pair); else *kernel = pair;
  return bad;
}

/* Some rows of a call; `operands` is room for theirs. */
static Call rows_of(const Call *all, int64_t row, int64_t rows, const float **operands) {
  const Layer *l = all->layer;
  const char *kinds = l->spec->operands;
  Call call = *all;
  size_t count = 0;
  for (; kinds[count]; count++)
    operands[count] = kinds[count] == 't' && !l->spec->woven ? all->operands[count] + row * l->sizes[0] : all->operands[count];
  operands[count] = NULL;
  call.operands = operands, call.rows = rows;
  call.x += row * l->k, call.y += row * l->n;
  for (int part = 0; part < l->spec->count; part++) call.to[part] += row * l->sizes[part];
  return call;
}

/* Where the result of a call goes, and what reads it as an operand. */
static void put(Call *call, const float **operands, float *to) {
  const Spec *spec = call->layer->spec;
  for (int part = 0; part < spec->count; part++) call->to[part] = to;
  call->y = to;
  for (size_t i = 0; spec->woven && spec->operands[i]; i++) if (spec->operands[i] == 't') operands[i] = to;
}

static void some_rows(Both *both, int64_t row, int64_t rows) {
  const Layer *first = both->first.layer, *second = both->second.layer;
  const float *one[strlen(first->spec->operands) + 1], *two[strlen(second->spec->operands) + 1];
  float *between = arena(BETWEEN_ARENA, (size_t)(rows * second->k) * 4);
  Call call = rows_of(&both->first, row, rows, one), after = rows_of(&both->second, row, rows, two);
  if (!between) { fail(&both->first); return; }
  put(&call, one, between);
  after.x = between;
  multiply_alone(&call);
  if (!failed(&call)) multiply_alone(&after);
  if (failed(&call) || failed(&after)) fail(&both->first);
}

static void pair_task(void *p, size_t task) {
  Both *both = p;
  int64_t end = least(((int64_t)task + 1) * both->down, both->first.rows);
  for (int64_t row = (int64_t)task * both->down; row < end && !failed(&both->first); row += both->each)
    some_rows(both, row, least(both->each, end - row));
}

static int64_t bytes_of(const Layer *l) { return l->n * l->k * l->spec->bits / 8; }

/* How many rows at a time: what is done to them fits what the weights leave of the second cache, or half of it; all,
 * where reading the weights anew for each cut would move more than what lies between. */
static int64_t rows_at_once(const Layer *first, const Layer *second, int64_t rows) {
  int64_t between = second->k, cache = 2 * first->spec->family->panel, weights = bytes_of(first) + bytes_of(second);
  int64_t row = (first->k + between + second->n) * 4 + between, left = cache - weights;
  int stays = left > cache / 4;
  int64_t fit = (stays ? left : cache / 2) / row / UNIT * UNIT;
  if (!fit || fit > rows || (!stays && weights > fit * between * 4 * TOUCHED)) fit = rows;
  int64_t cuts = (rows + fit - 1) / fit;
  return ((rows + cuts - 1) / cuts + UNIT - 1) / UNIT * UNIT;
}

/* Tasks of whole rows, two a thread if there are rows for no more; False where they are too few for that. */
static int cut_rows(Both *both) {
  const Layer *first = both->first.layer, *second = both->second.layer;
  int64_t rows = both->first.rows, tasks = tasks_of(&first->others, rows * (first->n * first->k + second->n * second->k));
  int64_t threads = 1 + __atomic_load_n(&first->others, __ATOMIC_RELAXED);
  if (threads > 1 && rows / OWN_ROWS >= 2 * threads) tasks = least(tasks, rows / OWN_ROWS);
  tasks = least(row_tasks(first, rows, tasks), row_tasks(second, rows, tasks));
  if (!tasks) return 0;
  both->down = ((rows + tasks - 1) / tasks + UNIT - 1) / UNIT * UNIT;
  both->each = rows_at_once(first, second, both->down);
  both->first.many = is_many(first, rows), both->second.many = is_many(second, rows);
  return 1;
}

static void *multiply_both(const Pair *pair, void *context, Both *both, const float **operands) {
  if (cut_rows(both)) {
    void *bad = spread(&pair->first->others, context, both, pair_task, (both->first.rows + both->down - 1) / both->down);
    return bad ? bad : both->first.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
  }
  float *between = arena(BETWEEN_ARENA, (size_t)(both->first.rows * pair->second->k) * 4);
  if (!between) return status(FAIL, "qcc: out of memory");
  put(&both->first, operands, between);
  both->second.x = between;
  void *bad = multiply_all(context, &both->first);
  return bad ? bad : multiply_all(context, &both->second);
}

static void *compute(void *kernel, void *context) {
  const Pair *pair = kernel;
  const Layer *first = pair->first, *second = pair->second;
  const float *one[strlen(first->spec->operands) + 1], *two[strlen(second->spec->operands) + 1];
  Both both = {.first = {.layer = first, .rows = 1, .operands = one}, .second = {.layer = second, .operands = two}};
  Input x;
  void *bad = input(context, 0, &x);
  if (bad) return bad;
  if (!x.rank || x.dims[x.rank - 1] != first->k) return status(INVALID, "qcc: the last axis of the input does not fit the weights");
  for (size_t i = 0; i + 1 < x.rank; i++) both.first.rows *= x.dims[i];
  both.second.rows = both.first.rows, both.first.x = x.data;
  memcpy(one, first->vectors, sizeof one), memcpy(two, second->vectors, sizeof two);
  x.dims[x.rank - 1] = first->sizes[0];
  if ((bad = take_tensors(first, context, &x, one))) return bad;
  x.dims[x.rank - 1] = second->n;
  if ((bad = take_tensors(second, context, &x, two)) || (bad = output(context, 0, &x, &both.second.y))) return bad;
  both.second.to[0] = both.second.y;
  if (second->spec->keeps && (bad = output(context, 1, &x, both.second.to))) return bad;
  return both.first.rows ? multiply_both(pair, context, &both, one) : NULL;
}

static int input_type(const void *of, size_t index) {
  const Sequence *sequence = of;
  size_t firsts = 1 + inputs_of(sequence->first);
  if (!index) return FLOAT;
  return index < firsts ? input_type_of(sequence->first, index - 1) : input_type_of(sequence->second, index - firsts);
}

void serve_sequence(const Sequence *sequence, Served *served) {
  *served = (Served){
      .name = sequence->name, .spec = sequence, .input_type = input_type, .create = create, .compute = compute, .destroy = free_pair,
      .outputs = 1 + (size_t)sequence->second->keeps, .inputs = 1 + inputs_of(sequence->first) + inputs_of(sequence->second)};
}
