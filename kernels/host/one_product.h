// One product for gemm.h with MM_SHARED: its left operand and its epilogue.
//
// It may be several products with the same left operand. Then the code before this defines
// MM_OPERAND_ENDS (a column of all products behind the last of each) and MM_ALTERNATES (1 if columns of
// two alternate), and mm_finish_columns, which takes the place of mm_finish.

static void mm_left_elements(
    const mm_product *p, int64_t row, int64_t first, int64_t count, float *to)
{
    const mm_args g = mm_arguments(p->buffers, p->scalars);
    const mm_at at = mm_place(g, row);
    #pragma omp simd
    for (int64_t i = 0; i < count; i++)
        to[i] = mm_left(g, at, first + i);
}

#if MM_PAIRS
// The same for pairs of bfloat16.
static void mm_left_units(
    const mm_product *p, int64_t row, int64_t first, int64_t count, float *to)
{
    const mm_args g = mm_arguments(p->buffers, p->scalars);
    const mm_at at = mm_place(g, row);
    const int64_t depth = p->depth;
    #pragma omp simd
    for (int64_t i = 0; i < count; i++) {
        const int64_t k = 2 * (first + i);
        const uint32_t low = mm_as_bits(mm_left(g, at, k)) >> 16; // exact: it is a bfloat16
        const uint32_t high = k + 1 < depth ? mm_as_bits(mm_left(g, at, k + 1)) & 0xffff0000u : 0;
        to[i] = mm_as_float(high | low);
    }
}
#else
#define mm_left_units mm_left_elements
#endif

static void mm_finish_sums(
    const mm_product *p, int64_t row, int64_t rows, int64_t n0, int64_t count, const float *sums,
    int64_t sums_row)
{
    const mm_args g = mm_arguments(p->buffers, p->scalars);
    for (int64_t r = 0; r < rows; r++, sums += sums_row) {
        const mm_at at = mm_place(g, row + r);
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
}

static void mm_set_operands(const mm_args g, mm_product *p)
{
#ifndef MM_OPERAND_ENDS
    const MM_RIGHT_TYPE *const first = mm_right(g, 0, 0);
    const MM_RIGHT_TYPE *const next = MM_RIGHT_BY_DEPTH ? mm_right(g, 0, 1) : mm_right(g, 1, 0);
    p->right[0] = (mm_operand){first, next - first, 0, INT64_MAX};
#else
    const int64_t ends[] = {MM_OPERAND_ENDS};
    const int count = sizeof ends / sizeof *ends, step = MM_ALTERNATES ? 2 : 1;
    for (int64_t i = 0, start = 0; i < count; i++) {
        const int64_t n = MM_ALTERNATES ? i : start;
        const MM_RIGHT_TYPE *const first = mm_right(g, 0, n);
        // A product of one column has no next one.
        const int64_t next = ends[i] - start > 1 ? mm_right(g, 0, n + step) - first : 0;
        p->right[i] = (mm_operand){first, next, start, i + 1 < count ? ends[i] : INT64_MAX};
        start = MM_ALTERNATES ? 0 : ends[i];
    }
    p->alternates = MM_ALTERNATES;
#endif
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const mm_args g = mm_arguments(mm_buffers, mm_scalars);
    mm_product p = {
        .rows = mm_rows(g),
        .columns = mm_columns(g),
        .depth = mm_depth(g),
        .buffers = mm_buffers,
        .scalars = mm_scalars,
        .left = mm_left_units,
        .elements = mm_left_elements,
        .finish = mm_finish_sums,
    };
    mm_set_operands(g, &p);
    mm_run_shared(mm_buffers, (const int64_t *)&p);
}
