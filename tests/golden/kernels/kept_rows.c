// row_exp_reduce_max_sub_2_more_true_div_add
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict b0 = mm_buffers[0];
    float *const restrict b1 = mm_buffers[1];
    const int64_t s_rows = mm_scalars[0];
    const int64_t s_size = mm_scalars[1];
    const int64_t mm_extent = s_size;
    const int64_t mm_total = (int64_t)s_rows;
    const int mm_stream = (mm_total * mm_extent) * 4 > 16777216;
    float *const e1 = (void *)(mm_room + 0 * (((size_t)mm_extent + 7) / 8 * 64));
    float *const e4 = (void *)(mm_room + 1 * (((size_t)mm_extent + 7) / 8 * 64));
    float *const o1 = (void *)(mm_room + 2 * (((size_t)mm_extent + 7) / 8 * 64));
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        const int64_t i0 = mm_row;
        float r2 = ((float)-INFINITY);
        int n2 = 0;
#pragma omp simd reduction(max : r2) reduction(| : n2)
        for (int64_t x1 = 0; x1 < mm_extent; x1++) {
            const float t0 = b0[x1 + i0 * s_size];
            const float t1 = mm_exp(t0);
            e1[x1] = t1;
            r2 = t1 > r2 ? t1 : r2;
            n2 |= t1 != t1;
        }
        const float t2 = n2 ? (float)NAN : r2;
        float r5 = 0.0f;
#pragma omp simd reduction(+ : r5)
        for (int64_t x1 = 0; x1 < mm_extent; x1++) {
            const float t1 = e1[x1];
            const float t3 = (t1 - t2);
            const float t4 = mm_exp(t3);
            e4[x1] = t4;
            r5 = r5 + t4;
        }
        const float t5 = r5;
#pragma omp simd
        for (int64_t x1 = 0; x1 < mm_extent; x1++) {
            const float t1 = e1[x1];
            const float t4 = e4[x1];
            const float t6 = (t4 / t5);
            const float t7 = (t6 + t1);
            o1[x1] = t7;
        }
        if (mm_stream)
            mm_stream_row(b1 + (i0 * s_size), o1, (size_t)(mm_extent) * sizeof *o1);
        else
            memcpy(b1 + (i0 * s_size), o1, (size_t)(mm_extent) * sizeof *o1);
    }
    if (mm_stream)
        mm_fence();
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t s_rows = mm_scalars[0];
    const int64_t s_size = mm_scalars[1];
    const int64_t mm_extent = s_size;
    const int64_t mm_total = (int64_t)s_rows;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_extent), 3 * (((size_t)mm_extent + 7) / 8 * 64));
}
