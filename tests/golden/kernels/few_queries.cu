typedef struct {
    const uint16_t *query;
    const uint16_t *key;
    const uint16_t *value;
    uint16_t *out;
    float *scratch;
    uint32_t *counters;
    int64_t s_batch;
    int64_t s_length;
} mm_args;

typedef struct {
    int64_t x0;
    int64_t x1;
    int64_t x2;
} mm_at;

MM_INLINE int64_t mm_batches(const mm_args g)
{
    const int64_t s_batch = g.s_batch;
    return (int64_t)s_batch * (int64_t)8;
}

MM_INLINE mm_at mm_place(const mm_args g, int64_t batch, int64_t member)
{
    mm_at at;
    at.x1 = batch % 8;
    batch /= 8;
    at.x0 = batch;
    at.x2 = member;
    return at;
}

MM_INLINE int64_t mm_queries(const mm_args g)
{
    return (int64_t)1;
}

MM_INLINE int64_t mm_keys(const mm_args g)
{
    const int64_t s_length = g.s_length;
    return (int64_t)s_length;
}

MM_INLINE float mm_q(const mm_args g, const mm_at at, int64_t i, int64_t d)
{
    const int64_t x0 = at.x0;
    const int64_t x1 = at.x1;
    const int64_t x2 = at.x2;
    const uint16_t *const __restrict__ query = g.query;
    const float v_query = mm_load_bfloat16(query[d + x2 * 128 + x1 * 512 + x0 * 4096]);  // %query
    const float v3 = mm_cast_float32(v_query);  // %3 cast of attention
    return v3;
}

MM_INLINE float mm_k(const mm_args g, const mm_at at, int64_t j, int64_t d)
{
    const int64_t s_length = g.s_length;
    const int64_t x0 = at.x0;
    const int64_t x1 = at.x1;
    const uint16_t *const __restrict__ key = g.key;
    const float v_key = mm_load_bfloat16(key[d + j * 128 + x1 * (s_length * 128) + x0 * (s_length * 1024)]);  // %key
    const float v4 = mm_cast_float32(v_key);  // %4 cast of attention
    return v4;
}

MM_INLINE float mm_v(const mm_args g, const mm_at at, int64_t j, int64_t e)
{
    const int64_t s_length = g.s_length;
    const int64_t x0 = at.x0;
    const int64_t x1 = at.x1;
    const uint16_t *const __restrict__ value = g.value;
    const float v_value = mm_load_bfloat16(value[e + j * 128 + x1 * (s_length * 128) + x0 * (s_length * 1024)]);  // %value
    const float v5 = mm_cast_float32(v_value);  // %5 cast of attention
    return v5;
}

MM_INLINE float mm_score(const mm_args g, const mm_at at, int64_t i, int64_t j, float given)
{
    const float v7 = given;              // %7 matmul of attention
    const float v9 = v7 * 0.088388346f;  // %9 mul of attention
    return v9;
}

MM_INLINE bool mm_is_masked(const mm_args g, const mm_at at, int64_t i0, int64_t i1, int64_t j0, int64_t j1)
{
    return false;
}

MM_INLINE void mm_out(const mm_args g, const mm_at at, int64_t i, int64_t e, float given)
{
    const int64_t x0 = at.x0;
    const int64_t x1 = at.x1;
    const int64_t x2 = at.x2;
    const float v15 = given;  // %15 matmul of attention
    uint16_t *const __restrict__ out = g.out;
    out[e + x1 * 512 + x2 * 128 + x0 * 4096] = mm_store_bfloat16(v15);
}

typedef uint16_t mm_key_type;

MM_INLINE float mm_key_load(uint16_t given)
{
    return mm_load_bfloat16(given);
}

MM_INLINE uint16_t mm_key_store(float given)
{
    return mm_store_bfloat16(given);
}

MM_INLINE const uint16_t * mm_key(const mm_args g, const mm_at at, int64_t j, int64_t d)
{
    const int64_t s_length = g.s_length;
    const int64_t x0 = at.x0;
    const int64_t x1 = at.x1;
    return g.key + (d + j * 128 + x1 * (s_length * 128) + x0 * (s_length * 1024));
}

typedef uint16_t mm_value_type;

MM_INLINE float mm_value_load(uint16_t given)
{
    return mm_load_bfloat16(given);
}

MM_INLINE uint16_t mm_value_store(float given)
{
    return mm_store_bfloat16(given);
}

MM_INLINE const uint16_t * mm_value(const mm_args g, const mm_at at, int64_t j, int64_t e)
{
    const int64_t s_length = g.s_length;
    const int64_t x0 = at.x0;
    const int64_t x1 = at.x1;
    return g.value + (e + j * 128 + x1 * (s_length * 128) + x0 * (s_length * 1024));
}

constexpr int MM_QUERY_WIDTH = 8;
#define MM_QUERY_IS_STORED
typedef uint16_t mm_query_type;

MM_INLINE const uint16_t * mm_query(const mm_args g, const mm_at at, int64_t i, int64_t d)
{
    const int64_t x0 = at.x0;
    const int64_t x1 = at.x1;
    const int64_t x2 = at.x2;
    return g.query + (d + x2 * 128 + x1 * 512 + x0 * 4096);
}

MM_INLINE float mm_query_load(const mm_args g, const mm_at at, uint16_t given)
{
    const float v_query = mm_load_bfloat16(given);  // %query
    const float v3 = mm_cast_float32(v_query);      // %3 cast of attention
    return v3;
}

MM_INLINE float *mm_partial(const mm_args g)
{
    return g.scratch;
}

MM_INLINE uint32_t *mm_arrived(const mm_args g)
{
    return g.counters;
}

constexpr int MM_DEPTH = 128;
constexpr int MM_VALUES = 128;
constexpr int MM_MEMBERS = 4;
constexpr int MM_ROWS = 4;
constexpr int MM_LANES = 16;
constexpr int MM_PIECES = 1;
constexpr int MM_WIDTH = 8;
constexpr int MM_AHEAD = 4;
constexpr int MM_KEY_IS_STORED = 1;
constexpr int MM_VALUE_IS_STORED = 1;

// kernels/cuda/memory.h

// kernels/cuda/pieces.h

// kernels/cuda/attention_few.h

extern "C" __global__ void __launch_bounds__(MM_THREADS, MM_BLOCKS) mm_kernel(
    const uint16_t *__restrict__ query, const uint16_t *__restrict__ key,
    const uint16_t *__restrict__ value, uint16_t *__restrict__ out, float *__restrict__ scratch,
    uint32_t *__restrict__ counters, long long s_batch, long long s_length)
{
    const mm_args g = {query, key, value, out, scratch, counters, s_batch, s_length};
    mm_run(g);
}
