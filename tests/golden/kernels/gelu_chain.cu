// map_mul_add_gelu_add
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
    const float *__restrict__ constant, const float *__restrict__ r, float *__restrict__ out)
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
        const mm_vector<float, V> vec_x = mm_read<V>(x + mm_i + i0 * 768);
        const mm_vector<float, V> vec_constant = mm_read<V>(constant + mm_i);
        const mm_vector<float, V> vec_r = mm_read<V>(r + mm_i + i0 * 768);
        mm_vector<float, V> out_block;
#pragma unroll
        for (int mm_k = 0; mm_k < V; mm_k++) {
            const float v_x = vec_x.v[mm_k];                // %x
            const float v1 = v_x * 1.5f;                    // %1 mul
            const float v_constant = vec_constant.v[mm_k];  // @constant.0
            const float v2 = v1 + v_constant;               // %2 add
            const float v3 = mm_gelu_none(v2);              // %3 gelu
            const float v_r = vec_r.v[mm_k];                // %r
            const float v4 = v3 + v_r;                      // %4 add
            out_block.v[mm_k] = v4;
        }
        mm_write(out + mm_i + i0 * 768, out_block);
    }
}
