// The epilogue of a product, for a row of sums. Of several products with the same left operand, the code
// before this defines MM_FINISH_COLUMNS and mm_finish_columns in place of mm_finish.

static void mm_finish_row(const mm_args g, int64_t row, int64_t n0, int64_t count, const float *sums)
{
    const mm_at at = mm_place(g, row);
#ifdef MM_FINISH_COLUMNS
    mm_finish_columns(g, at, n0, count, sums);
#else
    if (count == MM_WIDE) {
        #pragma omp simd
        for (int64_t n = 0; n < MM_WIDE; n++)
            mm_finish(g, at, n0 + n, sums[n]);
    } else {
        #pragma omp simd
        for (int64_t n = 0; n < count; n++)
            mm_finish(g, at, n0 + n, sums[n]);
    }
#endif
}
