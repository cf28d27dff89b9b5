"""`QuantizedWeights`: a view in which some weights are rounded while they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from maxmod.dtype import DType
from maxmod.errors import MaxmodError
from maxmod.ops.weight_quantization import (
    group_size_of,
    quantize_weight,
    quantized_types,
    scheme_of,
)
from maxmod.tensor import Tensor
from maxmod.values.tensor_type import TensorType
from maxmod.weights.mapping import Weights


class QuantizedWeights(Weights):
    """Weights of a model with quantised linear layers, made from the weights of the original.

    `layer.weight` gives the codes and `layer.scales` the scales. A weight is read once for both,
    and not kept, except for scales that are not yet read.

    Args:
        others: All tensors that are not rounded; further entries are ignored.
        floats: The weights that are rounded, in their stored dtype.
        sources: Names of layers to names of their weights in `floats`.
        formats: How each layer is stored, by its name.
    """

    def __init__(
        self,
        others: Weights,
        floats: Weights,
        sources: Mapping[str, str],
        formats: Mapping[str, tuple[str, int | None]],
    ) -> None:
        plan: dict[str, tuple[str, int | None]] = {name: (name, None) for name in others}
        self._formats: dict[str, tuple[str, int | None]] = {}  # by name of the float weight
        for layer, source in sources.items():
            plan[f"{layer}.weight"] = (source, 0)
            plan[f"{layer}.scales"] = (source, 1)
            self._formats[source] = formats[layer]
        super().__init__(plan)
        self._others = others
        self._floats = floats
        self._scales: dict[str, Tensor] = {}

    def _load(self, name: str) -> Tensor:
        source, part = self._plan[name]
        if part is None:
            return self._others[source]
        if part == 1 and source in self._scales:
            return self._scales.pop(source)
        try:
            made = quantize_weight(self._floats[source], *self._formats[source])
        except MaxmodError as error:
            raise type(error)(f"quantize: {name}: {error}") from None
        if part == 0:
            self._scales[source] = made[1]
        return made[part]

    def _type_of(self, name: str) -> TensorType:
        source, part = self._plan[name]
        if part is None:
            return self._others.tensor_type(source)
        return quantized_types(self._floats.tensor_type(source), *self._formats[source])[part]

    def source_key(self, name: str) -> tuple[object, ...]:
        source, part = self._plan[name]
        if part is None:
            return self._others.source_key(source)
        return (*self._floats.source_key(source), f"quantized {part}")  # codes before scales


class Stored(NamedTuple):
    """Storage format of the weight of a layer: see `F.quantize_weight`."""

    scheme: str
    group_size: int | None

    def __str__(self) -> str:
        groups = "" if self.group_size is None else f", groups of {self.group_size}"
        return f"{self.scheme}{groups}"


def stored_layers(weights: Weights) -> dict[str, Stored]:
    """Returns the layers whose `weight` is stored as codes, with `scales`.

    Nothing is read, and whether codes and scales fit together is not checked.
    """
    found: dict[str, Stored] = {}
    for name in weights:
        layer = name.removesuffix(".weight")
        if layer == name or f"{layer}.scales" not in weights:
            continue
        codes, scales = weights.tensor_type(name), weights.tensor_type(f"{layer}.scales")
        is_known = codes.dtype in (DType.int8, DType.uint8)
        if is_known and codes.rank == scales.rank == 2:
            scheme = scheme_of(codes.dtype, scales.dtype)
            found[layer] = Stored(scheme, group_size_of(codes, scales))
    return found
