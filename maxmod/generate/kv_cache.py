"""The KV cache of a decoder, and which keys new tokens attend to.

A model asks a `Context` three things: the positions of its tokens, which keys each of them attends
to, and all keys and values of a layer. `WholeContext` answers for a sequence that is read at once,
`CachedContext` for tokens that follow others, so that a model is written once.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ShapeError
from maxmod.tensor import Tensor
from maxmod.values.device import DeviceRef
from maxmod.values.dim import Dim
from maxmod.values.tensor_type import BufferType, TensorOrType


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Size of the cache per token: `heads` keys and values of `head_dim` for each layer."""

    layers: int
    heads: int
    head_dim: int


@dataclass(eq=False, slots=True)
class KVCache:
    """Keys and values of a batch of sequences, in buffers of a fixed length.

    All sequences end at the same row, so that one store serves a batch; shorter ones start with
    padding rows. A compiled step takes a cache of `BufferType`s and changes it in place.

    Attributes:
        keys: For each layer [batch, heads, length, head_dim].
        values: The same.
        used: int64 scalar, the number of rows in use.
        padding: int64 [batch], the number of padding rows at the start.
    """

    keys: list[TensorOrType]
    values: list[TensorOrType]
    used: TensorOrType
    padding: TensorOrType

    @classmethod
    def types(cls, shape: CacheShape, batch: int | str, dtype: DType, device: DeviceRef) -> KVCache:
        """The types of a cache of any length, to compile a step with."""
        size = [batch, shape.heads, "length", shape.head_dim]
        rows = BufferType(dtype, size, device)
        return cls(
            keys=[rows] * shape.layers,
            values=[rows] * shape.layers,
            used=BufferType(DType.int64, [], device),
            padding=BufferType(DType.int64, [batch], device),
        )

    @classmethod
    def empty(
        cls,
        shape: CacheShape,
        padding: Sequence[int],
        length: int,
        dtype: DType,
        device: DeviceRef,
    ) -> KVCache:
        """A cache of `length` rows for `len(padding)` sequences."""
        size = [len(padding), shape.heads, length, shape.head_dim]
        made = [
            Tensor.zeros(size, dtype=dtype, device=device) for _ in range(2 * shape.layers)
        ]  # zeros, since masked rows are still multiplied by 0, and 0 * NaN is NaN
        return cls(
            keys=made[: shape.layers],
            values=made[shape.layers :],
            used=Tensor.zeros([], dtype=DType.int64, device=device),
            padding=Tensor(np.array(padding, np.int64), device=device),
        )

    @property
    def length(self) -> Dim:
        """The number of rows."""
        return self.keys[0].shape[2]

    def lengthen(self, length: int) -> None:
        """Grows the cache, one buffer at a time, so that only one exists twice.

        Programs of a compiled step that were bound to the shorter buffers stay valid for them.
        """
        more = [0, 0, 0, 0, 0, length - int(self.length), 0, 0]
        for layer in range(len(self.keys)):
            self.keys[layer] = F.pad(self.keys[layer], more)
            self.values[layer] = F.pad(self.values[layer], more)

    def select(self, sequences: Sequence[int]) -> KVCache:
        """A copy with some of the sequences."""
        chosen = Tensor(np.array(sequences, np.int64), device=self.used.device)
        return KVCache(
            keys=[F.gather(rows, chosen, axis=0) for rows in self.keys],
            values=[F.gather(rows, chosen, axis=0) for rows in self.values],
            used=self.used * 1,  # a copy
            padding=F.gather(self.padding, chosen, axis=0),
        )

    def put(self, sequence: int, one: KVCache, count: int, used: int) -> None:
        """Copies the first rows of a cache of one sequence to the rows before `used`.

        The memory stays the same, and so do the other sequences; `padding` is left as it is.

        Args:
            sequence: Which sequence is replaced.
            one: A cache of one sequence without padding.
            count: The number of its rows.
            used: The number of rows in use here; at least `count`.
        """
        place = [slice(sequence, sequence + 1), slice(None), slice(used - count, used)]
        for mine, new in zip([*self.keys, *self.values], [*one.keys, *one.values]):
            F.buffer_store_slice(mine, new[:, :, :count], place)

    def move(self, first: int, end: int, to: int) -> None:
        """Moves rows first to end of all sequences, one buffer at a time, in the same memory.

        Args:
            first: The first row.
            end: The row after the last.
            to: Where the first row goes.
        """
        place = [slice(None), slice(None), slice(to, to + end - first)]
        for rows in [*self.keys, *self.values]:
            F.buffer_store_slice(rows, rows[:, :, first:end] * 1, place)  # a copy: they overlap


class Context(abc.ABC):
    """The positions of the tokens of a call, and the keys that they attend to.

    Attributes:
        positions: int64 [seq] or [batch, seq], counted from the first token of each sequence.
    """

    positions: Tensor

    @abc.abstractmethod
    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Adds keys and values [batch, heads, seq, dim] of the tokens to those of a layer.

        Returns:
            All keys and values of the layer, [batch, heads, length, dim].
        """

    @abc.abstractmethod
    def mask(self, window: int | None = None) -> Tensor:
        """Which keys a token attends to: its own and those before (causal).

        Args:
            window: Only the last `window` of them.

        Returns:
            bool, broadcast to [batch, heads, seq, length].
        """


class WholeContext(Context):
    """Sequences of equal length that are read at once, without a cache."""

    def __init__(self, tokens: Tensor) -> None:
        _expect_rows(tokens)
        self.positions = F.arange(0, tokens.shape[1], dtype=DType.int64, device=tokens.device)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns its arguments."""
        return keys, values

    def mask(self, window: int | None = None) -> Tensor:
        """bool [seq, seq]"""
        return _causal(F.unsqueeze(self.positions, 1), self.positions, window)


class CachedContext(Context):
    """Tokens that follow those in a cache, and are added to it."""

    def __init__(self, tokens: Tensor, cache: KVCache) -> None:
        _expect_rows(tokens)
        self._cache = cache
        self._count = tokens.shape[1]
        steps = F.arange(0, self._count, dtype=DType.int64, device=tokens.device)
        self._rows = steps + cache.used
        # Padding rows have no position; 0 is valid in every table.
        self.positions = F.elementwise_max(self._rows - F.unsqueeze(cache.padding, 1), 0)

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Stores keys and values in the cache; returns the whole cache of the layer."""
        rows = (slice(self._cache.used, None), self._count)
        for buffer, new in ((self._cache.keys[layer], keys), (self._cache.values[layer], values)):
            F.buffer_store_slice(buffer, new, [slice(None), slice(None), rows])
        return self._cache.keys[layer], self._cache.values[layer]

    def mask(self, window: int | None = None) -> Tensor:
        """bool [batch, 1, seq, length]"""
        length = self._cache.length
        keys = F.arange(0, length, dtype=DType.int64, device=self._rows.device)
        queries = F.unsqueeze(self._rows, 1)
        # A padding row attends to itself: a softmax over no keys would be NaN.
        first = F.elementwise_min(self._cache.padding.reshape([-1, 1, 1, 1]), queries)
        return F.logical_and(_causal(queries, keys, window), keys >= first)

    def finish(self) -> None:
        """Counts the tokens as read; to be called last."""
        used = self._cache.used
        count = Tensor.full([], self._count, dtype=DType.int64, device=used.device)
        F.buffer_store(used, used + count)


def _expect_rows(tokens: Tensor) -> None:
    if tokens.rank != 2:
        raise ShapeError(f"tokens: expected int64[batch,seq], got {tokens.type.short()}.")


def _causal(queries: Tensor, keys: Tensor, window: int | None) -> Tensor:
    seen = keys <= queries
    return seen if window is None else F.logical_and(seen, keys > queries - window)
