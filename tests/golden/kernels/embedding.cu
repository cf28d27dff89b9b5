// map_gather_mul
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

extern "C" __global__ void __launch_bounds__(256) mm_kernel(const float *__restrict__ table,
    const int32_t *__restrict__ tokens, float *__restrict__ out, long long s_batch, long long s_seq,
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
        const int32_t v_tokens = tokens[i0];  // %tokens
        const int64_t at_tokens = mm_position(v_tokens, s_vocab);
        const mm_vector<float, V> vec_table = mm_read<V>(table + mm_i + at_tokens * 768);
        mm_vector<float, V> out_block;
#pragma unroll
        for (int mm_k = 0; mm_k < V; mm_k++) {
            const float v_table = vec_table.v[mm_k];  // %table
            const float v2 = v_table * 2.0f;          // %2 mul
            out_block.v[mm_k] = v2;
        }
        mm_write(out + mm_i + i0 * 768, out_block);
    }
}
