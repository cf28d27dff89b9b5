// row_exp_softmax_add
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
    const float *__restrict__ x, float *__restrict__ out, long long s_rows, long long s_size)
{
    __shared__ float part1[32];
    __shared__ float part4[32];
    extern __shared__ __align__(16) unsigned char mm_shared[];
    float *const row0 = reinterpret_cast<float *>(mm_shared);
    float *const row3 = reinterpret_cast<float *>(mm_shared + 4 * s_size);
    for (int64_t mm_row = blockIdx.x; mm_row < (int64_t)s_rows; mm_row += gridDim.x) {
        const int64_t i0 = mm_row;
        float max1 = -INFINITY;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_size; mm_i += blockDim.x * V) {
            const mm_vector<float, V> vec_x = mm_read<V>(x + mm_i + i0 * s_size);
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v_x = vec_x.v[mm_k];  // %x
                const float v0 = mm_exp(v_x);     // %0 exp
                row0[mm_k * (s_size / V) + mm_i / V] = v0;
                max1 = mm_max(max1, v0);
            }
        }
        const float v1 = mm_block_maximum(max1, (-INFINITY), part1);  // %1 max of softmax
        float sum4 = 0.0f;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_size; mm_i += blockDim.x * V) {
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v0 = row0[mm_k * (s_size / V) + mm_i / V];  // %0 exp
                const float v2 = v0 - v1;                               // %2 sub of softmax
                const float v3 = mm_exp(v2);                            // %3 exp of softmax
                row3[mm_k * (s_size / V) + mm_i / V] = v3;
                sum4 += v3;
            }
        }
        const float v4 = mm_block_add(sum4, 0.0f, part4);  // %4 sum of softmax
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_size; mm_i += blockDim.x * V) {
            mm_vector<float, V> out_block;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v0 = row0[mm_k * (s_size / V) + mm_i / V];  // %0 exp
                const float v3 = row3[mm_k * (s_size / V) + mm_i / V];  // %3 exp of softmax
                const float v5 = v3 / v4;                               // %5 div of softmax
                const float v6 = v5 + v0;                               // %6 add
                out_block.v[mm_k] = v6;
            }
            mm_write(out + mm_i + i0 * s_size, out_block);
        }
    }
}

template <int V>
static __device__ __forceinline__ void mm_rows(const float *__restrict__ x,
    float *__restrict__ out, long long s_rows, long long s_size)
{
    __shared__ float part1[32];
    __shared__ float part4[32];
    for (int64_t mm_row = blockIdx.x; mm_row < (int64_t)s_rows; mm_row += gridDim.x) {
        const int64_t i0 = mm_row;
        float max1 = -INFINITY;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_size; mm_i += blockDim.x * V) {
            const mm_vector<float, V> vec_x = mm_read<V>(x + mm_i + i0 * s_size);
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v_x = vec_x.v[mm_k];  // %x
                const float v0 = mm_exp(v_x);     // %0 exp
                max1 = mm_max(max1, v0);
            }
        }
        const float v1 = mm_block_maximum(max1, (-INFINITY), part1);  // %1 max of softmax
        float sum4 = 0.0f;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_size; mm_i += blockDim.x * V) {
            const mm_vector<float, V> vec_x = mm_read<V>(x + mm_i + i0 * s_size);
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v_x = vec_x.v[mm_k];  // %x
                const float v0 = mm_exp(v_x);     // %0 exp
                const float v2 = v0 - v1;         // %2 sub of softmax
                const float v3 = mm_exp(v2);      // %3 exp of softmax
                sum4 += v3;
            }
        }
        const float v4 = mm_block_add(sum4, 0.0f, part4);  // %4 sum of softmax
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_size; mm_i += blockDim.x * V) {
            const mm_vector<float, V> vec_x = mm_read<V>(x + mm_i + i0 * s_size);
            mm_vector<float, V> out_block;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v_x = vec_x.v[mm_k];  // %x
                const float v0 = mm_exp(v_x);     // %0 exp
                const float v2 = v0 - v1;         // %2 sub of softmax
                const float v3 = mm_exp(v2);      // %3 exp of softmax
                const float v5 = v3 / v4;         // %5 div of softmax
                const float v6 = v5 + v0;         // %6 add
                out_block.v[mm_k] = v6;
            }
            mm_write(out + mm_i + i0 * s_size, out_block);
        }
    }
}

extern "C" __global__ void __launch_bounds__(512, 2) mm_kernel(const float *__restrict__ x,
    float *__restrict__ out, long long s_rows, long long s_size)
{
    if ((s_size * 8) <= 40960) {
        if (s_size % 4 == 0)
            mm_rows_kept<4>(x, out, s_rows, s_size);
        else
            mm_rows_kept<1>(x, out, s_rows, s_size);
        return;
    }
    if (s_size % 4 == 0)
        mm_rows<4>(x, out, s_rows, s_size);
    else
        mm_rows<1>(x, out, s_rows, s_size);
}
