/* What convolutions and pools of bytes share: values with channels last, and how a window goes over them. */
#ifndef QCC_CHAIN_H
#define QCC_CHAIN_H
#include "shim.h"

enum { LANE = 16 /* bytes that interleave, and that are written at least */, SLACK = 128 /* bytes that are read behind the last pixel */,
       PLANES = 4 /* of codes */ };
enum { LOW, HIGH, Y, OWN, OTHERS, MIDDLE, SUM_LOW, SUM_HIGH, SUM_ZERO, FACTS }; /* requantize.py */

/* Sizes of what is read and made: planes, rows, columns. */
typedef struct { int64_t images, channels, from[3], to[3]; } Image;

/* Lines of an image that are copied, with what is around them, and where in them a kernel's numbers lie. */
typedef struct {
  const Window *window;
  const Image *image;
  const uint8_t *x;
  uint8_t zero;                 /* what is around */
  int64_t row, plane, fit;      /* bytes of a line, and of a plane of lines; rows that are made of as many */
} Lines;

static inline int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* chain_lines.c; what gives a status gives NULL where all is well */
void *measure(const Window *window, const Input *x, Image *image);
void shape_of(const Window *window, const Image *image, int64_t channels, Input *shape);
int64_t positions_of(const Window *window);
void lay_lines(Lines *lines);
int64_t place_in(const Lines *lines, int64_t position);
void copy_lines(const Lines *lines, int64_t at, int64_t rows, uint8_t *to);
/* Pixels of fewer channels than are made at once, where they belong: what is copied beyond one the next covers. */
void put_narrow(uint8_t *y, int64_t n, const uint8_t *spare, int64_t pixel, int64_t pixels);
void *number(const void *info, size_t at, int type, float *found);

/* chain_weights.c */
typedef struct { int64_t start, at, words; int which; } Part; /* of channels: where they and their numbers begin */
typedef struct {
  const ChainSpec *spec;
  int64_t n, c, all, groups /* that are multiplied apart: outputs and inputs of each, and inputs of all */,
      runs, joined /* neighbours of a kernel that are one run of bytes */, fours, whole, blocks, last;
  int8_t *words;
  int32_t *bias;
  float *scale, facts[FACTS];
  Part *parts;
  int64_t count, folded; /* bytes of neighbouring pixels that are computed at once, where channels are few; else 0 */
  uint8_t zero;
  int others;
} Filter;
size_t residual(const ChainSpec *spec);
size_t chain_input(const ChainSpec *spec, size_t index);
void *make_filter(const void *spec, const void *info, void **kernel);
void free_filter(void *filter);

enum { X, X_SCALE, X_ZERO, CODES, SCALE, ZERO, BIAS, BIAS_SCALE, Y_SCALE, Y_ZERO, CUT /* two, where it cuts off; then the residual */ };
#endif
