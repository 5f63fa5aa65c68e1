/* Many rows, as tiles of 16, by AMX. */
#include "shim.h"
#include <string.h>

enum { KEPT_TILES = 4 /* of rows that a kept panel meets at once */,
       DECODING = 4 /* tiles of rows that take as long to multiply as a panel to decode */,
       OWN = 2 /* tiles of rows of a task that takes all outputs, at least: it reads all weights */,
       FAR = 8 /* where weights come from beyond the second cache, which takes as long as to multiply so many */,
       AFAR = 2 /* such tasks for each of several threads, at most */ };

const uint8_t tile_config[64] __attribute__((aligned(64))) = {
    [0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
    [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};

/* Steps along the inputs. */
static int64_t steps_of(const Layer *l) { return (l->chunks + l->spec->family->chunks - 1) / l->spec->family->chunks; }

/* Pairs of blocks of outputs whose panels stay in the second cache; 0 where not one does. */
static int64_t fitting(const Layer *l) { return l->spec->family->panel / (steps_of(l) * 2048); }

/* Some tiles of rows times some pairs of blocks of outputs. */
static void multiply_tiled(Call *call, int64_t start, int64_t end, int64_t first, int64_t pairs) {
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  int64_t block = end - start <= family->block ? end - start : KEPT_TILES, count = steps_of(l);
  int keep = block < end - start; /* other rows will need the panel */
  size_t panel = (size_t)(keep ? pairs * count : family->depth) * 2048, parts = (size_t)block * 2048;
  char *scratch = arena(TASK_ARENA, panel + parts + (size_t)(block * pairs) * 2048);
  if (!scratch) { fail(call); return; }
  for (int64_t tile = start, tiles; tile < end; tile += tiles) {
    tiles = least(end - tile, block);
    int64_t rows = call->rows - tile * 16, row = tile * 16, size = 1 << 30;
    if (rows > tiles * 16) rows = tiles * 16;
    float *out = call->to[0] + row * l->n + first * 32;
    /* whole tiles go where they belong; the steps change them there, if they are whole vectors there, too */
    int whole = l->spec->count == 1 && rows == tiles * 16 && (first + pairs) * 32 <= l->n, copies = l->spec->parts->copies;
    if (!copies && (l->n % 16 || (uintptr_t)out % 64)) whole = 0;
    int64_t stride = whole ? l->n : pairs * 32;
    if (!whole) out = (float *)(scratch + panel + parts);
    Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
    Any args[] = {POINTER(call->inputs + tile * count * 1024), POINTER(l->words), POINTER(call->steps + row),
                  POINTER((int32_t *)call->sums + row), POINTER(l->scale), POINTER(l->offset), POINTER(scratch),
                  POINTER(scratch + panel), POINTER(tile_config), TENSOR(&y), NUMBER(l->chunks),
                  NUMBER(l->chunks / l->groups), NUMBER(first), NUMBER(pairs), NUMBER(tiles), NUMBER(stride),
                  NUMBER(tile == start || !keep), NUMBER(keep)};
    if (CALL(family->gemm, args)) { fail(call); return; }
    if (!whole || !copies) finish(call, out, stride, row, rows, first * 32, pairs * 32);
  }
}

static void gemm_task(void *p, size_t task) {
  Call *call = p;
  int64_t first = (int64_t)task % call->across * call->share, start = (int64_t)task / call->across * call->down;
  int64_t pairs = least((call->layer->n + 31) / 32 - first, call->share);
  multiply_tiled(call, start, least(start + call->down, call->tiles), first, pairs);
}

/* Rows as tiles. */
static void pack_tiled(Call *call, int64_t start, int64_t end) {
  const Layer *l = call->layer;
  int64_t row = start * 16, rows = least(end * 16, call->rows) - row;
  Any args[] = {POINTER(call->x + row * l->k), POINTER(call->inputs + start * steps_of(l) * 1024), POINTER(call->steps + row),
                POINTER((int32_t *)call->sums + row), TENSOR(&none_filled), NUMBER(l->chunks), NUMBER(rows)};
  if (CALL(l->spec->family->pack, args)) fail(call);
}

static void pack_task(void *p, size_t task) {
  Call *call = p;
  int64_t first = (int64_t)task * call->share;
  pack_tiled(call, first, least(first + call->share, call->tiles));
}

/* All of some rows, from packing to the norm: what a thread wrote it reads. */
static void tiles_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  int64_t start = (int64_t)task * call->down, end = least(start + call->down, call->tiles), pairs = (l->n + 31) / 32;
  int64_t fit = fitting(l), some = fit ? fit : pairs, woven = l->spec->woven ? 2 * STRIP / 32 : 1;
  some = (some + woven - 1) / woven * woven;
  pack_tiled(call, start, end);
  for (int64_t first = 0; first < pairs && !failed(call); first += some)
    multiply_tiled(call, start, end, first, least(some, pairs - first));
  if (l->spec->norm && !failed(call)) norm_rows(call, start * 16, least(end * 16, call->rows) - start * 16);
}

/* Room for the tiles, the last of which may not be full. */
static int take_tiles(Call *call) {
  call->tiles = (call->rows + 15) / 16;
  size_t tile = (size_t)steps_of(call->layer) * 1024, bytes = (size_t)call->tiles * tile, units = (size_t)call->tiles * 16;
  if (!take_room(call, bytes, units)) return 0;
  if (call->rows % 16) {
    size_t rest = (units - (size_t)call->rows) * 4;
    memset(call->inputs + bytes - tile, 0, tile);
    memset(call->steps + call->rows, 0, rest), memset((int32_t *)call->sums + call->rows, 0, rest);
  }
  return 1;
}

void multiply_many_alone(Call *call) {
  if (!take_tiles(call)) { fail(call); return; }
  call->down = call->tiles;
  tiles_task(call, 0);
}

/* Each task of whole rows reads all weights, and would decode all. */
int64_t tile_tasks(const Layer *l, int64_t tiles, int64_t tasks) {
  const Family *family = l->spec->family;
  int64_t threads = 1 + __atomic_load_n(&l->others, __ATOMIC_RELAXED);
  int far = l->n * l->k * l->spec->bits / 8 > family->panel;
  int64_t whole = family->decodes ? 0 : least(tasks, tiles / (far ? FAR : OWN));
  if (far) whole = least(whole, threads == 1 ? 1 : AFAR * threads);
  return whole >= threads ? whole : 0;
}

void *multiply_many(const Layer *l, void *context, Call *call) {
  const Family *family = l->spec->family;
  if (!take_tiles(call)) return status(FAIL, "qcc: out of memory");
  int64_t pairs = (l->n + 31) / 32, fit = fitting(l);
  int64_t tasks = tasks_of(&l->others, (call->tiles + DECODING) * pairs * l->k * 32), whole = tile_tasks(l, call->tiles, tasks);
  if (whole) {
    call->down = (call->tiles + whole - 1) / whole, call->normed = 1;
    return spread(&l->others, context, call, tiles_task, (call->tiles + call->down - 1) / call->down);
  }
  void *bad = spread_tasks(context, call, pack_task, call->tiles, l->k * 16 * ROUND_WORK);
  if (bad) return bad;
  if (fit && tasks < (pairs + fit - 1) / fit) tasks = (pairs + fit - 1) / fit; /* panels stay in the second cache */
  call->unit = family->block;
  return spread_grid(context, call, gemm_task, pairs, (call->tiles + family->block - 1) / family->block, tasks);
}
