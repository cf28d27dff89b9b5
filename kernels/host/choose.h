// The steps of `shared/choose.h` over a row on one thread, in blocks that stay in the L1 cache. Sums
// are float within a block and double across blocks.

#define MM_BLOCK 1024

MM_INLINE int mm_block_count(int64_t left)
{
    return left < MM_BLOCK ? (int)left : MM_BLOCK;
}

MM_INLINE int32_t mm_bits_of(float x)
{
    return (int32_t)mm_as_bits(x);
}

MM_INLINE float mm_float_of(int32_t bits)
{
    return mm_as_float((uint32_t)bits);
}

MM_INLINE float mm_largest(const float *x, int64_t size)
{
    float largest = -INFINITY;
    int nan = 0;
    #pragma omp simd reduction(max : largest) reduction(| : nan)
    for (int64_t i = 0; i < size; i++) {
        largest = x[i] > largest ? x[i] : largest;
        nan |= x[i] != x[i];
    }
    return nan ? NAN : largest;
}

MM_INLINE double mm_weigh(
    const float *x, int64_t size, float largest, float temperature, float least, float *weights)
{
    double total = 0;
    for (int64_t start = 0; start < size; start += MM_BLOCK) {
        const int count = mm_block_count(size - start);
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int i = 0; i < count; i++) {
            const float logit = x[start + i];
            const float scaled = mm_exp_f32((logit - largest) / temperature);
            const float weight = logit == largest ? 1 : logit >= least ? scaled : 0;
            weights[start + i] = weight;
            sum += weight;
        }
        total += sum;
    }
    return total;
}

MM_SEARCH_FUNCTION mm_amounts mm_measure(const float *x, int64_t size, const float *pivots, bool by_sum)
{
    mm_amounts found = {{0}, {0}};
    for (int64_t start = 0; start < size; start += MM_BLOCK) {
        const float *const block = x + start;
        const int all = mm_block_count(size - start);
        for (int p = 0; p < MM_PIVOTS; p++) {
            const float pivot = pivots[p];
            int count = 0;
            float sum = 0;
            if (by_sum) {
                #pragma omp simd reduction(+ : count, sum)
                for (int i = 0; i < all; i++) {
                    count += block[i] >= pivot;
                    sum += block[i] >= pivot ? block[i] : 0;
                }
            } else {
                #pragma omp simd reduction(+ : count)
                for (int i = 0; i < all; i++)
                    count += block[i] >= pivot;
            }
            found.count[p] += count;
            found.sum[p] += sum;
        }
    }
    return found;
}

// Number or sum of the elements of a block from `low` to `high`.
MM_SEARCH_FUNCTION double mm_amount_of(const float *block, int all, float low, float high, bool by_sum)
{
    float sum = 0;
    int count = 0;
    if (by_sum) {
        #pragma omp simd reduction(+ : sum)
        for (int i = 0; i < all; i++)
            sum += (block[i] >= low) & (block[i] <= high) ? block[i] : 0;
        return sum;
    }
    #pragma omp simd reduction(+ : count)
    for (int i = 0; i < all; i++)
        count += (block[i] >= low) & (block[i] <= high);
    return count;
}

MM_SEARCH_FUNCTION int64_t mm_find(
    const float *x, int64_t size, float low, float high, bool by_sum, double fraction, double more)
{
    double total = 0;
    for (int64_t start = 0; fraction > 0 && start < size; start += MM_BLOCK)
        total += mm_amount_of(x + start, mm_block_count(size - start), low, high, by_sum);
    const double target = fraction * total + more;
    double reached = 0, before = 0;
    int64_t from = 0; // the block that contains it
    for (int64_t start = 0; start < size && reached <= target; start += MM_BLOCK) {
        const int count = mm_block_count(size - start);
        const double amount = mm_amount_of(x + start, count, low, high, by_sum);
        if (amount > 0) {
            from = start;
            before = reached;
        }
        reached += amount;
    }
    int64_t found = from;
    const int count = mm_block_count(size - from);
    for (int64_t i = from; i < from + count && before <= target; i++) {
        const float amount = low <= x[i] && x[i] <= high ? by_sum ? x[i] : 1 : 0;
        found = amount > 0 ? i : found;
        before += amount;
    }
    return found;
}

MM_INLINE void mm_drop(float *x, int64_t size, float value, int64_t last)
{
    for (int64_t i = last + 1; i < size; i++)
        x[i] = x[i] == value ? 0 : x[i];
}

static void mm_choose_rows(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    (void)shared;
    for (int64_t row = first; row < end; row++)
        g.b4[row] = mm_choose(g, row, (float *)room);
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const mm_args g = mm_arguments(mm_buffers, mm_scalars);
    const int64_t rows = mm_rows(g), size = mm_size(g);
    if (rows > 0)
        mm_parallel(
            mm_choose_rows, mm_buffers, mm_scalars, NULL, rows, 1, (size_t)size * sizeof(float));
}
