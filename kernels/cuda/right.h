// The right operand of a product, as it is read: one access of a lane, and the floats in it.
//
// Another way to store the operand brings another file with `mm_part`, `MM_MOST_AHEAD`,
// `mm_right_read` and `mm_right_floats` in place of this one.
//
// Text in front of this gives mm_args, mm_right (a pointer to an element), mm_right_type,
// mm_right_load (a stored element as float) and MM_RIGHT_WIDTH: how many elements are neighbours in
// memory, aligned to their size together, wherever a multiple of so many elements begins.

typedef mm_vector<mm_right_type, MM_RIGHT_WIDTH> mm_part;
constexpr int MM_MOST_AHEAD = 16; // reads before the first is used, for one row

// MM_RIGHT_WIDTH elements from (k, n) on. They are read once: only the second-level cache sees them.
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
