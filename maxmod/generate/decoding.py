"""Decoding: the tokens of several texts, one after another, with a cache of keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from maxmod.errors import ModelError
from maxmod.generate.kv_cache import KVCache
from maxmod.generate.sampling import Sampler, Sampling

# The cache has a multiple of so many rows, so that similar lengths run the same program.
ROWS = 64


class Decodable(Protocol):
    """What a decoder needs of a model; a `LanguageModel` has it."""

    def empty_cache(self, padding: Sequence[int], length: int) -> KVCache:
        """Returns a cache; see `KVCache.empty`."""
        ...

    def new_sampler(self, options: Sampling, prompts: Sequence[Sequence[int]]) -> Sampler:
        """Returns a sampler; see `Sampler.start`."""
        ...

    def next_tokens(
        self, cache: KVCache, sampler: Sampler, prompts: Any = None, *, eager: bool = False
    ) -> list[int]:
        """Reads prompts, or the last tokens; chooses and returns the next ones."""
        ...


class Decoder:
    """Continues texts; each token is read once, and what the model needs of it is kept.

    Args:
        model: The model.
        options: How tokens are chosen.
        prompts: The texts so far, of at least one token each.
        length: How many tokens a text is expected to have in the end; the cache is made for that,
            and made anew with twice the room if there are more.
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
        """Returns the next token of each text.

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
        # A prompt of one token is the last token, which the sampler has.
        read = rows if count > 1 else None
        return self._model.next_tokens(cache, sampler, read, eager=self._eager)

    def keep(self, texts: Sequence[int]) -> None:
        """Goes on with some of the texts alone."""
        if self._state is None:
            self._prompts = [self._prompts[text] for text in texts]
        else:
            cache, sampler = self._state
            self._state = cache.select(texts), sampler.select(texts)


def _rounded(length: int) -> int:
    return -(-length // ROWS) * ROWS
