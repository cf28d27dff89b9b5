// map_gather_mul
static __device__ __forceinline__ int64_t mm_quotient(int64_t a, int64_t b)
{
    if (((a | b) >> 32) == 0)
        return (uint32_t)a / (uint32_t)b;
    const float mm_inverse = __fdividef(0.999999f, (float)b);
    int64_t mm_whole = 0;
    while (a >= b) {
        int64_t mm_part = (int64_t)((float)a * mm_inverse);
        mm_part = mm_part > 0 ? mm_part : 1;
        mm_whole += mm_part;
        a -= mm_part * b;
    }
    return mm_whole;
}

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
    const int32_t *__restrict__ b1, float *__restrict__ b2, long long s_batch, long long s_seq,
    long long s_vocab)
{
    constexpr int V = 4;
    const int64_t mm_step = (int64_t)gridDim.x * 256;
    const int64_t mm_thread = (int64_t)blockIdx.x * 256 + threadIdx.x;
    for (int64_t mm_work = mm_thread; mm_work < (s_batch * s_seq * 192); mm_work += mm_step) {
        int64_t mm_rest = mm_work;
        const int64_t mm_q0 = mm_quotient(mm_rest, (768 / V));
        const int64_t mm_span = mm_rest - mm_q0 * (768 / V);
        mm_rest = mm_q0;
        const int64_t i0 = mm_rest;
        const int64_t mm_i = mm_span * V;
        const int32_t t0 = b1[i0];
        const int64_t t1 = mm_position(t0, s_vocab);
        const float t3 = (float)(0x1.0000000000000p+1f);
        const mm_vector<float, V> v2 = mm_read<V>(b0 + mm_i + t1 * 768);
        mm_vector<float, V> o2;
#pragma unroll
        for (int mm_k = 0; mm_k < V; mm_k++) {
            const float t2 = v2.v[mm_k];
            const float t4 = (t2 * t3);
            o2.v[mm_k] = t4;
        }
        mm_write(b2 + mm_i + i0 * 768, o2);
    }
}
