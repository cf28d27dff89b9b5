// row_gather_mul_reduce_sum_4_more_add_mul
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict b0 = mm_buffers[0];
    const int64_t *const restrict b1 = mm_buffers[1];
    const float *const restrict b2 = mm_buffers[2];
    float *const restrict b3 = mm_buffers[3];
    const int64_t s_seq = mm_scalars[0];
    const int64_t mm_extent = 768;
    const int64_t mm_total = (int64_t)s_seq;
    int mm_wrong = 0;
    const int mm_stream = (mm_total * mm_extent) * 4 > 16777216;
    _Alignas(64) float o3[768];
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        const int64_t i0 = mm_row;
        const int64_t t0 = b1[i0];
        const int64_t t1 = mm_position(t0, 32000);
        mm_wrong |= mm_is_outside(t0, 32000);
        float r4 = 0.0f;
#pragma omp simd reduction(+ : r4)
        for (int64_t x2 = 0; x2 < mm_extent; x2++) {
            const float t2 = b0[x2 + t1 * 768];
            const float t3 = (t2 * t2);
            r4 = r4 + t3;
        }
        const float t4 = r4;
        const float t5 = (float)(0x1.8000000000000p+9f);
        const float t6 = (t4 / t5);
        const float t7 = (float)(0x1.0c6f7a0000000p-20f);
        const float t8 = (t6 + t7);
        const float t9 = mm_rsqrt(t8);
        const float t12 = 0.0f;
#pragma omp simd
        for (int64_t x2 = 0; x2 < mm_extent; x2++) {
            const float t2 = b0[x2 + t1 * 768];
            const float t10 = (t2 * t9);
            const float t11 = b2[x2];
            const float t13 = (t11 + t12);
            const float t14 = (t10 * t13);
            o3[x2] = t14;
        }
        if (mm_stream)
            mm_stream_row(b3 + (i0 * 768), o3, (size_t)(mm_extent) * sizeof *o3);
        else
            memcpy(b3 + (i0 * 768), o3, (size_t)(mm_extent) * sizeof *o3);
    }
    if (mm_stream)
        mm_fence();
    if (mm_wrong)
        __atomic_store_n((int64_t *)mm_buffers[4], 1, __ATOMIC_RELAXED);
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t s_seq = mm_scalars[0];
    *(int64_t *)mm_buffers[4] = 0;
    const int64_t mm_extent = 768;
    const int64_t mm_total = (int64_t)s_seq;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_extent), 0);
}
