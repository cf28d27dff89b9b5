"""`LanguageModel`: a module with all that belongs to it, ready to generate text."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxmod.compiled import CompiledModel
from maxmod.device import DeviceRef
from maxmod.dtype import DType
from maxmod.nn import Module
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType
from maxmod.text import Tokenizer, open_tokenizer


class LastLogits(Module[[Tensor], Tensor]):
    """A language model that gives the logits of the last position alone, in float32.

    Generation needs no others, and the head is a large part of a small model.

    Args:
        model: A module with `hidden(tokens)` and `lm_head(hidden)`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [batch, seq] -> float32 [batch, vocab]"""
        return self.model.lm_head(self.model.hidden(tokens)[:, -1]).cast(DType.float32)


@dataclass(eq=False)
class LanguageModel:
    """A pretrained language model from a folder; made by `load_model`.

    Attributes:
        folder: Where it came from.
        module: int64 tokens [batch, seq] to logits [batch, seq, vocab].
        config: The fields of config.json that the module uses.
        vocab_size: Number of tokens.
        max_positions: The longest sequence.
        stop: Tokens that end a text.
        device: Where its weights are.
        dtype: What it computes in.
    """

    folder: Path
    module: Module[[Tensor], Tensor]
    config: Any
    vocab_size: int
    max_positions: int
    stop: frozenset[int]
    device: DeviceRef
    dtype: DType

    @property
    def tokens_type(self) -> TensorType:
        """The type to compile the module with: int64 ["batch", "seq"] on its device."""
        return TensorType(DType.int64, ["batch", "seq"], device=self.device)

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder.

        Raises:
            ModelError: If there is none, or it needs a package that is not installed.
        """
        return open_tokenizer(self.folder)

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
