/* ONNX Runtime custom ops over kernels that TVM made. It includes "kernels.h", written by library.py:
 *   int4_sym, ...  the functions of each kind of codes
 *   QCC_NEEDS      the processor flags that the generated code needs
 *   QCC_DEPTH      chunks of inputs that a panel of the matrix product holds
 *   QCC_OPS        the ops: name, bits, group (0: the whole row), symmetric, bias, family */
#include "abi.h"
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

typedef struct { Kernel quantize, one, four, pack, gemm; int rounds; } Family;
typedef struct { const char *name; int bits, group, symmetric, bias; const Family *family; } Spec;
#include "kernels.h"
static const Spec specs[] = {QCC_OPS};
enum { OPS = sizeof(specs) / sizeof(*specs), STRIP = 64, CHUNK = 32, GEMM_ROWS = 13 /* below, rows by fours are faster */, WORK = 1 << 20 };
typedef struct { Op op; const Spec *spec; } Registered;

/* ---- memory: a thread keeps what it needed most, and gives it back when it ends ---- */
typedef struct { char *data; size_t size; } Arena;
enum { CALL_ARENA, TASK_ARENA, ARENAS };
static pthread_key_t key;
static void release_arenas(void *p) { for (int i = 0; i < ARENAS; i++) free(((Arena *)p)[i].data); free(p); }
static void *arena(int which, size_t size) {
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
static size_t padded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* ---- a layer: its weights in the kernels' layout ---- */
typedef struct {
  const Spec *spec;
  int64_t n, k, strips, chunks, groups;
  int32_t *words;  /* [strips * 4, chunks, bits, 16] */
  float *scale;    /* [strips * 4, groups, 16] */
  int16_t *offset; /* the same: the code of zero */
  float *bias;     /* [n], or NULL */
} Layer;

static void destroy(void *p) {
  Layer *layer = p;
  if (!layer) return;
  free(layer->words), free(layer->scale), free(layer->offset), free(layer->bias), free(layer);
}

static float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, mantissa = h & 1023, bits;
  union { uint32_t u; float f; } small = {.f = (float)mantissa * 0x1p-24f};
  bits = exponent == 31 ? 0x7f800000u | mantissa << 13
       : exponent ? (exponent + 112) << 23 | mantissa << 13 : small.u;
  union { uint32_t u; float f; } out = {.u = bits | sign};
  return out.f;
}

typedef struct { const void *data; int type; size_t rank; int64_t dims[8]; } Input;
static void *describe(const void *value, Input *input) {
  void *shape, *bad = ORT(TYPE_AND_SHAPE, const void *, void **)(value, &shape);
  if (bad) return bad;
  bad = ORT(ELEMENT_TYPE, void *, int *)(shape, &input->type);
  if (!bad) bad = ORT(RANK, void *, size_t *)(shape, &input->rank);
  if (!bad && input->rank > 8) bad = status(INVALID, "qcc: more than 8 axes");
  if (!bad) bad = ORT(DIMENSIONS, void *, int64_t *, size_t)(shape, input->dims, input->rank);
  ((void (*)(void *))api[RELEASE_SHAPE])(shape);
  return bad ? bad : ORT(TENSOR_DATA, const void *, const void **)(value, &input->data);
}
static void *constant(const void *info, size_t index, Input *input) {
  int is = 0;
  const void *value = NULL;
  void *bad = ORT(CONSTANT_INPUT, const void *, size_t, int *, const void **)(info, index, &is, &value);
  if (bad) return bad;
  return is && value ? describe(value, input) : status(INVALID, "qcc: every input but the first must be a constant");
}
static int is_matrix(const Input *input, int64_t rows, int64_t columns) {
  return input->rank == 2 && input->dims[0] == rows && input->dims[1] == columns;
}

static int planes_of(int bits, int *widths) {
  int count = 0;
  for (int width = 8; width; width >>= 1) if (bits >= width) widths[count++] = width, bits -= width;
  return count;
}

static void pack_plane(Layer *layer, const uint8_t *plane, int width, int first) {
  int64_t row_bytes = layer->k * width / 8, bits = layer->spec->bits;
  int per_byte = 8 / width, mask = (1 << width) - 1;
  for (int64_t n = 0; n < layer->n; n++)
    for (int64_t chunk = 0; chunk < layer->chunks; chunk++) {
      const uint8_t *from = plane + n * row_bytes + chunk * 4 * width;
      uint8_t *to = (uint8_t *)(layer->words + (((n / 16) * layer->chunks + chunk) * bits + first) * 16 + n % 16);
      for (int k = 0; k < CHUNK; k++) {
        int code = from[k / per_byte] >> width * (k % per_byte) & mask, quad = k / 4;
        to[(quad / per_byte) * 64 + k % 4] |= (uint8_t)(code << width * (quad % per_byte));
      }
    }
}

static void *fill(Layer *layer, const void *info) {
  const Spec *spec = layer->spec;
  int widths[4], count = planes_of(spec->bits, widths);
  Input input;
  void *bad;
  for (int p = 0, first = 0; p < count; first += widths[p++]) {
    if ((bad = constant(info, 1 + p, &input))) return bad;
    if (input.type != UINT8 || input.rank != 2) return status(INVALID, "qcc: a plane is a matrix of uint8");
    if (!p) {
      layer->n = input.dims[0], layer->k = input.dims[1] * 8 / widths[0], layer->chunks = layer->k / CHUNK;
      int64_t group = spec->group ? spec->group : layer->k;
      if (layer->n < 1 || layer->k < CHUNK || layer->k % CHUNK || layer->k % group)
        return status(INVALID, "qcc: inputs are a multiple of 32 and of the group");
      layer->groups = layer->k / group, layer->strips = (layer->n + STRIP - 1) / STRIP;
      size_t scales = (size_t)(layer->strips * STRIP * layer->groups);
      size_t words = (size_t)(layer->strips * STRIP * layer->chunks * spec->bits) * 4;
      layer->words = aligned_alloc(64, words), layer->scale = aligned_alloc(64, scales * 4);
      layer->offset = aligned_alloc(64, padded(scales * 2));
      if (!layer->words || !layer->scale || !layer->offset) return status(FAIL, "qcc: out of memory");
      memset(layer->words, 0, words), memset(layer->scale, 0, scales * 4), memset(layer->offset, 0, scales * 2);
    }
    if (!is_matrix(&input, layer->n, layer->k * widths[p] / 8)) return status(INVALID, "qcc: a plane's shape is wrong");
    pack_plane(layer, input.data, widths[p], first);
  }
  Input zero = {0};
  if ((bad = constant(info, 1 + count, &input))) return bad;
  if ((input.type != FLOAT && input.type != FLOAT16) || !is_matrix(&input, layer->n, layer->groups))
    return status(INVALID, "qcc: scales are float16 or float32 [out, groups]");
  if (!spec->symmetric && (bad = constant(info, 2 + count, &zero))) return bad;
  if (!spec->symmetric && (zero.type != INT8 || !is_matrix(&zero, layer->n, layer->groups)))
    return status(INVALID, "qcc: zero points are int8 [out, groups]");
  for (int64_t n = 0; n < layer->n; n++)
    for (int64_t g = 0; g < layer->groups; g++) {
      int64_t from = n * layer->groups + g, to = ((n / 16) * layer->groups + g) * 16 + n % 16;
      layer->scale[to] = input.type == FLOAT ? ((const float *)input.data)[from]
                                             : half_to_float(((const uint16_t *)input.data)[from]);
      layer->offset[to] = (int16_t)((1 << (spec->bits - 1)) + (zero.data ? ((const int8_t *)zero.data)[from] : 0));
    }
  if (!spec->bias) return NULL;
  if ((bad = constant(info, 2 + count + !spec->symmetric, &input))) return bad;
  if (input.type != FLOAT || input.rank != 1 || input.dims[0] != layer->n)
    return status(INVALID, "qcc: the bias is float32 [out]");
  if (!(layer->bias = malloc((size_t)layer->n * 4))) return status(FAIL, "qcc: out of memory");
  memcpy(layer->bias, input.data, (size_t)layer->n * 4);
  return NULL;
}

static void *create(const Op *op, const void *unused, const void *info, void **kernel) {
  (void)unused;
  Layer *layer = calloc(1, sizeof *layer);
  if (!layer) return status(FAIL, "qcc: out of memory");
  layer->spec = ((const Registered *)op)->spec;
  void *bad = fill(layer, info);
  if (bad) { destroy(layer); return bad; }
  *kernel = layer;
  return NULL;
}

/* ---- a call ---- */
typedef struct {
  const Layer *layer;
  const float *x;
  float *y;
  int64_t rows, share, tiles, block; /* share: strips (or, with tiles, pairs of blocks) of a task */
  char *inputs;               /* int8 or bfloat16 */
  float *steps;
  void *sums;
  int failed;
} Call;

static void finish(const Call *call, const float *from, int64_t stride, int64_t row, int64_t rows, int64_t first,
                   int64_t count) {
  int64_t n = call->layer->n;
  if (first + count > n) count = n - first;
  for (int64_t r = 0; r < rows; r++, from += stride) {
    float *to = call->y + (row + r) * n + first;
    if (!call->layer->bias) { memcpy(to, from, (size_t)count * 4); continue; }
    const float *bias = call->layer->bias + first;
    for (int64_t i = 0; i < count; i++) to[i] = from[i] + bias[i];
  }
}

static void gemv_task(void *p, size_t task) {
  Call *call = p;
  const Layer *l = call->layer;
  const Family *family = l->spec->family;
  int64_t first = (int64_t)task * call->share, count = call->share;
  if (first + count > l->strips) count = l->strips - first;
  float *out = arena(TASK_ARENA, (size_t)(4 * count * STRIP) * 4);
  if (!out) { __atomic_store_n(&call->failed, 1, __ATOMIC_RELAXED); return; }
  for (int64_t row = 0, rows; row < call->rows; row += rows) {
    int64_t left = call->rows - row, four = left >= 4 || (left == 3 && family->rounds); /* our own rows have spare room */
    rows = four ? (left < 4 ? left : 4) : 1;
    int64_t size = (four ? 4 : 1) * count * STRIP, at = row * l->chunks;
    Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
    const void *in = family->rounds ? (const void *)(call->inputs + at * CHUNK) : (const void *)(call->x + at * CHUNK);
    Any args[] = {POINTER(in), POINTER(call->steps + at), POINTER((int32_t *)call->sums + at), POINTER(l->words),
                  POINTER(l->scale), POINTER(l->offset), TENSOR(&y), NUMBER(l->chunks), NUMBER(l->chunks / l->groups),
                  NUMBER(first), NUMBER(count)};
    if (CALL(four ? family->four : family->one, args)) { __atomic_store_n(&call->failed, 1, __ATOMIC_RELAXED); return; }
    finish(call, out, count * STRIP, row, rows, first * STRIP, count * STRIP);
  }
}

static void gemm_task(void *p, size_t task) {
  static const uint8_t config[64] __attribute__((aligned(64))) = {
      [0] = 1, [16] = 64, [18] = 64, [20] = 64, [22] = 64, [24] = 64, [26] = 64, [28] = 64, [30] = 64,
      [48] = 16, [49] = 16, [50] = 16, [51] = 16, [52] = 16, [53] = 16, [54] = 16, [55] = 16};
  Call *call = p;
  const Layer *l = call->layer;
  size_t panel = QCC_DEPTH * 2048;
  char *scratch = arena(TASK_ARENA, panel + (size_t)call->block * 2048);
  if (!scratch) { __atomic_store_n(&call->failed, 1, __ATOMIC_RELAXED); return; }
  float *out = (float *)(scratch + panel);
  int64_t pairs = (l->n + 31) / 32, first = (int64_t)task * call->share;
  for (int64_t unit = first; unit < first + call->share && unit / pairs * call->block < call->tiles; unit++) {
    int64_t pair = unit % pairs, tile = unit / pairs * call->block, tiles = call->tiles - tile;
    if (tiles > call->block) tiles = call->block;
    int64_t size = tiles * 512, rows = call->rows - tile * 16;
    Tensor y = {out, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
    Any args[] = {POINTER(call->inputs + tile * l->chunks * 1024), POINTER(l->words), POINTER(l->scale),
                  POINTER(l->offset), POINTER(scratch), POINTER(config), TENSOR(&y), NUMBER(l->chunks),
                  NUMBER(l->chunks / l->groups), NUMBER(pair), NUMBER(tiles)};
    if (CALL(l->spec->family->gemm, args)) { __atomic_store_n(&call->failed, 1, __ATOMIC_RELAXED); return; }
    finish(call, out, 32, tile * 16, rows < tiles * 16 ? rows : tiles * 16, pair * 32, 32);
  }
}

static void *spread_tasks(void *context, Call *call, void (*task)(void *, size_t), int64_t units, int64_t work) {
  call->share = work >= WORK ? 1 : (WORK + work - 1) / work;
  int64_t tasks = (units + call->share - 1) / call->share;
  if (tasks == 1) { task(call, 0); return NULL; }
  return ORT(PARALLEL_FOR, const void *, void (*)(void *, size_t), size_t, size_t, void *)(context, task, (size_t)tasks, 0, call);
}

static void *multiply(const Layer *l, void *context, Call *call) {
  const Family *family = l->spec->family;
  int64_t size = 0, chunks = call->rows * l->chunks;
  Tensor none = {&size, 1, 0, 1, 2, 32, 1, &size, NULL, 0};
  if (family->gemm && call->rows >= GEMM_ROWS) {
    call->tiles = (call->rows + 15) / 16;
    size_t tile = (size_t)l->chunks * 1024, bytes = (size_t)call->tiles * tile;
    if (!(call->inputs = arena(CALL_ARENA, bytes))) return status(FAIL, "qcc: out of memory");
    if (call->rows % 16) memset(call->inputs + bytes - tile, 0, tile);
    Any args[] = {POINTER(call->x), POINTER(call->inputs), TENSOR(&none), NUMBER(l->chunks), NUMBER(call->rows)};
    if (CALL(family->pack, args)) return status(FAIL, "qcc: a kernel failed");
    call->block = QCC_BLOCK / (l->chunks * 1024);
    if (call->block < 4) call->block = 4;
    if (call->block > call->tiles) call->block = call->tiles;
    int64_t blocks = (call->tiles + call->block - 1) / call->block;
    return spread_tasks(context, call, gemm_task, (l->n + 31) / 32 * blocks, call->block * l->k * 32);
  }
  size_t room = (size_t)(chunks + 3 * l->chunks), codes = padded(room * CHUNK), each = padded(room * 4);
  if (!(call->inputs = arena(CALL_ARENA, codes + 2 * each))) return status(FAIL, "qcc: out of memory");
  call->steps = (float *)(call->inputs + codes), call->sums = call->inputs + codes + each;
  if (family->rounds) {
    if (call->rows % 4 == 3) memset(call->steps + chunks, 0, (size_t)l->chunks * 4); /* stray denormals are slow */
    Any args[] = {POINTER(call->x), POINTER(call->inputs), POINTER(call->steps), POINTER(call->sums), TENSOR(&none), NUMBER(chunks)};
    if (CALL(family->quantize, args)) return status(FAIL, "qcc: a kernel failed");
  } else if (!l->spec->symmetric) {
    for (int64_t c = 0; c < chunks; c++) {
      float sum = 0;
      for (int k = 0; k < CHUNK; k++) sum += call->x[c * CHUNK + k];
      ((float *)call->sums)[c] = sum;
    }
  }
  return spread_tasks(context, call, gemv_task, l->strips, call->rows * l->k * STRIP);
}

static void *compute(void *kernel, void *context) {
  const Layer *l = kernel;
  Call call = {.layer = l};
  const void *value;
  void *out, *bad = ORT(GET_INPUT, const void *, size_t, const void **)(context, 0, &value);
  Input x;
  if (bad || (bad = describe(value, &x))) return bad;
  if (!x.rank || x.dims[x.rank - 1] != l->k) return status(INVALID, "qcc: the last axis of the input does not fit the weights");
  call.rows = 1;
  for (size_t i = 0; i + 1 < x.rank; i++) call.rows *= x.dims[i];
  x.dims[x.rank - 1] = l->n;
  if ((bad = ORT(GET_OUTPUT, void *, size_t, const int64_t *, size_t, void **)(context, 0, x.dims, x.rank, &out))) return bad;
  if (!call.rows) return NULL;
  call.x = x.data;
  if ((bad = ORT(TENSOR_DATA, void *, void **)(out, (void **)&call.y))) return bad;
  if ((bad = multiply(l, context, &call))) return bad;
  return call.failed ? status(FAIL, "qcc: a kernel failed") : NULL;
}

/* ---- registration ---- */
static const char *name(const Op *op) { return ((const Registered *)op)->spec->name; }
static const char *provider(const Op *op) { (void)op; return "CPUExecutionProvider"; }
static size_t inputs(const Op *op) {
  const Spec *spec = ((const Registered *)op)->spec;
  int widths[4];
  return (size_t)(2 + planes_of(spec->bits, widths) + !spec->symmetric + spec->bias);
}
static int input_type(const Op *op, size_t index) {
  const Spec *spec = ((const Registered *)op)->spec;
  int widths[4], scale = 1 + planes_of(spec->bits, widths);
  if (!index) return FLOAT;
  if ((int)index < scale) return UINT8;
  if ((int)index == scale) return 0; /* float16 or float32, looked at when the kernel is made */
  return (int)index == scale + 1 && !spec->symmetric ? INT8 : FLOAT;
}
static int output_type(const Op *op, size_t index) { (void)op, (void)index; return FLOAT; }
static size_t one(const Op *op) { (void)op; return 1; }
static int one_int(const Op *op) { (void)op; return 1; }
static int none(const Op *op, size_t index) { (void)op, (void)index; return 0; }

#if defined(__x86_64__)
enum { avx2, fma, f16c, avx512f, avx512bw, avx512dq, avx512vl, avx512_vnni, avx512_bf16, amx_tile, amx_bf16, amx_never, FLAGS };
static int usable(void) {
  static const struct { unsigned leaf, sub, reg, bit; unsigned states; } where[FLAGS] = {
      [avx2] = {7, 0, 1, 5, 6}, [fma] = {1, 0, 2, 12, 6}, [f16c] = {1, 0, 2, 29, 6}, [avx512f] = {7, 0, 1, 16, 0xe6},
      [avx512bw] = {7, 0, 1, 30, 0xe6}, [avx512dq] = {7, 0, 1, 17, 0xe6}, [avx512vl] = {7, 0, 1, 31, 0xe6},
      [avx512_vnni] = {7, 0, 2, 11, 0xe6}, [avx512_bf16] = {7, 1, 0, 5, 0xe6}, [amx_tile] = {7, 0, 3, 24, 0x60000},
      [amx_bf16] = {7, 0, 3, 22, 0x60000}, [amx_never] = {0x7fffffff, 0, 0, 0, 0} /* for tests */};
  static const int needs[] = {QCC_NEEDS - 1};
  unsigned states = 0, high, r[4];
  if (!__get_cpuid(1, &r[0], &r[1], &r[2], &r[3])) return 0;
  if (r[2] & 1u << 27) __asm__ volatile("xgetbv" : "=a"(states), "=d"(high) : "c"(0));
  for (const int *need = needs; *need >= 0; need++) {
    if (!__get_cpuid_count(where[*need].leaf, where[*need].sub, &r[0], &r[1], &r[2], &r[3])) return 0;
    if (!(r[where[*need].reg] >> where[*need].bit & 1) || (states & where[*need].states) != where[*need].states) return 0;
    if (*need == amx_tile && syscall(SYS_arch_prctl, 0x1023, 18)) return 0; /* tiles are asked for, once a process */
  }
  return 1;
}
#else
static int usable(void) { return 1; }
#endif

static Registered registered[OPS];
static void *domain;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *make_domain(void) {
  if (domain) return NULL;
  void *made, *bad;
  if (pthread_key_create(&key, release_arenas)) return status(FAIL, "qcc: no thread key");
  if ((bad = ORT(CREATE_DOMAIN, const char *, void **)("qcc", &made))) return bad;
  for (int i = 0; i < OPS; i++) {
    registered[i] = (Registered){
        .spec = specs + i,
        .op = {.version = API_VERSION, .GetName = name, .GetExecutionProviderType = provider, .GetInputType = input_type,
               .GetInputTypeCount = inputs, .GetOutputType = output_type, .GetOutputTypeCount = one,
               .KernelDestroy = destroy, .GetInputCharacteristic = none, .GetOutputCharacteristic = none,
               .GetInputMemoryType = none, .GetVariadicInputMinArity = one_int, .GetVariadicInputHomogeneity = one_int,
               .GetVariadicOutputMinArity = one_int, .GetVariadicOutputHomogeneity = one_int, .CreateKernelV2 = create,
               .KernelComputeV2 = compute}};
    if ((bad = ORT(DOMAIN_ADD, void *, const Op *)(made, &registered[i].op))) return bad;
  }
  domain = made;
  return NULL;
}

/* On a processor without the instructions nothing is registered, and the model's own functions run. */
__attribute__((visibility("default"))) void *RegisterCustomOps(void *options, const ApiBase *base) {
  const Function *found = base->GetApi(API_VERSION);
  if (!found || !usable()) return NULL;
  pthread_mutex_lock(&lock);
  api = found;
  void *bad = make_domain();
  if (!bad) bad = ORT(ADD_DOMAIN, void *, void *)(options, domain);
  pthread_mutex_unlock(&lock);
  return bad;
}
