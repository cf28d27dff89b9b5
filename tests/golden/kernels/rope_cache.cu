// map_sub_gather_mul_mul_add_update_rows
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
    const float *__restrict__ b1, const float *__restrict__ b2, const int64_t *__restrict__ b3,
    float *__restrict__ b4, long long s_length)
{
    {
        const int64_t t0 = b3[0];
        if (t0 < 0 || t0 >= s_length)
            return;
    }
    constexpr int V = 4;
    const int64_t mm_step = (int64_t)gridDim.x * 256;
    const int64_t mm_thread = (int64_t)blockIdx.x * 256 + threadIdx.x;
    for (int64_t mm_work = mm_thread; mm_work < 128; mm_work += mm_step) {
        int64_t mm_rest = mm_work;
        const int64_t mm_q0 = mm_quotient(mm_rest, (32 / V));
        const int64_t mm_span = mm_rest - mm_q0 * (32 / V);
        mm_rest = mm_q0;
        const int64_t mm_q1 = mm_quotient(mm_rest, 2);
        const int64_t i1 = mm_rest - mm_q1 * 2;
        mm_rest = mm_q1;
        const int64_t i0 = mm_rest;
        const int64_t mm_i = mm_span * V;
        const int64_t t0 = b3[0];
        const int64_t t1 = t0;
        const int64_t t5 = ((int64_t)1ll);
        const int64_t t6 = (i1);
        const int64_t t7 = (t5 - t6);
        const int64_t t8 = mm_position(t7, 2);
        const mm_vector<float, V> v2 = mm_read<V>(b0 + mm_i + i1 * 32 + i0 * 64);
        const mm_vector<float, V> v3 = mm_read<V>(b1 + mm_i);
        const mm_vector<float, V> v9 = mm_read<V>(b0 + mm_i + t8 * 32 + i0 * 64);
        const mm_vector<float, V> v10 = mm_read<V>(b2 + mm_i + i1 * 32);
        mm_vector<float, V> o4;
#pragma unroll
        for (int mm_k = 0; mm_k < V; mm_k++) {
            const float t2 = v2.v[mm_k];
            const float t3 = v3.v[mm_k];
            const float t4 = (t2 * t3);
            const float t9 = v9.v[mm_k];
            const float t10 = v10.v[mm_k];
            const float t11 = (t9 * t10);
            const float t12 = (t4 + t11);
            o4.v[mm_k] = t12;
        }
        mm_write(b4 + i1 * 32 + mm_i + t1 * 64 + i0 * (s_length * 64), o4);
    }
}
