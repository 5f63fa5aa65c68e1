/* TVM's calling convention. */
#ifndef QCC_TVM_H
#define QCC_TVM_H
#include <stddef.h>
#include <stdint.h>

typedef struct {
  void *data; int32_t device_type, device_id, ndim; uint8_t code, bits; uint16_t lanes;
  int64_t *shape, *strides; uint64_t byte_offset;
} Tensor;
typedef struct { int32_t type; uint32_t zero; union { int64_t number; const void *pointer; }; } Any;
typedef int (*Kernel)(void *, const Any *, int, Any *);
#define POINTER(p) {4, 0, {.pointer = (p)}}
#define NUMBER(n) {1, 0, {.number = (n)}}
#define TENSOR(t) {7, 0, {.pointer = (t)}}
#define CALL(kernel, args) ({ Any result_ = {0}; (kernel)(NULL, args, sizeof(args) / sizeof(*args), &result_); })

#endif
