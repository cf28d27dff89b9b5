// Keys and values as a thread reads them: MM_WIDTH adjacent elements at once.
//
// The code before this defines mm_args, mm_at, and for keys (for values likewise): mm_key_type and
// mm_key_load (a stored element as float), mm_k (any element as float), mm_key (a pointer to a stored
// element) and MM_KEY_IS_STORED: 0 if there is no such pointer; then pieces are assembled from
// elements.

typedef mm_vector<mm_key_type, MM_WIDTH> mm_key_piece;
typedef mm_vector<mm_value_type, MM_WIDTH> mm_value_piece;

MM_INLINE mm_key_piece mm_key_read(const mm_args g, const mm_at at, int64_t j, int64_t d)
{
    if constexpr (MM_KEY_IS_STORED) {
        return mm_read_once(reinterpret_cast<const mm_key_piece *>(mm_key(g, at, j, d)));
    } else {
        mm_key_piece made;
#pragma unroll
        for (int i = 0; i < MM_WIDTH; i++)
            made.v[i] = mm_key_store(mm_k(g, at, j, d + i));
        return made;
    }
}

MM_INLINE mm_value_piece mm_value_read(const mm_args g, const mm_at at, int64_t j, int64_t e)
{
    if constexpr (MM_VALUE_IS_STORED) {
        return mm_read_once(reinterpret_cast<const mm_value_piece *>(mm_value(g, at, j, e)));
    } else {
        mm_value_piece made;
#pragma unroll
        for (int i = 0; i < MM_WIDTH; i++)
            made.v[i] = mm_value_store(mm_v(g, at, j, e + i));
        return made;
    }
}
