// row_greater_equal_mul_select_3_more_reduce_sum_true_div
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

template <int LANES, typename T>
static __device__ __forceinline__ T mm_warp_maximum(T v)
{
#pragma unroll
    for (int mm_lane = LANES / 2; mm_lane > 0; mm_lane /= 2) {
        const T w = (T)__shfl_xor_sync(0xffffffffu, v, mm_lane);
        v = mm_max(v, w);
    }
    return v;
}

template <typename T>
static __device__ __forceinline__ T mm_block_maximum(T v, T start, T *part)
{
    v = mm_warp_maximum<32>(v);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    const int mm_warp = threadIdx.x % 32;
    v = mm_warp < blockDim.x / 32 ? part[mm_warp] : start;
    return mm_warp_maximum<32>(v);
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

template <typename T>
static __device__ __forceinline__ T mm_block_add(T v, T start, T *part)
{
    v = mm_warp_add<32>(v);
    if (threadIdx.x % 32 == 0)
        part[threadIdx.x / 32] = v;
    __syncthreads();
    const int mm_warp = threadIdx.x % 32;
    v = mm_warp < blockDim.x / 32 ? part[mm_warp] : start;
    return mm_warp_add<32>(v);
}

template <int V>
static __device__ __forceinline__ void mm_rows_kept(
    const float *__restrict__ b0, float *__restrict__ b1, long long s_batch, long long s_seq)
{
    __shared__ float mm_part8[32];
    __shared__ float mm_part11[32];
    extern __shared__ __align__(16) unsigned char mm_shared[];
    float *const e7 = reinterpret_cast<float *>(mm_shared);
    float *const e10 = reinterpret_cast<float *>(mm_shared);
    for (int64_t mm_row = blockIdx.x; mm_row < (int64_t)(s_batch * s_seq * 12); mm_row += gridDim.x) {
        int64_t mm_rest = mm_row;
        const int64_t mm_q0 = mm_quotient(mm_rest, s_seq);
        const int64_t i1 = mm_rest - mm_q0 * s_seq;
        mm_rest = mm_q0;
        const int64_t i0 = mm_rest;
        const int64_t t0 = (i1);
        const float t4 = (float)(0x1.0000000000000p-3f);
        const float t6 = ((float)-INFINITY);
        float r8 = ((float)-INFINITY);
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            const mm_vector<float, V> v3 = mm_read<V>(b0 + mm_i + i1 * s_seq + i0 * (s_seq * s_seq));
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const int64_t x3 = mm_i + mm_k;
                const int64_t t1 = (x3);
                const bool t2 = (t0 >= t1);
                const float t3 = v3.v[mm_k];
                const float t5 = (t3 * t4);
                const float t7 = (t2 ? t5 : t6);
                e7[mm_k * (s_seq / V) + mm_i / V] = t7;
                r8 = mm_max(r8, t7);
            }
        }
        const float t8 = mm_block_maximum(r8, ((float)-INFINITY), mm_part8);
        float r11 = 0.0f;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float t7 = e7[mm_k * (s_seq / V) + mm_i / V];
                const float t9 = (t7 - t8);
                const float t10 = mm_exp(t9);
                e10[mm_k * (s_seq / V) + mm_i / V] = t10;
                r11 = r11 + t10;
            }
        }
        const float t11 = mm_block_add(r11, 0.0f, mm_part11);
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            mm_vector<float, V> o1;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const float t10 = e10[mm_k * (s_seq / V) + mm_i / V];
                const float t12 = (t10 / t11);
                o1.v[mm_k] = t12;
            }
            mm_write(b1 + mm_i + i1 * s_seq + i0 * (s_seq * s_seq), o1);
        }
    }
}

template <int V>
static __device__ __forceinline__ void mm_rows(const float *__restrict__ b0,
    float *__restrict__ b1, long long s_batch, long long s_seq)
{
    __shared__ float mm_part8[32];
    __shared__ float mm_part11[32];
    for (int64_t mm_row = blockIdx.x; mm_row < (int64_t)(s_batch * s_seq * 12); mm_row += gridDim.x) {
        int64_t mm_rest = mm_row;
        const int64_t mm_q0 = mm_quotient(mm_rest, s_seq);
        const int64_t i1 = mm_rest - mm_q0 * s_seq;
        mm_rest = mm_q0;
        const int64_t i0 = mm_rest;
        const int64_t t0 = (i1);
        const float t4 = (float)(0x1.0000000000000p-3f);
        const float t6 = ((float)-INFINITY);
        float r8 = ((float)-INFINITY);
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            const mm_vector<float, V> v3 = mm_read<V>(b0 + mm_i + i1 * s_seq + i0 * (s_seq * s_seq));
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const int64_t x3 = mm_i + mm_k;
                const int64_t t1 = (x3);
                const bool t2 = (t0 >= t1);
                const float t3 = v3.v[mm_k];
                const float t5 = (t3 * t4);
                const float t7 = (t2 ? t5 : t6);
                r8 = mm_max(r8, t7);
            }
        }
        const float t8 = mm_block_maximum(r8, ((float)-INFINITY), mm_part8);
        float r11 = 0.0f;
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            const mm_vector<float, V> v3 = mm_read<V>(b0 + mm_i + i1 * s_seq + i0 * (s_seq * s_seq));
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const int64_t x3 = mm_i + mm_k;
                const int64_t t1 = (x3);
                const bool t2 = (t0 >= t1);
                const float t3 = v3.v[mm_k];
                const float t5 = (t3 * t4);
                const float t7 = (t2 ? t5 : t6);
                const float t9 = (t7 - t8);
                const float t10 = mm_exp(t9);
                r11 = r11 + t10;
            }
        }
        const float t11 = mm_block_add(r11, 0.0f, mm_part11);
#pragma unroll 2
        for (int64_t mm_i = (int64_t)threadIdx.x * V; mm_i < s_seq; mm_i += blockDim.x * V) {
            const mm_vector<float, V> v3 = mm_read<V>(b0 + mm_i + i1 * s_seq + i0 * (s_seq * s_seq));
            mm_vector<float, V> o1;
#pragma unroll
            for (int mm_k = 0; mm_k < V; mm_k++) {
                const int64_t x3 = mm_i + mm_k;
                const int64_t t1 = (x3);
                const bool t2 = (t0 >= t1);
                const float t3 = v3.v[mm_k];
                const float t5 = (t3 * t4);
                const float t7 = (t2 ? t5 : t6);
                const float t9 = (t7 - t8);
                const float t10 = mm_exp(t9);
                const float t12 = (t10 / t11);
                o1.v[mm_k] = t12;
            }
            mm_write(b1 + mm_i + i1 * s_seq + i0 * (s_seq * s_seq), o1);
        }
    }
}

extern "C" __global__ void __launch_bounds__(512, 2) mm_kernel(const float *__restrict__ b0,
    float *__restrict__ b1, long long s_batch, long long s_seq)
{
    if ((s_seq * 4) <= 40960) {
        if (s_seq % 4 == 0 && (s_seq * s_seq) % 4 == 0)
            mm_rows_kept<4>(b0, b1, s_batch, s_seq);
        else
            mm_rows_kept<1>(b0, b1, s_batch, s_seq);
        return;
    }
    if (s_seq % 4 == 0 && (s_seq * s_seq) % 4 == 0)
        mm_rows<4>(b0, b1, s_batch, s_seq);
    else
        mm_rows<1>(b0, b1, s_batch, s_seq);
}
