// Prelude of the host dialect: C11, in front of every host kernel.
//
// NumPy semantics: mm_max and mm_min propagate NaN, integer division rounds down and x // 0 is 0,
// integers wrap. Functions of float are branch-free, so that a loop marked `#pragma omp simd` is
// vectorised; mm_sin and mm_cos are in host/angles.h, which follows where they are called. Errors are
// below 2 ulp (mm_exp 0.9; mm_sigmoid 2.2, mm_atanh and mm_tanh 2.7, mm_gelu_none 6.5), also where results are
// denormal. Functions of double call the C library.
//
// Generated code calls the macros without suffix, which select by type; a result must be stored in a
// variable of its type before it is used again, because C computes small integers as int.
//
// The polynomials are minimax fits made for this file (reweighted least squares in extended
// precision, coefficients rounded to float one after the other); the errors given were measured on
// all floats (pow: on 4.6 million pairs). tests/kernels repeats that on samples.

#ifndef MM_PRELUDE_HOST
#define MM_PRELUDE_HOST

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MM_INLINE static inline __attribute__((always_inline, unused))

// Memory that starts at a multiple of 64 bytes and has `nbytes`, a multiple of 64; NULL if there is
// not so much. Windows gives it back by another function than `free`.
#ifdef _WIN32
#include <malloc.h>
#define mm_new_memory(nbytes) _aligned_malloc(nbytes, 64)
#define mm_free_memory(memory) _aligned_free(memory)
#else
#define mm_new_memory(nbytes) aligned_alloc(64, nbytes)
#define mm_free_memory(memory) free(memory)
#endif

// A fused multiply-add where it is an instruction; elsewhere the call would be slow.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA) || defined(__riscv_flen)
#define MM_HAS_FMA
#define mm_fma_f32(a, b, c) __builtin_fmaf(a, b, c)
#define mm_fma_f64(a, b, c) __builtin_fma(a, b, c)
#else
#define mm_fma_f32(a, b, c) ((a) * (b) + (c))
#define mm_fma_f64(a, b, c) ((a) * (b) + (c))
#endif

MM_INLINE float mm_as_float(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

MM_INLINE uint32_t mm_as_bits(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

MM_INLINE double mm_as_double(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

MM_INLINE uint64_t mm_as_bits64(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

MM_INLINE float mm_copysign_f32(float size, float sign)
{
    return mm_as_float((mm_as_bits(size) & 0x7fffffffu) | (mm_as_bits(sign) & 0x80000000u));
}

// ---- exponential -------------------------------------------------------------------------------

// Adding 1.5 * 2^23 rounds to a whole number, which is then in the low bits of the sum.
#define MM_ROUNDER 12582912.0f
#define MM_LOG2E 0x1.715476p+0f
#define MM_LN2_HIGH 0x1.62e400p-1f // its product with a whole number below 2^10 is exact
#define MM_LN2_LOW 0x1.7f7d1cp-20f

// e^x = 2^n P(r) with x = n ln 2 + r, |r| < 0.347; returns P(r). Degree 6: relative error 3e-9
// before rounding, 0.88 ulp after.
MM_INLINE float mm_exp_polynomial(float x, float n)
{
    const float r = mm_fma_f32(n, -MM_LN2_LOW, mm_fma_f32(n, -MM_LN2_HIGH, x));
    float p = 0x1.6a5118p-10f;
    p = mm_fma_f32(p, r, 0x1.12397cp-7f);
    p = mm_fma_f32(p, r, 0x1.5558acp-5f);
    p = mm_fma_f32(p, r, 0x1.555492p-3f);
    p = mm_fma_f32(p, r, 0x1.fffffcp-2f);
    p = mm_fma_f32(p, r, 1.0f);
    return mm_fma_f32(p, r, 1.0f);
}

// e^x for x in [-87.3, 88.7]; elsewhere garbage. 2^n is added to the exponent bits.
MM_INLINE float mm_exp_core(float x)
{
    const float t = mm_fma_f32(x, MM_LOG2E, MM_ROUNDER);
    const float p = mm_exp_polynomial(x, t - MM_ROUNDER);
    return mm_as_float(mm_as_bits(p) + (mm_as_bits(t) << 23));
}

#define MM_EXP_LOWEST -0x1.5d589ep+6f // -87.3; below, e^x is smaller than FLT_MIN
#define MM_EXP_HIGHEST 0x1.62e42ep+6f // 88.7; above, e^x is larger than FLT_MAX
#define MM_2_64 (64u << 23) // in exponent bits

// Clamps by the bits of floats, one instruction each: those of negative numbers are the largest
// unsigned integers, and those of positive ones the largest signed ones. NaN becomes a number.
MM_INLINE float mm_not_below(float x, float lowest)
{
    const uint32_t bits = mm_as_bits(x), end = mm_as_bits(lowest);
    return mm_as_float(bits < end ? bits : end);
}

MM_INLINE float mm_not_above(float x, float highest)
{
    const int32_t bits = (int32_t)mm_as_bits(x), end = (int32_t)mm_as_bits(highest);
    return mm_as_float((uint32_t)(bits < end ? bits : end));
}

// e^x = p power factor for every x, NaN and infinities too. Both powers of two are normal numbers: p power
// is rounded without loss, and the last product once, also where it is denormal or infinite. For n >= 0
// the factor is 2^104, else 2^-24, so that the power is 0 for n = -151, where x is clamped: a product with
// 0 is exact, while one that is too small to be a float is slow on some processors.
typedef struct {
    float p, power;
    uint32_t fall; // to be taken from the bits of 2^104: 128 in exponent bits where n < 0
} mm_power;

#define MM_EXP_ZERO -104.4f                // n = -151; e^x is 0 below -103.98
#define MM_POWER_ROUNDER (MM_ROUNDER + 23.0f) // 23 = 127 - 104: the low bits of the sum are an exponent
#define MM_POWER_MOST (MM_ROUNDER + 215.0f) // n = 192: e^x is infinite, but power is not

MM_INLINE mm_power mm_power_of(float x)
{
    const float c = x < MM_EXP_ZERO ? MM_EXP_ZERO : x;
    const float t = mm_not_above(mm_fma_f32(c, MM_LOG2E, MM_POWER_ROUNDER), MM_POWER_MOST);
    const float n = t - MM_POWER_ROUNDER;
    const uint32_t fall = (mm_as_bits(n) & 0x80000000u) >> 1;
    const float power = mm_as_float((mm_as_bits(t) << 23) + fall);
    return (mm_power){mm_exp_polynomial(c, n), power, fall};
}

MM_INLINE float mm_exp_f32(float x)
{
    const mm_power e = mm_power_of(x);
    return e.p * e.power * mm_as_float(0x73800000u - e.fall);
}

// x sigmoid(v) = x / (1 + e^-v), both scaled by the inverse of the factor of e^-v.
MM_INLINE float mm_gated(float x, float v)
{
    const mm_power e = mm_power_of(-v);
    const float scale = mm_as_float(0x0b800000u + e.fall);
    return x / mm_fma_f32(e.p, e.power, scale) * scale;
}

MM_INLINE float mm_sigmoid_f32(float x) { return mm_gated(1.0f, x); }
MM_INLINE float mm_silu_f32(float x) { return mm_gated(x, x); }

// tanh |x| = m / (m + 2) with m = e^2|x| - 1 = 2^n (P(r) - 1) + (2^n - 1), without cancellation.
MM_INLINE float mm_tanh_f32(float x)
{
    float a = __builtin_fabsf(x);
    a = a > 10.0f ? 10.0f : a; // tanh is 1 from 9.02 on
    const float t = mm_fma_f32(a, 2 * MM_LOG2E, MM_ROUNDER);
    const float n = t - MM_ROUNDER;
    float r = mm_fma_f32(n, -MM_LN2_LOW / 2, mm_fma_f32(n, -MM_LN2_HIGH / 2, a));
    r = r + r;
    float p = 0x1.6a5118p-10f;
    p = mm_fma_f32(p, r, 0x1.12397cp-7f);
    p = mm_fma_f32(p, r, 0x1.5558acp-5f);
    p = mm_fma_f32(p, r, 0x1.555492p-3f);
    p = mm_fma_f32(p, r, 0x1.fffffcp-2f);
    p = mm_fma_f32(p, r * r, r);
    const float scale = mm_as_float((mm_as_bits(t) << 23) + 0x3f800000u);
    const float m = mm_fma_f32(scale, p, scale - 1.0f);
    return mm_copysign_f32(m / (m + 2.0f), x);
}

// With a = |x|: erf a = a + a P(a^2) below 0.9, and 1 - e^-(a + a Q(a)) above.
MM_INLINE float mm_erf_f32(float x)
{
    float a = __builtin_fabsf(x);
    a = a > 4.0f ? 4.0f : a; // erf is 1 from 3.92 on
    const float z = a * a;
    float p = -0x1.3d0a7ep-11f;
    p = mm_fma_f32(p, z, 0x1.47e75ep-8f);
    p = mm_fma_f32(p, z, -0x1.b6a63cp-6f);
    p = mm_fma_f32(p, z, 0x1.ce1c18p-4f);
    p = mm_fma_f32(p, z, -0x1.8126eep-2f);
    p = mm_fma_f32(p, z, 0x1.06eba6p-3f);
    float q = -0x1.c20782p-13f;
    q = mm_fma_f32(q, a, 0x1.a60b88p-9f);
    q = mm_fma_f32(q, a, -0x1.774a98p-6f);
    q = mm_fma_f32(q, a, 0x1.af4134p-4f);
    q = mm_fma_f32(q, a, 0x1.457a64p-1f);
    q = mm_fma_f32(q, a, 0x1.073578p-3f);
    // e^-w is at most 0.2 where it counts: one constant for ln 2 and degree 5 are enough.
    const float w = mm_fma_f32(q, a, a);
    const float t = mm_fma_f32(w, -MM_LOG2E, MM_ROUNDER);
    const float r = mm_fma_f32(t - MM_ROUNDER, -0x1.62e43p-1f, -w);
    float e = 0x1.0fa34cp-7f;
    e = mm_fma_f32(e, r, 0x1.573a2cp-5f);
    e = mm_fma_f32(e, r, 0x1.555a7ap-3f);
    e = mm_fma_f32(e, r, 0x1.fffdc6p-2f);
    e = mm_fma_f32(e, r, 0x1.fffff6p-1f);
    e = mm_fma_f32(e, r, 1.0f);
    e = mm_as_float(mm_as_bits(e) + (mm_as_bits(t) << 23));
    return mm_copysign_f32(a > 0.9f ? 1.0f - e : mm_fma_f32(p, a, a), x);
}

// The rounding error of x * x; 0 where it overflows.
MM_INLINE float mm_square_error(float x, float square)
{
#ifdef MM_HAS_FMA
    return mm_fma_f32(x, x, -square);
#else
    return (float)((double)x * x - square);
#endif
}

// x/2 (1 + erf (x/sqrt 2)) is x - t for x > 0 and -t below, t = |x|/2 erfc (|x|/sqrt 2): nothing
// cancels. With a = |x|, erfc (a/sqrt 2)/2 = e^(-a^2/2) u P(u) and u = 1 / (1 + 3/8 a); relative
// error 1.3e-8 before rounding. t is 0 from a = 14.4 on.
MM_INLINE float mm_gelu_none_f32(float x)
{
    const float b = mm_not_above(__builtin_fabsf(x), 15.0f); // NaN becomes 15
    const float u = 1.0f / mm_fma_f32(b, 0.375f, 1.0f);
    float p = 0x1.55426cp-6f;
    p = mm_fma_f32(p, u, -0x1.11adc2p-3f);
    p = mm_fma_f32(p, u, 0x1.6042dap-2f);
    p = mm_fma_f32(p, u, -0x1.b11b0cp-2f);
    p = mm_fma_f32(p, u, 0x1.b7c730p-3f);
    p = mm_fma_f32(p, u, -0x1.c8a438p-5f);
    p = mm_fma_f32(p, u, 0x1.ba458ap-4f);
    p = mm_fma_f32(p, u, 0x1.00a21ep-3f);
    p = mm_fma_f32(p, u, 0x1.32f4e8p-3f);
    p = mm_fma_f32(p, u, 0x1.325deap-3f);
    const float square = b * b;
    const float t = mm_fma_f32(square, -0.5f * MM_LOG2E, MM_ROUNDER);
    const float e = mm_exp_polynomial(-0.5f * square, t - MM_ROUNDER);
    p = mm_fma_f32(p * u, -0.5f * mm_square_error(b, square), p * u);
    // Times 2^64 for as long as the product may be denormal. x times 0 is NaN for -infinity.
    const float scaled = b * p * mm_as_float(mm_as_bits(e) + (mm_as_bits(t) << 23) + MM_2_64);
    return mm_fma_f32(x, x > 0.0f ? 1.0f : 0.0f, scaled * -0x1p-64f);
}

// x/2 (1 + tanh u) is x sigmoid(2u); 2u = x (c1 + c2 x^2).
MM_INLINE float mm_gelu_tanh_f32(float x)
{
    return mm_gated(x, x * mm_fma_f32(x * x, 0x1.2444f2p-4f, 0x1.988454p+0f));
}

MM_INLINE float mm_gelu_quick_f32(float x) { return mm_gated(x, 1.702f * x); }

// ---- logarithm ---------------------------------------------------------------------------------

// log(1 + f) + whole * ln 2 for f in [-1/3, 1/3]; relative error 5e-9 before rounding.
MM_INLINE float mm_log_core(float f, float whole)
{
    float p = -0x1.07de12p-3f;
    p = mm_fma_f32(p, f, 0x1.1e7060p-3f);
    p = mm_fma_f32(p, f, -0x1.f32756p-4f);
    p = mm_fma_f32(p, f, 0x1.1ed4e0p-3f);
    p = mm_fma_f32(p, f, -0x1.559ccap-3f);
    p = mm_fma_f32(p, f, 0x1.99d054p-3f);
    p = mm_fma_f32(p, f, -0x1.fffef8p-3f);
    p = mm_fma_f32(p, f, 0x1.555506p-2f);
    p = mm_fma_f32(p, f, -0.5f);
    return mm_fma_f32(whole, 0x1.62e430p-1f, mm_fma_f32(p, f * f, f));
}

// The exponent bits to take away so that a positive float ends in [2/3, 4/3).
MM_INLINE uint32_t mm_exponent_bits(float x)
{
    return (mm_as_bits(x) - 0x3f2aaaabu) & 0xff800000u;
}

MM_INLINE float mm_log_f32(float x)
{
    const bool tiny = x < 0x1p-126f;
    const float scaled = tiny ? x * 0x1p23f : x;
    const uint32_t e = mm_exponent_bits(scaled);
    const float whole = (float)((int32_t)e >> 23) - (tiny ? 23.0f : 0.0f);
    float y = mm_log_core(mm_as_float(mm_as_bits(scaled) - e) - 1.0f, whole);
    y = x < INFINITY ? y : x; // infinity and NaN
    y = x < 0.0f ? NAN : y;
    return x == 0.0f ? -INFINITY : y;
}

// u = 1 + x loses low bits of x; c, what it lost, is added after u was scaled to [2/3, 4/3).
MM_INLINE float mm_log1p_f32(float x)
{
    const float u = 1.0f + x;
    const float c = x - (u - 1.0f);
    const uint32_t e = mm_exponent_bits(u);
    const int32_t scale_bits = 0x3f800000 - (int32_t)e;
    const float scale = mm_as_float(scale_bits < 0 ? 0 : (uint32_t)scale_bits); // c is 0 then
    const float f = mm_fma_f32(c, scale, mm_as_float(mm_as_bits(u) - e) - 1.0f);
    float y = mm_log_core(f, (float)((int32_t)e >> 23));
    y = x < INFINITY ? y : x;
    y = x < -1.0f ? NAN : y;
    return x == -1.0f ? -INFINITY : y;
}

MM_INLINE float mm_atanh_f32(float x)
{
    const float a = __builtin_fabsf(x);
    return mm_copysign_f32(0.5f * mm_log1p_f32(2.0f * a / (1.0f - a)), x);
}

// ---- trigonometry ------------------------------------------------------------------------------

// mm_sin_f32 and mm_cos_f32 are in host/angles.h.

// acos x = pi/2 - asin x, and 2 asin sqrt((1 - |x|) / 2) where |x| > 1/2. Values outside [-1, 1]
// are clamped.
MM_INLINE float mm_acos_f32(float x)
{
    float a = __builtin_fabsf(x);
    a = a > 1.0f ? 1.0f : a;
    const bool large = a > 0.5f;
    const float z = large ? 0.5f - 0.5f * a : a * a;
    const float s = large ? __builtin_sqrtf(z) : a;
    float p = 0x1.59d478p-5f;
    p = mm_fma_f32(p, z, 0x1.8baedap-6f);
    p = mm_fma_f32(p, z, 0x1.748a90p-5f);
    p = mm_fma_f32(p, z, 0x1.330168p-4f);
    p = mm_fma_f32(p, z, 0x1.5555cap-3f);
    const float asin = mm_fma_f32(p * z, s, s);
    const float near_one = x < 0.0f ? 0x1.921fb6p+1f - 2.0f * asin : 2.0f * asin;
    return large ? near_one : 0x1.921fb6p+0f - mm_copysign_f32(asin, x);
}

// ---- power -------------------------------------------------------------------------------------

// |x|^y = 2^(y log2 |x|) in double, so that the error of the logarithm, times y, stays below that
// of the final rounding. Then the cases that IEEE 754 lists for pow.
MM_INLINE float mm_pow_f32(float x, float y)
{
    const uint64_t bits = mm_as_bits64((double)__builtin_fabsf(x)); // never denormal in double
    const uint64_t e = (bits - 0x3fe5555555555555u) & 0xfff0000000000000u;
    const double m = mm_as_double(bits - e);
    const double s = (m - 1.0) / (m + 1.0);
    const double z = s * s;
    double p = 0x1.9c9a2a0dd320fp-4;
    p = mm_fma_f64(p, z, 0x1.c548a2d67a4dep-4);
    p = mm_fma_f64(p, z, 0x1.24970e19ece4cp-3);
    p = mm_fma_f64(p, z, 0x1.99998ec8320dcp-3);
    p = mm_fma_f64(p, z, 0x1.555555594f28fp-2);
    const double log2m = mm_fma_f64(p * z, s, s) * 0x1.71547652b82fep+1;
    const double log2x = (double)((int32_t)((int64_t)e >> 32) >> 20) + log2m;
    double power = (double)y * log2x;
    power = power > 300.0 ? 300.0 : power;
    power = power < -300.0 ? -300.0 : power;
    const double t = power + 0x1.8p52;
    const double f = power - (t - 0x1.8p52);
    double q = 0x1.41fbbbcd208bap-13;
    q = mm_fma_f64(q, f, 0x1.5f3e5304ccba0p-10);
    q = mm_fma_f64(q, f, 0x1.3b2d4cf23e1bap-7);
    q = mm_fma_f64(q, f, 0x1.c6aee88e65387p-5);
    q = mm_fma_f64(q, f, 0x1.ebfbdc3c2f7d8p-3);
    q = mm_fma_f64(q, f, 0x1.62e430af273f8p-1);
    q = mm_fma_f64(q, f, 1.0);
    float result = (float)mm_as_double(mm_as_bits64(q) + (mm_as_bits64(t) << 52));
    // Zero and infinity: their powers are 0, 1 or infinity, by the sign of the exponent.
    const bool falls = (__builtin_fabsf(x) < 1.0f) == (y > 0.0f);
    const bool infinite = __builtin_fabsf(x) == INFINITY || __builtin_fabsf(y) == INFINITY;
    const bool extreme = x == 0.0f || infinite;
    result = extreme ? (falls ? 0.0f : INFINITY) : result;
    const float half = 0.5f * y;
    const bool whole = __builtin_truncf(y) == y;
    const bool odd = whole && __builtin_truncf(half) != half;
    result = odd ? mm_copysign_f32(result, x) : result;
    result = x < 0.0f && !whole && !extreme ? NAN : result;
    result = x != x || y != y ? x + y : result;
    result = x == -1.0f && __builtin_fabsf(y) == INFINITY ? 1.0f : result;
    return x == 1.0f || y == 0.0f ? 1.0f : result;
}

// ---- other functions of floats -----------------------------------------------------------------

MM_INLINE float mm_sqrt_f32(float x) { return __builtin_sqrtf(x); }
MM_INLINE float mm_rsqrt_f32(float x) { return 1.0f / __builtin_sqrtf(x); }
MM_INLINE float mm_floor_f32(float x) { return __builtin_floorf(x); }
MM_INLINE float mm_ceil_f32(float x) { return __builtin_ceilf(x); }
MM_INLINE float mm_trunc_f32(float x) { return __builtin_truncf(x); }
MM_INLINE float mm_round_f32(float x) { return __builtin_rintf(x); }

MM_INLINE double mm_exp_f64(double x) { return exp(x); }
MM_INLINE double mm_log_f64(double x) { return log(x); }
MM_INLINE double mm_log1p_f64(double x) { return log1p(x); }
MM_INLINE double mm_sqrt_f64(double x) { return __builtin_sqrt(x); }
MM_INLINE double mm_rsqrt_f64(double x) { return 1.0 / __builtin_sqrt(x); }
MM_INLINE double mm_sin_f64(double x) { return sin(x); }
MM_INLINE double mm_cos_f64(double x) { return cos(x); }
MM_INLINE double mm_tanh_f64(double x) { return tanh(x); }
MM_INLINE double mm_atanh_f64(double x) { return atanh(x); }
MM_INLINE double mm_acos_f64(double x) { return acos(x); }
MM_INLINE double mm_erf_f64(double x) { return erf(x); }
MM_INLINE double mm_floor_f64(double x) { return __builtin_floor(x); }
MM_INLINE double mm_ceil_f64(double x) { return __builtin_ceil(x); }
MM_INLINE double mm_trunc_f64(double x) { return __builtin_trunc(x); }
MM_INLINE double mm_round_f64(double x) { return __builtin_rint(x); }
MM_INLINE double mm_pow_f64(double x, double y) { return pow(x, y); }

MM_INLINE double mm_gated_f64(double x, double v)
{
    const double half = exp(-0.5 * fabs(v)); // its square is e^-|v|, which may be denormal
    return (v < 0 ? x * half * half : x) / (1.0 + half * half);
}

MM_INLINE double mm_sigmoid_f64(double x) { return mm_gated_f64(1.0, x); }
MM_INLINE double mm_silu_f64(double x) { return mm_gated_f64(x, x); }
MM_INLINE double mm_gelu_quick_f64(double x) { return mm_gated_f64(x, 1.702 * x); }

// Functions of both types from the C library; loops that call one are not vectorised.
#define MM_LIBRARY_FUNCTION(NAME)                                                                  \
    MM_INLINE float mm_##NAME##_f32(float x) { return NAME##f(x); }                                \
    MM_INLINE double mm_##NAME##_f64(double x) { return NAME(x); }
MM_LIBRARY_FUNCTION(tan)
MM_LIBRARY_FUNCTION(asin)
MM_LIBRARY_FUNCTION(atan)
MM_LIBRARY_FUNCTION(sinh)
MM_LIBRARY_FUNCTION(cosh)
MM_LIBRARY_FUNCTION(asinh)
MM_LIBRARY_FUNCTION(acosh)
MM_LIBRARY_FUNCTION(expm1)
MM_LIBRARY_FUNCTION(log2)
MM_LIBRARY_FUNCTION(log10)

MM_INLINE double mm_gelu_none_f64(double x)
{
    return 0.5 * x * erfc(x * -0x1.6a09e667f3bcdp-1);
}

MM_INLINE double mm_gelu_tanh_f64(double x)
{
    return mm_gated_f64(x, x * (0x1.9884533d43651p+0 + 0x1.2444f2a4d8b4bp-4 * (x * x)));
}

#define MM_FLOAT_FUNCTIONS(T, S, F)                                                                \
    MM_INLINE T mm_atan2_##S(T x, T y) { return atan2##F(x, y); }                                  \
    MM_INLINE T mm_hypot_##S(T x, T y) { return hypot##F(x, y); }                                  \
    MM_INLINE T mm_nextafter_##S(T x, T y) { return nextafter##F(x, y); }                          \
    MM_INLINE T mm_abs_##S(T x) { return __builtin_fabs##F(x); }                                   \
    MM_INLINE T mm_relu_##S(T x) { return x < 0 ? 0 : x; }                                         \
    MM_INLINE bool mm_is_nan_##S(T x) { return x != x; }                                           \
    MM_INLINE bool mm_is_inf_##S(T x) { return __builtin_fabs##F(x) == INFINITY; }                 \
    MM_INLINE T mm_floor_div_##S(T x, T y) { return __builtin_floor##F(x / y); }                   \
    MM_INLINE T mm_max_##S(T x, T y)                                                               \
    {                                                                                              \
        const T larger = x > y ? x : y; /* y if either is NaN */                                   \
        return x != x ? x : larger;                                                                \
    }                                                                                              \
    MM_INLINE T mm_min_##S(T x, T y)                                                               \
    {                                                                                              \
        const T smaller = x < y ? x : y;                                                           \
        return x != x ? x : smaller;                                                               \
    }                                                                                              \
    MM_INLINE T mm_mod_##S(T x, T y)                                                               \
    {                                                                                              \
        T rest = __builtin_fmod##F(x, y);                                                          \
        rest = rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;                               \
        return rest == 0 ? __builtin_copysign##F(rest, y) : rest;                                  \
    }
MM_FLOAT_FUNCTIONS(float, f32, f)
MM_FLOAT_FUNCTIONS(double, f64, )
MM_INLINE double mm_copysign_f64(double size, double sign) { return copysign(size, sign); }
// GCC 12 cannot vectorise __builtin_signbit for AVX-512.
MM_INLINE bool mm_signbit_f32(float x) { return mm_as_bits(x) >> 31 != 0; }
MM_INLINE bool mm_signbit_f64(double x) { return mm_as_bits64(x) >> 63 != 0; }

// ---- integers ----------------------------------------------------------------------------------

// U is an unsigned type at least as wide as T and int, in which overflow wraps. Division by zero
// is undefined, and x86 traps when it divides the lowest number by -1.
#define MM_INTEGER_FUNCTIONS(T, U, S, IS_SIGNED)                                                   \
    MM_INLINE T mm_abs_##S(T x) { return IS_SIGNED && x < 0 ? (T)(0 - (U)x) : x; }                 \
    MM_INLINE T mm_relu_##S(T x) { return IS_SIGNED && x < 0 ? 0 : x; }                            \
    MM_INLINE bool mm_is_nan_##S(T x) { return (void)x, false; }                                   \
    MM_INLINE bool mm_is_inf_##S(T x) { return (void)x, false; }                                   \
    MM_INLINE T mm_max_##S(T x, T y) { return x > y ? x : y; }                                     \
    MM_INLINE T mm_min_##S(T x, T y) { return x < y ? x : y; }                                     \
    MM_INLINE T mm_floor_div_##S(T x, T y)                                                         \
    {                                                                                              \
        const bool minus_one = IS_SIGNED && y == (T)-1;                                            \
        const T d = y == 0 || minus_one ? 1 : y;                                                   \
        const T q = x / d;                                                                         \
        const T floored = IS_SIGNED && x % d != 0 && (x < 0) != (d < 0) ? q - 1 : q;               \
        return y == 0 ? 0 : minus_one ? (T)(0 - (U)x) : floored;                                   \
    }                                                                                              \
    MM_INLINE T mm_mod_##S(T x, T y)                                                               \
    {                                                                                              \
        const T d = y == 0 || (IS_SIGNED && y == (T)-1) ? 1 : y;                                   \
        const T rest = x % d; /* 0 where d was replaced */                                         \
        return IS_SIGNED && rest != 0 && (rest < 0) != (d < 0) ? rest + d : rest;                  \
    }                                                                                              \
    MM_INLINE T mm_left_shift_##S(T x, T y)                                                        \
    {                                                                                              \
        const bool inside = (uint64_t)y < 8 * sizeof(T);                                           \
        return inside ? (T)((U)x << (y & (8 * sizeof(T) - 1))) : 0;                                \
    }                                                                                              \
    MM_INLINE T mm_right_shift_##S(T x, T y)                                                       \
    {                                                                                              \
        const bool inside = (uint64_t)y < 8 * sizeof(T);                                           \
        return inside ? x >> (y & (8 * sizeof(T) - 1)) : IS_SIGNED && x < 0 ? -1 : 0;              \
    }                                                                                              \
    MM_INLINE T mm_pow_##S(T x, T y)                                                               \
    {                                                                                              \
        if (IS_SIGNED && y < 0)                                                                    \
            return x == 1 ? 1 : x == (T)-1 ? (y & 1 ? (T)-1 : 1) : 0;                              \
        U base = (U)x;                                                                             \
        U result = 1;                                                                              \
        for (U n = (U)y; n != 0; n >>= 1) {                                                        \
            result = n & 1 ? (U)(result * base) : result;                                          \
            base = (U)(base * base);                                                               \
        }                                                                                          \
        return (T)result;                                                                          \
    }
MM_INTEGER_FUNCTIONS(int8_t, uint32_t, i8, true)
MM_INTEGER_FUNCTIONS(int16_t, uint32_t, i16, true)
MM_INTEGER_FUNCTIONS(int32_t, uint32_t, i32, true)
MM_INTEGER_FUNCTIONS(int64_t, uint64_t, i64, true)
MM_INTEGER_FUNCTIONS(uint8_t, uint32_t, u8, false)
MM_INTEGER_FUNCTIONS(uint16_t, uint32_t, u16, false)
MM_INTEGER_FUNCTIONS(uint32_t, uint32_t, u32, false)
MM_INTEGER_FUNCTIONS(uint64_t, uint64_t, u64, false)

// ---- narrow floats -----------------------------------------------------------------------------

// The meaning of the largest codes of a format.
enum {
    MM_IEEE,   // infinities, then NaN
    MM_FN,     // no infinity; NaN is all ones
    MM_FNUZ,   // no infinity and no -0, whose code is NaN
    MM_FINITE, // neither: too large numbers become the largest
};

// The value of a code with `e` exponent and `m` mantissa bits.
MM_INLINE float mm_decode(uint32_t code, int e, int m, int bias, int top)
{
    const uint32_t magnitude = code & ((1u << (e + m)) - 1);
    const float normal = mm_as_float((magnitude << (23 - m)) + ((uint32_t)(127 - bias) << 23));
    const float quantum = mm_as_float((uint32_t)(128 - bias - m) << 23);
    float value = magnitude < 1u << m ? (float)(int32_t)magnitude * quantum : normal;
    if (top == MM_IEEE) {
        const float special = mm_as_float(magnitude << (23 - m) | 0x7f800000u);
        value = magnitude >= ((1u << e) - 1) << m ? special : value;
    }
    if (top == MM_FN)
        value = magnitude == (1u << (e + m)) - 1 ? NAN : value;
    const float result = mm_as_float(mm_as_bits(value) | code >> (e + m) << 31);
    return top == MM_FNUZ && code == 1u << (e + m) ? NAN : result;
}

// The code of the nearest value, ties to even.
MM_INLINE uint32_t mm_encode(float x, int e, int m, int bias, int top)
{
    const uint32_t a = mm_as_bits(x) & 0x7fffffffu;
    const uint32_t sign = mm_as_bits(x) >> 31 << (e + m);
    const uint32_t infinity = ((1u << e) - 1) << m;
    const uint32_t sign_bit = 1u << (e + m);
    const uint32_t highest = top == MM_IEEE ? infinity - 1 : sign_bit - 1 - (top == MM_FN);
    const uint32_t rounded = a + ((1u << (22 - m)) - 1) + (a >> (23 - m) & 1);
    const uint32_t normal = (rounded >> (23 - m)) - ((uint32_t)(127 - bias) << m);
    // Adding a number whose last place is the smallest value of the format rounds to multiples.
    const uint32_t rounder = (uint32_t)(151 - bias - m) << 23;
    const uint32_t subnormal = mm_as_bits(mm_as_float(a) + mm_as_float(rounder)) - rounder;
    const uint32_t code = a < (uint32_t)(128 - bias) << 23 ? subnormal : normal;
    const bool is_nan = a > 0x7f800000u;
    if (top == MM_FNUZ) {
        const uint32_t signed_code = code == 0 ? 0 : code | sign;
        return code > highest || is_nan ? sign_bit : signed_code;
    }
    if (top == MM_FINITE)
        return is_nan ? sign ^ sign_bit : (code > highest ? highest : code) | sign;
    const uint32_t nan = top == MM_IEEE ? infinity | 1u << (m - 1) : highest + 1;
    const uint32_t bounded = code > highest ? highest + 1 : code; // infinity, or NaN
    return (is_nan ? nan : bounded) | sign;
}

#define MM_NARROW_FLOAT(NAME, STORAGE, E, M, BIAS, TOP)                                            \
    MM_INLINE float mm_load_##NAME(STORAGE code) { return mm_decode(code, E, M, BIAS, TOP); }      \
    MM_INLINE STORAGE mm_store_##NAME(float x) { return (STORAGE)mm_encode(x, E, M, BIAS, TOP); }
MM_NARROW_FLOAT(float16, uint16_t, 5, 10, 15, MM_IEEE)
MM_NARROW_FLOAT(float8_e5m2, uint8_t, 5, 2, 15, MM_IEEE)
MM_NARROW_FLOAT(float8_e4m3fn, uint8_t, 4, 3, 7, MM_FN)
MM_NARROW_FLOAT(float8_e5m2fnuz, uint8_t, 5, 2, 16, MM_FNUZ)
MM_NARROW_FLOAT(float8_e4m3fnuz, uint8_t, 4, 3, 8, MM_FNUZ)
MM_NARROW_FLOAT(float6_e3m2fn, uint8_t, 3, 2, 3, MM_FINITE)
MM_NARROW_FLOAT(float6_e2m3fn, uint8_t, 2, 3, 1, MM_FINITE)
MM_NARROW_FLOAT(float4_e2m1fn, uint8_t, 2, 1, 1, MM_FINITE)

MM_INLINE float mm_load_bfloat16(uint16_t code)
{
    return mm_as_float((uint32_t)code << 16);
}

MM_INLINE uint16_t mm_store_bfloat16(float x)
{
    const uint32_t bits = mm_as_bits(x);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return (uint16_t)(is_nan ? (bits >> 31 << 15 | 0x7fc0u) : rounded);
}

// 2^(code - 127), all codes but 255, which is NaN. No zero and no sign.
MM_INLINE float mm_load_float8_e8m0fnu(uint8_t code)
{
    const float value = mm_as_float(code == 0 ? 0x00400000u : (uint32_t)code << 23);
    return code == 255 ? NAN : value;
}

// Nearest power of two, halves up, 2^-127 at least; NaN unless x is positive. Source: ml_dtypes.
MM_INLINE uint8_t mm_store_float8_e8m0fnu(float x)
{
    const uint32_t bits = mm_as_bits(x);
    const uint32_t normal = (bits + 0x400000u) >> 23;
    const uint32_t code = bits < 0x00800000u ? bits >= 0x00600000u : normal;
    return (uint8_t)(bits - 1 < 0x7f800000u ? code : 255);
}

// A double rounded to float so that rounding again to fewer bits is the same as rounding once:
// towards zero, with the last bit set if anything was lost.
MM_INLINE float mm_round_to_odd(double x)
{
    const float nearest = (float)x;
    const double error = (double)nearest - x;
    const bool lost = error < 0 || error > 0; // neither for NaN and infinities
    const bool beyond = lost && (error > 0) == (x > 0);
    const uint32_t bits = mm_as_bits(nearest) - beyond;
    return mm_as_float(lost ? bits | 1 : bits);
}

// The same for integers. A double has 53 bits: of what lies below, it matters only whether it is 0.
MM_INLINE float mm_round_to_odd_u64(uint64_t x)
{
    const uint64_t sticky = (x & 0x7ffu) != 0 ? 0x800u : 0;
    return mm_round_to_odd((double)(x >> 53 ? (x & ~(uint64_t)0x7ffu) | sticky : x));
}

MM_INLINE float mm_round_to_odd_i64(int64_t x)
{
    const float size = mm_round_to_odd_u64(x < 0 ? 0 - (uint64_t)x : (uint64_t)x);
    return x < 0 ? -size : size;
}

MM_INLINE float mm_to_float(float x) { return x; }

// ---- conversions -------------------------------------------------------------------------------

// To a narrow float: the result is a float that the format holds exactly.
#define mm_cast_bool(x) ((x) != 0)
#define mm_cast_int8(x) ((int8_t)(x))
#define mm_cast_int16(x) ((int16_t)(x))
#define mm_cast_int32(x) ((int32_t)(x))
#define mm_cast_int64(x) ((int64_t)(x))
#define mm_cast_uint8(x) ((uint8_t)(x))
#define mm_cast_uint16(x) ((uint16_t)(x))
#define mm_cast_uint32(x) ((uint32_t)(x))
#define mm_cast_uint64(x) ((uint64_t)(x))
#define mm_cast_float32(x) ((float)(x))
#define mm_cast_float64(x) ((double)(x))
// Rounded once, from numbers of any type.
#define MM_ODD(x)                                                                                  \
    _Generic((x),                                                                                  \
        double: mm_round_to_odd,                                                                   \
        int: mm_round_to_odd_i64,                                                                  \
        long: mm_round_to_odd_i64,                                                                 \
        long long: mm_round_to_odd_i64,                                                            \
        unsigned: mm_round_to_odd_u64,                                                             \
        unsigned long: mm_round_to_odd_u64,                                                        \
        unsigned long long: mm_round_to_odd_u64,                                                   \
        default: mm_to_float)(x)
#define mm_cast_float16(x) mm_load_float16(mm_store_float16(MM_ODD(x)))
#define mm_cast_bfloat16(x) mm_load_bfloat16(mm_store_bfloat16(MM_ODD(x)))
#define mm_cast_float8_e5m2(x) mm_load_float8_e5m2(mm_store_float8_e5m2(MM_ODD(x)))
#define mm_cast_float8_e4m3fn(x) mm_load_float8_e4m3fn(mm_store_float8_e4m3fn(MM_ODD(x)))
#define mm_cast_float8_e5m2fnuz(x) mm_load_float8_e5m2fnuz(mm_store_float8_e5m2fnuz(MM_ODD(x)))
#define mm_cast_float8_e4m3fnuz(x) mm_load_float8_e4m3fnuz(mm_store_float8_e4m3fnuz(MM_ODD(x)))
#define mm_cast_float8_e8m0fnu(x) mm_load_float8_e8m0fnu(mm_store_float8_e8m0fnu(MM_ODD(x)))
#define mm_cast_float6_e3m2fn(x) mm_load_float6_e3m2fn(mm_store_float6_e3m2fn(MM_ODD(x)))
#define mm_cast_float6_e2m3fn(x) mm_load_float6_e2m3fn(mm_store_float6_e2m3fn(MM_ODD(x)))
#define mm_cast_float4_e2m1fn(x) mm_load_float4_e2m1fn(mm_store_float4_e2m1fn(MM_ODD(x)))

// ---- selection by type -------------------------------------------------------------------------

#define MM_FLOAT(NAME, x) _Generic((x), float: mm_##NAME##_f32, default: mm_##NAME##_f64)
#if __SIZEOF_LONG__ == 8
#define MM_LONG(NAME, S) mm_##NAME##_##S##64
#else // Windows
#define MM_LONG(NAME, S) mm_##NAME##_##S##32
#endif
#define MM_INTEGERS(NAME)                                                                          \
    bool: mm_##NAME##_u8,                                                                          \
        signed char: mm_##NAME##_i8,                                                               \
        short: mm_##NAME##_i16,                                                                    \
        int: mm_##NAME##_i32,                                                                      \
        long: MM_LONG(NAME, i),                                                                    \
        long long: mm_##NAME##_i64,                                                                \
        unsigned char: mm_##NAME##_u8,                                                             \
        unsigned short: mm_##NAME##_u16,                                                           \
        unsigned int: mm_##NAME##_u32,                                                             \
        unsigned long: MM_LONG(NAME, u),                                                           \
        unsigned long long: mm_##NAME##_u64
#define MM_INTEGER(NAME, x) _Generic((x), MM_INTEGERS(NAME))
#define MM_NUMBER(NAME, x)                                                                         \
    _Generic((x), float: mm_##NAME##_f32, double: mm_##NAME##_f64, MM_INTEGERS(NAME))

#define mm_exp(x) MM_FLOAT(exp, x)(x)
#define mm_log(x) MM_FLOAT(log, x)(x)
#define mm_log1p(x) MM_FLOAT(log1p, x)(x)
#define mm_sqrt(x) MM_FLOAT(sqrt, x)(x)
#define mm_rsqrt(x) MM_FLOAT(rsqrt, x)(x)
#define mm_sin(x) MM_FLOAT(sin, x)(x)
#define mm_cos(x) MM_FLOAT(cos, x)(x)
#define mm_tanh(x) MM_FLOAT(tanh, x)(x)
#define mm_atanh(x) MM_FLOAT(atanh, x)(x)
#define mm_acos(x) MM_FLOAT(acos, x)(x)
#define mm_tan(x) MM_FLOAT(tan, x)(x)
#define mm_asin(x) MM_FLOAT(asin, x)(x)
#define mm_atan(x) MM_FLOAT(atan, x)(x)
#define mm_sinh(x) MM_FLOAT(sinh, x)(x)
#define mm_cosh(x) MM_FLOAT(cosh, x)(x)
#define mm_asinh(x) MM_FLOAT(asinh, x)(x)
#define mm_acosh(x) MM_FLOAT(acosh, x)(x)
#define mm_expm1(x) MM_FLOAT(expm1, x)(x)
#define mm_log2(x) MM_FLOAT(log2, x)(x)
#define mm_log10(x) MM_FLOAT(log10, x)(x)
#define mm_signbit(x) MM_FLOAT(signbit, x)(x)
#define mm_erf(x) MM_FLOAT(erf, x)(x)
#define mm_floor(x) MM_FLOAT(floor, x)(x)
#define mm_ceil(x) MM_FLOAT(ceil, x)(x)
#define mm_trunc(x) MM_FLOAT(trunc, x)(x)
#define mm_round(x) MM_FLOAT(round, x)(x)
#define mm_sigmoid(x) MM_FLOAT(sigmoid, x)(x)
#define mm_silu(x) MM_FLOAT(silu, x)(x)
#define mm_gelu_none(x) MM_FLOAT(gelu_none, x)(x)
#define mm_gelu_tanh(x) MM_FLOAT(gelu_tanh, x)(x)
#define mm_gelu_quick(x) MM_FLOAT(gelu_quick, x)(x)
#define mm_abs(x) MM_NUMBER(abs, x)(x)
#define mm_relu(x) MM_NUMBER(relu, x)(x)
#define mm_is_nan(x) MM_NUMBER(is_nan, x)(x)
#define mm_is_inf(x) MM_NUMBER(is_inf, x)(x)
#define mm_max(x, y) MM_NUMBER(max, (x) + (y))(x, y)
#define mm_min(x, y) MM_NUMBER(min, (x) + (y))(x, y)
#define mm_floor_div(x, y) MM_NUMBER(floor_div, (x) + (y))(x, y)
#define mm_mod(x, y) MM_NUMBER(mod, (x) + (y))(x, y)
#define mm_pow(x, y) MM_NUMBER(pow, (x) + (y))(x, y)
#define mm_atan2(x, y) MM_FLOAT(atan2, (x) + (y))(x, y)
#define mm_hypot(x, y) MM_FLOAT(hypot, (x) + (y))(x, y)
#define mm_copysign(x, y) MM_FLOAT(copysign, (x) + (y))(x, y)
#define mm_nextafter(x, y) MM_FLOAT(nextafter, (x) + (y))(x, y)
#define mm_left_shift(x, y) MM_INTEGER(left_shift, (x) + (y))(x, y)
#define mm_right_shift(x, y) MM_INTEGER(right_shift, (x) + (y))(x, y)

// ---- memory ------------------------------------------------------------------------------------

#if defined(__AVX512F__)
#define MM_STREAM_NBYTES 64
#elif defined(__AVX__)
#define MM_STREAM_NBYTES 32
#elif defined(__SSE2__)
#define MM_STREAM_NBYTES 16
#endif

#ifdef MM_STREAM_NBYTES
typedef float mm_chunk __attribute__((vector_size(MM_STREAM_NBYTES)));

MM_INLINE void mm_stream_chunk(void *to, const void *from)
{
    mm_chunk chunk;
    memcpy(&chunk, from, sizeof chunk);
#if defined(__clang__)
    __builtin_nontemporal_store(chunk, (mm_chunk *)to);
#elif MM_STREAM_NBYTES == 64
    __builtin_ia32_movntps512((float *)to, chunk);
#elif MM_STREAM_NBYTES == 32
    __builtin_ia32_movntps256((float *)to, chunk);
#else
    __builtin_ia32_movntps((float *)to, chunk);
#endif
}
#endif

// Copies a row from the cache to memory that is not read soon, with non-temporal stores: a written
// line is then not read first. Ends that do not fill an aligned chunk are copied as usual.
MM_INLINE void mm_stream_row(void *to, const void *from, size_t nbytes)
{
#ifdef MM_STREAM_NBYTES
    char *out = to;
    const char *in = from;
    size_t head = -(uintptr_t)out % MM_STREAM_NBYTES;
    head = head < nbytes ? head : nbytes;
    memcpy(out, in, head);
    size_t i = head;
    for (; i + MM_STREAM_NBYTES <= nbytes; i += MM_STREAM_NBYTES)
        mm_stream_chunk(out + i, in + i);
    memcpy(out + i, in + i, nbytes - i);
#else
    memcpy(to, from, nbytes);
#endif
}

// Makes streamed rows visible to other threads; each thread calls it after its last row.
MM_INLINE void mm_fence(void)
{
#ifdef MM_STREAM_NBYTES
    __builtin_ia32_sfence();
#endif
}

// ---- data-dependent indices --------------------------------------------------------------------

MM_INLINE int64_t mm_clipped_u64(uint64_t x)
{
    return x >> 63 ? INT64_MAX : (int64_t)x;
}

// The index of an element on an axis; negative ones count from the end. Out-of-range indices are
// clamped, so that no other memory is ever read.
MM_INLINE int64_t mm_position(int64_t at, int64_t size)
{
    at = at < 0 ? at + size : at;
    at = at < size ? at : size - 1;
    return at < 0 ? 0 : at;
}

// Kernels report out-of-range indices through a flag, computed as a sum.
MM_INLINE int mm_is_outside(int64_t at, int64_t size)
{
    return (at < -size) | (at >= size);
}

// ---- threads -----------------------------------------------------------------------------------

// Works on the items from `first` to `end`; `room` is memory that no other thread uses meanwhile.
typedef void mm_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end);

typedef struct {
    void (*run)(
        mm_task *task, void *const *buffers, const int64_t *scalars, void *shared, int64_t count,
        int64_t step, size_t room);
    int64_t (*count)(void);
} mm_thread_functions;

const mm_thread_functions *mm_threads; // of host/threads.c; set when a kernel is loaded

// Says that memory for a kernel could not be had, in the word in front of its table of buffers, which
// its caller reads. The results are then undefined.
MM_INLINE void mm_report_no_memory(void *const *buffers, size_t nbytes)
{
    __atomic_store_n((int64_t *)(uintptr_t)buffers - 1, (int64_t)nbytes, __ATOMIC_RELAXED);
}

// Runs a task for `count` items on all threads, in portions of `step` items or one share of them,
// and returns when all is done.
MM_INLINE void mm_parallel(
    mm_task *task, void *const *buffers, const int64_t *scalars, void *shared, int64_t count,
    int64_t step, size_t room)
{
    mm_threads->run(task, buffers, scalars, shared, count, step, room);
}

// The portion for items with a given number of elements: all items if threads would cost more than
// they save, else several portions per thread, but large enough to keep memory accesses sequential.
MM_INLINE int64_t mm_portion(int64_t count, int64_t elements)
{
    const int64_t all = count * elements;
    if (all <= 32768)
        return count;
    int64_t wanted = all / (8 * mm_threads->count());
    wanted = wanted > 65536 ? 65536 : wanted < 4096 ? 4096 : wanted;
    return elements < wanted ? wanted / elements : 1;
}

// ---- random numbers ----------------------------------------------------------------------------

// Word number `index` of numpy.random.Philox(key=seed).random_raw: Philox 4x64 with 10 rounds.
// Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
MM_INLINE uint64_t mm_philox(uint64_t seed, uint64_t index)
{
    uint64_t counter[4] = {index / 4 + 1, 0, 0, 0};
    uint64_t key[2] = {seed, 0};
    for (int round = 0; round < 10; round++) {
        const unsigned __int128 a = (unsigned __int128)0xd2e7470ee14c6c93u * counter[0];
        const unsigned __int128 b = (unsigned __int128)0xca5a826395121157u * counter[2];
        const uint64_t next[4] = {
            (uint64_t)(b >> 64) ^ counter[1] ^ key[0], (uint64_t)b,
            (uint64_t)(a >> 64) ^ counter[3] ^ key[1], (uint64_t)a};
        memcpy(counter, next, sizeof counter);
        key[0] += 0x9e3779b97f4a7c15u;
        key[1] += 0xbb67ae8584caa73bu;
    }
    return counter[index % 4];
}

#endif
