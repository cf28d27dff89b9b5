// Products of many rows with a right operand that stays in the L2 cache: it is packed as a whole, and
// tasks are parts of the rows. A tile copies its own rows of the left operand, so that nothing waits
// for packing them, and its sums are finished at once. They are those of gemm_many.h.
//
// With many rows and few columns, however deep, packing the left operand would take as long as
// multiplying it. Measured in float32 on 2 cores of an Intel Emerald Rapids (AVX-512, L2 of 2 MB),
// December 2026: 2048 x 1024 x 128 and 1000 x 4096 x 64 take 0.6 to 0.8 of the time of gemm_many.h.
// With 320 or 384 columns and up to 513 rows such large panels took longer than gemm_many.h.

#ifndef MM_SHARED_ELSEWHERE

#define MM_NARROW_FLOATS (MM_L2_NBYTES / 16) // of the packed right operand: a quarter of the L2 cache
#define MM_DEEP_FLOATS (MM_L2_NBYTES / 7)    // where columns are few: 4096 x 64 with 2 MB
#define MM_DEEP_TILES 8                      // of each thread: packing deep panels takes longer
#define MM_NARROW_UNITS (2 * MM_CHUNK)
#define MM_NARROW_ROW (MM_NARROW_UNITS + 16) // not a power of two: rows would share sets of the L1
#define MM_NARROW_TERMS 16384                // of a portion of tiles: about a microsecond
#define MM_NARROW_COLUMNS 128

typedef struct {
    float *panels; // of the right operand
    int64_t step;  // of a column of them
} mm_narrow;

static void mm_narrow_pack(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_narrow *const m = shared;
    const int64_t n0 = first * MM_WIDE, columns = mm_least(end * MM_WIDE, mm_columns(g)) - n0;
    mm_pack_block(g, n0, columns, 0, mm_depth(g), m->panels + n0 * m->step, m->step);
    (void)room;
}

static __attribute__((noinline)) void mm_narrow_tile(
    int rows, int64_t units, const float *left, const float *panel, float *out, bool resumes)
{
    static const float ones[MM_ROWS] = {[0 ... MM_ROWS - 1] = 1};
#define MM_CALL(R)                                                                               \
    do {                                                                                         \
        if (resumes)                                                                             \
            mm_tile(R, units, left, MM_NARROW_ROW, 1, panel, out, MM_NARROW_COLUMNS, ones, NULL, 0); \
        else                                                                                     \
            mm_tile(R, units, left, MM_NARROW_ROW, 1, panel, out, MM_NARROW_COLUMNS, NULL, NULL, 0); \
    } while (0)
    MM_FOR_NEXT_ROWS(rows, MM_CALL)
#undef MM_CALL
}

// Some tiles times all panels.
static void mm_narrow_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_narrow *const m = shared;
    const int64_t columns = mm_columns(g), units = mm_units(mm_depth(g));
    float *const left = (float *)room;
    _Alignas(64) float sums[MM_ROWS * MM_NARROW_COLUMNS];
    const int64_t last = mm_rows_end(end * MM_ROWS, mm_rows(g));
    for (int64_t r0 = first * MM_ROWS, rows; r0 < last; r0 += rows) {
        rows = mm_next_rows(mm_rows(g) - r0);
        for (int64_t n0 = 0; n0 < columns; n0 += MM_NARROW_COLUMNS) {
            const int64_t wide = mm_least(MM_NARROW_COLUMNS, columns - n0);
            for (int64_t u = 0; u < units || u == 0; u += MM_NARROW_UNITS) {
                const int64_t count = mm_least(MM_NARROW_UNITS, units - u);
                for (int64_t r = 0; r < rows && n0 == 0; r++) // all of them, or columns are few
                    g->left(g, r0 + r, u, count, left + r * MM_NARROW_ROW);
                for (int64_t n = 0; n < wide; n += MM_WIDE)
                    mm_narrow_tile(
                        (int)rows, count, left, m->panels + (n0 + n) * m->step + u * MM_WIDE, sums + n,
                        u > 0);
            }
            mm_finish_rows(g, r0, rows, n0, wide, sums, MM_NARROW_COLUMNS);
        }
    }
}

// True if a product is one of these, and has enough rows for all threads.
MM_INLINE bool mm_is_narrow(int64_t rows, int64_t columns, int64_t depth, bool alone)
{
    const int64_t units = mm_units(depth), all = mm_round_up(columns, MM_WIDE) * (units + MM_LANES);
    const int64_t threads = alone ? 1 : mm_threads->count();
    if (units <= MM_NARROW_UNITS && all <= MM_NARROW_FLOATS)
        return rows >= 2 * MM_ROWS * threads;
    const bool is_deep = columns <= MM_NARROW_COLUMNS && all <= MM_DEEP_FLOATS;
    return is_deep && rows >= MM_DEEP_TILES * MM_ROWS * threads;
}

static void mm_narrow_rows(
    void *const *buffers, const int64_t *scalars, int64_t rows, int64_t columns, int64_t depth)
{
    const bool alone = mm_is_alone(buffers, scalars, rows * columns * depth);
    const int64_t panels = (columns + MM_WIDE - 1) / MM_WIDE, tiles = mm_row_parts(rows, MM_ROWS);
    mm_narrow m = {.step = mm_round_up(mm_units(depth), MM_LANES)};
    m.panels = mm_new_floats(buffers, panels * MM_WIDE * m.step);
    if (!m.panels)
        return;
    const int64_t some = MM_NARROW_TERMS / (MM_WIDE * depth + 1) + 1;
    mm_parallel(mm_narrow_pack, buffers, scalars, &m, panels, alone ? panels : some, 0);
    const int64_t step = MM_NARROW_TERMS / (MM_ROWS * columns * depth + 1) + 1;
    const size_t room = MM_ROWS * MM_NARROW_ROW * sizeof(float);
    mm_parallel(mm_narrow_task, buffers, scalars, &m, tiles, alone ? tiles : step, room);
    mm_free_memory(m.panels);
}

#endif
