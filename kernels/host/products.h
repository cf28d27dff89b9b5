// What gemm.h and quantized.h know of a product. Kernels with the same kind of right operand then
// differ in a few short functions alone, and what takes long to compile is compiled once for all that
// are built together.
//
// The code before this defines MM_RIGHT_TYPE and MM_RIGHT_BY_DEPTH; and MM_SCALE_TYPE where elements of
// the right operand are codes. These are bytes, of a column one after the other, and so are its scales.

#define MM_MOST_OPERANDS 8

typedef struct {
    const MM_RIGHT_TYPE *first; // element
    int64_t step;               // from a column to the next with MM_RIGHT_BY_DEPTH, else from a row
    int64_t start, end;         // its columns among those of all
#ifdef MM_SCALE_TYPE
    const MM_SCALE_TYPE *scales;
    int64_t scales_step; // from a column to the next
#endif
} mm_operand;

#define MM_PARALLEL_TERMS 65536 // smaller products finish before another thread has started

typedef struct mm_product {
    int64_t first; // row of the left operand and of the result; rows below are counted from it
    int64_t rows, columns, depth;
    bool alone; // if other threads have products of their own
    // The right operand; with MM_RIGHT_BY_DEPTH perhaps several: one beside the other, or two whose
    // columns alternate.
    mm_operand right[MM_MOST_OPERANDS];
    bool alternates;
    void *const *buffers;
    const int64_t *scalars;
    // Writes `count` units of a row of the left operand, and elements of it.
    void (*left)(const struct mm_product *p, int64_t row, int64_t first, int64_t count, float *to);
    void (*elements)(
        const struct mm_product *p, int64_t row, int64_t first, int64_t count, float *to);
    // Takes sums of `rows` rows, `sums_row` apart, from column n0 on.
    void (*finish)(
        const struct mm_product *p, int64_t row, int64_t rows, int64_t n0, int64_t count,
        const float *sums, int64_t sums_row);
} mm_product;

typedef const mm_product *mm_product_pointer;

// Tasks get the product in place of integers.
MM_INLINE mm_product_pointer mm_product_of(void *const *buffers, const int64_t *scalars)
{
    (void)buffers;
    return (mm_product_pointer)scalars;
}

MM_INLINE const MM_RIGHT_TYPE *mm_product_right(mm_product_pointer p, int64_t k, int64_t n)
{
    const mm_operand *right = p->right;
#if MM_RIGHT_BY_DEPTH
    if (p->alternates)
        return right[n % 2].first + n / 2 * right[n % 2].step + k;
    while (n >= right->end)
        right++;
    return right->first + (n - right->start) * right->step + k;
#else
    return right->first + k * right->step + n;
#endif
}

#ifdef MM_SCALE_TYPE
MM_INLINE const MM_SCALE_TYPE *mm_product_scales(mm_product_pointer p, int64_t k, int64_t n)
{
    const mm_operand *right = p->right;
    if (p->alternates)
        return right[n % 2].scales + n / 2 * right[n % 2].scales_step + k;
    while (n >= right->end)
        right++;
    return right->scales + (n - right->start) * right->scales_step + k;
}

#define mm_scales mm_product_scales
#endif

#define mm_args mm_product_pointer
#define mm_arguments mm_product_of
#define mm_rows(g) ((g)->rows)
#define mm_columns(g) ((g)->columns)
#define mm_depth(g) ((g)->depth)
#define mm_right mm_product_right
