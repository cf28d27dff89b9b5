// Matrix products: finish(left @ right), where the epilogue is applied to a sum while it is in the L1
// cache. Every sum runs over the whole depth in a fixed order, independent of the number of threads.
// It is also independent of the number of rows among products of many rows, and among those of few
// rows (mm_most_few) if rows of the right operand are contiguous.
//
// gemm_few.h has the products of few rows; gemm_many.h those of many, and gemm_narrow.h those of them
// whose right operand is small.
//
// The code before this defines MM_RIGHT_TYPE and MM_RIGHT_VEC (how elements of the right operand are
// stored and loaded) and MM_RIGHT_BY_DEPTH: 1 if the elements of a column of it are contiguous in
// memory, 0 if those of a row are. Products with quantised weights have files of their own.
// All of this is compiled once for many kernels: products.h precedes it, one_product.h follows; with
// MM_SHARED_ELSEWHERE it is in another library.

#ifdef MM_SHARED_ELSEWHERE
void (*mm_run_shared)(void *const *buffers, const int64_t *scalars); // set when a kernel is loaded
#else

static __attribute__((noinline)) void mm_run_shared(
    void *const *mm_buffers, const int64_t *mm_scalars)
{
    const mm_args g = mm_arguments(mm_buffers, mm_scalars);
    const int64_t rows = mm_rows(g), columns = mm_columns(g), depth = mm_depth(g);
    if (rows == 0 || columns == 0)
        return;
    const bool alone = mm_is_alone(mm_buffers, mm_scalars, rows * columns * depth);
    if (rows <= mm_most_few(depth))
        mm_few_rows(mm_buffers, mm_scalars, rows, columns, depth);
    else if (mm_is_narrow(rows, columns, depth, alone))
        mm_narrow_rows(mm_buffers, mm_scalars, rows, columns, depth);
    else
        mm_many_rows(mm_buffers, mm_scalars, rows, columns, depth);
}

#endif

#undef mm_args
#undef mm_arguments
#undef mm_rows
#undef mm_columns
#undef mm_depth
#undef mm_right
