"""How scales and offsets of groups of 4-bit codes are stored in files: 12 bits for each group.

A file has `layer.scales` as uint8 [out, 4 + 3 / 2 * groups] in place of `scales`, `offsets` and
`units` of `F.quantize_weight(weight, "uint4")`. The bytes of a row are: the unit of its scales and
the unit of its offsets, float16, little-endian; then, as fields of 6 bits from the highest bit of
the first byte on, a level of the scale of each group, from 0 to 63, and its offset plus 32. A scale
is `level / 63` of the unit, as `maxmod.ops.group_search.scales_of` computes it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from maxmod.dtype import DType
from maxmod.ops.group_search import SCALE_LEVELS, scales_of
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.tensor_type import TensorType
from maxmod.weights.mapping import Step

BITS = 6
_UNITS = 4  # bytes of the two units of a row


def groups_of(columns: int) -> int:
    """Returns how many groups rows of so many bytes have."""
    return max(0, 2 * (columns - _UNITS) // 3)


def pack(scales: HostArray, offsets: HostArray, units: HostArray) -> HostArray | None:
    """Packs what rows of groups have.

    Args:
        scales: float16 [rows, groups].
        offsets: int8 [rows, groups].
        units: float32 [rows, 1].

    Returns:
        uint8 [rows, 4 + ceil(3 / 2 * groups)]; None if that would not give the same numbers again,
        for tensors that `quantize_weight` did not make.
    """
    unit = scales.max(axis=1, keepdims=True, initial=0)
    wide: Any = unit.astype(np.float32)
    if scales.size == 0 or not np.isfinite(wide).all():
        return None
    levels = np.rint(scales.astype(np.float32) * SCALE_LEVELS / np.where(wide == 0, 1, wide))
    levels = np.clip(levels, 0, SCALE_LEVELS)
    halves = units.astype(np.float16)
    again: Any = scales_of(np, levels, wide)
    is_same = np.array_equal(again, scales)
    if not is_same or not (halves == units).all() or np.abs(offsets.astype(int)).max() > 31:
        return None
    fields = np.concatenate([levels.astype(np.uint8), (offsets + 32).astype(np.uint8)], axis=1)
    bits = np.unpackbits(fields[..., None], axis=2)[:, :, 8 - BITS :]
    rows = len(scales)
    heads = np.concatenate([unit, halves], axis=1).astype("<f2").view(np.uint8)
    return np.concatenate([heads, np.packbits(bits.reshape(rows, -1), axis=1)], axis=1)


def unpack(packed: HostArray) -> tuple[HostArray, HostArray, HostArray]:
    """Returns scales, offsets and units of what `pack` made."""
    rows, columns = packed.shape
    count = groups_of(columns)
    units: Any = np.ascontiguousarray(packed[:, :_UNITS]).view("<f2").astype(np.float32)
    bits = np.unpackbits(packed[:, _UNITS:], axis=1)[:, : 2 * count * BITS]
    fields = np.packbits(bits.reshape(rows, 2 * count, BITS), axis=2)[:, :, 0] >> (8 - BITS)
    scales: Any = scales_of(np, fields[:, :count], units[:, :1])
    return scales, (fields[:, count:].astype(np.int8) - np.int8(32)), units[:, 1:]


class Unpack(Step):
    """One of the three tensors that were packed: scales, offsets or units."""

    def __init__(self, part: int) -> None:
        self.part = part
        self.text = f"unpack {part}"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        rows, columns = types[0].sizes
        count = 1 if self.part == 2 else groups_of(int(columns))
        dtype = (DType.float16, DType.int8, DType.float32)[self.part]
        return TensorType.of(dtype, (rows, count), types[0].device)

    def apply(self, tensors: list[Tensor]) -> Tensor:
        made = unpack(tensors[0].to_numpy())[self.part]
        return Tensor(np.ascontiguousarray(made), device=tensors[0].device)
