/* Whether the processor, and the system, have the instructions that generated code needs. */
#include "shim.h"
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { VECTORS = 0x6, WIDE_VECTORS = 0xe6, TILES = 0x60000 }; /* state that the system saves, as xgetbv tells */
static const struct { const char *name; unsigned leaf, sub, reg, bit, states; } flags[] = {
    {"avx2", 7, 0, 1, 5, VECTORS}, {"fma", 1, 0, 2, 12, VECTORS}, {"f16c", 1, 0, 2, 29, VECTORS},
    {"avx512f", 7, 0, 1, 16, WIDE_VECTORS}, {"avx512bw", 7, 0, 1, 30, WIDE_VECTORS},
    {"avx512dq", 7, 0, 1, 17, WIDE_VECTORS}, {"avx512vl", 7, 0, 1, 31, WIDE_VECTORS},
    {"avx512_vnni", 7, 0, 2, 11, WIDE_VECTORS}, {"avx512_bf16", 7, 1, 0, 5, WIDE_VECTORS},
    {"amx_tile", 7, 0, 3, 24, TILES}, {"amx_bf16", 7, 0, 3, 22, TILES}, {"amx_int8", 7, 0, 3, 25, TILES}};

static int has(const char *name, unsigned states) {
  unsigned r[4];
  for (size_t i = 0; i < sizeof flags / sizeof *flags; i++) {
    if (strcmp(flags[i].name, name)) continue;
    if (!__get_cpuid_count(flags[i].leaf, flags[i].sub, &r[0], &r[1], &r[2], &r[3])) return 0;
    if (!(r[flags[i].reg] >> flags[i].bit & 1) || (states & flags[i].states) != flags[i].states) return 0;
    /* tiles are asked for, once a process */
    return strcmp(name, "amx_tile") || !syscall(SYS_arch_prctl, 0x1023, 18);
  }
  return 0;
}

int usable(const char *const *needs) {
  unsigned states = 0, high, r[4];
  if (!__get_cpuid(1, &r[0], &r[1], &r[2], &r[3])) return 0;
  if (r[2] & 1u << 27) __asm__ volatile("xgetbv" : "=a"(states), "=d"(high) : "c"(0));
  for (; *needs; needs++) if (!has(*needs, states)) return 0;
  return 1;
}
#elif defined(__aarch64__)
#include <sys/auxv.h>

int usable(const char *const *needs) {
  unsigned long found = getauxval(AT_HWCAP);
  for (; *needs; needs++) if (strcmp(*needs, "asimddp") || !(found >> 20 & 1)) return 0;
  return 1;
}
#endif
