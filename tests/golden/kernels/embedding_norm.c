// row_gather_rms_norm
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict table = mm_buffers[0];
    const int64_t *const restrict tokens = mm_buffers[1];
    const float *const restrict constant = mm_buffers[2];
    float *const restrict out = mm_buffers[3];
    const int64_t s_seq = mm_scalars[0];
    const int64_t mm_extent = 768;
    const int64_t mm_total = (int64_t)s_seq;
    int mm_wrong = 0;
    const int mm_stream = (mm_total * mm_extent) * 4 > 16777216;
    for (int64_t mm_row = mm_begin; mm_row < mm_end; mm_row++) {
        const int64_t i0 = mm_row;
        const int64_t v_tokens = tokens[i0];  // %tokens
        const int64_t at_tokens = mm_position(v_tokens, 32000);
        mm_wrong |= mm_is_outside(v_tokens, 32000);
        float sum2 = 0.0f;
#pragma omp simd reduction(+ : sum2)
        for (int64_t x2 = 0; x2 < mm_extent; x2++) {
            const float v_table = table[x2 + at_tokens * 768];  // %table
            const float v1 = v_table * v_table;                 // %1 mul of rms_norm
            sum2 += v1;
        }
        const float v2 = sum2;          // %2 sum of rms_norm
        const float v4 = v2 / 768.0f;   // %4 div of rms_norm
        const float v6 = v4 + 1e-06f;   // %6 add of rms_norm
        const float v7 = mm_rsqrt(v6);  // %7 rsqrt of rms_norm
        for (int64_t mm_first = 0; mm_first < mm_extent; mm_first += 512) {
            const int64_t mm_stop = mm_min_i64(mm_first + 512, mm_extent);
            _Alignas(64) float out_stream[512];
            float *const out_block = mm_stream ? out_stream : out + (mm_first + i0 * 768);
#pragma omp simd
            for (int64_t x2 = mm_first; x2 < mm_stop; x2++) {
                const float v_table = table[x2 + at_tokens * 768];  // %table
                const float v8 = v_table * v7;                      // %8 mul of rms_norm
                const float v_constant = constant[x2];              // @constant.0
                const float v10 = v_constant + 0.0f;                // %10 add of rms_norm
                const float v11 = v8 * v10;                         // %11 mul of rms_norm
                out_block[x2 - mm_first] = v11;
            }
            if (mm_stream)
                mm_stream_row(out + (mm_first + i0 * 768), out_stream, (size_t)(mm_stop - mm_first) * sizeof *out_stream);
        }
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
