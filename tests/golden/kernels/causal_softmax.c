// row_greater_equal_mul_select_softmax
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict scores = mm_buffers[0];
    float *const restrict out = mm_buffers[1];
    const int64_t s_batch = mm_scalars[0];
    const int64_t s_seq = mm_scalars[1];
    const int64_t mm_extent = s_seq;
    const int64_t mm_total = (int64_t)(s_batch * 12) * (int64_t)s_seq;
    const int mm_stream = (mm_total * mm_extent) * 4 > 16777216;
    float *const row9 = (void *)(mm_room + 0 * (((size_t)mm_extent + 7) / 8 * 64));
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        int64_t rest = mm_row;
        const int64_t i1 = rest % s_seq;
        rest /= s_seq;
        const int64_t i0 = rest;
        const int64_t v0 = i1;  // %0 iota
        float max7 = -INFINITY;
        int nan7 = 0;
#pragma omp simd reduction(max : max7) reduction(| : nan7)
        for (int64_t x3 = 0; x3 < mm_extent; x3++) {
            const int64_t v0_2 = x3;                 // %0 iota
            const bool v2 = v0 >= v0_2;              // %2 greater_equal
            const float v_scores = scores[x3 + i1 * s_seq + i0 * (s_seq * s_seq)];  // %scores
            const float v4 = v_scores * 0.125f;      // %4 mul
            const float v6 = v2 ? v4 : (-INFINITY);  // %6 select
            max7 = v6 > max7 ? v6 : max7;
            nan7 |= v6 != v6;
        }
        const float v7 = nan7 ? NAN : max7;  // %7 max of softmax
        float sum10 = 0.0f;
#pragma omp simd reduction(+ : sum10)
        for (int64_t x3 = 0; x3 < mm_extent; x3++) {
            const int64_t v0_2 = x3;                 // %0 iota
            const bool v2 = v0 >= v0_2;              // %2 greater_equal
            const float v_scores = scores[x3 + i1 * s_seq + i0 * (s_seq * s_seq)];  // %scores
            const float v4 = v_scores * 0.125f;      // %4 mul
            const float v6 = v2 ? v4 : (-INFINITY);  // %6 select
            const float v8 = v6 - v7;                // %8 sub of softmax
            const float v9 = mm_exp(v8);             // %9 exp of softmax
            row9[x3] = v9;
            sum10 += v9;
        }
        const float v10 = sum10;  // %10 sum of softmax
        const mm_divisor whole10 = mm_divisor_of(v10);
        for (int64_t mm_first = 0; mm_first < mm_extent; mm_first += 512) {
            const int64_t mm_stop = mm_min_i64(mm_first + 512, mm_extent);
            _Alignas(64) float out_stream[512];
            float *const out_block = mm_stream ? out_stream : out + (mm_first + i1 * s_seq + i0 * (s_seq * s_seq));
            mm_prefetch(scores + (mm_first + i1 * s_seq + i0 * (s_seq * s_seq)), (size_t)mm_extent * 4, (size_t)(mm_stop - mm_first) * 4);
#pragma omp simd
            for (int64_t x3 = mm_first; x3 < mm_stop; x3++) {
                const float v9 = row9[x3];               // %9 exp of softmax
                const float v11 = mm_over(v9, whole10);  // %11 div of softmax
                out_block[x3 - mm_first] = v11;
            }
            if (mm_stream)
                mm_stream_row(out + (mm_first + i1 * s_seq + i0 * (s_seq * s_seq)), out_stream, (size_t)(mm_stop - mm_first) * sizeof *out_stream);
        }
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
        mm_portion(mm_total, mm_extent), 1 * (((size_t)mm_extent + 7) / 8 * 64));
}
