"""`MaskedModel`: the words in place of masks."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ModelError
from maxmod.generate.special_tokens import read_folder_tokens
from maxmod.models.encoders.heads import WordsAt
from maxmod.models.text_inputs import batches
from maxmod.models.text_model import TextModel, scores_of
from maxmod.nn import Module
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.tensor_type import TensorType

_USUAL = ("[MASK]", "<mask>")


class Word(NamedTuple):
    """A word in place of a mask.

    Attributes:
        text: The text of the token.
        token: Its id.
        score: Its probability.
    """

    text: str
    token: int
    score: float


@dataclass(eq=False)
class MaskedModel(TextModel):
    """A pretrained model of masked words; made by `load_masked_model`."""

    @functools.cached_property
    def mask(self) -> str:
        """The text of the token that stands for a word to find, such as `[MASK]`.

        Raises:
            ModelError: If the tokenizer has none.
        """
        named = read_folder_tokens(self.folder).special.get("mask_token")
        for text in (named,) if named is not None else _USUAL:
            if len(self.tokenizer.encode(text, special=False)) == 1:
                return text
        raise ModelError(
            f"fill: {self.folder}: the tokenizer has no mask: expected the token "
            f"{named or ' or '.join(_USUAL)}."
        )

    @functools.cached_property
    def mask_token(self) -> int:
        """The token that stands for a word to find."""
        return self.tokenizer.encode(self.mask, special=False)[0]

    def _runnable(self) -> Module[..., Tensor]:
        return WordsAt(self.module)

    def _types(self) -> list[TensorType]:
        tokens, lengths, *types = super()._types()
        return [tokens, lengths, TensorType(DType.int64, ["places"], self.device), *types]

    def fill(
        self,
        texts: Iterable[str],
        *,
        top: int = 5,
        batch_size: int | None = None,
        truncate: bool | None = None,
        eager: bool = False,
    ) -> list[list[list[Word]]]:
        """Returns the most likely words in place of each mask.

        Args:
            texts: Texts with the text of `mask` in one place or several.
            top: The number of words.
            batch_size: As for `TextClassifier.classify`.
            truncate: As for `TextClassifier.classify`.
            eager: As for `TextClassifier.classify`.

        Returns:
            For each text, for each of its masks, words with the largest probability first.

        Raises:
            ArgumentError: (a ValueError) If a text has no mask, or a number is below 1.
            ModelError: (a ValueError) If the folder has no tokenizer.
        """
        if top < 1:
            raise ArgumentError(f"fill: top: expected 1 or more, got {top}.")
        encodings = self.inputs.encode("fill", texts, truncate)
        for place, found in enumerate(encodings):
            if self.mask_token not in found.tokens:
                raise ArgumentError(
                    f"fill: text {place} has no mask: expected {self.mask!r} in it, got none."
                )
        result: list[list[list[Word]]] = [[] for _ in encodings]
        for batch in batches("fill", encodings, batch_size):
            rows, columns = np.nonzero(batch.tokens == self.mask_token)
            tokens, lengths, *types = self._arrays(batch)
            places = rows * tokens.shape[1] + columns
            logits = self._run([tokens, lengths, places, *types], eager)
            for row, scores in zip(rows, scores_of(logits, "softmax")):
                result[batch.places[row]].append(self._words(scores, top))
        return result

    def _words(self, scores: HostArray, top: int) -> list[Word]:
        best = np.argsort(-scores, kind="stable")[:top]
        return [
            Word(self.tokenizer.decode([int(token)]), int(token), float(scores[token]))
            for token in best
        ]
