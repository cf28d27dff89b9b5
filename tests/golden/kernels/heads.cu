// map_mul_add
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
    float *__restrict__ out)
{
    constexpr int V = 4;
    const int mm_step = (int)gridDim.x * 256;
    const int mm_thread = (int)blockIdx.x * 256 + threadIdx.x;
    for (int mm_work = mm_thread; mm_work < 12288; mm_work += mm_step) {
        int mm_rest = mm_work;
        const int mm_span = mm_rest % (64 / V);
        mm_rest /= (64 / V);
        const int i2 = mm_rest % 16;
        mm_rest /= 16;
        const int i1 = mm_rest % 12;
        mm_rest /= 12;
        const int i0 = mm_rest;
        const int mm_i = mm_span * V;
        const mm_vector<float, V> vec_x = mm_read<V>(x + mm_i + i1 * 64 + i2 * 768 + i0 * 12288);
        mm_vector<float, V> out_block;
#pragma unroll
        for (int mm_k = 0; mm_k < V; mm_k++) {
            const float v_x = vec_x.v[mm_k];  // %x
            const float v1 = v_x * 2.0f;      // %1 mul
            const float v5 = v1 + 1.0f;       // %5 add
            out_block.v[mm_k] = v5;
        }
        mm_write(out + mm_i + i2 * 64 + i1 * 1024 + i0 * 12288, out_block);
    }
}
