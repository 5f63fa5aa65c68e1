/* What a library's general part and its target's own share: the ops that are served, and what they are given. */
#ifndef QCC_OPS_H
#define QCC_OPS_H
#include "abi.h"

/* An op of domain qcc. What gives a status gives NULL where all is well. */
typedef struct {
  const char *name;
  size_t inputs, outputs;
  const void *spec;            /* the target's own */
  int (*input_type)(const void *spec, size_t index); /* 0: any */
  int (*output_type)(const void *spec, size_t index); /* NULL: floats */
  void *(*create)(const void *spec, const void *info, void **kernel);
  void *(*compute)(void *kernel, void *context);
  void (*destroy)(void *kernel);
} Served;

/* By the target: the provider that runs its ops. */
extern const char *const qcc_provider __attribute__((visibility("default")));

/* By the target: its ops on this machine, which stay where they are; none where it has none. */
void *serve(const Served **ops, int *count);

/* values.c */
typedef struct { const void *data; int type; size_t rank; int64_t dims[8]; } Input;
void *describe(const void *value, Input *input);
void *constant(const void *info, size_t index, Input *input);
void *input(void *context, size_t index, Input *found);
void *output(void *context, size_t index, const Input *shape, void *data /* a pointer to a pointer */);
int is_matrix(const Input *input, int64_t rows, int64_t columns);
int planes_of(int bits, int *widths); /* of codes, lowest bits first */
float half_to_float(uint16_t h);

/* memory.c: constants that were made into something else are no longer read */
void *let_go(const void *info, size_t first, size_t count);

#endif
