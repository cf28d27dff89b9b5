// row_add_layer_norm
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
static __device__ __forceinline__ T mm_warp_add(T mm_mine)
{
#pragma unroll
    for (int mm_lane = LANES / 2; mm_lane > 0; mm_lane /= 2) {
        const T mm_other = (T)__shfl_xor_sync(0xffffffffu, mm_mine, mm_lane);
        mm_mine = mm_mine + mm_other;
    }
    return mm_mine;
}

extern "C" __global__ void __launch_bounds__(256, 2) mm_kernel(const float *__restrict__ x,
    const float *__restrict__ y, const float *__restrict__ constant, float *__restrict__ out13,
    float *__restrict__ out0, long long s_batch, long long s_seq)
{
    constexpr int V = 4;
    const int mm_lane = threadIdx.x % 32;
    for (int64_t mm_base = (int64_t)blockIdx.x * 8; mm_base < (int64_t)(s_batch * s_seq); mm_base += (int64_t)gridDim.x * 8) {
        int64_t mm_row = mm_base + threadIdx.x / 32;
        mm_row = mm_row < (int64_t)(s_batch * s_seq) ? mm_row : (int64_t)(s_batch * s_seq) - 1;  // too many threads: repeat a row
        const int64_t i0 = mm_row;
        float sum1 = 0.0f;
        float row0[6 * V];  // kept in registers
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
            const int mm_i = (mm_j * 32 + mm_lane) * V;
            const mm_vector<float, V> vec_x = mm_read<V>(x + mm_i + i0 * 768);
            const mm_vector<float, V> vec_y = mm_read<V>(y + mm_i + i0 * 768);
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v_x = vec_x.v[mm_k];  // %x
                const float v_y = vec_y.v[mm_k];  // %y
                const float v0 = v_x + v_y;       // %0 add
                row0[mm_j * V + mm_k] = v0;
                sum1 += v0;
            }
        }
        const float v1 = mm_warp_add<32>(sum1);  // %1 sum of layer_norm
        const float v3 = v1 / 768.0f;            // %3 div of layer_norm
        float sum6 = 0.0f;
        float row4[6 * V];  // kept in registers
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v0 = row0[mm_j * V + mm_k];  // %0 add
                const float v4 = v0 - v3;                // %4 sub of layer_norm
                const float v5 = v4 * v4;                // %5 mul of layer_norm
                row4[mm_j * V + mm_k] = v4;
                sum6 += v5;
            }
        }
        const float v6 = mm_warp_add<32>(sum6);  // %6 sum of layer_norm
        const float v7 = v6 / 768.0f;            // %7 div of layer_norm
        const float v9 = v7 + 1e-05f;            // %9 add of layer_norm
        const float v10 = mm_rsqrt(v9);          // %10 rsqrt of layer_norm
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
            const int mm_i = (mm_j * 32 + mm_lane) * V;
            const mm_vector<float, V> vec_constant = mm_read<V>(constant + mm_i);
            mm_vector<float, V> out13_block;
            mm_vector<float, V> out0_block;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v0 = row0[mm_j * V + mm_k];         // %0 add
                const float v4 = row4[mm_j * V + mm_k];         // %4 sub of layer_norm
                const float v11 = v4 * v10;                     // %11 mul of layer_norm
                const float v_constant = vec_constant.v[mm_k];  // @constant.0
                const float v12 = v11 * v_constant;             // %12 mul of layer_norm
                const float v13 = v12 + v_constant;             // %13 add of layer_norm
                out13_block.v[mm_k] = v13;
                out0_block.v[mm_k] = v0;
            }
            mm_write(out13 + mm_i + i0 * 768, out13_block);
            mm_write(out0 + mm_i + i0 * 768, out0_block);
        }
    }
}
