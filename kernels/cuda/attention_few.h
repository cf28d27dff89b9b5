// Attention of a few queries, as in decoding: softmax(score(q k^T)) v at the memory bandwidth of keys
// and values. All queries that share keys and values read them together, once.
//
// A task is a batch entry with its keys and values, up to MM_ROWS of its queries, and a part of the
// keys: with few tasks the keys are split (split-KV), each part taking every MM_SPLITS-th block, so
// that masked keys at one end leave no part without work. In a block, MM_LANES lanes work on one key,
// a piece of MM_WIDTH elements each, and every such team keeps its own largest score and sums. The
// teams of a block are merged in shared memory; the parts of a task by the last block to finish. The
// order of all sums is fixed, whichever block that is.
// Source: M. Milakov and N. Gimelshein, Online normalizer calculation for softmax, arXiv 1805.02867;
// T. Dao et al., Flash-Decoding for long-context inference, 2023.
//
// The code before this defines mm_args, mm_at, mm_place (of a batch entry and a member of those
// that share its keys), mm_batches, mm_queries, mm_keys, mm_q, mm_score, mm_is_masked, mm_out, what
// pieces.h needs, MM_QUERY_WIDTH, with MM_QUERY_IS_STORED mm_query (a pointer to as many elements
// of a query), mm_query_type and mm_query_load (such an element as mm_q gives it), MM_DEPTH,
// MM_VALUES (lengths of a key and of a value), MM_MEMBERS, MM_ROWS, MM_LANES, MM_PIECES (of a
// lane), MM_AHEAD (keys that a team reads before it uses them). Its last two buffers are
// mm_partial: float, and mm_arrived: one zero for each task, which it leaves as it found it.

constexpr int MM_THREADS = 128; // per block
constexpr int MM_BLOCKS = 3;    // per SM: 168 registers per thread
constexpr int MM_TEAMS = MM_THREADS / MM_LANES;
constexpr int MM_TOGETHER = // keys that are weighted at once
    MM_LANES / MM_ROWS < MM_AHEAD ? MM_LANES / MM_ROWS : MM_AHEAD;
constexpr int MM_SCORES = MM_TOGETHER * MM_ROWS; // of these keys, each in one or more lanes
constexpr int MM_COPIES = MM_LANES / MM_SCORES;  // lanes with the same score
constexpr int MM_KEY_BLOCK = MM_TEAMS * MM_AHEAD;
constexpr int MM_WANTED_TASKS = 264; // two per SM of an H100
constexpr int MM_FEWEST_KEYS = 64;   // of a part: a round of loads takes longer than to merge one

// Reads N elements of a query from d on; behind its end they are 0.
template <int N>
MM_INLINE void mm_query_read(const mm_args g, const mm_at at, int64_t i, int d, float *to)
{
#ifdef MM_QUERY_IS_STORED
    typedef mm_vector<mm_query_type, N> piece;
    const mm_query_type *const from = mm_query(g, at, i, d);
    const piece read = d < MM_DEPTH ? *reinterpret_cast<const piece *>(from) : piece{};
#pragma unroll
    for (int w = 0; w < N; w++)
        to[w] = d < MM_DEPTH ? mm_query_load(g, at, read.v[w]) : 0.0f;
#else
    *to = d < MM_DEPTH ? mm_q(g, at, i, d) : 0.0f;
#endif
}

// The queries and keys of a task.
struct mm_task {
    int64_t batch;
    int64_t row;    // the first: member row % MM_MEMBERS of query row / MM_MEMBERS
    int64_t rows;   // of all tasks with the same keys
    int64_t part;
    int64_t parts;
    int64_t number; // without the part
};

MM_INLINE mm_at mm_row_place(const mm_args g, const mm_task task, int r)
{
    const int64_t row = min(task.row + r, task.rows - 1);
    return mm_place(g, task.batch, row % MM_MEMBERS);
}

MM_INLINE int64_t mm_row_query(const mm_task task, int r)
{
    return min(task.row + r, task.rows - 1) / MM_MEMBERS;
}

// True if no query of a task attends to a key of a block.
MM_INLINE bool mm_skips(const mm_args g, const mm_task task, int64_t j0, int64_t j1)
{
    const int64_t i0 = mm_row_query(task, 0), i1 = mm_row_query(task, MM_ROWS - 1);
#pragma unroll
    for (int member = 0; member < MM_MEMBERS; member++)
        if (!mm_is_masked(g, mm_place(g, task.batch, member), i0, i1, j0, j1))
            return false;
    return true;
}

// Sums each of N numbers over the lanes of a team. Lane t * (MM_LANES / N) and those after it get
// the sum of number t.
template <int N>
MM_INLINE float mm_team_sums(float (&x)[N])
{
    int count = N;
#pragma unroll
    for (int step = MM_LANES / 2; step > 0; step /= 2) {
        const bool is_upper = threadIdx.x & step;
        if (count == 1) {
            x[0] += __shfl_xor_sync(0xffffffffu, x[0], step);
            continue;
        }
        count /= 2;
#pragma unroll
        for (int i = 0; i < N / 2; i++)
            if (i < count) {
                const float sent = is_upper ? x[i] : x[i + count];
                const float kept = is_upper ? x[i + count] : x[i];
                x[i] = kept + __shfl_xor_sync(0xffffffffu, sent, step);
            }
    }
    return x[0];
}

// Running state of a team: lane t * MM_COPIES with t % MM_ROWS == r holds row r.
struct mm_state {
    float largest;
    float total; // of the keys that this lane has weighted
    float sums[MM_ROWS][MM_PIECES * MM_WIDTH];
};

// Weights MM_TOGETHER keys, the first of which is at j, and adds their values.
MM_INLINE void mm_attend(
    const mm_args g, const mm_task task, const mm_at own, int64_t query, int64_t j, int64_t keys,
    const float (&q)[MM_ROWS][MM_PIECES * MM_WIDTH], const mm_key_piece (*key)[MM_PIECES],
    const mm_value_piece (*value)[MM_PIECES], mm_state &state)
{
    const int lane = threadIdx.x % MM_LANES, score_number = lane / MM_COPIES;
    float products[MM_SCORES];
#pragma unroll
    for (int u = 0; u < MM_TOGETHER; u++) {
#pragma unroll
        for (int r = 0; r < MM_ROWS; r++)
            products[u * MM_ROWS + r] = 0;
#pragma unroll
        for (int p = 0; p < MM_PIECES; p++)
#pragma unroll
            for (int w = 0; w < MM_WIDTH; w++) {
                const float x = mm_key_load(key[u][p].v[w]);
#pragma unroll
                for (int r = 0; r < MM_ROWS; r++)
                    products[u * MM_ROWS + r] += q[r][p * MM_WIDTH + w] * x;
            }
    }
    const float product = mm_team_sums(products);
    const int64_t own_key = j + score_number / MM_ROWS * MM_TEAMS;
    const float score = own_key < keys ? mm_score(g, own, query, own_key, product) : -INFINITY;
    float top = score > state.largest ? score : state.largest;
#pragma unroll
    for (int step = MM_COPIES * MM_ROWS; step < MM_LANES; step *= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, top, step);
        top = other > top ? other : top;
    }
    const float base = top == -INFINITY ? 0.0f : top; // only masked keys so far
    const float scale = mm_exp(state.largest - base);
    const float weight = mm_exp(score - base);
    state.largest = top;
    state.total = state.total * scale + weight;
    const bool rescales = __any_sync(0xffffffffu, scale != 1.0f);
#pragma unroll
    for (int r = 0; r < MM_ROWS; r++) {
        if (rescales) {
            const float by = __shfl_sync(0xffffffffu, scale, r * MM_COPIES, MM_LANES);
#pragma unroll
            for (int e = 0; e < MM_PIECES * MM_WIDTH; e++)
                state.sums[r][e] *= by;
        }
    }
#pragma unroll
    for (int u = 0; u < MM_TOGETHER; u++) {
        float weights[MM_ROWS];
#pragma unroll
        for (int r = 0; r < MM_ROWS; r++) {
            const int from = (u * MM_ROWS + r) * MM_COPIES;
            weights[r] = __shfl_sync(0xffffffffu, weight, from, MM_LANES);
        }
#pragma unroll
        for (int p = 0; p < MM_PIECES; p++)
#pragma unroll
            for (int w = 0; w < MM_WIDTH; w++) {
                const float x = mm_value_load(value[u][p].v[w]);
#pragma unroll
                for (int r = 0; r < MM_ROWS; r++)
                    state.sums[r][p * MM_WIDTH + w] += weights[r] * x;
            }
    }
}

// All keys of a task.
MM_INLINE void mm_attend_part(const mm_args g, const mm_task task, mm_state &state)
{
    const int team = threadIdx.x / MM_LANES, lane = threadIdx.x % MM_LANES;
    const int64_t keys = mm_keys(g);
    const mm_at shared = mm_place(g, task.batch, 0);
    float q[MM_ROWS][MM_PIECES * MM_WIDTH];
#pragma unroll
    for (int r = 0; r < MM_ROWS; r++) {
        const mm_at at = mm_row_place(g, task, r);
        const int64_t i = mm_row_query(task, r);
#pragma unroll
        for (int n = 0; n < MM_PIECES * MM_WIDTH; n += MM_QUERY_WIDTH) {
            const int d = (n / MM_WIDTH * MM_LANES + lane) * MM_WIDTH + n % MM_WIDTH;
            mm_query_read<MM_QUERY_WIDTH>(g, at, i, d, &q[r][n]);
        }
#pragma unroll
        for (int n = 0; n < MM_PIECES * MM_WIDTH; n++)
            state.sums[r][n] = 0;
    }
    state.largest = -INFINITY;
    state.total = 0;
    const int own = lane / MM_COPIES % MM_ROWS;
    const mm_at own_place = mm_row_place(g, task, own);
    const int64_t own_query = mm_row_query(task, own);
    for (int64_t first = task.part * MM_KEY_BLOCK; first < keys; first += task.parts * MM_KEY_BLOCK) {
        if (mm_skips(g, task, first, min(first + MM_KEY_BLOCK, keys) - 1))
            continue;
        mm_key_piece key[MM_AHEAD][MM_PIECES] = {};
        mm_value_piece value[MM_AHEAD][MM_PIECES] = {};
#pragma unroll
        for (int u = 0; u < MM_AHEAD; u++) {
            const int64_t j = first + u * MM_TEAMS + team;
#pragma unroll
            for (int p = 0; p < MM_PIECES; p++) {
                const int d = (p * MM_LANES + lane) * MM_WIDTH;
                if (j < keys && d < MM_DEPTH)
                    key[u][p] = mm_key_read(g, shared, j, d);
                if (j < keys && d < MM_VALUES)
                    value[u][p] = mm_value_read(g, shared, j, d);
            }
        }
#pragma unroll
        for (int u = 0; u < MM_AHEAD; u += MM_TOGETHER)
            mm_attend(
                g, task, own_place, own_query, first + u * MM_TEAMS + team, keys, q, key + u,
                value + u, state);
    }
#pragma unroll
    for (int step = MM_COPIES * MM_ROWS; step < MM_LANES; step *= 2)
        state.total += __shfl_xor_sync(0xffffffffu, state.total, step);
}

// ---- merging -----------------------------------------------------------------------------------

// Sums of MM_ROWS rows from several teams or parts: [count][MM_ROWS][MM_VALUES], and for each
// row the largest score and the total weight: [count][MM_ROWS][2].
struct mm_left {
    float *sums;
    float *totals;
};

// The sum over parts, for one row and element.
MM_INLINE float mm_merged(const mm_left from, int64_t count, int r, int e, float *top, float *total)
{
    float largest = -INFINITY;
    for (int64_t n = 0; n < count; n++) {
        const float other = from.totals[(n * MM_ROWS + r) * 2];
        largest = other > largest ? other : largest;
    }
    const float base = largest == -INFINITY ? 0.0f : largest;
    float sum = 0, all = 0;
    for (int64_t n = 0; n < count; n++) {
        const float scale = mm_exp(from.totals[(n * MM_ROWS + r) * 2] - base);
        all += scale * from.totals[(n * MM_ROWS + r) * 2 + 1];
        sum += scale * from.sums[(n * MM_ROWS + r) * MM_VALUES + e];
    }
    *top = largest;
    *total = all;
    return sum;
}

// Merges, and stores results, or the part of a task.
MM_INLINE void mm_merge(
    const mm_args g, const mm_task task, const mm_left from, int64_t count, const mm_left *to)
{
    for (int n = threadIdx.x; n < MM_ROWS * MM_VALUES; n += MM_THREADS) {
        const int r = n / MM_VALUES, e = n % MM_VALUES;
        float top, total;
        const float sum = mm_merged(from, count, r, e, &top, &total);
        if (to) {
            to->sums[n] = sum;
            if (e == 0) {
                to->totals[r * 2] = top;
                to->totals[r * 2 + 1] = total;
            }
        } else if (task.row + r < task.rows) {
            const float factor = mm_keys(g) == 0 ? 0.0f : 1.0f / total;
            mm_out(g, mm_row_place(g, task, r), mm_row_query(task, r), e, sum * factor);
        }
    }
}

MM_INLINE void mm_leave(const mm_state &state, const mm_left to)
{
    const int team = threadIdx.x / MM_LANES, lane = threadIdx.x % MM_LANES;
#pragma unroll
    for (int r = 0; r < MM_ROWS; r++) {
        if (lane == r * MM_COPIES) {
            to.totals[(team * MM_ROWS + r) * 2] = state.largest;
            to.totals[(team * MM_ROWS + r) * 2 + 1] = state.total;
        }
#pragma unroll
        for (int n = 0; n < MM_PIECES * MM_WIDTH; n++) {
            const int e = (n / MM_WIDTH * MM_LANES + lane) * MM_WIDTH + n % MM_WIDTH;
            if (e < MM_VALUES)
                to.sums[(team * MM_ROWS + r) * MM_VALUES + e] = state.sums[r][n];
        }
    }
}

// ---- the kernel --------------------------------------------------------------------------------

// The slot of a part in the global memory that blocks share.
MM_INLINE mm_left mm_part_place(const mm_args g, const mm_task task, int64_t part)
{
    constexpr int SIZE = MM_ROWS * (MM_VALUES + 2);
    float *const first = mm_partial(g) + task.number * task.parts * SIZE;
    return {
        first + part * MM_ROWS * MM_VALUES,
        first + task.parts * MM_ROWS * MM_VALUES + part * MM_ROWS * 2};
}

MM_INLINE void mm_run_task(const mm_args g, const mm_task task, const mm_left teams, int *is_last)
{
    mm_state state;
    mm_attend_part(g, task, state);
    mm_leave(state, teams);
    __syncthreads();
    if (task.parts == 1) {
        mm_merge(g, task, teams, MM_TEAMS, nullptr);
        __syncthreads();
        return;
    }
    const mm_left part = mm_part_place(g, task, task.part);
    mm_merge(g, task, teams, MM_TEAMS, &part);
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        unsigned *const arrived = mm_arrived(g) + task.number;
        *is_last = atomicAdd(arrived, 1u) == task.parts - 1;
        if (*is_last)
            *arrived = 0; // for the next launch
    }
    __syncthreads();
    if (*is_last) {
        __threadfence();
        mm_merge(g, task, mm_part_place(g, task, 0), task.parts, nullptr);
    }
    __syncthreads();
}

MM_INLINE void mm_run(const mm_args g)
{
    extern __shared__ __align__(16) unsigned char mm_shared[];
    float *const memory = reinterpret_cast<float *>(mm_shared);
    constexpr int COUNT = MM_TEAMS * MM_ROWS;
    const mm_left teams = {memory, memory + COUNT * MM_VALUES};
    int *const is_last = reinterpret_cast<int *>(memory + COUNT * (MM_VALUES + 2));
    const int64_t rows = mm_queries(g) * MM_MEMBERS;
    const int64_t tiles = (rows + MM_ROWS - 1) / MM_ROWS, whole = mm_batches(g) * tiles;
    if (whole == 0)
        return;
    const int64_t wanted = (MM_WANTED_TASKS + whole - 1) / whole;
    const int64_t most = max((mm_keys(g) + MM_FEWEST_KEYS - 1) / MM_FEWEST_KEYS, (int64_t)1);
    const int64_t parts = min(wanted, most);
    for (int64_t task = blockIdx.x; task < whole * parts; task += gridDim.x) {
        const int64_t number = task / parts;
        mm_run_task(
            g, {number / tiles, number % tiles * MM_ROWS, rows, task % parts, parts, number}, teams,
            is_last);
    }
}

#undef MM_QUERY_IS_STORED
