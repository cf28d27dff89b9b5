// Matrix products: finish(left @ right), where the epilogue is applied to a sum while it is in the L1
// cache. Every sum runs over the whole depth in a fixed order, independent of the number of threads.
// It is also independent of the number of rows among products of many rows, and among those of up to
// MM_FEW_ROWS rows if rows of the right operand are contiguous.
//
// Many rows: the left operand is packed into tiles once. A task is a block of columns and a part of
// the rows: for MM_CHUNK units of the depth after the other it packs the right operand into panels,
// and adds to all sums, which stay in memory in between.
// Source: K. Goto and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, ACM TOMS
// 34 (2008); F. G. Van Zee and R. van de Geijn, BLIS, ACM TOMS 41 (2015).
// Measured in float32 on 2 cores of an AMD EPYC (Zen 3, AVX2), December 2026: 0.95 to 1.02 times the
// GFLOP/s of OpenBLAS for 64 to 2048 rows; over the whole depth at once it was 0.47 to 1.1.
//
// Few rows, as in decoding: the right operand is read once, unpacked, at memory bandwidth.
//
// The code before this defines MM_RIGHT_TYPE and MM_RIGHT_VEC (how elements of the right operand are
// stored and loaded) and MM_RIGHT_BY_DEPTH: 1 if the elements of a column of it are contiguous in
// memory, 0 if those of a row are. Products with quantised weights have files of their own.
// All of this is compiled once for many kernels: products.h precedes it, one_product.h follows; with
// MM_SHARED_ELSEWHERE it is in another library.

#ifdef MM_SHARED_ELSEWHERE
void (*mm_run_shared)(void *const *buffers, const int64_t *scalars); // set when a kernel is loaded
#else

// Up to this many rows, reading the right operand unpacked beats packing it (measured with 768 x
// 3072 on 2 cores of an AMD EPYC with AVX-512, November 2026: 0.23 and 0.29 ms for 8 rows, 0.45 and
// 0.40 for 12; with AVX2 and rows of 768 contiguous elements: 0.32 and 0.49 ms, 0.13 and 0.12).
#ifndef MM_FEW_ROWS
#define MM_FEW_ROWS 8
#endif
#define MM_BLOCK_FLOATS (1 << 21) // of the packed left operand: 8 MB stay in an L3 cache

// A panel of MM_CHUNK units (16 KB with AVX2) stays in the L1 cache; MM_BLOCK_ROWS rows of that depth
// and the panels of a block of columns (120 KB each) in the L2. Measured where the L1 has 32 KB and
// the L2 512 KB: 320 or 384 units take 1.03 to 1.08 times as long, with 60 rows up to 1.2.
#define MM_CHUNK 256
#define MM_BLOCK_ROWS (120 / MM_ROWS * MM_ROWS)
#define MM_BLOCK_COLUMNS 128
#define MM_PART_ROWS (4 * MM_BLOCK_ROWS) // of a task: their sums stay in the L3 cache
#define MM_PACKED_UNITS 64               // of the left operand that are packed at a time

// Operands are kept in units of the depth: an element, or a pair of bfloat16 in place of a float.
#define MM_TERMS (MM_PAIRS ? 2 : 1)
#if MM_PAIRS
#define MM_RIGHT_UNITS(from) mm_vec_load((const float *)(from))
#else
#define MM_RIGHT_UNITS(from) MM_RIGHT_VEC(from)
#endif

MM_INLINE int64_t mm_units(int64_t depth)
{
    return (depth + MM_TERMS - 1) / MM_TERMS;
}

// True if a product is multiplied by its caller alone.
MM_INLINE bool mm_is_alone(void *const *buffers, const int64_t *scalars, int64_t terms)
{
    if (mm_arguments(buffers, scalars)->alone)
        return true;
    (void)buffers, (void)scalars;
    return terms <= MM_PARALLEL_TERMS;
}

static void mm_finish_rows(
    const mm_args g, int64_t row, int64_t rows, int64_t n0, int64_t count, const float *sums,
    int64_t sums_row)
{
    g->finish(g, row, rows, n0, count, sums, sums_row);
}

// ---- many rows ---------------------------------------------------------------------------------

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

// Units first to end of row r of a tile of R rows go to (u - first) * R + r.
static void mm_pack_tile(
    const mm_args g, int64_t row, int rows, int64_t first, int64_t end, int64_t depth, float *to)
{
    float some[MM_ROWS][MM_PACKED_UNITS];
    for (int64_t u0 = first; u0 < end; u0 += MM_PACKED_UNITS) {
        const int64_t count = mm_least(MM_PACKED_UNITS, end - u0);
        for (int r = 0; r < rows; r++) {
            g->left(g, row + r, u0, count, some[r]);
        }
        for (int64_t u = 0; u < count; u++)
            for (int r = 0; r < rows; r++)
                to[(u0 - first + u) * rows + r] = some[r][u];
    }
}

// A vector of consecutive elements of the right operand; `count` of them exist.
MM_INLINE mm_vec mm_right_part(const MM_RIGHT_TYPE *from, int64_t count)
{
    MM_RIGHT_TYPE some[MM_LANES] = {0};
    memcpy(some, from, (size_t)count * sizeof *from);
    return MM_RIGHT_VEC(some);
}

// The same for units along the depth.
MM_INLINE mm_vec mm_right_units_part(const MM_RIGHT_TYPE *from, int64_t count)
{
    MM_RIGHT_TYPE some[MM_LANES * MM_TERMS] = {0};
    memcpy(some, from, (size_t)mm_least(count, MM_LANES * MM_TERMS) * sizeof *from);
    return MM_RIGHT_UNITS(some);
}

// Where a panel of a block begins, counted in floats: panels whose distance is a power of two would
// share a few sets of the L1 cache.
#define MM_PANEL(n) ((n) * (MM_CHUNK + 1))

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

// The panels of a block of columns.
static void mm_pack_block(
    const mm_args g, int64_t n0, int64_t columns, int64_t k, int64_t end, float *to)
{
    for (int64_t n = 0; n < columns; n += MM_WIDE)
        mm_pack_panel(g, n0 + n, mm_least(MM_WIDE, columns - n), k, end, to + MM_PANEL(n));
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

// The panels of a block of columns, depth k to `end`: unit u of column n of a panel goes to
// u * MM_WIDE + n; missing columns are 0.
static void mm_pack_block(
    const mm_args g, int64_t n0, int64_t columns, int64_t k, int64_t end, float *to)
{
    const int64_t line = 64 / (int64_t)sizeof(MM_RIGHT_TYPE);
    for (; k < end; k += MM_TERMS, to += MM_WIDE) {
        for (int64_t n = 0; n < columns && k + MM_ROWS_AHEAD < end; n += line)
            __builtin_prefetch(mm_right(g, k + MM_ROWS_AHEAD, n0 + n));
        for (int64_t n = 0; n < columns; n += MM_WIDE)
            for (int64_t half = 0; half < MM_WIDE; half += MM_LANES)
                mm_vec_store(
                    to + MM_PANEL(n) + half,
                    mm_right_unit(g, k, end, n0 + n + half, columns - n - half));
    }
}

#endif

// A tile of sums over units of the depth; `resumes` adds them to those of the units before.
static __attribute__((noinline)) void mm_gemm_tile(
    int rows, int64_t units, const float *left, const float *panel, float *out, bool resumes,
    const char *soon)
{
    static const float ones[MM_ROWS] = {[0 ... MM_ROWS - 1] = 1};
#define MM_CALL(R)                                                                               \
    do {                                                                                         \
        if (resumes)                                                                             \
            mm_tile(R, units, left, 1, R, panel, out, MM_WIDE, ones, soon, 64);                  \
        else                                                                                     \
            mm_tile(R, units, left, 1, R, panel, out, MM_WIDE, NULL, soon, 64);                  \
    } while (0)
#if MM_ROWS == 6
    switch (rows) {
    case 1: MM_CALL(1); break;
    case 2: MM_CALL(2); break;
    case 3: MM_CALL(3); break;
    case 4: MM_CALL(4); break;
    case 5: MM_CALL(5); break;
    default: MM_CALL(6); break;
    }
#else
    MM_FOR_ROWS(rows, MM_CALL)
#endif
#undef MM_CALL
}

typedef struct {
    float *packed;       // tiles of the left operand
    int64_t row0, count; // the rows that are packed
    int64_t part, parts; // rows of a task, and tasks for one block of columns
    int64_t block;       // columns of a task
} mm_many;

// Where units from `first` on of the tile that begins at packed row r are, if `units` follow there.
MM_INLINE float *mm_packed(const mm_many *m, int64_t r, int64_t first, int64_t units)
{
    return m->packed + first * m->count + r * units;
}

// Packs tiles of the left operand, one part of the depth after the other.
static void mm_pack_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_many *const m = shared;
    const int64_t depth = mm_depth(g), units = mm_units(depth);
    const int64_t last = mm_rows_end(end * MM_ROWS, m->count);
    for (int64_t r = first * MM_ROWS; r < last;) {
        const int height = mm_next_rows(m->count - r);
        for (int64_t u = 0; u < units; u += MM_CHUNK) {
            const int64_t stop = mm_least(u + MM_CHUNK, units);
            mm_pack_tile(g, m->row0 + r, height, u, stop, depth, mm_packed(m, r, u, stop - u));
        }
        r += height;
    }
    (void)room;
}

// Rows `first` to `end` of the packed ones times one panel, for units from `u0` on. Sums that do
// not end here are kept in `sums`, tile after tile; others are finished.
static void mm_gemm_panel(
    const mm_args g, const mm_many *m, int64_t first, int64_t end, int64_t n0, int64_t wide,
    int64_t u0, int64_t units, bool is_last, const float *panel, float *sums, int64_t column)
{
    _Alignas(64) float some[MM_ROWS * MM_WIDE];
    for (int64_t r0 = first; r0 < end;) {
        const int rows = mm_next_rows(m->count - r0);
        float *const out = sums ? sums + (r0 - first) * m->block + column * rows : some;
        mm_gemm_tile(rows, units, mm_packed(m, r0, u0, units), panel, out, u0 > 0, NULL);
        if (is_last)
            mm_finish_rows(g, m->row0 + r0, rows, n0, wide, out, MM_WIDE);
        r0 += rows;
    }
}

// A block of columns times a part of the packed rows, one part of the depth after the other: its
// panels stay in the L2 cache, with a few tiles of the left operand, and one of them in the L1.
static void mm_block_task(
    const mm_args g, const mm_many *m, int64_t r0, int64_t r1, int64_t n0, int64_t columns,
    float *panels, float *sums)
{
    const int64_t depth = mm_depth(g), units = mm_units(depth);
    for (int64_t u = 0; u < units || u == 0; u += MM_CHUNK) {
        const int64_t count = mm_least(MM_CHUNK, units - u);
        const bool is_last = u + count >= units;
        mm_pack_block(
            g, n0, columns, u * MM_TERMS, mm_least(depth, (u + count) * MM_TERMS), panels);
        for (int64_t r = r0, stop; r < r1; r = stop) {
            stop = mm_rows_end(r + MM_BLOCK_ROWS, r1);
            for (int64_t n = 0; n < columns; n += MM_WIDE)
                mm_gemm_panel(
                    g, m, r, stop, n0 + n, mm_least(MM_WIDE, columns - n), u, count, is_last,
                    panels + MM_PANEL(n), sums ? sums + (r - r0) * m->block : NULL, n);
        }
    }
}

static void mm_panel_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_many *const m = shared;
    const int64_t columns = mm_columns(g);
    float *const panels = (float *)room;
    float *const sums = mm_units(mm_depth(g)) > MM_CHUNK ? panels + MM_PANEL(m->block) : NULL;
    for (int64_t task = first; task < end; task++) {
        const int64_t n0 = task / m->parts * m->block;
        const int64_t r0 = task % m->parts * m->part;
        mm_block_task(
            g, m, r0, mm_rows_end(r0 + m->part, m->count), n0, mm_least(m->block, columns - n0), panels,
            sums);
    }
}

static void mm_many_rows(
    void *const *buffers, const int64_t *scalars, int64_t rows, int64_t columns, int64_t depth)
{
    const int64_t units = mm_units(depth);
    const bool alone = mm_is_alone(buffers, scalars, rows * columns * depth);
    const int64_t wanted = alone ? 1 : 4 * mm_threads->count();
    // Rows that are packed together, and the part of them and the columns that are one task.
    int64_t block = MM_BLOCK_FLOATS / (units + 1) / MM_ROWS * MM_ROWS;
    block = mm_least(rows, block < 8 * MM_ROWS ? 8 * MM_ROWS : block);
    mm_many m = {.packed = mm_new_floats(buffers, block * units)};
    if (!m.packed)
        return;
    m.block = mm_round_up((columns + wanted - 1) / wanted, MM_WIDE);
    m.block = mm_least(m.block, MM_BLOCK_COLUMNS);
    const int64_t blocks = (columns + m.block - 1) / m.block;
    const int64_t wanted_parts = (wanted + blocks - 1) / blocks;
    m.part = mm_round_up((block + wanted_parts - 1) / wanted_parts, MM_ROWS);
    m.part = mm_least(m.part, MM_PART_ROWS);
    const int64_t sums = units > MM_CHUNK ? m.part + MM_ROWS : 0;
    const size_t room = (size_t)(MM_PANEL(m.block) + m.block * sums) * sizeof(float);
    for (m.row0 = 0; m.row0 < rows; m.row0 += block) {
        m.count = mm_least(block, rows - m.row0);
        m.parts = mm_row_parts(m.count, m.part);
        const int64_t tiles = mm_row_parts(m.count, MM_ROWS);
        const int64_t tasks = blocks * m.parts;
        mm_parallel(mm_pack_task, buffers, scalars, &m, tiles, alone ? tiles : 1, 0);
        mm_parallel(mm_panel_task, buffers, scalars, &m, tasks, alone ? tasks : 1, room);
    }
    mm_free_memory(m.packed);
}

// ---- few rows ----------------------------------------------------------------------------------

#define MM_ROW_FLOATS(depth) (mm_round_up(depth, MM_LANES) + MM_LANES)
// Rows that are multiplied with one load of the right operand: four times as many sums fit into 32
// vector registers, three times into 16.
#define MM_FEW_GROUP (MM_ROWS > 8 ? 4 : 3)

// So many of the rows that are left.
MM_INLINE int mm_few_group(int64_t left)
{
    if (left >= MM_FEW_GROUP && left != 4)
        return MM_FEW_GROUP;
    return left >= 4 && MM_FEW_GROUP == 4 ? 4 : left >= 2 ? 2 : 1;
}

#if MM_RIGHT_BY_DEPTH

// sums[r * sums_row + c] for `rows` rows of `left` and `columns` columns of the right operand. Each
// sum is made of `parts` sums of vectors: one row needs several to hide the latency of an
// addition, and reads a single stream, which gives the best bandwidth.
MM_INLINE void mm_dots(
    const mm_args g, const int rows, const int columns, const int parts, int64_t depth, int64_t n,
    const float *left, int64_t left_row, float *sums, int64_t sums_row)
{
    mm_vec sum[MM_FEW_GROUP][2][4] = {{{{0}}}};
    const MM_RIGHT_TYPE *right[4];
    _Pragma("GCC unroll 4") for (int c = 0; c < columns; c++)
        right[c] = mm_right(g, 0, n + c);
    int64_t k = 0;
    const int64_t step = MM_LANES * MM_TERMS;
    for (; k + parts * step <= depth; k += parts * step) {
        _Pragma("GCC unroll 4") for (int p = 0; p < parts; p++)
        {
            mm_vec b[4];
            _Pragma("GCC unroll 4") for (int c = 0; c < columns; c++)
                b[c] = MM_RIGHT_UNITS(right[c] + k + p * step);
            _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
            {
                const mm_vec a = mm_vec_load(left + r * left_row + k / MM_TERMS + p * MM_LANES);
                _Pragma("GCC unroll 4") for (int c = 0; c < columns; c++)
                    sum[r][p][c] = mm_add_products(sum[r][p][c], a, b[c]);
            }
        }
    }
    for (; k < depth; k += step) {
        _Pragma("GCC unroll 4") for (int c = 0; c < columns; c++)
        {
            const mm_vec b = mm_right_units_part(right[c] + k, depth - k);
            _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
            {
                const mm_vec a = mm_vec_load(left + r * left_row + k / MM_TERMS);
                sum[r][0][c] = mm_add_products(sum[r][0][c], a, b);
            }
        }
    }
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
    {
        float four[4];
        if (parts > 1)
            _Pragma("GCC unroll 4") for (int c = 0; c < columns; c++)
                sum[r][0][c] += sum[r][1][c];
        mm_sums_of_lanes(sum[r][0], four);
        memcpy(sums + r * sums_row, four, columns * sizeof(float));
    }
}

static void mm_dots_of_rows(
    const mm_args g, int64_t rows, int64_t depth, int64_t n, int64_t wide, const float *left,
    int64_t left_row, float *sums, int64_t sums_row)
{
    for (int64_t c = 0; c < wide;) {
        const int step = wide - c >= 4 ? 4 : 1;
        for (int64_t r = 0; r < rows;) {
            const int height = step == 1 ? 1 : mm_few_group(rows - r);
            const float *const a = left + r * left_row;
            float *const out = sums + r * sums_row + c;
#define MM_CALL(R, C, P) mm_dots(g, R, C, P, depth, n + c, a, left_row, out, sums_row)
            if (step == 1)
                MM_CALL(1, 1, 2);
            else if (height == 1)
                MM_CALL(1, 4, 2);
            else if (height == 2)
                MM_CALL(2, 4, 1);
            else
                MM_CALL(MM_FEW_GROUP, 4, 1);
#undef MM_CALL
            r += height;
        }
        c += step;
    }
}

#else

#define MM_FEW_DEPTH 4 // rows of the right operand that are read together
#define MM_ONE_DEPTH 8 // the same for one row: eight streams are read faster than four

// sums[r][c] += left[r][0 to depth] @ right, for `rows` rows, and vectors of columns from c to `end`.
MM_INLINE void mm_axpy(
    const int rows, const int depth, int64_t c, int64_t end, const float *left, int64_t left_row,
    const MM_RIGHT_TYPE *const *right, float *sums, int64_t sums_row)
{
    mm_vec a[MM_FEW_GROUP][MM_ONE_DEPTH];
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 8") for (int k = 0; k < depth; k++)
            a[r][k] = mm_vec_fill(left[r * left_row + k]);
    for (; c + MM_LANES <= end; c += MM_LANES) {
        mm_vec b[MM_ONE_DEPTH];
        _Pragma("GCC unroll 8") for (int k = 0; k < depth; k++)
            b[k] = MM_RIGHT_VEC(right[k] + c);
        _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
        {
            mm_vec sum = mm_vec_load(sums + r * sums_row + c);
            _Pragma("GCC unroll 8") for (int k = 0; k < depth; k++)
                sum += a[r][k] * b[k];
            mm_vec_store(sums + r * sums_row + c, sum);
        }
    }
    for (; c < end; c += MM_LANES)
        for (int r = 0; r < rows; r++) {
            mm_vec sum = mm_vec_load(sums + r * sums_row + c);
            for (int k = 0; k < depth; k++)
                sum += a[r][k] * mm_right_part(right[k] + c, end - c);
            mm_vec_store(sums + r * sums_row + c, sum);
        }
}

static void mm_dots_of_rows(
    const mm_args g, int64_t rows, int64_t depth, int64_t n, int64_t wide, const float *left,
    int64_t left_row, float *sums, int64_t sums_row)
{
    const int together = rows == 1 ? MM_ONE_DEPTH : MM_FEW_DEPTH;
    memset(sums, 0, (size_t)rows * sums_row * sizeof(float));
    for (int64_t k = 0; k < depth;) {
        const int step = depth - k >= together ? together : 1;
        const MM_RIGHT_TYPE *right[MM_ONE_DEPTH];
        for (int i = 0; i < step; i++)
            right[i] = mm_right(g, k + i, n);
        for (int64_t r = 0; r < rows;) {
            const float *const a = left + r * left_row + k;
            float *const out = sums + r * sums_row;
            const int height = step == 1 ? 1 : mm_few_group(rows - r);
#define MM_CALL(R, D) mm_axpy(R, D, 0, wide, a, left_row, right, out, sums_row)
            if (step == 1)
                MM_CALL(1, 1);
            else if (rows == 1)
                MM_CALL(1, MM_ONE_DEPTH);
            else if (height == 1)
                MM_CALL(1, MM_FEW_DEPTH);
            else if (height == 2)
                MM_CALL(2, MM_FEW_DEPTH);
            else
                MM_CALL(MM_FEW_GROUP, MM_FEW_DEPTH);
#undef MM_CALL
            r += height;
        }
        k += step;
    }
}

#endif

// Tasks for each thread. Rows of the right operand are read in pieces as long as possible: where they
// are cut into 16, one row takes up to 1.5 times as long.
#define MM_FEW_TASKS (MM_RIGHT_BY_DEPTH ? 8 : 1)

typedef struct {
    float *left;         // rows, one after the other
    int64_t left_row;    // from one to the next
    int64_t row0, count; // which they are
    int64_t step;        // columns of a task
} mm_few;

static void mm_few_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_few *const f = shared;
    const int64_t columns = mm_columns(g), depth = mm_depth(g);
    float *const sums = (float *)room;
    for (int64_t n = first * f->step; n < mm_least(end * f->step, columns); n += f->step) {
        const int64_t wide = mm_least(f->step, columns - n);
        for (int64_t r0 = 0; r0 < f->count; r0 += MM_FEW_ROWS) {
            const int64_t rows = mm_least(MM_FEW_ROWS, f->count - r0);
            const float *const left = f->left + r0 * f->left_row;
            mm_dots_of_rows(g, rows, depth, n, wide, left, f->left_row, sums, f->step);
            for (int64_t c = 0; c < wide; c += MM_WIDE)
                mm_finish_rows(
                    g, f->row0 + r0, rows, n + c, mm_least(MM_WIDE, wide - c), sums + c, f->step);
        }
    }
}

static void mm_prepare_row(const mm_args g, int64_t r, int64_t depth, float *row, int64_t left_row)
{
#if MM_RIGHT_BY_DEPTH
    const int64_t units = mm_units(depth);
#else
    const int64_t units = depth;
#endif
    (MM_RIGHT_BY_DEPTH ? g->left : g->elements)(g, r, 0, units, row);
    memset(row + units, 0, (size_t)(left_row - units) * sizeof *row);
}

static void mm_prepare_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_few *const f = shared;
    for (int64_t r = first; r < end; r++)
        mm_prepare_row(g, f->row0 + r, mm_depth(g), f->left + r * f->left_row, f->left_row);
    (void)room;
}

static void mm_few_rows(
    void *const *buffers, const int64_t *scalars, int64_t rows, int64_t columns, int64_t depth)
{
    // Rows a power of two apart would share a few sets of the L1 cache.
    mm_few f = {.left_row = MM_ROW_FLOATS(depth)};
    int64_t block = mm_round_up(MM_BLOCK_FLOATS / f.left_row + 1, MM_FEW_ROWS);
    block = mm_least(rows, block);
    f.left = mm_new_floats(buffers, block * f.left_row);
    if (!f.left)
        return;
    // Few enough that each thread has several, and that sums stay in the L1 cache.
    const int64_t together = mm_least(rows, MM_FEW_ROWS);
    const bool alone = mm_is_alone(buffers, scalars, rows * columns * depth);
    const int64_t wanted = alone ? 1 : MM_FEW_TASKS * mm_threads->count();
    f.step = mm_round_up((columns + wanted - 1) / wanted, MM_WIDE);
    f.step = mm_least(f.step, mm_round_up(4096 / together, MM_WIDE));
    const int64_t tasks = (columns + f.step - 1) / f.step;
    for (f.row0 = 0; f.row0 < rows; f.row0 += block) {
        f.count = mm_least(block, rows - f.row0);
        const bool is_few = alone || rows <= MM_FEW_ROWS;
        mm_parallel(mm_prepare_task, buffers, scalars, &f, f.count, is_few ? f.count : 4, 0);
        mm_parallel(
            mm_few_task, buffers, scalars, &f, tasks, alone ? tasks : 1,
            (size_t)(together * f.step) * sizeof(float));
    }
    mm_free_memory(f.left);
}

static __attribute__((noinline)) void mm_run_shared(
    void *const *mm_buffers, const int64_t *mm_scalars)
{
    const mm_args g = mm_arguments(mm_buffers, mm_scalars);
    const int64_t rows = mm_rows(g), columns = mm_columns(g), depth = mm_depth(g);
    if (rows == 0 || columns == 0)
        return;
    if (rows <= MM_FEW_ROWS)
        mm_few_rows(mm_buffers, mm_scalars, rows, columns, depth);
    else
        mm_many_rows(mm_buffers, mm_scalars, rows, columns, depth);
}

#endif

#undef mm_args
#undef mm_arguments
#undef mm_rows
#undef mm_columns
#undef mm_depth
#undef mm_right
