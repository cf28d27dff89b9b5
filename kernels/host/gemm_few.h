// Products of few rows, as in decoding: the right operand is read once, unpacked, at memory bandwidth.

#ifndef MM_SHARED_ELSEWHERE

// Up to this many rows, reading the right operand unpacked beats packing it (measured with 768 x
// 3072 on 2 cores of an AMD EPYC with AVX-512, November 2026: 0.23 and 0.29 ms for 8 rows, 0.45 and
// 0.40 for 12; with AVX2 and rows of 768 contiguous elements: 0.32 and 0.49 ms, 0.13 and 0.12).
#ifndef MM_FEW_ROWS
#define MM_FEW_ROWS 8
#endif

// With AVX, more rows of floats than that beat packing where a column is contiguous, if they stay in the L2
// cache: they are read again for each four columns. A text of 9, 13, 16, 24 or 32 tokens takes MiniLM (depth 384
// and 1536) 0.71, 0.72, 0.75, 0.83 and 0.84 of the time (AMD EPYC, Zen 3, December 2026). With AVX-512, 13
// rows of these products take 0.55 to 0.75 of the time, 24 rows 0.65 to 0.95, 32 rows about as long (Emerald Rapids).
#define MM_MORE_ROWS 32
#define MM_MORE_FLOATS 49152 // 192 KB

// With AVX-512, so many rows of floats beat packing where a row of the right operand is contiguous: 9 to 16
// rows by 768 x 3072 take 0.5 to 0.8 of the time, by 768 x 768 0.8 to 1.05 (Emerald Rapids, December 2026).
#define MM_MORE_ROWS_OF_512 16

// How many rows are few.
MM_INLINE int64_t mm_most_few(int64_t depth)
{
    if (!MM_RIGHT_BY_DEPTH && MM_LANES == 16 && sizeof(MM_RIGHT_TYPE) == sizeof(float))
        return MM_MORE_ROWS_OF_512;
    const bool is_cheap =
        MM_RIGHT_BY_DEPTH && MM_LANES >= 8 && sizeof(MM_RIGHT_TYPE) == sizeof(float);
    const int64_t most = mm_least(MM_MORE_ROWS, MM_MORE_FLOATS / (depth + 1));
    return is_cheap && most > MM_FEW_ROWS ? most : MM_FEW_ROWS;
}

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

#define MM_LINE (64 / (int64_t)sizeof(MM_RIGHT_TYPE))
// Bytes of a row of the right operand up to which the processor does not find the next rows by itself.
// Measured with one row on 2 cores of an AMD EPYC (Zen 3), December 2026: prefetching takes 0.7 to 0.8
// of the time with 1.5 KB, as long with 0.1 KB, and 1.2 to 1.5 with 2 (of a matrix of 1024 columns) to 6.
#define MM_SHORT_PIECE 1536
#define MM_FEW_DEPTH 4 // rows of the right operand that are read together
#define MM_ONE_DEPTH 8 // the same for one row: eight streams are read faster than four

// sums[r][c] += left[r][0 to depth] @ right, for `rows` rows, and vectors of columns from c to `end`.
// Elements of the right operand that are `next` behind those are prefetched, unless it is 0.
MM_INLINE void mm_axpy(
    const int rows, const int depth, int64_t c, int64_t end, const float *left, int64_t left_row,
    const MM_RIGHT_TYPE *const *right, float *sums, int64_t sums_row, const int64_t next)
{
    mm_vec a[MM_FEW_GROUP][MM_ONE_DEPTH];
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 8") for (int k = 0; k < depth; k++)
            a[r][k] = mm_vec_fill(left[r * left_row + k]);
    for (; c + MM_LANES <= end; c += MM_LANES) {
        mm_vec b[MM_ONE_DEPTH];
        _Pragma("GCC unroll 8") for (int k = 0; k < depth; k++)
            b[k] = MM_RIGHT_VEC(right[k] + c);
        if (next != 0 && c % MM_LINE == 0)
            _Pragma("GCC unroll 8") for (int k = 0; k < depth; k++)
                __builtin_prefetch(right[k] + c + next);
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
    const bool is_short = rows == 1 && wide * (int64_t)sizeof(MM_RIGHT_TYPE) <= MM_SHORT_PIECE;
    const int64_t next = is_short ? together * g->right[0].step : 0;
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
#define MM_CALL(R, D) mm_axpy(R, D, 0, wide, a, left_row, right, out, sums_row, R == 1 ? next : 0)
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
    const int64_t most = mm_most_few(depth);
    float *const sums = (float *)room;
    for (int64_t n = first * f->step; n < mm_least(end * f->step, columns); n += f->step) {
        const int64_t wide = mm_least(f->step, columns - n);
        for (int64_t r0 = 0; r0 < f->count; r0 += most) {
            const int64_t rows = mm_least(most, f->count - r0);
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
    int64_t block = mm_round_up(MM_BLOCK_FLOATS / f.left_row + 1, mm_most_few(depth));
    block = mm_least(rows, block);
    f.left = mm_new_floats(buffers, block * f.left_row);
    if (!f.left)
        return;
    // Few enough that each thread has several, and that sums stay in the L1 cache.
    const int64_t together = mm_least(rows, mm_most_few(depth));
    const bool alone = mm_is_alone(buffers, scalars, rows * columns * depth);
    const int64_t wanted = alone ? 1 : MM_FEW_TASKS * mm_threads->count();
    f.step = mm_round_up((columns + wanted - 1) / wanted, MM_WIDE);
    f.step = mm_least(f.step, mm_round_up(4096 / together, MM_WIDE));
    const int64_t tasks = (columns + f.step - 1) / f.step;
    for (f.row0 = 0; f.row0 < rows; f.row0 += block) {
        f.count = mm_least(block, rows - f.row0);
        const bool is_few = alone || rows <= mm_most_few(depth);
        mm_parallel(mm_prepare_task, buffers, scalars, &f, f.count, is_few ? f.count : 4, 0);
        mm_parallel(
            mm_few_task, buffers, scalars, &f, tasks, alone ? tasks : 1,
            (size_t)(together * f.step) * sizeof(float));
    }
    mm_free_memory(f.left);
}

#endif
