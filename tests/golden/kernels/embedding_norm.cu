// row_gather_mul_reduce_sum_4_more_add_mul
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
    const int64_t *__restrict__ b1, const float *__restrict__ b2, float *__restrict__ b3,
    long long s_seq)
{
    constexpr int V = 4;
    const int mm_lane = threadIdx.x % 32;
    for (int64_t mm_base = (int64_t)blockIdx.x * 8; mm_base < (int64_t)s_seq; mm_base += (int64_t)gridDim.x * 8) {
        int64_t mm_row = mm_base + threadIdx.x / 32;
        mm_row = mm_row < (int64_t)s_seq ? mm_row : (int64_t)s_seq - 1;  // too many threads: repeat a row
        const int64_t i0 = mm_row;
        const int64_t t0 = b1[i0];
        const int64_t t1 = mm_position(t0, 32000);
        float r4 = 0.0f;
        float e2[6 * V];  // kept in registers
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
            const int mm_i = (mm_j * 32 + mm_lane) * V;
            const mm_vector<float, V> v2 = mm_read<V>(b0 + mm_i + t1 * 768);
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float t2 = v2.v[mm_k];
                const float t3 = (t2 * t2);
                e2[mm_j * V + mm_k] = t2;
                r4 = r4 + t3;
            }
        }
        const float t4 = mm_warp_add<32>(r4);
        const float t5 = (float)(0x1.8000000000000p+9f);
        const float t6 = (t4 / t5);
        const float t7 = (float)(0x1.0c6f7a0000000p-20f);
        const float t8 = (t6 + t7);
        const float t9 = mm_rsqrt(t8);
        const float t12 = 0.0f;
#pragma unroll
        for (int mm_j = 0; mm_j < 6; mm_j++) {
            const int mm_i = (mm_j * 32 + mm_lane) * V;
            const mm_vector<float, V> v11 = mm_read<V>(b2 + mm_i);
            mm_vector<float, V> o3;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float t2 = e2[mm_j * V + mm_k];
                const float t10 = (t2 * t9);
                const float t11 = v11.v[mm_k];
                const float t13 = (t11 + t12);
                const float t14 = (t10 * t13);
                o3.v[mm_k] = t14;
            }
            mm_write(b3 + mm_i + i0 * 768, o3);
        }
    }
}
