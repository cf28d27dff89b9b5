// The packed operands of products of many rows, and the sums of a tile of them.

#ifndef MM_SHARED_ELSEWHERE

// A panel of MM_CHUNK units stays in half of an L1 cache of 32 KB with AVX2; MM_BLOCK_ROWS rows of that
// depth in a quarter of the L2, like the panels of a block of columns where it has 512 KB. Measured
// with those sizes: 320 or 384 units take 1.03 to 1.08 times as long, 60 rows up to 1.2. Larger caches
// have the same shares, which was not measured.
#define MM_CHUNK (MM_L1_NBYTES >= 48 << 10 && MM_LANES <= 8 ? 384 : 256)
#define MM_BLOCK_ROWS ((MM_L2_NBYTES / 16 / MM_CHUNK - MM_ROWS) / MM_ROWS * MM_ROWS)
#define MM_BLOCK_COLUMNS 128
#define MM_PART_ROWS (4 * MM_BLOCK_ROWS) // of a task: their sums stay in the L3 cache
#define MM_PACKED_UNITS 64               // of the left operand that are packed at a time

// Rows of the next tile, where `left` are left. With 16 vector registers, the last two tiles share
// their rows: one or two rows alone would wait for sums that are not there yet.
MM_INLINE int mm_next_rows(int64_t left)
{
    if (MM_ROWS > 8)
        return mm_tile_rows(left);
    return left <= MM_ROWS ? (int)left : left < 2 * MM_ROWS ? (int)((left + 1) / 2) : MM_ROWS;
}

// The end of a part of `count` rows: rows that would not fill a tile belong to the part before.
MM_INLINE int64_t mm_rows_end(int64_t end, int64_t count)
{
    return count - end < MM_ROWS ? count : end;
}

// How many such parts of `part` rows there are.
MM_INLINE int64_t mm_row_parts(int64_t count, int64_t part)
{
    return count < MM_ROWS ? 1 : (count - MM_ROWS) / part + 1;
}

// Interleaves rows: unit u of row r of `rows` goes to u * rows + r. A store of a vector also overwrites
// what follows its rows, which is stored later: there are vectors up to `safe`, single floats behind.
MM_INLINE void mm_interleave(
    float from[MM_ROWS][MM_PACKED_UNITS], int rows, int64_t count, float *to, const float *safe)
{
    int64_t u = 0;
    for (; u + MM_LANES <= count && to + (u + MM_LANES) * rows + MM_LANES <= safe; u += MM_LANES)
        for (int r0 = (rows - 1) / MM_LANES * MM_LANES; r0 >= 0; r0 -= MM_LANES) {
            mm_vec v[MM_LANES];
            _Pragma("GCC unroll 16") for (int r = 0; r < MM_LANES; r++)
                v[r] = r0 + r < rows ? mm_vec_load(from[r0 + r] + u) : (mm_vec){0};
            mm_transpose(v);
            _Pragma("GCC unroll 16") for (int r = 0; r < MM_LANES; r++)
                mm_vec_store(to + (u + r) * rows + r0, v[r]);
        }
    for (; u < count; u++)
        for (int r = 0; r < rows; r++)
            to[u * rows + r] = from[r][u];
}

// Units first to end of row r of a tile of R rows go to (u - first) * R + r.
static void mm_pack_tile(
    const mm_args g, int64_t row, int rows, int64_t first, int64_t end, int64_t depth, float *to)
{
    float some[MM_ROWS][MM_PACKED_UNITS];
    const float *const safe = to + (end - first) * rows;
    for (int64_t u = first; u < end; u += MM_PACKED_UNITS) {
        const int64_t count = mm_least(MM_PACKED_UNITS, end - u);
        for (int r = 0; r < rows; r++)
            g->left(g, row + r, u, count, some[r]);
        mm_interleave(some, rows, count, to + (u - first) * rows, safe);
    }
}

// From a column to the next in the panels of a block, counted in floats: panels whose distance is a
// power of two would share a few sets of the L1 cache.
#define MM_PANEL_STEP (MM_CHUNK + 1)

#if MM_RIGHT_BY_DEPTH

// Depth k to `end` of `wide` columns from n0 on: unit u of column n goes to u * MM_WIDE + n; missing
// columns are 0.
static void mm_pack_panel(
    const mm_args g, int64_t n0, int64_t wide, int64_t k, int64_t end, float *to)
{
    // One half after the other: rows that are a power of two apart share a few sets of the L1 cache.
    for (int64_t half = 0; half < MM_WIDE; half += MM_LANES) {
        float *into = to + half;
        const MM_RIGHT_TYPE *column[MM_LANES];
        for (int r = 0; r < MM_LANES; r++)
            column[r] = mm_right(g, 0, n0 + (half + r < wide ? half + r : 0));
        for (int64_t from = k; from < end; from += MM_LANES * MM_TERMS) {
            const int64_t left = end - from;
            mm_vec v[MM_LANES];
            if (left >= MM_LANES * MM_TERMS && half + MM_LANES <= wide) {
                _Pragma("GCC unroll 16") for (int r = 0; r < MM_LANES; r++)
                    v[r] = MM_RIGHT_UNITS(column[r] + from);
            } else {
                for (int r = 0; r < MM_LANES; r++)
                    v[r] = half + r < wide
                        ? mm_right_units_part(column[r] + from, left)
                        : (mm_vec){0};
            }
            mm_transpose(v);
            _Pragma("GCC unroll 16") for (int r = 0; r < MM_LANES; r++, into += MM_WIDE)
                mm_vec_store(into, v[r]);
        }
    }
}

// The panels of a block of columns; that of column n begins at n * step.
static void mm_pack_block(
    const mm_args g, int64_t n0, int64_t columns, int64_t k, int64_t end, float *to, int64_t step)
{
    for (int64_t n = 0; n < columns; n += MM_WIDE)
        mm_pack_panel(g, n0 + n, mm_least(MM_WIDE, columns - n), k, end, to + n * step);
}

#else

#define MM_ROWS_AHEAD 8 // of the right operand, which are prefetched: each may be in another page

// Depth k and, with pairs, k + 1 of a vector of columns, of which `wide` exist.
MM_INLINE mm_vec mm_right_unit(const mm_args g, int64_t k, int64_t end, int64_t n, int64_t wide)
{
    mm_vec v[MM_TERMS];
    for (int i = 0; i < MM_TERMS; i++) {
        v[i] = (mm_vec){0};
        if (k + i < end && wide >= MM_LANES)
            v[i] = MM_RIGHT_VEC(mm_right(g, k + i, n));
        else if (k + i < end && wide > 0)
            v[i] = mm_right_part(mm_right(g, k + i, n), wide);
    }
#if MM_PAIRS
    v[0] = (mm_vec)((mm_words)v[0] >> 16 | (mm_words)v[1]);
#endif
    return v[0];
}

// The panels of a block of columns, depth k to `end`; that of column n begins at n * step: unit u of
// column n of a panel goes to u * MM_WIDE + n; missing columns are 0.
static void mm_pack_block(
    const mm_args g, int64_t n0, int64_t columns, int64_t k, int64_t end, float *to, int64_t step)
{
    const int64_t line = 64 / (int64_t)sizeof(MM_RIGHT_TYPE);
    for (; k < end; k += MM_TERMS, to += MM_WIDE) {
        for (int64_t n = 0; n < columns && k + MM_ROWS_AHEAD < end; n += line)
            __builtin_prefetch(mm_right(g, k + MM_ROWS_AHEAD, n0 + n));
        for (int64_t n = 0; n < columns; n += MM_WIDE)
            for (int64_t half = 0; half < MM_WIDE; half += MM_LANES)
                mm_vec_store(
                    to + n * step + half,
                    mm_right_unit(g, k, end, n0 + n + half, columns - n - half));
    }
}

#endif

// Calls CALL with a constant, of those that mm_next_rows returns.
#if MM_ROWS == 6
#define MM_FOR_NEXT_ROWS(rows, CALL)                                                             \
    switch (rows) {                                                                              \
    case 1: CALL(1); break;                                                                      \
    case 2: CALL(2); break;                                                                      \
    case 3: CALL(3); break;                                                                      \
    case 4: CALL(4); break;                                                                      \
    case 5: CALL(5); break;                                                                      \
    default: CALL(6); break;                                                                     \
    }
#else
#define MM_FOR_NEXT_ROWS MM_FOR_ROWS
#endif

// A tile of sums over units of the depth; `resumes` adds them to those of the units before.
static __attribute__((noinline)) void mm_gemm_tile(
    int rows, int64_t units, const float *left, const float *panel, float *out, bool resumes)
{
    static const float ones[MM_ROWS] = {[0 ... MM_ROWS - 1] = 1};
#define MM_CALL(R)                                                                               \
    do {                                                                                         \
        if (resumes)                                                                             \
            mm_tile(R, units, left, 1, R, panel, out, MM_WIDE, ones, NULL, 0);                   \
        else                                                                                     \
            mm_tile(R, units, left, 1, R, panel, out, MM_WIDE, NULL, NULL, 0);                   \
    } while (0)
    MM_FOR_NEXT_ROWS(rows, MM_CALL)
#undef MM_CALL
}

#endif
