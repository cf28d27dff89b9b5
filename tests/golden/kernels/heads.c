// map_mul_add
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict x = mm_buffers[0];
    float *const restrict out = mm_buffers[1];
    const int64_t mm_extent = 64;
    const int64_t mm_blocks = (mm_extent + 511) / 512;
    const int64_t mm_total = (int64_t)4 * (int64_t)12 * (int64_t)16 * mm_blocks;
    const int mm_stream = ((int64_t)4 * (int64_t)12 * (int64_t)16 * mm_extent) * 4 > 16777216;
    for (int64_t mm_work = mm_begin; mm_work < mm_end; mm_work++) {
        const int64_t mm_first = mm_work % mm_blocks * 512;
        const int64_t mm_count = mm_min_i64(512, mm_extent - mm_first);
        int64_t rest = mm_work / mm_blocks;
        const int64_t i2 = rest % 16;
        rest /= 16;
        const int64_t i1 = rest % 12;
        rest /= 12;
        const int64_t i0 = rest;
        _Alignas(64) float out_stream[512];
        float *const out_block = mm_stream ? out_stream : out + (mm_first + i2 * 64 + i1 * 1024 + i0 * 12288);
#pragma omp simd
        for (int64_t mm_k = 0; mm_k < mm_count; mm_k++) {
            const int64_t i3 = mm_first + mm_k;
            const float v_x = x[i3 + i1 * 64 + i2 * 768 + i0 * 12288];  // %x
            const float v1 = v_x * 2.0f;                                // %1 mul
            const float v5 = v1 + 1.0f;                                 // %5 add
            out_block[mm_k] = v5;
        }
        if (mm_stream)
            mm_stream_row(out + (mm_first + i2 * 64 + i1 * 1024 + i0 * 12288), out_stream, (size_t)(mm_count) * sizeof *out_stream);
    }
    if (mm_stream)
        mm_fence();
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t mm_extent = 64;
    const int64_t mm_blocks = (mm_extent + 511) / 512;
    const int64_t mm_total = (int64_t)4 * (int64_t)12 * (int64_t)16 * mm_blocks;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_min_i64(512, mm_extent)), 0);
}
