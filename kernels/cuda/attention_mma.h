// Attention of many queries in a half type: softmax(score(q k^T)) v on tensor cores, without a score
// matrix in memory.
//
// A task is a block of queries of one head: 16 * MM_TILES for each of the four warps. Queries stay in
// shared memory; keys and values come through it, MM_KEYS at a time. While scores are computed, the
// values arrive, and while the values are added up, the next keys do. Scores, weights and sums stay
// in registers: the result layout of one product is the left-operand layout of the next. Running sums
// are rescaled when a larger score is found. Weights are rounded to the half type before they are
// multiplied with values; their total is not.
// Source: T. Dao, FlashAttention-2, arXiv 2307.08691.
//
// The code before this defines mm_args, mm_at, mm_place (of a head), mm_batches, mm_queries, mm_keys,
// mm_q, mm_k, mm_v, mm_score, mm_is_masked, mm_is_open and mm_open_score (the score where that is
// true), mm_out; for each of query, key and value mm_<name> (a pointer to a stored element),
// mm_<name>_store (float to half) and MM_<NAME>_IS_STORED, 0 if no pointer to eight adjacent
// elements exists; MM_DEPTH, MM_VALUES (lengths of a key and of a value), MM_BFLOAT, MM_TILES,
// MM_KEYS.

constexpr int MM_THREADS = 128; // per block
constexpr int MM_BLOCKS = 2;    // per SM: 255 registers per thread
constexpr int MM_WARPS = MM_THREADS / 32;
constexpr int MM_WARP_ROWS = 16 * MM_TILES;
constexpr int MM_ROWS = MM_WARPS * MM_WARP_ROWS;  // of a task
constexpr int MM_DEPTHS = (MM_DEPTH + 15) / 16;   // steps along a key
constexpr int MM_WIDTHS = (MM_VALUES + 15) / 16;  // steps along a value
constexpr int MM_PANELS = MM_KEYS / 16;           // steps along the keys that are staged together
constexpr float MM_LOG2_E = 1.44269504f;

struct mm_shared_memory {
    mm_eight *q; // [MM_ROWS][2 * MM_DEPTHS]
    mm_eight *k; // [MM_KEYS][2 * MM_DEPTHS]
    mm_eight *v; // [MM_KEYS][2 * MM_WIDTHS]
};

struct mm_block {
    mm_at at;
    int64_t first; // query
    int64_t last;
};

// ---- shared memory -----------------------------------------------------------------------------

// The swizzled index of eight halves in rows of COUNT times eight, so that eight rows of one column,
// and eight columns of one row, lie in different banks: columns are permuted in groups of the largest
// power of two that divides COUNT.
template <int COUNT>
MM_INLINE mm_eight *mm_spread(mm_eight *rows, int row, int column)
{
    constexpr int GROUP = (COUNT & -COUNT) < 8 ? COUNT & -COUNT : 8;
    return rows + row * COUNT + (column ^ (row * GROUP / 8 % GROUP));
}

struct mm_query_rows {
    static constexpr int LENGTH = MM_DEPTH, COUNT = 2 * MM_DEPTHS;
    static constexpr bool IS_STORED = MM_QUERY_IS_STORED;
    static MM_INLINE const void *place(const mm_args g, const mm_at at, int64_t i, int64_t d)
    {
        return mm_query(g, at, i, d);
    }
    static MM_INLINE uint16_t made(const mm_args g, const mm_at at, int64_t i, int64_t d)
    {
        return mm_query_store(mm_q(g, at, i, d));
    }
};

struct mm_key_rows {
    static constexpr int LENGTH = MM_DEPTH, COUNT = 2 * MM_DEPTHS;
    static constexpr bool IS_STORED = MM_KEY_IS_STORED;
    static MM_INLINE const void *place(const mm_args g, const mm_at at, int64_t j, int64_t d)
    {
        return mm_key(g, at, j, d);
    }
    static MM_INLINE uint16_t made(const mm_args g, const mm_at at, int64_t j, int64_t d)
    {
        return mm_key_store(mm_k(g, at, j, d));
    }
};

struct mm_value_rows {
    static constexpr int LENGTH = MM_VALUES, COUNT = 2 * MM_WIDTHS;
    static constexpr bool IS_STORED = MM_VALUE_IS_STORED;
    static MM_INLINE const void *place(const mm_args g, const mm_at at, int64_t j, int64_t e)
    {
        return mm_value(g, at, j, e);
    }
    static MM_INLINE uint16_t made(const mm_args g, const mm_at at, int64_t j, int64_t e)
    {
        return mm_value_store(mm_v(g, at, j, e));
    }
};

// Starts copying rows `first` to `last` to shared memory; missing rows of ROWS are 0.
template <typename WHICH, int ROWS>
MM_INLINE void mm_stage(
    const mm_args g, const mm_at at, int64_t first, int64_t last, mm_eight *rows)
{
#pragma unroll 2
    for (int n = threadIdx.x; n < ROWS * WHICH::COUNT; n += MM_THREADS) {
        const int row = n / WHICH::COUNT, column = n % WHICH::COUNT, start = 8 * column;
        mm_eight *const to = mm_spread<WHICH::COUNT>(rows, row, column);
        const bool exists = first + row <= last && start < WHICH::LENGTH;
        if constexpr (WHICH::IS_STORED) {
            const int64_t i = exists ? first + row : first;
            mm_copy_later(to, WHICH::place(g, at, i, exists ? start : 0), exists);
        } else {
            mm_eight eight;
#pragma unroll
            for (int e = 0; e < 8; e++) {
                const bool is_there = exists && start + e < WHICH::LENGTH;
                eight.v[e] = is_there ? WHICH::made(g, at, first + row, start + e) : 0;
            }
            *to = eight;
        }
    }
}

// ---- a block of keys ---------------------------------------------------------------------------

// Products of a warp's queries with keys.
MM_INLINE void mm_products(
    const mm_shared_memory memory, float (&scores)[MM_TILES][2 * MM_PANELS][4])
{
    const int lane = threadIdx.x % 32, first = threadIdx.x / 32 * MM_WARP_ROWS;
#pragma unroll
    for (int m = 0; m < MM_TILES; m++)
#pragma unroll
        for (int n = 0; n < 2 * MM_PANELS; n++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                scores[m][n][c] = 0;
#pragma unroll
    for (int s = 0; s < MM_DEPTHS; s++) {
        uint32_t q[MM_TILES][4];
#pragma unroll
        for (int m = 0; m < MM_TILES; m++)
            mm_load_matrices<false>(
                q[m], mm_spread<2 * MM_DEPTHS>(
                          memory.q, first + 16 * m + lane % 16, 2 * s + lane / 16));
#pragma unroll
        for (int n = 0; n < MM_PANELS; n++) {
            uint32_t k[4]; // of keys 0 to 7, both halves of 16 elements, then of keys 8 to 15
            const int key = 16 * n + lane / 16 * 8 + lane % 8;
            mm_load_matrices<false>(
                k, mm_spread<2 * MM_DEPTHS>(memory.k, key, 2 * s + lane / 8 % 2));
#pragma unroll
            for (int m = 0; m < MM_TILES; m++) {
                mm_multiply<MM_BFLOAT>(scores[m][2 * n], q[m], k[0], k[1]);
                mm_multiply<MM_BFLOAT>(scores[m][2 * n + 1], q[m], k[2], k[3]);
            }
        }
    }
}

// Running state of the queries of a warp: of tile m, this lane has rows lane / 4 and lane / 4 + 8.
struct mm_state {
    float largest[MM_TILES][2];
    float total[MM_TILES][2]; // of the columns of this lane
    float sums[MM_TILES][2 * MM_WIDTHS][4];
};

// The query of a row of a warp's tile.
MM_INLINE int64_t mm_row_query(const mm_block block, int m, int half)
{
    const int row = threadIdx.x / 32 * MM_WARP_ROWS + 16 * m + 8 * half + threadIdx.x % 32 / 4;
    return min(block.first + row, block.last);
}

// Turns products into weights, and rescales the running sums. OPEN: mm_open_score applies, and all
// keys exist.
template <bool OPEN>
MM_INLINE void mm_weigh(
    const mm_args g, const mm_block block, int64_t first,
    float (&scores)[MM_TILES][2 * MM_PANELS][4], mm_state &state)
{
    const int64_t keys = mm_keys(g), own = first + threadIdx.x % 4 * 2;
#pragma unroll
    for (int m = 0; m < MM_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t i = mm_row_query(block, m, half);
            float top = state.largest[m][half];
#pragma unroll
            for (int n = 0; n < 2 * MM_PANELS; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const int64_t j = own + 8 * n + c;
                    float &score = scores[m][n][2 * half + c];
                    if constexpr (OPEN)
                        score = mm_open_score(g, block.at, i, j, score);
                    else
                        score = j < keys ? mm_score(g, block.at, i, j, score) : -INFINITY;
                    top = score > top ? score : top;
                }
#pragma unroll
            for (int step = 1; step < 4; step *= 2) {
                const float other = __shfl_xor_sync(0xffffffffu, top, step);
                top = other > top ? other : top;
            }
            const float base = top == -INFINITY ? 0.0f : top; // only masked keys so far
            const float scale = mm_fast_exp2((state.largest[m][half] - base) * MM_LOG2_E);
            float total = 0;
#pragma unroll
            for (int n = 0; n < 2 * MM_PANELS; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    float &score = scores[m][n][2 * half + c];
                    score = mm_fast_exp2((score - base) * MM_LOG2_E);
                    total += score;
                }
            state.largest[m][half] = top;
            state.total[m][half] = state.total[m][half] * scale + total;
            if (__any_sync(0xffffffffu, scale != 1.0f)) {
#pragma unroll
                for (int n = 0; n < 2 * MM_WIDTHS; n++)
#pragma unroll
                    for (int c = 0; c < 2; c++)
                        state.sums[m][n][2 * half + c] *= scale;
            }
        }
}

// Adds values, times the weights.
MM_INLINE void mm_add_values(
    const mm_shared_memory memory, const float (&weights)[MM_TILES][2 * MM_PANELS][4],
    mm_state &state)
{
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < MM_PANELS; n++) {
        uint32_t w[MM_TILES][4];
#pragma unroll
        for (int m = 0; m < MM_TILES; m++)
#pragma unroll
            for (int r = 0; r < 4; r++) {
                const float(&from)[4] = weights[m][2 * n + r / 2];
                w[m][r] = mm_pack<MM_BFLOAT>(from[r % 2 * 2], from[r % 2 * 2 + 1]);
            }
#pragma unroll
        for (int s = 0; s < MM_WIDTHS; s++) {
            uint32_t v[4]; // of elements 0 to 7, both halves of 16 keys, then of elements 8 to 15
            mm_load_matrices<true>(
                v, mm_spread<2 * MM_WIDTHS>(memory.v, 16 * n + lane % 16, 2 * s + lane / 16));
#pragma unroll
            for (int m = 0; m < MM_TILES; m++) {
                mm_multiply<MM_BFLOAT>(state.sums[m][2 * s], w[m], v[0], v[1]);
                mm_multiply<MM_BFLOAT>(state.sums[m][2 * s + 1], w[m], v[2], v[3]);
            }
        }
    }
}

// ---- a block of queries ------------------------------------------------------------------------

MM_INLINE int64_t mm_last_of(const mm_args g, int64_t first)
{
    return min(first + MM_KEYS, mm_keys(g)) - 1;
}

// The first key, at or after a given one, that some query of the block attends to.
MM_INLINE int64_t mm_next_seen(const mm_args g, const mm_block block, int64_t first)
{
    const int64_t keys = mm_keys(g);
    while (first < keys
           && mm_is_masked(g, block.at, block.first, block.last, first, mm_last_of(g, first)))
        first += MM_KEYS;
    return first;
}

MM_INLINE void mm_write(const mm_args g, const mm_block block, const mm_state &state)
{
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * MM_WARP_ROWS + lane / 4;
#pragma unroll
    for (int m = 0; m < MM_TILES; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = state.total[m][half];
#pragma unroll
            for (int step = 1; step < 4; step *= 2)
                total += __shfl_xor_sync(0xffffffffu, total, step);
            const float factor = mm_keys(g) == 0 ? 0.0f : 1.0f / total;
            const int64_t i = block.first + row + 16 * m + 8 * half;
#pragma unroll
            for (int n = 0; n < 2 * MM_WIDTHS; n++)
#pragma unroll
                for (int c = 0; c < 2; c++) {
                    const int e = 8 * n + lane % 4 * 2 + c;
                    if (i <= block.last && e < MM_VALUES)
                        mm_out(g, block.at, i, e, state.sums[m][n][2 * half + c] * factor);
                }
        }
}

MM_INLINE void mm_run_block(const mm_args g, const mm_block block, const mm_shared_memory memory)
{
    mm_state state = {};
#pragma unroll
    for (int m = 0; m < MM_TILES; m++)
        state.largest[m][0] = state.largest[m][1] = -INFINITY;
    // The queries of this warp.
    const int64_t i0 = block.first + threadIdx.x / 32 * MM_WARP_ROWS;
    const int64_t i1 = min(i0 + MM_WARP_ROWS - 1, block.last);
    int64_t first = mm_next_seen(g, block, 0);
    // No warp still reads queries and keys of the previous task; some may still add values.
    if (first < mm_keys(g)) {
        mm_stage<mm_query_rows, MM_ROWS>(g, block.at, block.first, block.last, memory.q);
        mm_stage<mm_key_rows, MM_KEYS>(g, block.at, first, mm_last_of(g, first), memory.k);
    }
    while (first < mm_keys(g)) {
        const int64_t last = mm_last_of(g, first), next = mm_next_seen(g, block, first + MM_KEYS);
        float scores[MM_TILES][2 * MM_PANELS][4];
        mm_wait_for_copies();
        __syncthreads();
        mm_stage<mm_value_rows, MM_KEYS>(g, block.at, first, last, memory.v);
        mm_products(memory, scores);
        mm_wait_for_copies();
        __syncthreads();
        if (next < mm_keys(g))
            mm_stage<mm_key_rows, MM_KEYS>(g, block.at, next, mm_last_of(g, next), memory.k);
        if (last - first + 1 == MM_KEYS && mm_is_open(g, block.at, i0, i1, first, last))
            mm_weigh<true>(g, block, first, scores, state);
        else
            mm_weigh<false>(g, block, first, scores, state);
        mm_add_values(memory, scores, state);
        first = next;
    }
    mm_write(g, block, state);
}

MM_INLINE void mm_run(const mm_args g)
{
    extern __shared__ __align__(16) unsigned char mm_shared[];
    mm_eight *const q = reinterpret_cast<mm_eight *>(mm_shared);
    mm_eight *const k = q + MM_ROWS * 2 * MM_DEPTHS;
    const mm_shared_memory memory = {q, k, k + MM_KEYS * 2 * MM_DEPTHS};
    const int64_t queries = mm_queries(g), blocks = (queries + MM_ROWS - 1) / MM_ROWS;
    for (int64_t task = blockIdx.x; task < mm_batches(g) * blocks; task += gridDim.x) {
        // The last queries first: under a causal mask they attend to the most keys.
        const int64_t first = (blocks - 1 - task % blocks) * MM_ROWS;
        const int64_t last = min(first + MM_ROWS, queries) - 1;
        mm_run_block(g, {mm_place(g, task / blocks), first, last}, memory);
    }
}
