// Reads the right operand of a product: one access of a lane, and the floats in it.
//
// Other storage formats replace this file by one with their own `mm_part`, `MM_MOST_AHEAD*`,
// `mm_right_read`, `mm_right_floats`, `MM_SCALES_SUMS` and `mm_scaled`.
//
// The code before this defines mm_args, mm_right (a pointer to an element), mm_right_type,
// mm_right_load (a stored element as float) and MM_RIGHT_WIDTH: the number of contiguous elements of
// one access; groups of MM_RIGHT_WIDTH elements are aligned to their total size.

typedef mm_vector<mm_right_type, MM_RIGHT_WIDTH> mm_part;
constexpr int MM_MOST_AHEAD = 16;          // reads before the first is used, for one row
constexpr int MM_MOST_AHEAD_OF_PARTS = 16; // if a row is staged in parts

constexpr bool MM_SCALES_SUMS = false; // elements are what they are

// The sum with the products of one access, `here`, which began with the sum.
MM_INLINE float mm_scaled(const mm_part &, float here, float, float sum)
{
    return MM_SCALES_SUMS ? sum : here;
}

// MM_RIGHT_WIDTH elements from (k, n) on. They are read once, and cached only in L2.
MM_INLINE mm_part mm_right_read(const mm_args g, int64_t k, int64_t n)
{
    return mm_read_once(reinterpret_cast<const mm_part *>(mm_right(g, k, n)));
}

MM_INLINE void mm_right_floats(
    const mm_args g, const mm_part &part, int64_t k, int64_t n, float (&to)[MM_RIGHT_WIDTH])
{
#pragma unroll
    for (int i = 0; i < MM_RIGHT_WIDTH; i++)
        to[i] = mm_right_load(part.v[i]);
}
