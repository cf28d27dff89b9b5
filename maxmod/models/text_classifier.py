"""`TextClassifier`: labels of texts and of pairs of texts, and the order of texts for a query."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from maxmod.errors import ArgumentError, ModelError
from maxmod.models.labels import Labels
from maxmod.models.ranking import check_ranking, ranked
from maxmod.models.text_inputs import Text, batches, listed_texts, one_text
from maxmod.models.text_model import TextModel, scores_of
from maxmod.values.array import HostArray


@dataclass(eq=False)
class TextClassifier(TextModel):
    """A pretrained classifier of texts or of pairs of texts; made by `load_classifier`.

    Attributes:
        label_rules: The labels, and how logits become scores.
    """

    label_rules: Labels

    @property
    def labels(self) -> list[str]:
        """The names of the labels, in the order of the logits."""
        return list(self.label_rules.names)

    def run_texts(self, texts: Iterable[str]) -> None:
        """Reads texts op by op, one after the other: for `maxmod.quantize(calibration=...)`."""
        self.classify(texts, batch_size=1, truncate=True, eager=True)

    def classify(
        self,
        texts: Iterable[Text],
        *,
        top: int = 5,
        batch_size: int | None = None,
        truncate: bool | None = None,
        eager: bool = False,
    ) -> list[list[tuple[str, float]]]:
        """Returns the most likely labels of each text.

        Args:
            texts: The texts; a pair that the model reads together is a tuple of two.
            top: The number of labels.
            batch_size: How many are computed together at most; by default it is the number of
                their tokens that is limited.
            truncate: What to do with a text that is too long for the model: true cuts it (of a pair
                the longer one first), false refuses it; if it is not given, it is cut and the first
                one of a model is reported by a `MaxmodWarning`.
            eager: Run the module op by op instead of compiled.

        Returns:
            For each text pairs of label and score, the largest score first. Scores are
            probabilities, but the number itself where the folder says that it is a regression.

        Raises:
            ArgumentError: (a ValueError) If texts are not several, one is too long and `truncate`
                is false, or a number is below 1.
            ModelError: (a ValueError) If the folder has no tokenizer.
        """
        if top < 1:
            raise ArgumentError(f"classify: top: expected 1 or more, got {top}.")
        result = []
        for row in self._logits("classify", texts, batch_size, truncate, eager):
            scores = scores_of(row, self.label_rules.scoring)
            best = np.argsort(-scores, kind="stable")[:top]
            result.append([(self.label_rules.names[place], float(scores[place])) for place in best])
        return result

    def logits(
        self,
        texts: Iterable[Text],
        *,
        batch_size: int | None = None,
        truncate: bool | None = None,
        eager: bool = False,
    ) -> HostArray:
        """Returns the logits of all labels of each text; arguments as for `classify`.

        Returns:
            float32 [texts, labels].
        """
        return self._logits("logits", texts, batch_size, truncate, eager)

    def rank(
        self,
        query: str,
        texts: Iterable[str],
        *,
        top: int | None = None,
        batch_size: int | None = None,
        truncate: bool | None = None,
        eager: bool = False,
    ) -> list[tuple[int, float]]:
        """Orders texts by how well they answer a query; for cross-encoders, which have one label.

        Args:
            query: The query, the first text of each pair.
            texts: The texts.
            top: How many to return; all if it is not given.
            batch_size: As for `classify`, like `truncate` and `eager`.
            truncate: As for `classify`.
            eager: As for `classify`.

        Returns:
            Pairs of the place of a text among the texts and its score, the best first. The score is
            what `CrossEncoder.predict` of sentence-transformers returns: a probability, unless the
            folder asks for the number itself.

        Raises:
            ArgumentError: As for `classify`.
            ModelError: If the model has several labels.
        """
        if len(self.labels) != 1:
            raise ModelError(
                f"rank: {self.folder}: expected a model with one label, got {len(self.labels)}. "
                "Hint: classify gives the labels of pairs."
            )
        check_ranking(query, top)
        listed = listed_texts("rank", texts, "str")
        pairs = [(query, one_text("rank", place, text)) for place, text in enumerate(listed)]
        numbers = self._logits("rank", pairs, batch_size, truncate, eager)[:, 0]
        return ranked(scores_of(numbers, self.label_rules.ranking), top)

    def _logits(
        self,
        caller: str,
        texts: Iterable[Text],
        batch_size: int | None,
        truncate: bool | None,
        eager: bool,
    ) -> HostArray:
        encodings = self.inputs.encode(caller, texts, truncate)
        result = np.empty((len(encodings), len(self.labels)), np.float32)
        for batch in batches(caller, encodings, batch_size):
            result[batch.places] = self._run(self._arrays(batch), eager)
        return result
