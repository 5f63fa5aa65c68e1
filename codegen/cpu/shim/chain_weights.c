/* A convolution's numbers, made from an op's constant inputs: its weights in the kernels' layout, and what stands behind the sums.
 * Words of weights are as product.py or depthwise.py has them. */
#include "chain.h"
#include <stdlib.h>
#include <string.h>

enum { BLOCK_MOST = 64, FOUR = 64 /* bytes of weights of a block, four inputs */ };

/* Of an input: planes and their shape stand where codes do. */
size_t chain_input(const ChainSpec *spec, size_t index) {
  int widths[PLANES];
  return index > CODES && spec->bits ? index + (size_t)planes_of(spec->bits, widths) : index;
}
size_t residual(const ChainSpec *spec) { return chain_input(spec, CUT) + (spec->cuts == 2 ? 2 : 0); }

void free_filter(void *p) {
  Filter *f = p;
  if (f) free(f->words), free(f->bias), free(f->scale), free(f->parts), free(f);
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

/* Groups are multiplied apart, as many together as fill a vector: what is of another of them is multiplied by zero. */
static void *make_product(Filter *f, const Given *given, float step, float made) {
  const ChainSpec *spec = f->spec;
  int64_t lanes = spec->lanes, together = lanes / 4, wide = together * lanes; /* vectors that are packed together */
  int64_t each = f->n / spec->groups, inputs = f->all / spec->groups, positions = positions_of(&spec->window), merged = 1;
  while (merged < spec->groups && (spec->groups % merged || merged * each < lanes)) merged++;
  f->groups = spec->groups / merged, f->n = merged * each, f->c = merged * inputs;
  int apart = spec->window.apart[1] > 1 || spec->window.apart[2] > 1;
  f->joined = apart || f->groups > 1 ? 1 : spec->window.axes == 1 ? spec->window.kernel[1] : spec->window.kernel[2];
  f->runs = positions / f->joined, f->fours = (f->joined * f->c + 3) / 4, f->whole = f->n / wide;
  f->blocks = f->whole * together + (f->n % wide + lanes - 1) / lanes, f->last = most(f->n - lanes, 0);
  size_t deep = (size_t)(f->runs * f->fours) * FOUR, all = (size_t)(f->groups * f->blocks), numbers = (all * (size_t)lanes + 15) / 16 * 16;
  f->words = aligned_alloc(64, deep * all), f->bias = aligned_alloc(64, numbers * 4), f->scale = aligned_alloc(64, numbers * 4);
  if (!f->words || !f->bias || !f->scale) return status(FAIL, "qcc: out of memory");
  memset(f->words, 0, deep * all), memset(f->bias, 0, numbers * 4), memset(f->scale, 0, numbers * 4);
  for (int64_t slot = 0; slot < (int64_t)all * lanes; slot++) {
    int64_t group = slot / lanes / f->blocks, b = slot / lanes % f->blocks, i = slot % lanes;
    int64_t n = b < f->whole * together ? b / together * wide + i / 4 * together * 4 + b % together * 4 + i % 4 : least(b * lanes, f->last) + i;
    if (n >= f->n) continue;
    put_numbers(f, given, group * f->n + n, slot, step, made);
    for (int64_t p = 0; p < positions; p++)
      for (int64_t in = n / each * inputs; in < (n / each + 1) * inputs; in++) {
        int64_t k = p % f->joined * f->c + in;
        int8_t *four = f->words + (slot / lanes * f->runs + p / f->joined) * f->fours * FOUR + k / 4 * FOUR;
        put_weight(spec, four + (lanes == 8 ? k % 2 * 32 : 0), i, lanes == 8 ? k / 2 : k, weight(given, group * f->n + n, in % inputs * positions + p));
      }
  }
  return NULL;
}

/* The numbers of a part's channels; of one that is folded they come again and again. */
static void put_part(Filter *f, const Given *given, const Part *part, float step, float made) {
  const ChainSpec *spec = f->spec;
  int64_t lines = spec->window.kernel[0] * spec->window.kernel[1], columns = spec->window.kernel[2];
  int64_t each = spec->lanes / 4, groups = (lines + each - 1) / each, width = 64 >> part->which;
  for (int64_t i = 0; i < width && (part == f->parts + f->count || part->start + i < f->n); i++) {
    int64_t n = (part->start + i) % f->n, vector = i % LANE / 4, lane = i / LANE * 4 + i % 4; /* where interleaving puts it */
    put_numbers(f, given, n, part->at + vector * width / 4 + lane, step, made);
    for (int64_t r = 0; r < lines; r++)
      for (int64_t k = 0; k < columns; k++)
        put_weight(spec, f->words + part->words + ((k * groups + r / each) * 4 + vector) * width, lane, r, weight(given, n, r * columns + k));
  }
}

/* Parts of channels; and where so few stand in neighbouring pixels that several fill a vector, one of those, which is not counted. */
static void *make_depthwise(Filter *f, const Given *given, float step, float made) {
  const ChainSpec *spec = f->spec;
  int64_t each = spec->lanes / 4, groups = (spec->window.kernel[0] * spec->window.kernel[1] + each - 1) / each, vectors = spec->window.kernel[2] * groups * 4;
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
  f->folded = spec->window.strides[2] == 1 && f->n <= LANE && (64 >> widest) % f->n == 0 ? 64 >> widest : 0;
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
  if (shape.type != INT64 || shape.rank != 1 || shape.dims[0] != spec->window.axes + 2) return status(INVALID, "qcc: a shape is a list of sizes");
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
  if (bad || (bad = constant(info, chain_input(spec, SCALE), &scale)) || (bad = constant(info, chain_input(spec, ZERO), &zero)) ||
      (bad = constant(info, chain_input(spec, BIAS), &bias))) return bad;
  int whole = codes->rank == (size_t)spec->window.axes + 2 && (codes->type == INT8 || codes->type == UINT8) && zero.type == codes->type && scale.type == FLOAT && bias.type == INT32;
  int64_t n = codes->dims[0], positions = positions_of(&spec->window), zeros = zero.rank ? zero.dims[0] : 1;
  if (!whole || scale.rank != 1 || scale.dims[0] != n || bias.rank != 1 || bias.dims[0] != n || (zeros != 1 && zeros != n) || (spec->depthwise && codes->dims[1] != 1) || n < 1 || n % spec->groups)
    return status(INVALID, "qcc: weights of a convolution of bytes are bytes with a scale, a zero and a bias a filter");
  given->codes = codes->data, given->zeros = zero.data, given->is_signed = codes->type == INT8, given->zero_step = zeros == n;
  given->each = codes->dims[1] * positions, given->bias = bias.data, given->scale = scale.data;
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
  if (bad || (bad = number(info, X_ZERO, UINT8, &zero)) || (bad = number(info, chain_input(spec, Y_SCALE), FLOAT, made)) || (bad = number(info, chain_input(spec, Y_ZERO), UINT8, &y_zero))) return bad;
  f->zero = (uint8_t)zero;
  facts[LOW] = -y_zero, facts[HIGH] = 255 - y_zero, facts[Y] = y_zero;
  if (spec->cuts == 1) facts[LOW] = within(facts, 0);
  if (spec->cuts == 2) {
    if ((bad = number(info, chain_input(spec, CUT), FLOAT, &low)) || (bad = number(info, chain_input(spec, CUT) + 1, FLOAT, &high))) return bad;
    low = within(facts, low / *made), high = within(facts, high / *made);
    facts[LOW] = low < high ? low : high, facts[HIGH] = high;
  }
  if (!spec->adds) return NULL;
  size_t first = residual(spec) + 1;
  float other, other_zero, sum, sum_zero;
  if ((bad = number(info, first, FLOAT, &other)) || (bad = number(info, first + 1, UINT8, &other_zero)) ||
      (bad = number(info, first + 2, FLOAT, &sum)) || (bad = number(info, first + 3, UINT8, &sum_zero))) return bad;
  facts[OWN] = *made / sum, facts[OTHERS] = other / sum;
  /* as the runtime has it, which rounds the first product with the sum */
  float own = facts[OWN] * y_zero, others = facts[OTHERS] * other_zero;
  double zeros = spec->last ? (double)facts[OTHERS] * (double)other_zero + (double)own : (double)facts[OWN] * (double)y_zero + (double)others;
  facts[MIDDLE] = sum_zero - (float)zeros;
  facts[SUM_LOW] = spec->cuts_sum ? 0 : -sum_zero, facts[SUM_HIGH] = 255 - sum_zero, facts[SUM_ZERO] = sum_zero;
  return NULL;
}

void *make_filter(const void *given_spec, const void *info, void **kernel) {
  const ChainSpec *spec = given_spec;
  Filter *f = calloc(1, sizeof *f);
  if (!f) return status(FAIL, "qcc: out of memory");
  f->spec = spec;
  Input codes;
  Given given = {0};
  float step, made;
  void *bad = take_weights(spec, info, &codes, &given);
  for (int at = 0, first = spec->window.axes == 3 ? 0 : 1; !bad && at < spec->window.axes; at++)
    if (codes.dims[2 + at] != spec->window.kernel[first + at]) bad = status(INVALID, "qcc: weights do not have the kernel's size");
  if (!bad) bad = take_facts(f, info, &step, &made);
  if (!bad) {
    f->n = codes.dims[0], f->all = spec->depthwise ? f->n : codes.dims[1] * spec->groups, f->c = f->all, f->groups = 1;
    f->runs = spec->window.kernel[0] * spec->window.kernel[1], f->joined = spec->window.kernel[2];
    bad = spec->depthwise ? make_depthwise(f, &given, step, made) : make_product(f, &given, step, made);
  }
  if (!bad) bad = let_go(info, CODES, chain_input(spec, SCALE) - CODES);
  if (bad) free_filter(f); else *kernel = f;
  return bad;
}
