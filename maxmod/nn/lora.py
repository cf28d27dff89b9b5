"""`LoRA`: a linear layer with low-rank additions, of which each row of a batch takes its own.

Source: E. Hu et al., LoRA: Low-Rank Adaptation of Large Language Models, arXiv 2106.09685.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import OperandError, ShapeError
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module, TransparentModule
from maxmod.nn.places import descendants_of
from maxmod.tensor import Tensor
from maxmod.values.tensor_type import TensorType


class LoRASlot:
    """Holds one factor of all adapters of a layer. Not a parameter; its value is set by `set`.

    Args:
        type: The type that the value must have.
    """

    def __init__(self, type: TensorType) -> None:
        self.type = type
        self._value: Tensor | None = None

    def set(self, value: Tensor) -> None:
        """Sets the value, for the calls that follow.

        Raises:
            ValueError: If it is of another type.
        """
        if value.type != self.type:
            raise ShapeError(
                f"LoRASlot.set: expected {self.type.short()}, got {value.type.short()}."
            )
        self._value = value

    def get(self) -> Tensor:
        """Returns the value.

        Raises:
            RuntimeError: If there is none yet.
        """
        if self._value is None:
            raise RuntimeError("LoRA: no adapters were set. Hint: layer.lora_a.set(tensor).")
        return self._value

    def __repr__(self) -> str:
        return f"LoRASlot({self.type.short()})"


class _Batch(NamedTuple):
    """Which adapter each row uses."""

    lora_ids: Tensor
    grouped_offsets: Tensor
    end_idx: Tensor


class LoRA(TransparentModule[[Tensor], Tensor]):
    """y = linear(x) + (x @ A.T) @ B.T, where each row of x takes A and B of its adapter.

    The rows of x [rows, in_dim] lie in groups. `set_lora_batch_info` says which adapter each group
    takes, `lora_a` and `lora_b` hold the adapters, already scaled by alpha / rank. All of these
    are inputs of a model rather than parameters, so the qualified names of the parameters are those
    of the linear layer alone.

    Args:
        module: The linear layer.
        max_num_loras: Number of adapters that there is room for.
        max_lora_rank: Their largest rank; adapters of a smaller one are filled up with zeros.
        max_lora_seq_len: Kept as an attribute; groups may have any number of rows.

    Attributes:
        lora_a: Slot of [max_num_loras, max_lora_rank, in_dim], in the dtype and on the device of
            the weight.
        lora_b: Slot of [max_num_loras, out_dim, max_lora_rank].

    Raises:
        TypeError: If `module` is not a `Linear`.
        RuntimeError: When called without adapters or without the information of the batch.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod.nn import Linear, LoRA
        >>> layer = LoRA(Linear(4, 3), max_num_loras=2, max_lora_rank=1, max_lora_seq_len=16)
        >>> layer.lora_a.set(Tensor.ones([2, 1, 4]))
        >>> layer.lora_b.set(Tensor.ones([2, 3, 1]))
        >>> ids, starts, end = ([1], [0, 2], [2])  # one group of two rows, with adapter 1
        >>> layer.set_lora_batch_info(*(Tensor(x, dtype=DType.int64) for x in (ids, starts, end)))
        >>> x = Tensor.ones([2, 4])
        >>> (layer(x) - layer.module(x)).to_numpy().round(3).tolist()
        [[4.0, 4.0, 4.0], [4.0, 4.0, 4.0]]
    """

    # The wrapped layer drops its name instead, so that names are the same as without the wrapper.
    name_transparent = False

    def __init__(
        self,
        module: Linear,
        *,
        max_num_loras: int,
        max_lora_rank: int,
        max_lora_seq_len: int,
    ) -> None:
        if not isinstance(module, Linear):
            raise OperandError(f"LoRA: module: expected a Linear, got {type(module).__name__}.")
        module.name_transparent = True  # type: ignore[attr-defined]
        self.module = module
        self.max_lora_rank = max_lora_rank
        self.max_lora_seq_len = max_lora_seq_len
        like = module.weight.type
        out_dim, in_dim = like.sizes
        self.lora_a = LoRASlot(like.with_sizes((max_num_loras, max_lora_rank, in_dim)))
        self.lora_b = LoRASlot(like.with_sizes((max_num_loras, out_dim, max_lora_rank)))
        self._batch: _Batch | None = None

    def __rich_repr__(self) -> Iterable[object]:
        yield None, self.module
        yield "max_num_loras", int(self.lora_a.type.shape[0])
        yield "max_lora_rank", self.max_lora_rank
        yield "max_lora_seq_len", self.max_lora_seq_len

    def set_lora_batch_info(
        self, lora_ids: Tensor, grouped_offsets: Tensor, end_idx: Tensor
    ) -> None:
        """Sets which adapter each row uses, for the calls that follow.

        Args:
            lora_ids: Integers [groups]: the adapter of each group; -1 for none.
            grouped_offsets: Integers [groups + 1]: the first row of each group, and the end.
            end_idx: One integer: rows from there on use no adapter.
        """
        self._batch = _Batch(lora_ids, grouped_offsets, end_idx)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the layer and the adapters.

        Args:
            x: Tensor [rows, in_dim].

        Returns:
            [rows, out_dim] in the promoted dtype.

        Raises:
            ValueError: If the rank is not 2.
            RuntimeError: If no adapters or no batch information were set.
        """
        if self._batch is None:
            raise RuntimeError("LoRA: call set_lora_batch_info(...) first.")
        if x.rank != 2:
            raise ShapeError(f"LoRA: expected x [rows, in_dim], got {x.type.short()}.")
        result = self.module(x)
        lora_a, lora_b = self.lora_a.get(), self.lora_b.get()
        adapters = _adapter_of_rows(x, self._batch)
        for index in range(int(lora_a.shape[0])):  # few adapters, so each multiplies all rows
            addition = (x @ lora_a[index].T) @ lora_b[index].T
            chosen = F.unsqueeze(F.equal(adapters, index), -1)
            result = F.where(chosen, result + addition, result)
        return result


def _adapter_of_rows(x: Tensor, batch: _Batch) -> Tensor:
    """Returns the adapter of each row, -1 for none: int64 [rows]."""
    ids, starts, end = (part.to(x.device).cast(DType.int64) for part in batch)
    rows = Tensor.arange(x.shape[0], dtype=DType.int64, device=x.device)
    row = rows.unsqueeze(-1)
    first, stop = (F.rebind(bound, ids.shape) for bound in (starts[:-1], starts[1:]))
    inside = F.logical_and(row >= first, row < stop)  # [rows, groups]
    found = F.where(inside, ids + 1, 0).sum(-1).squeeze(-1)  # 0 outside of all groups
    return F.where(rows < end.reshape([1]), found, 0) - 1


def lora_layers(model: Module) -> Iterator[tuple[str, LoRA]]:
    """Iterates over the `LoRA` layers of a model.

    Args:
        model: The module that holds them.

    Returns:
        An iterator of (qualified name, layer).

    Example:
        >>> from maxmod.nn import Linear, LoRA, Sequential, lora_layers
        >>> adapted = LoRA(Linear(4, 3), max_num_loras=2, max_lora_rank=1, max_lora_seq_len=16)
        >>> [name for name, _ in lora_layers(Sequential(Linear(4, 4), adapted))]
        ['1']
    """
    for name, _, module in descendants_of(model, searched=True):
        if isinstance(module, LoRA):
            yield name, module


def lora_parameters(model: Module) -> Iterator[tuple[str, LoRASlot]]:
    """Iterates over the slots of the adapters of a model, two for each layer.

    The types of the slots are the types of the inputs that fill them.

    Args:
        model: The module that holds the layers.

    Returns:
        An iterator of (qualified name, slot).

    Example:
        >>> from maxmod.nn import Linear, LoRA, Sequential, lora_parameters
        >>> adapted = LoRA(Linear(4, 3), max_num_loras=2, max_lora_rank=1, max_lora_seq_len=16)
        >>> [(name, slot.type.shape) for name, slot in lora_parameters(Sequential(adapted))]
        [('0.lora_a', [Dim(2), Dim(1), Dim(4)]), ('0.lora_b', [Dim(2), Dim(3), Dim(1)])]
    """
    for name, layer in lora_layers(model):
        yield f"{name}.lora_a", layer.lora_a
        yield f"{name}.lora_b", layer.lora_b
