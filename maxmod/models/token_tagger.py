"""`TokenTagger`: the parts of texts that have a label, such as names of people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from maxmod.errors import ArgumentError
from maxmod.generate.text import Encoding
from maxmod.models.labels import Labels
from maxmod.models.text_inputs import batches, listed_texts, one_text
from maxmod.models.text_model import TextModel, scores_of
from maxmod.values.array import HostArray


class Tag(NamedTuple):
    """A part of a text with a label.

    Attributes:
        label: The label, without the prefix `B-` or `I-`.
        text: The part of the text.
        start: Where it starts in the text, in characters.
        end: Where it ends.
        score: The mean probability of its tokens.
    """

    label: str
    text: str
    start: int
    end: int
    score: float


@dataclass(eq=False)
class TokenTagger(TextModel):
    """A pretrained model of labels of tokens, such as names of people; made by `load_tagger`.

    Attributes:
        label_rules: The labels.
    """

    label_rules: Labels

    @property
    def labels(self) -> list[str]:
        """The names of the labels, in the order of the logits."""
        return list(self.label_rules.names)

    def tag(
        self,
        texts: Iterable[str],
        *,
        merge: str = "simple",
        ignore: Sequence[str] = ("O",),
        batch_size: int | None = None,
        truncate: bool | None = None,
        eager: bool = False,
    ) -> list[list[Tag]]:
        """Returns the parts of each text that have a label.

        Args:
            texts: The texts.
            merge: Which tokens make a part: `"none"` each one; `"simple"` neighbours with one
                label, where `B-` begins another part; `"first"` the same, with all tokens of a word
                labelled as its first. The names are those of the pipeline of transformers.
            ignore: Labels to leave out, as the model names them.
            batch_size: As for `TextClassifier.classify`.
            truncate: As for `TextClassifier.classify`.
            eager: As for `TextClassifier.classify`.

        Returns:
            For each text its parts in their order.

        Raises:
            ArgumentError: (a ValueError) If texts are not several str, `merge` is unknown, or
                batch_size is below 1.
            ModelError: (a ValueError) If the folder has no tokenizer.
        """
        if merge not in ("none", "simple", "first"):
            raise ArgumentError(f"tag: merge: expected none, simple or first, got {merge!r:.60}.")
        listed = listed_texts("tag", texts, "str")
        given = [one_text("tag", place, text) for place, text in enumerate(listed)]
        encodings = self.inputs.encode("tag", given, truncate)
        result: list[list[Tag]] = [[] for _ in given]
        for batch in batches("tag", encodings, batch_size):
            logits = self._run(self._arrays(batch), eager)
            for place, row in zip(batch.places, logits):
                scores = scores_of(row, "softmax")
                result[place] = self._tags(given[place], encodings[place], scores, merge, ignore)
        return result

    def _tags(
        self, text: str, found: Encoding, scores: HostArray, merge: str, ignore: Sequence[str]
    ) -> list[Tag]:
        groups: list[list[_Piece]] = []
        for piece in self._pieces(found, scores, by_word=merge == "first"):
            if merge == "none" or not groups or not _continues(groups[-1][-1].label, piece.label):
                groups.append([])
            groups[-1].append(piece)
        kept = [group for group in groups if group[0].label not in ignore]
        return [_tag_of(text, group, _bare if merge != "none" else str) for group in kept]

    def _pieces(self, found: Encoding, scores: HostArray, by_word: bool) -> list[_Piece]:
        """Returns the tokens with their labels, or the words with those of their first tokens."""
        pieces: list[_Piece] = []
        last: int | None = None
        for at, span in enumerate(found.spans):
            if span is None:
                continue
            if by_word and pieces and found.words[at] == last:
                pieces[-1] = pieces[-1]._replace(end=span[1])
                continue
            best, last = int(scores[at].argmax()), found.words[at]
            score = float(scores[at][best])
            pieces.append(_Piece(self.label_rules.names[best], *span, score))
        return pieces


class _Piece(NamedTuple):
    label: str
    start: int
    end: int
    score: float


def _continues(before: str, label: str) -> bool:
    return not label.startswith("B-") and _bare(before) == _bare(label)


def _bare(label: str) -> str:
    return label[2:] if label.startswith(("B-", "I-")) else label


def _tag_of(text: str, group: Sequence[_Piece], shown: Callable[[str], str]) -> Tag:
    start, end = group[0].start, group[-1].end
    score = float(np.mean([piece.score for piece in group]))
    return Tag(shown(group[0].label), text[start:end], start, end, score)
