// row_exp_softmax_add
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict x = mm_buffers[0];
    float *const restrict out = mm_buffers[1];
    const int64_t s_rows = mm_scalars[0];
    const int64_t s_size = mm_scalars[1];
    const int64_t mm_extent = s_size;
    const int64_t mm_total = (int64_t)s_rows;
    const int mm_stream = (mm_total * mm_extent) * 4 > 16777216;
    float *const row0 = (void *)(mm_room + 0 * (((size_t)mm_extent + 7) / 8 * 64));
    float *const row3 = (void *)(mm_room + 1 * (((size_t)mm_extent + 7) / 8 * 64));
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        const int64_t i0 = mm_row;
        float max1 = -INFINITY;
        int nan1 = 0;
#pragma omp simd reduction(max : max1) reduction(| : nan1)
        for (int64_t x1 = 0; x1 < mm_extent; x1++) {
            const float v_x = x[x1 + i0 * s_size];  // %x
            const float v0 = mm_exp(v_x);           // %0 exp
            row0[x1] = v0;
            max1 = v0 > max1 ? v0 : max1;
            nan1 |= v0 != v0;
        }
        const float v1 = nan1 ? NAN : max1;  // %1 max of softmax
        float sum4 = 0.0f;
#pragma omp simd reduction(+ : sum4)
        for (int64_t x1 = 0; x1 < mm_extent; x1++) {
            const float v0 = row0[x1];    // %0 exp
            const float v2 = v0 - v1;     // %2 sub of softmax
            const float v3 = mm_exp(v2);  // %3 exp of softmax
            row3[x1] = v3;
            sum4 += v3;
        }
        const float v4 = sum4;  // %4 sum of softmax
        const mm_divisor whole4 = mm_divisor_of(v4);
        for (int64_t mm_first = 0; mm_first < mm_extent; mm_first += 512) {
            const int64_t mm_stop = mm_min_i64(mm_first + 512, mm_extent);
            _Alignas(64) float out_stream[512];
            float *const out_block = mm_stream ? out_stream : out + (mm_first + i0 * s_size);
            mm_prefetch(x + (mm_first + i0 * s_size), (size_t)mm_extent * 4, (size_t)(mm_stop - mm_first) * 4);
#pragma omp simd
            for (int64_t x1 = mm_first; x1 < mm_stop; x1++) {
                const float v0 = row0[x1];             // %0 exp
                const float v3 = row3[x1];             // %3 exp of softmax
                const float v5 = mm_over(v3, whole4);  // %5 div of softmax
                const float v6 = v5 + v0;              // %6 add
                out_block[x1 - mm_first] = v6;
            }
            if (mm_stream)
                mm_stream_row(out + (mm_first + i0 * s_size), out_stream, (size_t)(mm_stop - mm_first) * sizeof *out_stream);
        }
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
        mm_portion(mm_total, mm_extent), 2 * (((size_t)mm_extent + 7) / 8 * 64));
}
