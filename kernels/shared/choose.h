// Samples a token of each row of logits: the most likely one, or one drawn from those that top-k,
// top-p and min-p keep. `maxmod/ops/choose.py` defines the semantics.
//
// Nothing is sorted. Elements at least as large as a threshold are kept, and thresholds are found by
// searching among all floats: a pass over the row compares with MM_PIVOTS floats at once, so that each
// pass determines three bits, and a few passes separate even adjacent floats.
//
// Both dialects include this file, and define after it the steps that it declares, which all threads
// of a row run together. The code before it defines mm_args: b0 the logits, b1 (temperature, top-k,
// top-p, min-p), b2 the seed, b3 the counters, b4 the tokens; mm_rows and mm_size.

#define MM_PIVOTS 7
#define MM_LARGEST_TEMPERATURE 0x1.fffffep127 // the largest finite float

// Not inlined on the host if called in several places, as users wait for the C compiler.
#ifdef MM_PRELUDE_HOST
#define MM_SEARCH_FUNCTION static __attribute__((noinline))
#else
#define MM_SEARCH_FUNCTION MM_INLINE
#endif

// Of the elements of a row that are at least as large as each pivot.
typedef struct {
    double count[MM_PIVOTS];
    double sum[MM_PIVOTS];
} mm_amounts;

// The largest element; NaN if there is one.
MM_INLINE float mm_largest(const float *x, int64_t size);

// Makes weights exp((x - largest) / temperature) of the elements at least as large as `least`, and 0
// of the rest; returns their sum.
MM_INLINE double mm_weigh(
    const float *x, int64_t size, float largest, float temperature, float least, float *weights);

// Count and, if requested, sum of the elements at least as large as each pivot.
MM_SEARCH_FUNCTION mm_amounts mm_measure(const float *x, int64_t size, const float *pivots, bool by_sum);

// The first position at which the running sum of elements from `low` to `high`, or their running
// number, is above a fraction of all plus `more`; where rounding hides it, the last of them.
MM_SEARCH_FUNCTION int64_t mm_find(
    const float *x, int64_t size, float low, float high, bool by_sum, double fraction, double more);

// Sets elements after a position that have a given value to 0.
MM_INLINE void mm_drop(float *x, int64_t size, float value, int64_t last);

MM_INLINE int32_t mm_bits_of(float x);
MM_INLINE float mm_float_of(int32_t bits);

// Integers in the order of floats, and back.
MM_INLINE int64_t mm_key(float x)
{
    const int32_t bits = mm_bits_of(x);
    return bits ^ (bits >> 31 & 0x7fffffff);
}

MM_INLINE float mm_of_key(int64_t key)
{
    const int32_t bits = (int32_t)key;
    return mm_float_of(bits ^ (bits >> 31 & 0x7fffffff));
}

// A threshold: elements at least as large are kept.
typedef struct {
    float least;
    double ties;  // how many are equal to it
    double above; // the amount of larger ones
} mm_threshold;

// The largest threshold that leaves an amount of `wanted` or more: a number of elements, or a sum.
MM_SEARCH_FUNCTION mm_threshold mm_search(
    const float *x, int64_t size, float lowest, float largest, bool by_sum, double wanted)
{
    int64_t low = mm_key(lowest), high = mm_key(largest) + 1; // it is in [low, high)
    double low_count = (double)size, high_count = 0, above = 0;
    while (high - low > 1 && (by_sum ? low_count - high_count > 1 : low_count > wanted)) {
        float pivots[MM_PIVOTS];
        for (int p = 0; p < MM_PIVOTS; p++)
            pivots[p] = mm_of_key(low + (high - low) * (p + 1) / (MM_PIVOTS + 1));
        const mm_amounts found = mm_measure(x, size, pivots, by_sum);
        const int64_t width = high - low, start = low;
        for (int p = 0; p < MM_PIVOTS; p++) {
            const int64_t key = start + width * (p + 1) / (MM_PIVOTS + 1);
            const double amount = by_sum ? found.sum[p] : found.count[p];
            if (amount >= wanted) {
                low = key;
                low_count = found.count[p];
            } else if (key < high) {
                high = key;
                high_count = found.count[p];
                above = amount;
            }
        }
    }
    const mm_threshold made = {mm_of_key(low), low_count - high_count, above};
    return made;
}

// Whether temperature, top-k, top-p and min-p have a meaning; NaN has none.
MM_INLINE bool mm_is_in_range(const double *options)
{
    return options[0] >= 0 && options[0] <= MM_LARGEST_TEMPERATURE && options[1] >= 0 && options[2] >= 0
        && options[2] <= 1 && options[3] >= 0 && options[3] <= 1;
}

MM_INLINE int64_t mm_choose(const mm_args g, int64_t row, float *weights)
{
    const int64_t size = mm_size(g);
    const float *const x = g.b0 + row * size;
    const float temperature = (float)g.b1[0], min_p = (float)g.b1[3];
    const double top_k = g.b1[1], top_p = g.b1[2];
    const float largest = mm_largest(x, size);
    if (largest != largest || !mm_is_in_range(g.b1))
        return -1;
    if (!(temperature > 0))
        return mm_find(x, size, largest, largest, false, 0, 0);
    float least = -INFINITY;
    if (0 < top_k && top_k < (double)size)
        least = mm_search(x, size, -INFINITY, largest, false, top_k).least;
    const double total = mm_weigh(x, size, largest, temperature, least, weights);
    least = min_p;
    if (top_p < 1) {
        const mm_threshold nucleus = mm_search(weights, size, 0, 1, true, top_p * total);
        // Of equal weights as many as are needed, the first ones first.
        const float tie = nucleus.least;
        const double share = ceil((top_p * total - nucleus.above) / tie);
        const double needed = share > 1 ? share : 1;
        if (nucleus.ties > needed)
            mm_drop(weights, size, tie, mm_find(weights, size, tie, tie, false, 0, needed - 1));
        least = tie > min_p ? tie : min_p;
    }
    const uint64_t word = mm_philox(g.b2[0], g.b3[row]);
    return mm_find(weights, size, least, 1, true, (double)(word >> 11) * 0x1p-53, 0);
}
