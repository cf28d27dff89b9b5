"""`LanguageModel`: a module with all that belongs to it, ready to generate text."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxmod.compiled import CompiledModel
from maxmod.device import DeviceRef
from maxmod.dtype import DType
from maxmod.generate import generate_text
from maxmod.kv_cache import CachedContext, CacheShape, KVCache
from maxmod.nn import Module
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType
from maxmod.text import Tokenizer, open_tokenizer


class LastLogits(Module[[Tensor], Tensor]):
    """A language model that gives the logits of the last position alone, in float32.

    Generation needs no others, and the head is a large part of a small model.

    Args:
        model: A module with `hidden(tokens, context)` and `lm_head(hidden)`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [batch, seq] -> float32 [batch, vocab]"""
        return self.model.lm_head(self.model.hidden(tokens)[:, -1]).cast(DType.float32)


class CachedLogits(Module[[Tensor, KVCache], Tensor]):
    """`LastLogits` of tokens that come after those in a cache, into which they are put as well."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """int64 [batch, seq] -> float32 [batch, vocab]"""
        context = CachedContext(tokens, cache)
        hidden = self.model.hidden(tokens, context)
        context.finish()
        return self.model.lm_head(hidden[:, -1]).cast(DType.float32)


@dataclass(eq=False)
class LanguageModel:
    """A pretrained language model from a folder; made by `load_model`.

    Attributes:
        folder: Where it came from.
        module: int64 tokens [batch, seq] to logits [batch, seq, vocab].
        config: The fields of config.json that the module uses.
        vocab_size: Number of tokens.
        max_positions: The longest sequence.
        cache_shape: What is kept of each token.
        stop: Tokens that end a text.
        device: Where its weights are.
        dtype: What it computes in.
    """

    folder: Path
    module: Module[[Tensor], Tensor]
    config: Any
    vocab_size: int
    max_positions: int
    cache_shape: CacheShape
    stop: frozenset[int]
    device: DeviceRef
    dtype: DType

    def __post_init__(self) -> None:
        self._steps: dict[tuple[bool, bool], CompiledModel] = {}
        self._tokenizer: Tokenizer | None = None

    def forget_compiled(self) -> None:
        """Makes the next use compile again, with the layers and weights that are there then."""
        self._steps.clear()
        vars(self).pop("last_logits", None)

    @property
    def tokens_type(self) -> TensorType:
        """The type to compile the module with: int64 ["batch", "seq"] on its device."""
        return TensorType(DType.int64, ["batch", "seq"], device=self.device)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder.

        Raises:
            ModelError: If there is none, or it needs a package that is not installed.
        """
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self.folder)
        return self._tokenizer

    def stream(self, prompt: str | Sequence[Mapping[str, Any]], **options: Any) -> Iterator[str]:
        """Continues a text, or answers a chat; gives each piece of text as soon as it is certain.

        Args:
            prompt: The text to continue; or the messages of a chat, such as
                `[{"role": "user", "content": "Hello"}]`.
            **options: As for `maxmod.generate.generate_text`: `max_new_tokens`, `temperature`,
                `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`, `stop_strings`, ...

        Returns:
            An iterator of pieces, which never end inside of a character.

        Example:
            >>> from maxmod.models import adder_folder, load_model
            >>> for piece in load_model(adder_folder()).stream("123+456="):
            ...     print(piece)
            5
            7
            9
        """
        return generate_text(self, prompt, **options)

    def generate(self, prompt: str | Sequence[Mapping[str, Any]], **options: Any) -> str:
        """Continues a text, or answers a chat, and returns all of the new text.

        Args:
            prompt: The text to continue, or the messages of a chat; see `stream`.
            **options: As for `stream`.

        Returns:
            The new text.

        Raises:
            ValueError: If the prompt has no tokens or is longer than the model takes.
            ModelError: If the folder has no tokenizer, or no template for a chat.

        Example:
            >>> from maxmod.models import adder_folder, load_model
            >>> load_model(adder_folder()).generate("123+456=")
            '579'
        """
        return "".join(self.stream(prompt, **options))

    @functools.cached_property
    def last_logits(self) -> CompiledModel:
        """The compiled `LastLogits` of the module, for all sizes; made when it is first needed."""
        return LastLogits(self.module).compile(self.tokens_type)

    def next_logits(
        self, tokens: Sequence[Sequence[int]] | np.ndarray[Any, Any], *, eager: bool = False
    ) -> np.ndarray[Any, Any]:
        """Returns the logits after each of some sequences of equal length.

        Args:
            tokens: [batch, seq], at least one token each.
            eager: Run the module op by op instead of compiled.

        Returns:
            float32 [batch, vocab].
        """
        rows = Tensor(np.ascontiguousarray(tokens, dtype=np.int64)).to(self.device)
        run = LastLogits(self.module) if eager else self.last_logits
        return run(rows).to_numpy()

    # ---- with a cache --------------------------------------------------------------------------

    def empty_cache(self, padding: Sequence[int], length: int) -> KVCache:
        """Returns a cache for `next_logits_cached`; see `KVCache.empty`.

        Args:
            padding: For each sequence, how many positions in front of its tokens do not count.
            length: Number of tokens that there is room for.

        Returns:
            The cache, on the device and in the dtype of the model.
        """
        return KVCache.empty(self.cache_shape, padding, length, self.dtype, self.device)

    def step(self, *, batch: int = 1, seq: int = 1) -> CompiledModel:
        """The compiled `CachedLogits` for a batch and a number of new tokens.

        There are at most four, each made when it is first needed: one sequence or several, a prompt
        or one token. Everything else, such as the length of the cache, is known when they run.

        Args:
            batch: Number of sequences.
            seq: Number of new tokens of each.

        Returns:
            The compiled model; it takes tokens and a cache.
        """
        key = (batch == 1, seq == 1)
        if key not in self._steps:
            rows: Any = 1 if batch == 1 else "batch"
            tokens = TensorType(DType.int64, [rows, 1 if seq == 1 else "seq"], self.device)
            cache = KVCache.types(self.cache_shape, rows, self.dtype, self.device)
            name = "decode" if seq == 1 else "prefill"
            self._steps[key] = CachedLogits(self.module).compile(tokens, cache, name=name)
        return self._steps[key]

    def next_logits_cached(
        self, tokens: np.ndarray[Any, Any], cache: KVCache, *, eager: bool = False
    ) -> np.ndarray[Any, Any]:
        """Puts tokens into a cache and returns the logits after the last one of each sequence.

        Args:
            tokens: [batch, seq]; what stands in the padding of the cache does not matter.
            cache: The cache, which is changed; it must have room for the tokens.
            eager: Run the module op by op instead of compiled.

        Returns:
            float32 [batch, vocab].
        """
        batch, seq = tokens.shape
        rows = Tensor(np.ascontiguousarray(tokens, dtype=np.int64)).to(self.device)
        run = CachedLogits(self.module) if eager else self.step(batch=batch, seq=seq)
        return run(rows, cache).to_numpy()
