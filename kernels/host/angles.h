// Sine and cosine of every float: follows the prelude of a kernel that calls mm_sin or mm_cos.
//
// Angles below MM_ANGLE_FEW are reduced in float and those below MM_ANGLE_LIMIT in double, with pi/2
// in parts; larger ones with the bits of 2/pi that matter (M. Payne and R. Hanek, Radian reduction for
// trigonometric functions, SIGNUM Newsletter 18, 1983). Each costs a multiple of the one before and
// is needed less often, so vectors of angles are looked at first: GCC takes the functions of
// vectors below for those of its own `simd` clones, by their names (the vector function ABI of
// x86-64). Other compilers compute the last two and select. What a number gives does not depend on
// its neighbours.

#ifndef MM_ANGLES
#define MM_ANGLES

typedef struct {
    float r;
    int32_t quadrant;
} mm_angle;

// With a fused multiply-add, n times the first part of pi/2 in float is subtracted without error.
#ifdef MM_HAS_FMA
#define MM_ANGLE_FEW 0x1p15f
#else
#define MM_ANGLE_FEW 0.0f
#endif

// x = (pi/2) n + r with |r| < 0.79, for |x| < MM_ANGLE_FEW.
MM_INLINE mm_angle mm_reduce_few(float x)
{
    const float t = mm_fma_f32(x, 0x1.45f306p-1f, MM_ROUNDER);
    const float n = t - MM_ROUNDER;
    float r = mm_fma_f32(n, -0x1.921fb6p+0f, x);
    r = mm_fma_f32(n, 0x1.777a5cp-25f, r);
    r = mm_fma_f32(n, 0x1.ee59dap-50f, r);
    return (mm_angle){r, (int32_t)mm_as_bits(t)};
}

// With a fused multiply-add n times the first part of pi/2 is exact for |x| < 2^50; else parts of 33
// bits are needed, and n must stay below 2^20.
#ifdef MM_HAS_FMA
#define MM_ANGLE_LIMIT 0x1p50f
#define MM_PI_2_HIGH 0x1.921fb54442d18p+0
#define MM_PI_2_MIDDLE 0x1.1a62633145c07p-54
#define MM_PI_2_LOW 0.0
#else
#define MM_ANGLE_LIMIT 0x1p20f
#define MM_PI_2_HIGH 0x1.921fb544p+0
#define MM_PI_2_MIDDLE 0x1.0b4611a6p-34
#define MM_PI_2_LOW 0x1.3198a2e037073p-69
#endif

// x = (pi/2) n + r with |r| < 0.79, for |x| < MM_ANGLE_LIMIT.
MM_INLINE mm_angle mm_reduce_angle(float x)
{
    const double wide = x;
    const double t = mm_fma_f64(wide, 0x1.45f306dc9c883p-1, 0x1.8p52);
    const double n = t - 0x1.8p52;
    double r = mm_fma_f64(n, -MM_PI_2_HIGH, wide);
    r = mm_fma_f64(n, -MM_PI_2_MIDDLE, r);
    if (MM_PI_2_LOW != 0)
        r = mm_fma_f64(n, -MM_PI_2_LOW, r);
    return (mm_angle){(float)r, (int32_t)mm_as_bits64(t)};
}

// The same for 2^20 <= |x|, without branches; NaN for infinities and NaN. |x| = m 2^e, and m times
// 96 bits of 2/pi, from the one of weight 2^(1 - e) on, is |x| 2/pi mod 4: 2 bits of quadrant, and a
// fraction. Numbers of 24 bits come no closer to a multiple of pi/2 than 2^-31 of a quadrant, so that
// 30 bits remain.
MM_INLINE mm_angle mm_reduce_large_angle(float x)
{
    const uint32_t bits = mm_as_bits(x) & 0x7fffffffu;
    const uint64_t m = (bits & 0x7fffffu) | 0x800000u;
    const uint32_t start = (bits >> 23) - 120; // in 32 zeros and the bits of 2/pi: 27 to 135
    const uint64_t word_a = 0x00000000a2f9836eu, word_b = 0x4e441529fc2757d1u;
    const uint64_t word_c = 0xf534ddc0db629599u, word_d = 0x3c439041fe5163abu, word_e = 0xdebbc561b7246e3au;
    const uint32_t word = start >> 6, shift = start & 63;
    const uint64_t first = word == 0 ? word_a : word == 1 ? word_b : word_c;
    const uint64_t second = word == 0 ? word_b : word == 1 ? word_c : word_d;
    const uint64_t third = word == 0 ? word_c : word == 1 ? word_d : word_e;
    const uint64_t high = first << shift | (second >> 1) >> (63 - shift);
    const uint64_t low = (second << shift | (third >> 1) >> (63 - shift)) >> 32;
    const uint64_t turns = m * high + (m * low >> 32); // in units of 2^-62 quadrants, mod 4
    const uint64_t quadrant = (turns + (1ull << 61)) >> 62;
    const int64_t rest = (int64_t)(turns - (quadrant << 62));
    const double fraction = (double)(int32_t)(rest >> 32) + (double)(uint32_t)rest * 0x1p-32;
    const float r = (float)(fraction * 0x1.921fb54442d18p-30);
    const bool known = bits < 0x7f800000u, negative = x < 0.0f;
    return (mm_angle){
        known ? (negative ? -r : r) : NAN, negative ? -(int32_t)quadrant : (int32_t)quadrant};
}

// sin (r + quadrant pi/2): one of two polynomials, and a sign.
MM_INLINE float mm_sin_of_angle(float r, int32_t quadrant)
{
    const float z = r * r;
    float s = -0x1.995300p-13f;
    s = mm_fma_f32(s, z, 0x1.110776p-7f);
    s = mm_fma_f32(s, z, -0x1.555546p-3f);
    s = mm_fma_f32(s * z, r, r);
    float c = 0x1.99e904p-16f;
    c = mm_fma_f32(c, z, -0x1.6c0c2ap-10f);
    c = mm_fma_f32(c, z, 0x1.55554ap-5f);
    c = mm_fma_f32(c, z, -0.5f);
    c = mm_fma_f32(c, z, 1.0f);
    const float y = quadrant & 1 ? c : s;
    return mm_as_float(mm_as_bits(y) ^ ((uint32_t)quadrant & 2) << 30);
}

// sin (x + turn pi/2). This one is rare and long.
static __attribute__((noinline, unused)) float mm_sin_large(float x, int32_t turn)
{
    const mm_angle angle = mm_reduce_large_angle(x);
    return mm_sin_of_angle(angle.r, angle.quadrant + turn);
}

MM_INLINE float mm_sin_small(float x, int32_t turn)
{
    const mm_angle angle = mm_reduce_angle(x);
    return mm_sin_of_angle(angle.r, angle.quadrant + turn);
}

MM_INLINE float mm_sin_few(float x, int32_t turn)
{
    const mm_angle angle = mm_reduce_few(x);
    return mm_sin_of_angle(angle.r, angle.quadrant + turn);
}

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)

__attribute__((const, nothrow, visibility("hidden"), simd("notinbranch"))) float
mm_sin_f32(float x);
__attribute__((const, nothrow, visibility("hidden"), simd("notinbranch"))) float
mm_cos_f32(float x);

// The function of one number, and that of LANES numbers, under the names that callers look for.
#define MM_DEFINE_ANGLE(NAME, TURN)                                                                \
    static __attribute__((used)) float mm_one_##NAME(float x) __asm__("mm_" #NAME "_f32");         \
    static __attribute__((used)) float mm_one_##NAME(float x)                                      \
    {                                                                                              \
        const float a = __builtin_fabsf(x);                                                        \
        return a < MM_ANGLE_FEW     ? mm_sin_few(x, TURN)                                          \
               : a < MM_ANGLE_LIMIT ? mm_sin_small(x, TURN)                                        \
                                    : mm_sin_large(x, TURN);                                       \
    }
#define MM_DEFINE_ANGLES(NAME, TURN, ISA, LANES)                                                   \
    static __attribute__((used)) mm_floats##LANES mm_##NAME##ISA##LANES(mm_floats##LANES)          \
        __asm__("_ZGV" #ISA "N" #LANES "v_mm_" #NAME "_f32");                                      \
    static __attribute__((used)) mm_floats##LANES mm_##NAME##ISA##LANES(mm_floats##LANES v)        \
    {                                                                                              \
        const float *const x = (const float *)&v;                                                  \
        mm_floats##LANES result;                                                                   \
        float *const y = (float *)&result;                                                         \
        _Pragma("omp simd") for (int i = 0; i < LANES; i++)                                        \
            y[i] = mm_sin_few(x[i], TURN);                                                         \
        if (__builtin_expect(mm_any##LANES(~((v < MM_ANGLE_FEW) & (v > -MM_ANGLE_FEW))), 0)) {     \
            _Pragma("omp simd") for (int i = 0; i < LANES; i++)                                    \
            {                                                                                      \
                const float small = mm_sin_small(x[i], TURN);                                      \
                y[i] = __builtin_fabsf(x[i]) < MM_ANGLE_FEW ? y[i] : small;                        \
            }                                                                                      \
            for (int i = 0; i < LANES; i++)                                                        \
                if (!(__builtin_fabsf(x[i]) < MM_ANGLE_LIMIT))                                     \
                    y[i] = mm_sin_large(x[i], TURN);                                               \
        }                                                                                          \
        return result;                                                                             \
    }
#define MM_DEFINE_BOTH(ISA, LANES)                                                                 \
    MM_DEFINE_ANGLES(sin, 0, ISA, LANES) MM_DEFINE_ANGLES(cos, 1, ISA, LANES)

#define MM_DEFINE_VECTORS(LANES, NBYTES)                                                           \
    typedef float mm_floats##LANES __attribute__((vector_size(NBYTES)));                           \
    typedef int32_t mm_ints##LANES __attribute__((vector_size(NBYTES)));
MM_DEFINE_VECTORS(4, 16)
MM_DEFINE_VECTORS(8, 32)
MM_DEFINE_VECTORS(16, 64)

// True if a comparison holds for any number of a vector.
MM_INLINE bool mm_any4(mm_ints4 found) { return __builtin_ia32_movmskps((mm_floats4)found) != 0; }
#ifdef __AVX__
#define mm_any8(found) (__builtin_ia32_movmskps256((mm_floats8)(found)) != 0)
#endif
#ifdef __AVX512F__
MM_INLINE bool mm_any16(mm_ints16 found)
{
    mm_ints8 half[2];
    memcpy(half, &found, sizeof half);
    return mm_any8(half[0] | half[1]);
}
#endif

MM_DEFINE_ANGLE(sin, 0)
MM_DEFINE_ANGLE(cos, 1)
MM_DEFINE_BOTH(b, 4)
#ifdef __AVX2__
MM_DEFINE_BOTH(d, 8)
#elif defined(__AVX__)
MM_DEFINE_BOTH(c, 8)
#endif
#ifdef __AVX512F__
MM_DEFINE_BOTH(e, 16)
#endif

#else

MM_INLINE float mm_sin_turned(float x, int32_t turn)
{
    const mm_angle small = mm_reduce_angle(x), large = mm_reduce_large_angle(x);
    const bool is_small = __builtin_fabsf(x) < MM_ANGLE_LIMIT;
    return mm_sin_of_angle(
        is_small ? small.r : large.r, (is_small ? small.quadrant : large.quadrant) + turn);
}

MM_INLINE float mm_sin_f32(float x) { return mm_sin_turned(x, 0); }
MM_INLINE float mm_cos_f32(float x) { return mm_sin_turned(x, 1); }

#endif
#endif
