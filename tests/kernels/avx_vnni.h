// AVX-VNNI on an x86 processor with AVX2: with this in front of them, host kernels take the text for
// it. Its instruction is here in plain C.
#include <stdint.h>

#define __AVXVNNI__ 1
#define __builtin_ia32_vpdpwssd_v8si(sums, a, b) avx_vnni_add_pairs(sums, (avx_vnni_pairs)(a), (avx_vnni_pairs)(b))
#pragma GCC optimize("O0") // the results are tested, not the time, and compiling takes a third

typedef int32_t avx_vnni_ints __attribute__((vector_size(32)));
typedef int16_t avx_vnni_pairs __attribute__((vector_size(32)));

static inline avx_vnni_ints avx_vnni_add_pairs(avx_vnni_ints sums, avx_vnni_pairs a, avx_vnni_pairs b)
{
    for (int i = 0; i < 16; i++)
        sums[i / 2] += a[i] * b[i];
    return sums;
}
