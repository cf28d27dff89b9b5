// Products with quantised weights: integer codes times the rows of the left operand as integers.
//
// The rule, the same on every processor, for any number of rows and threads:
// - A row of x is cut into spans of MM_SPAN numbers. A span becomes integers q and a power of two, its
//   unit: the least with |q| <= 32639 where x ~ q * unit. So a number errs by at most 2^-16 of a power
//   of two at or above the largest |x| of its span, and most numbers of half types not at all.
// - Numbers of a span that are above MM_FAR times its mean (of those that are not 0) do not become
//   integers, until there are none; neither do NaN and infinity, nor numbers for which the unit would
//   be below 2^-126. Their q is 0.
// - The sum of q times code over a span is exact, in any order. It becomes a float, is multiplied by
//   the unit and the scale of a group, and added to a float; span after span, each followed by its far
//   numbers times weights, from first to last. Every step rounds on its own, without fused
//   operations. A scale or unit of a whole column is applied at the end. Where groups have minimums,
//   what becomes a float is multiplied by the scale, and 8 times the sum of q, times the minimum, is
//   subtracted from it.
//
// All of this is compiled once for many kernels: products.h precedes it, one_product.h follows; with
// MM_SHARED_ELSEWHERE it is in another library. The code before it defines
//   MM_CODES_PER_BYTE  1: int8 codes;
//                      2: 4-bit codes, each plus 8. Byte i of 16 holds code i of 32 in its low half
//                         and code i + 16 above it.
//   MM_GROUP           codes that share a scale; 1: all of a column do.
//   MM_MINIMUMS        1: scales are bytes, after which a byte for the minimum of each group follows,
//                      and one for the exponent of the unit of the column. Codes are not 8 too large.
//   MM_RIGHT_TYPE, MM_SCALE_TYPE and MM_SCALE_VEC  how codes and scales are stored and loaded.

#ifdef MM_SHARED_ELSEWHERE
void (*mm_run_shared)(void *const *buffers, const int64_t *scalars); // set when a kernel is loaded
#else

#define MM_BLOCK 32 // codes of four bits that belong together
// Sums of a span fit 32 bits: 128 * 128 * 32639 < 2^30. Longer spans would save little: at 128 the
// conversion of the sums takes a tenth of the time of one row, and a twentieth of that of many.
#if MM_GROUP == 1 || MM_GROUP % 128 == 0
#define MM_SPAN 128
#elif MM_GROUP % 64 == 0
#define MM_SPAN 64
#else
#define MM_SPAN 32
#endif
// Numbers below are kept as integers: at 16 a sixth of the spans of SmolLM2-135M had a number above, at 32
// 4 % have, at 64 0.3 %. Each costs as much as a whole span. Two or three numbers that are far above
// all others are found as well.
#define MM_FAR 32

// ---- vectors of codes --------------------------------------------------------------------------

// MM_LANES sums are made at once, each of MM_DEEP adjacent codes: two as integers of 16 bits, or, where
// bytes are multiplied, four, and q has two digits to base 256 (MM_PLANES) of a signed byte.
#if defined(MM_PLANES)
// by bytes, given
#elif MM_LANES == 16 && defined(__AVX512VNNI__) && MM_CODES_PER_BYTE == 1 && MM_GROUP % 64 != 32
// The first bytes that are multiplied have no sign: codes get 128 more, which the sum of q takes back.
#define MM_PLANES 2
#define MM_CODES_MORE 128
MM_INLINE mm_mask mm_add_bytes(mm_mask sums, mm_mask a, mm_mask b)
{
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(a), "vm"(b)); // builtins differ between compilers
    return sums;
}
#elif defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include <arm_neon.h>
#define MM_PLANES 2
#define mm_add_bytes(sums, a, b) (mm_mask)vdotq_s32((int32x4_t)(sums), (int8x16_t)(a), (int8x16_t)(b))
#else
#define MM_PLANES 1
#endif
#ifndef MM_CODES_MORE
#define MM_CODES_MORE (MM_CODES_PER_BYTE == 2 && !MM_MINIMUMS ? 8 : 0) // than what they stand for
#endif
#define MM_DEEP (2 * MM_PLANES)
#define MM_CODES (MM_DEEP * MM_LANES) // of a vector
// Codes that are loaded together become MM_VECTORS vectors.
#define MM_STEP (MM_CODES_PER_BYTE == 1 ? MM_CODES : MM_BLOCK)
#define MM_VECTORS (MM_STEP / MM_CODES)

typedef int16_t mm_pairs __attribute__((vector_size(4 * MM_LANES)));

// sums[l] += a[2 * l] * b[2 * l] + a[2 * l + 1] * b[2 * l + 1], of integers of 16 bits; or of four bytes.
MM_INLINE mm_mask mm_add_codes(mm_mask sums, mm_mask a, mm_mask b)
{
#if MM_PLANES == 2
    return mm_add_bytes(sums, a, b);
#elif MM_LANES == 16 && defined(__AVX512VNNI__) && defined(__clang__)
    return __builtin_ia32_vpdpwssd512(sums, a, b);
#elif MM_LANES == 16 && defined(__AVX512VNNI__)
    return __builtin_ia32_vpdpwssd_v16si(sums, a, b);
#elif MM_LANES == 8 && defined(__AVXVNNI__) && defined(__clang__)
    return __builtin_ia32_vpdpwssd256(sums, a, b);
#elif MM_LANES == 8 && defined(__AVXVNNI__)
    return __builtin_ia32_vpdpwssd_v8si(sums, a, b);
#elif MM_LANES == 16 && defined(__AVX512BW__) && defined(__clang__)
    return sums + (mm_mask)__builtin_ia32_pmaddwd512((mm_pairs)a, (mm_pairs)b);
#elif MM_LANES == 16 && defined(__AVX512BW__)
    return sums + __builtin_ia32_pmaddwd512_mask((mm_pairs)a, (mm_pairs)b, (mm_mask){0}, -1);
#elif MM_LANES == 8 && defined(__AVX2__)
    return sums + (mm_mask)__builtin_ia32_pmaddwd256((mm_pairs)a, (mm_pairs)b);
#elif MM_LANES == 4 && defined(__SSE2__)
    return sums + (mm_mask)__builtin_ia32_pmaddwd128((mm_pairs)a, (mm_pairs)b);
#else
    return sums + (a << 16 >> 16) * (b << 16 >> 16) + (a >> 16) * (b >> 16);
#endif
}

// 2 * MM_LANES bytes, signed or unsigned, as integers of 16 bits. GCC makes several instructions of the
// generic conversion. It copies less than a vector through memory, which stalls, so that eight bytes
// are loaded as an integer.
MM_INLINE mm_pairs mm_widen(const void *from, const int is_signed)
{
    typedef char bytes_type __attribute__((vector_size(2 * MM_LANES)));
#if MM_LANES == 16 && defined(__AVX512BW__) && !defined(__clang__)
    bytes_type bytes;
    memcpy(&bytes, from, sizeof bytes);
    return is_signed ? (mm_pairs)__builtin_ia32_pmovsxbw512_mask(bytes, (mm_pairs){0}, -1)
                     : (mm_pairs)__builtin_ia32_pmovzxbw512_mask(bytes, (mm_pairs){0}, -1);
#elif MM_LANES == 8 && defined(__AVX2__) && !defined(__clang__)
    bytes_type bytes;
    memcpy(&bytes, from, sizeof bytes);
    return is_signed ? (mm_pairs)__builtin_ia32_pmovsxbw256(bytes)
                     : (mm_pairs)__builtin_ia32_pmovzxbw256(bytes);
#elif MM_LANES == 4 && !defined(__clang__)
    typedef char twice_type __attribute__((vector_size(16)));
    typedef int64_t halves __attribute__((vector_size(16)));
    typedef uint16_t words __attribute__((vector_size(16)));
    typedef char indices __attribute__((vector_size(16)));
    int64_t eight;
    memcpy(&eight, from, sizeof eight);
    // Each byte twice: shifted down to the lower place it is the integer.
    const indices pick = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7};
    const mm_pairs both = (mm_pairs)__builtin_shuffle((twice_type)(halves){eight}, pick);
    (void)sizeof(bytes_type);
    return is_signed ? both >> 8 : (mm_pairs)((words)both >> 8);
#else
    typedef int8_t small __attribute__((vector_size(2 * MM_LANES)));
    bytes_type bytes;
    memcpy(&bytes, from, sizeof bytes);
    const mm_pairs wide = __builtin_convertvector((small)bytes, mm_pairs);
    return is_signed ? wide : wide & 255;
#endif
}

#if MM_CODES_PER_BYTE == 1

// The codes from `from` on, of which `count` are of this column.
MM_INLINE void mm_load_codes(const int8_t *from, int64_t count, mm_mask codes[MM_VECTORS])
{
    int8_t some[MM_CODES] = {0};
    if (count < MM_CODES) {
        memcpy(some, from, (size_t)count);
        from = some;
    }
#if MM_PLANES == 2
    memcpy(codes, from, sizeof *codes);
    if (MM_CODES_MORE)
        codes[0] ^= (mm_mask){0} + (int32_t)0x80808080;
#else
    codes[0] = (mm_mask)mm_widen(from, 1);
#endif
}

#define mm_code_at(place) (place)

#else

// With 16 lanes, code i is in a lane with code i + 16; else codes are in order.
#if MM_LANES == 16
#define mm_code_at(place) ((place) / 2 % 16 + (place) % 2 * 16 + (place) / MM_BLOCK * MM_BLOCK)
#else
#define mm_code_at(place) (place)
#endif

MM_INLINE void mm_load_codes(const uint8_t *from, int64_t count, mm_mask codes[MM_VECTORS])
{
    (void)count; // rows are whole blocks
#if MM_PLANES == 2
    typedef uint8_t bytes_type __attribute__((vector_size(16)));
    bytes_type bytes;
    memcpy(&bytes, from, sizeof bytes);
    codes[0] = (mm_mask)(bytes & 15);
    codes[1] = (mm_mask)(bytes >> 4);
#elif MM_LANES == 16
    typedef char bytes_type __attribute__((vector_size(16)));
    bytes_type bytes;
    memcpy(&bytes, from, sizeof bytes);
#if defined(__clang__)
    typedef uint8_t unsigned_type __attribute__((vector_size(16)));
    const mm_words words = __builtin_convertvector((unsigned_type)bytes, mm_words);
#else
    const mm_words words = (mm_words)__builtin_ia32_pmovzxbd512_mask(bytes, (mm_mask){0}, -1);
#endif
    codes[0] = (mm_mask)((words | words << 12) & 0x000f000f);
#else
    _Pragma("GCC unroll 4") for (int i = 0; i < MM_VECTORS / 2; i++)
    {
        typedef uint16_t words __attribute__((vector_size(4 * MM_LANES)));
        const words both = (words)mm_widen(from + i * MM_CODES, 0);
        codes[i] = (mm_mask)(both & 15);
        codes[i + MM_VECTORS / 2] = (mm_mask)(both >> 4);
    }
#endif
}

#endif

// The value is rounded to its type before it is used: the compiler fuses nothing with it.
#if defined(MM_ROUNDED)
// given
#elif defined(__SSE2__)
#define MM_ROUNDED(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define MM_ROUNDED(v) __asm__("" : "+w"(v))
#else
#define MM_ROUNDED(v) __asm__("" : "+m"(v))
#endif

// ---- rows of the left operand as integers ------------------------------------------------------

// A row in memory: the digits of its spans, as vectors of codes need them, then for each span its unit,
// the sum of q and a bit for each far number, then whether there is one.
typedef struct {
    int64_t depth, spans;
    int64_t units;  // where the units are, in bytes; whether numbers are far comes last
    int64_t nbytes; // from one row to the next: no power of two, which would share sets of the L1 cache
} mm_row_sizes;

#define MM_FAR_WORDS (MM_SPAN / 32)

MM_INLINE mm_row_sizes mm_row_sizes_of(int64_t depth)
{
    const int64_t spans = (depth + MM_SPAN - 1) / MM_SPAN;
    const int64_t units = 2 * mm_round_up(depth, MM_CODES);
    const int64_t all = units + 4 * (spans * (2 + MM_FAR_WORDS) + 1);
    return (mm_row_sizes){depth, spans, units, mm_round_up(all, 128) + 64};
}

#define mm_units_of(row, sizes) ((float *)((row) + (sizes).units))
#define mm_totals_of(row, sizes) ((int32_t *)((row) + (sizes).units) + (sizes).spans)
#define mm_far_of(row, sizes) ((uint32_t *)((row) + (sizes).units) + 2 * (sizes).spans)
#define mm_has_far(row, sizes) (mm_far_of(row, sizes)[(sizes).spans * MM_FAR_WORDS])

// Makes integers of a span; false if some numbers turned out to be far: they are 0 now, and marked.
MM_INLINE bool mm_to_integers(float x[MM_SPAN], int32_t q[MM_SPAN], float *unit, uint32_t *far)
{
    uint32_t largest = 0;
    #pragma omp simd reduction(max : largest)
    for (int i = 0; i < MM_SPAN; i++) {
        const uint32_t bits = mm_as_bits(x[i]) & 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    int32_t count = 0, total = 0, most = 0;
    // From 32639.5 / 16384 on, a significand would become more than two signed bytes.
    const uint32_t exponent = (largest + 0x10100u) >> 23, e = exponent < 15 ? 15 : exponent;
    const bool fits = largest < 0x7f800000u && (exponent >= 15 || largest == 0);
    if (fits) {
        *unit = mm_as_float((e - 14) << 23);
        const float up = mm_as_float((268 - e) << 23);
        #pragma omp simd reduction(+ : count, total) reduction(max : most)
        for (int i = 0; i < MM_SPAN; i++) {
            q[i] = (int32_t)mm_round(x[i] * up);
            const int32_t size = q[i] < 0 ? -q[i] : q[i];
            count += x[i] != 0;
            total += size;
            most = size > most ? size : most;
        }
        if (most * count <= MM_FAR * total)
            return true;
    }
    for (int i = 0; i < MM_SPAN; i++) {
        const bool is_finite = mm_abs(x[i]) <= 3.40282347e38f;
        const int32_t size = !fits ? 0 : q[i] < 0 ? -q[i] : q[i];
        const bool is_far = fits ? size * count > MM_FAR * total
            : largest < 0x7f800000u ? x[i] != 0 : !is_finite;
        if (is_far) {
            far[i / 32] |= 1u << i % 32;
            x[i] = 0;
        }
    }
    return false;
}

MM_INLINE void mm_store_digits(const int32_t q[MM_SPAN], int64_t count, char *to)
{
#if MM_PLANES == 2
    for (int64_t i = 0; i < count; i += MM_CODES) {
        int8_t *const high = (int8_t *)to + 2 * i, *const low = high + MM_CODES;
        #pragma omp simd
        for (int j = 0; j < MM_CODES; j++) {
            high[j] = (int8_t)((q[i + j] + 128) >> 8);
            low[j] = (int8_t)q[i + j];
        }
    }
#else
    int16_t *const places = (int16_t *)to;
    #pragma omp simd
    for (int64_t i = 0; i < count; i++)
        places[i] = (int16_t)q[mm_code_at(i)];
#endif
}

static void mm_prepare_row(const mm_args g, int64_t r, const mm_row_sizes sizes, char *row)
{
    uint32_t *const has_far = &mm_has_far(row, sizes);
    *has_far = 0;
    for (int64_t span = 0; span < sizes.spans; span++) {
        const int64_t start = span * MM_SPAN, count = mm_least(MM_SPAN, sizes.depth - start);
        float x[MM_SPAN];
        int32_t q[MM_SPAN];
        g->left(g, r, start, count, x);
        memset(x + count, 0, (size_t)(MM_SPAN - count) * sizeof *x);
        uint32_t *const far = mm_far_of(row, sizes) + span * MM_FAR_WORDS;
        memset(far, 0, MM_FAR_WORDS * sizeof *far);
        while (!mm_to_integers(x, q, mm_units_of(row, sizes) + span, far))
            *has_far = 1;
        int32_t total = 0;
        #pragma omp simd reduction(+ : total)
        for (int i = 0; i < MM_SPAN; i++)
            total += q[i];
        mm_totals_of(row, sizes)[span] = total;
        mm_store_digits(q, mm_round_up(count, MM_CODES), row + 2 * start);
    }
}

typedef struct {
    char *rows;          // prepared, one after the other
    mm_row_sizes sizes;
    int64_t row0, count; // which they are
    int64_t step;        // columns of a task
    int64_t part, parts; // rows of a task, and tasks for MM_WIDE columns; for many rows
} mm_quantized_job;

static void mm_prepare_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_quantized_job *const job = shared;
    for (int64_t r = first; r < end; r++)
        mm_prepare_row(g, job->row0 + r, job->sizes, job->rows + r * job->sizes.nbytes);
    (void)room;
}

// ---- from exact sums to floats -----------------------------------------------------------------

// The sums of all digits.
MM_INLINE mm_mask mm_whole(const mm_mask sums[MM_PLANES])
{
    return MM_PLANES == 1 ? sums[0] : (sums[0] << 8) + sums[MM_PLANES - 1];
}

#if MM_GROUP == 1
#define MM_GROUP_OF(span) 0
#else
#define MM_GROUP_OF(span) ((span) * MM_SPAN / MM_GROUP)
#endif
#define MM_SCALES_OF_COLUMN(depth)                                                                 \
    (MM_GROUP == 1 ? 1 : (depth) / MM_GROUP * (1 + MM_MINIMUMS) + MM_MINIMUMS)
#define MM_GROUPS_OF(first, spans) (MM_GROUP_OF((first) + (spans) - 1) - MM_GROUP_OF(first) + 1)

// sums + the floats of a span of MM_LANES columns, of which `scales` and `minimums` are those of their
// groups.
MM_INLINE mm_vec mm_add_span(
    mm_vec sums, mm_mask whole, const char *row, const mm_row_sizes sizes, int64_t span,
    const float *scales, const float *minimums)
{
    const float unit = mm_units_of(row, sizes)[span];
    if (MM_CODES_MORE)
        whole -= MM_CODES_MORE * mm_totals_of(row, sizes)[span];
#if MM_GROUP == 1
    mm_vec terms = __builtin_convertvector(whole, mm_vec) * unit;
    (void)scales;
    (void)minimums;
#elif MM_MINIMUMS
    const float total = (float)(8 * mm_totals_of(row, sizes)[span]);
    mm_vec below = mm_vec_load(minimums) * total;
    mm_vec terms = __builtin_convertvector(whole, mm_vec) * mm_vec_load(scales);
    MM_ROUNDED(below);
    MM_ROUNDED(terms);
    terms = (terms - below) * unit;
#else
    (void)minimums;
    mm_vec terms = __builtin_convertvector(whole, mm_vec) * (mm_vec_load(scales) * unit);
#endif
    MM_ROUNDED(terms);
    return sums + terms;
}

#if MM_MINIMUMS
MM_INLINE mm_vec mm_vec_load_uint8(const uint8_t *from)
{
#if MM_LANES == 8 && defined(__AVX2__) && !defined(__clang__)
    typedef int64_t halves __attribute__((vector_size(16)));
    typedef char bytes_type __attribute__((vector_size(16)));
    int64_t eight;
    memcpy(&eight, from, sizeof eight);
    const bytes_type bytes = (bytes_type)(halves){eight};
    return __builtin_convertvector((mm_mask)__builtin_ia32_pmovzxbd256(bytes), mm_vec);
#elif MM_LANES == 16 && defined(__AVX512F__) && !defined(__clang__)
    typedef char bytes_type __attribute__((vector_size(16)));
    bytes_type bytes;
    memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(
        (mm_mask)__builtin_ia32_pmovzxbd512_mask(bytes, (mm_mask){0}, -1), mm_vec);
#else
    typedef uint8_t bytes_type __attribute__((vector_size(MM_LANES)));
    bytes_type bytes;
    memcpy(&bytes, from, sizeof bytes);
    return __builtin_convertvector(bytes, mm_vec);
#endif
}

#endif

MM_INLINE mm_vec mm_scales_part(const MM_SCALE_TYPE *from, int64_t count)
{
    MM_SCALE_TYPE some[MM_LANES] = {0};
    int64_t done = 0;
    _Pragma("GCC unroll 4") for (int64_t size = MM_LANES / 2; size; size /= 2)
        if (count & size) { // copies of constant sizes are not calls
            memcpy(some + done, from + done, (size_t)size * sizeof *from);
            done += size;
        }
    return MM_SCALE_VEC(some);
}

// `count` scales, in the last lanes.
static __attribute__((noinline)) mm_vec mm_last_scales(const MM_SCALE_TYPE *from, int64_t count)
{
    MM_SCALE_TYPE some[MM_LANES] = {0};
    memcpy(some + MM_LANES - count, from, (size_t)count * sizeof *from);
    return MM_SCALE_VEC(some);
}

// Scale `k` of a column as a float.
MM_INLINE float mm_scale_at(const mm_args g, int64_t k, int64_t n)
{
    return mm_scales_part(mm_scales(g, k, n), 1)[0];
}

MM_INLINE float mm_weight_at(const mm_args g, int64_t k, int64_t n)
{
#if MM_GROUP == 1
    return *mm_right(g, k, n);
#elif MM_CODES_PER_BYTE == 1
    float weight = (float)*mm_right(g, k, n) * mm_scale_at(g, k / MM_GROUP, n);
    MM_ROUNDED(weight);
    return weight;
#else
    const int pair = *mm_right(g, k / MM_BLOCK * 16 + k % 16, n);
    const int code = k & 16 ? pair >> 4 : pair & 15;
#if MM_MINIMUMS
    const uint8_t *const minimums = mm_scales(g, mm_depth(g) / MM_GROUP, n);
    return (float)(code * *mm_scales(g, k / MM_GROUP, n) - 8 * minimums[k / MM_GROUP]);
#endif
    float weight = (float)(code - 8) * mm_scale_at(g, k / MM_GROUP, n);
    MM_ROUNDED(weight);
    return weight;
#endif
}

// Adds the far numbers of a span of row r to the sums of columns n to n + count.
static __attribute__((noinline)) void mm_add_far(
    const mm_args g, int64_t r, const char *row, const mm_row_sizes sizes, int64_t span, int64_t n,
    int64_t count, float *sums)
{
    const uint32_t *const far = mm_far_of(row, sizes) + span * MM_FAR_WORDS;
    for (int64_t word = 0; word < MM_FAR_WORDS; word++)
        for (uint32_t bits = far[word]; bits; bits &= bits - 1) {
            const int64_t k = span * MM_SPAN + word * 32 + __builtin_ctz(bits);
            float x;
            g->left(g, r, k, 1, &x);
            for (int64_t c = 0; c < count; c++) {
                float term = x * mm_weight_at(g, k, n + c);
                MM_ROUNDED(term);
                sums[c] += term;
            }
        }
}

// Whether a span has far numbers.
MM_INLINE bool mm_is_far(const char *row, const mm_row_sizes sizes, int64_t span)
{
    uint32_t any = 0;
    if (mm_has_far(row, sizes))
        for (int64_t word = 0; word < MM_FAR_WORDS; word++)
            any |= mm_far_of(row, sizes)[span * MM_FAR_WORDS + word];
    return any != 0;
}

// Where MM_LANES columns are; the last one again where there are no more.
typedef struct {
    const MM_RIGHT_TYPE *codes[MM_LANES];
    const MM_SCALE_TYPE *scales[MM_LANES];
    int64_t before[MM_LANES]; // scales of other columns, at least, that lie before these
} mm_places;

// Where column n is, for `c`.
MM_INLINE void mm_set_place(const mm_args g, int64_t n, int64_t c, mm_places *to)
{
    const mm_operand *right = g->right + (g->alternates ? n % 2 : 0);
    while (!g->alternates && n >= right->end)
        right++;
    const int64_t column = g->alternates ? n / 2 : n - right->start;
    to->codes[c] = right->first + column * right->step;
    to->scales[c] = right->scales + column * right->scales_step;
    to->before[c] = column * right->scales_step;
}

MM_INLINE mm_places mm_places_of(const mm_args g, int64_t n, int64_t columns)
{
    mm_places made;
    const mm_operand *right = g->right;
    while (!g->alternates && n >= right->end)
        right++;
    if (columns == MM_LANES && !g->alternates && n + MM_LANES <= right->end) { // of one operand
        for (int64_t c = 0; c < MM_LANES; c++) {
            made.codes[c] = right->first + (n - right->start + c) * right->step;
            made.before[c] = (n - right->start + c) * right->scales_step;
            made.scales[c] = right->scales + made.before[c];
        }
        return made;
    }
    for (int64_t c = 0; c < MM_LANES; c++)
        mm_set_place(g, n + mm_least(c, columns - 1), c, &made);
    return made;
}

// to[s * step + c] = scale first + s of column c, for `count` scales of MM_LANES columns; or minimums,
// which begin at `start`.
MM_INLINE void mm_scales_of(
    const mm_args g, const mm_places *places, int64_t start, int64_t first, int64_t count, float *to,
    int64_t step)
{
    const int64_t groups = mm_depth(g) / MM_GROUP;
    for (int64_t done = 0; done < count; done += MM_LANES) {
        // The last vector overlaps the one before, or other columns: a part of a vector is slow to load.
        const int64_t k = mm_least(first + done, groups - MM_LANES), skipped = first + done - k;
        mm_vec v[MM_LANES];
        for (int64_t c = 0; c < MM_LANES; c++) {
            const MM_SCALE_TYPE *const from = places->scales[c] + start + k;
            v[c] = start + k >= -places->before[c] ? MM_SCALE_VEC(from)
                                                   : mm_last_scales(from - k, groups);
        }
        mm_transpose(v);
        if (skipped == 0 && count - done >= MM_LANES) {
            _Pragma("GCC unroll 16") for (int64_t s = 0; s < MM_LANES; s++)
                mm_vec_store(to + (done + s) * step, v[s]);
            continue;
        }
        for (int64_t s = 0; s < mm_least(MM_LANES - skipped, count - done); s++)
            mm_vec_store(to + (done + s) * step, v[skipped + s]);
    }
}

// The scales, or units, of whole columns.
MM_INLINE void mm_factors_of(const mm_args g, int64_t n, int64_t count, float factors[MM_WIDE])
{
    memset(factors, 0, MM_WIDE * sizeof *factors);
#if MM_MINIMUMS
    const int64_t groups = mm_depth(g) / MM_GROUP;
    for (int64_t half = 0; half < count; half += MM_LANES) {
        const mm_places places = mm_places_of(g, n + half, mm_least(MM_LANES, count - half));
        for (int64_t c = 0; c < MM_LANES; c++) // 2^(byte - 127)
            factors[half + c] = mm_as_float((uint32_t)places.scales[c][2 * groups] << 23);
    }
#else
    const MM_SCALE_TYPE *const first = mm_scales(g, 0, n);
    if (count == MM_WIDE && !g->alternates && mm_scales(g, 0, n + count - 1) - first == count - 1) {
        mm_vec_store(factors, MM_SCALE_VEC(first));
        mm_vec_store(factors + MM_LANES, MM_SCALE_VEC(first + MM_LANES));
        return;
    }
    for (int64_t c = 0; c < count; c++)
        factors[c] = mm_scale_at(g, 0, n + c);
#endif
}

// Applies the scales of whole columns, and the epilogue, to sums of MM_WIDE columns of some rows.
static void mm_finish_scaled(
    const mm_args g, int64_t row, int64_t rows, int64_t n, int64_t count, float *sums)
{
#if MM_GROUP == 1 || MM_MINIMUMS
    float factors[MM_WIDE];
    mm_factors_of(g, n, count, factors);
    for (int64_t r = 0; r < rows; r++)
        #pragma omp simd
        for (int64_t c = 0; c < MM_WIDE; c++)
            sums[r * MM_WIDE + c] *= factors[c];
#endif
    g->finish(g, row, rows, n, count, sums, MM_WIDE);
}

#endif
