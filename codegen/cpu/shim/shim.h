/* What the files of the shim share: the tables that library.py writes, a layer, and where the processor is asked. */
#ifndef QCC_SHIM_H
#define QCC_SHIM_H
#include "ops.h"
#include "tvm.h"

/* The functions for one kind of weights. Static activations are rounded by `quantize`, to float32 where not `rounds`. Few rows are rounded to int8 (`rounds`) and multiplied by `one` or by `four`;
 * from `many` rows on it is `gemm`, where there is one, or `whole`, which multiplies four rows that `round` gave one step each. The gemm's step along the inputs is so many `chunks` long; `depth`,
 * `panel`, `block` and `meets` are the cuts (tiling.py). Scales are float16 where it reads `halves`. */
typedef struct {
  Kernel quantize, one, four, some, pack, gemm, round, whole;
  int rounds, many, chunks, depth, together /* rows of `some` */, lanes /* outputs of a tile that lie together */,
      beside /* inputs of whole numbers that lie together */,
      panels /* `some` reads rows that lie side by side */,
      stepped /* a row of tiles' activations is rounded by one step, to bytes without a sign */,
      widens /* rows of `whole` are numbers of 16 bits */,
      halves, decodes /* what `gemm` multiplies is written to a panel */;
  int64_t panel, block, meets /* bytes of weights that rows meet before the next, about */;
} Family;

/* A product of an op: the steps behind it, and how many operands they have. */
typedef struct { Kernel chain; int operands, copies /* there is nothing to do but copy */; } Member;
enum { PARTS = 4 };

typedef struct {
  const char *name;
  int bits, group /* 0: the whole row */, symmetric, fixed /* the step of activations is an input */;
  const float *numbers, *scales; /* of codes and of scales that are bytes, where those are tables; else NULL */
  const char *operands; /* of the steps, in order: v is a constant vector [out], t a tensor of the output's shape */
  const Member *parts;    /* products of one input, whose outputs are multiples of a strip where there are several */
  int count;
  int woven;            /* of two, the second's steps read the result of the first: their strips take turns */
  int keeps;            /* what the norm reads is a second output */
  Kernel norm;          /* none: NULL; its operands follow those of the parts */
  const Family *family;
  int pointwise;        /* a convolution, in conv1x1.c */
  int high, wide;       /* outputs and inputs of a tile where some are stored alone, in blocks.c; else 0 */
} Spec;

/* How a kernel goes over planes, rows and columns; one axis is rows, two are these (window.py). */
typedef struct { int axes, kernel[3], strides[3], begins[3], ends[3], apart[3]; } Window;

/* A convolution of bytes, in chain.c: its kernel, groups, and what it does behind. */
typedef struct {
  const char *name;
  Window window;
  int depthwise, groups;
  int bits;                       /* of codes in planes; 0: they lie in bytes */
  int cuts;                       /* 1: what is below 0; 2: what is outside two inputs */
  int adds, last, cuts_sum;       /* a residual, to which is added, and what is below 0 of that */
  int lanes;                      /* of a vector of sums: 16 have weights in bytes, 8 in 16 bits */
  Kernel product, of[3];          /* depthwise: of 64, 32 and 16 channels, the first where there are 16 lanes */
} ChainSpec;

/* A pool of bytes, in chain_pool.c: the largest number, or the mean; over a window, or all of the image. */
typedef struct { const char *name; Window window; int mean, all; Kernel pool; } PoolSpec;

/* An attention over blocks, in attend.c. */
typedef struct { const char *name; int64_t block, segment, channels; Kernel attend; } AttendSpec;

/* What numbers of a row are kept in: 32 bits are floats; scales of groups are 1: float16, 2: float32, 3: powers of two. */
typedef struct { int bits, group, scale; } RowCode;

/* An attention over rows that are kept as codes, in cached.c. */
typedef struct {
  const char *name;
  int64_t heads, kept, channels, together; /* of the queries of a head of keys that read rows together */
  int first;                               /* some rows in floats stand before the others */
  RowCode keys, values;
  Kernel meet, floats;
} CachedSpec;

/* An attention over rows that are all given, in dense.c: its functions for many queries and for up to 16, with a bias for each key or
 * none, and with one for each score; and for a query alone. */
typedef struct {
  const char *name;
  int64_t heads, kept, channels, width /* queries of a call */, room /* numbers that one needs */;
  int masked, causal;
  Kernel by_key[2], by_score[2], one;
} DenseSpec;

/* An op that is no product: what its file is told of it, and who tells of it what the runtime asks. */
typedef struct { const void *spec; void (*serve)(const void *spec, Served *served); } Apart;

/* Two ops of which the second multiplies what the first makes, in sequence.c. */
typedef struct { const char *name; const Spec *first, *second; } Sequence;

/* Processor flags, and the ops. */
typedef struct {
  const char *const *needs;
  const Spec *specs;
  int ops;
  const Sequence *sequences;
  int pairs;
  const Apart *apart;
  int others;
} Target;

typedef struct {
  const Spec *spec;
  size_t begin; /* its first constant among the inputs of the op */
  int64_t n, k, strips, chunks, groups, sizes[PARTS] /* outputs of each part; n: of all */;
  int32_t *words;  /* [strips * 4, chunks, bits, 16], of bfloat16 [strips * 2, chunks, 2, 16, 16]; conv1x1.c has its own */
  void *scale;     /* [strips * 4, groups, 16], float32, or float16 where the family reads halves */
  int16_t *offset; /* the same: the code of zero; NULL where it is the middle */
  float *less;     /* of tiles: what outputs start with, for 128 more in each input */
  float **vectors; /* an operand of the steps each: [n], or NULL for a tensor */
  float step;      /* of static activations */
  float epsilon;   /* of the norm */
  int others;      /* threads that were seen to work beside the calling one */
  int32_t *starts, *places; /* of tiles: where each row of them begins in the words, and where each stands in its row */
} Layer;

typedef struct {
  const Layer *layer;
  const float *x, *read;  /* what comes in, and that or its rounding, where rows are read as floats */
  float *to[PARTS], *y;   /* where each part goes; y, and where its norm reads from: y itself, or the kept value */
  const float **operands; /* of the steps: vectors and tensors */
  int64_t rows, share, tiles; /* share: strips (or, with tiles, pairs of blocks) of a task */
  int64_t across, down, unit; /* tasks for the same rows (or tiles of rows); rows of a task, a multiple of unit */
  int64_t each;               /* steps and sums of a row, where it is not multiplied by tiles */
  int many;                   /* rows are many for the family */
  int whole;                  /* which is one, and the family's `whole` multiplies */
  int64_t wide;               /* bytes of an input, where rows are rounded */
  int normed;                 /* the norm is done */
  char *inputs;           /* int8 or bfloat16 */
  float *steps;
  void *sums;
  int failed;
} Call;

enum { OWN_ROWS = 32 /* of a task that takes all outputs, at least: it reads all weights */,
       STRIP = 64, CHUNK = 32, OVER = 1024 /* bytes that may be read behind the words */,
       LONGEST = 1 << 16 /* inputs whose products fit 32 bits together */,
       ROUND_WORK = 16 /* products that take as long as one value that is rounded */ };

static inline size_t padded(size_t bytes) { return (bytes + 63) & ~(size_t)63; }

/* keep.c: memory for weights, aligned to 64 bytes; NULL where there is none */
void *keep(size_t bytes);
void let_loose(void *kept);

/* layer.c; what gives a status gives NULL where all is well */
void *find_scales(const Layer *layer, const void *info, size_t first, int64_t rows, Input *scale, Input *zero);
float scale_of(const Layer *layer, const Input *scale, int64_t n, int64_t group);
int middle_of(const Spec *spec, const Input *zero, int64_t at);
int weight_inputs(const Spec *spec); /* of one part */
size_t inputs_of(const Spec *spec); /* all but what is multiplied */
void *make_layer(const Spec *spec, const void *info, size_t begin, Layer **made);
void free_layer(void *layer);

/* run.c */
enum { CALL_ARENA, TASK_ARENA, BETWEEN_ARENA, ARENAS };
extern const uint8_t tile_config[64];
extern const Tensor none_filled; /* TVM takes the device from a tensor, so functions that fill a bare pointer get this one */
void *arena(int which, size_t size); /* what a thread keeps of memory; NULL where there is none */
void *take_tensors(const Layer *l, void *context, const Input *shape, const float **operands);
int input_type_of(const Spec *spec, size_t index); /* of those behind what is multiplied, from 0 on */
void fail(Call *call);
int failed(const Call *call);
int take_room(Call *call, size_t bytes, size_t units);
void norm_rows(Call *call, int64_t first, int64_t rows);
static inline int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
void finish(Call *call, const float *from, int64_t stride, int64_t row, int64_t rows, int64_t first, int64_t count);
int64_t tasks_of(const int *others, int64_t work); /* how many tasks so many products are worth, with so many threads */
void *spread(const int *others, void *context, void *argument, void (*task)(void *, size_t), int64_t tasks);
void *spread_tasks(void *context, Call *call, void (*task)(void *, size_t), int64_t units, int64_t work);
int is_many(const Layer *l, int64_t rows);
void *multiply_all(void *context, Call *call); /* to the end of its norm */
void multiply_alone(Call *call);            /* the same, on this thread */
int64_t row_tasks(const Layer *l, int64_t rows, int64_t tasks); /* of so many, how many take whole rows; 0: others are better */
void *spread_grid(void *context, Call *call, void (*task)(void *, size_t), int64_t across, int64_t down, int64_t tasks);

/* many.c */
void *multiply_many(const Layer *l, void *context, Call *call);
void multiply_many_alone(Call *call);
int64_t tile_tasks(const Layer *l, int64_t tiles, int64_t tasks); /* as row_tasks */

/* sequence.c */
void serve_sequence(const Sequence *sequence, Served *served);

/* blocks.c */
void *fill_tiles(Layer *layer, const void *info);
void *multiply_tiles(void *context, Call *call);

/* conv1x1.c */
void *fill_filters(Layer *layer, const void *info);
void *convolve(void *layer, void *context);

/* chain.c */
void serve_filter(const void *spec, Served *served);

/* chain_pool.c */
void serve_pool(const void *spec, Served *served);

/* attend.c */
void serve_attend(const void *spec, Served *served);

/* cached.c */
void serve_cached(const void *spec, Served *served);

/* dense.c */
void serve_dense(const void *spec, Served *served);

/* cpu.c */
int usable(const char *const *needs);

#endif
