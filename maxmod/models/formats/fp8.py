"""FP8: 8-bit floats with a scale for each block of 128 by 128, for each output, or for all.

Source: DeepSeek-AI, DeepSeek-V3, arXiv 2412.19437, section 3.3 (blocks, `weight_scale_inv`, which
weights are multiplied by); the package fbgemm (a scale for each output, `weight_scale`).
Activations are not rounded here.
"""

from __future__ import annotations

import json
from pathlib import Path

from maxmod.errors import ModelError
from maxmod.models.formats.layer import Layer, layers_with
from maxmod.models.formats.scaled import Float8Layer
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights


def layers(weights: Weights, table: JsonObject, where: Path) -> dict[str, Layer]:
    """Returns the quantised layers of a folder by their names."""
    block = read_block(table.get("weight_block_size"), where)
    return {
        name: Float8Layer(weights, name, scale, block)
        for scale in ("weight_scale_inv", "weight_scale")
        for name in layers_with(weights, f".{scale}")
    }


def read_block(given: object, where: Path) -> tuple[int, int] | None:
    """Reads the sizes of a block from config.json, where there is one."""
    if given is None:
        return None
    if isinstance(given, list) and len(given) == 2:
        high, wide = given
        if all(type(size) is int and size > 0 for size in given):
            return high, wide
    raise ModelError(
        f"{where}: size of a block: expected two numbers above 0, got {json.dumps(given)[:80]}."
    )
