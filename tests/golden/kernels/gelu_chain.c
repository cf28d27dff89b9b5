// map_mul_add_gelu_add
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict b0 = mm_buffers[0];
    const float *const restrict b1 = mm_buffers[1];
    const float *const restrict b2 = mm_buffers[2];
    float *const restrict b3 = mm_buffers[3];
    const int64_t mm_extent = 768;
    const int64_t mm_blocks = (mm_extent + 2047) / 2048;
    const int64_t mm_total = (int64_t)512 * mm_blocks;
    const int mm_stream = ((int64_t)512 * mm_extent) * 4 > 16777216;
    for (int64_t mm_work = mm_begin; mm_work < mm_end; mm_work++) {
        const int64_t mm_first = mm_work % mm_blocks * 2048;
        const int64_t mm_count = mm_min_i64(2048, mm_extent - mm_first);
        const int64_t i0 = mm_work / mm_blocks;
        _Alignas(64) float o3[2048];
        const float t1 = (float)(0x1.8000000000000p+0f);
#pragma omp simd
        for (int64_t mm_k = 0; mm_k < mm_count; mm_k++) {
            const int64_t i1 = mm_first + mm_k;
            const float t0 = b0[i1 + i0 * 768];
            const float t2 = (t0 * t1);
            const float t3 = b1[i1];
            const float t4 = (t2 + t3);
            const float t5 = mm_gelu_none(t4);
            const float t6 = b2[i1 + i0 * 768];
            const float t7 = (t5 + t6);
            o3[mm_k] = t7;
        }
        if (mm_stream)
            mm_stream_row(b3 + (mm_first + i0 * 768), o3, (size_t)(mm_count) * sizeof *o3);
        else
            memcpy(b3 + (mm_first + i0 * 768), o3, (size_t)(mm_count) * sizeof *o3);
    }
    if (mm_stream)
        mm_fence();
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t mm_extent = 768;
    const int64_t mm_blocks = (mm_extent + 2047) / 2048;
    const int64_t mm_total = (int64_t)512 * mm_blocks;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_min_i64(2048, mm_extent)), 0);
}
