// AVX-512 with VNNI on an x86 processor with AVX2: with this in front of them, host kernels take the
// text for both. GCC makes several instructions of an operation on a vector of 512 bits; the few
// instructions that the kernels name are here in plain C.
#include <stdint.h>
#include <string.h>

#define __AVX512F__ 1
#define __AVX512BW__ 1
#ifndef WITHOUT_VNNI
#define __AVX512VNNI__ 1
#endif
#pragma GCC optimize("O0") // the results are tested, not the time, and compiling takes a third

typedef int32_t vnni_ints __attribute__((vector_size(64)));
typedef float vnni_floats __attribute__((vector_size(64)));
typedef char vnni_bytes __attribute__((vector_size(16)));
typedef char vnni_more_bytes __attribute__((vector_size(32)));
typedef short vnni_halves __attribute__((vector_size(32)));
typedef short vnni_pairs __attribute__((vector_size(64)));

#define MM_IN_REGISTER(v) // there is none so wide
#define MM_ROUNDED(v) __asm__("" : "+m"(v))
#define __builtin_ia32_movntps512(to, from) memcpy((to), &(from), 64)
#define __builtin_ia32_pmovsxbd512_mask(bytes, rest, mask) vnni_widen((bytes), 1)
#define __builtin_ia32_pmovzxbd512_mask(bytes, rest, mask) vnni_widen((bytes), 0)
#define __builtin_ia32_vcvtph2ps512_mask(codes, rest, mask, rounding) vnni_floats_of(codes)
#define __builtin_ia32_pmovsxbw512_mask(bytes, rest, mask) vnni_pairs_of((bytes), 1)
#define __builtin_ia32_pmovzxbw512_mask(bytes, rest, mask) vnni_pairs_of((bytes), 0)
#define __builtin_ia32_pmaddwd512_mask(a, b, rest, mask) vnni_add_pairs((vnni_ints){0}, a, b)
#define __builtin_ia32_vpdpwssd_v16si(sums, a, b) vnni_add_pairs(sums, (vnni_pairs)(a), (vnni_pairs)(b))

static inline vnni_ints vnni_widen(vnni_bytes bytes, int is_signed)
{
    vnni_ints wide;
    for (int i = 0; i < 16; i++)
        wide[i] = is_signed ? (int8_t)bytes[i] : (uint8_t)bytes[i];
    return wide;
}

static inline vnni_floats vnni_floats_of(vnni_halves codes)
{
    typedef short eight_codes __attribute__((vector_size(16)));
    typedef float eight_floats __attribute__((vector_size(32)));
    eight_codes parts[2];
    memcpy(parts, &codes, sizeof parts);
    const eight_floats floats[2] = {
        __builtin_ia32_vcvtph2ps256(parts[0]), __builtin_ia32_vcvtph2ps256(parts[1])};
    vnni_floats all;
    memcpy(&all, floats, sizeof all);
    return all;
}

static inline vnni_pairs vnni_pairs_of(vnni_more_bytes bytes, int is_signed)
{
    vnni_pairs wide;
    for (int i = 0; i < 32; i++)
        wide[i] = is_signed ? (int8_t)bytes[i] : (uint8_t)bytes[i];
    return wide;
}

static inline vnni_ints vnni_add_pairs(vnni_ints sums, vnni_pairs a, vnni_pairs b)
{
    for (int i = 0; i < 32; i++)
        sums[i / 2] += a[i] * b[i];
    return sums;
}
