"""Decoders: logits of sequences that grow, with a cache of keys and values or without one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from maxmod.errors import ArgumentError
from maxmod.kv_cache import KVCache

Array = np.ndarray[Any, Any]

# The cache has a multiple of so many rows, so that similar lengths run the same program.
ROWS = 64


class Decodable(Protocol):
    """What decoders need of a model; a `LanguageModel` has it."""

    def empty_cache(self, padding: Sequence[int], length: int) -> KVCache:
        """Returns a cache; see `KVCache.empty`."""
        ...

    def next_logits(self, tokens: Any, *, eager: bool = False) -> Array:
        """Returns the logits after each of some sequences of equal length."""
        ...

    def next_logits_cached(self, tokens: Array, cache: KVCache, *, eager: bool = False) -> Array:
        """Puts tokens into a cache; returns the logits after the last one of each sequence."""
        ...


class Decoder(Protocol):
    """Computes logits for some sequences that grow together."""

    def feed(self, rows: Sequence[Sequence[int]]) -> Array:
        """Appends tokens to each sequence and returns the logits after the last one.

        Args:
            rows: For each sequence at least one token. They may differ in number at first only.

        Returns:
            float32 [sequences, vocab].
        """
        ...

    def keep(self, sequences: Sequence[int]) -> None:
        """Goes on with some of the sequences alone."""
        ...


class RecomputingDecoder:
    """Runs the model on each whole sequence each time: slow, and a reference for other decoders.

    Args:
        model: The model.
        eager: Run it op by op instead of compiled.
    """

    def __init__(self, model: Decodable, *, eager: bool = False) -> None:
        self._model = model
        self._eager = eager
        self._rows: list[list[int]] = []

    def feed(self, rows: Sequence[Sequence[int]]) -> Array:
        """See `Decoder`."""
        self._rows = [[*old, *new] for old, new in zip(self._rows or [[] for _ in rows], rows)]
        found = [self._model.next_logits([row], eager=self._eager)[0] for row in self._rows]
        return np.stack(found)

    def keep(self, sequences: Sequence[int]) -> None:
        """See `Decoder`."""
        self._rows = [self._rows[sequence] for sequence in sequences]


class CachedDecoder:
    """Reads each token once and keeps what the model needs of it.

    Args:
        model: The model.
        length: How many tokens a sequence is expected to have in the end; the cache is made for
            that, and made anew with twice the room if there are more.
        eager: Run the model op by op instead of compiled.
    """

    def __init__(self, model: Decodable, *, length: int = 0, eager: bool = False) -> None:
        self._model = model
        self._length = length
        self._eager = eager
        self._cache: KVCache | None = None
        self._used = 0

    def feed(self, rows: Sequence[Sequence[int]]) -> Array:
        """See `Decoder`."""
        count = max(map(len, rows))
        padding = [count - len(row) for row in rows]
        if self._cache is None:
            length = _rounded(max(self._length, count))
            self._cache = self._model.empty_cache(padding, length)
        elif any(padding):
            raise ArgumentError("decoder: expected equally many tokens for each sequence.")
        self._used += count
        if self._used > int(self._cache.length):
            self._cache.lengthen(_rounded(2 * self._used))
        tokens = np.zeros((len(rows), count), np.int64)
        for line, row in zip(tokens, rows):
            line[count - len(row) :] = row
        return self._model.next_logits_cached(tokens, self._cache, eager=self._eager)

    def keep(self, sequences: Sequence[int]) -> None:
        """See `Decoder`."""
        if self._cache is not None:
            self._cache = self._cache.select(sequences)


def _rounded(length: int) -> int:
    return -(-length // ROWS) * ROWS
