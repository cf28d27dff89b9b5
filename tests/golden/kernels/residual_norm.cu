// row_add_reduce_sum_true_div_7_more_mul_add
template <int N, typename T> static __device__ __forceinline__ mm_vector<T, N> mm_read(const T *p)
{
    return *reinterpret_cast<const mm_vector<T, N> *>(p);
}

template <int N, typename T>
static __device__ __forceinline__ void mm_write(T *p, const mm_vector<T, N> &v)
{
    *reinterpret_cast<mm_vector<T, N> *>(p) = v;
}

template <int LANES, typename T>
static __device__ __forceinline__ T mm_warp_add(T v)
{
#pragma unroll
    for (int mm_lane = LANES / 2; mm_lane > 0; mm_lane /= 2) {
        const T w = (T)__shfl_xor_sync(0xffffffffu, v, mm_lane);
        v = v + w;
    }
    return v;
}

extern "C" __global__ void __launch_bounds__(256, 2) mm_kernel(const float *__restrict__ b0,
    const float *__restrict__ b1, const float *__restrict__ b2, float *__restrict__ b3,
    float *__restrict__ b4, long long s_batch, long long s_seq)
{
    constexpr int V = 4;
    const int mm_lane = threadIdx.x % 32;
    for (int64_t mm_base = (int64_t)blockIdx.x * 8; mm_base < (int64_t)(s_batch * s_seq); mm_base += (int64_t)gridDim.x * 8) {
        int64_t mm_row = mm_base + threadIdx.x / 32;
        mm_row = mm_row < (int64_t)(s_batch * s_seq) ? mm_row : (int64_t)(s_batch * s_seq) - 1;  // too many threads: repeat a row
        const int64_t i0 = mm_row;
        float r3 = 0.0f;
        float e2[6 * V];  // kept in registers
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
            const int mm_i = (mm_j * 32 + mm_lane) * V;
            const mm_vector<float, V> v0 = mm_read<V>(b0 + mm_i + i0 * 768);
            const mm_vector<float, V> v1 = mm_read<V>(b1 + mm_i + i0 * 768);
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float t0 = v0.v[mm_k];
                const float t1 = v1.v[mm_k];
                const float t2 = (t0 + t1);
                e2[mm_j * V + mm_k] = t2;
                r3 = r3 + t2;
            }
        }
        const float t3 = mm_warp_add<32>(r3);
        const float t4 = (float)(0x1.8000000000000p+9f);
        const float t5 = (t3 / t4);
        float r8 = 0.0f;
        float e6[6 * V];  // kept in registers
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float t2 = e2[mm_j * V + mm_k];
                const float t6 = (t2 - t5);
                const float t7 = (t6 * t6);
                e6[mm_j * V + mm_k] = t6;
                r8 = r8 + t7;
            }
        }
        const float t8 = mm_warp_add<32>(r8);
        const float t9 = (t8 / t4);
        const float t10 = (float)(0x1.4f8b580000000p-17f);
        const float t11 = (t9 + t10);
        const float t12 = mm_rsqrt(t11);
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
            const int mm_i = (mm_j * 32 + mm_lane) * V;
            const mm_vector<float, V> v14 = mm_read<V>(b2 + mm_i);
            mm_vector<float, V> o3;
            mm_vector<float, V> o4;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float t2 = e2[mm_j * V + mm_k];
                const float t6 = e6[mm_j * V + mm_k];
                const float t13 = (t6 * t12);
                const float t14 = v14.v[mm_k];
                const float t15 = (t13 * t14);
                const float t16 = (t15 + t14);
                o3.v[mm_k] = t16;
                o4.v[mm_k] = t2;
            }
            mm_write(b3 + mm_i + i0 * 768, o3);
            mm_write(b4 + mm_i + i0 * 768, o4);
        }
    }
}
