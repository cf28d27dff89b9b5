"""GPTQ: integers of 2, 3, 4 or 8 bits with a scale and a zero point for each group of inputs.

Source: E. Frantar et al., GPTQ, arXiv 2210.17323. The layout is the one of AutoGPTQ and GPTQModel:
`qweight` int32 [in * bits / 32, out], packed along the inputs; `qzeros` int32
[groups, out * bits / 32], packed along the outputs; `scales` float16 [groups, out]; `g_idx`
int32 [in], the group of each input, which says nothing new unless inputs were reordered.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from maxmod.errors import ModelError
from maxmod.models.formats.layer import WORD, IntegerLayer, Layer, centred, layers_with, unpacked
from maxmod.values.array import HostArray
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights

_BITS = (2, 3, 4, 8)
# By the format that the folder names: what is added to the zero points that it stores.
_ADDED = {"gptq": 1, "gptq_v2": 0}


class GPTQLayer(IntegerLayer):
    """One weight; `added` is what zero points are stored less."""

    def __init__(self, weights: Weights, name: str, added: int, group_size: int) -> None:
        super().__init__(weights, name, ("qweight", "qzeros", "scales", "g_idx"))
        self.groups, self.rows = self._two("scales")
        words, _ = self._two("qweight")
        self.bits = WORD * self._two("qzeros")[1] // max(self.rows, 1)
        if self.bits not in _BITS:
            raise self.error("qzeros", f"expected 2, 3, 4 or 8 bits for a code, got {self.bits}")
        self.depth = words * WORD // self.bits
        self.added = added
        zeros = self._zeros()
        self.order = self._order(group_size)
        self.keep(0, (1 << self.bits) - 1, zeros, "scales")

    def integers(self) -> HostArray:
        """Reads codes less their zero points: int8 [out, in], or int16."""
        words = self.integers_of("qweight", self.depth * self.bits // WORD, self.rows)
        return centred(unpacked(words, self.bits, 0).T, self.bits, self._zeros(), self.order)

    def scales(self) -> HostArray:
        """Reads the scales: floats [out, groups]."""
        return np.ascontiguousarray(self.read("scales", self.groups, self.rows).T)

    def _zeros(self) -> HostArray:
        """int16 [out, groups]

        Words were stored less a word of ones, so that a zero point of 0 borrows from the next.
        """
        words = self.integers_of("qzeros", self.groups, self.rows * self.bits // WORD)
        if self.bits == 3:  # each was stored less 1
            found = (unpacked(words, self.bits, 1) + np.uint8(self.added)) & np.uint8(7)
        else:
            ones = np.uint32(self.added * sum(1 << at for at in range(0, WORD, self.bits)))
            plain = words.astype("<i4", copy=False).view("<u4") + ones
            found = unpacked(plain.view("<i4"), self.bits, 1)
        return found.T.astype(np.int16)

    def _two(self, part: str) -> tuple[int, int]:
        sizes = self.sizes(part)
        if len(sizes) != 2:
            raise self.error(part, f"expected a matrix, got the sizes {list(sizes)}")
        return sizes

    def _order(self, group_size: int) -> HostArray | None:
        """The group of each input; None for groups of equal size in order."""
        size = max(1, self.depth if group_size < 1 else min(group_size, self.depth))
        if -(-self.depth // size) != self.groups:  # a layer with groups of its own
            size = max(1, -(-self.depth // max(self.groups, 1)))
        plain = np.arange(self.depth) // size
        given = self.integers_of("g_idx", self.depth) if self.has("g_idx") else plain
        if len(given) and not 0 <= given.min() <= given.max() < self.groups:
            raise self.error("g_idx", f"expected groups from 0 to {self.groups - 1}")
        is_plain = np.array_equal(given, plain) and self.depth % size == 0
        return None if is_plain else given.astype(np.int64)


def layers(weights: Weights, table: JsonObject, where: Path) -> dict[str, Layer]:
    """Returns the quantised layers of a folder by their names."""
    kind = table.get("checkpoint_format", table.get("format")) or "gptq"
    if not isinstance(kind, str) or kind not in _ADDED:
        raise ModelError(
            f"{where}: checkpoint_format: expected one of {', '.join(_ADDED)}, got "
            f"{json.dumps(kind)[:80]}. Hint: GPTQModel can save the model as 'gptq'."
        )
    size = table.get("group_size", table.get("q_group_size", -1))
    if not isinstance(size, int) or isinstance(size, bool):
        raise ModelError(f"{where}: group_size: expected an integer, got {json.dumps(size)[:80]}.")
    return {
        name: GPTQLayer(weights, name, _ADDED[kind], size)
        for name in layers_with(weights, ".qweight")
    }
