// Blocks of operands: asked for early, widened, and turned. Follows the prelude of a kernel that needs it.

#ifndef MM_BLOCKS
#define MM_BLOCKS

// Asks for the memory that begins `ahead` bytes behind an address. What lies behind an array may be
// asked for as well: nothing is read then.
MM_INLINE void mm_prefetch(const void *from, size_t ahead, size_t nbytes)
{
    const uintptr_t first = (uintptr_t)from + ahead;
    for (size_t i = 0; i < nbytes; i += 64)
        __builtin_prefetch((const void *)(first + i));
}

// ---- parts of a whole --------------------------------------------------------------------------

// x / sum for 0 <= x <= sum, which is NaN if x is: with the inverse and one correction, a quotient that
// is a normal number is rounded as by a division (P. Markstein, IA-64 and Elementary Functions, 2000,
// chapter 8). Both are scaled so that neither the sum nor its inverse is denormal.
typedef struct {
    float scale, inverse, whole;
} mm_divisor;

MM_INLINE mm_divisor mm_divisor_of(float sum)
{
    const float scale = sum < 0x1p-60f ? 0x1p64f : sum > 0x1p60f ? 0x1p-64f : 1.0f;
    const float whole = sum * scale;
#ifdef MM_HAS_FMA // without the second product, a finite number over infinity is 0 and not NaN
    return (mm_divisor){scale, 1.0f / whole, sum == INFINITY ? 0.0f : whole};
#else
    return (mm_divisor){scale, 0.0f, whole};
#endif
}

MM_INLINE float mm_over(float x, mm_divisor by)
{
#ifdef MM_HAS_FMA
    const float part = x * by.scale;
    const float q = part * by.inverse;
    return mm_fma_f32(mm_fma_f32(-q, by.whole, part), by.inverse, q);
#else
    return x * by.scale / by.whole;
#endif
}

// ---- float16 -----------------------------------------------------------------------------------

// A compiler has no vectors of these conversions, or needs to be told their names.
#if defined(__F16C__) && (!defined(__clang__) || defined(__FLT16_MAX__))
typedef short mm_halves8 __attribute__((vector_size(16)));
typedef float mm_singles8 __attribute__((vector_size(32)));

MM_INLINE void mm_widen_8(float *to, const uint16_t *from)
{
#if defined(__clang__) // its names of intrinsics change; GCC makes no vector of _Float16
    typedef _Float16 mm_given8 __attribute__((vector_size(16)));
    mm_given8 in;
    memcpy(&in, from, sizeof in);
    const mm_singles8 out = __builtin_convertvector(in, mm_singles8);
#else
    mm_halves8 in;
    memcpy(&in, from, sizeof in);
    const mm_singles8 out = __builtin_ia32_vcvtph2ps256(in);
#endif
    memcpy(to, &out, sizeof out);
}

MM_INLINE void mm_narrow_8(uint16_t *to, const float *from)
{
    mm_singles8 in;
    memcpy(&in, from, sizeof in);
#if defined(__clang__)
    typedef _Float16 mm_made8 __attribute__((vector_size(16)));
    const mm_made8 out = __builtin_convertvector(in, mm_made8);
#else
    const mm_halves8 out = __builtin_ia32_vcvtps2ph256(in, 0); // to nearest, ties to even
#endif
    memcpy(to, &out, sizeof out);
}

MM_INLINE void mm_widen_float16(float *to, const uint16_t *from, int64_t count)
{
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        mm_widen_8(to + i, from + i);
    if (i < count) {
        uint16_t rest[8] = {0};
        float wide[8];
        memcpy(rest, from + i, (size_t)(count - i) * sizeof *rest);
        mm_widen_8(wide, rest);
        memcpy(to + i, wide, (size_t)(count - i) * sizeof *wide);
    }
}

MM_INLINE void mm_narrow_float16(uint16_t *to, const float *from, int64_t count)
{
    int64_t i = 0;
    for (; i + 8 <= count; i += 8)
        mm_narrow_8(to + i, from + i);
    if (i < count) {
        float rest[8] = {0};
        uint16_t narrow[8];
        memcpy(rest, from + i, (size_t)(count - i) * sizeof *rest);
        mm_narrow_8(narrow, rest);
        memcpy(to + i, narrow, (size_t)(count - i) * sizeof *narrow);
    }
}
#elif defined(__ARM_FP16_FORMAT_IEEE)
MM_INLINE void mm_widen_float16(float *restrict to, const uint16_t *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        __fp16 code;
        memcpy(&code, from + i, sizeof code);
        to[i] = code;
    }
}

MM_INLINE void mm_narrow_float16(uint16_t *restrict to, const float *restrict from, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const __fp16 code = (__fp16)from[i];
        memcpy(to + i, &code, sizeof code);
    }
}
#else
MM_INLINE void mm_widen_float16(float *restrict to, const uint16_t *restrict from, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        to[i] = mm_load_float16(from[i]);
}

MM_INLINE void mm_narrow_float16(uint16_t *restrict to, const float *restrict from, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        to[i] = mm_store_float16(from[i]);
}
#endif

// ---- bfloat16 ----------------------------------------------------------------------------------

// Apart from what is computed, whose vectors a loop over numbers of 16 bits makes twice as long: they
// do not fit into 16 registers.
MM_INLINE void mm_widen_bfloat16(float *restrict to, const uint16_t *restrict from, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        to[i] = mm_load_bfloat16(from[i]);
}

MM_INLINE void mm_narrow_bfloat16(uint16_t *restrict to, const float *restrict from, int64_t count)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++)
        to[i] = mm_store_bfloat16(from[i]);
}

// ---- tiles -------------------------------------------------------------------------------------

#define MM_TILE 128 // columns: elements of a row that was turned

// Turns columns into rows: element `row` of column `k`, which begins at `stride` k, is then element k of
// row `row`. A column of 16 elements is read at once, and those after it are asked for.
#define MM_DEFINE_TURN(BITS)                                                                       \
    MM_INLINE void mm_turn_##BITS(                                                                 \
        void *restrict to, const void *restrict from, int64_t stride, int64_t rows, int64_t count) \
    {                                                                                              \
        uint##BITS##_t *const out = to;                                                            \
        const uint##BITS##_t *in = from;                                                           \
        for (int64_t k = 0; k < count; k++, in += stride) {                                        \
            mm_prefetch(in, (size_t)stride * (8 * sizeof *in), 16 * sizeof *in);                   \
            if (rows == 16)                                                                        \
                for (int row = 0; row < 16; row++)                                                 \
                    out[row * MM_TILE + k] = in[row];                                              \
            else                                                                                   \
                for (int64_t row = 0; row < rows; row++)                                           \
                    out[row * MM_TILE + k] = in[row];                                              \
        }                                                                                          \
    }
MM_DEFINE_TURN(8)
MM_DEFINE_TURN(16)
MM_DEFINE_TURN(32)
MM_DEFINE_TURN(64)

#endif
