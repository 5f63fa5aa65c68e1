/* A program with a kernel library inside and a stand-in for ONNX Runtime: it runs ops of the library on tensors that it
 * reads from stdin, and writes what they compute to stdout. So kernels for another processor can be run in an emulator
 * that has no ONNX Runtime.
 *
 * A case is: int64 length of the op's name, the name, float epsilon, int64 count of inputs, and of each input int64 type,
 * is it a constant, rank, dimensions, bytes, and the data; and int64 count of outputs. Cases follow each other to the end. */
#include "abi.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAST = 400, MOST = 32 };
typedef struct { int type, constant; size_t rank, bytes; int64_t dims[8]; void *data; } Value;
typedef struct { Value in[MOST], out[MOST]; size_t inputs, outputs; float epsilon; } Case;

void *RegisterCustomOps(void *options, const ApiBase *base);

static const Op *ops[4096];
static size_t known;

static void stop(const char *why) { fprintf(stderr, "fake_ort: %s\n", why); exit(3); }
static void *absent(void) { stop("the library calls a function that this stand-in lacks"); return NULL; }
static void *create_status(int code, const char *message) { (void)code; stop(message); return NULL; }
static void *create_domain(const char *name, void **domain) { *domain = (void *)name; return NULL; }
static void *domain_add(void *domain, const Op *op) { (void)domain; ops[known++] = op; return NULL; }
static void *add_domain(void *options, void *domain) { (void)options, (void)domain; return NULL; }
static void *tensor_data(Value *value, void **data) { *data = value->data; return NULL; }
static void *type_and_shape(Value *value, Value **shape) { *shape = value; return NULL; }
static void *element_type(Value *shape, int *type) { *type = shape->type; return NULL; }
static void *rank(Value *shape, size_t *found) { *found = shape->rank; return NULL; }
static void *dimensions(Value *shape, int64_t *dims, size_t count) { memcpy(dims, shape->dims, count * 8); return NULL; }
static void *release_shape(Value *shape) { (void)shape; return NULL; }
static void *float_attribute(Case *info, const char *name, float *found) {
  if (strcmp(name, "epsilon")) stop("unknown attribute");
  *found = info->epsilon;
  return NULL;
}
static void *get_input(Case *context, size_t index, Value **found) { *found = &context->in[index]; return NULL; }
static void *constant_input(Case *info, size_t index, int *is, Value **found) {
  *is = info->in[index].constant, *found = &info->in[index];
  return NULL;
}
static void *get_output(Case *context, size_t index, const int64_t *dims, size_t count, Value **found) {
  Value *out = &context->out[index];
  out->type = FLOAT, out->rank = count, out->bytes = 4;
  for (size_t i = 0; i < count; i++) out->dims[i] = dims[i], out->bytes *= (size_t)dims[i];
  if (!(out->data = calloc(1, out->bytes + 64))) stop("no memory");
  *found = out;
  return NULL;
}
static void *parallel_for(void *context, void (*task)(void *, size_t), size_t count, size_t batch, void *data) {
  (void)context, (void)batch;
  while (count--) task(data, count); /* the last first: none may wait for another */
  return NULL;
}

static void *providers(char ***names, int *count) {
  static char *own[] = {"CPUExecutionProvider"};
  *names = own, *count = 1;
  return NULL;
}
static void *release_providers(char **names, int count) { (void)names, (void)count; return NULL; }

static Function table[LAST];
static const Function *get_api(uint32_t version) { (void)version; return table; }
static const char *get_version(void) { return "stand-in"; }

static void fill_table(void) {
  for (int i = 0; i < LAST; i++) table[i] = absent;
#define SET(index, function) table[index] = (Function)function
  SET(CREATE_STATUS, create_status), SET(CREATE_DOMAIN, create_domain), SET(DOMAIN_ADD, domain_add);
  SET(ADD_DOMAIN, add_domain), SET(TENSOR_DATA, tensor_data), SET(ELEMENT_TYPE, element_type), SET(RANK, rank);
  SET(DIMENSIONS, dimensions), SET(TYPE_AND_SHAPE, type_and_shape), SET(FLOAT_ATTRIBUTE, float_attribute);
  SET(GET_INPUT, get_input), SET(GET_OUTPUT, get_output), SET(RELEASE_SHAPE, release_shape);
  SET(CONSTANT_INPUT, constant_input), SET(PARALLEL_FOR, parallel_for);
  SET(PROVIDERS, providers), SET(RELEASE_PROVIDERS, release_providers);
}

static void take(void *to, size_t bytes) { if (fread(to, 1, bytes, stdin) != bytes) stop("a case ends too early"); }
static int64_t number(void) { int64_t found; take(&found, sizeof found); return found; }

static void read_value(Value *value) {
  value->type = (int)number(), value->constant = (int)number(), value->rank = (size_t)number();
  for (size_t i = 0; i < value->rank; i++) value->dims[i] = number();
  value->bytes = (size_t)number();
  char *data = malloc(value->bytes + 4);
  if (!data) stop("no memory");
  value->data = data + 4; /* aligned to no more than a float */
  take(value->data, value->bytes);
}

static void run_case(int64_t length) {
  char name[4096] = {0};
  static Case one;
  memset(&one, 0, sizeof one);
  take(name, (size_t)length), take(&one.epsilon, 4);
  one.inputs = (size_t)number();
  for (size_t i = 0; i < one.inputs; i++) read_value(&one.in[i]);
  one.outputs = (size_t)number();
  for (size_t i = 0; i < known; i++) {
    void *kernel;
    if (strcmp(ops[i]->GetName(ops[i]), name)) continue;
    if (ops[i]->GetInputTypeCount(ops[i]) != one.inputs) stop("the op takes another number of inputs");
    if (ops[i]->CreateKernelV2(ops[i], table, &one, &kernel) || ops[i]->KernelComputeV2(kernel, &one)) stop("a kernel failed");
    ops[i]->KernelDestroy(kernel);
    for (size_t out = 0; out < one.outputs; out++) fwrite(one.out[out].data, 1, one.out[out].bytes, stdout), free(one.out[out].data);
    for (size_t in = 0; in < one.inputs; in++) free((char *)one.in[in].data - 4);
    return;
  }
  stop(known ? "the library has no such op" : "the library registers nothing on this processor");
}

int main(void) {
  static const ApiBase base = {get_api, get_version};
  int64_t length;
  fill_table();
  if (RegisterCustomOps(NULL, &base)) stop("the library cannot be registered");
  while (fread(&length, sizeof length, 1, stdin) == 1) run_case(length);
  return 0;
}
