// Register tiles: the building block of matrix products and attention on the host.
//
// A tile is up to MM_ROWS rows by MM_WIDE columns of a product, summed over the whole depth in
// registers, always from the first term to the last. Its right operand is a panel: MM_WIDE columns,
// stored one row of the panel after the other. Vectors are GNU C vector types, which gcc and clang
// compile to native instructions; only the sizes below depend on the CPU.

// With MM_PAIRS, a "float" of an operand is two bfloat16 that are adjacent in depth, and the CPU
// multiplies and adds both at once: four times the terms per byte.
#if defined(MM_BOTH_BFLOAT16) && MM_BOTH_BFLOAT16 && defined(__AVX512BF16__)
#include <immintrin.h>
#define MM_PAIRS 1
#else
#define MM_PAIRS 0
#endif

// 14 x 2 sums of 16 lanes and what they are made from fill 32 vector registers, 6 x 2 fill 16.
#if defined(__AVX512F__)
#define MM_LANES 16
#define MM_ROWS 14
#elif defined(__AVX__)
#define MM_LANES 8
#define MM_ROWS 6
#elif defined(__aarch64__)
#define MM_LANES 4
#define MM_ROWS 14
#else
#define MM_LANES 4
#define MM_ROWS 6
#endif
#define MM_WIDE (2 * MM_LANES)

typedef float mm_vec __attribute__((vector_size(4 * MM_LANES)));
typedef int32_t mm_mask __attribute__((vector_size(4 * MM_LANES)));
typedef uint32_t mm_words __attribute__((vector_size(4 * MM_LANES)));
typedef uint16_t mm_codes __attribute__((vector_size(2 * MM_LANES)));

MM_INLINE mm_vec mm_vec_load(const float *from)
{
    mm_vec value;
    memcpy(&value, from, sizeof value);
    return value;
}

MM_INLINE void mm_vec_store(float *to, mm_vec value)
{
    memcpy(to, &value, sizeof value);
}

// As many values of a narrower type.
MM_INLINE mm_vec mm_vec_load_bfloat16(const uint16_t *from)
{
    mm_codes codes;
    memcpy(&codes, from, sizeof codes);
#if MM_LANES == 8 && defined(__AVX2__) && !defined(__clang__)
    // GCC 12 converts two halves and joins them, five instructions for one: products of 1 to 4 rows
    // took 1.4 to 1.9 times as long (Zen 3, December 2026).
    typedef short signed_codes __attribute__((vector_size(16)));
    const mm_words words = (mm_words)__builtin_ia32_pmovzxwd256((signed_codes)codes);
#else
    const mm_words words = __builtin_convertvector(codes, mm_words);
#endif
    const mm_words wide = words << 16;
    mm_vec value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

MM_INLINE mm_vec mm_vec_load_float16(const uint16_t *from)
{
#if defined(__clang__) && defined(__FLT16_MAX__) // its names of intrinsics change
    typedef _Float16 codes_type __attribute__((vector_size(2 * MM_LANES)));
    codes_type codes;
    memcpy(&codes, from, sizeof codes);
    return __builtin_convertvector(codes, mm_vec);
#elif MM_LANES == 16 && !defined(__clang__)
    typedef short codes_type __attribute__((vector_size(32)));
    codes_type codes;
    memcpy(&codes, from, sizeof codes);
    return __builtin_ia32_vcvtph2ps512_mask(codes, (mm_vec){0}, -1, 4);
#elif MM_LANES == 8 && defined(__F16C__) && !defined(__clang__)
    typedef short codes_type __attribute__((vector_size(16)));
    codes_type codes;
    memcpy(&codes, from, sizeof codes);
    return __builtin_ia32_vcvtph2ps256(codes);
#else
    mm_vec value;
    for (int l = 0; l < MM_LANES; l++)
        value[l] = mm_load_float16(from[l]);
    return value;
#endif
}

MM_INLINE mm_vec mm_vec_fill(float value)
{
    return (mm_vec){0} + value;
}

MM_INLINE int64_t mm_round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

MM_INLINE int64_t mm_least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

// Memory for `count` floats, aligned for vectors; NULL, and a report, if there is not so much.
MM_INLINE float *mm_new_floats(void *const *buffers, int64_t count)
{
    const size_t nbytes = ((size_t)count * sizeof(float) + 127) / 64 * 64;
    float *const made = mm_new_memory(nbytes);
    if (!made)
        mm_report_no_memory(buffers, nbytes);
    return made;
}

// ---- transposition -----------------------------------------------------------------------------

#if MM_LANES == 16
#define MM_EACH_LANE(F) F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), \
    F(12), F(13), F(14), F(15)
#elif MM_LANES == 8
#define MM_EACH_LANE(F) F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7)
#else
#define MM_EACH_LANE(F) F(0), F(1), F(2), F(3)
#endif

#if defined(__clang__) || __GNUC__ >= 12
#define MM_PICK(a, b, F) __builtin_shufflevector(a, b, MM_EACH_LANE(F))
#else
#define MM_PICK(a, b, F) __builtin_shuffle(a, b, (mm_mask){MM_EACH_LANE(F)})
#endif

// Lanes of two rows after one exchange of blocks of STEP lanes.
#define MM_LOW(STEP, l) ((l) & (STEP) ? MM_LANES + (l) - (STEP) : (l))
#define MM_HIGH(STEP, l) ((l) & (STEP) ? MM_LANES + (l) : (l) + (STEP))
#define MM_LOW_1(l) MM_LOW(1, l)
#define MM_LOW_2(l) MM_LOW(2, l)
#define MM_LOW_4(l) MM_LOW(4, l)
#define MM_LOW_8(l) MM_LOW(8, l)
#define MM_HIGH_1(l) MM_HIGH(1, l)
#define MM_HIGH_2(l) MM_HIGH(2, l)
#define MM_HIGH_4(l) MM_HIGH(4, l)
#define MM_HIGH_8(l) MM_HIGH(8, l)
#define MM_EXCHANGE(STEP)                                                                        \
    _Pragma("GCC unroll 16") for (int r = 0; r < MM_LANES; r++)                                  \
    {                                                                                            \
        if (r & STEP)                                                                            \
            continue;                                                                            \
        const mm_vec a = v[r], b = v[r + STEP];                                                  \
        v[r] = MM_PICK(a, b, MM_LOW_##STEP);                                                     \
        v[r + STEP] = MM_PICK(a, b, MM_HIGH_##STEP);                                             \
    }

// Transposes MM_LANES vectors in place.
MM_INLINE void mm_transpose(mm_vec v[MM_LANES])
{
#if MM_LANES == 16
    MM_EXCHANGE(8)
#endif
#if MM_LANES >= 8
    MM_EXCHANGE(4)
#endif
    MM_EXCHANGE(2)
    MM_EXCHANGE(1)
}

#if MM_LANES == 16
#define MM_JOIN_HALVES(a, b) (MM_PICK(a, b, MM_LOW_8) + MM_PICK(a, b, MM_HIGH_8))
#define MM_JOIN_QUARTERS(a, b) (MM_PICK(a, b, MM_LOW_4) + MM_PICK(a, b, MM_HIGH_4))
#elif MM_LANES == 8
#define MM_JOIN_HALVES(a, b) (MM_PICK(a, b, MM_LOW_4) + MM_PICK(a, b, MM_HIGH_4))
#define MM_JOIN_QUARTERS(a, b) (MM_PICK(a, b, MM_LOW_2) + MM_PICK(a, b, MM_HIGH_2))
#else
#define MM_JOIN_HALVES(a, b) (MM_PICK(a, b, MM_LOW_2) + MM_PICK(a, b, MM_HIGH_2))
#define MM_JOIN_QUARTERS(a, b) (MM_PICK(a, b, MM_LOW_1) + MM_PICK(a, b, MM_HIGH_1))
#endif

// The sums of the lanes of four vectors, each as a tree.
MM_INLINE void mm_sums_of_lanes(const mm_vec v[4], float sums[4])
{
    mm_vec all = MM_JOIN_QUARTERS(MM_JOIN_HALVES(v[0], v[1]), MM_JOIN_HALVES(v[2], v[3]));
#if MM_LANES >= 16
    all += MM_PICK(all, all, MM_HIGH_2);
#endif
#if MM_LANES >= 8
    all += MM_PICK(all, all, MM_HIGH_1);
#endif
    sums[0] = all[0];
    sums[1] = all[MM_LANES / 2];
    sums[2] = all[MM_LANES / 4];
    sums[3] = all[MM_LANES / 2 + MM_LANES / 4];
}

// Writes MM_WIDE rows of `depth` floats as a panel: element (n, k) to panel[k * MM_WIDE + n]. The
// panel has room for mm_round_up(depth, MM_LANES) rows, and so have the rows.
static void mm_transpose_panel(const float *rows, int64_t row_step, int64_t depth, float *panel)
{
    for (int64_t half = 0; half < MM_WIDE; half += MM_LANES)
        for (int64_t k = 0; k < depth; k += MM_LANES) {
            mm_vec v[MM_LANES];
            _Pragma("GCC unroll 16") for (int r = 0; r < MM_LANES; r++)
                v[r] = mm_vec_load(rows + (half + r) * row_step + k);
            mm_transpose(v);
            _Pragma("GCC unroll 16") for (int r = 0; r < MM_LANES; r++)
                mm_vec_store(panel + (k + r) * MM_WIDE + half, v[r]);
        }
}

// ---- tiles -------------------------------------------------------------------------------------

MM_INLINE mm_vec mm_add_products(mm_vec sum, mm_vec a, mm_vec b)
{
#if MM_PAIRS
    return (mm_vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
    return sum + a * b;
#endif
}

MM_INLINE mm_vec mm_add_multiple(mm_vec sum, float x, mm_vec b)
{
#if MM_PAIRS
    return mm_add_products(sum, (mm_vec)_mm512_set1_ps(x), b);
#else
    return sum + x * b;
#endif
}

// Tiles that cover any number of rows: as many of MM_ROWS as fit, then one of each smaller height.
MM_INLINE int mm_tile_rows(int64_t left)
{
    if (left >= MM_ROWS)
        return MM_ROWS;
    return MM_ROWS > 8 && left >= 8 ? 8 : left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

// out[r][c] = scale[r] * out[r][c] + sum over k of a[r * row + k * step] * panel[k * MM_WIDE + c];
// without `scale`, out is not read. With constant `rows`, `row` and `step` the sums are registers.
// Meanwhile `depth` lines of memory, `soon_step` bytes apart, are prefetched into the L2 cache,
// unless `soon` is NULL.
MM_INLINE void mm_tile(
    const int rows, int64_t depth, const float *a, const int64_t row, const int64_t step,
    const float *panel, float *out, const int64_t out_row, const float *scale, const char *soon,
    int64_t soon_step)
{
    mm_vec left[MM_ROWS], right[MM_ROWS];
    _Pragma("GCC unroll 14") for (int r = 0; r < rows; r++)
    {
        left[r] = scale ? mm_vec_load(out + r * out_row) * scale[r] : (mm_vec){0};
        right[r] = scale ? mm_vec_load(out + r * out_row + MM_LANES) * scale[r] : (mm_vec){0};
    }
    for (int64_t k = 0; k < depth; k++) {
        const mm_vec near = mm_vec_load(panel + k * MM_WIDE);
        const mm_vec far = mm_vec_load(panel + k * MM_WIDE + MM_LANES);
        if (soon)
            __builtin_prefetch(soon + k * soon_step, 0, 2);
        _Pragma("GCC unroll 14") for (int r = 0; r < rows; r++)
        {
            const float x = a[r * row + k * step];
            left[r] = mm_add_multiple(left[r], x, near);
            right[r] = mm_add_multiple(right[r], x, far);
        }
    }
    _Pragma("GCC unroll 14") for (int r = 0; r < rows; r++)
    {
        mm_vec_store(out + r * out_row, left[r]);
        mm_vec_store(out + r * out_row + MM_LANES, right[r]);
    }
}

// Calls CALL(rows) with a constant number of rows.
#if MM_ROWS > 8
#define MM_FOR_ROWS(rows, CALL)                                                                  \
    switch (rows) {                                                                              \
    case 1: CALL(1); break;                                                                      \
    case 2: CALL(2); break;                                                                      \
    case 4: CALL(4); break;                                                                      \
    case 8: CALL(8); break;                                                                      \
    default: CALL(MM_ROWS); break;                                                               \
    }
#else
#define MM_FOR_ROWS(rows, CALL)                                                                  \
    switch (rows) {                                                                              \
    case 1: CALL(1); break;                                                                      \
    case 2: CALL(2); break;                                                                      \
    case 4: CALL(4); break;                                                                      \
    default: CALL(MM_ROWS); break;                                                               \
    }
#endif
