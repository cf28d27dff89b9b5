// row_rms_norm
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

extern "C" __global__ void __launch_bounds__(256, 2) mm_kernel(const uint16_t *__restrict__ x,
    uint16_t *__restrict__ out, long long s_rows)
{
    constexpr int V = 8;
    const int mm_lane = threadIdx.x % 32;
    for (int64_t mm_base = (int64_t)blockIdx.x * 8; mm_base < (int64_t)s_rows; mm_base += (int64_t)gridDim.x * 8) {
        int64_t mm_row = mm_base + threadIdx.x / 32;
        mm_row = mm_row < (int64_t)s_rows ? mm_row : (int64_t)s_rows - 1;  // too many threads: repeat a row
        const int64_t i0 = mm_row;
        float sum4 = 0.0f;
        float row2[1 * V];  // kept in registers
#pragma unroll
        for (int mm_j = 0; mm_j < 1; mm_j++) {
            const int mm_i = mm_lane * V;
            const mm_vector<uint16_t, V> vec_x = mm_read<V>(x + mm_i + i0 * 256);
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v_x = mm_load_bfloat16(vec_x.v[mm_k]);  // %x
                const float v2 = mm_cast_float32(v_x);              // %2 cast of rms_norm
                const float v3 = v2 * v2;                           // %3 mul of rms_norm
                row2[mm_j * V + mm_k] = v2;
                sum4 += v3;
            }
        }
        const float v4 = mm_warp_add<32>(sum4);  // %4 sum of rms_norm
        const float v6 = v4 / 256.0f;            // %6 div of rms_norm
        const float v8 = v6 + 1e-06f;            // %8 add of rms_norm
        const float v9 = mm_rsqrt(v8);           // %9 rsqrt of rms_norm
#pragma unroll
        for (int mm_j = 0; mm_j < 1; mm_j++) {
            const int mm_i = mm_lane * V;
            const mm_vector<uint16_t, V> vec_x_2 = mm_read<V>(x + mm_i);
            mm_vector<uint16_t, V> out_block;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v2 = row2[mm_j * V + mm_k];                 // %2 cast of rms_norm
                const float v10 = v2 * v9;                              // %10 mul of rms_norm
                const float v14 = mm_cast_bfloat16(v10);                // %14 cast of rms_norm
                const float v15 = mm_cast_float32(v14);                 // %15 cast of rms_norm
                const float v_x_2 = mm_load_bfloat16(vec_x_2.v[mm_k]);  // %x
                const float v11 = mm_cast_float32(v_x_2);               // %11 cast of rms_norm
                const float v13 = v11 + 0.0f;                           // %13 add of rms_norm
                const float v16 = v15 * v13;                            // %16 mul of rms_norm
                const float v17 = mm_cast_bfloat16(v16);                // %17 cast of rms_norm
                out_block.v[mm_k] = mm_store_bfloat16(v17);
            }
            mm_write(out + mm_i + i0 * 256, out_block);
        }
    }
}
