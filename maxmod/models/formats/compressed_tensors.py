"""compressed-tensors, in which llm-compressor writes: packed integers, 8-bit integers, FP8.

Source: the package compressed-tensors. `weight_packed` int32 [out, in * bits / 32] is packed along
the inputs, and codes have half of their range added; `weight_scale` [out, groups];
`weight_zero_point` int32 [out * bits / 32, groups], packed along the outputs; `weight_shape`, the
sizes [out, in]; `weight_g_idx`, the group of each input. Other weights have the dtype of their
codes, and scales beside them. Activations are not rounded here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.formats.fp8 import read_block
from maxmod.models.formats.layer import WORD, IntegerLayer, Layer, centred, layers_with, unpacked
from maxmod.models.formats.scaled import BESIDE, Float8Layer, Int8Layer
from maxmod.values.array import HostArray
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights

_PACKED, _SCALE, _ZERO, _ORDER = (
    "weight_packed",
    "weight_scale",
    "weight_zero_point",
    "weight_g_idx",
)
_BITS = (2, 4, 8)
_FORMATS = (
    "dense",
    "float-quantized",
    "int-quantized",
    "mixed-precision",
    "naive-quantized",
    "pack-quantized",
)


class PackedLayer(IntegerLayer):
    """One weight of packed integers."""

    def __init__(self, weights: Weights, name: str) -> None:
        parts = (_PACKED, _SCALE, _ZERO, _ORDER, "weight_shape", *BESIDE)
        super().__init__(weights, name, parts)
        self.rows, self.depth = (int(size) for size in self.read("weight_shape", 2))
        words = self.sizes(_PACKED)
        each = -(-self.depth // max(words[-1], 1))
        self.bits = WORD // max(each, 1)
        if self.bits not in _BITS or words != (self.rows, -(-self.depth // (WORD // self.bits))):
            raise self.error(
                _PACKED,
                f"expected codes of 2, 4 or 8 bits for [{self.rows}, {self.depth}], got the sizes "
                f"{list(words)}",
            )
        self.middle = 1 << (self.bits - 1)
        self.groups = self.scales().shape[1]
        if self.has(_ORDER):
            given = self.integers_of(_ORDER, self.depth)
            if given.size and given.min() >= 0:  # -1 stands for none
                self.order = given.astype(np.int64)
        zeros = self._zeros()
        self.keep(-self.middle, self.middle - 1, zeros, _SCALE)

    def integers(self) -> HostArray:
        """Reads codes less their zero points: int8 [out, in], or int16."""
        codes = unpacked(self.integers_of(_PACKED, self.rows, None), self.bits, 1)[:, : self.depth]
        return centred(codes, self.bits, self.middle + self._zeros(), self.order)

    def scales(self) -> HostArray:
        """Reads the scales: floats [out, groups]."""
        if self.sizes(_SCALE) in ((), (1,)):
            found = self.read(_SCALE, *self.sizes(_SCALE))
            return np.broadcast_to(found.reshape(1, 1), (self.rows, 1))
        return self.read(_SCALE, self.rows, None)

    def _zeros(self) -> HostArray:
        """int16 [out, groups]"""
        if not self.has(_ZERO):
            return np.zeros((1, 1), np.int16)
        if self.weights.tensor_type(f"{self.name}.{_ZERO}").dtype is not DType.int32:
            return self.read(_ZERO, self.rows, self.groups).astype(np.int16)
        words = -(-self.rows // (WORD // self.bits))
        found = unpacked(self.read(_ZERO, words, self.groups), self.bits, 0)[: self.rows]
        return found.astype(np.int16) - self.middle


def layers(weights: Weights, table: JsonObject, where: Path) -> dict[str, Layer]:
    """Returns the quantised layers of a folder by their names."""
    groups = table.get("config_groups") or {}
    schemes = groups.values() if isinstance(groups, Mapping) else ()
    _expect_known(table, schemes, where)
    blocks = [
        read_block(scheme["weights"].get("block_structure"), where)
        for scheme in schemes
        if isinstance(scheme, Mapping) and isinstance(scheme.get("weights"), Mapping)
    ]
    block = next((found for found in blocks if found is not None), None)
    found: dict[str, Layer] = {
        name: PackedLayer(weights, name) for name in layers_with(weights, f".{_PACKED}")
    }
    for name in layers_with(weights, f".{_SCALE}"):
        if name in found or f"{name}.weight" not in weights:
            continue
        if weights.tensor_type(f"{name}.weight").dtype.is_float():
            found[name] = Float8Layer(weights, name, _SCALE, block)
        else:
            found[name] = Int8Layer(weights, name, _SCALE, _ZERO)
    return found


def _expect_known(table: JsonObject, schemes: object, where: Path) -> None:
    """Refuses formats that mean something else than what is read here."""
    sparsity, transforms = (
        _object(table, name, where) for name in ("sparsity_config", "transform_config")
    )
    given = [table.get("format"), sparsity.get("format")]
    given += [scheme.get("format") for scheme in schemes if isinstance(scheme, Mapping)]  # type: ignore[attr-defined]
    unknown = [name for name in given if name is not None and name not in _FORMATS]
    if unknown:
        raise ModelError(
            f"{where}: compressed-tensors: format: expected one of {', '.join(_FORMATS)}, got "
            f"{json.dumps(unknown[0])[:80]}."
        )
    if transforms.get("config_groups"):
        raise ModelError(
            f"{where}: compressed-tensors: transform_config: weights that are rotated as well are "
            "not supported."
        )


def _object(table: JsonObject, name: str, where: Path) -> JsonObject:
    given = table.get(name)
    if given is not None and not isinstance(given, dict):
        raise ModelError(
            f"{where}: compressed-tensors: {name}: expected an object or null, got "
            f"{json.dumps(given)[:80]}."
        )
    return given or {}
