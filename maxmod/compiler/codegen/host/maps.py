"""Pointwise kernels of the host: blocks of the innermost loop, and tiles where columns are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from maxmod.compiler.codegen.emit import block, index_text, loaded, size_text, storage_type
from maxmod.compiler.codegen.host.blocks import (
    BLOCK,
    HALVES,
    Parts,
    checked,
    count_up,
    instructions,
    neighbours,
    outer_indices,
    pragma,
    results,
    start_of,
    store_one,
    stream_flag,
    total,
    widened,
)
from maxmod.compiler.groups.instructions import Load, Lowered
from maxmod.op.affine import Loop
from maxmod.values.dim import as_size

# Rows and columns of a tile: of each column, a line of 64 bytes is read at once, and rows are long
# enough to be written without pauses; 8 KB of floats (MM_TILE of the prelude is the second).
TILE_ROWS = 16
TILE_COLUMNS = 128


@dataclass(frozen=True, slots=True)
class _Tile:
    """How columns become rows.

    Attributes:
        across: The outer loop along which columns are neighbours.
        columns: The loads that read columns along the innermost loop.
    """

    across: Loop
    columns: dict[int, Load]


def pointwise_kernel(lowered: Lowered) -> Parts:
    """Returns the text of a pointwise kernel."""
    outer, inner = lowered.loops[:-1], (lowered.loops or [Loop("i0", 1)])[-1]
    moving = lowered.varying(inner)
    tile = _tile(lowered, outer, inner)
    size = TILE_COLUMNS if tile else BLOCK
    elements = f"mm_min_i64({size}, mm_extent)"
    counted = list(outer)
    if tile:
        elements = f"{TILE_ROWS} * {elements}"
        tiles = as_size((tile.across.extent + (TILE_ROWS - 1)) // TILE_ROWS)
        counted = [loop for loop in outer if loop is not tile.across] + [Loop("mm_tile", tiles)]
    sizes = [
        f"const int64_t mm_extent = {size_text(inner.extent)};",
        f"const int64_t mm_blocks = (mm_extent + {size - 1}) / {size};",
        f"const int64_t mm_total = {total(counted)} * mm_blocks;",
    ]
    body = _block(lowered, inner, moving, tile)
    if tile:
        body = _rows_of_tile(tile, inner, body)
    item = [
        f"const int64_t mm_first = mm_work % mm_blocks * {size};",
        f"const int64_t mm_count = mm_min_i64({size}, mm_extent - mm_first);",
        *outer_indices(counted, "mm_work / mm_blocks"),
        *body,
    ]
    task = [
        stream_flag(lowered, f"{total(outer)} * mm_extent"),
        *block(count_up("mm_work", "mm_begin", "mm_end"), item),
        "if (mm_stream)",
        "    mm_fence();",
    ]
    return Parts(sizes, task, elements)


def _block(lowered: Lowered, inner: Loop, moving: set[int], tile: _Tile | None) -> list[str]:
    """Returns the text that computes one block of the innermost loop."""
    size = TILE_COLUMNS if tile else BLOCK
    fixed = [n for n, _ in enumerate(lowered.instructions) if n not in moving]
    texts: dict[int, str] = {}
    before: list[str] = []
    sources = {
        number: f"b{load.buffer} + ({index_text(start_of(load.index, inner, 'mm_first'))})"
        for number, load in neighbours(lowered, inner, moving).items()
        if load.stored in HALVES
    }
    for number, load in (tile.columns if tile else {}).items():
        row = f"q{number} + mm_row * {TILE_COLUMNS}"
        texts[number] = loaded(load.stored, f"q{number}[mm_row * {TILE_COLUMNS} + mm_k]")
        if load.stored in HALVES:
            sources[number] = row
    for number, source in sources.items():
        texts[number] = f"h{number}[mm_k]"
        before += [
            f"_Alignas(64) float h{number}[{size}];",
            widened(number, _load(lowered, number), source, "mm_count"),
        ]
    written = results(lowered, inner, "mm_first", "mm_count", size, "mm_k", HALVES)
    body = [f"const int64_t {inner.name} = mm_first + mm_k;"]
    body += instructions(lowered, sorted(moving), texts)
    body += written.stores
    body += [store_one(lowered, s) for s in lowered.stores if s.index.factor(inner) != 1]
    return [
        *instructions(lowered, fixed),
        *written.before,
        *before,
        pragma("simd", checks=not moving.isdisjoint(checked(lowered))),
        *block(count_up("mm_k", "0", "mm_count"), body),
        *written.after,
    ]


def _load(lowered: Lowered, number: int) -> Load:
    what = lowered.instructions[number].what
    assert isinstance(what, Load)
    return what


# ---- tiles ---------------------------------------------------------------------------------------


def _tile(lowered: Lowered, outer: Sequence[Loop], inner: Loop) -> _Tile | None:
    """Returns how columns become rows; None if no columns are read."""
    loads = {n: i.what for n, i in enumerate(lowered.instructions) if isinstance(i.what, Load)}
    across = next(filter(None, (_across(load, outer, inner) for load in loads.values())), None)
    if across is None:
        return None
    columns = {n: load for n, load in loads.items() if _across(load, outer, inner) is across}
    return _Tile(across, columns)


def _across(load: Load, outer: Sequence[Loop], inner: Loop) -> Loop | None:
    """Returns the loop along which the columns that a load reads are neighbours."""
    if load.index.data or load.index.factor(inner) in (0, 1):
        return None
    return next((loop for loop in outer if load.index.factor(loop) == 1), None)


def _rows_of_tile(tile: _Tile, inner: Loop, body: list[str]) -> list[str]:
    """Returns the text that turns the columns of a tile into rows and computes these."""
    rows: list[str] = []
    for number, load in tile.columns.items():
        index = start_of(start_of(load.index, inner, "mm_first"), tile.across, "mm_above")
        kind = storage_type(load.stored)
        stride = size_text(load.index.factor(inner))
        rows += [
            f"_Alignas(64) {kind} q{number}[{TILE_ROWS * TILE_COLUMNS}];",
            f"mm_turn_{8 * load.stored.size_in_bytes}(q{number}, b{load.buffer} "
            f"+ ({index_text(index)}), {stride}, mm_rows, mm_count);",
        ]
    name = tile.across.name
    return [
        f"const int64_t mm_above = mm_tile * {TILE_ROWS};",
        f"const int64_t mm_rows = mm_min_i64({TILE_ROWS}, "
        f"{size_text(tile.across.extent)} - mm_above);",
        *rows,
        *block(
            count_up("mm_row", "0", "mm_rows"),
            [f"const int64_t {name} = mm_above + mm_row;", *body],
        ),
    ]
