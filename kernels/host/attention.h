// Attention: softmax(score(q k^T)) v for each batch and head, without a score matrix in memory.
//
// A task is a block of queries of one head. It goes over the keys in blocks: scores of a few
// queries stay in the L1 cache, become weights exp(score - largest so far), and are multiplied with
// the values at once; running sums are rescaled when a larger score is found.
// Source: M. Milakov and N. Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867;
// T. Dao et al., FlashAttention, arXiv 2205.14135.
//
// The code before this defines mm_args, mm_at, mm_arguments, mm_place, mm_batches, mm_queries,
// mm_keys, mm_q, mm_k, mm_v, mm_score, mm_is_masked, mm_out, and MM_DEPTH, MM_VALUES (the lengths of
// a key and of a value), MM_KEYS_INNER (1 if adjacent keys are contiguous in memory).

#define MM_KEY_BLOCK (MM_DEPTH <= 128 && MM_VALUES <= 128 ? 256 : 128)
#define MM_QUERY_BLOCK 256
#define MM_FEW_QUERIES 3 // up to here, packing keys and values costs more than it saves
#define MM_DEPTH_ROOM ((MM_DEPTH + MM_LANES - 1) / MM_LANES * MM_LANES)
#define MM_VALUES_ROOM ((MM_VALUES + MM_WIDE - 1) / MM_WIDE * MM_WIDE)

typedef struct {
    float *q;        // [queries of the task][MM_DEPTH]
    float *k;        // panels of MM_WIDE keys
    float *v;        // panels of MM_WIDE columns of the values
    float *scores;   // [MM_ROWS][MM_KEY_BLOCK]
    float *sums;     // [queries of the task][MM_VALUES_ROOM]
    float *rows;     // [MM_WIDE][MM_DEPTH_ROOM], keys before they are transposed
    float *largest;  // [queries of the task]
    float *total;    // [queries of the task]
} mm_scratch;

// Keys of a block.
typedef struct {
    int64_t low, high;
} mm_range;

static void mm_copy_queries(const mm_args g, const mm_at at, int64_t first, int64_t count, float *to)
{
    for (int64_t r = 0; r < count; r++) {
        #pragma omp simd
        for (int64_t d = 0; d < MM_DEPTH; d++)
            to[r * MM_DEPTH + d] = mm_q(g, at, first + r, d);
    }
}

// Packs a part of the keys from `first` on.
static void mm_pack_keys(
    const mm_args g, const mm_at at, int64_t first, mm_range part, float *to, float *rows)
{
    for (int64_t j0 = part.low; j0 < part.high; j0 += MM_WIDE) {
        const int64_t wide = mm_least(MM_WIDE, part.high - j0);
        float *const panel = to + j0 * MM_DEPTH_ROOM;
#if MM_KEYS_INNER
        for (int64_t d = 0; d < MM_DEPTH; d++) {
            #pragma omp simd
            for (int64_t j = 0; j < wide; j++)
                panel[d * MM_WIDE + j] = mm_k(g, at, first + j0 + j, d);
            for (int64_t j = wide; j < MM_WIDE; j++)
                panel[d * MM_WIDE + j] = 0;
        }
        (void)rows;
#else
        for (int64_t j = 0; j < MM_WIDE; j++) {
            float *const row = rows + j * MM_DEPTH_ROOM;
            if (j >= wide) {
                memset(row, 0, MM_DEPTH_ROOM * sizeof(float));
                continue;
            }
            #pragma omp simd
            for (int64_t d = 0; d < MM_DEPTH; d++)
                row[d] = mm_k(g, at, first + j0 + j, d);
        }
        mm_transpose_panel(rows, MM_DEPTH_ROOM, MM_DEPTH, panel);
#endif
    }
}

static void mm_pack_values(
    const mm_args g, const mm_at at, int64_t first, mm_range part, float *to)
{
    for (int64_t e0 = 0; e0 < MM_VALUES; e0 += MM_WIDE) {
        const int64_t wide = mm_least(MM_WIDE, MM_VALUES - e0);
        float *const panel = to + e0 * MM_KEY_BLOCK;
        if (wide < MM_WIDE)
            memset(
                panel + part.low * MM_WIDE, 0,
                (size_t)(part.high - part.low) * MM_WIDE * sizeof(float));
        for (int64_t j = part.low; j < part.high; j++) {
            #pragma omp simd
            for (int64_t e = 0; e < wide; e++)
                panel[j * MM_WIDE + e] = mm_v(g, at, first + j, e0 + e);
        }
    }
}

static __attribute__((noinline)) void mm_scores_tile(
    int rows, const float *q, const float *panel, float *out)
{
#define MM_CALL(R) mm_tile(R, MM_DEPTH, q, MM_DEPTH, 1, panel, out, MM_KEY_BLOCK, NULL, NULL, 0)
    MM_FOR_ROWS(rows, MM_CALL)
#undef MM_CALL
}

static __attribute__((noinline)) void mm_values_tile(
    int rows, int64_t keys, const float *weights, const float *panel, float *out, const float *scale)
{
#define MM_CALL(R)                                                                               \
    mm_tile(                                                                                     \
        R, keys, weights, MM_KEY_BLOCK, 1, panel, out, MM_VALUES_ROOM, scale, NULL, 0)
    MM_FOR_ROWS(rows, MM_CALL)
#undef MM_CALL
}

// e^x for x <= 0 or NaN.
MM_INLINE float mm_weight(float x)
{
    const float y = mm_exp_core(x);
    return x >= MM_EXP_LOWEST ? y : (0.0f > x ? 0.0f : x);
}

// Turns the scores of one query into weights, and returns the factor for the running sums.
static float mm_softmax_row(
    const mm_args g, const mm_at at, int64_t i, int64_t first, int64_t count, float *row,
    float *largest, float *total)
{
    float top = *largest;
    #pragma omp simd reduction(max : top)
    for (int64_t j = 0; j < count; j++) {
        const float score = mm_score(g, at, i, first + j, row[j]);
        row[j] = score;
        top = score > top ? score : top;
    }
    const float before = *largest;
    const float base = top == -INFINITY ? 0.0f : top; // only masked keys so far
    const float scale = mm_weight(before - base);
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < count; j++) {
        const float weight = mm_weight(row[j] - base);
        row[j] = weight;
        sum += weight;
    }
    *largest = top;
    *total = *total * scale + sum;
    return scale;
}

// The keys of a block, in steps of panels, between the first and the last that are not masked; found by
// halves, since a test may have to look at every query.
MM_INLINE mm_range mm_seen(
    const mm_args g, const mm_at at, int64_t i0, int64_t i1, int64_t key0, mm_range seen)
{
    if (mm_is_masked(g, at, i0, i1, key0 + seen.low, key0 + seen.high - 1))
        return (mm_range){0, 0};
    for (int64_t step = MM_KEY_BLOCK / 2; step >= MM_WIDE && step < seen.high - seen.low; step /= 2) {
        if (mm_is_masked(g, at, i0, i1, key0 + seen.low, key0 + seen.low + step - 1))
            seen.low += step;
        const int64_t start = mm_round_up(seen.high, MM_WIDE) - step;
        if (start > seen.low && mm_is_masked(g, at, i0, i1, key0 + start, key0 + seen.high - 1))
            seen.high = start;
    }
    return seen;
}

// One block of keys for all queries of a task.
static void mm_attend(
    const mm_args g, const mm_at at, int64_t first, int64_t count, int64_t key0, mm_range packed,
    const mm_scratch s)
{
    for (int64_t r0 = 0; r0 < count;) {
        const int rows = mm_tile_rows(count - r0);
        const int64_t i0 = first + r0;
        const mm_range seen = mm_seen(g, at, i0, i0 + rows - 1, key0, packed);
        if (seen.low < seen.high) {
            for (int64_t j = seen.low; j < seen.high; j += MM_WIDE)
                mm_scores_tile(rows, s.q + r0 * MM_DEPTH, s.k + j * MM_DEPTH_ROOM, s.scores + j);
            float scale[MM_ROWS];
            for (int r = 0; r < rows; r++)
                scale[r] = mm_softmax_row(
                    g, at, i0 + r, key0 + seen.low, seen.high - seen.low,
                    s.scores + r * MM_KEY_BLOCK + seen.low, s.largest + r0 + r, s.total + r0 + r);
            for (int64_t e = 0; e < MM_VALUES; e += MM_WIDE)
                mm_values_tile(
                    rows, seen.high - seen.low, s.scores + seen.low,
                    s.v + e * MM_KEY_BLOCK + seen.low * MM_WIDE, s.sums + r0 * MM_VALUES_ROOM + e,
                    scale);
        }
        r0 += rows;
    }
}

// The same for very few queries, as in decoding: keys and values are used unpacked.
static void mm_attend_few(
    const mm_args g, const mm_at at, int64_t first, int64_t count, int64_t key0, int64_t keys,
    const mm_scratch s)
{
    for (int64_t r = 0; r < count; r++) {
        const mm_range seen = mm_seen(g, at, first + r, first + r, key0, (mm_range){0, keys});
        const float *const q = s.q + r * MM_DEPTH;
        float *const weights = s.scores, *const sums = s.sums + r * MM_VALUES_ROOM;
#if MM_KEYS_INNER
        memset(weights, 0, MM_KEY_BLOCK * sizeof(float));
        for (int64_t d = 0; d < MM_DEPTH; d++) {
            #pragma omp simd
            for (int64_t j = seen.low; j < seen.high; j++)
                weights[j] += q[d] * mm_k(g, at, key0 + j, d);
        }
#else
        for (int64_t j = seen.low; j < seen.high; j++) {
            float score = 0;
            #pragma omp simd reduction(+ : score)
            for (int64_t d = 0; d < MM_DEPTH; d++)
                score += q[d] * mm_k(g, at, key0 + j, d);
            weights[j] = score;
        }
#endif
        if (seen.low >= seen.high)
            continue;
        const float scale = mm_softmax_row(
            g, at, first + r, key0 + seen.low, seen.high - seen.low, weights + seen.low,
            s.largest + r, s.total + r);
        #pragma omp simd
        for (int64_t e = 0; e < MM_VALUES; e++)
            sums[e] *= scale;
        int64_t j = seen.low;
        for (; j + 4 <= seen.high; j += 4) {
            #pragma omp simd
            for (int64_t e = 0; e < MM_VALUES; e++) {
                float sum = sums[e];
                for (int64_t step = 0; step < 4; step++)
                    sum += weights[j + step] * mm_v(g, at, key0 + j + step, e);
                sums[e] = sum;
            }
        }
        for (; j < seen.high; j++) {
            #pragma omp simd
            for (int64_t e = 0; e < MM_VALUES; e++)
                sums[e] += weights[j] * mm_v(g, at, key0 + j, e);
        }
    }
}

static void mm_task_of_head(
    const mm_args g, const mm_at at, int64_t first, int64_t count, int64_t keys, const mm_scratch s)
{
    const bool few = count <= MM_FEW_QUERIES;
    mm_copy_queries(g, at, first, count, s.q);
    memset(s.sums, 0, (size_t)count * MM_VALUES_ROOM * sizeof(float));
    for (int64_t r = 0; r < count; r++) {
        s.largest[r] = -INFINITY;
        s.total[r] = 0;
    }
    for (int64_t key0 = 0; key0 < keys; key0 += MM_KEY_BLOCK) {
        const int64_t block = mm_least(MM_KEY_BLOCK, keys - key0);
        const mm_range seen = mm_seen(g, at, first, first + count - 1, key0, (mm_range){0, block});
        if (seen.low >= seen.high)
            continue;
        if (few) {
            mm_attend_few(g, at, first, count, key0, block, s);
            continue;
        }
        mm_pack_keys(g, at, key0, seen, s.k, s.rows);
        mm_pack_values(g, at, key0, seen, s.v);
        mm_attend(g, at, first, count, key0, seen, s);
    }
    for (int64_t r = 0; r < count; r++) {
        const float factor = keys == 0 ? 0.0f : 1.0f / s.total[r];
        #pragma omp simd
        for (int64_t e = 0; e < MM_VALUES; e++)
            mm_out(g, at, first + r, e, s.sums[r * MM_VALUES_ROOM + e] * factor);
    }
}

static mm_scratch mm_new_scratch(float *memory, int64_t queries)
{
    mm_scratch s;
    s.q = memory;
    s.k = s.q + mm_round_up(queries * MM_DEPTH, 16);
    s.v = s.k + MM_KEY_BLOCK * MM_DEPTH_ROOM;
    s.scores = s.v + MM_KEY_BLOCK * MM_VALUES_ROOM;
    s.sums = s.scores + MM_ROWS * MM_KEY_BLOCK;
    s.rows = s.sums + queries * MM_VALUES_ROOM;
    s.largest = s.rows + MM_WIDE * MM_DEPTH_ROOM;
    s.total = s.largest + mm_round_up(queries, 16);
    return s;
}

MM_INLINE int64_t mm_scratch_count(int64_t queries)
{
    return mm_round_up(queries * MM_DEPTH, 16) + MM_KEY_BLOCK * (MM_DEPTH_ROOM + MM_VALUES_ROOM) +
        MM_ROWS * MM_KEY_BLOCK + queries * MM_VALUES_ROOM + MM_WIDE * MM_DEPTH_ROOM +
        2 * mm_round_up(queries, 16);
}

// Queries of a task: larger blocks pack keys less often; a few tasks for each thread keep all busy.
static int64_t mm_query_block(int64_t batches, int64_t queries)
{
    int64_t block = mm_least(MM_QUERY_BLOCK, queries);
    while (block > 4 * MM_ROWS &&
           batches * ((queries + block - 1) / block) < 4 * mm_threads->count())
        block = (block + 1) / 2;
    return block;
}

static void mm_attention_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const int64_t queries = mm_queries(g), keys = mm_keys(g), block = *(const int64_t *)shared;
    const int64_t blocks = (queries + block - 1) / block;
    const mm_scratch s = mm_new_scratch((float *)room, block);
    for (int64_t task = first; task < end; task++) {
        const int64_t start = (blocks - 1 - task % blocks) * block;
        mm_task_of_head(
            g, mm_place(g, task / blocks), start, mm_least(block, queries - start), keys, s);
    }
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const mm_args g = mm_arguments(mm_buffers, mm_scalars);
    const int64_t queries = mm_queries(g), keys = mm_keys(g), batches = mm_batches(g);
    if (queries == 0 || batches == 0)
        return;
    int64_t block = mm_query_block(batches, queries);
    const int64_t tasks = batches * ((queries + block - 1) / block);
    const bool alone = batches * queries * keys * (MM_DEPTH + MM_VALUES) <= 65536;
    mm_parallel(
        mm_attention_task, mm_buffers, mm_scalars, &block, tasks, alone ? tasks : 1,
        (size_t)mm_scratch_count(block) * sizeof(float));
}
