"""Decoding: prefill, then one token after another for a batch of sequences, with a KV cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from maxmod.errors import ModelError
from maxmod.generate.kv_cache import KVCache
from maxmod.generate.sampling import Sampler, Sampling
from maxmod.values.array import HostArray

# Cache lengths are multiples of this, so that similar lengths run the same bound program.
ROWS = 64


class Decodable(Protocol):
    """The interface that a decoder needs; `LanguageModel` implements it."""

    def empty_cache(self, padding: Sequence[int], length: int) -> KVCache:
        """Returns a cache; see `KVCache.empty`."""
        ...

    def new_sampler(self, options: Sampling, prompts: Sequence[Sequence[int]]) -> Sampler:
        """Returns a sampler; see `Sampler.start`."""
        ...

    def next_tokens(
        self,
        cache: KVCache,
        sampler: Sampler,
        prompts: HostArray | None = None,
        *,
        eager: bool = False,
    ) -> list[int]:
        """Reads prompts, or the last tokens; chooses and returns the next ones."""
        ...


class Decoder:
    """Continues sequences; each token is read once, and its keys and values are cached.

    Args:
        model: The model.
        options: How tokens are chosen.
        prompts: The sequences so far, of at least one token each.
        length: Expected final number of tokens; the initial capacity of the cache, which doubles
            when it is exceeded.
        eager: Run the model op by op instead of compiled.
    """

    def __init__(
        self,
        model: Decodable,
        options: Sampling,
        prompts: Sequence[Sequence[int]],
        *,
        length: int = 0,
        eager: bool = False,
    ) -> None:
        self._model = model
        self._options = options
        self._prompts = prompts
        self._length = length
        self._eager = eager
        self._state: tuple[KVCache, Sampler] | None = None
        self._used = 0

    def next_tokens(self) -> list[int]:
        """Returns the next token of each sequence.

        Raises:
            ModelError: If a logit is NaN.
        """
        if self._state is None:
            tokens = self._read_prompts()
        else:
            cache, sampler = self._state
            self._used += 1
            if self._used > int(cache.length):
                cache.lengthen(_rounded(2 * self._used))
            tokens = self._model.next_tokens(cache, sampler, eager=self._eager)
        if min(tokens) < 0:
            raise ModelError("generate: the logits are NaN. Hint: are the weights damaged?")
        return tokens

    def _read_prompts(self) -> list[int]:
        prompts = self._prompts
        self._used = count = max(map(len, prompts))
        rows = np.zeros((len(prompts), count), np.int64)
        for row, prompt in zip(rows, prompts):
            row[count - len(prompt) :] = prompt
        padding = [count - len(prompt) for prompt in prompts]
        cache = self._model.empty_cache(padding, _rounded(max(self._length, count)))
        sampler = self._model.new_sampler(self._options, prompts)
        self._state = cache, sampler
        # A one-token prompt is the last token, which the sampler already has.
        read = rows if count > 1 else None
        return self._model.next_tokens(cache, sampler, read, eager=self._eager)

    def keep(self, sequences: Sequence[int]) -> None:
        """Keeps only these sequences, by their position in the batch."""
        if self._state is None:
            self._prompts = [self._prompts[sequence] for sequence in sequences]
        else:
            cache, sampler = self._state
            self._state = cache.select(sequences), sampler.select(sequences)


def _rounded(length: int) -> int:
    return -(-length // ROWS) * ROWS
