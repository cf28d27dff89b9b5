"""`Shards`: the parts of weights that one process of a group has, read without the rest."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from maxmod.tensor import Tensor
from maxmod.values.tensor_type import TensorType
from maxmod.weights.mapping import Cut, Weights, with_cut


class Shards(Weights):
    """A view in which some tensors are parts of those of another mapping.

    Args:
        weights: The whole tensors. Where they come from a file as they are, or cast, transposed or
            split, only the bytes of a part are read.
        cuts: The part of each tensor that is not taken whole, by name.
    """

    _plan: Mapping[str, Cut | None]

    def __init__(self, weights: Weights, cuts: Mapping[str, Cut]) -> None:
        super().__init__({name: cuts.get(name) for name in weights})
        self._weights = weights

    def _load(self, name: str) -> Tensor:
        cut = self._plan[name]
        return self._weights[name] if cut is None else self._weights.part(name, cut)

    def _type_of(self, name: str) -> TensorType:
        cut, whole = self._plan[name], self._weights.tensor_type(name)
        return whole if cut is None else with_cut(whole, cut)

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        cut, key = self._plan[name], self._weights.source_key(name)
        return key if cut is None else (*key, f"part {cut}")
