// The steps of `shared/choose.h` over a row that the threads of a block share. The order of all sums
// is fixed, whichever thread runs first.

constexpr int MM_THREADS = 1024; // per block, at most
constexpr int MM_BLOCKS = 1;     // per SM

MM_INLINE int32_t mm_bits_of(float x)
{
    return __float_as_int(x);
}

MM_INLINE float mm_float_of(int32_t bits)
{
    return __int_as_float(bits);
}

// The sums over the block of several numbers of each thread, for every thread.
template <int N>
MM_INLINE void mm_block_sums(const float (&values)[N], double (&sums)[N])
{
    __shared__ float parts[N][32];
    __shared__ double wholes[N];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
#pragma unroll
    for (int n = 0; n < N; n++) {
        float part = values[n];
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            part += __shfl_xor_sync(0xffffffffu, part, step);
        if (lane == 0)
            parts[n][warp] = part;
    }
    __syncthreads();
    for (int n = warp; n < N; n += warps) {
        double whole = lane < warps ? parts[n][lane] : 0;
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            whole += __shfl_xor_sync(0xffffffffu, whole, step);
        if (lane == 0)
            wholes[n] = whole;
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++)
        sums[n] = wholes[n];
}

MM_INLINE float mm_largest(const float *x, int64_t size)
{
    __shared__ float parts[32];
    float largest = -INFINITY;
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x)
        largest = mm_max(largest, x[i]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        largest = mm_max(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    __syncthreads(); // the last row was read completely
    if (threadIdx.x % 32 == 0)
        parts[threadIdx.x / 32] = largest;
    __syncthreads();
    largest = parts[0];
    for (int warp = 1; warp < blockDim.x / 32; warp++)
        largest = mm_max(largest, parts[warp]);
    return largest;
}

MM_INLINE double mm_weigh(
    const float *x, int64_t size, float largest, float temperature, float least, float *weights)
{
    float sum[1] = {0};
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
        const float logit = x[i];
        const float scaled = mm_exp((logit - largest) / temperature);
        const float weight = logit == largest ? 1 : logit >= least ? scaled : 0;
        weights[i] = weight;
        sum[0] += weight;
    }
    double total[1];
    mm_block_sums(sum, total); // also a barrier: all weights are written
    return total[0];
}

MM_SEARCH_FUNCTION mm_amounts mm_measure(const float *x, int64_t size, const float *pivots, bool by_sum)
{
    float counts[MM_PIVOTS] = {}, sums[MM_PIVOTS] = {};
#pragma unroll 8
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
        const float element = x[i];
#pragma unroll
        for (int p = 0; p < MM_PIVOTS; p++) {
            counts[p] += element >= pivots[p] ? 1 : 0;
            if (by_sum)
                sums[p] += element >= pivots[p] ? element : 0;
        }
    }
    mm_amounts found = {};
    mm_block_sums(counts, found.count);
    if (by_sum)
        mm_block_sums(sums, found.sum);
    return found;
}

MM_INLINE float mm_amount_of(float element, float low, float high, bool by_sum)
{
    return low <= element && element <= high ? by_sum ? element : 1 : 0;
}

// The row is split into 32 contiguous pieces, then the piece that contains the element, and so on,
// until each lane of a warp has one element.
MM_SEARCH_FUNCTION int64_t mm_find(
    const float *x, int64_t size, float low, float high, bool by_sum, double fraction, double more)
{
    __shared__ float parts[32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    int64_t start = 0, end = size;
    double target = -1, before = 0;
    do {
        const int64_t share = (end - start + 1023) / 1024 * 32;
        for (int piece = warp; piece < 32; piece += warps) {
            const int64_t first = start + piece * share, last = min(first + share, end);
            float part = 0;
#pragma unroll 8
            for (int64_t i = first + lane; i < last; i += 32)
                part += mm_amount_of(x[i], low, high, by_sum);
#pragma unroll
            for (int step = 16; step > 0; step /= 2)
                part += __shfl_xor_sync(0xffffffffu, part, step);
            if (lane == 0)
                parts[piece] = part;
        }
        __syncthreads();
        if (target < 0) {
            double total = 0;
            for (int piece = 0; piece < 32; piece++)
                total += parts[piece];
            target = fraction * total + more;
        }
        double reached = before;
        int chosen = 0;
        for (int piece = 0; piece < 32 && reached <= target; piece++) {
            if (parts[piece] > 0) {
                chosen = piece;
                before = reached;
            }
            reached += parts[piece];
        }
        start += chosen * share;
        end = min(start + share, end);
        __syncthreads(); // before parts are written again
    } while (end - start > 32);
    const float own = start + lane < end ? mm_amount_of(x[start + lane], low, high, by_sum) : 0;
    double running = own;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const double left = __shfl_up_sync(0xffffffffu, running, step);
        running += lane >= step ? left : 0;
    }
    const unsigned has = __ballot_sync(0xffffffffu, own > 0);
    const unsigned above = __ballot_sync(0xffffffffu, own > 0 && before + running > target);
    return start + (above ? __ffs(above) - 1 : has ? 31 - __clz(has) : 0);
}

MM_INLINE void mm_drop(float *x, int64_t size, float value, int64_t last)
{
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x)
        if (i > last && x[i] == value)
            x[i] = 0;
    __syncthreads();
}

MM_INLINE void mm_run(const mm_args g)
{
    const int64_t rows = mm_rows(g), size = mm_size(g);
    for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
        const int64_t token = mm_choose(g, row, g.b5 + row * size);
        if (threadIdx.x == 0)
            g.b4[row] = token;
    }
}
