// The epilogue of a product, for a row of sums. Of several products with the same left operand, the code
// before this defines MM_FINISH_COLUMNS and mm_finish_columns in place of mm_finish.

// MM_WIDE columns at a time, so that a number does not depend on how many there are in a call.
MM_INLINE void mm_finish_at(
    const mm_args g, const mm_at at, int64_t n0, int64_t count, const float *sums)
{
#ifdef MM_FINISH_COLUMNS
    for (int64_t c = 0; c < count; c += MM_WIDE)
        mm_finish_columns(
            g, at, n0 + c, count - c < MM_WIDE ? count - c : MM_WIDE, sums + c);
#else
    for (; count >= MM_WIDE; count -= MM_WIDE, n0 += MM_WIDE, sums += MM_WIDE) {
        #pragma omp simd
        for (int64_t n = 0; n < MM_WIDE; n++)
            mm_finish(g, at, n0 + n, sums[n]);
    }
    #pragma omp simd
    for (int64_t n = 0; n < count; n++)
        mm_finish(g, at, n0 + n, sums[n]);
#endif
}

MM_INLINE void mm_finish_row(
    const mm_args g, int64_t row, int64_t n0, int64_t count, const float *sums)
{
    mm_finish_at(g, mm_place(g, row), n0, count, sums);
}
