// row_greater_equal_mul_select_3_more_reduce_sum_true_div
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict b0 = mm_buffers[0];
    float *const restrict b1 = mm_buffers[1];
    const int64_t s_batch = mm_scalars[0];
    const int64_t s_seq = mm_scalars[1];
    const int64_t mm_extent = s_seq;
    const int64_t mm_total = (int64_t)(s_batch * 12) * (int64_t)s_seq;
    const int mm_stream = (mm_total * mm_extent) * 4 > 16777216;
    float *const e10 = (void *)(mm_room + 0 * (((size_t)mm_extent + 7) / 8 * 64));
    float *const o1 = (void *)(mm_room + 1 * (((size_t)mm_extent + 7) / 8 * 64));
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        int64_t rest = mm_row;
        const int64_t i1 = rest % s_seq;
        rest /= s_seq;
        const int64_t i0 = rest;
        const int64_t t0 = (i1);
        const float t4 = (float)(0x1.0000000000000p-3f);
        const float t6 = ((float)-INFINITY);
        float r8 = ((float)-INFINITY);
        int n8 = 0;
#pragma omp simd reduction(max : r8) reduction(| : n8)
        for (int64_t x3 = 0; x3 < mm_extent; x3++) {
            const int64_t t1 = (x3);
            const bool t2 = (t0 >= t1);
            const float t3 = b0[x3 + i1 * s_seq + i0 * (s_seq * s_seq)];
            const float t5 = (t3 * t4);
            const float t7 = (t2 ? t5 : t6);
            r8 = t7 > r8 ? t7 : r8;
            n8 |= t7 != t7;
        }
        const float t8 = n8 ? (float)NAN : r8;
        float r11 = 0.0f;
#pragma omp simd reduction(+ : r11)
        for (int64_t x3 = 0; x3 < mm_extent; x3++) {
            const int64_t t1 = (x3);
            const bool t2 = (t0 >= t1);
            const float t3 = b0[x3 + i1 * s_seq + i0 * (s_seq * s_seq)];
            const float t5 = (t3 * t4);
            const float t7 = (t2 ? t5 : t6);
            const float t9 = (t7 - t8);
            const float t10 = mm_exp(t9);
            e10[x3] = t10;
            r11 = r11 + t10;
        }
        const float t11 = r11;
#pragma omp simd
        for (int64_t x3 = 0; x3 < mm_extent; x3++) {
            const float t10 = e10[x3];
            const float t12 = (t10 / t11);
            o1[x3] = t12;
        }
        if (mm_stream)
            mm_stream_row(b1 + (i1 * s_seq + i0 * (s_seq * s_seq)), o1, (size_t)(mm_extent) * sizeof *o1);
        else
            memcpy(b1 + (i1 * s_seq + i0 * (s_seq * s_seq)), o1, (size_t)(mm_extent) * sizeof *o1);
    }
    if (mm_stream)
        mm_fence();
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t s_batch = mm_scalars[0];
    const int64_t s_seq = mm_scalars[1];
    const int64_t mm_extent = s_seq;
    const int64_t mm_total = (int64_t)(s_batch * 12) * (int64_t)s_seq;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_extent), 2 * (((size_t)mm_extent + 7) / 8 * 64));
}
