// Quantised weights as the right operand of gemm.h: integer codes become floats while they are read.
//
// The code before this defines mm_code_bytes and mm_scales (pointers to byte or scale k of column n;
// contiguous within a column), and
//   MM_CODES_PER_BYTE  1: int8 codes, and one scale for each column;
//                      2: 4-bit codes, each plus 8, and one scale for each MM_GROUP of them.
//                         Byte i of 16 holds code i of 32 in its low half and code i + 16 above it.
//   MM_SCALE_TYPE and MM_SCALE_VEC  how scales are stored and loaded.

#define MM_BLOCK 32   // codes of four bits that belong together
// Columns follow each other in memory, and are read one after the other (measured for one row with 768
// x 50257 on 2 cores of an AMD EPYC with AVX-512, November 2026: 34 GB/s, without a prefetch 26, four
// columns at a time 18 to 20). They are prefetched into the L2 cache this many bytes ahead: with 8192,
// 3072 x 768 takes 71 us there, with 2048 into the L1 cache 115.
#define MM_AHEAD 8192
#define MM_FETCH(from) __builtin_prefetch((from) + MM_AHEAD, 0, 2)

// The byte that holds code k of column n.
MM_INLINE const MM_RIGHT_TYPE *mm_right(const mm_args g, int64_t k, int64_t n)
{
    return mm_code_bytes(g, k / MM_CODES_PER_BYTE, n);
}

// ---- codes to floats ---------------------------------------------------------------------------

typedef char mm_bytes __attribute__((vector_size(16)));

// MM_LANES bytes as integers, signed or unsigned. GCC before 15 generates scalar code for the generic
// conversion from one byte to four, so intrinsics are used. GCC 12 copies less than a vector through
// memory, which stalls, so eight or four bytes are loaded as an integer.
MM_INLINE mm_mask mm_widen(const void *from, const int is_signed)
{
#if MM_LANES == 16 && defined(__AVX512F__) && !defined(__clang__)
    mm_bytes bytes;
    memcpy(&bytes, from, sizeof bytes);
    return is_signed ? (mm_mask)__builtin_ia32_pmovsxbd512_mask(bytes, (mm_mask){0}, -1)
                     : (mm_mask)__builtin_ia32_pmovzxbd512_mask(bytes, (mm_mask){0}, -1);
#elif MM_LANES == 8 && defined(__AVX2__) && !defined(__clang__)
    typedef int64_t halves __attribute__((vector_size(16)));
    int64_t eight;
    memcpy(&eight, from, sizeof eight);
    const mm_bytes bytes = (mm_bytes)(halves){eight};
    return is_signed ? (mm_mask)__builtin_ia32_pmovsxbd256(bytes)
                     : (mm_mask)__builtin_ia32_pmovzxbd256(bytes);
#elif MM_LANES == 4 && !defined(__clang__)
    typedef int16_t shorts __attribute__((vector_size(16)));
    int32_t four;
    memcpy(&four, from, sizeof four);
    const mm_bytes bytes = (mm_bytes)(mm_mask){four};
    const mm_bytes pick = {0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7};
    const shorts pairs = (shorts)__builtin_shuffle(bytes, pick);
    // Each byte four times: shifted down to the lowest place it is the integer.
    const mm_mask fours = (mm_mask)__builtin_shuffle(pairs, (shorts){0, 0, 1, 1, 2, 2, 3, 3});
    return is_signed ? fours >> 24 : (mm_mask)((mm_words)fours >> 24);
#else
    typedef int8_t small __attribute__((vector_size(MM_LANES)));
    typedef int16_t middle __attribute__((vector_size(2 * MM_LANES)));
    small bytes;
    memcpy(&bytes, from, sizeof bytes);
    const middle wide = __builtin_convertvector(bytes, middle);
    const mm_mask widest = __builtin_convertvector(wide, mm_mask);
    return is_signed ? widest : widest & 255;
#endif
}

#if MM_CODES_PER_BYTE == 1

// How a scale is prepared before codes are read: not at all, it is applied to the sums.
typedef float mm_scale;
#define mm_prepared(scale) 1.0f

MM_INLINE mm_vec mm_weights(const int8_t *row, int64_t k, mm_scale scale)
{
    return __builtin_convertvector(mm_widen(row + k, 1), mm_vec);
}

MM_INLINE mm_vec mm_last_weights(const int8_t *row, int64_t k, int64_t count)
{
    int8_t some[16] = {0};
    memcpy(some, row + k, (size_t)count);
    return __builtin_convertvector(mm_widen(some, 1), mm_vec);
}

#else

// With 16 lanes, a look-up in the products of the scale and each code: the instruction uses the low
// four bits of a number and ignores the others.
#if MM_LANES == 16
typedef mm_vec mm_scale;

MM_INLINE mm_scale mm_prepared(float scale)
{
    return (mm_vec){-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7} * scale;
}
#else
typedef float mm_scale;
#define mm_prepared(scale) (scale)
#endif

// Weights k to k + MM_LANES of a row.
MM_INLINE mm_vec mm_weights(const uint8_t *row, int64_t k, mm_scale scale)
{
    const mm_mask pairs = mm_widen(row + k / MM_BLOCK * 16 + k % 16, 0);
#if MM_LANES == 16
    const mm_mask codes = k & 16 ? pairs >> 4 : pairs;
#if defined(__clang__)
    return __builtin_ia32_permvarsf512(scale, codes);
#else
    return __builtin_shuffle(scale, codes);
#endif
#else
    const mm_mask codes = k & 16 ? pairs >> 4 : pairs & 15;
    return __builtin_convertvector(codes - 8, mm_vec) * scale;
#endif
}

#define mm_last_weights(row, k, count) ((mm_vec){0}) // rows are multiples of every vector

#endif

MM_INLINE mm_vec mm_scales_part(const MM_SCALE_TYPE *from, int64_t count)
{
    MM_SCALE_TYPE some[MM_LANES] = {0};
    memcpy(some, from, (size_t)count * sizeof *from);
    return MM_SCALE_VEC(some);
}

// ---- many rows ---------------------------------------------------------------------------------

// The scales of the group that holds k, of MM_LANES columns from n on of which `count` exist.
MM_INLINE mm_vec mm_scales_at(const mm_args g, int64_t k, int64_t n, int64_t count)
{
    MM_SCALE_TYPE some[MM_LANES] = {0};
    for (int64_t r = 0; r < count; r++)
        some[r] = *mm_scales(g, k / MM_GROUP, n + r);
    return MM_SCALE_VEC(some);
}

// ---- few rows ----------------------------------------------------------------------------------

#define MM_UNIT (MM_GROUP % 64 ? 32 : 64) // codes of four bits that are read in one step

// sum += `rows` rows of `left` times weights of some columns. The four sums of a row alternate,
// whatever the number of rows, so that a row has the same bits alone and among others.
MM_INLINE void mm_add(
    const int rows, const int columns, const int turn, const mm_vec *b, const float *left,
    int64_t left_row, mm_vec sum[4][2][4])
{
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
    {
        const mm_vec a = mm_vec_load(left + r * left_row);
        _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++)
            sum[r][c][turn % 4] += a * b[c];
    }
}

#if MM_CODES_PER_BYTE == 1

MM_INLINE void mm_add_columns(
    const mm_args g, const int rows, const int columns, int64_t depth, int64_t n, const float *left,
    int64_t left_row, mm_vec sum[4][2][4])
{
    const int8_t *const codes = mm_right(g, 0, n); // one column at a time
    int64_t k = 0;
    for (; k + 4 * MM_LANES <= depth; k += 4 * MM_LANES) {
        MM_FETCH(codes + k);
        _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)
        {
            const mm_vec b = mm_weights(codes + k, i * MM_LANES, 1);
            mm_add(rows, 1, i, &b, left + k + i * MM_LANES, left_row, sum);
        }
    }
    for (; k < depth; k += MM_LANES) {
        const int64_t more = depth - k;
        const mm_vec b =
            more >= MM_LANES ? mm_weights(codes, k, 1) : mm_last_weights(codes, k, more);
        mm_add(rows, 1, 0, &b, left + k, left_row, sum);
    }
}

#else

MM_INLINE void mm_add_columns(
    const mm_args g, const int rows, const int columns, int64_t depth, int64_t n, const float *left,
    int64_t left_row, mm_vec sum[4][2][4])
{
    const int64_t groups = depth / MM_GROUP;
    const uint8_t *codes[2];
    _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++) codes[c] = mm_right(g, 0, n + c);
    for (int64_t done = 0; done < groups;) {
        // The last vector of scales overlaps the one before: a part of a vector is slow to load.
        const int64_t first = groups < MM_LANES ? 0 : mm_least(done, groups - MM_LANES);
        const int64_t end = mm_least(first + MM_LANES, groups);
        float scales[2][MM_LANES];
        _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++)
        {
            const MM_SCALE_TYPE *const from = mm_scales(g, first, n + c);
            mm_vec_store(
                scales[c],
                groups < MM_LANES ? mm_scales_part(from, groups) : MM_SCALE_VEC(from));
        }
        for (; done < end; done++) {
            mm_scale scale[2];
            _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++)
                scale[c] = mm_prepared(scales[c][done - first]);
            for (int unit = 0; unit < MM_GROUP / MM_UNIT; unit++) {
                _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++)
                    MM_FETCH(codes[c]);
                _Pragma("GCC unroll 16") for (int u = 0; u < MM_UNIT; u += MM_LANES)
                {
                    mm_vec b[2];
                    _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++)
                        b[c] = mm_weights(codes[c], u, scale[c]);
                    mm_add(rows, columns, u / MM_LANES, b, left + u, left_row, sum);
                }
                _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++)
                    codes[c] += MM_UNIT / 2;
                left += MM_UNIT;
            }
        }
    }
}

#endif

// made[r][c] = the terms of row r and column n + c, for up to four columns: a sum for each lane.
MM_INLINE void mm_column_terms(
    const mm_args g, const int rows, const int columns, int64_t depth, int64_t n, const float *left,
    int64_t left_row, const int to, mm_vec made[4][4])
{
    mm_vec sum[4][2][4];
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++)
            _Pragma("GCC unroll 4") for (int i = 0; i < 4; i++)
                sum[r][c][i] = (mm_vec){0};
    mm_add_columns(g, rows, columns, depth, n, left, left_row, sum);
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 2") for (int c = 0; c < columns; c++)
            made[r][to + c] = (sum[r][c][0] + sum[r][c][1]) + (sum[r][c][2] + sum[r][c][3]);
}

// ---- few rows by products of bytes -------------------------------------------------------------

// An instruction that multiplies unsigned bytes by signed ones and adds four products to each sum works
// on the codes directly: 35 GB/s where floats reach 27 (one row with 768 x 50257, as above). The
// rows become integers, x = q * 2^(e - 30) with |x| < 2^e for a whole row, and an integer four signed
// digits to base 256. Sums are exact until they become floats; rounding x to q costs each number at
// most 2^-31 of the largest |x|. Rows whose largest number is far above their mean, which would lose
// more than the products of floats do, are multiplied as floats; each row is decided for itself.
#if MM_CODES_PER_BYTE == 1 && MM_LANES == 16 && defined(__AVX512VNNI__)
#define MM_BYTE_PRODUCTS 1
#if defined(__clang__)
#define mm_add_byte_products __builtin_ia32_vpdpbusd512
#else
#define mm_add_byte_products __builtin_ia32_vpdpbusd_v16si
#endif
#else
#define MM_BYTE_PRODUCTS 0
#endif

#if MM_BYTE_PRODUCTS

#define MM_CHUNK (4 * MM_LANES) // codes that are multiplied by one instruction
#define MM_DIGITS 4
#define MM_HALF_BYTES ((mm_mask){0} + (int32_t)0x80808080)
#define MM_MOST_DEPTH (1 << 20) // deeper sums could overflow
#define MM_MOST_SPREAD 256.0f // of the largest |x| to the mean: then at most 2^-23 of the mean is lost
// A row: for each chunk its lowest digits, the next ones, ...; what sums begin with; 2^(e - 30).
#define MM_ROW_FLOATS(depth) (mm_round_up(depth, MM_CHUNK) + MM_DIGITS * MM_LANES + MM_LANES)
#define mm_row_start(row, left_row) ((row) + (left_row) - (MM_DIGITS + 1) * MM_LANES)
#define mm_row_unit(row, left_row) ((row)[(left_row) - MM_LANES])

MM_INLINE mm_mask mm_mask_load(const void *from)
{
    mm_mask value;
    memcpy(&value, from, sizeof value);
    return value;
}

static void mm_row_to_digits(float *row, int64_t left_row, uint32_t largest)
{
    const int32_t e = (int32_t)(largest >> 23) - 126;
    const float up = mm_as_float((uint32_t)(127 + 30 - e) << 23);
    float *const start = mm_row_start(row, left_row);
    mm_mask sums[MM_DIGITS] = {{0}};
    for (float *chunk = row; chunk < start; chunk += MM_CHUNK) {
        int32_t q[MM_CHUNK];
        // Adding 128 to a byte, with a carry into the next one, and taking it away without a borrow
        // gives the byte that is nearest to 0.
        #pragma omp simd
        for (int i = 0; i < MM_CHUNK; i++)
            q[i] = ((int32_t)mm_round(chunk[i] * up) + 0x808080) ^ 0x808080;
        _Pragma("GCC unroll 4") for (int d = 0; d < MM_DIGITS; d++)
        {
            int8_t *const digits = (int8_t *)chunk + d * MM_CHUNK;
            #pragma omp simd
            for (int i = 0; i < MM_CHUNK; i++)
                digits[i] = (int8_t)(q[i] >> 8 * d);
            sums[d] = mm_add_byte_products(sums[d], MM_HALF_BYTES, mm_mask_load(digits));
        }
    }
    for (int d = 0; d < MM_DIGITS; d++) { // codes are read as unsigned bytes, each 128 more than it is
        const mm_mask less = -sums[d];
        memcpy(start + d * MM_LANES, &less, sizeof less);
    }
    mm_row_unit(row, left_row) = mm_as_float((uint32_t)(127 + e - 30) << 23);
}

// The bits of the largest magnitude of a row; NaN and infinity are larger than every number.
static uint32_t mm_row_largest(const float *row, int64_t depth)
{
    uint32_t largest = 0;
    #pragma omp simd reduction(max : largest)
    for (int64_t k = 0; k < depth; k++) {
        const uint32_t bits = mm_as_bits(row[k]) & 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

// Makes digits of the rows. Those with numbers too far apart, with a largest one below 2^-96, so that
// 2^(30 - e) is not a float, or with one that is not finite are left as floats, with unit 0.
static void mm_prepare_rows(float *left, int64_t rows, int64_t left_row, int64_t depth)
{
    for (int64_t r = 0; r < rows; r++) {
        float *const row = left + r * left_row;
        const uint32_t largest = mm_row_largest(row, depth);
        float total = 0;
        #pragma omp simd reduction(+ : total)
        for (int64_t k = 0; k < depth; k++)
            total += mm_as_float(mm_as_bits(row[k]) & 0x7fffffffu);
        const uint32_t exponent = largest >> 23;
        const bool is_near = mm_as_float(largest) * (float)depth <= MM_MOST_SPREAD * total;
        if (depth <= MM_MOST_DEPTH && exponent > 30 && exponent < 255 && is_near)
            mm_row_to_digits(row, left_row, largest);
        else if (largest == 0)
            mm_row_to_digits(row, left_row, mm_as_bits(1.0f));
        else
            mm_row_unit(row, left_row) = 0;
    }
}

// Rows from the first of `rows` on, up to four, that are all digits or all floats.
MM_INLINE int64_t mm_rows_alike(const float *left, int64_t left_row, int64_t rows)
{
    int64_t count = 1;
    while (count < 4 && count < rows &&
           (mm_row_unit(left + count * left_row, left_row) != 0) == (mm_row_unit(left, left_row) != 0))
        count++;
    return count;
}

// As mm_column_terms, for one column.
MM_INLINE void mm_column_terms_of_digits(
    const mm_args g, const int rows, int64_t depth, int64_t n, const float *left, int64_t left_row,
    const int to, mm_vec made[4][4])
{
    const int8_t *const codes = mm_right(g, 0, n);
    mm_mask sum[4][MM_DIGITS];
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 4") for (int d = 0; d < MM_DIGITS; d++)
            sum[r][d] = mm_mask_load(mm_row_start(left + r * left_row, left_row) + d * MM_LANES);
    for (int64_t k = 0; k < depth; k += MM_CHUNK) {
        mm_mask b;
        if (depth - k >= MM_CHUNK) {
            MM_FETCH(codes + k);
            b = mm_mask_load(codes + k);
        } else {
            int8_t some[MM_CHUNK] = {0};
            memcpy(some, codes + k, (size_t)(depth - k));
            b = mm_mask_load(some);
        }
        b ^= MM_HALF_BYTES;
        _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
            _Pragma("GCC unroll 4") for (int d = 0; d < MM_DIGITS; d++)
            {
                const mm_mask a = mm_mask_load(left + r * left_row + k + d * MM_LANES);
                sum[r][d] = mm_add_byte_products(sum[r][d], b, a);
            }
    }
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
    {
        mm_vec whole = __builtin_convertvector(sum[r][3], mm_vec);
        whole = whole * 256 + __builtin_convertvector(sum[r][2], mm_vec);
        whole = whole * 256 + __builtin_convertvector(sum[r][1], mm_vec);
        whole = whole * 256 + __builtin_convertvector(sum[r][0], mm_vec);
        made[r][to] = whole * mm_row_unit(left + r * left_row, left_row);
    }
}

#endif

// Rows that are multiplied with one reading of the codes: each has four sums for a column. AVX2 has 16
// registers, and making floats of the codes again for every two rows costs less than sums in memory
// (four rows of int8 with 3072 x 768 on an AMD EPYC of the Zen 3 kind, November 2026: 0.37 and 0.44
// ms). It costs more with SSE2 (1.21 and 0.95 ms), which makes floats of codes in more instructions.
#if MM_LANES == 8 && defined(__AVX2__)
#define MM_ROWS_TOGETHER 2
#else
#define MM_ROWS_TOGETHER 4
#endif

// Columns that are read together where there are four: with two codes a byte the loads of `left`
// and the scales take as long as the codes, so that sharing them pays for one and two rows.
#define MM_COLUMNS_TOGETHER(rows) (MM_CODES_PER_BYTE == 2 && (rows) < MM_ROWS_TOGETHER ? 2 : 1)

// sums[r * sums_row + c] for `rows` rows and up to four columns.
MM_INLINE void mm_four_columns(
    const mm_args g, const int rows, int64_t columns, int64_t depth, int64_t n, const float *left,
    int64_t left_row, float *sums, int64_t sums_row)
{
    mm_vec made[4][4];
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 4; c++)
            made[r][c] = (mm_vec){0};
#if MM_BYTE_PRODUCTS
    if (mm_row_unit(left, left_row) != 0)
        for (int c = 0; c < columns; c++)
            mm_column_terms_of_digits(g, rows, depth, n + c, left, left_row, c, made);
    else
#endif
    if (columns == 4)
        for (int c = 0; c < 4; c += MM_COLUMNS_TOGETHER(rows))
            mm_column_terms(
                g, rows, MM_COLUMNS_TOGETHER(rows), depth, n + c, left, left_row, c, made);
    else
        for (int c = 0; c < columns; c++)
            mm_column_terms(g, rows, 1, depth, n + c, left, left_row, c, made);
    for (int r = 0; r < rows; r++) {
        float four[4];
        mm_sums_of_lanes(made[r], four);
        memcpy(sums + r * sums_row, four, (size_t)columns * sizeof(float));
    }
}

static void mm_dots_of_rows(
    const mm_args g, int64_t rows, int64_t depth, int64_t n, int64_t wide, const float *left,
    int64_t left_row, float *sums, int64_t sums_row)
{
    for (int64_t c = 0; c < wide; c += 4) {
        const int64_t columns = mm_least(4, wide - c);
        for (int64_t r = 0; r < rows;) {
            const float *const a = left + r * left_row;
            float *const out = sums + r * sums_row + c;
#if MM_BYTE_PRODUCTS
            const int64_t alike = mm_rows_alike(a, left_row, rows - r);
#else
            const int64_t alike = rows - r;
#endif
            const int height = alike >= 4 && MM_ROWS_TOGETHER == 4 ? 4 : alike >= 2 ? 2 : 1;
#define MM_CALL(R) mm_four_columns(g, R, columns, depth, n + c, a, left_row, out, sums_row)
            if (height == 4)
                MM_CALL(4);
            else if (height == 2)
                MM_CALL(2);
            else
                MM_CALL(1);
#undef MM_CALL
            r += height;
        }
    }
#if MM_CODES_PER_BYTE == 1
    for (int64_t c = 0; c < wide; c += MM_LANES) {
        const int64_t count = mm_least(MM_LANES, wide - c);
        float scales[MM_LANES];
        mm_vec_store(scales, mm_scales_at(g, 0, n + c, count));
        for (int64_t r = 0; r < rows; r++)
            for (int64_t i = 0; i < count; i++)
                sums[r * sums_row + c + i] *= scales[i];
    }
#endif
}
