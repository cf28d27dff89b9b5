"""The tensors of a GGUF file with the names and layouts of a model folder."""

from __future__ import annotations

import numpy as np

from maxmod.models.gguf.kinds import FACTORS, Kind
from maxmod.tensor import Tensor
from maxmod.values.plain import JsonObject
from maxmod.values.tensor_type import TensorType
from maxmod.weights.gguf import GGUFWeights
from maxmod.weights.mapping import Recipe, Step, View


class _Pairs(Step):
    """Puts the rows of each head back: first the first elements of all pairs, then the others."""

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self.text = f"pairs of {heads} heads"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        return types[0]

    def apply(self, tensors: list[Tensor]) -> Tensor:
        data = tensors[0].data
        rows = data.reshape(self.heads, -1, 2, *data.shape[1:])
        found = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(data.shape)
        return Tensor.wrap(found, tensors[0].type)


class _LessOne(Step):
    """Takes the 1 off that gains are stored with."""

    text = "less one"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        return types[0]

    def apply(self, tensors: list[Tensor]) -> Tensor:
        data = tensors[0].data
        return Tensor.wrap((data - 1).astype(data.dtype), tensors[0].type)


class _Transposed(Step):
    text = "transposed"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        return types[0].with_sizes(types[0].sizes[::-1])

    def apply(self, tensors: list[Tensor]) -> Tensor:
        found = np.ascontiguousarray(tensors[0].data.T)
        return Tensor.wrap(found, self.type("", [tensors[0].type]))


class GGUFView(View):
    """The tensors of a GGUF file with the names and layouts of a model folder."""

    def __init__(self, file: GGUFWeights, kind: Kind, config: JsonObject) -> None:
        self.file = file
        super().__init__(
            {
                new: Recipe((file, old), step=_step(old, kind, config))
                for old in file
                if (new := _folder_name(old, kind)) is not None
            }
        )

    def on(self, device: object) -> GGUFView:
        """Returns itself: tensors are dequantised on the host, whatever the device is."""
        return self

    def __enter__(self) -> GGUFView:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def _folder_name(name: str, kind: Kind) -> str | None:
    """Returns what a tensor is called in a folder; None for those that config.json has."""
    stem, _, suffix = name.rpartition(".")
    if stem in FACTORS:
        return None
    if stem in kind.outer:
        return f"{kind.outer[stem]}.{suffix}"
    block, _, inner = stem.partition(".")[2].partition(".")
    if stem.startswith("blk.") and inner in kind.inner:
        return f"{kind.layers}.{block}.{kind.inner[inner]}.{suffix}"
    return name  # the model says that it has no such weight


def _step(name: str, kind: Kind, config: JsonObject) -> Step | None:
    stem, _, suffix = name.rpartition(".")
    inner = stem.rpartition(".")[2]
    if kind.swaps_pairs and inner in ("attn_q", "attn_k"):
        heads = config["num_attention_heads"]
        if inner == "attn_k":
            heads = config.get("num_key_value_heads") or heads
        return _Pairs(int(heads))  # type: ignore[call-overload]
    if kind.adds_one and inner.endswith("norm"):
        return _LessOne()
    if inner in kind.transposed and suffix == "weight":
        return _Transposed()
    return None
