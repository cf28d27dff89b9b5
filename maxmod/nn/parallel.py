"""Layers whose weights are divided among the processes of a group: tensor parallelism.

A pair of layers needs one sum: the first is divided by its outputs, the second by its inputs, which
are the outputs that this process has.

Source: M. Shoeybi et al., Megatron-LM, arXiv 1909.08053. The names of the two linear layers are
those of MAX.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np

from maxmod import functional as F
from maxmod.distributed import Group, joined
from maxmod.dtype import DType
from maxmod.errors import ShapeError
from maxmod.nn.embedding import Embedding, expect_indices
from maxmod.nn.initial import initial_normal
from maxmod.nn.linear import Linear
from maxmod.nn.module import Module
from maxmod.nn.quantized_embedding import QuantizedEmbedding
from maxmod.nn.quantized_linear import QuantizedLinear
from maxmod.ops.collective import gathered, summed
from maxmod.tensor import Tensor


def _share(layer: str, what: str, size: int, group: Group) -> int:
    if size % group.size:
        raise ShapeError(
            f"{layer}: {what}: expected a multiple of {group.size}, the number of processes, got "
            f"{size}."
        )
    return size // group.size


class ColumnParallelLinear(Module[[Tensor], Tensor]):
    """y = x @ weight.T + bias, of which each process computes a part of the last axis.

    Args:
        in_dim: Size of the last axis of x, which every process has whole.
        out_dim: Size of the last axis of the whole result.
        bias: Whether to add a bias.
        gather: Whether every process gets the whole result; else only its part.
        group: The processes; those of the group that was entered by default.

    Attributes:
        local: The layer with the rows of the weight that this process has.

    Raises:
        ValueError: If the processes do not divide `out_dim`.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import ColumnParallelLinear
        >>> ColumnParallelLinear(5, 10, gather=True)(Tensor.ones([2, 5])).shape == [2, 10]
        True
    """

    local: Module[[Tensor], Tensor]

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        *,
        bias: bool = True,
        gather: bool = False,
        group: Group | None = None,
    ) -> None:
        group = group or joined()
        rows = _share("ColumnParallelLinear", "out_dim", out_dim, group)
        self._set(Linear(in_dim, rows, bias=bias), out_dim, gather, group)

    def _set(self, local: Module, out_dim: int, gather: bool, group: Group) -> None:
        self.local = local
        self.out_dim = out_dim
        self.gather = gather
        self.size = group.size

    @classmethod
    def gathering(cls, local: Module, out_dim: int, group: Group) -> ColumnParallelLinear:
        """Returns a layer that gathers what a given layer computes in each process.

        Args:
            local: The layer, of equal sizes in all processes; rows beyond `out_dim` are left out.
            out_dim: Size of the last axis of the result.
            group: The processes.

        Returns:
            The layer.
        """
        made = cls.__new__(cls)
        made._set(local, out_dim, True, group)
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Applies the map to the last axis of x.

        Args:
            x: Tensor [..., in_dim], the same in all processes.

        Returns:
            [..., out_dim] if it gathers, else [..., out_dim / size].
        """
        part = self.local(x)
        if not self.gather:
            return part
        whole = gathered(part, self.size, part.rank - 1)
        return whole if whole.sizes[-1] == self.out_dim else whole[..., : self.out_dim]

    def __rich_repr__(self) -> Iterable[object]:
        yield "local", self.local
        yield "out_dim", self.out_dim
        yield "gather", self.gather, False


class RowParallelLinear(Module[[Tensor], Tensor]):
    """y = x @ weight.T + bias, where each process has a part of x and of the columns of the weight.

    The products of all processes are summed, and the bias is added once, after that.

    Args:
        in_dim: Size of the last axis of the whole x, of which each process has a part.
        out_dim: Size of the last axis of the result.
        bias: Whether to add a bias.
        group: The processes; those of the group that was entered by default.

    Attributes:
        local: The layer, without a bias, with the columns of the weight that this process has.
        bias: Tensor [out_dim], the same in all processes; without one the number 0.

    Raises:
        ValueError: If the processes do not divide `in_dim`.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import RowParallelLinear
        >>> RowParallelLinear(5, 10)(Tensor.ones([2, 5])).shape == [2, 10]
        True
    """

    local: Module[[Tensor], Tensor]
    bias: Tensor | Literal[0]

    def __init__(
        self, in_dim: int, out_dim: int, *, bias: bool = True, group: Group | None = None
    ) -> None:
        group = group or joined()
        columns = _share("RowParallelLinear", "in_dim", in_dim, group)
        self.local = Linear(columns, out_dim, bias=False)
        self.bias = initial_normal([out_dim]) if bias else 0
        self.size = group.size

    @classmethod
    def of(cls, layer: Linear | QuantizedLinear, group: Group) -> RowParallelLinear:
        """Returns a layer that sums what a given layer computes in each process.

        Args:
            layer: A `Linear` or `QuantizedLinear` with the columns of this process; it is
                changed: its bias becomes that of the result.
            group: The processes.

        Returns:
            The layer.
        """
        made = cls.__new__(cls)
        made.bias, layer.bias = layer.bias, 0
        made.local = layer
        made.size = group.size
        return made

    def forward(self, x: Tensor) -> Tensor:
        """Applies the map to the last axis of x, which is divided among the processes.

        Args:
            x: Tensor [..., in_dim / size], the part of this process.

        Returns:
            [..., out_dim], the same in all processes.
        """
        total = summed(self.local(x), self.size)
        return total + self.bias if isinstance(self.bias, Tensor) else total

    def __rich_repr__(self) -> Iterable[object]:
        yield "local", self.local
        yield "bias", isinstance(self.bias, Tensor), True


class VocabParallelEmbedding(Module[[Tensor], Tensor]):
    """Looks up vectors of a table whose rows are divided among the processes.

    A process gives zeros for the indices of others, and the sum of all is the result, exactly.

    Args:
        vocab_size: Number of entries. The last processes have fewer, and zeros behind them, where
            it is not a multiple of the number of processes.
        dim: Size of an entry.
        group: The processes; those of the group that was entered by default.

    Attributes:
        local: The table with the entries that this process has.
        first: int64 [], the number of the first of them: data, so that graphs are the same in all
            processes.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod.nn import VocabParallelEmbedding
        >>> tokens = Tensor([3, -1], dtype=DType.int64)
        >>> VocabParallelEmbedding(10, 4)(tokens).shape == [2, 4]
        True
    """

    local: Embedding | QuantizedEmbedding
    first: Tensor

    def __init__(self, vocab_size: int, dim: int, *, group: Group | None = None) -> None:
        group = group or joined()
        self._set(Embedding(-(-vocab_size // group.size), dim=dim), vocab_size, group)

    def _set(self, local: Embedding | QuantizedEmbedding, vocab_size: int, group: Group) -> None:
        self.local = local
        self.vocab_size = vocab_size
        self.size = group.size
        first = np.array(group.rank * int(local.vocab_size), np.int64)
        self.first = Tensor(first, device=local.weight.device)

    @classmethod
    def of(
        cls, table: Embedding | QuantizedEmbedding, vocab_size: int, group: Group
    ) -> VocabParallelEmbedding:
        """Returns a table of the parts that processes have.

        Args:
            table: An `Embedding` or `QuantizedEmbedding` with the entries of this process, as many
                in each.
            vocab_size: Number of entries of all.
            group: The processes.

        Returns:
            The table.
        """
        made = cls.__new__(cls)
        made._set(table, vocab_size, group)
        return made

    def forward(self, indices: Tensor) -> Tensor:
        """Looks up an entry for each index.

        Args:
            indices: Integer tensor of any shape, the same in all processes; negative ones count
                from the end.

        Returns:
            [*indices.shape, dim], the same in all processes.

        Raises:
            TypeError: If indices are not a tensor.
            IndexError: If, on the host, one is not below vocab_size.
        """
        expect_indices(self, indices)
        table = self.local
        rows, vocab = int(table.vocab_size), self.vocab_size
        wide = indices.cast(DType.int64)
        near = F.where(wide < 0, wide + vocab, wide)
        place = near - self.first
        is_here = F.logical_and(place >= 0, place < rows)
        # An index that is nowhere is looked up, and refused, in each process.
        is_nowhere = F.logical_or(near < 0, near >= vocab)
        place = F.where(is_here, place, is_nowhere.cast(DType.int64) * rows)
        found = self.local(place)
        zero = Tensor.full([], 0, dtype=found.dtype, device=found.device)
        return summed(F.where(F.unsqueeze(is_here, -1), found, zero), self.size)

    def __rich_repr__(self) -> Iterable[object]:
        yield "local", self.local
        yield "vocab_size", self.vocab_size
