// map_mul_add_gelu_add
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict x = mm_buffers[0];
    const float *const restrict constant = mm_buffers[1];
    const float *const restrict r = mm_buffers[2];
    float *const restrict out = mm_buffers[3];
    const int64_t mm_extent = 768;
    const int64_t mm_blocks = (mm_extent + 511) / 512;
    const int64_t mm_total = (int64_t)512 * mm_blocks;
    const int mm_stream = ((int64_t)512 * mm_extent) * 4 > 16777216;
    for (int64_t mm_work = mm_begin; mm_work < mm_end; mm_work++) {
        const int64_t mm_first = mm_work % mm_blocks * 512;
        const int64_t mm_count = mm_min_i64(512, mm_extent - mm_first);
        const int64_t i0 = mm_work / mm_blocks;
        _Alignas(64) float out_stream[512];
        float *const out_block = mm_stream ? out_stream : out + (mm_first + i0 * 768);
#pragma omp simd
        for (int64_t mm_k = 0; mm_k < mm_count; mm_k++) {
            const int64_t i1 = mm_first + mm_k;
            const float v_x = x[i1 + i0 * 768];     // %x
            const float v1 = v_x * 1.5f;            // %1 mul
            const float v_constant = constant[i1];  // @constant.0
            const float v2 = v1 + v_constant;       // %2 add
            const float v3 = mm_gelu_none(v2);      // %3 gelu
            const float v_r = r[i1 + i0 * 768];     // %r
            const float v4 = v3 + v_r;              // %4 add
            out_block[mm_k] = v4;
        }
        if (mm_stream)
            mm_stream_row(out + (mm_first + i0 * 768), out_stream, (size_t)(mm_count) * sizeof *out_stream);
    }
    if (mm_stream)
        mm_fence();
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t mm_extent = 768;
    const int64_t mm_blocks = (mm_extent + 511) / 512;
    const int64_t mm_total = (int64_t)512 * mm_blocks;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_min_i64(512, mm_extent)), 0);
}
