"""Texts of different lengths in one batch without padding: their tokens lie one after another.

Padding would take time like any other token: for 64 sentences of 5 to 42 tokens, in batches of 32
sorted by length, it was 30 % of all tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray


@dataclass(frozen=True, slots=True)
class Packing:
    """Which of all tokens belong together.

    Attributes:
        starts: int64 [tokens]: for each token, the first token of its text.
        ends: int64 [tokens]: for each token, the one behind the last token of its text.
        places: int64 [batch, seq]: which of all tokens each text has at a position; behind its end
            the last one, so that no text depends on another one.
    """

    starts: Tensor
    ends: Tensor
    places: Tensor

    def positions(self) -> Tensor:
        """The position of each token in its text: int64 [tokens]."""
        return self._numbers() - self.starts

    def mask(self) -> Tensor:
        """Which tokens (columns) are in the text of a token (rows): bool [tokens, tokens]."""
        numbers = self._numbers()
        return (numbers >= F.unsqueeze(self.starts, 1)) & (numbers < F.unsqueeze(self.ends, 1))

    def unpacked(self, x: Tensor) -> Tensor:
        """[1, tokens, width] -> [batch, seq, width]"""
        return F.gather(F.squeeze(x, 0), self.places, axis=0)

    def _numbers(self) -> Tensor:
        count, device = self.starts.shape[0], self.starts.device
        return F.arange(0, count, dtype=DType.int64, device=device)


def pack(texts: Sequence[Sequence[int]]) -> tuple[HostArray, ...]:
    """Puts the tokens of texts one after another.

    Args:
        texts: The token ids of each text; none is empty.

    Returns:
        int64 tokens [1, tokens] and the length of each text [batch], then starts, ends and places
        as in `Packing`.
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    ends = np.cumsum(lengths)
    starts = ends - lengths
    tokens = np.fromiter(chain.from_iterable(texts), np.int64, int(ends[-1]))
    places = np.minimum(starts[:, None] + np.arange(lengths.max()), ends[:, None] - 1)
    return tokens[None], lengths, starts.repeat(lengths), ends.repeat(lengths), places


def pad(texts: Sequence[Sequence[int]]) -> tuple[HostArray, HostArray]:
    """Fills texts up with 0 to one length.

    Args:
        texts: The token ids of each text; none is empty.

    Returns:
        int64 tokens [batch, seq], and the length of each text [batch].
    """
    lengths = np.array([len(text) for text in texts], np.int64)
    tokens = np.zeros((len(texts), lengths.max()), np.int64)
    for line, text in zip(tokens, texts):
        line[: len(text)] = text
    return tokens, lengths
