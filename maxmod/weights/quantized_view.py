"""`QuantizedWeights`: a view in which some weights are rounded while they are read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from maxmod.dtype import DType
from maxmod.errors import MaxmodError
from maxmod.ops.weight_quantization import quantize_weight, quantized_types
from maxmod.tensor import Tensor
from maxmod.values.tensor_type import TensorType
from maxmod.weights.mapping import Weights
from maxmod.weights.packed_groups import groups_of

PARTS = ("weight", "scales", "offsets", "units")  # of a layer, in the order of `quantize_weight`


class Stored(NamedTuple):
    """Storage format of the weight of a layer: see `F.quantize_weight`."""

    scheme: str
    group_size: int | None

    def __str__(self) -> str:
        if self.group_size is None:
            return self.scheme
        name = "int4" if self.scheme == "uint4" else f"{self.scheme} around 0"
        return f"{name}, groups of {self.group_size}"


class QuantizedWeights(Weights):
    """Weights of a model with quantised linear layers, made from the weights of the original.

    `layer.weight` gives the codes, `layer.scales` the scales, `layer.offsets` and `layer.units`
    what else uint4 has. A weight is read once for all, and not kept, except for what is not yet
    read of the codes and scales.

    Args:
        others: All tensors that are not rounded; further entries are ignored.
        floats: The weights that are rounded, in their stored dtype.
        sources: Names of layers to names of their weights in `floats`, and how to store them.
    """

    def __init__(
        self, others: Weights, floats: Weights, sources: Mapping[str, tuple[str, Stored]]
    ) -> None:
        plan: dict[str, tuple[str, int, Stored | None]] = {name: (name, 0, None) for name in others}
        for layer, (source, kind) in sources.items():
            for part in range(4 if kind.scheme == "uint4" else 2):
                plan[f"{layer}.{PARTS[part]}"] = (source, part, kind)
        super().__init__(plan)
        self._others = others
        self._floats = floats
        self._unread: dict[tuple[str, int], Tensor] = {}

    def _load(self, name: str) -> Tensor:
        source, part, kind = self._plan[name]
        if kind is None:
            return self._others[source]
        if (source, part) in self._unread:
            return self._unread.pop((source, part))
        try:
            made = quantize_weight(self._floats[source], *kind)
        except MaxmodError as error:
            raise type(error)(f"quantize: {name}: {error}") from None
        if part == 0:
            self._unread.update({(source, i): made[i] for i in range(1, len(made))})
        return made[part]

    def _type_of(self, name: str) -> TensorType:
        source, part, kind = self._plan[name]
        if kind is None:
            return self._others.tensor_type(source)
        return quantized_types(self._floats.tensor_type(source), *kind)[part]

    def source_key(self, name: str) -> tuple[object, ...]:
        source, part, kind = self._plan[name]
        if kind is None:
            return self._others.source_key(source)
        return (*self._floats.source_key(source), f"quantized {part}")  # codes before scales


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
        if codes.dtype is DType.int8:
            found[layer] = Stored("int8", None)
        elif codes.dtype is DType.uint8 and codes.rank == scales.rank == 2:
            columns = int(scales.sizes[1])
            is_packed = scales.dtype is DType.uint8
            groups = groups_of(columns) if is_packed else columns
            has_offsets = is_packed or f"{layer}.offsets" in weights
            scheme = "uint4" if has_offsets else "int4"
            found[layer] = Stored(scheme, 2 * int(codes.sizes[1]) // max(1, groups))
    return found
