"""Decoding with slots: a batch of fixed size, in which a sequence that ended gives way to another.

The cache and the sampler keep their memory, so that one bound program (one recorded graph on an
accelerator) serves all sequences. As in any `KVCache`, all sequences end at the same row; a new one
is read alone and copied to the rows before it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from maxmod import functional as F
from maxmod.errors import ModelError
from maxmod.generate.decoding import ROWS, Decodable
from maxmod.generate.kv_cache import KVCache
from maxmod.generate.sampling import Sampling
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.tensor_type import TensorOrType

# The padding of a free slot: its token attends to itself alone, and has position 0.
_FREE = 2**30


class Slots:
    """Continues up to `count` sequences at a time; each is put into a free slot.

    Args:
        model: The model.
        options: How tokens are chosen.
        count: The number of slots.
        length: The initial capacity of the cache in tokens; it grows where sequences need more.
        eager: Run the model op by op instead of compiled.
    """

    def __init__(
        self, model: Decodable, options: Sampling, count: int, length: int, *, eager: bool = False
    ) -> None:
        self._model = model
        self._options = options
        self._eager = eager
        self._padding = [_FREE] * count
        self._used = 0
        self._cache = model.empty_cache(self._padding, _rounded(length))
        self._sampler = model.new_sampler(options, [[0]] * count)
        self._one: KVCache | None = None  # where a new sequence is read
        self._step: Callable[[], Callable[[], list[int]]] | None = None

    @property
    def free(self) -> list[int]:
        """The slots without a sequence."""
        return [slot for slot, padding in enumerate(self._padding) if padding == _FREE]

    def put(self, slot: int, prompt: Sequence[int], stream: int) -> int:
        """Reads a prompt into a free slot.

        Args:
            slot: The slot.
            prompt: At least one token.
            stream: Which stream of random numbers the sequence draws from.

        Returns:
            Its first new token.

        Raises:
            ModelError: If a logit is NaN.
        """
        count = len(prompt)
        one = self._emptied(count)
        sampler = self._model.new_sampler(self._options, [prompt])
        _store(sampler.counters, np.array([stream << 32], np.uint64))
        read = np.array([prompt], np.int64) if count > 1 else None
        token = self._model.start_tokens(one, sampler, read, eager=self._eager)()[0]
        _expect_token(token)
        self._make_room(count)
        self._cache.put(slot, one, count, self._used)
        for mine, new in (
            (self._sampler.tokens, sampler.tokens),
            (self._sampler.seen, sampler.seen),
            (self._sampler.counters, sampler.counters),
        ):
            F.buffer_store_slice(mine, new, [slice(slot, slot + 1), ...])
        self._padding[slot] = self._used - count
        self._write()
        return token

    def end(self, slot: int) -> None:
        """Frees a slot."""
        self._padding[slot] = _FREE
        self._write()

    def next_tokens(self) -> list[int]:
        """Returns the next token of each slot; those of free slots mean nothing.

        Raises:
            ModelError: If a logit is NaN.
        """
        if self._used == int(self._cache.length):
            least = min(self._padding)
            if ROWS <= least < _FREE:
                self._move(-least)
            else:
                self._lengthen(2 * self._used)
        if self._step is None:
            self._step = self._model.stepper(self._cache, self._sampler, eager=self._eager)
        tokens = self._step()()
        self._used += 1
        _expect_token(min(tokens))
        return tokens

    def _emptied(self, count: int) -> KVCache:
        """Returns a cache without tokens for one sequence."""
        if self._one is None or int(self._one.length) < count:
            self._one = self._model.empty_cache([0], _rounded(count))
        _store(self._one.used, np.array(0, np.int64))
        return self._one

    def _make_room(self, count: int) -> None:
        """Makes the rows in use at least `count`."""
        if count > int(self._cache.length):
            self._lengthen(max(count, 2 * int(self._cache.length)))
        if min(self._padding) == _FREE:  # nothing is in use
            self._used = count
        elif count > self._used:
            self._move(count - self._used)

    def _move(self, by: int) -> None:
        """Moves all sequences to rows further on, or further back."""
        first = min(self._padding)
        self._cache.move(first, self._used, first + by)
        self._padding = [old if old == _FREE else old + by for old in self._padding]
        self._used += by
        self._write()

    def _lengthen(self, length: int) -> None:
        self._cache.lengthen(_rounded(length))
        self._step = None

    def _write(self) -> None:
        """Tells the device which rows are in use."""
        _store(self._cache.padding, np.array(self._padding, np.int64))
        _store(self._cache.used, np.array(self._used, np.int64))


def _store(buffer: TensorOrType, values: HostArray) -> None:
    F.buffer_store(buffer, Tensor(values, device=buffer.device))


def _expect_token(token: int) -> None:
    if token < 0:
        raise ModelError("generate: the logits are NaN. Hint: are the weights damaged?")


def _rounded(length: int) -> int:
    return -(-length // ROWS) * ROWS
