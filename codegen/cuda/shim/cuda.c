/* CUDA's side of a library: kernels in PTX, which the driver compiles for its card. It includes "kernels.h", written by
 * library.py. The driver is looked for when the library is registered, so that it loads where there is none, too. */
#include "ops.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PARAMETERS = 12, VARIANTS = 2, WORD = 32 /* codes that are whole words in every plane */, CONTEXTS = 16, DOWN = 65535 /* blocks along the second axis */,
       NUMBERS = 1 << 30 /* of a tensor that a launch counts */, GPU_STREAM = 193 /* of ONNX Runtime's table */,
       MAJOR = 75, MINOR = 76 /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_... */ };
typedef struct {
  const char *name;
  int planes, width /* of the first plane */, zero;
  const char *operands; /* of the steps, in order: v is a constant vector [out], t a tensor of the output's shape */
  int pointers, order[MOST_PARAMETERS]; /* which of the op's inputs the kernel's pointers are; behind them is the output */
} Spec;
typedef struct { int number; const char *ptx; } Code; /* for a compute capability */
#include "kernels.h"

const char *const qcc_provider = "CUDAExecutionProvider";

typedef void *Handle;
static struct {
  int (*init)(unsigned), (*device)(int *, int), (*attribute)(int *, int, int), (*current)(Handle *), (*load)(Handle *, const void *),
      (*function)(Handle *, Handle, const char *),
      (*launch)(Handle, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, Handle, void **, void **);
} cu;
static const char *chosen; /* PTX */

static int open_driver(void) {
  static const char *const names[] = {"cuInit", "cuDeviceGet", "cuDeviceGetAttribute", "cuCtxGetCurrent", "cuModuleLoadData", "cuModuleGetFunction", "cuLaunchKernel"};
  void *driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL), *found[sizeof names / sizeof *names];
  for (size_t i = 0; i < sizeof names / sizeof *names; i++) if (!driver || !(found[i] = dlsym(driver, names[i]))) return 0;
  memcpy(&cu, found, sizeof cu);
  return 1;
}

static int capability(void) {
  int device, major, minor;
  if (!open_driver() || cu.init(0) || cu.device(&device, 0)) return 0;
  return cu.attribute(&major, MAJOR, device) || cu.attribute(&minor, MINOR, device) ? 0 : 10 * major + minor;
}

/* ---- modules: one a context ---- */
static struct { Handle context, module; } loaded[CONTEXTS];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *module_of(Handle context, Handle *module) {
  void *bad = NULL;
  int at = 0;
  pthread_mutex_lock(&lock);
  while (at < CONTEXTS && loaded[at].context && loaded[at].context != context) at++;
  if (at == CONTEXTS) bad = status(FAIL, "qcc: too many CUDA contexts");
  else if (!loaded[at].context && cu.load(&loaded[at].module, chosen)) bad = status(FAIL, "qcc: the driver does not take the kernels");
  else loaded[at].context = context, *module = loaded[at].module;
  pthread_mutex_unlock(&lock);
  return bad;
}

/* ---- a call ---- */
typedef struct { const Spec *spec; int wide /* scales are float32 */; Handle context, functions[VARIANTS]; } Node;
static pthread_mutex_t found_lock = PTHREAD_MUTEX_INITIALIZER;

static void *function_of(Node *node, int many, Handle *function) {
  Handle context = NULL, module = NULL;
  int at = many > 1;
  if (cu.current(&context) || !context) return status(FAIL, "qcc: no CUDA context is current");
  pthread_mutex_lock(&found_lock);
  if (node->context != context) memset(node->functions, 0, sizeof node->functions), node->context = context;
  void *bad = NULL;
  if (!node->functions[at] && !(bad = module_of(context, &module))) {
    char name[512];
    snprintf(name, sizeof name, "%s_rows%d_%s_kernel", node->spec->name, many, node->wide ? "float32" : "float16");
    if (cu.function(&node->functions[at], module, name)) bad = status(FAIL, "qcc: a kernel is missing");
  }
  *function = node->functions[at];
  pthread_mutex_unlock(&found_lock);
  return bad;
}

static size_t weight_inputs(const Spec *spec) { return (size_t)(spec->planes + 1 + spec->zero); }

/* The addresses of all inputs; what the first one and the weights are must fit. */
static void *take(const Node *node, void *context, Input *x, int64_t *n, const char **data) {
  const Spec *spec = node->spec;
  size_t weights = weight_inputs(spec), count = 1 + weights + strlen(spec->operands);
  Input one;
  void *bad = input(context, 0, x);
  if (bad) return bad;
  int64_t k = x->rank ? x->dims[x->rank - 1] : -1;
  data[0] = x->data;
  for (size_t i = 1; i < count; i++) {
    if ((bad = input(context, i, &one))) return bad;
    data[i] = one.data;
    if (i == 1) {
      if (one.rank != 2 || one.dims[1] * 8 / spec->width != k) return status(INVALID, "qcc: the last axis of the input does not fit the weights");
      *n = one.dims[0];
    }
    if (i <= weights) continue;
    int vector = spec->operands[i - weights - 1] == 'v', fits = one.rank == (vector ? 1 : x->rank);
    for (size_t axis = 0; fits && axis < one.rank; axis++) fits = one.dims[axis] == (axis + 1 == one.rank ? *n : x->dims[axis]);
    if (!fits) return status(INVALID, "qcc: an operand of a step has another shape than the output");
  }
  return NULL;
}

static void *compute(void *kernel, void *context) {
  Node *node = kernel;
  const Spec *spec = node->spec;
  const char *data[MOST_PARAMETERS];
  size_t weights = weight_inputs(spec), count = 1 + weights + strlen(spec->operands);
  Input x;
  float *y;
  int64_t n = 0, rows = 1;
  Handle stream = NULL, function;
  void *bad = take(node, context, &x, &n, data);
  if (bad) return bad;
  int64_t k = x.dims[x.rank - 1];
  for (size_t i = 0; i + 1 < x.rank; i++) rows *= x.dims[i];
  x.dims[x.rank - 1] = n;
  if ((bad = output(context, 0, &x, &y)) || !rows || !n) return bad;
  data[count] = (const char *)y;
  if (k % WORD || k >= NUMBERS || n >= NUMBERS) return status(INVALID, "qcc: a layer's inputs are a multiple of 32");
  if ((bad = ORT(GPU_STREAM, const void *, void **)(context, &stream))) return bad;
  int many = rows > 1 ? MANY : 1;
  if ((bad = function_of(node, many, &function))) return bad;
  int64_t widest = k > n ? k : n, most = NUMBERS / widest;
  if (most > DOWN * (int64_t)many) most = DOWN * (int64_t)many;
  for (int64_t row = 0, some; row < rows; row += some) {
    some = rows - row < most ? rows - row : most;
    int sizes[] = {(int)k, (int)n, (int)some};
    const char *moved[MOST_PARAMETERS];
    void *arguments[MOST_PARAMETERS + 3];
    for (int i = 0; i < spec->pointers; i++) {
      size_t from = (size_t)spec->order[i];
      int tensor = from == count || (from > weights && spec->operands[from - weights - 1] == 't');
      moved[i] = data[from] + row * 4 * (!from ? k : tensor ? n : 0);
      arguments[i] = moved + i;
    }
    for (int i = 0; i < 3; i++) arguments[spec->pointers + i] = sizes + i;
    unsigned across = (unsigned)((n + OUTPUTS - 1) / OUTPUTS), down = (unsigned)((some + many - 1) / many);
    if (cu.launch(function, across, down, 1, WARP, WARPS, 1, 0, stream, arguments, NULL)) return status(FAIL, "qcc: a kernel could not be started");
  }
  return NULL;
}

static void *create(const void *of, const void *info, void **kernel) {
  const Spec *spec = of;
  Input scale;
  void *bad = constant(info, (size_t)spec->planes + 1, &scale);
  if (bad) return bad;
  if (scale.type != FLOAT && scale.type != FLOAT16) return status(INVALID, "qcc: scales are float16 or float32");
  Node *node = calloc(1, sizeof *node);
  if (!node) return status(FAIL, "qcc: out of memory");
  node->spec = spec, node->wide = scale.type == FLOAT;
  *kernel = node;
  return NULL;
}

/* ---- the ops that are served here ---- */
static int input_type(const void *of, size_t index) {
  const Spec *spec = of;
  size_t scale = (size_t)spec->planes + 1;
  if (index && index < scale) return UINT8;
  if (index == scale) return 0; /* float16 or float32 */
  return index == scale + 1 && spec->zero ? INT8 : FLOAT;
}

void *serve(const Served **ops, int *count) {
  static Served served[QCC_OPS];
  int found = capability();
  for (size_t i = 0; !chosen && i < sizeof codes / sizeof *codes; i++) if (found >= codes[i].number) chosen = codes[i].ptx;
  if (!chosen) return NULL;
  for (int i = 0; i < QCC_OPS; i++)
    served[i] = (Served){
        .name = specs[i].name, .spec = specs + i, .input_type = input_type, .create = create,
        .compute = compute, .destroy = free, .outputs = 1, .inputs = 1 + weight_inputs(specs + i) + strlen(specs[i].operands)};
  *ops = served, *count = QCC_OPS;
  return NULL;
}
