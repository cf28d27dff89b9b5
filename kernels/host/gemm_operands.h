// Operands of gemm.h, as every number of rows reads them.

#ifndef MM_SHARED_ELSEWHERE

// Operands are kept in units of the depth: an element, or a pair of bfloat16 in place of a float.
#define MM_TERMS (MM_PAIRS ? 2 : 1)
#if MM_PAIRS
#define MM_RIGHT_UNITS(from) mm_vec_load((const float *)(from))
#else
#define MM_RIGHT_UNITS(from) MM_RIGHT_VEC(from)
#endif

MM_INLINE int64_t mm_units(int64_t depth)
{
    return (depth + MM_TERMS - 1) / MM_TERMS;
}

// True if a product is multiplied by its caller alone.
MM_INLINE bool mm_is_alone(void *const *buffers, const int64_t *scalars, int64_t terms)
{
    if (mm_arguments(buffers, scalars)->alone)
        return true;
    (void)buffers, (void)scalars;
    return terms <= MM_PARALLEL_TERMS;
}

static void mm_finish_rows(
    const mm_args g, int64_t row, int64_t rows, int64_t n0, int64_t count, const float *sums,
    int64_t sums_row)
{
    g->finish(g, row, rows, n0, count, sums, sums_row);
}

// Sizes of the caches; see `backends/host/caches.py`, which knows those of this machine. They decide
// where products are cut, and no number.
#ifndef MM_L1_NBYTES
#define MM_L1_NBYTES (32 << 10)
#endif
#ifndef MM_L2_NBYTES
#define MM_L2_NBYTES (512 << 10)
#endif
#ifndef MM_L3_NBYTES
#define MM_L3_NBYTES (32 << 20)
#endif

// Of the packed left operand: a quarter of the L3 cache, but 8 MB at most: a virtual machine has a part
// of the cache that it tells, and from 32 MB on, glibc takes new pages from the system at each call
// (2048 x 4096 x 64: 16 of 20 ms).
#define MM_BLOCK_FLOATS (MM_L3_NBYTES / 16 < 2 << 20 ? MM_L3_NBYTES / 16 : 2 << 20)

// A vector of consecutive elements of the right operand; `count` of them exist.
MM_INLINE mm_vec mm_right_part(const MM_RIGHT_TYPE *from, int64_t count)
{
    MM_RIGHT_TYPE some[MM_LANES] = {0};
    memcpy(some, from, (size_t)count * sizeof *from);
    return MM_RIGHT_VEC(some);
}

// The same for units along the depth.
MM_INLINE mm_vec mm_right_units_part(const MM_RIGHT_TYPE *from, int64_t count)
{
    MM_RIGHT_TYPE some[MM_LANES * MM_TERMS] = {0};
    memcpy(some, from, (size_t)mm_least(count, MM_LANES * MM_TERMS) * sizeof *from);
    return MM_RIGHT_UNITS(some);
}

#endif
