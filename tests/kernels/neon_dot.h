// Dot products of bytes, as of AArch64 with FEAT_DotProd, on an x86 processor with SSE2: with this in
// front of them, quantised products on the host take the text for it. The instruction is here in plain C.
#include <stdint.h>

#define MM_PLANES 2
#define mm_add_bytes(sums, a, b) neon_add_bytes(sums, (neon_bytes)(a), (neon_bytes)(b))
#pragma GCC optimize("O0") // the results are tested, not the time, and compiling takes a third

typedef int32_t neon_ints __attribute__((vector_size(16)));
typedef int8_t neon_bytes __attribute__((vector_size(16)));

static inline neon_ints neon_add_bytes(neon_ints sums, neon_bytes a, neon_bytes b)
{
    for (int i = 0; i < 16; i++)
        sums[i / 4] += a[i] * b[i];
    return sums;
}
