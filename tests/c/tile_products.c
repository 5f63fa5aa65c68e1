/* Instructions on tiles as tests give them: with registers and addresses of every kind. */
#include <stdint.h>

#define PRODUCT(number, name) case number: __asm__ volatile(name " %tmm7, %tmm2, %tmm5"); break

/* c += a x b by one of five products; `strides` are those of c, a and b in bytes. Gives back the configuration, too. */
void product(int kind, const uint8_t *config, char *c, char *a, char *b, const int64_t *strides, uint8_t *told) {
  static uint8_t copied[64]; /* found from where the code lies */
  register char *low __asm__("rcx") = a - 0x1000, *high __asm__("r13") = c, *sib __asm__("r12") = b + 8;
  register int64_t of_a __asm__("rax") = strides[1] / 2, of_c __asm__("r14") = strides[0], of_b __asm__("r9") = strides[2] / 8;
  for (int i = 0; i < 64; i++) copied[i] = config[i];
  __asm__ volatile("ldtilecfg %0" : : "m"(copied));
  __asm__ volatile("sttilecfg (%0)" : : "r"(told) : "memory");
  __asm__ volatile("tilezero %%tmm5\n tileloadd (%0,%1,1), %%tmm5" : : "r"(high), "r"(of_c) : "memory");
  __asm__ volatile("tileloadd 0x1000(%0,%1,2), %%tmm2" : : "r"(low), "r"(of_a) : "memory");
  __asm__ volatile("tileloaddt1 -8(%0,%1,8), %%tmm7" : : "r"(sib), "r"(of_b) : "memory");
  switch (kind) {
    PRODUCT(0, "tdpbssd");
    PRODUCT(1, "tdpbsud");
    PRODUCT(2, "tdpbusd");
    PRODUCT(3, "tdpbuud");
    PRODUCT(4, "tdpbf16ps");
  }
  __asm__ volatile("tilestored %%tmm5, (%0,%1,1)" : : "r"(high), "r"(of_c) : "memory");
  __asm__ volatile("tilerelease");
}

/* What every processor refuses: a tile where there is no configuration. */
void refused(void) { __asm__ volatile("tilerelease\n tilezero %tmm0"); }
