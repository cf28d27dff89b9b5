// row_cast_mul_reduce_sum_8_more_mul_cast
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const uint16_t *const restrict b0 = mm_buffers[0];
    uint16_t *const restrict b1 = mm_buffers[1];
    const int64_t s_rows = mm_scalars[0];
    const int64_t mm_extent = 256;
    const int64_t mm_total = (int64_t)s_rows;
    const int mm_stream = (mm_total * mm_extent) * 2 > 16777216;
    _Alignas(64) uint16_t o1[256];
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        const int64_t i0 = mm_row;
        float r3 = 0.0f;
#pragma omp simd reduction(+ : r3)
        for (int64_t x1 = 0; x1 < mm_extent; x1++) {
            const float t0 = mm_load_bfloat16(b0[x1 + i0 * 256]);
            const float t1 = mm_cast_float32(t0);
            const float t2 = (t1 * t1);
            r3 = r3 + t2;
        }
        const float t3 = r3;
        const float t4 = (float)(0x1.0000000000000p+8f);
        const float t5 = (t3 / t4);
        const float t6 = (float)(0x1.0c6f7a0000000p-20f);
        const float t7 = (t5 + t6);
        const float t8 = mm_rsqrt(t7);
        const float t14 = 0.0f;
#pragma omp simd
        for (int64_t x1 = 0; x1 < mm_extent; x1++) {
            const float t0 = mm_load_bfloat16(b0[x1 + i0 * 256]);
            const float t1 = mm_cast_float32(t0);
            const float t9 = (t1 * t8);
            const float t10 = mm_cast_bfloat16(t9);
            const float t11 = mm_cast_float32(t10);
            const float t12 = mm_load_bfloat16(b0[x1]);
            const float t13 = mm_cast_float32(t12);
            const float t15 = (t13 + t14);
            const float t16 = (t11 * t15);
            const float t17 = mm_cast_bfloat16(t16);
            o1[x1] = mm_store_bfloat16(t17);
        }
        if (mm_stream)
            mm_stream_row(b1 + (i0 * 256), o1, (size_t)(mm_extent) * sizeof *o1);
        else
            memcpy(b1 + (i0 * 256), o1, (size_t)(mm_extent) * sizeof *o1);
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
