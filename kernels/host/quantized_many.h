// Products of many rows with quantised weights: each thread packs the codes of MM_WIDE columns, a slice
// of the depth at a time that stays in its L1 cache, and multiplies all rows of its task with them. The
// sums of a span are registers, and those of all spans so far lie in memory.

#ifndef MM_SHARED_ELSEWHERE

#define MM_SLICE_SPANS (512 / MM_SPAN)
// Rows of a tile: two sums for each (four where q has two digits) and what they are made from fill the
// registers.
#if MM_LANES == 16 && MM_PLANES == 1
#define MM_TILE_ROWS 12
#else
#define MM_TILE_ROWS 6
#endif
#define MM_PART 96 // rows of a task, at most: their sums stay in the L2 cache

typedef struct {
    _Alignas(64) int32_t words[512 / MM_DEEP][MM_WIDE]; // MM_DEEP codes of each column
    float scales[MM_SLICE_SPANS][MM_WIDE];              // of groups
    float minimums[MM_MINIMUMS ? MM_SLICE_SPANS : 1][MM_WIDE];
} mm_slice;

// Packs `count` codes of MM_LANES columns from the k-th on.
MM_INLINE void mm_pack_step(
    const MM_RIGHT_TYPE *const codes[MM_LANES], int64_t k, int64_t count, int32_t *to)
{
    mm_vec v[MM_VECTORS][MM_LANES];
    _Pragma("GCC unroll 16") for (int c = 0; c < MM_LANES; c++)
    {
        mm_mask some[MM_VECTORS];
        mm_load_codes(codes[c] + k / MM_CODES_PER_BYTE, count, some);
        _Pragma("GCC unroll 4") for (int i = 0; i < MM_VECTORS; i++) v[i][c] = (mm_vec)some[i];
    }
    _Pragma("GCC unroll 4") for (int i = 0; i < MM_VECTORS; i++)
    {
        mm_transpose(v[i]);
        _Pragma("GCC unroll 16") for (int l = 0; l < MM_LANES; l++)
            mm_vec_store((float *)to + (i * MM_LANES + l) * MM_WIDE, v[i][l]);
    }
}

// Packs the codes of spans `first` to `end`.
static void mm_pack_slice(
    const mm_args g, int64_t n0, int64_t wide, int64_t first, int64_t end, int64_t depth,
    mm_slice *to)
{
    const int64_t start = first * MM_SPAN, count = mm_least(end * MM_SPAN, depth) - start;
    for (int64_t half = 0; half < MM_WIDE; half += MM_LANES) {
        const int64_t columns = mm_least(MM_LANES, wide - half);
        if (columns <= 0)
            break;
        const mm_places places = mm_places_of(g, n0 + half, columns);
        int64_t k = 0;
        for (; k + MM_STEP <= count; k += MM_STEP)
            mm_pack_step(places.codes, start + k, MM_STEP, &to->words[k / MM_DEEP][half]);
        if (k < count)
            mm_pack_step(places.codes, start + k, count - k, &to->words[k / MM_DEEP][half]);
        if (MM_GROUP > 1)
            mm_scales_of(
                g, &places, 0, MM_GROUP_OF(first), MM_GROUPS_OF(first, end - first),
                to->scales[0] + half, MM_WIDE);
        if (MM_MINIMUMS)
            mm_scales_of(
                g, &places, depth / MM_GROUP, MM_GROUP_OF(first), MM_GROUPS_OF(first, end - first),
                to->minimums[0] + half, MM_WIDE);
    }
}

// sums[r * MM_WIDE + c] += rows @ columns over spans `first` to `end`, for `rows` rows from r0 on.
MM_INLINE void mm_quantized_tile(
    const mm_args g, const int rows, const mm_quantized_job *job, int64_t r0, int64_t n0,
    int64_t wide, int64_t first, int64_t end, const mm_slice *slice, float *sums)
{
    const mm_row_sizes sizes = job->sizes;
    const char *const left = job->rows + r0 * sizes.nbytes;
    for (int64_t span = first; span < end; span++) {
        mm_mask sum[MM_TILE_ROWS][2][MM_PLANES];
        _Pragma("GCC unroll 12") for (int r = 0; r < rows; r++)
            _Pragma("GCC unroll 2") for (int p = 0; p < MM_PLANES; p++)
                sum[r][0][p] = sum[r][1][p] = (mm_mask){0};
        const int64_t count = mm_least(MM_SPAN, sizes.depth - span * MM_SPAN);
        const char *x = left + 2 * span * MM_SPAN;
        const int32_t *codes = slice->words[(span - first) * (MM_SPAN / MM_DEEP)];
        for (int64_t k = 0; k < count; k += MM_CODES, x += 2 * MM_CODES) {
            _Pragma("GCC unroll 4") for (int i = 0; i < MM_LANES; i++, codes += MM_WIDE)
            {
                mm_mask near, far;
                memcpy(&near, codes, sizeof near);
                memcpy(&far, codes + MM_LANES, sizeof far);
                _Pragma("GCC unroll 12") for (int r = 0; r < rows; r++)
                    _Pragma("GCC unroll 2") for (int p = 0; p < MM_PLANES; p++)
                {
                    int32_t word;
                    memcpy(&word, x + r * sizes.nbytes + (p * MM_LANES + i) * 4, sizeof word);
                    const mm_mask all = (mm_mask){0} + word;
                    sum[r][0][p] = mm_add_codes(sum[r][0][p], near, all);
                    sum[r][1][p] = mm_add_codes(sum[r][1][p], far, all);
                }
            }
        }
        _Pragma("GCC unroll 12") for (int r = 0; r < rows; r++)
        {
            const char *const row = left + r * sizes.nbytes;
            _Pragma("GCC unroll 2") for (int half = 0; half < 2; half++)
            {
                float *const to = sums + r * MM_WIDE + half * MM_LANES;
                const int64_t group = MM_GROUP_OF(span) - MM_GROUP_OF(first);
                const float *const scales = slice->scales[group] + half * MM_LANES;
                const float *const minimums =
                    slice->minimums[MM_MINIMUMS ? group : 0] + half * MM_LANES;
                const mm_mask whole = mm_whole(sum[r][half]);
                mm_vec_store(
                    to,
                    mm_add_span(mm_vec_load(to), whole, row, sizes, span, scales, minimums));
            }
            if (mm_is_far(row, sizes, span))
                mm_add_far(g, job->row0 + r0 + r, row, sizes, span, n0, wide, sums + r * MM_WIDE);
        }
    }
}

// The same for as many of the rows up to `end` as a tile has; returns how many.
static __attribute__((noinline)) int64_t mm_quantized_rows(
    const mm_args g, const mm_quantized_job *job, int64_t r0, int64_t rows, int64_t n0,
    int64_t wide, int64_t first, int64_t end, const mm_slice *slice, float *sums)
{
#define MM_CALL(R)                                                                                 \
    if (rows >= R) {                                                                               \
        mm_quantized_tile(g, R, job, r0, n0, wide, first, end, slice, sums);                       \
        return R;                                                                                  \
    }
#if MM_TILE_ROWS > 6
    MM_CALL(MM_TILE_ROWS)
#endif
    MM_CALL(6)
    MM_CALL(4)
    MM_CALL(2)
    MM_CALL(1)
#undef MM_CALL
    return rows;
}

static void mm_many_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_quantized_job *const job = shared;
    const int64_t columns = mm_columns(g), spans = job->sizes.spans;
    mm_slice *const slice = (mm_slice *)room;
    float *const sums = (float *)(slice + 1);
    for (int64_t task = first; task < end; task++) {
        const int64_t n0 = task / job->parts * MM_WIDE, wide = mm_least(MM_WIDE, columns - n0);
        const int64_t from = task % job->parts * job->part;
        const int64_t to = mm_least(from + job->part, job->count);
        memset(sums, 0, (size_t)((to - from) * MM_WIDE) * sizeof *sums);
        for (int64_t span = 0; span < spans; span += MM_SLICE_SPANS) {
            const int64_t last = mm_least(span + MM_SLICE_SPANS, spans);
            mm_pack_slice(g, n0, wide, span, last, job->sizes.depth, slice);
            for (int64_t r = from; r < to;)
                r += mm_quantized_rows(
                    g, job, r, to - r, n0, wide, span, last, slice, sums + (r - from) * MM_WIDE);
        }
        mm_finish_scaled(g, job->row0 + from, to - from, n0, wide, sums);
    }
}

static void mm_many_quantized(
    void *const *buffers, const int64_t *scalars, int64_t rows, int64_t columns, int64_t depth)
{
    const int64_t panels = (columns + MM_WIDE - 1) / MM_WIDE;
    mm_quantized_job job = {.sizes = mm_row_sizes_of(depth)};
    int64_t block = (1 << 23) / job.sizes.nbytes / MM_TILE_ROWS * MM_TILE_ROWS; // 8 MB: an L3 cache
    block = mm_least(rows, block < MM_PART ? MM_PART : block);
    float *const memory = mm_new_floats(buffers, block * job.sizes.nbytes / 4);
    if (!memory)
        return;
    job.rows = (char *)memory;
    const int64_t wanted = (4 * mm_threads->count() + panels - 1) / panels;
    const bool alone = rows * columns * depth <= 65536; // done before another thread has started
    job.part = mm_least(MM_PART, mm_round_up((block + wanted - 1) / wanted, MM_TILE_ROWS));
    for (job.row0 = 0; job.row0 < rows; job.row0 += block) {
        job.count = mm_least(block, rows - job.row0);
        job.parts = (job.count + job.part - 1) / job.part;
        const int64_t tasks = panels * job.parts;
        mm_parallel(mm_prepare_task, buffers, scalars, &job, job.count, alone ? job.count : 4, 0);
        mm_parallel(
            mm_many_task, buffers, scalars, &job, tasks, alone ? tasks : 1,
            sizeof(mm_slice) + (size_t)(MM_WIDE * job.part) * sizeof(float));
    }
    mm_free_memory(memory);
}

// Up to this many rows, reading codes unpacked beats packing them (768 x 3072 on an AMD EPYC with AVX2,
// December 2026, one thread: 8 rows of int8 take 444 and 406 us, 4 of them 220 and 325; 4 rows of int4
// 382 and 294, 2 of them 192 and 282).
#define MM_MOST_FEW (MM_CODES_PER_BYTE == 1 ? 6 : 3)

static __attribute__((noinline)) void mm_run_shared(
    void *const *mm_buffers, const int64_t *mm_scalars)
{
    const mm_args g = mm_arguments(mm_buffers, mm_scalars);
    const int64_t rows = mm_rows(g), columns = mm_columns(g), depth = mm_depth(g);
    if (rows == 0 || columns == 0)
        return;
    if (rows <= MM_MOST_FEW)
        mm_few_quantized(mm_buffers, mm_scalars, rows, columns, depth);
    else
        mm_many_quantized(mm_buffers, mm_scalars, rows, columns, depth);
}

#endif

#undef mm_args
#undef mm_arguments
#undef mm_rows
#undef mm_columns
#undef mm_depth
#undef mm_right
#undef mm_scales
