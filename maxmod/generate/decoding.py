"""Decoding: prefill, then one token after another for a batch of sequences, with a KV cache.

Where work is queued, a step is started before the tokens of the step before it are read: an
accelerator needs nothing of the host in between, and never waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

    def start_tokens(
        self,
        cache: KVCache,
        sampler: Sampler,
        prompts: HostArray | None = None,
        *,
        eager: bool = False,
    ) -> Callable[[], list[int]]:
        """Queues reading prompts, or the last tokens; returns what waits for the next ones."""
        ...

    def stepper(
        self, cache: KVCache, sampler: Sampler, *, eager: bool = False
    ) -> Callable[[], Callable[[], list[int]]]:
        """Returns what queues a step without prompts, again and again, as `start_tokens` does."""
        ...

    @property
    def runs_ahead(self) -> bool:
        """True if a step may be queued before the last one is read."""
        ...


class Decoder:
    """Continues sequences; each token is read once, and its keys and values are cached.

    Args:
        model: The model.
        options: How tokens are chosen.
        prompts: The sequences so far, of at least one token each.
        length: Expected final number of tokens; the initial capacity of the cache, which doubles
            when it is exceeded.
        steps: The number of times that tokens will be asked for, if that is known; none is started
            after them.
        eager: Run the model op by op instead of compiled.
    """

    def __init__(
        self,
        model: Decodable,
        options: Sampling,
        prompts: Sequence[Sequence[int]],
        *,
        length: int = 0,
        steps: int | None = None,
        eager: bool = False,
    ) -> None:
        self._model = model
        self._options = options
        self._prompts = prompts
        self._length = length
        self._eager = eager
        self._state: tuple[KVCache, Sampler] | None = None
        self._used = 0
        self._steps_left = steps
        self._step: Callable[[], Callable[[], list[int]]] | None = None
        self._ahead: Callable[[], list[int]] | None = None  # a step that was started early

    def next_tokens(self) -> list[int]:
        """Returns the next token of each sequence.

        Raises:
            ModelError: If a logit is NaN.
        """
        waiting = self._ahead or self._start()
        self._ahead = self._start() if self._may_run_ahead() else None
        tokens = waiting()
        if min(tokens) < 0:
            raise ModelError("generate: the logits are NaN. Hint: are the weights damaged?")
        return tokens

    def _start(self) -> Callable[[], list[int]]:
        """Starts the next step."""
        if self._steps_left is not None:
            self._steps_left -= 1
        if self._state is None:
            return self._read_prompts()
        cache, sampler = self._state
        self._used += 1
        if self._used > int(cache.length):
            cache.lengthen(_rounded(2 * self._used))
            self._step = None
        if self._step is None:
            self._step = self._model.stepper(cache, sampler, eager=self._eager)
        return self._step()

    def _may_run_ahead(self) -> bool:
        """True if another step can be queued, after the first that reads no prompt: that one may
        have to be compiled, and the first token should not wait for it.
        """
        if self._step is None or self._state is None or self._eager or not self._model.runs_ahead:
            return False
        has_more = self._steps_left is None or self._steps_left > 0
        return has_more and self._used < int(self._state[0].length)

    def _read_prompts(self) -> Callable[[], list[int]]:
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
        return self._model.start_tokens(cache, sampler, read, eager=self._eager)

    def keep(self, sequences: Sequence[int]) -> None:
        """Keeps only these sequences, by their position in the batch."""
        if self._state is None:
            self._prompts = [self._prompts[sequence] for sequence in sequences]
        else:
            cache, sampler = self._state
            self._state = cache.select(sequences), sampler.select(sequences)
            self._step = None
        ahead = self._ahead
        if ahead is not None:
            self._ahead = lambda: [tokens[row] for tokens in [ahead()] for row in sequences]


def _rounded(length: int) -> int:
    return -(-length // ROWS) * ROWS
