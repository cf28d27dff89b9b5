// row_add_reduce_sum_true_div_7_more_mul_add
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict b0 = mm_buffers[0];
    const float *const restrict b1 = mm_buffers[1];
    const float *const restrict b2 = mm_buffers[2];
    float *const restrict b3 = mm_buffers[3];
    float *const restrict b4 = mm_buffers[4];
    const int64_t s_batch = mm_scalars[0];
    const int64_t s_seq = mm_scalars[1];
    const int64_t mm_extent = 768;
    const int64_t mm_total = (int64_t)(s_batch * s_seq);
    const int mm_stream = (mm_total * mm_extent) * 8 > 16777216;
    _Alignas(64) float o3[768];
    _Alignas(64) float o4[768];
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        const int64_t i0 = mm_row;
        float r3 = 0.0f;
#pragma omp simd reduction(+ : r3)
        for (int64_t x2 = 0; x2 < mm_extent; x2++) {
            const float t0 = b0[x2 + i0 * 768];
            const float t1 = b1[x2 + i0 * 768];
            const float t2 = (t0 + t1);
            r3 = r3 + t2;
        }
        const float t3 = r3;
        const float t4 = (float)(0x1.8000000000000p+9f);
        const float t5 = (t3 / t4);
        float r8 = 0.0f;
#pragma omp simd reduction(+ : r8)
        for (int64_t x2 = 0; x2 < mm_extent; x2++) {
            const float t0 = b0[x2 + i0 * 768];
            const float t1 = b1[x2 + i0 * 768];
            const float t2 = (t0 + t1);
            const float t6 = (t2 - t5);
            const float t7 = (t6 * t6);
            r8 = r8 + t7;
        }
        const float t8 = r8;
        const float t9 = (t8 / t4);
        const float t10 = (float)(0x1.4f8b580000000p-17f);
        const float t11 = (t9 + t10);
        const float t12 = mm_rsqrt(t11);
#pragma omp simd
        for (int64_t x2 = 0; x2 < mm_extent; x2++) {
            const float t0 = b0[x2 + i0 * 768];
            const float t1 = b1[x2 + i0 * 768];
            const float t2 = (t0 + t1);
            const float t6 = (t2 - t5);
            const float t13 = (t6 * t12);
            const float t14 = b2[x2];
            const float t15 = (t13 * t14);
            const float t16 = (t15 + t14);
            o3[x2] = t16;
            o4[x2] = t2;
        }
        if (mm_stream)
            mm_stream_row(b3 + (i0 * 768), o3, (size_t)(mm_extent) * sizeof *o3);
        else
            memcpy(b3 + (i0 * 768), o3, (size_t)(mm_extent) * sizeof *o3);
        if (mm_stream)
            mm_stream_row(b4 + (i0 * 768), o4, (size_t)(mm_extent) * sizeof *o4);
        else
            memcpy(b4 + (i0 * 768), o4, (size_t)(mm_extent) * sizeof *o4);
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
