// Products of many rows with quantised weights, where every row has the bits that it has alone: sums
// are made in the order of quantized.h. There a row and a column have four sums of a vector each, which
// take turns with the vectors along the depth. Four sums for each element of a tile would not fit
// registers, but the sums do not meet before the end, so that one is made after the other.
//
// The rows are copied once; each thread makes floats of MM_WIDE columns, which then stay in its L2
// cache, and multiplies all rows with them.

#if !MM_BYTE_PRODUCTS

// Rows of a tile, with four columns: their sums, one column and the rows fill the registers.
#if MM_LANES == 16 || defined(__aarch64__)
#define MM_DOT_ROWS 6
#else
#define MM_DOT_ROWS 3
#endif

// Sums that take turns: fewer where a step of four-bit codes has fewer vectors.
#if MM_CODES_PER_BYTE == 2 && MM_UNIT / MM_LANES < 4
#define MM_TURNS (MM_UNIT / MM_LANES)
#else
#define MM_TURNS 4
#endif

static void mm_finish_row(
    const mm_args g, int64_t row, int64_t n0, int64_t count, const float *sums);

// A row, or a column, is kept turn after turn: first the vectors of the first sum, with those at the
// end that do not take turns, and so on. A slice of a turn of all columns stays in the L1 cache.
typedef struct {
    int64_t depth, each; // floats, and those from one row to the next
    int64_t whole;       // floats that take turns
} mm_turns;

#define MM_SLICE 256
#define MM_PART 48 // rows of a task: their sums stay in the L2 cache

MM_INLINE mm_turns mm_turns_of(int64_t depth)
{
    const int64_t step = MM_TURNS * MM_LANES;
    return (mm_turns){depth, mm_round_up(depth, MM_LANES) + MM_LANES, depth / step * step};
}

MM_INLINE int64_t mm_turn_start(const mm_turns t, int64_t turn)
{
    const int64_t rest = mm_round_up(t.depth - t.whole, MM_LANES);
    return turn * (t.whole / MM_TURNS) + (turn > 0 ? rest : 0);
}

// Where the vector from element k on is kept.
MM_INLINE int64_t mm_turn_place(const mm_turns t, int64_t k)
{
    if (k >= t.whole)
        return t.whole / MM_TURNS + k - t.whole;
    const int64_t number = k / MM_LANES;
    return mm_turn_start(t, number % MM_TURNS) + number / MM_TURNS * MM_LANES;
}

// The same for column n of MM_WIDE: slices follow each other, each with a piece of every column.
MM_INLINE int64_t mm_panel_place(const mm_turns t, int64_t k, int64_t n)
{
    const int64_t place = mm_turn_place(t, k);
    const int64_t turn = k < t.whole ? k / MM_LANES % MM_TURNS : 0;
    const int64_t start = mm_turn_start(t, turn), end = mm_turn_start(t, turn + 1);
    const int64_t slice = start + (place - start) / MM_SLICE * MM_SLICE;
    return slice * MM_WIDE + n * mm_least(MM_SLICE, end - slice) + place - slice;
}

// Makes floats of the codes of a column of a panel.
static void mm_pack_column(const mm_args g, int64_t column, int64_t n, const mm_turns t, float *to)
{
    const MM_RIGHT_TYPE *const codes = mm_right(g, 0, column);
    mm_scale scale = mm_prepared(1.0f);
    float scales[MM_LANES];
    const int64_t each = t.whole / MM_TURNS;
    for (int64_t slice = 0; slice < each; slice += MM_SLICE) {
        float *place[MM_TURNS];
        for (int64_t turn = 0; turn < MM_TURNS; turn++)
            place[turn] = to + mm_panel_place(t, slice * MM_TURNS + turn * MM_LANES, n);
        for (int64_t i = 0; i < mm_least(MM_SLICE, each - slice); i += MM_LANES) {
            const int64_t k = (slice + i) * MM_TURNS, group = k / MM_GROUP;
            if (MM_CODES_PER_BYTE == 2 && k % MM_GROUP == 0) {
                const int64_t count = mm_least(MM_LANES, t.depth / MM_GROUP - group);
                if (group % MM_LANES == 0 && count == MM_LANES)
                    mm_vec_store(scales, MM_SCALE_VEC(mm_scales(g, group, column)));
                else if (group % MM_LANES == 0)
                    mm_vec_store(scales, mm_scales_part(mm_scales(g, group, column), count));
                scale = mm_prepared(scales[group % MM_LANES]);
            }
            _Pragma("GCC unroll 4") for (int64_t turn = 0; turn < MM_TURNS; turn++)
                mm_vec_store(place[turn] + i, mm_weights(codes, k + turn * MM_LANES, scale));
        }
    }
    for (int64_t k = t.whole; k < t.depth; k += MM_LANES) {
        const int64_t left = t.depth - k;
        const mm_vec v =
            left >= MM_LANES ? mm_weights(codes, k, scale) : mm_last_weights(codes, k, left);
        mm_vec_store(to + mm_panel_place(t, k, n), v);
    }
}

// The same for MM_WIDE columns; missing ones are 0.
static void mm_pack_columns(const mm_args g, int64_t n0, int64_t wide, const mm_turns t, float *to)
{
    for (int64_t n = 0; n < wide; n++)
        mm_pack_column(g, n0 + n, n, t, to);
    for (int64_t n = wide; n < MM_WIDE; n++)
        for (int64_t k = 0; k < t.depth; k += MM_LANES)
            mm_vec_store(to + mm_panel_place(t, k, n), (mm_vec){0});
}

// GCC would load it again for each product, which takes longer than the products.
#ifdef MM_IN_REGISTER
// given
#elif defined(__SSE2__)
#define MM_IN_REGISTER(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define MM_IN_REGISTER(v) __asm__("" : "+w"(v))
#else
#define MM_IN_REGISTER(v)
#endif

// sums[r][c] += rows @ columns over `count` floats, for `rows` rows and four columns; `is_first` where
// there are no sums yet.
MM_INLINE void mm_dot_tile(
    const int rows, int64_t count, const float *left, int64_t each, const float *column, float *sums,
    bool is_first)
{
    mm_vec sum[MM_DOT_ROWS][4];
    _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++)
            sum[r][c] = (mm_vec){0};
    if (!is_first)
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)
            _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++)
                sum[r][c] = mm_vec_load(sums + (r * MM_WIDE + c) * MM_LANES);
    int64_t k = 0;
    do { // there is a vector at least
        mm_vec a[MM_DOT_ROWS];
        _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)
        {
            a[r] = mm_vec_load(left + r * each + k);
            MM_IN_REGISTER(a[r]);
        }
        _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++)
        {
            mm_vec b = mm_vec_load(column + c * count + k);
            MM_IN_REGISTER(b);
            _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++) sum[r][c] += a[r] * b;
        }
    } while ((k += MM_LANES) < count);
    _Pragma("GCC unroll 6") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 4") for (int c = 0; c < 4; c++)
            mm_vec_store(sums + (r * MM_WIDE + c) * MM_LANES, sum[r][c]);
}

// The same for all columns of a slice.
static __attribute__((noinline)) int64_t mm_dot_rows(
    int64_t rows, int64_t count, const float *left, int64_t each, const float *columns, float *sums,
    bool is_first)
{
#define MM_CALL(R)                                                                                 \
    if (rows >= R) {                                                                               \
        for (int64_t c = 0; c < MM_WIDE; c += 4)                                                   \
            mm_dot_tile(                                                                           \
                R, count, left, each, columns + c * count, sums + c * MM_LANES, is_first);         \
        return R;                                                                                  \
    }
#if MM_DOT_ROWS == 6
    MM_CALL(6)
    MM_CALL(4)
#else
    MM_CALL(3)
#endif
    MM_CALL(2)
    MM_CALL(1)
#undef MM_CALL
    return rows;
}

typedef struct {
    float *rows;              // of the left operand, one after the other
    int64_t row0, count;      // which they are
    int64_t part, parts;      // rows of a task, and tasks for MM_WIDE columns
} mm_dots_job;

static void mm_copy_row(const mm_args g, int64_t row, const mm_turns t, float *to)
{
    const mm_at at = mm_place(g, row);
    for (int64_t k = 0; k < t.depth; k += MM_LANES) {
        float *const place = to + mm_turn_place(t, k);
        if (t.depth - k >= MM_LANES) {
            #pragma omp simd
            for (int64_t l = 0; l < MM_LANES; l++)
                place[l] = mm_left(g, at, k + l);
        } else {
            for (int64_t l = 0; l < MM_LANES; l++)
                place[l] = k + l < t.depth ? mm_left(g, at, k + l) : 0;
        }
    }
}

static void mm_copy_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_dots_job *const job = shared;
    const mm_turns t = mm_turns_of(mm_depth(g));
    for (int64_t r = first; r < end; r++)
        mm_copy_row(g, job->row0 + r, t, job->rows + r * t.each);
    (void)room;
}

// The sums of a row and MM_WIDE columns, from those of all turns.
static void mm_finish_dots(
    const mm_args g, int64_t row, int64_t n0, int64_t wide, const float *made, int64_t turn_step)
{
    _Alignas(64) float sums[MM_WIDE];
    for (int64_t c = 0; c < MM_WIDE; c += 4) {
        mm_vec all[4];
        for (int64_t i = 0; i < 4; i++) {
            mm_vec sum[4] = {{0}};
            for (int64_t turn = 0; turn < MM_TURNS; turn++)
                sum[turn] = mm_vec_load(made + turn * turn_step + (c + i) * MM_LANES);
            all[i] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
        }
        mm_sums_of_lanes(all, sums + c);
    }
#if MM_CODES_PER_BYTE == 1
    for (int64_t c = 0; c < wide; c += MM_LANES) {
        const mm_vec scales = mm_scales_at(g, 0, n0 + c, mm_least(MM_LANES, wide - c));
        mm_vec_store(sums + c, mm_vec_load(sums + c) * scales);
    }
#endif
    mm_finish_row(g, row, n0, wide, sums);
}

// Rows from `first` to `end` of the copied ones, times the columns from n0 on.
static void mm_dot_columns(
    const mm_args g, const mm_dots_job *job, int64_t first, int64_t end, int64_t n0, int64_t wide,
    const mm_turns t, const float *columns, float *made)
{
    const int64_t row_step = MM_WIDE * MM_LANES, turn_step = (end - first) * row_step;
    for (int64_t turn = 0; turn < MM_TURNS; turn++) {
        const int64_t start = mm_turn_start(t, turn), stop = mm_turn_start(t, turn + 1);
        if (start == stop)
            memset(made + turn * turn_step, 0, (size_t)turn_step * sizeof *made);
        for (int64_t k = start; k < stop; k += MM_SLICE)
            for (int64_t r = first; r < end;)
                r += mm_dot_rows(
                    end - r, mm_least(MM_SLICE, stop - k), job->rows + r * t.each + k, t.each,
                    columns + k * MM_WIDE, made + turn * turn_step + (r - first) * row_step,
                    k == start);
    }
    for (int64_t r = first; r < end; r++)
        mm_finish_dots(g, job->row0 + r, n0, wide, made + (r - first) * row_step, turn_step);
}

static void mm_dots_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_dots_job *const job = shared;
    const int64_t columns = mm_columns(g);
    const mm_turns t = mm_turns_of(mm_depth(g));
    float *const panel = (float *)room, *const made = panel + MM_WIDE * t.each;
    int64_t held = -1;
    for (int64_t task = first; task < end; task++) {
        const int64_t number = task / job->parts, n0 = number * MM_WIDE;
        const int64_t r0 = task % job->parts * job->part;
        const int64_t wide = mm_least(MM_WIDE, columns - n0);
        if (number != held)
            mm_pack_columns(g, n0, wide, t, panel);
        held = number;
        mm_dot_columns(
            g, job, r0, mm_least(r0 + job->part, job->count), n0, wide, t, panel, made);
    }
}

static void mm_many_quantized(
    void *const *buffers, const int64_t *scalars, int64_t rows, int64_t columns, int64_t depth)
{
    const int64_t panels = (columns + MM_WIDE - 1) / MM_WIDE, each = mm_turns_of(depth).each;
    int64_t block = (1 << 21) / each / MM_DOT_ROWS * MM_DOT_ROWS; // 8 MB stay in an L3 cache
    block = mm_least(rows, block < 48 ? 48 : block);
    const int64_t wanted = (4 * mm_threads->count() + panels - 1) / panels;
    const bool alone = rows * columns * depth <= 65536; // done before another thread has started
    mm_dots_job job = {.rows = mm_new_floats(buffers, block * each)};
    if (!job.rows)
        return;
    job.part = mm_least(MM_PART, mm_round_up((block + wanted - 1) / wanted, MM_DOT_ROWS));
    for (job.row0 = 0; job.row0 < rows; job.row0 += block) {
        job.count = mm_least(block, rows - job.row0);
        job.parts = (job.count + job.part - 1) / job.part;
        const int64_t tasks = panels * job.parts;
        mm_parallel(mm_copy_task, buffers, scalars, &job, job.count, alone ? job.count : 4, 0);
        mm_parallel(
            mm_dots_task, buffers, scalars, &job, tasks, alone ? tasks : 1,
            (size_t)(MM_WIDE * (each + MM_TURNS * MM_LANES * job.part)) * sizeof(float));
    }
    mm_free_memory(job.rows);
}

#endif
