// Prelude of the CUDA dialect: C++17 without any header, in front of every CUDA kernel.
//
// The same names and rules as in host.h: mm_max and mm_min propagate NaN, integer division rounds
// down and x // 0 is 0, integers wrap. Functions of floats call CUDA's math library, at full
// precision.
// It also compiles for the host under tests/cuda_shim, which defines CUDA_SHIM; only inline PTX
// differs there. Narrow floats are raw integers in memory and float in registers.

#ifndef MM_PRELUDE_CUDA
#define MM_PRELUDE_CUDA

#ifndef CUDA_SHIM
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
#ifndef INFINITY
#define INFINITY __int_as_float(0x7f800000)
#endif
#ifndef NAN
#define NAN __int_as_float(0x7fffffff)
#endif
#endif

#define MM_INLINE __device__ __forceinline__

// N elements that are read or written with one access.
template <typename T, int N>
struct alignas(sizeof(T) * N) mm_vector {
    T v[N];
};

// ---- functions of floats -----------------------------------------------------------------------

#define MM_FLOAT_FUNCTION(NAME, F32, F64)                                                          \
    MM_INLINE float mm_##NAME(float x) { return F32; }                                             \
    MM_INLINE double mm_##NAME(double x) { return F64; }
MM_FLOAT_FUNCTION(exp, expf(x), exp(x))
MM_FLOAT_FUNCTION(log, logf(x), log(x))
MM_FLOAT_FUNCTION(log1p, log1pf(x), log1p(x))
MM_FLOAT_FUNCTION(sqrt, sqrtf(x), sqrt(x))
MM_FLOAT_FUNCTION(rsqrt, rsqrtf(x), rsqrt(x))
MM_FLOAT_FUNCTION(sin, sinf(x), sin(x))
MM_FLOAT_FUNCTION(cos, cosf(x), cos(x))
MM_FLOAT_FUNCTION(tanh, tanhf(x), tanh(x))
MM_FLOAT_FUNCTION(atanh, atanhf(x), atanh(x))
MM_FLOAT_FUNCTION(acos, acosf(x > 1.0f ? 1.0f : x < -1.0f ? -1.0f : x), acos(x))
MM_FLOAT_FUNCTION(tan, tanf(x), tan(x))
MM_FLOAT_FUNCTION(asin, asinf(x), asin(x))
MM_FLOAT_FUNCTION(atan, atanf(x), atan(x))
MM_FLOAT_FUNCTION(sinh, sinhf(x), sinh(x))
MM_FLOAT_FUNCTION(cosh, coshf(x), cosh(x))
MM_FLOAT_FUNCTION(asinh, asinhf(x), asinh(x))
MM_FLOAT_FUNCTION(acosh, acoshf(x), acosh(x))
MM_FLOAT_FUNCTION(expm1, expm1f(x), expm1(x))
MM_FLOAT_FUNCTION(log2, log2f(x), log2(x))
MM_FLOAT_FUNCTION(log10, log10f(x), log10(x))
MM_FLOAT_FUNCTION(erf, erff(x), erf(x))
MM_FLOAT_FUNCTION(floor, floorf(x), floor(x))
MM_FLOAT_FUNCTION(ceil, ceilf(x), ceil(x))
MM_FLOAT_FUNCTION(trunc, truncf(x), trunc(x))
MM_FLOAT_FUNCTION(round, rintf(x), rint(x))

// x sigmoid(v). The square of e^(-|v|/2) is e^-|v|, which may be denormal: x comes between.
MM_INLINE float mm_gated(float x, float v)
{
    const float half = expf(-0.5f * fabsf(v));
    return (v < 0.0f ? x * half * half : x) / (1.0f + half * half);
}

MM_INLINE double mm_gated(double x, double v)
{
    const double half = exp(-0.5 * fabs(v));
    return (v < 0.0 ? x * half * half : x) / (1.0 + half * half);
}

MM_FLOAT_FUNCTION(sigmoid, mm_gated(1.0f, x), mm_gated(1.0, x))
MM_FLOAT_FUNCTION(silu, mm_gated(x, x), mm_gated(x, x))
MM_FLOAT_FUNCTION(gelu_quick, mm_gated(x, 1.702f * x), mm_gated(x, 1.702 * x))

// As in host.h, where the method is explained.
MM_INLINE float mm_gelu_none(float x)
{
    const float a = fabsf(x);
    const float b = a > 15.0f ? 15.0f : a;
    const float u = 1.0f / fmaf(b, 0.375f, 1.0f);
    float p = 0x1.55426cp-6f;
    p = fmaf(p, u, -0x1.11adc2p-3f);
    p = fmaf(p, u, 0x1.6042dap-2f);
    p = fmaf(p, u, -0x1.b11b0cp-2f);
    p = fmaf(p, u, 0x1.b7c730p-3f);
    p = fmaf(p, u, -0x1.c8a438p-5f);
    p = fmaf(p, u, 0x1.ba458ap-4f);
    p = fmaf(p, u, 0x1.00a21ep-3f);
    p = fmaf(p, u, 0x1.32f4e8p-3f);
    p = fmaf(p, u, 0x1.325deap-3f) * u;
    const float square = b * b;
    const float half = expf(-0.25f * square);
    const float t = a * fmaf(p, -0.5f * fmaf(b, b, -square), p) * half * half;
    return a > 15.0f ? (x > 0.0f ? x : x * 0.0f) : (x > 0.0f ? x : 0.0f) - t;
}

MM_INLINE double mm_gelu_none(double x)
{
    return 0.5 * x * erfc(x * -0x1.6a09e667f3bcdp-1);
}

// x/2 (1 + tanh u) is x sigmoid(2u); 2u = x (c1 + c2 x^2).
MM_INLINE float mm_gelu_tanh(float x)
{
    return mm_gated(x, x * (0x1.988454p+0f + 0x1.2444f2p-4f * (x * x)));
}

MM_INLINE double mm_gelu_tanh(double x)
{
    return mm_gated(x, x * (0x1.9884533d43651p+0 + 0x1.2444f2a4d8b4bp-4 * (x * x)));
}

// ---- functions of every number -----------------------------------------------------------------

template <typename T>
struct mm_is_float {
    static constexpr bool value = false;
};
template <>
struct mm_is_float<float> {
    static constexpr bool value = true;
};
template <>
struct mm_is_float<double> {
    static constexpr bool value = true;
};

template <typename T>
struct mm_is_signed {
    static constexpr bool value = static_cast<T>(-1) < static_cast<T>(1);
};

// An unsigned type at least as wide as T and int, in which overflow wraps.
template <int NBYTES>
struct mm_wrapping {
    typedef uint32_t type;
};
template <>
struct mm_wrapping<8> {
    typedef uint64_t type;
};

template <typename T>
MM_INLINE bool mm_is_negative(T x)
{
    if constexpr (mm_is_signed<T>::value)
        return x < 0;
    else
        return false;
}

template <typename T>
MM_INLINE T mm_negated(T x)
{
    typedef typename mm_wrapping<sizeof(T)>::type U;
    return static_cast<T>(U(0) - static_cast<U>(x));
}

template <typename T>
MM_INLINE T mm_abs(T x)
{
    return mm_is_negative(x) ? mm_negated(x) : x;
}
MM_INLINE float mm_abs(float x) { return fabsf(x); }
MM_INLINE double mm_abs(double x) { return fabs(x); }

template <typename T>
MM_INLINE T mm_relu(T x)
{
    return mm_is_negative(x) ? T(0) : x;
}

template <typename T>
MM_INLINE bool mm_is_nan(T x)
{
    if constexpr (mm_is_float<T>::value)
        return x != x;
    else
        return false;
}

template <typename T>
MM_INLINE bool mm_is_inf(T x)
{
    if constexpr (mm_is_float<T>::value)
        return mm_abs(x) == INFINITY;
    else
        return false;
}

MM_INLINE bool mm_signbit(float x) { return copysignf(1.0f, x) < 0.0f; }
MM_INLINE bool mm_signbit(double x) { return copysign(1.0, x) < 0.0; }

// Operations of two numbers on their common type. C computes small integers as int: a result must
// be stored in a variable of its type before it is used again.
namespace mm_same_type {

template <typename T>
MM_INLINE T max(T x, T y)
{
    const T larger = x > y ? x : y; // y if either is NaN
    if constexpr (mm_is_float<T>::value)
        return x != x ? x : larger;
    else
        return larger;
}

template <typename T>
MM_INLINE T min(T x, T y)
{
    const T smaller = x < y ? x : y;
    if constexpr (mm_is_float<T>::value)
        return x != x ? x : smaller;
    else
        return smaller;
}

template <typename T>
MM_INLINE T floor_div(T x, T y)
{
    const bool minus_one = mm_is_signed<T>::value && y == static_cast<T>(-1);
    const T d = y == 0 || minus_one ? 1 : y;
    const T q = x / d;
    const T floored = x % d != 0 && mm_is_negative(x) != mm_is_negative(d) ? q - 1 : q;
    return y == 0 ? 0 : minus_one ? mm_negated(x) : floored;
}
MM_INLINE float floor_div(float x, float y) { return floorf(x / y); }
MM_INLINE double floor_div(double x, double y) { return ::floor(x / y); }

template <typename T>
MM_INLINE T mod(T x, T y)
{
    const bool minus_one = mm_is_signed<T>::value && y == static_cast<T>(-1);
    const T d = y == 0 || minus_one ? 1 : y;
    const T rest = x % d; // 0 where d was replaced
    return rest != 0 && mm_is_negative(rest) != mm_is_negative(d) ? rest + d : rest;
}
MM_INLINE float mod(float x, float y)
{
    float rest = fmodf(x, y);
    rest = rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
    return rest == 0 ? copysignf(rest, y) : rest;
}
MM_INLINE double mod(double x, double y)
{
    double rest = fmod(x, y);
    rest = rest != 0 && (rest < 0) != (y < 0) ? rest + y : rest;
    return rest == 0 ? copysign(rest, y) : rest;
}

template <typename T>
MM_INLINE T pow(T x, T y)
{
    typedef typename mm_wrapping<sizeof(T)>::type U;
    if (mm_is_negative(y))
        return x == 1 ? 1 : x == static_cast<T>(-1) ? (y & 1 ? static_cast<T>(-1) : 1) : 0;
    U base = static_cast<U>(x);
    U result = 1;
    for (U n = static_cast<U>(y); n != 0; n >>= 1) {
        result = n & 1 ? result * base : result;
        base = base * base;
    }
    return static_cast<T>(result);
}
MM_INLINE float pow(float x, float y) { return powf(x, y); }
MM_INLINE double pow(double x, double y) { return ::pow(x, y); }

MM_INLINE float atan2(float x, float y) { return atan2f(x, y); }
MM_INLINE double atan2(double x, double y) { return ::atan2(x, y); }
MM_INLINE float hypot(float x, float y) { return hypotf(x, y); }
MM_INLINE double hypot(double x, double y) { return ::hypot(x, y); }
MM_INLINE float copysign(float x, float y) { return copysignf(x, y); }
MM_INLINE double copysign(double x, double y) { return ::copysign(x, y); }
MM_INLINE float nextafter(float x, float y) { return nextafterf(x, y); }
MM_INLINE double nextafter(double x, double y) { return ::nextafter(x, y); }

template <typename T>
MM_INLINE T left_shift(T x, T y)
{
    typedef typename mm_wrapping<sizeof(T)>::type U;
    const bool inside = static_cast<uint64_t>(y) < 8 * sizeof(T);
    return inside ? static_cast<T>(static_cast<U>(x) << (y & (8 * sizeof(T) - 1))) : T(0);
}

template <typename T>
MM_INLINE T right_shift(T x, T y)
{
    const bool inside = static_cast<uint64_t>(y) < 8 * sizeof(T);
    const T rest = mm_is_negative(x) ? static_cast<T>(-1) : T(0);
    return inside ? static_cast<T>(x >> (y & (8 * sizeof(T) - 1))) : rest;
}

} // namespace mm_same_type

#define MM_BINARY_FUNCTION(NAME)                                                                   \
    template <typename T, typename U>                                                              \
    MM_INLINE auto mm_##NAME(T x, U y) -> decltype(x + y)                                          \
    {                                                                                              \
        typedef decltype(x + y) C;                                                                 \
        return mm_same_type::NAME(static_cast<C>(x), static_cast<C>(y));                           \
    }
MM_BINARY_FUNCTION(max)
MM_BINARY_FUNCTION(min)
MM_BINARY_FUNCTION(floor_div)
MM_BINARY_FUNCTION(mod)
MM_BINARY_FUNCTION(pow)
MM_BINARY_FUNCTION(atan2)
MM_BINARY_FUNCTION(hypot)
MM_BINARY_FUNCTION(copysign)
MM_BINARY_FUNCTION(nextafter)
MM_BINARY_FUNCTION(left_shift)
MM_BINARY_FUNCTION(right_shift)

// ---- narrow floats -----------------------------------------------------------------------------

// The meaning of the largest codes of a format.
enum mm_top {
    MM_IEEE,   // infinities, then NaN
    MM_FN,     // no infinity; NaN is all ones
    MM_FNUZ,   // no infinity and no -0, whose code is NaN
    MM_FINITE, // neither: too large numbers become the largest
};

// The value of a code with E exponent and M mantissa bits.
template <int E, int M, int BIAS, mm_top TOP>
MM_INLINE float mm_decode(uint32_t code)
{
    const uint32_t magnitude = code & ((1u << (E + M)) - 1);
    const float normal =
        __uint_as_float((magnitude << (23 - M)) + (uint32_t(127 - BIAS) << 23));
    const float quantum = __uint_as_float(uint32_t(128 - BIAS - M) << 23);
    float value = magnitude < 1u << M ? static_cast<float>(magnitude) * quantum : normal;
    if (TOP == MM_IEEE && magnitude >= ((1u << E) - 1) << M)
        value = __uint_as_float(magnitude << (23 - M) | 0x7f800000u);
    if (TOP == MM_FN && magnitude == (1u << (E + M)) - 1)
        value = NAN;
    value = __uint_as_float(__float_as_uint(value) | code >> (E + M) << 31);
    return TOP == MM_FNUZ && code == 1u << (E + M) ? NAN : value;
}

// The code of the nearest value, ties to even.
template <int E, int M, int BIAS, mm_top TOP>
MM_INLINE uint32_t mm_encode(float x)
{
    const uint32_t a = __float_as_uint(x) & 0x7fffffffu;
    const uint32_t sign_bit = 1u << (E + M);
    const uint32_t sign = __float_as_uint(x) >> 31 << (E + M);
    const uint32_t infinity = ((1u << E) - 1) << M;
    const uint32_t highest = TOP == MM_IEEE ? infinity - 1 : sign_bit - 1 - (TOP == MM_FN);
    const uint32_t rounded = a + ((1u << (22 - M)) - 1) + (a >> (23 - M) & 1);
    const uint32_t normal = (rounded >> (23 - M)) - (uint32_t(127 - BIAS) << M);
    // Adding a number whose last place is the smallest value of the format rounds to multiples.
    const uint32_t rounder = uint32_t(151 - BIAS - M) << 23;
    const float sum = __uint_as_float(a) + __uint_as_float(rounder);
    const uint32_t subnormal = __float_as_uint(sum) - rounder;
    const uint32_t code = a < uint32_t(128 - BIAS) << 23 ? subnormal : normal;
    const bool is_nan = a > 0x7f800000u;
    if (TOP == MM_FNUZ)
        return is_nan || code > highest ? sign_bit : code == 0 ? 0 : code | sign;
    if (TOP == MM_FINITE)
        return is_nan ? sign ^ sign_bit : (code > highest ? highest : code) | sign;
    const uint32_t nan = TOP == MM_IEEE ? infinity | 1u << (M - 1) : highest + 1;
    return (is_nan ? nan : code > highest ? highest + 1 : code) | sign;
}

#define MM_NARROW_FLOAT(NAME, STORAGE, E, M, BIAS, TOP)                                            \
    MM_INLINE float mm_load_##NAME(STORAGE code) { return mm_decode<E, M, BIAS, TOP>(code); }      \
    MM_INLINE STORAGE mm_store_##NAME(float x)                                                     \
    {                                                                                              \
        return static_cast<STORAGE>(mm_encode<E, M, BIAS, TOP>(x));                                \
    }
MM_NARROW_FLOAT(float8_e5m2, uint8_t, 5, 2, 15, MM_IEEE)
MM_NARROW_FLOAT(float8_e4m3fn, uint8_t, 4, 3, 7, MM_FN)
MM_NARROW_FLOAT(float8_e5m2fnuz, uint8_t, 5, 2, 16, MM_FNUZ)
MM_NARROW_FLOAT(float8_e4m3fnuz, uint8_t, 4, 3, 8, MM_FNUZ)
MM_NARROW_FLOAT(float6_e3m2fn, uint8_t, 3, 2, 3, MM_FINITE)
MM_NARROW_FLOAT(float6_e2m3fn, uint8_t, 2, 3, 1, MM_FINITE)
MM_NARROW_FLOAT(float4_e2m1fn, uint8_t, 2, 1, 1, MM_FINITE)

// One instruction each where the compiler is NVRTC, instead of about ten.
#ifdef CUDA_SHIM
MM_NARROW_FLOAT(float16, uint16_t, 5, 10, 15, MM_IEEE)
#else
MM_INLINE float mm_load_float16(uint16_t code)
{
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(code));
    return value;
}

MM_INLINE uint16_t mm_store_float16(float x)
{
    uint16_t code;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(code) : "f"(x));
    return code;
}
#endif

MM_INLINE float mm_load_bfloat16(uint16_t code)
{
    return __uint_as_float(static_cast<uint32_t>(code) << 16);
}

MM_INLINE uint16_t mm_store_bfloat16(float x)
{
#if defined(CUDA_SHIM) || __CUDA_ARCH__ < 800
    const uint32_t bits = __float_as_uint(x);
    const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
    const bool is_nan = (bits & 0x7fffffffu) > 0x7f800000u;
    return static_cast<uint16_t>(is_nan ? (bits >> 31 << 15 | 0x7fc0u) : rounded);
#else
    uint16_t code;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(code) : "f"(x));
    return code;
#endif
}

// 2^(code - 127), all codes but 255, which is NaN. No zero and no sign.
MM_INLINE float mm_load_float8_e8m0fnu(uint8_t code)
{
    const float value = __uint_as_float(code == 0 ? 0x00400000u : uint32_t(code) << 23);
    return code == 255 ? NAN : value;
}

// Nearest power of two, halves up, 2^-127 at least; NaN unless x is positive. Source: ml_dtypes.
MM_INLINE uint8_t mm_store_float8_e8m0fnu(float x)
{
    const uint32_t bits = __float_as_uint(x);
    const uint32_t normal = (bits + 0x400000u) >> 23;
    const uint32_t code = bits < 0x00800000u ? bits >= 0x00600000u : normal;
    return static_cast<uint8_t>(bits - 1 < 0x7f800000u ? code : 255);
}

// A double rounded to float so that rounding again to fewer bits is the same as rounding once:
// towards zero, with the last bit set if anything was lost.
MM_INLINE float mm_round_to_odd(double x)
{
    const float nearest = static_cast<float>(x);
    const double error = static_cast<double>(nearest) - x;
    const bool lost = error < 0 || error > 0; // neither for NaN and infinities
    const bool beyond = lost && (error > 0) == (x > 0);
    const uint32_t bits = __float_as_uint(nearest) - beyond;
    return __uint_as_float(lost ? bits | 1 : bits);
}

// The same for integers. A double has 53 bits: of what lies below, it matters only whether it is 0.
MM_INLINE float mm_round_to_odd(unsigned long long x)
{
    const unsigned long long sticky = (x & 0x7ffu) != 0 ? 0x800u : 0;
    return mm_round_to_odd(static_cast<double>(x >> 53 ? (x & ~0x7ffull) | sticky : x));
}

MM_INLINE float mm_round_to_odd(long long x)
{
    const unsigned long long bits = static_cast<unsigned long long>(x);
    const float size = mm_round_to_odd(x < 0 ? 0 - bits : bits);
    return x < 0 ? -size : size;
}

MM_INLINE float mm_round_to_odd(int x) { return mm_round_to_odd(static_cast<double>(x)); }
MM_INLINE float mm_round_to_odd(unsigned x) { return mm_round_to_odd(static_cast<double>(x)); }
MM_INLINE float mm_round_to_odd(long x) { return mm_round_to_odd(static_cast<long long>(x)); }
MM_INLINE float mm_round_to_odd(unsigned long x)
{
    return mm_round_to_odd(static_cast<unsigned long long>(x));
}

// Of numbers that float holds.
template <typename T>
MM_INLINE float mm_round_to_odd(T x)
{
    return static_cast<float>(x);
}

// ---- conversions -------------------------------------------------------------------------------

#define MM_CAST(NAME, TYPE)                                                                        \
    template <typename T>                                                                          \
    MM_INLINE TYPE mm_cast_##NAME(T x)                                                             \
    {                                                                                              \
        return static_cast<TYPE>(x);                                                               \
    }
MM_CAST(int8, int8_t)
MM_CAST(int16, int16_t)
MM_CAST(int32, int32_t)
MM_CAST(int64, int64_t)
MM_CAST(uint8, uint8_t)
MM_CAST(uint16, uint16_t)
MM_CAST(uint32, uint32_t)
MM_CAST(uint64, uint64_t)
MM_CAST(float32, float)
MM_CAST(float64, double)

template <typename T>
MM_INLINE bool mm_cast_bool(T x)
{
    return x != T(0);
}

// To a narrow float, rounded once: the result is a float that the format holds exactly.
#define MM_CAST_NARROW(NAME)                                                                       \
    template <typename T>                                                                          \
    MM_INLINE float mm_cast_##NAME(T x)                                                            \
    {                                                                                              \
        return mm_load_##NAME(mm_store_##NAME(mm_round_to_odd(x)));                                \
    }
MM_CAST_NARROW(float16)
MM_CAST_NARROW(bfloat16)
MM_CAST_NARROW(float8_e5m2)
MM_CAST_NARROW(float8_e4m3fn)
MM_CAST_NARROW(float8_e5m2fnuz)
MM_CAST_NARROW(float8_e4m3fnuz)
MM_CAST_NARROW(float8_e8m0fnu)
MM_CAST_NARROW(float6_e3m2fn)
MM_CAST_NARROW(float6_e2m3fn)
MM_CAST_NARROW(float4_e2m1fn)

// ---- data-dependent indices --------------------------------------------------------------------

MM_INLINE int64_t mm_clipped_u64(uint64_t x)
{
    return x >> 63 ? 0x7fffffffffffffffll : (int64_t)x;
}

// The index of an element on an axis; negative ones count from the end. Out-of-range indices are
// clamped, so that no other memory is ever read.
MM_INLINE int64_t mm_position(int64_t at, int64_t size)
{
    at = at < 0 ? at + size : at;
    at = at < size ? at : size - 1;
    return at < 0 ? 0 : at;
}

// ---- random numbers ----------------------------------------------------------------------------

// Word number `index` of numpy.random.Philox(key=seed).random_raw: Philox 4x64 with 10 rounds.
// Source: J. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011.
MM_INLINE uint64_t mm_philox(uint64_t seed, uint64_t index)
{
    const uint64_t m0 = 0xd2e7470ee14c6c93ull;
    const uint64_t m1 = 0xca5a826395121157ull;
    uint64_t c0 = index / 4 + 1;
    uint64_t c1 = 0;
    uint64_t c2 = 0;
    uint64_t c3 = 0;
    uint64_t k0 = seed;
    uint64_t k1 = 0;
    for (int round = 0; round < 10; round++) {
        const uint64_t n0 = __umul64hi(m1, c2) ^ c1 ^ k0;
        const uint64_t n2 = __umul64hi(m0, c0) ^ c3 ^ k1;
        c1 = m1 * c2;
        c3 = m0 * c0;
        c0 = n0;
        c2 = n2;
        k0 += 0x9e3779b97f4a7c15ull;
        k1 += 0xbb67ae8584caa73bull;
    }
    const uint64_t low = index & 1 ? c1 : c0;
    const uint64_t high = index & 1 ? c3 : c2;
    return index & 2 ? high : low;
}

#endif
