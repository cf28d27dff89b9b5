// Products of few rows with quantised weights: codes are read once, as they are stored.

#ifndef MM_SHARED_ELSEWHERE

// Columns follow each other in memory, and are read one after the other (measured for one row with 768
// x 50257 on 2 cores of an AMD EPYC with AVX-512, November 2026: 34 GB/s, without a prefetch 26, four
// columns at a time 18 to 20). They are prefetched into the L2 cache this many bytes ahead: with 8192,
// 3072 x 768 takes 71 us there, with 2048 into the L1 cache 115.
#define MM_AHEAD 8192

// Rows that are multiplied with one reading of the codes. With 16 registers, four rows in pairs take 220
// us where four at once take 254 (768 x 3072, one thread, as below).
#if MM_LANES == 16 || defined(__aarch64__)
#define MM_FEW_TOGETHER 4
#else
#define MM_FEW_TOGETHER 2
#endif
#define MM_FEW_SPANS 24   // of a column that are multiplied before the next column

typedef mm_mask mm_made[MM_FEW_TOGETHER][MM_FEW_SPANS][MM_LANES];

// Spans whose codes are a line of the cache, which are multiplied without a test in between. One row, one
// thread, Zen 3 (AVX2), December 2026: 0.80 to 0.83 of the time for 4 bits, 0.81 to 0.95 for 8.
#define MM_LINE_SPANS (64 * MM_CODES_PER_BYTE < MM_SPAN ? 1 : 64 * MM_CODES_PER_BYTE / MM_SPAN)

// made[r][c] = the sums of a span of rows r and column c, of which `count` codes exist.
MM_INLINE void mm_span_sums(
    const int rows, const char *left, int64_t left_row, const MM_RIGHT_TYPE *codes, int64_t count,
    int64_t c, mm_mask (*made)[MM_FEW_SPANS][MM_LANES])
{
    mm_mask sums[MM_FEW_TOGETHER][MM_PLANES];
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 2") for (int p = 0; p < MM_PLANES; p++) sums[r][p] = (mm_mask){0};
    _Pragma("GCC unroll 16") for (int64_t k = 0; k < count; k += MM_STEP)
    {
        mm_mask some[MM_VECTORS];
        mm_load_codes(codes + k / MM_CODES_PER_BYTE, count - k, some);
        _Pragma("GCC unroll 4") for (int v = 0; v < MM_VECTORS; v++)
            _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++)
                _Pragma("GCC unroll 2") for (int p = 0; p < MM_PLANES; p++)
        {
            mm_mask x;
            const int64_t place = 2 * k + (v * MM_PLANES + p) * 4 * MM_LANES;
            memcpy(&x, left + r * left_row + place, sizeof x);
            sums[r][p] = mm_add_codes(sums[r][p], some[v], x);
        }
    }
    _Pragma("GCC unroll 4") for (int r = 0; r < rows; r++) made[r][0][c] = mm_whole(sums[r]);
}

// made[r][s][c] = the sums of spans first + s of rows r and column c, `spans` of them.
MM_INLINE void mm_column_sums(
    const int rows, const char *left, const mm_row_sizes sizes, int64_t first, int64_t spans,
    const MM_RIGHT_TYPE *codes, int64_t c, mm_made made)
{
    const int64_t wide = MM_SPAN / MM_CODES_PER_BYTE; // bytes of a span
    const int64_t rest = sizes.depth - first * MM_SPAN, whole = mm_least(spans, rest / MM_SPAN);
    codes += first * wide;
    left += 2 * first * MM_SPAN;
    int64_t s = 0;
#define MM_SPAN_SUMS(s, count)                                                                     \
    mm_span_sums(                                                                                  \
        rows, left + 2 * (s) * MM_SPAN, sizes.nbytes, codes + (s) * wide, count, c,                \
        (mm_mask (*)[MM_FEW_SPANS][MM_LANES])&made[0][s])
    for (; s + MM_LINE_SPANS <= whole; s += MM_LINE_SPANS) {
        _Pragma("GCC unroll 2") for (int i = 0; i < MM_LINE_SPANS * wide; i += 64)
            __builtin_prefetch((const char *)codes + s * wide + i + MM_AHEAD, 0, 2);
        _Pragma("GCC unroll 4") for (int i = 0; i < MM_LINE_SPANS; i++)
            MM_SPAN_SUMS(s + i, MM_SPAN);
    }
    for (; s < whole; s++)
        MM_SPAN_SUMS(s, MM_SPAN);
    if (s < spans)
        MM_SPAN_SUMS(s, rest - s * MM_SPAN);
#undef MM_SPAN_SUMS
}

// Lane c is the sum of the lanes of v[c].
MM_INLINE mm_mask mm_sums_of_all_lanes(mm_mask v[MM_LANES])
{
#define MM_JOIN(STEP)                                                                              \
    _Pragma("GCC unroll 8") for (int i = 0; i < STEP; i++)                                         \
    {                                                                                              \
        const mm_mask a = v[i], b = v[i + STEP];                                                   \
        v[i] = MM_PICK(a, b, MM_LOW_##STEP) + MM_PICK(a, b, MM_HIGH_##STEP);                       \
    }
#if MM_LANES == 16
    MM_JOIN(8)
#endif
#if MM_LANES >= 8
    MM_JOIN(4)
#endif
    MM_JOIN(2)
    MM_JOIN(1)
#undef MM_JOIN
    return v[0];
}

// sums[r * sums_row + c] for `rows` rows and the MM_LANES columns from n on, of which `count` exist.
MM_INLINE void mm_few_columns(
    const mm_args g, const int rows, const mm_quantized_job *job, int64_t r0, int64_t n,
    int64_t count, float *sums, int64_t sums_row)
{
    const mm_row_sizes sizes = job->sizes;
    const char *const left = job->rows + r0 * sizes.nbytes;
    const mm_places places = mm_places_of(g, n, count);
    // They are needed last, and lie where nothing else is read.
    const int64_t scales_nbytes = MM_SCALES_OF_COLUMN(sizes.depth) * (int64_t)sizeof(MM_SCALE_TYPE);
    for (int64_t c = 0; c < count; c++)
        for (int64_t i = 0; i < scales_nbytes; i += 64)
            __builtin_prefetch((const char *)places.scales[c] + i, 0, 3);
    mm_made made;
    float scales[MM_GROUP == 1 ? 1 : MM_FEW_SPANS * MM_LANES];
    float minimums[MM_MINIMUMS ? MM_FEW_SPANS * MM_LANES : 1];
    for (int r = 0; r < rows; r++)
        mm_vec_store(sums + r * sums_row, (mm_vec){0});
    if (count < MM_LANES)
        memset(made, 0, sizeof made);
    for (int64_t first = 0; first < sizes.spans; first += MM_FEW_SPANS) {
        const int64_t spans = mm_least(MM_FEW_SPANS, sizes.spans - first);
        for (int64_t c = 0; c < count; c++)
            mm_column_sums(rows, left, sizes, first, spans, places.codes[c], c, made);
        if (MM_GROUP > 1)
            mm_scales_of(
                g, &places, 0, MM_GROUP_OF(first), MM_GROUPS_OF(first, spans), scales, MM_LANES);
        if (MM_MINIMUMS)
            mm_scales_of(
                g, &places, sizes.depth / MM_GROUP, MM_GROUP_OF(first), MM_GROUPS_OF(first, spans),
                minimums, MM_LANES);
        for (int r = 0; r < rows; r++) {
            const char *const row = left + r * sizes.nbytes;
            float *const to = sums + r * sums_row;
            const bool has_far = mm_has_far(row, sizes);
            mm_vec total = mm_vec_load(to);
            for (int64_t s = 0; s < spans; s++) {
                const mm_mask whole = mm_sums_of_all_lanes(made[r][s]);
                const int64_t group = MM_GROUP_OF(first + s) - MM_GROUP_OF(first);
                total = mm_add_span(
                    total, whole, row, sizes, first + s, scales + group * MM_LANES,
                    minimums + group * MM_LANES);
                if (has_far && mm_is_far(row, sizes, first + s)) {
                    mm_vec_store(to, total);
                    mm_add_far(g, job->row0 + r0 + r, row, sizes, first + s, n, count, to);
                    total = mm_vec_load(to);
                }
            }
            mm_vec_store(to, total);
        }
    }
}

static void mm_few_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_quantized_job *const job = shared;
    float *const sums = (float *)room;
    const int64_t last = mm_least(end * job->step, mm_columns(g));
    for (int64_t n = first * job->step; n < last; n += MM_WIDE) {
        const int64_t wide = mm_least(MM_WIDE, last - n);
        for (int64_t half = 0; half < wide; half += MM_LANES) {
            const int64_t count = mm_least(MM_LANES, wide - half);
            for (int64_t r = 0; r < job->count;) {
                const int64_t rest = job->count - r;
                float *const to = sums + r * MM_WIDE + half;
#define MM_CALL(R)                                                                                 \
    if (rest >= R) {                                                                               \
        mm_few_columns(g, R, job, r, n + half, count, to, MM_WIDE);                                \
        r += R;                                                                                    \
        continue;                                                                                  \
    }
#if MM_FEW_TOGETHER == 4
                MM_CALL(4)
#endif
                MM_CALL(2)
                MM_CALL(1)
#undef MM_CALL
            }
        }
        mm_finish_scaled(g, job->row0, job->count, n, wide, sums);
    }
}

static void mm_few_quantized(
    void *const *buffers, const int64_t *scalars, int64_t rows, int64_t columns, int64_t depth)
{
    mm_quantized_job job = {.sizes = mm_row_sizes_of(depth), .count = rows};
    float *const memory = mm_new_floats(buffers, rows * job.sizes.nbytes / 4);
    if (!memory)
        return;
    job.rows = (char *)memory;
    // Few enough columns that each thread has several tasks.
    const int64_t threads = 8 * mm_threads->count();
    job.step = mm_round_up((columns + threads - 1) / threads, MM_WIDE);
    const int64_t tasks = (columns + job.step - 1) / job.step;
    const bool alone = rows * columns * depth <= 65536; // done before another thread has started
    mm_parallel(mm_prepare_task, buffers, scalars, &job, rows, rows, 0);
    mm_parallel(
        mm_few_task, buffers, scalars, &job, tasks, alone ? tasks : 1,
        (size_t)(rows * MM_WIDE) * sizeof(float));
    mm_free_memory(memory);
}

#endif
