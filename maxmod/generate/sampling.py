"""Sampling: the next token from its logits, the most likely one or one drawn at random.

It runs on the device of the logits, as part of the compiled step that computes them.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import SupportsFloat

import numpy as np

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, OperandError
from maxmod.op.rules import expect_int
from maxmod.ops.choose import OPTIONS, choose_tokens
from maxmod.ops.collective import of_first
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import BufferType, TensorOrType

# The smallest and the largest positive finite float32.
_MIN, _MAX = float(np.finfo(np.float32).smallest_subnormal), float(np.finfo(np.float32).max)


SEED_BITS = 32  # of a seed that is drawn: short enough to type again


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to choose tokens. The steps are applied in the order listed here.

    Attributes:
        repetition_penalty: Logits of tokens that already occur are divided by it if positive, and
            multiplied by it if negative; above 0, and 1 has no effect.
        temperature: 0 takes the most likely token; above that, tokens are drawn with the
            probabilities softmax(logits / temperature).
        top_k: Keep the k most likely tokens, and any that tie with the last of them; 0 keeps all.
        top_p: Keep the fewest most likely tokens whose probabilities add up to at least this; 1
            keeps all. At least one token is kept.
        min_p: Keep tokens with at least `min_p` times the largest probability; 0 keeps all.
        seed: Seed of the random numbers, modulo 2^64; equal seeds give equal sequences. None, the
            default, draws one.

    Source: repetition penalty: N. S. Keskar et al., CTRL, arXiv 1909.05858; top-p: A. Holtzman et
        al., The Curious Case of Neural Text Degeneration, arXiv 1904.09751; min-p: M. N. Nguyen et
        al., Turning Up the Heat, arXiv 2407.01082. Order and ties follow the logits processors of
        the transformers library.
    """

    repetition_penalty: float = 1.0
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.seed is None:
            object.__setattr__(self, "seed", secrets.randbits(SEED_BITS))
        for name in ("top_k", "seed"):
            object.__setattr__(self, name, expect_int("generate", getattr(self, name), name))
        for name in ("repetition_penalty", "temperature", "top_p", "min_p"):
            object.__setattr__(self, name, _real_number(name, getattr(self, name)))
        penalty, heat = self.repetition_penalty, self.temperature
        _check("repetition_penalty", "a finite float32 above 0", penalty, _MIN <= penalty <= _MAX)
        _check("temperature", "a finite float32, 0 or more", heat, 0 <= heat <= _MAX)
        _check("top_k", "0 or more", self.top_k, self.top_k >= 0)
        _check("top_p", "above 0 and at most 1", self.top_p, 0 < self.top_p <= 1)
        _check("min_p", "0 to 1", self.min_p, 0 <= self.min_p <= 1)
        _check("seed", "0 or more", self.used_seed, self.used_seed >= 0)

    @property
    def used_seed(self) -> int:
        """The seed, given or drawn."""
        assert self.seed is not None
        return self.seed


def _real_number(name: str, value: SupportsFloat | str) -> float:
    if not isinstance(value, str):
        with contextlib.suppress(TypeError, ValueError, OverflowError):
            return float(value)
    got = type(value).__name__
    raise OperandError(f"generate: {name}: expected a number, got {got}.")


def _check(name: str, expected: str, value: float, is_fine: bool) -> None:
    if not is_fine:
        raise ArgumentError(f"generate: {name}: expected {expected}, got {value}.")


@dataclass(eq=False, slots=True)
class Sampler:
    """Chooses the tokens of a batch of sequences on the device of a model, one after another.

    A compiled step takes a sampler of `BufferType`s and changes it in place: the chosen tokens are
    the input of the next step, and the only values that the host ever reads.

    Attributes:
        tokens: int64 [batch, 1], the last token of each sequence; -1 if a logit was NaN.
        seen: bool [batch, vocab], which tokens a sequence already contains.
        counters: uint64 [batch], index of the next random number of each sequence.
        seed: uint64 scalar, seed of the random numbers.
        penalty: float32 scalar, the repetition penalty.
        options: float64 [4]: temperature, top-k, top-p, min-p.
    """

    tokens: TensorOrType
    seen: TensorOrType
    counters: TensorOrType
    seed: TensorOrType
    penalty: TensorOrType
    options: TensorOrType

    @classmethod
    def types(cls, batch: int | str, vocab: int, device: DeviceRef) -> Sampler:
        """The types of a sampler, to compile a step with."""
        return cls(
            tokens=BufferType(DType.int64, [batch, 1], device),
            seen=BufferType(DType.bool, [batch, vocab], device),
            counters=BufferType(DType.uint64, [batch], device),
            seed=BufferType(DType.uint64, [], device),
            penalty=BufferType(DType.float32, [], device),
            options=BufferType(DType.float64, [OPTIONS], device),
        )

    @classmethod
    def start(
        cls, options: Sampling, prompts: Sequence[Sequence[int]], vocab: int, device: DeviceRef
    ) -> Sampler:
        """A sampler for sequences that begin with prompts.

        Each sequence has a separate stream of random numbers, by its index among the prompts.
        """
        seen = np.zeros((len(prompts), vocab), np.bool_)
        for row, prompt in zip(seen, prompts):
            row[list(prompt)] = True
        streams = np.arange(len(prompts), dtype=np.uint64)
        top_k = min(options.top_k, vocab)  # any int is allowed, and not all fit a float
        numbers = (options.temperature, top_k, options.top_p, options.min_p)

        def put(array: HostArray) -> Tensor:
            return Tensor(array, device=device)

        return cls(
            tokens=put(np.array([[prompt[-1]] for prompt in prompts], np.int64)),
            seen=put(seen),
            counters=put(streams << np.uint64(32)),
            seed=put(np.array(options.used_seed % 2**64, np.uint64)),
            penalty=put(np.array(options.repetition_penalty, np.float32)),
            options=put(np.array(numbers, np.float64)),
        )

    def choose(self, logits: Tensor, processes: int = 1) -> None:
        """Chooses and stores the next token of each sequence.

        Args:
            logits: float32 [batch, vocab].
            processes: How many compute these together; all take the tokens of the first one.
        """
        repeated = F.where(logits > 0, logits / self.penalty, logits * self.penalty)
        scores = F.where(self.seen, repeated, logits)
        chosen = choose_tokens(scores, self.options, self.seed, self.counters)
        tokens = F.unsqueeze(of_first(chosen, processes), 1)
        vocabulary = F.arange(0, logits.shape[1], dtype=DType.int64, device=logits.device)
        F.buffer_store(self.seen, F.logical_or(self.seen, vocabulary == tokens))
        F.buffer_store(self.counters, self.counters + 1)
        F.buffer_store(self.tokens, tokens)

    def select(self, sequences: Sequence[int]) -> Sampler:
        """A copy with some of the sequences."""
        chosen = Tensor(np.array(sequences, np.int64), device=self.tokens.device)
        return replace(
            self,
            tokens=F.gather(self.tokens, chosen, axis=0),
            seen=F.gather(self.seen, chosen, axis=0),
            counters=F.gather(self.counters, chosen, axis=0),
        )
