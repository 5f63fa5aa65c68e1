/* Registering custom ops with ONNX Runtime: those that the target's own C files serve on this machine. */
#include "ops.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

typedef struct { Op op; const Served *served; } Registered;
const Function *api;

static const Served *of(const Op *op) { return ((const Registered *)op)->served; }
static const char *name(const Op *op) { return of(op)->name; }
static const char *provider(const Op *op) { (void)op; return qcc_provider; }
static size_t inputs(const Op *op) { return of(op)->inputs; }
static int input_type(const Op *op, size_t index) { return of(op)->input_type(of(op)->spec, index); }
static size_t outputs(const Op *op) { return of(op)->outputs; }
static int output_type(const Op *op, size_t index) { return of(op)->output_type ? of(op)->output_type(of(op)->spec, index) : FLOAT; }
static int one_int(const Op *op) { (void)op; return 1; }
static int none(const Op *op, size_t index) { (void)op, (void)index; return 0; }
static void *create(const Op *op, const void *unused, const void *info, void **kernel) {
  (void)unused;
  return of(op)->create(of(op)->spec, info, kernel);
}

static void *domain;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *make_domain(const Served *served, int count) {
  void *made, *bad = ORT(CREATE_DOMAIN, const char *, void **)("qcc", &made);
  Registered *registered = bad ? NULL : calloc((size_t)count, sizeof *registered);
  if (bad || !registered) return bad ? bad : status(FAIL, "qcc: out of memory");
  for (int i = 0; i < count; i++) {
    registered[i] = (Registered){
        .served = served + i,
        .op = {.version = API_VERSION, .GetName = name, .GetExecutionProviderType = provider, .GetInputType = input_type,
               .GetInputTypeCount = inputs, .GetOutputType = output_type, .GetOutputTypeCount = outputs,
               .KernelDestroy = served[i].destroy, .GetInputCharacteristic = none, .GetOutputCharacteristic = none,
               .GetInputMemoryType = none, .GetVariadicInputMinArity = one_int, .GetVariadicInputHomogeneity = one_int,
               .GetVariadicOutputMinArity = one_int, .GetVariadicOutputHomogeneity = one_int, .CreateKernelV2 = create,
               .KernelComputeV2 = served[i].compute}};
    if ((bad = ORT(DOMAIN_ADD, void *, const Op *)(made, &registered[i].op))) return bad;
  }
  domain = made;
  return NULL;
}

/* The runtime has the provider that runs the ops: of a node that nothing runs it takes no function, but fails. */
static void *provided(int *has) {
  char **names;
  int count;
  void *bad = ORT(PROVIDERS, char ***, int *)(&names, &count);
  if (bad) return bad;
  *has = 0;
  for (int i = 0; i < count; i++) *has |= !strcmp(names[i], qcc_provider);
  return ORT(RELEASE_PROVIDERS, char **, int)(names, count);
}

/* Where nothing is served nothing is registered, and the model's own functions run. */
__attribute__((visibility("default"))) void *RegisterCustomOps(void *options, const ApiBase *base) {
  const Function *found = base->GetApi(API_VERSION);
  if (!found) return NULL;
  const Served *served = NULL;
  int count = 0;
  void *bad = NULL;
  pthread_mutex_lock(&lock);
  api = found;
  int has = 0;
  if (!domain) bad = provided(&has);
  if (!bad && has) bad = serve(&served, &count);
  if (!bad && count) bad = make_domain(served, count);
  if (!bad && domain) bad = ORT(ADD_DOMAIN, void *, void *)(options, domain);
  pthread_mutex_unlock(&lock);
  return bad;
}
