// One product for gemm.h or quantized.h: its left operand and its epilogue.
//
// It may be several products with the same left operand. Then the code before this defines
// MM_OPERAND_ENDS (a column of all products behind the last of each) and MM_ALTERNATES (1 if columns of
// two alternate), and mm_finish_columns, which takes the place of mm_finish.
//
// With MM_BATCHED, every mm_batch_rows rows have a right operand of their own, in which mm_right_of is
// the pointer to an element; their sums are those of a product on its own.
//
// finish.h precedes it.

static void mm_left_elements(
    const mm_product *p, int64_t row, int64_t first, int64_t count, float *to)
{
    const mm_args g = mm_arguments(p->buffers, p->scalars);
    const mm_at at = mm_place(g, p->first + row);
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
    const mm_at at = mm_place(g, p->first + row);
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
    mm_at at = mm_place(g, p->first + row);
    for (int64_t r = 0; r < rows; r++, mm_next(g, &at))
        mm_finish_at(g, at, n0, count, sums + r * sums_row);
}

#ifndef MM_BATCHED
// The operand whose first column is column n of all.
static mm_operand mm_operand_at(const mm_args g, int64_t n, int64_t step)
{
    const MM_RIGHT_TYPE *const first = mm_right(g, 0, n);
    const MM_RIGHT_TYPE *const next = MM_RIGHT_BY_DEPTH ? mm_right(g, 0, n + step) : mm_right(g, 1, n);
    return (mm_operand){
        .first = first,
        .step = step ? next - first : 0,
        .end = INT64_MAX,
#ifdef MM_SCALE_TYPE
        .scales = mm_scales(g, 0, n),
        .scales_step = mm_scales(g, 0, n + step) - mm_scales(g, 0, n),
#endif
    };
}
#endif

static void mm_set_operands(const mm_args g, mm_product *p)
{
#if defined(MM_BATCHED)
    const mm_at at = mm_place(g, p->first);
    const MM_RIGHT_TYPE *const first = mm_right_of(g, at, 0, 0);
    const MM_RIGHT_TYPE *const next = mm_right_of(g, at, !MM_RIGHT_BY_DEPTH, MM_RIGHT_BY_DEPTH);
    p->right[0] = (mm_operand){first, next - first, 0, INT64_MAX};
#elif !defined(MM_OPERAND_ENDS)
    p->right[0] = mm_operand_at(g, 0, 1);
#else
    const int64_t ends[] = {MM_OPERAND_ENDS};
    const int count = sizeof ends / sizeof *ends, step = MM_ALTERNATES ? 2 : 1;
    for (int64_t i = 0, start = 0; i < count; i++) {
        // A product of one column has no next one.
        p->right[i] = mm_operand_at(g, MM_ALTERNATES ? i : start, ends[i] - start > 1 ? step : 0);
        p->right[i].start = start;
        if (i + 1 < count)
            p->right[i].end = ends[i];
        start = MM_ALTERNATES ? 0 : ends[i];
    }
    p->alternates = MM_ALTERNATES;
#endif
}

// The product of some rows, which have the same right operand.
static void mm_multiply_rows(
    void *const *buffers, const int64_t *scalars, int64_t first, int64_t rows, bool alone)
{
    const mm_args g = mm_arguments(buffers, scalars);
    mm_product p = {
        .first = first,
        .rows = rows,
        .columns = mm_columns(g),
        .depth = mm_depth(g),
        .alone = alone,
        .buffers = buffers,
        .scalars = scalars,
        .left = mm_left_units,
        .elements = mm_left_elements,
        .finish = mm_finish_sums,
    };
    mm_set_operands(g, &p);
    mm_run_shared(buffers, (const int64_t *)&p);
}

#ifdef MM_BATCHED

static void mm_batch_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const int64_t rows = mm_batch_rows(mm_arguments(buffers, scalars));
    for (int64_t batch = first; batch < end; batch++)
        mm_multiply_rows(buffers, scalars, batch * rows, rows, true);
    (void)shared, (void)room;
}

// Threads take whole products, which they multiply alone, where there are enough of them for all.
void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const mm_args g = mm_arguments(mm_buffers, mm_scalars);
    const int64_t rows = mm_batch_rows(g), threads = mm_threads->count();
    const int64_t batches = rows ? mm_rows(g) / rows : 0;
    const int64_t terms = rows * mm_columns(g) * mm_depth(g);
    const bool is_small = terms * batches <= MM_PARALLEL_TERMS;
    const bool is_even = batches % threads == 0 || batches >= 4 * threads;
    if (!(is_small || is_even || terms <= MM_PARALLEL_TERMS)) {
        for (int64_t batch = 0; batch < batches; batch++)
            mm_multiply_rows(mm_buffers, mm_scalars, batch * rows, rows, false);
        return;
    }
    const int64_t step = MM_PARALLEL_TERMS / 4 / (terms + 1) + 1;
    mm_parallel(
        mm_batch_task, mm_buffers, mm_scalars, NULL, batches, is_small ? batches : step, 0);
}

#else

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t rows = mm_rows(mm_arguments(mm_buffers, mm_scalars));
    mm_multiply_rows(mm_buffers, mm_scalars, 0, rows, false);
}

#endif
