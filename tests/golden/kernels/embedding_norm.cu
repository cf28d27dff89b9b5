// row_gather_rms_norm
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

extern "C" __global__ void __launch_bounds__(256, 2) mm_kernel(const float *__restrict__ table,
    const int64_t *__restrict__ tokens, const float *__restrict__ constant, float *__restrict__ out,
    long long s_seq)
{
    constexpr int V = 4;
    const int mm_lane = threadIdx.x % 32;
    for (int64_t mm_base = (int64_t)blockIdx.x * 8; mm_base < (int64_t)s_seq; mm_base += (int64_t)gridDim.x * 8) {
        int64_t mm_row = mm_base + threadIdx.x / 32;
        mm_row = mm_row < (int64_t)s_seq ? mm_row : (int64_t)s_seq - 1;  // too many threads: repeat a row
        const int64_t i0 = mm_row;
        const int64_t v_tokens = tokens[i0];  // %tokens
        const int64_t at_tokens = mm_position(v_tokens, 32000);
        float sum2 = 0.0f;
        float row_table[6 * V];  // kept in registers
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
            const int mm_i = (mm_j * 32 + mm_lane) * V;
            const mm_vector<float, V> vec_table = mm_read<V>(table + mm_i + at_tokens * 768);
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v_table = vec_table.v[mm_k];  // %table
                const float v1 = v_table * v_table;       // %1 mul of rms_norm
                row_table[mm_j * V + mm_k] = v_table;
                sum2 += v1;
            }
        }
        const float v2 = mm_warp_add<32>(sum2);  // %2 sum of rms_norm
        const float v4 = v2 / 768.0f;            // %4 div of rms_norm
        const float v6 = v4 + 1e-06f;            // %6 add of rms_norm
        const float v7 = mm_rsqrt(v6);           // %7 rsqrt of rms_norm
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
            const int mm_i = (mm_j * 32 + mm_lane) * V;
            const mm_vector<float, V> vec_constant = mm_read<V>(constant + mm_i);
            mm_vector<float, V> out_block;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float v_table = row_table[mm_j * V + mm_k];  // %table
                const float v8 = v_table * v7;                     // %8 mul of rms_norm
                const float v_constant = vec_constant.v[mm_k];     // @constant.0
                const float v10 = v_constant + 0.0f;               // %10 add of rms_norm
                const float v11 = v8 * v10;                        // %11 mul of rms_norm
                out_block.v[mm_k] = v11;
            }
            mm_write(out + mm_i + i0 * 768, out_block);
        }
    }
}
