// Attention of many queries: softmax(score(q k^T)) v without a score matrix in memory, computed with
// float32 multiplications.
//
// A task is a block of queries of one head: MM_WARP_ROWS for each of the four warps. It goes over the
// keys 32 at a time, which is as many as a warp has lanes. Queries stay in shared memory; keys and
// values come through it, MM_CHUNK elements of each at a time. Each lane has the scores of one key
// with the queries of its warp, and keeps sums for every 32nd element of the values. Running sums are
// rescaled when a larger score is found.
// Source: M. Milakov and N. Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867;
// T. Dao et al., FlashAttention, arXiv 2205.14135.
//
// The code before this defines mm_args, mm_at, mm_place (of a head), mm_batches, mm_queries, mm_keys,
// mm_q, mm_k, mm_v, mm_score, mm_is_masked, mm_out, and MM_DEPTH, MM_VALUES (lengths of a key and of
// a value), MM_WARP_ROWS.

constexpr int MM_THREADS = 128; // per block
constexpr int MM_BLOCKS = 3;    // per SM: 168 registers per thread
constexpr int MM_WARPS = MM_THREADS / 32;
constexpr int MM_ROWS = MM_WARPS * MM_WARP_ROWS; // of a task
constexpr int MM_KEYS = 32;                      // that are staged together
constexpr int MM_CHUNK = 128;                    // elements of each
constexpr int MM_PITCH = MM_KEYS + 1;            // so that lanes write to different banks
constexpr int MM_Q_PITCH = (MM_DEPTH + 3) / 4 * 4;
constexpr int MM_SUMS = (MM_VALUES + 31) / 32; // of a lane and query

struct mm_shared_memory {
    float *q;       // [MM_ROWS][MM_Q_PITCH], padded with 0
    float *staged;  // a chunk of the keys [MM_CHUNK][MM_PITCH], or of the values [MM_KEYS][MM_CHUNK]
    float *weights; // [MM_ROWS][MM_KEYS]
};

struct mm_block {
    mm_at at;
    int64_t first; // query
    int rows;
};

MM_INLINE void mm_stage_queries(const mm_args g, const mm_block block, float *q)
{
    for (int n = threadIdx.x; n < MM_ROWS * MM_Q_PITCH; n += MM_THREADS) {
        const int r = n / MM_Q_PITCH, d = n % MM_Q_PITCH;
        q[n] = r < block.rows && d < MM_DEPTH ? mm_q(g, block.at, block.first + r, d) : 0.0f;
    }
}

// Elements d0 to d0 + MM_CHUNK of `count` keys; missing elements are 0.
MM_INLINE void mm_stage_keys(
    const mm_args g, const mm_at at, int64_t first, int count, int d0, float *staged)
{
#pragma unroll 4
    for (int n = threadIdx.x; n < MM_KEYS * MM_CHUNK; n += MM_THREADS) {
        const int j = n / MM_CHUNK, d = n % MM_CHUNK;
        const bool exists = j < count && d0 + d < MM_DEPTH;
        if (d0 + d < MM_Q_PITCH)
            staged[d * MM_PITCH + j] = exists ? mm_k(g, at, first + j, d0 + d) : 0.0f;
    }
}

MM_INLINE void mm_stage_values(
    const mm_args g, const mm_at at, int64_t first, int count, int e0, float *staged)
{
#pragma unroll 4
    for (int n = threadIdx.x; n < MM_KEYS * MM_CHUNK; n += MM_THREADS) {
        const int j = n / MM_CHUNK, e = n % MM_CHUNK;
        const bool exists = j < count && e0 + e < MM_VALUES;
        staged[n] = exists ? mm_v(g, at, first + j, e0 + e) : 0.0f;
    }
}

// Four adjacent floats that every lane reads.
MM_INLINE mm_vector<float, 4> mm_four(const float *from)
{
    return *reinterpret_cast<const mm_vector<float, 4> *>(from);
}

// Scores of this lane's key: products with the queries of this warp.
MM_INLINE void mm_products(
    const mm_args g, const mm_block block, int64_t first, int count, const mm_shared_memory memory,
    float (&scores)[MM_WARP_ROWS])
{
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * MM_WARP_ROWS;
#pragma unroll
    for (int r = 0; r < MM_WARP_ROWS; r++)
        scores[r] = 0;
    for (int d0 = 0; d0 < MM_Q_PITCH; d0 += MM_CHUNK) {
        __syncthreads();
        mm_stage_keys(g, block.at, first, count, d0, memory.staged);
        __syncthreads();
        const int end = min(MM_CHUNK, MM_Q_PITCH - d0);
#pragma unroll 1
        for (int d = 0; d < end; d += 4) {
            float k[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                k[i] = memory.staged[(d + i) * MM_PITCH + lane];
#pragma unroll
            for (int r = 0; r < MM_WARP_ROWS; r++) {
                const mm_vector<float, 4> q = mm_four(memory.q + (row + r) * MM_Q_PITCH + d0 + d);
#pragma unroll
                for (int i = 0; i < 4; i++)
                    scores[r] += q.v[i] * k[i];
            }
        }
    }
}

// Adds the values of some keys, times the weights, to sums that are in registers.
MM_INLINE void mm_add_values(
    const mm_args g, const mm_block block, int64_t first, int count, const mm_shared_memory memory,
    float (&sums)[MM_WARP_ROWS][MM_SUMS])
{
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * MM_WARP_ROWS;
    constexpr int PER_CHUNK = MM_CHUNK / 32;
#pragma unroll
    for (int c0 = 0; c0 < MM_SUMS; c0 += PER_CHUNK) {
        __syncthreads();
        mm_stage_values(g, block.at, first, count, c0 * 32, memory.staged);
        __syncthreads();
        for (int j = 0; j < MM_KEYS; j += 4) {
            mm_vector<float, 4> weights[MM_WARP_ROWS];
#pragma unroll
            for (int r = 0; r < MM_WARP_ROWS; r++)
                weights[r] = mm_four(memory.weights + (row + r) * MM_KEYS + j);
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int c = 0; c < PER_CHUNK; c++)
                    if (c0 + c < MM_SUMS) {
                        const float value = memory.staged[(j + i) * MM_CHUNK + c * 32 + lane];
#pragma unroll
                        for (int r = 0; r < MM_WARP_ROWS; r++)
                            sums[r][c0 + c] += weights[r].v[i] * value;
                    }
        }
    }
}

MM_INLINE void mm_run_block(const mm_args g, const mm_block block, const mm_shared_memory memory)
{
    const int lane = threadIdx.x % 32, row = threadIdx.x / 32 * MM_WARP_ROWS;
    const int64_t keys = mm_keys(g), last = block.first + block.rows - 1;
    float sums[MM_WARP_ROWS][MM_SUMS] = {};
    float largest[MM_WARP_ROWS], total[MM_WARP_ROWS]; // totals: of the keys of this lane
#pragma unroll
    for (int r = 0; r < MM_WARP_ROWS; r++) {
        largest[r] = -INFINITY;
        total[r] = 0;
    }
    __syncthreads();
    mm_stage_queries(g, block, memory.q);
    for (int64_t first = 0; first < keys; first += MM_KEYS) {
        const int count = min((int64_t)MM_KEYS, keys - first);
        if (mm_is_masked(g, block.at, block.first, last, first, first + count - 1))
            continue;
        float scores[MM_WARP_ROWS];
        mm_products(g, block, first, count, memory, scores);
#pragma unroll
        for (int r = 0; r < MM_WARP_ROWS; r++) {
            const int64_t i = min(block.first + row + r, last), j = first + lane;
            const float score = lane < count ? mm_score(g, block.at, i, j, scores[r]) : -INFINITY;
            float top = score > largest[r] ? score : largest[r];
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const float other = __shfl_xor_sync(0xffffffffu, top, step);
                top = other > top ? other : top;
            }
            const float base = top == -INFINITY ? 0.0f : top; // only masked keys so far
            const float scale = mm_exp(largest[r] - base);
            const float weight = mm_exp(score - base);
            largest[r] = top;
            total[r] = total[r] * scale + weight;
#pragma unroll
            for (int c = 0; c < MM_SUMS; c++)
                sums[r][c] *= scale;
            memory.weights[(row + r) * MM_KEYS + lane] = weight;
        }
        mm_add_values(g, block, first, count, memory, sums);
    }
#pragma unroll
    for (int r = 0; r < MM_WARP_ROWS; r++) {
        const float all = mm_warp_sum<1>(total[r]);
        const float factor = keys == 0 ? 0.0f : 1.0f / all;
#pragma unroll
        for (int c = 0; c < MM_SUMS; c++)
            if (row + r < block.rows && c * 32 + lane < MM_VALUES)
                mm_out(g, block.at, block.first + row + r, c * 32 + lane, sums[r][c] * factor);
    }
}

MM_INLINE void mm_run(const mm_args g)
{
    extern __shared__ __align__(16) unsigned char mm_shared[];
    float *const floats = reinterpret_cast<float *>(mm_shared);
    constexpr int WEIGHTS = MM_ROWS * MM_Q_PITCH, STAGED = WEIGHTS + MM_ROWS * MM_KEYS;
    const mm_shared_memory memory = {floats, floats + STAGED, floats + WEIGHTS};
    const int64_t queries = mm_queries(g), blocks = (queries + MM_ROWS - 1) / MM_ROWS;
    for (int64_t task = blockIdx.x; task < mm_batches(g) * blocks; task += gridDim.x) {
        // The last queries first: under a causal mask they attend to the most keys.
        const int64_t first = (blocks - 1 - task % blocks) * MM_ROWS;
        const int rows = min((int64_t)MM_ROWS, queries - first);
        mm_run_block(g, {mm_place(g, task / blocks), first, rows}, memory);
    }
}
