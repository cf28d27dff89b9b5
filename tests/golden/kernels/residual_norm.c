// row_add_layer_norm
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict x = mm_buffers[0];
    const float *const restrict y = mm_buffers[1];
    const float *const restrict constant = mm_buffers[2];
    float *const restrict out13 = mm_buffers[3];
    float *const restrict out0 = mm_buffers[4];
    const int64_t s_batch = mm_scalars[0];
    const int64_t s_seq = mm_scalars[1];
    const int64_t mm_extent = 768;
    const int64_t mm_total = (int64_t)(s_batch * s_seq);
    const int mm_stream = (mm_total * mm_extent) * 8 > 16777216;
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        const int64_t i0 = mm_row;
        float sum1 = 0.0f;
#pragma omp simd reduction(+ : sum1)
        for (int64_t x2 = 0; x2 < mm_extent; x2++) {
            const float v_x = x[x2 + i0 * 768];  // %x
            const float v_y = y[x2 + i0 * 768];  // %y
            const float v0 = v_x + v_y;          // %0 add
            sum1 += v0;
        }
        const float v1 = sum1;         // %1 sum of layer_norm
        const float v3 = v1 / 768.0f;  // %3 div of layer_norm
        float sum6 = 0.0f;
#pragma omp simd reduction(+ : sum6)
        for (int64_t x2 = 0; x2 < mm_extent; x2++) {
            const float v_x = x[x2 + i0 * 768];  // %x
            const float v_y = y[x2 + i0 * 768];  // %y
            const float v0 = v_x + v_y;          // %0 add
            const float v4 = v0 - v3;            // %4 sub of layer_norm
            const float v5 = v4 * v4;            // %5 mul of layer_norm
            sum6 += v5;
        }
        const float v6 = sum6;           // %6 sum of layer_norm
        const float v7 = v6 / 768.0f;    // %7 div of layer_norm
        const float v9 = v7 + 1e-05f;    // %9 add of layer_norm
        const float v10 = mm_rsqrt(v9);  // %10 rsqrt of layer_norm
        for (int64_t mm_first = 0; mm_first < mm_extent; mm_first += 512) {
            const int64_t mm_stop = mm_min_i64(mm_first + 512, mm_extent);
            _Alignas(64) float out13_stream[512];
            float *const out13_block = mm_stream ? out13_stream : out13 + (mm_first + i0 * 768);
            _Alignas(64) float out0_stream[512];
            float *const out0_block = mm_stream ? out0_stream : out0 + (mm_first + i0 * 768);
            mm_prefetch(x + (mm_first + i0 * 768), (size_t)mm_extent * 4, (size_t)(mm_stop - mm_first) * 4);
            mm_prefetch(y + (mm_first + i0 * 768), (size_t)mm_extent * 4, (size_t)(mm_stop - mm_first) * 4);
#pragma omp simd
            for (int64_t x2 = mm_first; x2 < mm_stop; x2++) {
                const float v_x = x[x2 + i0 * 768];     // %x
                const float v_y = y[x2 + i0 * 768];     // %y
                const float v0 = v_x + v_y;             // %0 add
                const float v4 = v0 - v3;               // %4 sub of layer_norm
                const float v11 = v4 * v10;             // %11 mul of layer_norm
                const float v_constant = constant[x2];  // @constant.0
                const float v12 = v11 * v_constant;     // %12 mul of layer_norm
                const float v13 = v12 + v_constant;     // %13 add of layer_norm
                out13_block[x2 - mm_first] = v13;
                out0_block[x2 - mm_first] = v0;
            }
            if (mm_stream)
                mm_stream_row(out13 + (mm_first + i0 * 768), out13_stream, (size_t)(mm_stop - mm_first) * sizeof *out13_stream);
            if (mm_stream)
                mm_stream_row(out0 + (mm_first + i0 * 768), out0_stream, (size_t)(mm_stop - mm_first) * sizeof *out0_stream);
        }
    }
    if (mm_stream)
        mm_fence();
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t s_batch = mm_scalars[0];
    const int64_t s_seq = mm_scalars[1];
    const int64_t mm_extent = 768;
    const int64_t mm_total = (int64_t)(s_batch * s_seq);
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_extent), 0);
}
