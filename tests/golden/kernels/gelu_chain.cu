// map_mul_add_gelu_add
template <int N, typename T> static __device__ __forceinline__ mm_vector<T, N> mm_read(const T *p)
{
    return *reinterpret_cast<const mm_vector<T, N> *>(p);
}

template <int N, typename T>
static __device__ __forceinline__ void mm_write(T *p, const mm_vector<T, N> &v)
{
    *reinterpret_cast<mm_vector<T, N> *>(p) = v;
}

extern "C" __global__ void __launch_bounds__(256) mm_kernel(const float *__restrict__ b0,
    const float *__restrict__ b1, const float *__restrict__ b2, float *__restrict__ b3)
{
    constexpr int V = 4;
    const int mm_step = (int)gridDim.x * 256;
    const int mm_thread = (int)blockIdx.x * 256 + threadIdx.x;
    for (int mm_work = mm_thread; mm_work < 98304; mm_work += mm_step) {
        int mm_rest = mm_work;
        const int mm_span = mm_rest % (768 / V);
        mm_rest /= (768 / V);
        const int i0 = mm_rest;
        const int mm_i = mm_span * V;
        const float t1 = (float)(0x1.8000000000000p+0f);
        const mm_vector<float, V> v0 = mm_read<V>(b0 + mm_i + i0 * 768);
        const mm_vector<float, V> v3 = mm_read<V>(b1 + mm_i);
        const mm_vector<float, V> v6 = mm_read<V>(b2 + mm_i + i0 * 768);
        mm_vector<float, V> o3;
#pragma unroll
        for (int mm_k = 0; mm_k < V; mm_k++) {
            const float t0 = v0.v[mm_k];
            const float t2 = (t0 * t1);
            const float t3 = v3.v[mm_k];
            const float t4 = (t2 + t3);
            const float t5 = mm_gelu_none(t4);
            const float t6 = v6.v[mm_k];
            const float t7 = (t5 + t6);
            o3.v[mm_k] = t7;
        }
        mm_write(b3 + mm_i + i0 * 768, o3);
    }
}
