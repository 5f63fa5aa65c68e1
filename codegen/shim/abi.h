/* ONNX Runtime's C API, version 17, as far as libraries of kernels speak it. No header of it is needed: the API is a table
 * of functions that only ever grows at its end, so a function is known by its index. */
#ifndef QCC_ABI_H
#define QCC_ABI_H
#include <stddef.h>
#include <stdint.h>

enum { API_VERSION = 17, FLOAT = 1, UINT8 = 2, INT8 = 3, UINT16 = 4, INT32 = 6, INT64 = 7, FLOAT16 = 10, BFLOAT16 = 16, FAIL = 1, INVALID = 2 };
enum { CREATE_STATUS = 0, CREATE_DOMAIN = 26, DOMAIN_ADD = 27, ADD_DOMAIN = 28, TENSOR_DATA = 51, ELEMENT_TYPE = 60,
       RANK = 61, DIMENSIONS = 62, TYPE_AND_SHAPE = 65, FLOAT_ATTRIBUTE = 85, GET_INPUT = 90, GET_OUTPUT = 91,
       RELEASE_SHAPE = 99, PROVIDERS = 125, RELEASE_PROVIDERS = 126, CONSTANT_INPUT = 249, PARALLEL_FOR = 274 };
typedef void *(*Function)(void);
typedef struct { const Function *(*GetApi)(uint32_t); const char *(*GetVersionString)(void); } ApiBase;
extern const Function *api __attribute__((visibility("hidden")));
#define ORT(index, ...) ((void *(*)(__VA_ARGS__))api[index])

typedef struct Op {
  uint32_t version;
  void *(*CreateKernel)(const struct Op *, const void *, const void *);
  const char *(*GetName)(const struct Op *);
  const char *(*GetExecutionProviderType)(const struct Op *);
  int (*GetInputType)(const struct Op *, size_t);
  size_t (*GetInputTypeCount)(const struct Op *);
  int (*GetOutputType)(const struct Op *, size_t);
  size_t (*GetOutputTypeCount)(const struct Op *);
  void (*KernelCompute)(void *, void *);
  void (*KernelDestroy)(void *);
  int (*GetInputCharacteristic)(const struct Op *, size_t);
  int (*GetOutputCharacteristic)(const struct Op *, size_t);
  int (*GetInputMemoryType)(const struct Op *, size_t);
  int (*GetVariadicInputMinArity)(const struct Op *);
  int (*GetVariadicInputHomogeneity)(const struct Op *);
  int (*GetVariadicOutputMinArity)(const struct Op *);
  int (*GetVariadicOutputHomogeneity)(const struct Op *);
  void *(*CreateKernelV2)(const struct Op *, const void *, const void *, void **);
  void *(*KernelComputeV2)(void *, void *);
  void *later[12];
} Op;

static inline void *status(int code, const char *message) { return ORT(CREATE_STATUS, int, const char *)(code, message); }

#endif
