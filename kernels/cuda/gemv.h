// Products of a few rows with a matrix: finish(left @ right), at the memory bandwidth of the right
// operand. Sums are float32 in a fixed order, whatever the number of rows.
//
// The rows of the left operand are staged in shared memory once per block. A thread reads 16 bytes of
// the right operand at a time, and issues several reads before it uses the first: to keep 4 TB/s busy,
// an SM needs 23 KB in flight.
//
// By depth (the elements of a column are contiguous, as in a weight [out, in]): a warp owns
// MM_WARP_COLUMNS columns and walks along them, 512 bytes at a time. Where there are few columns,
// MM_TEAM warps share them, each with every MM_TEAM-th step.
//
// By column (the elements of a row are contiguous, as in a weight [in, out]): MM_ACROSS lanes read
// adjacent columns, the other lanes and warps other rows, and the block sums them.
//
// The code before this defines mm_args, mm_at, mm_place (of a row), mm_rows, mm_columns, mm_depth,
// mm_left_piece (MM_LEFT_WIDTH elements of a row), mm_left_type, mm_left_load, mm_left_store,
// mm_finish, what right.h needs, and MM_RIGHT_BY_DEPTH, MM_WARP_COLUMNS, MM_TEAM, MM_ACROSS,
// MM_FEWEST_ROWS, MM_MOST_ROWS, MM_STAGED_NBYTES. With MM_HAS_PROLOGUE, mm_stage_row takes the
// place of mm_left_piece: all threads of a block compute a row together, and whole rows are staged.
// The right operands of several products may be one, side by side. With MM_HAS_PAIRS their columns
// alternate, MM_WARP_COLUMNS is 2, and mm_finish takes the sums of both.

constexpr int MM_THREADS = 256; // per block
constexpr int MM_BLOCKS = 2;    // per SM: 128 registers per thread
constexpr int MM_WARPS = MM_THREADS / 32;
constexpr int MM_STAGED = MM_STAGED_NBYTES / sizeof(mm_left_type); // elements of the left operand
constexpr int MM_STEP = 32 * MM_RIGHT_WIDTH;            // elements that a warp reads at once
constexpr int MM_BLOCK_COLUMNS =
    MM_RIGHT_BY_DEPTH ? MM_WARPS / MM_TEAM * MM_WARP_COLUMNS : MM_ACROSS * MM_RIGHT_WIDTH;

// Elements of a row that are staged together, if there are M rows.
template <int M>
struct mm_chunk {
    static constexpr int size = MM_STAGED / M / MM_STEP * MM_STEP;
};

// Puts a chunk of each row into shared memory; missing rows are 0.
template <int M>
MM_INLINE void mm_stage(const mm_args g, int rows, int64_t k0, int count, mm_left_type *staged)
{
#ifdef MM_HAS_PROLOGUE
#pragma unroll 1
    for (int m = 0; m < M; m++) {
        mm_left_type *const to = staged + m * mm_chunk<M>::size;
        if (m < rows)
            mm_stage_row(g, m, to);
        for (int k = threadIdx.x; m >= rows && k < count; k += MM_THREADS)
            to[k] = mm_left_store(0);
        if (M > 1)
            __syncthreads(); // the next row has its partial results in the same place
    }
#else
    typedef mm_vector<mm_left_type, MM_LEFT_WIDTH> piece;
    constexpr int TOGETHER = M == 1 || MM_LEFT_WIDTH == 1 ? 4 : 1; // pieces of a row at once
#pragma unroll
    for (int m = 0; m < M; m++) {
        const mm_at at = mm_place(g, m < rows ? m : 0);
#pragma unroll TOGETHER
        for (int k = threadIdx.x * MM_LEFT_WIDTH; k < count; k += MM_THREADS * MM_LEFT_WIDTH)
            *reinterpret_cast<piece *>(staged + m * mm_chunk<M>::size + k) =
                m < rows ? mm_left_piece(g, at, k0 + k) : piece{};
    }
#endif
}

// Stages the next chunk, unless it is the only one and already staged.
template <int M>
MM_INLINE void mm_stage_next(
    const mm_args g, int rows, int64_t k0, int64_t depth, bool is_first, mm_left_type *staged)
{
    if (!is_first && depth <= mm_chunk<M>::size)
        return;
    __syncthreads();
    mm_stage<M>(g, rows, k0, min(depth - k0, (int64_t)mm_chunk<M>::size), staged);
    __syncthreads();
}

// ---- by depth ----------------------------------------------------------------------------------

// Adds the products of one access for each column: elements k to k + MM_RIGHT_WIDTH of a chunk.
template <int M>
MM_INLINE void mm_add_part(
    const mm_args g, const mm_part (&part)[MM_WARP_COLUMNS], int64_t k0, int k, int64_t n,
    const mm_left_type *staged, float (&sums)[M][MM_WARP_COLUMNS])
{
    float right[MM_WARP_COLUMNS][MM_RIGHT_WIDTH];
#pragma unroll
    for (int c = 0; c < MM_WARP_COLUMNS; c++)
        mm_right_floats(g, part[c], k0 + k, n + c, right[c]);
#pragma unroll
    for (int m = 0; m < M; m++) {
        typedef mm_vector<mm_left_type, MM_RIGHT_WIDTH> left_part;
        const left_part left =
            *reinterpret_cast<const left_part *>(staged + m * mm_chunk<M>::size + k);
        float here[MM_WARP_COLUMNS], total = 0; // of this access, and of the left operand alone
#pragma unroll
        for (int c = 0; c < MM_WARP_COLUMNS; c++)
            here[c] = MM_SCALES_SUMS ? 0 : sums[m][c];
#pragma unroll
        for (int i = 0; i < MM_RIGHT_WIDTH; i++) {
            const float x = mm_left_load(left.v[i]);
            total += x;
#pragma unroll
            for (int c = 0; c < MM_WARP_COLUMNS; c++)
                here[c] += x * right[c][i];
        }
#pragma unroll
        for (int c = 0; c < MM_WARP_COLUMNS; c++)
            sums[m][c] = mm_scaled(part[c], here[c], total, sums[m][c]);
    }
}

// Accesses of a lane to each column that are under way at once: as many as make all rounds alike,
// if it is known how many there are.
template <int M>
struct mm_ahead {
    static constexpr int known = MM_STEPS == 0 ? MM_MOST_AHEAD_OF_PARTS : MM_MOST_AHEAD;
    static constexpr int share = known / (M == 1 ? 1 : M <= 4 ? 2 : 4) / MM_WARP_COLUMNS;
    static constexpr int most = share == 0 ? 1 : share;
    static constexpr int rounds = MM_STEPS == 0 ? 1 : (MM_STEPS + most - 1) / most;
    static constexpr int count = MM_STEPS == 0 ? most : (MM_STEPS + rounds - 1) / rounds;
};

// Asks for what this warp reads first of its columns, from n on, while the left operand is staged.
template <int M>
MM_INLINE void mm_prefetch_columns(const mm_args g, int part, int64_t depth, int64_t n, int64_t last)
{
    const int64_t k = part * MM_STEP + threadIdx.x % 32 * MM_RIGHT_WIDTH;
#pragma unroll
    for (int u = 0; u < mm_ahead<M>::count; u++)
        if (k + u * MM_STEP * MM_TEAM < depth)
#pragma unroll
            for (int c = 0; c < MM_WARP_COLUMNS; c++)
                mm_prefetch(mm_right(g, k + u * MM_STEP * MM_TEAM, min(n + c, last)));
}

// Adds the products of a chunk: this lane takes every MM_TEAM-th step from `part` on.
template <int M>
MM_INLINE void mm_add_chunk(
    const mm_args g, int part, int64_t k0, int count, int64_t n, int64_t last,
    const mm_left_type *staged, float (&sums)[M][MM_WARP_COLUMNS])
{
    constexpr int AHEAD = mm_ahead<M>::count;
    constexpr int STEP = MM_STEP * MM_TEAM;
    for (int first = part * MM_STEP; first < count; first += AHEAD * STEP) { // the same in a warp
        const int k = first + threadIdx.x % 32 * MM_RIGHT_WIDTH;
        mm_part read[AHEAD][MM_WARP_COLUMNS];
#pragma unroll
        for (int u = 0; u < AHEAD; u++)
            if (k + u * STEP < count)
#pragma unroll
                for (int c = 0; c < MM_WARP_COLUMNS; c++)
                    read[u][c] = mm_right_read(g, k0 + k + u * STEP, min(n + c, last));
        __syncwarp(); // or the compiler moves reads behind uses of those before
#pragma unroll
        for (int u = 0; u < AHEAD; u++)
            if (k + u * STEP < count)
                mm_add_part<M>(g, read[u], k0, k + u * STEP, n, staged, sums);
    }
}

// Stores the sums of this warp's columns: each lane one of them.
template <int M>
MM_INLINE void mm_finish_warp(
    const mm_args g, int rows, int64_t columns, int64_t n, const float (&sums)[M][MM_WARP_COLUMNS])
{
    const int lane = threadIdx.x % 32;
    const int m = lane / MM_WARP_COLUMNS, c = lane % MM_WARP_COLUMNS;
    float mine = 0;
#pragma unroll
    for (int i = 0; i < M * MM_WARP_COLUMNS; i++)
        mine = lane == i ? sums[i / MM_WARP_COLUMNS][i % MM_WARP_COLUMNS] : mine;
#ifdef MM_HAS_PAIRS
    const float other = __shfl_xor_sync(0xffffffffu, mine, 1);
    if (m < rows && m < M && n < columns && c == 0)
        mm_finish(g, mm_place(g, m), n / 2, mine, other);
#else
    if (m < rows && m < M && n + c < columns)
        mm_finish(g, mm_place(g, m), n + c, mine);
#endif
}

template <int M>
MM_INLINE void mm_by_depth(const mm_args g, int rows, mm_left_type *staged, float *partial)
{
    const int warp = threadIdx.x / 32, team = warp / MM_TEAM, part = warp % MM_TEAM;
    const int64_t columns = mm_columns(g), depth = mm_depth(g);
    const int64_t start = (int64_t)blockIdx.x * MM_BLOCK_COLUMNS;
    for (int64_t first = start; first < columns; first += (int64_t)gridDim.x * MM_BLOCK_COLUMNS) {
        const int64_t n = first + team * MM_WARP_COLUMNS;
        if (first == start && n < columns)
            mm_prefetch_columns<M>(g, part, depth, n, columns - 1);
        float sums[M][MM_WARP_COLUMNS] = {};
        for (int64_t k0 = 0; k0 < depth; k0 += mm_chunk<M>::size) {
            mm_stage_next<M>(g, rows, k0, depth, first == start, staged);
            const int count = min(depth - k0, (int64_t)mm_chunk<M>::size);
            if (n < columns)
                mm_add_chunk<M>(g, part, k0, count, n, columns - 1, staged, sums);
        }
#pragma unroll
        for (int i = 0; i < M * MM_WARP_COLUMNS; i++) {
            float &sum = sums[i / MM_WARP_COLUMNS][i % MM_WARP_COLUMNS];
            sum = mm_warp_sum<1>(sum);
            if (MM_TEAM > 1 && threadIdx.x % 32 == 0)
                partial[warp * M * MM_WARP_COLUMNS + i] = sum;
        }
        if constexpr (MM_TEAM > 1) {
            __syncthreads();
#pragma unroll
            for (int i = 0; i < M * MM_WARP_COLUMNS; i++) {
                float total = 0;
                for (int w = team * MM_TEAM; w < (team + 1) * MM_TEAM; w++)
                    total += partial[w * M * MM_WARP_COLUMNS + i];
                sums[i / MM_WARP_COLUMNS][i % MM_WARP_COLUMNS] = total;
            }
            __syncthreads();
        }
        if (part == 0)
            mm_finish_warp<M>(g, rows, columns, n, sums);
    }
}

// ---- by column ---------------------------------------------------------------------------------

// Adds the products of a chunk: this lane takes MM_RIGHT_WIDTH columns from n on, and every
// (MM_THREADS / MM_ACROSS)-th row.
template <int M>
MM_INLINE void mm_add_rows(
    const mm_args g, int64_t k0, int count, int64_t n, const mm_left_type *staged,
    float (&sums)[M][MM_RIGHT_WIDTH])
{
    constexpr int AHEAD = MM_MOST_AHEAD / (M <= 4 ? 2 : 4);
    constexpr int DOWN = MM_THREADS / MM_ACROSS; // rows that a block reads at once
    for (int k = threadIdx.x / MM_ACROSS; k < count; k += AHEAD * DOWN) {
        mm_part read[AHEAD];
#pragma unroll
        for (int u = 0; u < AHEAD; u++)
            if (k + u * DOWN < count)
                read[u] = mm_right_read(g, k0 + k + u * DOWN, n);
#pragma unroll
        for (int u = 0; u < AHEAD; u++) {
            const int at = k + u * DOWN;
            if (at >= count)
                break;
            float right[MM_RIGHT_WIDTH];
            mm_right_floats(g, read[u], k0 + at, n, right);
#pragma unroll
            for (int m = 0; m < M; m++) {
                const float x = mm_left_load(staged[m * mm_chunk<M>::size + at]);
#pragma unroll
                for (int i = 0; i < MM_RIGHT_WIDTH; i++)
                    sums[m][i] += x * right[i];
            }
        }
    }
}

template <int M>
MM_INLINE void mm_by_column(const mm_args g, int rows, mm_left_type *staged, float *partial)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const int64_t columns = mm_columns(g), depth = mm_depth(g);
    const int64_t start = (int64_t)blockIdx.x * MM_BLOCK_COLUMNS;
    for (int64_t first = start; first < columns; first += (int64_t)gridDim.x * MM_BLOCK_COLUMNS) {
        const int across = lane % MM_ACROSS * MM_RIGHT_WIDTH;
        const int64_t n = first + across;
        float sums[M][MM_RIGHT_WIDTH] = {};
        for (int64_t k0 = 0; k0 < depth; k0 += mm_chunk<M>::size) {
            mm_stage_next<M>(g, rows, k0, depth, first == start, staged);
            const int count = min(depth - k0, (int64_t)mm_chunk<M>::size);
            if (n < columns)
                mm_add_rows<M>(g, k0, count, n, staged, sums);
        }
#pragma unroll
        for (int m = 0; m < M; m++)
#pragma unroll
            for (int i = 0; i < MM_RIGHT_WIDTH; i++) {
                const float sum = mm_warp_sum<MM_ACROSS>(sums[m][i]);
                if (lane < MM_ACROSS)
                    partial[(m * MM_WARPS + warp) * MM_BLOCK_COLUMNS + across + i] = sum;
            }
        __syncthreads();
        for (int i = threadIdx.x; i < rows * MM_BLOCK_COLUMNS; i += MM_THREADS) {
            const int m = i / MM_BLOCK_COLUMNS, c = i % MM_BLOCK_COLUMNS;
            float total = 0;
#pragma unroll
            for (int w = 0; w < MM_WARPS; w++)
                total += partial[(m * MM_WARPS + w) * MM_BLOCK_COLUMNS + c];
#ifndef MM_HAS_PAIRS
            if (first + c < columns)
                mm_finish(g, mm_place(g, m), first + c, total);
#endif
        }
        __syncthreads();
    }
}

// ---- the kernel --------------------------------------------------------------------------------

template <int M>
MM_INLINE void mm_few_rows(const mm_args g, int rows, mm_left_type *staged, float *partial)
{
    if constexpr (MM_RIGHT_BY_DEPTH)
        mm_by_depth<M>(g, rows, staged, partial);
    else
        mm_by_column<M>(g, rows, staged, partial);
}

MM_INLINE void mm_run(const mm_args g)
{
    extern __shared__ __align__(128) unsigned char mm_shared[];
    mm_left_type *const staged = reinterpret_cast<mm_left_type *>(mm_shared);
    float *const partial = reinterpret_cast<float *>(mm_shared + MM_STAGED_NBYTES); // of each warp
    const int rows = (int)mm_rows(g);
    if constexpr (MM_FEWEST_ROWS <= 1)
        if (rows == 1)
            mm_few_rows<1>(g, rows, staged, partial);
    if constexpr (MM_FEWEST_ROWS <= 4 && MM_MOST_ROWS >= 2)
        if (rows >= 2 && rows <= 4)
            mm_few_rows<4>(g, rows, staged, partial);
    if constexpr (MM_MOST_ROWS >= 5)
        if (rows >= 5)
            mm_few_rows<8>(g, rows, staged, partial);
}

#undef MM_HAS_PAIRS
#undef MM_HAS_PROLOGUE
