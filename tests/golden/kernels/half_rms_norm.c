// row_rms_norm
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const uint16_t *const restrict x = mm_buffers[0];
    uint16_t *const restrict out = mm_buffers[1];
    const int64_t s_rows = mm_scalars[0];
    const int64_t mm_extent = 256;
    const int64_t mm_total = (int64_t)s_rows;
    const int mm_stream = (mm_total * mm_extent) * 2 > 16777216;
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        const int64_t i0 = mm_row;
        float sum4 = 0.0f;
#pragma omp simd reduction(+ : sum4)
        for (int64_t x1 = 0; x1 < mm_extent; x1++) {
            const float v_x = mm_load_bfloat16(x[x1 + i0 * 256]);  // %x
            const float v2 = mm_cast_float32(v_x);                 // %2 cast of rms_norm
            const float v3 = v2 * v2;                              // %3 mul of rms_norm
            sum4 += v3;
        }
        const float v4 = sum4;          // %4 sum of rms_norm
        const float v6 = v4 / 256.0f;   // %6 div of rms_norm
        const float v8 = v6 + 1e-06f;   // %8 add of rms_norm
        const float v9 = mm_rsqrt(v8);  // %9 rsqrt of rms_norm
         {
            _Alignas(64) uint16_t out_stream[256];
            uint16_t *const out_block = mm_stream ? out_stream : out + (i0 * 256);
            mm_prefetch(x + (i0 * 256), (size_t)mm_extent * 2, (size_t)(mm_extent) * 2);
#pragma omp simd
            for (int64_t x1 = 0; x1 < mm_extent; x1++) {
                const float v_x = mm_load_bfloat16(x[x1 + i0 * 256]);  // %x
                const float v2 = mm_cast_float32(v_x);                 // %2 cast of rms_norm
                const float v10 = v2 * v9;                             // %10 mul of rms_norm
                const float v14 = mm_cast_bfloat16(v10);               // %14 cast of rms_norm
                const float v15 = mm_cast_float32(v14);                // %15 cast of rms_norm
                const float v_x_2 = mm_load_bfloat16(x[x1]);           // %x
                const float v11 = mm_cast_float32(v_x_2);              // %11 cast of rms_norm
                const float v13 = v11 + 0.0f;                          // %13 add of rms_norm
                const float v16 = v15 * v13;                           // %16 mul of rms_norm
                const float v17 = mm_cast_bfloat16(v16);               // %17 cast of rms_norm
                out_block[x1] = mm_store_bfloat16(v16);
            }
            if (mm_stream)
                mm_stream_row(out + (i0 * 256), out_stream, (size_t)(mm_extent) * sizeof *out_stream);
        }
    }
    if (mm_stream)
        mm_fence();
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t s_rows = mm_scalars[0];
    const int64_t mm_extent = 256;
    const int64_t mm_total = (int64_t)s_rows;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_extent), 0);
}
