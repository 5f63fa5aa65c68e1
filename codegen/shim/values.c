/* What an op is given and gives: constants when a layer is made, tensors when it runs. */
#include "ops.h"

float half_to_float(uint16_t h) {
  uint32_t sign = (uint32_t)(h >> 15) << 31, exponent = h >> 10 & 31, mantissa = h & 1023, bits;
  union { uint32_t u; float f; } small = {.f = (float)mantissa * 0x1p-24f};
  bits = exponent == 31 ? 0x7f800000u | mantissa << 13
       : exponent ? (exponent + 112) << 23 | mantissa << 13 : small.u;
  union { uint32_t u; float f; } out = {.u = bits | sign};
  return out.f;
}

void *describe(const void *value, Input *input) {
  void *shape, *bad = ORT(TYPE_AND_SHAPE, const void *, void **)(value, &shape);
  if (bad) return bad;
  bad = ORT(ELEMENT_TYPE, void *, int *)(shape, &input->type);
  if (!bad) bad = ORT(RANK, void *, size_t *)(shape, &input->rank);
  if (!bad && input->rank > 8) bad = status(INVALID, "qcc: more than 8 axes");
  if (!bad) bad = ORT(DIMENSIONS, void *, int64_t *, size_t)(shape, input->dims, input->rank);
  ((void (*)(void *))api[RELEASE_SHAPE])(shape);
  return bad ? bad : ORT(TENSOR_DATA, const void *, const void **)(value, &input->data);
}
void *constant(const void *info, size_t index, Input *input) {
  int is = 0;
  const void *value = NULL;
  void *bad = ORT(CONSTANT_INPUT, const void *, size_t, int *, const void **)(info, index, &is, &value);
  if (bad) return bad;
  return is && value ? describe(value, input) : status(INVALID, "qcc: a weight, and a vector of a step, must be a constant");
}
int is_matrix(const Input *input, int64_t rows, int64_t columns) {
  return input->rank == 2 && input->dims[0] == rows && input->dims[1] == columns;
}

int planes_of(int bits, int *widths) {
  int count = 0;
  for (int width = 8; width; width >>= 1) if (bits >= width) widths[count++] = width, bits -= width;
  return count;
}

void *output(void *context, size_t index, const Input *shape, void *data) {
  void *value = NULL;
  void *bad = ORT(GET_OUTPUT, void *, size_t, const int64_t *, size_t, void **)(context, index, shape->dims, shape->rank, &value);
  if (bad) return bad;
  return value ? ORT(TENSOR_DATA, void *, void **)(value, data) : status(INVALID, "qcc: an output is missing");
}

void *input(void *context, size_t index, Input *found) {
  const void *value = NULL;
  void *bad = ORT(GET_INPUT, const void *, size_t, const void **)(context, index, &value);
  if (bad) return bad;
  return value ? describe(value, found) : status(INVALID, "qcc: an input is missing");
}
