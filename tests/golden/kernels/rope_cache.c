// map_sub_gather_mul_add_update_rows
static void mm_items(
    void *const *mm_buffers, const int64_t *mm_scalars, void *mm_shared, char *mm_room,
    int64_t mm_begin, int64_t mm_end)
{
    const float *const restrict x = mm_buffers[0];
    const float *const restrict cosine = mm_buffers[1];
    const float *const restrict sine = mm_buffers[2];
    const int64_t *const restrict used = mm_buffers[3];
    float *const restrict keys = mm_buffers[4];
    const int64_t s_length = mm_scalars[0];
    const int64_t mm_extent = 32;
    const int64_t mm_blocks = (mm_extent + 511) / 512;
    const int64_t mm_total = (int64_t)8 * (int64_t)2 * mm_blocks;
    int mm_wrong = 0;
    const int mm_stream = ((int64_t)8 * (int64_t)2 * mm_extent) * 4 > 16777216;
    for (int64_t mm_work = mm_begin; mm_work < mm_end; mm_work++) {
        const int64_t mm_first = mm_work % mm_blocks * 512;
        const int64_t mm_count = mm_min_i64(512, mm_extent - mm_first);
        int64_t rest = mm_work / mm_blocks;
        const int64_t i1 = rest % 2;
        rest /= 2;
        const int64_t i0 = rest;
        const int64_t v_used = used[0];  // %used
        const int64_t at_used = v_used;
        const int64_t v2 = i1;               // %2 iota
        const int64_t v4 = (int64_t)1 - v2;  // %4 sub
        const int64_t at4 = mm_position(v4, 2);
        mm_wrong |= mm_is_outside(v4, 2);
        _Alignas(64) float keys_stream[512];
        float *const keys_block = mm_stream ? keys_stream : keys + (i1 * 32 + mm_first + at_used * 64 + i0 * (s_length * 64));
#pragma omp simd
        for (int64_t mm_k = 0; mm_k < mm_count; mm_k++) {
            const int64_t i2 = mm_first + mm_k;
            const float v_x = x[i2 + i1 * 32 + i0 * 64];     // %x
            const float v_cosine = cosine[i2];               // %cosine
            const float v6 = v_x * v_cosine;                 // %6 mul
            const float v_x_2 = x[i2 + at4 * 32 + i0 * 64];  // %x
            const float v_sine = sine[i2 + i1 * 32];         // %sine
            const float v7 = v_x_2 * v_sine;                 // %7 mul
            const float v8 = v6 + v7;                        // %8 add
            keys_block[mm_k] = v8;
        }
        if (mm_stream)
            mm_stream_row(keys + (i1 * 32 + mm_first + at_used * 64 + i0 * (s_length * 64)), keys_stream, (size_t)(mm_count) * sizeof *keys_stream);
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
    const int64_t *const restrict used = mm_buffers[3];
    {
        const int64_t v_used = used[0];  // %used
        if (v_used < 0 || v_used >= s_length)
            return;
    }
    if ((int64_t)8 * (int64_t)2 * (int64_t)32 > 0) {
        for (int64_t i1 = 0; i1 < 2; i1++) {
            const int64_t v2 = i1;               // %2 iota
            const int64_t v4 = (int64_t)1 - v2;  // %4 sub
            if (mm_is_outside(v4, 2))
                return;
        }
    }
    *(int64_t *)mm_buffers[5] = 0;
    const int64_t mm_extent = 32;
    const int64_t mm_blocks = (mm_extent + 511) / 512;
    const int64_t mm_total = (int64_t)8 * (int64_t)2 * mm_blocks;
    mm_parallel(mm_items, mm_buffers, mm_scalars, NULL, mm_total,
        mm_portion(mm_total, mm_min_i64(512, mm_extent)), 0);
}
