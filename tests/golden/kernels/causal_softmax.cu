// row_greater_equal_mul_select_softmax
static __device__ __forceinline__ int64_t mm_quotient(int64_t mm_a, int64_t mm_b)
{
    if (((mm_a | mm_b) >> 32) == 0)
        return (uint32_t)mm_a / (uint32_t)mm_b;
    const float mm_inverse = __fdividef(0.999999f, (float)mm_b);
    int64_t mm_whole = 0;
    while (mm_a >= mm_b) {
        int64_t mm_part = (int64_t)((float)mm_a * mm_inverse);
        mm_part = mm_part > 0 ? mm_part : 1;
        mm_whole += mm_part;
        mm_a -= mm_part * mm_b;
    }
    return mm_whole;
}

template <int N, typename T>
static __device__ __forceinline__ mm_vector<T, N> mm_read(const T *mm_at)
{
    return *reinterpret_cast<const mm_vector<T, N> *>(mm_at);
}

template <int N, typename T>
static __device__ __forceinline__ void mm_write(T *mm_at, const mm_vector<T, N> &mm_elements)
{
    *reinterpret_cast<mm_vector<T, N> *>(mm_at) = mm_elements;
}

template <int LANES, typename T>
static __device__ __forceinline__ T mm_warp_maximum(T mm_mine)
{
#pragma unroll
    for (int mm_lane = LANES / 2; mm_lane > 0; mm_lane /= 2) {
        const T mm_other = (T)__shfl_xor_sync(0xffffffffu, mm_mine, mm_lane);
        mm_mine = mm_max(mm_mine, mm_other);
    }
    return mm_mine;
}

template <typename T>
static __device__ __forceinline__ T mm_block_maximum(T mm_mine, T mm_start, T *mm_parts)
{
    mm_mine = mm_warp_maximum<32>(mm_mine);
    if (threadIdx.x % 32 == 0)
        mm_parts[threadIdx.x / 32] = mm_mine;
    __syncthreads();
    const int mm_warp = threadIdx.x % 32;
    mm_mine = mm_warp < blockDim.x / 32 ? mm_parts[mm_warp] : mm_start;
    return mm_warp_maximum<32>(mm_mine);
}

template <int LANES, typename T>
static __device__ __forceinline__ T mm_warp_add(T mm_mine)
{
#pragma unroll
    for (int mm_lane = LANES / 2; mm_lane > 0; mm_lane /= 2) {
        const T mm_other = (T)__shfl_xor_sync(0xffffffffu, mm_mine, mm_lane);
        mm_mine = mm_mine + mm_other;
    }
    return mm_mine;
}

template <typename T>
static __device__ __forceinline__ T mm_block_add(T mm_mine, T mm_start, T *mm_parts)
{
    mm_mine = mm_warp_add<32>(mm_mine);
    if (threadIdx.x % 32 == 0)
        mm_parts[threadIdx.x / 32] = mm_mine;
    __syncthreads();
    const int mm_warp = threadIdx.x % 32;
    mm_mine = mm_warp < blockDim.x / 32 ? mm_parts[mm_warp] : mm_start;
    return mm_warp_add<32>(mm_mine);
}

template <int V>
static __device__ __forceinline__ void mm_rows_kept(
    const float *__restrict__ scores, float *__restrict__ out, long long s_batch, long long s_seq)
{
    __shared__ float part7[32];
    __shared__ float part10[32];
    extern __shared__ __align__(16) unsigned char mm_shared[];
    float *const row6 = reinterpret_cast<float *>(mm_shared);
    float *const row9 = reinterpret_cast<float *>(mm_shared);
    for (int64_t mm_row = blockIdx.x; mm_row < (int64_t)(s_batch * s_seq * 12); mm_row += gridDim.x) {
        int64_t mm_rest = mm_row;
        const int64_t mm_q0 = mm_quotient(mm_rest, s_seq);
        const int64_t i1 = mm_rest - mm_q0 * s_seq;
        mm_rest = mm_q0;
        const int64_t i0 = mm_rest;
        const int64_t v0 = i1;  // %0 iota
        float max7 = -INFINITY;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            const mm_vector<float, V> vec_scores = mm_read<V>(scores + mm_i + i1 * s_seq + i0 * (s_seq * s_seq));
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const int64_t x3 = mm_i + mm_k;
                const int64_t v0_2 = x3;                    // %0 iota
                const bool v2 = v0 >= v0_2;                 // %2 greater_equal
                const float v_scores = vec_scores.v[mm_k];  // %scores
                const float v4 = v_scores * 0.125f;         // %4 mul
                const float v6 = v2 ? v4 : (-INFINITY);     // %6 select
                row6[mm_k * (s_seq / V) + mm_i / V] = v6;
                max7 = mm_max(max7, v6);
            }
        }
        const float v7 = mm_block_maximum(max7, (-INFINITY), part7);  // %7 max of softmax
        float sum10 = 0.0f;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v6 = row6[mm_k * (s_seq / V) + mm_i / V];  // %6 select
                const float v8 = v6 - v7;                              // %8 sub of softmax
                const float v9 = mm_exp(v8);                           // %9 exp of softmax
                row9[mm_k * (s_seq / V) + mm_i / V] = v9;
                sum10 += v9;
            }
        }
        const float v10 = mm_block_add(sum10, 0.0f, part10);  // %10 sum of softmax
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            mm_vector<float, V> out_block;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v9 = row9[mm_k * (s_seq / V) + mm_i / V];  // %9 exp of softmax
                const float v11 = v9 / v10;                            // %11 div of softmax
                out_block.v[mm_k] = v11;
            }
            mm_write(out + mm_i + i1 * s_seq + i0 * (s_seq * s_seq), out_block);
        }
    }
}

template <int V>
static __device__ __forceinline__ void mm_rows(const float *__restrict__ scores,
    float *__restrict__ out, long long s_batch, long long s_seq)
{
    __shared__ float part7[32];
    __shared__ float part10[32];
    for (int64_t mm_row = blockIdx.x; mm_row < (int64_t)(s_batch * s_seq * 12); mm_row += gridDim.x) {
        int64_t mm_rest = mm_row;
        const int64_t mm_q0 = mm_quotient(mm_rest, s_seq);
        const int64_t i1 = mm_rest - mm_q0 * s_seq;
        mm_rest = mm_q0;
        const int64_t i0 = mm_rest;
        const int64_t v0 = i1;  // %0 iota
        float max7 = -INFINITY;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            const mm_vector<float, V> vec_scores = mm_read<V>(scores + mm_i + i1 * s_seq + i0 * (s_seq * s_seq));
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const int64_t x3 = mm_i + mm_k;
                const int64_t v0_2 = x3;                    // %0 iota
                const bool v2 = v0 >= v0_2;                 // %2 greater_equal
                const float v_scores = vec_scores.v[mm_k];  // %scores
                const float v4 = v_scores * 0.125f;         // %4 mul
                const float v6 = v2 ? v4 : (-INFINITY);     // %6 select
                max7 = mm_max(max7, v6);
            }
        }
        const float v7 = mm_block_maximum(max7, (-INFINITY), part7);  // %7 max of softmax
        float sum10 = 0.0f;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            const mm_vector<float, V> vec_scores = mm_read<V>(scores + mm_i + i1 * s_seq + i0 * (s_seq * s_seq));
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const int64_t x3 = mm_i + mm_k;
                const int64_t v0_2 = x3;                    // %0 iota
                const bool v2 = v0 >= v0_2;                 // %2 greater_equal
                const float v_scores = vec_scores.v[mm_k];  // %scores
                const float v4 = v_scores * 0.125f;         // %4 mul
                const float v6 = v2 ? v4 : (-INFINITY);     // %6 select
                const float v8 = v6 - v7;                   // %8 sub of softmax
                const float v9 = mm_exp(v8);                // %9 exp of softmax
                sum10 += v9;
            }
        }
        const float v10 = mm_block_add(sum10, 0.0f, part10);  // %10 sum of softmax
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            const mm_vector<float, V> vec_scores = mm_read<V>(scores + mm_i + i1 * s_seq + i0 * (s_seq * s_seq));
            mm_vector<float, V> out_block;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const int64_t x3 = mm_i + mm_k;
                const int64_t v0_2 = x3;                    // %0 iota
                const bool v2 = v0 >= v0_2;                 // %2 greater_equal
                const float v_scores = vec_scores.v[mm_k];  // %scores
                const float v4 = v_scores * 0.125f;         // %4 mul
                const float v6 = v2 ? v4 : (-INFINITY);     // %6 select
                const float v8 = v6 - v7;                   // %8 sub of softmax
                const float v9 = mm_exp(v8);                // %9 exp of softmax
                const float v11 = v9 / v10;                 // %11 div of softmax
                out_block.v[mm_k] = v11;
            }
            mm_write(out + mm_i + i1 * s_seq + i0 * (s_seq * s_seq), out_block);
        }
    }
}

extern "C" __global__ void __launch_bounds__(512, 2) mm_kernel(const float *__restrict__ scores,
    float *__restrict__ out, long long s_batch, long long s_seq)
{
    if ((s_seq * 4) <= 40960) {
        if (s_seq % 4 == 0 && (s_seq * s_seq) % 4 == 0)
            mm_rows_kept<4>(scores, out, s_batch, s_seq);
        else
            mm_rows_kept<1>(scores, out, s_batch, s_seq);
        return;
    }
    if (s_seq % 4 == 0 && (s_seq * s_seq) % 4 == 0)
        mm_rows<4>(scores, out, s_batch, s_seq);
    else
        mm_rows<1>(scores, out, s_batch, s_seq);
}
