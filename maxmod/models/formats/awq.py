"""AWQ: integers of 4 bits with a scale and a zero point for each group of inputs.

Source: J. Lin et al., AWQ, arXiv 2306.00978. The layout is the one of AutoAWQ's version `gemm`:
`qweight` int32 [in, out / 8] and `qzeros` int32 [groups, out / 8], packed along the outputs in the
order 0, 2, 4, 6, 1, 3, 5, 7; `scales` float16 [groups, out].
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from maxmod.errors import ModelError
from maxmod.models.formats.layer import IntegerLayer, Layer, centred, layers_with, turned, unpacked
from maxmod.values.array import HostArray
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights

_BITS, _IN_WORD = 4, 8


class AWQLayer(IntegerLayer):
    """One weight."""

    bits = _BITS

    def __init__(self, weights: Weights, name: str) -> None:
        super().__init__(weights, name, ("qweight", "qzeros", "scales"))
        sizes = {part: self.sizes(part) for part in ("qweight", "scales")}
        for part, found in sizes.items():
            if len(found) != 2:
                raise self.error(part, f"expected a matrix, got the sizes {list(found)}")
        self.depth, self.groups = sizes["qweight"][0], sizes["scales"][0]
        self.rows = sizes["scales"][1]
        if self.groups == 0 or self.depth % self.groups or self.rows % _IN_WORD:
            raise self.error(
                "scales",
                f"expected groups that divide {self.depth} inputs, and outputs in eights, got "
                f"{list(sizes['scales'])}",
            )
        zeros = self._outputs("qzeros", self.groups)
        self.keep(0, 15, zeros, "scales")

    def integers(self) -> HostArray:
        """Reads codes less their zero points: int8 [out, in].

        The outputs 0, 2, 4 and 6 are in the low half of a word.
        """
        codes, zeros = self._outputs("qweight", self.depth), self._outputs("qzeros", self.groups)
        return centred(turned(codes), _BITS, zeros.T, None)

    def scales(self) -> HostArray:
        """Reads the scales: floats [out, groups]."""
        return np.ascontiguousarray(self.read("scales", self.groups, self.rows).T)

    def _outputs(self, part: str, count: int) -> HostArray:
        """uint8 [count, out]"""
        words = self.integers_of(part, count, self.rows // _IN_WORD)
        even, odd = _apart(words.view("<u4") & 0xFFFF), _apart(words.view("<u4") >> 16)
        return unpacked((even | odd << 4).view("<i4"), _BITS, 1)


def _apart(halves: HostArray) -> HostArray:
    """Moves four codes of 4 bits to the low halves of four bytes: uint32."""
    wide = (halves | halves << 8) & 0x00FF00FF
    return (wide | wide << 4) & 0x0F0F0F0F


def layers(weights: Weights, table: JsonObject, where: Path) -> dict[str, Layer]:
    """Returns the quantised layers of a folder by their names."""
    version, bits = table.get("version", "gemm"), table.get("bits", table.get("w_bit", _BITS))
    if not isinstance(version, str) or version.lower() != "gemm":
        raise ModelError(
            f"{where}: version: expected 'gemm', got {json.dumps(version)[:80]}. Hint: AutoAWQ "
            "writes this version by default."
        )
    if bits != _BITS:
        raise ModelError(f"{where}: bits: expected {_BITS}, got {json.dumps(bits)[:80]}.")
    return {name: AWQLayer(weights, name) for name in layers_with(weights, ".qweight")}
