/* AMX for processors without it: whoever loads this and calls `emulate_tiles` has instructions on tiles done by a handler of SIGILL.
 * Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 2. What that refuses is left to who had SIGILL before. */
#define _GNU_SOURCE
#include <immintrin.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>

enum { TILES = 8, ROWS = 16, BYTES = 64, ZEROED_ROUNDED = 0x9fc0 /* MXCSR: denormals are zeros, to nearest, no traps */ };
typedef uint32_t Words __attribute__((vector_size(BYTES)));
typedef int32_t Signed __attribute__((vector_size(BYTES)));

/* What a thread has: whether there is a configuration, and that as it was loaded. Behind a tile's rows and columns are zeros. */
typedef struct { Words tile[TILES][ROWS]; uint8_t config[BYTES]; int configured; } State;
typedef struct { int length, prefix, opcode, reg, rm, vvvv, is_register, is_sib; uint64_t base, index; } Instruction;

static __thread State *own __attribute__((tls_model("initial-exec")));
static struct sigaction before;

static int rows_of(const State *s, int tile) { return s->config[48 + tile]; }
static int bytes_of(const State *s, int tile) { return s->config[16 + 2 * tile]; }

static uint64_t number_of(const greg_t *registers, int number) {
  static const int order[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                              REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};
  return (uint64_t)registers[order[number]];
}

/* An instruction of three bytes of VEX, of the map 0F38, W and L zero; its length is 0 where it is none. */
static Instruction decoded(const uint8_t *at, const greg_t *registers) {
  Instruction made = {0};
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2 || at[2] & 0x84) return made;
  int high = ~at[1], mod = at[4] >> 6, rm = at[4] & 7, length = 5;
  made.prefix = at[2] & 3, made.vvvv = ~at[2] >> 3 & 15, made.opcode = at[3];
  made.reg = (at[4] >> 3 & 7) | (high >> 4 & 8), made.rm = rm | (high >> 2 & 8);
  if ((made.is_register = mod == 3)) { made.length = length; return made; }
  int has_base = 1, base = made.rm;
  if ((made.is_sib = rm == 4)) {
    int sib = at[length++], index = (sib >> 3 & 7) | (high >> 3 & 8);
    base = (sib & 7) | (high >> 2 & 8), has_base = mod || (sib & 7) != 5;
    if (index != 4) made.index = number_of(registers, index) << (sib >> 6);
  } else if (!mod && rm == 5) has_base = 0;
  int32_t far = 0;
  if (mod == 1) far = (int8_t)at[length++];
  else if (mod == 2 || !has_base) memcpy(&far, at + length, 4), length += 4;
  if (has_base) made.base = number_of(registers, base);
  else if (!made.is_sib) made.base = (uint64_t)(uintptr_t)at + (uint64_t)length;
  made.base += (uint64_t)(int64_t)far, made.length = length;
  return made;
}

/* Of the palette with tiles; what is reserved, and what tiles have that are not there, is zero. */
static int may_be(const uint8_t *config) {
  for (int i = 2; i < BYTES; i++) {
    int tile = i < 48 ? (i - 16) / 2 : i - 48, reserved = i < 16 || tile >= TILES || (i < 48 && i % 2);
    if (reserved && config[i]) return 0;
  }
  for (int tile = 0; tile < TILES; tile++) {
    int rows = config[48 + tile], bytes = config[16 + 2 * tile];
    if (rows > ROWS || bytes > BYTES || bytes % 4 || !rows != !bytes) return 0;
  }
  return config[0] == 1 && !config[1];
}

static int configure(State *s, const uint8_t *config) {
  if (config[0] && !may_be(config)) return 0;
  memset(s, 0, sizeof *s);
  if (config[0]) memcpy(s->config, config, BYTES), s->configured = 1;
  return 1;
}

/* With the configuration: loading, storing and releasing it, and a tile of zeros. */
static int on_config(State *s, const Instruction *one) {
  void *place = (void *)(uintptr_t)one->base;
  if (one->vvvv) return 0;
  if (one->is_register && one->prefix == 3) {
    if (!s->configured || one->rm || one->reg >= TILES || !rows_of(s, one->reg)) return 0;
    memset(s->tile[one->reg], 0, sizeof *s->tile);
    return 1;
  }
  if (one->reg || one->prefix > 1) return 0;
  if (one->is_register) { if (one->rm || one->prefix) return 0; memset(s, 0, sizeof *s); return 1; }
  if (one->prefix) memcpy(place, s->config, BYTES);
  return one->prefix || configure(s, place);
}

/* A tile from memory or to it, whose rows are the index apart. */
static int moved(State *s, const Instruction *one) {
  if (!one->prefix || one->vvvv || !one->is_sib || !s->configured || one->reg >= TILES) return 0;
  int rows = rows_of(s, one->reg), bytes = bytes_of(s, one->reg);
  Words *tile = s->tile[one->reg];
  if (!rows) return 0;
  if (one->prefix != 2) memset(tile, 0, sizeof *s->tile);
  for (int row = 0; row < rows; row++) {
    char *place = (char *)(uintptr_t)(one->base + (uint64_t)row * one->index);
    if (one->prefix == 2) memcpy(place, tile + row, (size_t)bytes); else memcpy(tile + row, place, (size_t)bytes);
  }
  return 1;
}

__attribute__((noinline, target("avx512f")))
static void dot_bytes(Words *to, const Words *a, const Words *b, int inner, int a_signed, int b_signed) {
  for (int k = 0; k < inner; k++)
    for (int byte = 0; byte < 4; byte++) {
      Words up = b[k] << (24 - 8 * byte), factor = b_signed ? (Words)((Signed)up >> 24) : up >> 24;
      for (int row = 0; row < ROWS; row++) {
        uint32_t one = a[row][k] >> (8 * byte) & 255;
        to[row] += factor * (a_signed ? (uint32_t)(int8_t)one : one);
      }
    }
}

/* Even inputs are added up, and odd ones; both sums are added, and that to what was there. */
__attribute__((noinline, target("avx512f")))
static void dot_halves(Words *to, const Words *a, const Words *b, int inner) {
  for (int row = 0; row < ROWS; row++) {
    __m512 even = _mm512_setzero_ps(), odd = even;
    for (int k = 0; k < inner; k++) {
      __m512 low = (__m512)(b[k] << 16), high = (__m512)(b[k] & 0xffff0000u);
      even = _mm512_fmadd_ps((__m512)_mm512_set1_epi32((int)(a[row][k] << 16)), low, even);
      odd = _mm512_fmadd_ps((__m512)_mm512_set1_epi32((int)(a[row][k] & 0xffff0000u)), high, odd);
    }
    to[row] = (Words)_mm512_add_ps((__m512)to[row], _mm512_add_ps(even, odd));
  }
}

/* A product of tiles, each of which is another. */
static int multiplied(State *s, const Instruction *one) {
  int to = one->reg, a = one->rm, b = one->vvvv;
  if (!s->configured || !one->is_register || to >= TILES || a >= TILES || b >= TILES) return 0;
  int fits = rows_of(s, to) == rows_of(s, a) && bytes_of(s, to) == bytes_of(s, b) && bytes_of(s, a) == 4 * rows_of(s, b);
  if (to == a || to == b || a == b || !fits || !rows_of(s, to) || !rows_of(s, b)) return 0;
  if (one->opcode == 0x5e) dot_bytes(s->tile[to], s->tile[a], s->tile[b], rows_of(s, b), one->prefix > 1, one->prefix % 2);
  else if (one->prefix == 2) dot_halves(s->tile[to], s->tile[a], s->tile[b], rows_of(s, b));
  else return 0;
  return 1;
}

static int done(State *s, const Instruction *one) {
  switch (one->length ? one->opcode : 0) {
  case 0x49: return on_config(s, one);
  case 0x4b: return moved(s, one);
  case 0x5c: case 0x5e: return multiplied(s, one);
  default: return 0;
  }
}

/* Those that follow one another are done at once. */
static void handle(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  int count = 0;
  if (!own) {
    void *room = mmap(NULL, sizeof *own, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room != MAP_FAILED) own = room;
  }
  _mm_setcsr(ZEROED_ROUNDED);
  for (Instruction one; own; registers[REG_RIP] += one.length, count++) {
    one = decoded((const uint8_t *)(uintptr_t)registers[REG_RIP], registers);
    if (!done(own, &one)) break;
  }
  if (count) return;
  if (before.sa_flags & SA_SIGINFO) before.sa_sigaction(number, info, context);
  else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) signal(number, SIG_DFL);
  else before.sa_handler(number);
}

/* From now on, in all threads; 0 where that went well. */
int emulate_tiles(void) {
  struct sigaction now = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER}, found;
  if (sigaction(SIGILL, NULL, &found)) return 1;
  if (found.sa_sigaction == handle) return 0;
  before = found;
  return sigaction(SIGILL, &now, NULL);
}
