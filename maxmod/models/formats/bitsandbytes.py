"""bitsandbytes: 8-bit integers with a scale for each output; 4-bit floats in blocks.

Source: T. Dettmers et al., LLM.int8(), arXiv 2208.07339 (`weight` int8 [out, in], and `SCB`, the
largest magnitude of each output); QLoRA, arXiv 2305.14314 (NF4: `weight` uint8, two codes a byte,
the first in the high half; `absmax`, the largest magnitude of each block, itself of 8 bits with
`nested_absmax` where it was quantised twice; `quant_map`, the value of each code; sizes as JSON in
the bytes of `quant_state`). Columns of large activations, which that package multiplies in 16 bits,
are not told apart here: no activation is rounded.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from maxmod.models.formats.layer import Layer, layers_with, looked_up, scaled
from maxmod.models.formats.scaled import Int8Layer
from maxmod.values.array import HostArray
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights

_STATE = "weight.quant_state.bitsandbytes__"
_ORDER = "weight_format"  # of the weight in memory
_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")


class Float4Layer(Layer):
    """One weight of 4-bit floats."""

    def __init__(self, weights: Weights, name: str, kind: str) -> None:
        state = f"{_STATE}{kind}"
        super().__init__(weights, name, (state, *(f"weight.{part}" for part in _PARTS)))
        self.state = self._read_state(state)
        self.rows, self.depth = self.state["shape"]

    def floats(self) -> HostArray:
        """Reads the weight: float32 [out, in]."""
        self.sizes("weight")  # refuses a missing one
        packed = self.raw("weight")  # bytes, in a tensor of whatever dtype was chosen
        count = self.rows * self.depth
        if packed.size != -(-count // 2):
            raise self.error(
                "weight",
                f"expected {-(-count // 2)} bytes for [{self.rows}, {self.depth}], got "
                f"{packed.size}",
            )
        values = self.read("weight.quant_map", 16).astype(np.float32)
        both = np.stack([np.repeat(values, 16), np.tile(values, 16)], axis=1)  # of each byte
        pairs = looked_up(both.view(np.uint64)[:, 0], packed).view(np.float32)[:count]
        block, largest = self.state["blocksize"], self._largest()
        if largest.size != -(-count // block):
            raise self.error(
                "weight.absmax", f"expected {-(-count // block)} numbers, got {largest.size}"
            )
        if count % block == 0:
            scaled(pairs.reshape(-1, block), largest[:, None], None)
        else:
            pairs *= np.repeat(largest, block)[:count]
        return pairs.reshape(self.rows, self.depth)

    def _largest(self) -> HostArray:
        """The largest magnitude of each block, float32."""
        found = self.read("weight.absmax", None)
        if not self.has("weight.nested_absmax"):
            return found.astype(np.float32)
        if found.dtype != np.uint8:
            raise self.error("weight.absmax", f"expected uint8, got {found.dtype}")
        values = self.read("weight.nested_quant_map", 256).astype(np.float32)
        outer = self.read("weight.nested_absmax", None).astype(np.float32)
        block = self.state["nested_blocksize"]
        if outer.size != -(-found.size // block):
            raise self.error(
                "weight.nested_absmax",
                f"expected {-(-found.size // block)} numbers, got {outer.size}",
            )
        each = np.repeat(outer, block)[: found.size]
        return values[found] * each + np.float32(self.state["nested_offset"])

    def _read_state(self, name: str) -> JsonObject:
        data = self.read(name, None).astype(np.uint8).tobytes()
        numbers = ("blocksize", "nested_blocksize")
        try:
            state: Any = json.loads(data)
            rows, depth = state["shape"]
            sizes = [rows, depth, *(state.get(key, 1) for key in numbers)]
            float(state.get("nested_offset", 0.0))
            if not all(type(size) is int and size > 0 for size in sizes):
                raise ValueError(f"expected sizes above 0, got {sizes}")
            return {"nested_offset": 0.0, "nested_blocksize": 256, "blocksize": 64} | state
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self.error(name, f"expected JSON with shape and blocksize: {error}") from None


def _layer_of_8_bits(weights: Weights, name: str) -> Layer:
    layer = Int8Layer(weights, name, "SCB", beside=(_ORDER,), factor=1 / 127)
    order = layer.read(_ORDER, *layer.sizes(_ORDER)).tolist() if layer.has(_ORDER) else 0
    if order not in (0, [0]):
        raise layer.error(
            _ORDER,
            f"expected 0, rows as they are, got {order!r:.40}. Hint: earlier versions saved the "
            "tiles of a GPU; save the model again with a newer one",
        )
    return layer


def layers(weights: Weights, table: JsonObject, where: Path) -> dict[str, Layer]:
    """Returns the quantised layers of a folder by their names."""
    found: dict[str, Layer] = {
        name: _layer_of_8_bits(weights, name) for name in layers_with(weights, ".SCB")
    }
    for kind in ("nf4", "fp4"):
        found |= {
            name: Float4Layer(weights, name, kind)
            for name in layers_with(weights, f".{_STATE}{kind}")
        }
    return found
