// The steps of `shared/choose.h` over a row that the threads of a block share. Everything is added
// up in one order, whatever runs first.

constexpr int MM_THREADS = 1024; // of a block, at most
constexpr int MM_BLOCKS = 1;     // on a processor

MM_INLINE int32_t mm_bits_of(float x)
{
    return __float_as_int(x);
}

MM_INLINE float mm_float_of(int32_t bits)
{
    return __int_as_float(bits);
}

// Sums over the block of several numbers of each thread, for every thread.
template <int N>
MM_INLINE void mm_block_sums(double (&values)[N])
{
    __shared__ double parts[N][32];
    __shared__ double sums[N];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            values[n] += __shfl_xor_sync(0xffffffffu, values[n], step);
        if (lane == 0)
            parts[n][warp] = values[n];
    }
    __syncthreads();
    for (int n = warp; n < N; n += warps) {
        double sum = lane < warps ? parts[n][lane] : 0;
#pragma unroll
        for (int step = 16; step > 0; step /= 2)
            sum += __shfl_xor_sync(0xffffffffu, sum, step);
        if (lane == 0)
            sums[n] = sum;
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++)
        values[n] = sums[n];
}

MM_INLINE float mm_largest(const float *x, int64_t size)
{
    __shared__ float parts[32];
    float largest = -INFINITY;
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x)
        largest = mm_max(largest, x[i]);
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        largest = mm_max(largest, __shfl_xor_sync(0xffffffffu, largest, step));
    __syncthreads(); // of the last row, everything was read
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
    float sum = 0;
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
        const float logit = x[i];
        const float scaled = mm_exp((logit - largest) / temperature);
        const float weight = logit == largest ? 1 : logit >= least ? scaled : 0;
        weights[i] = weight;
        sum += weight;
    }
    double total[1] = {sum};
    mm_block_sums(total); // and everybody's weights are there
    return total[0];
}

MM_INLINE mm_amounts mm_measure(const float *x, int64_t size, const float *pivots, bool by_sum)
{
    int count[MM_PIVOTS] = {};
    float sum[MM_PIVOTS] = {};
    for (int64_t i = threadIdx.x; i < size; i += blockDim.x) {
        const float element = x[i];
#pragma unroll
        for (int p = 0; p < MM_PIVOTS; p++) {
            count[p] += element >= pivots[p];
            sum[p] += element >= pivots[p] ? element : 0;
        }
    }
    double all[2 * MM_PIVOTS];
#pragma unroll
    for (int p = 0; p < MM_PIVOTS; p++) {
        all[p] = count[p];
        all[MM_PIVOTS + p] = by_sum ? sum[p] : 0;
    }
    mm_block_sums(all);
    mm_amounts found;
#pragma unroll
    for (int p = 0; p < MM_PIVOTS; p++) {
        found.count[p] = all[p];
        found.sum[p] = all[MM_PIVOTS + p];
    }
    return found;
}

MM_INLINE float mm_amount_of(float element, float low, float high, bool by_sum)
{
    return low <= element && element <= high ? by_sum ? element : 1 : 0;
}

// Each warp has neighbouring elements. When all know what the others have, one of them looks closer.
MM_INLINE int64_t mm_find(
    const float *x, int64_t size, float low, float high, bool by_sum, double fraction, double more)
{
    __shared__ double parts[32];
    __shared__ int64_t result;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    const int64_t share = (size + 32 * warps - 1) / (32 * warps) * 32;
    const int64_t start = warp * share, end = min(start + share, size);
    double part = 0;
    for (int64_t i = start + lane; i < end; i += 32)
        part += mm_amount_of(x[i], low, high, by_sum);
#pragma unroll
    for (int step = 16; step > 0; step /= 2)
        part += __shfl_xor_sync(0xffffffffu, part, step);
    if (lane == 0)
        parts[warp] = part;
    __syncthreads();
    double total = 0;
    for (int w = 0; w < warps; w++)
        total += parts[w];
    const double target = fraction * total + more;
    double reached = 0, before = 0;
    int mine = 0; // the warp that has it
    for (int w = 0; w < warps && reached <= target; w++) {
        if (parts[w] > 0) {
            mine = w;
            before = reached;
        }
        reached += parts[w];
    }
    if (warp == mine) {
        int64_t found = start;
        bool is_found = false;
        for (int64_t i = start; i < end && !is_found; i += 32) {
            const float own = i + lane < end ? mm_amount_of(x[i + lane], low, high, by_sum) : 0;
            double running = own;
#pragma unroll
            for (int step = 1; step < 32; step *= 2) {
                const double left = __shfl_up_sync(0xffffffffu, running, step);
                running += lane >= step ? left : 0;
            }
            const unsigned has = __ballot_sync(0xffffffffu, own > 0);
            const unsigned above = __ballot_sync(0xffffffffu, own > 0 && before + running > target);
            is_found = above != 0;
            if (is_found)
                found = i + __ffs(above) - 1;
            else if (has)
                found = i + 31 - __clz(has);
            before += __shfl_sync(0xffffffffu, running, 31);
        }
        if (lane == 0)
            result = found;
    }
    __syncthreads();
    const int64_t found = result;
    __syncthreads(); // before the next search
    return found;
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
