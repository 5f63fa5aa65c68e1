/* How a window goes over values with channels last: [images, planes, rows, columns, channels]; one axis is rows. Where it reaches
 * beyond the image it sees a copy of some lines with a number around them. */
#include "chain.h"
#include <string.h>

enum { ROOM = 96 << 10 /* bytes of copied lines, about */ };

static int first_axis(const Window *window) { return window->axes == 3 ? 0 : 1; }

int64_t positions_of(const Window *window) { return (int64_t)window->kernel[0] * window->kernel[1] * window->kernel[2]; }

/* The numbers that a kernel spans along an axis, with so many places. */
static int64_t reach(const Window *window, int axis, int64_t places) {
  return (places - 1) * window->strides[axis] + (window->kernel[axis] - 1) * window->apart[axis] + 1;
}

void *measure(const Window *window, const Input *x, Image *image) {
  if (x->rank != (size_t)window->axes + 2) return status(INVALID, "qcc: the input has another number of axes than the kernel");
  image->images = x->dims[0], image->channels = x->dims[x->rank - 1];
  for (int axis = 0, first = first_axis(window); axis < 3; axis++) {
    int inside = axis >= first && axis < first + window->axes;
    image->from[axis] = inside ? x->dims[1 + axis - first] : 1;
    int64_t over = image->from[axis] + window->begins[axis] + window->ends[axis] - reach(window, axis, 1);
    if (over < 0) return status(INVALID, "qcc: the image is smaller than the kernel");
    image->to[axis] = over / window->strides[axis] + 1;
  }
  return NULL;
}

void shape_of(const Window *window, const Image *image, int64_t channels, Input *shape) {
  *shape = (Input){.rank = (size_t)window->axes + 2, .dims = {image->images}};
  for (int at = 0; at < window->axes; at++) shape->dims[1 + at] = image->to[first_axis(window) + at];
  shape->dims[shape->rank - 1] = channels;
}

void lay_lines(Lines *lines) {
  const Window *window = lines->window;
  lines->row = most(reach(window, 2, lines->image->to[2]), window->begins[2]) * lines->image->channels;
  int64_t room = ROOM / most(lines->row * window->kernel[0], 1) - reach(window, 1, 1);
  lines->fit = least(most(room / window->strides[1] + 1, 1), lines->image->to[1]);
  lines->plane = reach(window, 1, lines->fit) * lines->row;
}

int64_t place_in(const Lines *lines, int64_t position) {
  const Window *window = lines->window;
  int64_t column = position % window->kernel[2], row = position / window->kernel[2] % window->kernel[1];
  int64_t plane = position / window->kernel[2] / window->kernel[1];
  return plane * lines->plane + row * window->apart[1] * lines->row + column * window->apart[2] * lines->image->channels;
}

/* What so many rows from one on see; rows are counted through images and planes, and are of one. */
void copy_lines(const Lines *lines, int64_t at, int64_t rows, uint8_t *to) {
  const Window *window = lines->window;
  const Image *image = lines->image;
  int64_t c = image->channels, wide = lines->row / c, left = window->begins[2], inside = least(image->from[2], wide - left);
  int64_t top = at % image->to[1] * window->strides[1] - window->begins[1], first = at / image->to[1];
  int64_t front = first % image->to[0] * window->strides[0] - window->begins[0], count = reach(window, 1, rows);
  for (int plane = 0; plane < window->kernel[0]; plane++) {
    int64_t deep = front + plane * window->apart[0];
    uint8_t *line = to + plane * lines->plane;
    for (int64_t r = top; r < top + count; r++, line += lines->row) {
      if (deep < 0 || deep >= image->from[0] || r < 0 || r >= image->from[1]) { memset(line, lines->zero, (size_t)lines->row); continue; }
      const uint8_t *from = lines->x + ((first / image->to[0] * image->from[0] + deep) * image->from[1] + r) * image->from[2] * c;
      memset(line, lines->zero, (size_t)(left * c));
      memcpy(line + left * c, from, (size_t)(inside * c));
      memset(line + (left + inside) * c, lines->zero, (size_t)((wide - left - inside) * c));
    }
  }
}

void put_narrow(uint8_t *y, int64_t n, const uint8_t *spare, int64_t pixel, int64_t pixels) {
  uint8_t *to = y + pixel * n;
  int64_t i = 0;
  for (; i * n + LANE <= pixels * n; i++) memcpy(to + i * n, spare + i * LANE, LANE);
  for (; i < pixels; i++) memcpy(to + i * n, spare + i * LANE, (size_t)n);
}

void *number(const void *info, size_t at, int type, float *found) {
  Input input;
  void *bad = constant(info, at, &input);
  if (bad) return bad;
  if (input.type != type) return status(INVALID, "qcc: a step or a code of zero has another type");
  *found = type == FLOAT ? *(const float *)input.data : (float)*(const uint8_t *)input.data;
  return NULL;
}
