// Quantised weights as the right operand of gemv.h, in place of right.h: codes become floats while
// they are read.
//
// The code before this defines mm_args, mm_code_bytes and mm_scales (pointers to byte or scale k of
// column n; contiguous within a column), mm_right_type, mm_scale_load, mm_finish_sum, and
//   MM_CODE_NBYTES     bytes of one access, aligned to their number;
//   MM_CODES_PER_BYTE  1: int8 codes;
//                      2: 4-bit codes, each plus 8. Byte i of 16 holds code i of 32 in its low half
//                         and code i + 16 above it;
//   MM_GROUP           codes that share a scale; 1: all of a column do, and it is applied to the sums;
//   MM_MINIMUMS        1: scales are bytes, after which a byte for the minimum of each group follows,
//                      and one for the exponent of the unit of the column. Codes are not 8 too large;
//   MM_RIGHT_WIDTH     codes of one access.

typedef mm_vector<mm_right_type, MM_CODE_NBYTES> mm_codes;

// What one access reads: codes, and what they share.
struct mm_part {
    mm_codes codes;
    float scale;
    float below; // 8 times the minimum, less than 0
};

constexpr bool MM_SCALES_SUMS = MM_GROUP != 1; // codes of an access share their scale
// Reads before the first is used: floats and scales take registers, and so does a loop over parts.
constexpr int MM_MOST_AHEAD = 8;
constexpr int MM_MOST_AHEAD_OF_PARTS = 4;

// The byte that holds code k of column n.
MM_INLINE const mm_right_type *mm_right(const mm_args g, int64_t k, int64_t n)
{
    return mm_code_bytes(g, k / MM_CODES_PER_BYTE, n);
}

// Where the minimum of the group of code k is, among scales.
MM_INLINE int64_t mm_minimum(const mm_args g, int64_t k)
{
    return MM_MINIMUMS ? mm_depth(g) / MM_GROUP + k / MM_GROUP : 0;
}

MM_INLINE mm_part mm_right_read(const mm_args g, int64_t k, int64_t n)
{
    mm_part part;
    part.codes = mm_read_now(reinterpret_cast<const mm_codes *>(mm_right(g, k, n)));
    part.scale = MM_GROUP == 1 ? 1 : mm_scale_load(*mm_scales(g, k / MM_GROUP, n));
    part.below = MM_MINIMUMS ? -8 * mm_scale_load(*mm_scales(g, mm_minimum(g, k), n)) : 0;
    return part;
}

// code - offset, for codes of up to 23 bits: they become the mantissa of 2^23. Integer conversions
// run at a quarter of the speed of additions.
MM_INLINE float mm_code_float(uint32_t code, float offset)
{
    return __uint_as_float(0x4b000000u | code) - (8388608.0f + offset);
}

// 2^(byte - 127) for bytes from 1 on.
MM_INLINE float mm_unit_of_byte(uint32_t byte)
{
    return __uint_as_float(byte << 23);
}

// Codes as floats, without their scale.
MM_INLINE void mm_right_floats(
    const mm_args g, const mm_part &part, int64_t k, int64_t n, float (&to)[MM_RIGHT_WIDTH])
{
#pragma unroll
    for (int i = 0; i < MM_CODE_NBYTES; i++) {
        const uint32_t byte = static_cast<uint8_t>(part.codes.v[i]);
        if (MM_CODES_PER_BYTE == 1) {
            to[i] = mm_code_float(byte ^ 128, 128);
        } else if (MM_MINIMUMS) {
            to[i] = mm_code_float(byte & 15, 0);
            to[(i + MM_CODE_NBYTES) % MM_RIGHT_WIDTH] = mm_code_float(byte >> 4, 0);
        } else {
            to[i] = mm_code_float(byte & 15, 8);
            to[(i + MM_CODE_NBYTES) % MM_RIGHT_WIDTH] = mm_code_float(byte >> 4, 8);
        }
    }
}

// The sum with the products of one access: `here` of codes, which began with the sum or 0, `total`
// of the left operand alone.
MM_INLINE float mm_scaled(const mm_part &part, float here, float total, float sum)
{
    if (!MM_SCALES_SUMS)
        return here;
    sum = fmaf(here, part.scale, sum);
    return MM_MINIMUMS ? fmaf(total, part.below, sum) : sum;
}

// The sum of column n with what is left to apply: its only scale, or the unit of its scales.
MM_INLINE float mm_in_units(const mm_args g, int64_t n, float sum)
{
    if (MM_GROUP == 1)
        return sum * mm_scale_load(*mm_scales(g, 0, n));
    if (MM_MINIMUMS)
        return sum * mm_unit_of_byte(static_cast<uint32_t>(
                         mm_scale_load(*mm_scales(g, 2 * (mm_depth(g) / MM_GROUP), n))));
    return sum;
}

#ifdef MM_HAS_PAIRS
MM_INLINE void mm_finish(const mm_args g, const mm_at at, int64_t n, float sum, float other)
{
    mm_finish_sum(g, at, n, mm_in_units(g, 2 * n, sum), mm_in_units(g, 2 * n + 1, other));
}
#else
MM_INLINE void mm_finish(const mm_args g, const mm_at at, int64_t n, float sum)
{
    mm_finish_sum(g, at, n, mm_in_units(g, n, sum));
}
#endif
