// map_sub_gather_mul_add_update_rows
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

extern "C" __global__ void __launch_bounds__(256) mm_kernel(const float *__restrict__ x,
    const float *__restrict__ cosine, const float *__restrict__ sine, const int64_t *__restrict__ used,
    float *__restrict__ keys, long long s_length)
{
    {
        const int64_t v_used = used[0];  // %used
        if (v_used < 0 || v_used >= s_length)
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
        const int64_t v_used = used[0];  // %used
        const int64_t at_used = v_used;
        const int64_t v2 = i1;               // %2 iota
        const int64_t v4 = (int64_t)1 - v2;  // %4 sub
        const int64_t at4 = mm_position(v4, 2);
        const mm_vector<float, V> vec_x = mm_read<V>(x + mm_i + i1 * 32 + i0 * 64);
        const mm_vector<float, V> vec_cosine = mm_read<V>(cosine + mm_i);
        const mm_vector<float, V> vec_x_2 = mm_read<V>(x + mm_i + at4 * 32 + i0 * 64);
        const mm_vector<float, V> vec_sine = mm_read<V>(sine + mm_i + i1 * 32);
        mm_vector<float, V> keys_block;
#pragma unroll
        for (int mm_k = 0; mm_k < V; mm_k++) {
            const float v_x = vec_x.v[mm_k];            // %x
            const float v_cosine = vec_cosine.v[mm_k];  // %cosine
            const float v6 = v_x * v_cosine;            // %6 mul
            const float v_x_2 = vec_x_2.v[mm_k];        // %x
            const float v_sine = vec_sine.v[mm_k];      // %sine
            const float v7 = v_x_2 * v_sine;            // %7 mul
            const float v8 = v6 + v7;                   // %8 add
            keys_block.v[mm_k] = v8;
        }
        mm_write(keys + i1 * 32 + mm_i + at_used * 64 + i0 * (s_length * 64), keys_block);
    }
}
