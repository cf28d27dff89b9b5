// map_gather_mul
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict table = mm_buffers[0];
    const int32_t *const restrict tokens = mm_buffers[1];
    float *const restrict out = mm_buffers[2];
    const int64_t s_batch = mm_scalars[0];
    const int64_t s_seq = mm_scalars[1];
    const int64_t s_vocab = mm_scalars[2];
    const int64_t mm_extent = 768;
    const int64_t mm_blocks = (mm_extent + 511) / 512;
    const int64_t mm_total = (int64_t)(s_batch * s_seq) * mm_blocks;
    int mm_wrong = 0;
    const int mm_stream = ((int64_t)(s_batch * s_seq) * mm_extent) * 4 > 16777216;
    for (int64_t mm_work = mm_begin; mm_work < mm_end; mm_work++) {
        const int64_t mm_first = mm_work % mm_blocks * 512;
        const int64_t mm_count = mm_min_i64(512, mm_extent - mm_first);
        const int64_t i0 = mm_work / mm_blocks;
        const int32_t v_tokens = tokens[i0];  // %tokens
        const int64_t at_tokens = mm_position(v_tokens, s_vocab);
        mm_wrong |= mm_is_outside(v_tokens, s_vocab);
        _Alignas(64) float out_stream[512];
        float *const out_block = mm_stream ? out_stream : out + (mm_first + i0 * 768);
#pragma omp simd
        for (int64_t mm_k = 0; mm_k < mm_count; mm_k++) {
            const int64_t i1 = mm_first + mm_k;
            const float v_table = table[i1 + at_tokens * 768];  // %table
            const float v2 = v_table * 2.0f;                    // %2 mul
            out_block[mm_k] = v2;
        }
        if (mm_stream)
            mm_stream_row(out + (mm_first + i0 * 768), out_stream, (size_t)(mm_count) * sizeof *out_stream);
    }
    if (mm_stream)
        mm_fence();
    if (mm_wrong)
        __atomic_store_n((int64_t *)mm_buffers[3], 1, __ATOMIC_RELAXED);
}

void mm_kernel(void *const *mm_buffers, const int64_t *mm_scalars)
{
    const int64_t s_batch = mm_scalars[0];
    const int64_t s_seq = mm_scalars[1];
    const int64_t s_vocab = mm_scalars[2];
    *(int64_t *)mm_buffers[3] = 0;
    const int64_t mm_extent = 768;
    const int64_t mm_blocks = (mm_extent + 511) / 512;
    const int64_t mm_total = (int64_t)(s_batch * s_seq) * mm_blocks;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_min_i64(512, mm_extent)), 0);
}
