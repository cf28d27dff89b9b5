// Products of many rows: the left operand is packed into tiles once. A task is a block of columns and a
// part of the rows: for MM_CHUNK units of the depth after the other it packs the right operand into
// panels, and adds to all sums, which stay in memory in between.
// Source: K. Goto and R. van de Geijn, Anatomy of High-Performance Matrix Multiplication, ACM TOMS
// 34 (2008); F. G. Van Zee and R. van de Geijn, BLIS, ACM TOMS 41 (2015).
// Measured in float32 on 2 cores of an AMD EPYC (Zen 3, AVX2), December 2026: 0.95 to 1.02 times the
// GFLOP/s of OpenBLAS for 64 to 2048 rows; over the whole depth at once it was 0.47 to 1.1.

#ifndef MM_SHARED_ELSEWHERE

typedef struct {
    float *packed;       // tiles of the left operand
    int64_t row0, count; // the rows that are packed
    int64_t part, parts; // rows of a task, and tasks for one block of columns
    int64_t block;       // columns of a task
} mm_many;

// Where units from `first` on of the tile that begins at packed row r are, if `units` follow there.
MM_INLINE float *mm_packed(const mm_many *m, int64_t r, int64_t first, int64_t units)
{
    return m->packed + first * m->count + r * units;
}

// Packs tiles of the left operand, one part of the depth after the other.
static void mm_pack_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_many *const m = shared;
    const int64_t depth = mm_depth(g), units = mm_units(depth);
    const int64_t last = mm_rows_end(end * MM_ROWS, m->count);
    for (int64_t r = first * MM_ROWS; r < last;) {
        const int height = mm_next_rows(m->count - r);
        for (int64_t u = 0; u < units; u += MM_CHUNK) {
            const int64_t stop = mm_least(u + MM_CHUNK, units);
            mm_pack_tile(g, m->row0 + r, height, u, stop, depth, mm_packed(m, r, u, stop - u));
        }
        r += height;
    }
    (void)room;
}

// Rows `first` to `end` of the packed ones times one panel, for units from `u0` on. Sums that do
// not end here are kept in `sums`, tile after tile; others are finished.
static void mm_gemm_panel(
    const mm_args g, const mm_many *m, int64_t first, int64_t end, int64_t n0, int64_t wide,
    int64_t u0, int64_t units, bool is_last, const float *panel, float *sums, int64_t column)
{
    _Alignas(64) float some[MM_ROWS * MM_WIDE];
    for (int64_t r0 = first; r0 < end;) {
        const int rows = mm_next_rows(m->count - r0);
        float *const out = sums ? sums + (r0 - first) * m->block + column * rows : some;
        mm_gemm_tile(rows, units, mm_packed(m, r0, u0, units), panel, out, u0 > 0);
        if (is_last)
            mm_finish_rows(g, m->row0 + r0, rows, n0, wide, out, MM_WIDE);
        r0 += rows;
    }
}

// A block of columns times a part of the packed rows, one part of the depth after the other: its
// panels stay in the L2 cache, with a few tiles of the left operand, and one of them in the L1.
static void mm_block_task(
    const mm_args g, const mm_many *m, int64_t r0, int64_t r1, int64_t n0, int64_t columns,
    float *panels, float *sums)
{
    const int64_t depth = mm_depth(g), units = mm_units(depth);
    for (int64_t u = 0; u < units || u == 0; u += MM_CHUNK) {
        const int64_t count = mm_least(MM_CHUNK, units - u);
        const bool is_last = u + count >= units;
        mm_pack_block(
            g, n0, columns, u * MM_TERMS, mm_least(depth, (u + count) * MM_TERMS), panels,
            MM_PANEL_STEP);
        for (int64_t r = r0, stop; r < r1; r = stop) {
            stop = mm_rows_end(r + MM_BLOCK_ROWS, r1);
            for (int64_t n = 0; n < columns; n += MM_WIDE)
                mm_gemm_panel(
                    g, m, r, stop, n0 + n, mm_least(MM_WIDE, columns - n), u, count, is_last,
                    panels + n * MM_PANEL_STEP, sums ? sums + (r - r0) * m->block : NULL, n);
        }
    }
}

static void mm_panel_task(
    void *const *buffers, const int64_t *scalars, void *shared, char *room, int64_t first,
    int64_t end)
{
    const mm_args g = mm_arguments(buffers, scalars);
    const mm_many *const m = shared;
    const int64_t columns = mm_columns(g);
    float *const panels = (float *)room;
    float *const sums = mm_units(mm_depth(g)) > MM_CHUNK ? panels + m->block * MM_PANEL_STEP : NULL;
    for (int64_t task = first; task < end; task++) {
        const int64_t n0 = task / m->parts * m->block;
        const int64_t r0 = task % m->parts * m->part;
        mm_block_task(
            g, m, r0, mm_rows_end(r0 + m->part, m->count), n0, mm_least(m->block, columns - n0), panels,
            sums);
    }
}

static void mm_many_rows(
    void *const *buffers, const int64_t *scalars, int64_t rows, int64_t columns, int64_t depth)
{
    const int64_t units = mm_units(depth);
    const bool alone = mm_is_alone(buffers, scalars, rows * columns * depth);
    const int64_t wanted = alone ? 1 : 4 * mm_threads->count();
    // Rows that are packed together, and the part of them and the columns that are one task.
    int64_t block = MM_BLOCK_FLOATS / (units + 1) / MM_ROWS * MM_ROWS;
    block = mm_least(rows, block < 8 * MM_ROWS ? 8 * MM_ROWS : block);
    mm_many m = {.packed = mm_new_floats(buffers, block * units)};
    if (!m.packed)
        return;
    m.block = mm_round_up((columns + wanted - 1) / wanted, MM_WIDE);
    m.block = mm_least(m.block, MM_BLOCK_COLUMNS);
    const int64_t blocks = (columns + m.block - 1) / m.block;
    const int64_t wanted_parts = (wanted + blocks - 1) / blocks;
    m.part = mm_round_up((block + wanted_parts - 1) / wanted_parts, MM_ROWS);
    m.part = mm_least(m.part, MM_PART_ROWS);
    const int64_t sums = units > MM_CHUNK ? m.part + MM_ROWS : 0;
    const size_t room = (size_t)(m.block * (MM_PANEL_STEP + sums)) * sizeof(float);
    for (m.row0 = 0; m.row0 < rows; m.row0 += block) {
        m.count = mm_least(block, rows - m.row0);
        m.parts = mm_row_parts(m.count, m.part);
        const int64_t tiles = mm_row_parts(m.count, MM_ROWS);
        const int64_t tasks = blocks * m.parts;
        mm_parallel(mm_pack_task, buffers, scalars, &m, tiles, alone ? tiles : 1, 0);
        mm_parallel(mm_panel_task, buffers, scalars, &m, tasks, alone ? tasks : 1, room);
    }
    mm_free_memory(m.packed);
}

#endif
