// map_sub_gather_mul_mul_add_update_rows
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict b0 = mm_buffers[0];
    const float *const restrict b1 = mm_buffers[1];
    const float *const restrict b2 = mm_buffers[2];
    const int64_t *const restrict b3 = mm_buffers[3];
    float *const restrict b4 = mm_buffers[4];
    const int64_t s_length = mm_scalars[0];
    const int64_t mm_extent = 32;
    const int64_t mm_blocks = (mm_extent + 2047) / 2048;
    const int64_t mm_total = (int64_t)8 * (int64_t)2 * mm_blocks;
    int mm_wrong = 0;
    const int mm_stream = ((int64_t)8 * (int64_t)2 * mm_extent) * 4 > 16777216;
    for (int64_t mm_work = mm_begin; mm_work < mm_end; mm_work++) {
        const int64_t mm_first = mm_work % mm_blocks * 2048;
        const int64_t mm_count = mm_min_i64(2048, mm_extent - mm_first);
        int64_t rest = mm_work / mm_blocks;
        const int64_t i1 = rest % 2;
        rest /= 2;
        const int64_t i0 = rest;
        _Alignas(64) float o4[2048];
        const int64_t t0 = b3[0];
        const int64_t t1 = t0;
        const int64_t t5 = ((int64_t)1ll);
        const int64_t t6 = (i1);
        const int64_t t7 = (t5 - t6);
        const int64_t t8 = mm_position(t7, 2);
        mm_wrong |= mm_is_outside(t7, 2);
#pragma omp simd
        for (int64_t mm_k = 0; mm_k < mm_count; mm_k++) {
            const int64_t i2 = mm_first + mm_k;
            const float t2 = b0[i2 + i1 * 32 + i0 * 64];
            const float t3 = b1[i2];
            const float t4 = (t2 * t3);
            const float t9 = b0[i2 + t8 * 32 + i0 * 64];
            const float t10 = b2[i2 + i1 * 32];
            const float t11 = (t9 * t10);
            const float t12 = (t4 + t11);
            o4[mm_k] = t12;
        }
        if (mm_stream)
            mm_stream_row(b4 + (i1 * 32 + mm_first + t1 * 64 + i0 * (s_length * 64)), o4, (size_t)(mm_count) * sizeof *o4);
        else
            memcpy(b4 + (i1 * 32 + mm_first + t1 * 64 + i0 * (s_length * 64)), o4, (size_t)(mm_count) * sizeof *o4);
    }
    if (mm_stream)
        mm_fence();
    if (mm_wrong)
        __atomic_store_n((int64_t *)mm_buffers[5], 1, __ATOMIC_RELAXED);
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t s_length = mm_scalars[0];
    *(int64_t *)mm_buffers[5] = 1;
    const int64_t *const restrict b3 = mm_buffers[3];
    {
        const int64_t t0 = b3[0];
        if (t0 < 0 || t0 >= s_length)
            return;
    }
    *(int64_t *)mm_buffers[5] = 0;
    const int64_t mm_extent = 32;
    const int64_t mm_blocks = (mm_extent + 2047) / 2048;
    const int64_t mm_total = (int64_t)8 * (int64_t)2 * mm_blocks;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_min_i64(2048, mm_extent)), 0);
}
