// Rounds weights to 8-bit or 4-bit codes with scales, bit for bit as the eager body of
// `quantize_weight` in maxmod/ops/weight_quantization.py, which documents the formats; four_bits.py
// beside it tells how scales and minimums are found.
//
// The code before this defines MM_STORED, the type of a stored weight, and MM_LOAD(code), its value.
//   buffers: weights [rows, depth]; codes; scales; one int32, which becomes 1 if a weight or a scale
//            is not finite: then the codes are unusable.
//   scalars: rows, depth, how many codes share a scale (0 for 8 bits with one float a row), and what they
//            are: 0 for 8 bits, with bfloat16 scales; 1 for 4 bits with float16 scales alone; 2 for 4
//            bits with minimums.

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

static bool mm_group_of_8_bits(
    const MM_STORED *weights, int64_t group, int8_t *codes, uint16_t *scale_of_group)
{
    const uint32_t bits = mm_largest(weights, group);
    const float largest = mm_as_float(bits);
    uint16_t scale = mm_store_bfloat16(largest / 127);
    scale += mm_load_bfloat16(scale) * 127 < largest;
    *scale_of_group = scale;
    const float divisor = scale == 0 ? 1 : mm_load_bfloat16(scale);
    #pragma omp simd
    for (int64_t i = 0; i < group; i++)
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

// What the compiler may not look through: so sums of squares round as they do in NumPy.
#define MM_KEPT(array) __asm__ volatile("" : : "r"(array) : "memory")

#define MM_SHORTENED 4
static const float mm_shortened[MM_SHORTENED] = {1, 15.0f / 16, 7.0f / 8, 13.0f / 16};

typedef struct {
    float low, high; // how far a group reaches below and above 0
} mm_range;

static mm_range mm_range_of(const MM_STORED *weights, int64_t group)
{
    float low = 0, high = 0;
    #pragma omp simd reduction(max : low, high)
    for (int64_t i = 0; i < group; i++) {
        const float weight = MM_LOAD(weights[i]);
        low = -weight > low ? -weight : low;
        high = weight > high ? weight : high;
    }
    return (mm_range){low, high};
}

// The code of a weight that is given in units of its row.
MM_INLINE float mm_code_above(float units, float scale, float below)
{
    const float code = mm_round((units + below) / scale);
    return code < 0 ? 0 : code > 15 ? 15 : code;
}

// The sum of squared errors of a group.
static float mm_error(
    const MM_STORED *weights, int64_t group, float inverse, float scale, float below)
{
    float squares[MM_BLOCK], total[MM_BLOCK] = {0};
    for (int64_t start = 0; start < group; start += MM_BLOCK) {
        #pragma omp simd
        for (int i = 0; i < MM_BLOCK; i++) {
            const float units = MM_LOAD(weights[start + i]) * inverse;
            const float error = units - (mm_code_above(units, scale, below) * scale - below);
            squares[i] = error * error;
        }
        MM_KEPT(squares);
        #pragma omp simd
        for (int i = 0; i < MM_BLOCK; i++)
            total[i] += squares[i];
    }
    for (int half = MM_BLOCK / 2; half; half /= 2)
        for (int i = 0; i < half; i++)
            total[i] += total[i + half];
    return total[0];
}

// A byte, rounded from a number that is not negative.
MM_INLINE float mm_byte(float x, float least)
{
    const float byte = mm_round(x);
    return byte < least ? least : byte > 255 ? 255 : byte;
}

static void mm_group_with_minimum(
    const MM_STORED *weights, int64_t group, mm_range range, float inverse, uint8_t *codes,
    uint8_t *scale_of_group, uint8_t *minimum_of_group)
{
    float bottoms[MM_SHORTENED], tops[MM_SHORTENED];
    for (int i = 0; i < MM_SHORTENED; i++) {
        bottoms[i] = range.low * inverse * mm_shortened[i];
        tops[i] = range.high * inverse * mm_shortened[i];
    }
    MM_KEPT(bottoms);
    MM_KEPT(tops);
    float least = INFINITY, scale = 1, minimum = 0;
    for (int i = 0; i < MM_SHORTENED * MM_SHORTENED; i++) {
        const float bottom = bottoms[i / MM_SHORTENED], top = tops[i % MM_SHORTENED];
        const float some = mm_byte((bottom + top) / 15, 1), lowest = mm_byte(bottom / 8, 0);
        const float error = mm_error(weights, group, inverse, some, 8 * lowest);
        if (error < least)
            least = error, scale = some, minimum = lowest;
    }
    *scale_of_group = (uint8_t)scale;
    *minimum_of_group = (uint8_t)minimum;
    const float below = 8 * minimum;
    for (int64_t start = 0; start < group; start += MM_BLOCK) {
        #pragma omp simd
        for (int i = 0; i < MM_BLOCK / 2; i++) {
            const float near = MM_LOAD(weights[start + i]) * inverse;
            const float far = MM_LOAD(weights[start + i + MM_BLOCK / 2]) * inverse;
            const int low = (int)mm_code_above(near, scale, below);
            codes[start / 2 + i] = (uint8_t)(low | (int)mm_code_above(far, scale, below) << 4);
        }
    }
}

static bool mm_row_with_minimums(
    const MM_STORED *weights, int64_t depth, int64_t group, uint8_t *codes, uint8_t *scales)
{
    float largest = 0;
    if (mm_largest(weights, depth) >= 0x7f800000u)
        return false;
    for (int64_t k = 0; k < depth; k += group) {
        const mm_range range = mm_range_of(weights + k, group);
        const float step = range.low / 15 + range.high / 15, below = range.low / 8;
        largest = step > largest ? step : largest;
        largest = below > largest ? below : largest;
    }
    largest /= 255;
    int exponent = largest == 0 ? 0 : (int)(mm_as_bits(largest) >> 23) - 126; // as frexp
    exponent = exponent > 127 ? 127 : exponent;
    const int64_t groups = depth / group;
    scales[2 * groups] = (uint8_t)(exponent + 127);
    // 2^-exponent; of 2^-127, which is subnormal, the bits are those of 2^-126 without its exponent
    const float inverse = mm_as_float(exponent == 127 ? 1u << 22 : (uint32_t)(127 - exponent) << 23);
    for (int64_t k = 0; k < depth; k += group)
        mm_group_with_minimum(
            weights + k, group, mm_range_of(weights + k, group), inverse, codes + k / 2,
            scales + k / group, scales + groups + k / group);
    return true;
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
        if (scalars[3] == 0) {
            int8_t *const codes = (int8_t *)buffers[1] + row * depth;
            uint16_t *const scales = (uint16_t *)buffers[2] + row * (depth / group);
            for (int64_t k = 0; k < depth; k += group)
                is_finite &= mm_group_of_8_bits(weights + k, group, codes + k, scales + k / group);
            continue;
        }
        if (scalars[3] == 2) {
            uint8_t *const scales = (uint8_t *)buffers[2] + row * (2 * (depth / group) + 1);
            is_finite &= mm_row_with_minimums(weights, depth, group, codes, scales);
            continue;
        }
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
