typedef struct {
    const uint16_t *b0;
    const uint16_t *b1;
    const uint16_t *b2;
    uint16_t *b3;
    int64_t s_batch;
} mm_args;

typedef struct {
    int64_t i0;
} mm_at;

MM_INLINE int64_t mm_rows(const mm_args g)
{
    const int64_t s_batch = g.s_batch;
    return (int64_t)s_batch;
}

MM_INLINE int64_t mm_columns(const mm_args g)
{
    return (int64_t)4096;
}

MM_INLINE int64_t mm_depth(const mm_args g)
{
    return (int64_t)4096;
}

MM_INLINE mm_at mm_place(const mm_args g, int64_t number)
{
    mm_at at;
    at.i0 = number;
    return at;
}

MM_INLINE float mm_left(const mm_args g, const mm_at at, int64_t k)
{
    const int64_t i0 = at.i0;
    const uint16_t *const __restrict__ b1 = g.b1;
    const float t0 = mm_load_bfloat16(b1[k + i0 * 4096]);
    return t0;
}

MM_INLINE const uint16_t *mm_right(const mm_args g, int64_t k, int64_t n)
{
    return g.b0 + (k + n * 4096);
}

MM_INLINE void mm_finish(const mm_args g, const mm_at at, int64_t n, float given)
{
    const int64_t i0 = at.i0;
    const uint16_t *const __restrict__ b2 = g.b2;
    const float t0 = mm_load_bfloat16(b2[n + i0 * 4096]);
    const float t1 = given;
    const float t2 = mm_gelu_none(t1);
    const float t3 = (t0 + t2);
    uint16_t *const __restrict__ b3 = g.b3;
    b3[n + i0 * 4096] = mm_store_bfloat16(t3);
}

typedef uint16_t mm_left_type;

MM_INLINE float mm_left_load(uint16_t x)
{
    return mm_load_bfloat16(x);
}

MM_INLINE uint16_t mm_left_store(float x)
{
    return mm_store_bfloat16(x);
}

typedef uint16_t mm_right_type;

MM_INLINE float mm_right_load(uint16_t x)
{
    return mm_load_bfloat16(x);
}

MM_INLINE uint16_t mm_right_store(float x)
{
    return mm_store_bfloat16(x);
}

constexpr int MM_RIGHT_WIDTH = 8;
constexpr int MM_RIGHT_BY_DEPTH = 1;
constexpr int MM_WARP_COLUMNS = 2;
constexpr int MM_TEAM = 1;
constexpr int MM_ACROSS = 4;
constexpr int MM_FEWEST_ROWS = 1;
constexpr int MM_MOST_ROWS = 8;
constexpr int MM_STAGED_NBYTES = 24576;

// kernels/cuda/memory.h

// kernels/cuda/right.h

// kernels/cuda/gemv.h

extern "C" __global__ void __launch_bounds__(MM_THREADS, MM_BLOCKS) mm_kernel(
    const uint16_t *__restrict__ b0, const uint16_t *__restrict__ b1,
    const uint16_t *__restrict__ b2, uint16_t *__restrict__ b3, long long s_batch)
{
    const mm_args g = {b0, b1, b2, b3, s_batch};
    mm_run(g);
}
