// map_mul_add
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict b0 = mm_buffers[0];
    float *const restrict b1 = mm_buffers[1];
    const int64_t mm_extent = 64;
    const int64_t mm_blocks = (mm_extent + 2047) / 2048;
    const int64_t mm_total = (int64_t)4 * (int64_t)12 * (int64_t)16 * mm_blocks;
    const int mm_stream = ((int64_t)4 * (int64_t)12 * (int64_t)16 * mm_extent) * 4 > 16777216;
    for (int64_t mm_work = mm_begin; mm_work < mm_end; mm_work++) {
        const int64_t mm_first = mm_work % mm_blocks * 2048;
        const int64_t mm_count = mm_min_i64(2048, mm_extent - mm_first);
        int64_t rest = mm_work / mm_blocks;
        const int64_t i2 = rest % 16;
        rest /= 16;
        const int64_t i1 = rest % 12;
        rest /= 12;
        const int64_t i0 = rest;
        _Alignas(64) float o1[2048];
        const float t1 = (float)(0x1.0000000000000p+1f);
        const float t3 = (float)(0x1.0000000000000p+0f);
#pragma omp simd
        for (int64_t mm_k = 0; mm_k < mm_count; mm_k++) {
            const int64_t i3 = mm_first + mm_k;
            const float t0 = b0[i3 + i1 * 64 + i2 * 768 + i0 * 12288];
            const float t2 = (t0 * t1);
            const float t4 = (t2 + t3);
            o1[mm_k] = t4;
        }
        if (mm_stream)
            mm_stream_row(b1 + (mm_first + i2 * 64 + i1 * 1024 + i0 * 12288), o1, (size_t)(mm_count) * sizeof *o1);
        else
            memcpy(b1 + (mm_first + i2 * 64 + i1 * 1024 + i0 * 12288), o1, (size_t)(mm_count) * sizeof *o1);
    }
    if (mm_stream)
        mm_fence();
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t mm_extent = 64;
    const int64_t mm_blocks = (mm_extent + 2047) / 2048;
    const int64_t mm_total = (int64_t)4 * (int64_t)12 * (int64_t)16 * mm_blocks;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_min_i64(2048, mm_extent)), 0);
}
