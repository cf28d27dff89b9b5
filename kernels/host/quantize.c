// Rounds weights to 8-bit or 4-bit codes with scales, bit for bit as the eager body of
// `quantize_weight` in maxmod/ops/weight_quantization.py, which documents the format.
//
// The code before this defines MM_STORED, the type of a stored weight, and MM_LOAD(code), its value.
//   buffers: weights [rows, depth]; codes; scales; one int32, which becomes 1 if a weight or a scale
//            is not finite: then the codes are unusable.
//   scalars: rows, depth, and how many weights share a float16 scale; 0 for int8 with one float a row.

#define MM_BLOCK 32 // 4-bit codes that are packed together

// The bits of the largest magnitude. NaN and infinity are larger than every number.
MM_INLINE uint32_t mm_largest(const MM_STORED *weights, int64_t count)
{
    uint32_t largest = 0;
    #pragma omp simd reduction(max : largest)
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = mm_as_bits(MM_LOAD(weights[i])) & 0x7fffffffu;
        largest = bits > largest ? bits : largest;
    }
    return largest;
}

MM_INLINE float mm_code(float weight, float scale, float low, float high)
{
    const float code = mm_round(weight / scale);
    return code < low ? low : code > high ? high : code;
}

static bool mm_row_of_8_bits(
    const MM_STORED *weights, int64_t depth, int8_t *codes, float *scale_of_row)
{
    const uint32_t bits = mm_largest(weights, depth);
    const float largest = mm_as_float(bits);
    float scale = largest / 127;
    if (scale * 127 < largest)
        scale = mm_as_float(mm_as_bits(scale) + 1);
    *scale_of_row = scale;
    const float divisor = scale == 0 ? 1 : scale;
    #pragma omp simd
    for (int64_t i = 0; i < depth; i++)
        codes[i] = (int8_t)mm_code(MM_LOAD(weights[i]), divisor, -127, 127);
    return bits < 0x7f800000u;
}

static bool mm_group_of_4_bits(
    const MM_STORED *weights, int64_t group, uint8_t *codes, uint16_t *scale_of_group)
{
    const float largest = mm_as_float(mm_largest(weights, group));
    uint16_t scale = mm_store_float16(largest / 7.5f);
    scale += mm_load_float16(scale) * 7.5f < largest;
    *scale_of_group = scale;
    const float divisor = scale == 0 ? 1 : mm_load_float16(scale);
    for (int64_t start = 0; start < group; start += MM_BLOCK) {
        #pragma omp simd
        for (int i = 0; i < MM_BLOCK / 2; i++) {
            const float low = mm_code(MM_LOAD(weights[start + i]), divisor, -8, 7);
            const float high = mm_code(MM_LOAD(weights[start + i + MM_BLOCK / 2]), divisor, -8, 7);
            codes[start / 2 + i] = (uint8_t)(((int)low + 8) | ((int)high + 8) << 4);
        }
    }
    return scale < 0x7c00u; // if a weight is not finite, neither is the scale
}

static void mm_rows_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const int64_t depth = scalars[1], group = scalars[2];
    bool is_finite = true;
    for (int64_t row = first; row < end; row++) {
        const MM_STORED *const weights = (const MM_STORED *)buffers[0] + row * depth;
        if (group == 0) {
            int8_t *const codes = (int8_t *)buffers[1] + row * depth;
            is_finite &= mm_row_of_8_bits(weights, depth, codes, (float *)buffers[2] + row);
            continue;
        }
        uint8_t *const codes = (uint8_t *)buffers[1] + row * depth / 2;
        uint16_t *const scales = (uint16_t *)buffers[2] + row * (depth / group);
        for (int64_t k = 0; k < depth; k += group)
            is_finite &=
                mm_group_of_4_bits(weights + k, group, codes + k / 2, scales + k / group);
    }
    if (!is_finite)
        __atomic_store_n((int32_t *)buffers[3], 1, __ATOMIC_RELAXED);
    (void)shared;
    (void)room;
}

void mm_quantize(void *const *buffers, const int64_t *scalars)
{
    const int64_t rows = scalars[0], depth = scalars[1];
    mm_parallel(
        mm_rows_task, buffers, scalars, NULL, rows, mm_portion(rows, depth > 0 ? depth : 1), 0);
}
