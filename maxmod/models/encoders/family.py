"""`Family`: how the folders of one kind of encoder become modules, with or without a head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from maxmod.models.encoders.heads import (
    SequenceHead,
    TokenHead,
    WithHead,
    WithWordHead,
    WordHead,
)
from maxmod.nn import Module
from maxmod.tensor.like import StateLike
from maxmod.weights import Weights, add_prefix, drop, merge, rename, select, split, strip_prefix

# What a head makes of the vectors of the tokens: labels of the text, labels of each token, or the
# words in place of masked ones.
TASKS = ("sequence", "tokens", "words")

# Numbers that older versions of transformers saved; they follow from config.json.
_NUMBERS = ("embeddings.position_ids", "embeddings.token_type_ids")


@dataclass(frozen=True, slots=True)
class Head:
    """A head of a family.

    Attributes:
        names: Patterns of the names of its weights in a folder, with those of its module.
        make: Makes the module of a configuration and a number of labels.
    """

    names: Mapping[str, str]
    make: Callable[[Any, int], Module]


def labels_of_texts(names: Mapping[str, str], activation: str) -> Head:
    """A head with a map, an activation and another map of the first token of a text."""

    def make(config: Any, labels: int) -> SequenceHead:
        return SequenceHead(config.hidden_size, labels, activation)

    return Head(names, make)


def labels_of_tokens() -> Head:
    """A head with one map of each token."""
    return Head(OUT, lambda config, labels: TokenHead(config.hidden_size, labels))


def masked_words(names: Mapping[str, str], activation: str | None = None) -> Head:
    """A head of masked words; its activation is that of the blocks if it is not given."""

    def make(config: Any, _: int) -> WordHead:
        return WordHead(config, activation or config.hidden_act)

    return Head(names, make)


# What most families call the weights of their heads.
OUT = {"classifier.*": "out.*"}
POOLER_AND_OUT = {"pooler.dense.*": "dense.*", **OUT}
DENSE_AND_OUT = {"classifier.dense.*": "dense.*", "classifier.out_proj.*": "out.*"}


@dataclass(frozen=True, slots=True)
class Family:
    """A kind of encoder.

    Attributes:
        config: Dataclass of the fields of config.json.
        module: Makes the encoder of a configuration.
        prefixes: What models with a head put in front of the names of the encoder's weights.
        names: Patterns of these names in a folder, with those of the module.
        splits: Patterns of names of weights that the module has in pieces, with their names.
        old_names: Patterns of names that older folders have, with those of newer ones.
        heads: The heads, by the names of `TASKS`.
        unused: Patterns of further names that a folder may have and no module reads.
        defaults: Fields that config.json may leave out, where the dataclass has another default.
    """

    config: type[Any]
    module: Callable[[Any], Module]
    prefixes: tuple[str, ...]
    names: Mapping[str, str]
    heads: Mapping[str, Head]
    splits: Mapping[str, Sequence[str]] = field(default_factory=dict)
    old_names: Mapping[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    defaults: Mapping[str, object] = field(default_factory=dict)

    def encoder_weights(self, weights: StateLike) -> Weights:
        """Returns the weights of the encoder, with the names of its module."""
        heads = [name for head in self.heads.values() for name in head.names]
        plain = drop(self._plain(weights), [*heads, *self.unused, *_NUMBERS])
        return rename(split(plain, self.splits), self.names)

    def weights_with_head(self, task: str, weights: StateLike) -> Weights:
        """Returns the weights for `with_head`; what belongs to other heads is left out."""
        names = self.heads[task].names
        head = rename(select(self._plain(weights), list(names)), names)
        encoder = self.encoder_weights(weights)
        return merge(add_prefix(encoder, "encoder."), add_prefix(head, "head."))

    def with_head(self, task: str, config: Any, labels: int) -> Module[..., Any]:
        """Makes the encoder of a configuration with a head; masked words have no labels."""
        make = WithWordHead if task == "words" else WithHead
        return make(self.module(config), self.heads[task].make(config, labels))

    def label_weights(self, weights: StateLike) -> list[str]:
        """Returns the names of the weights of a head for labels, which an encoder leaves out."""
        # The last maps; a pooler, and what a head has before, may be pretrained as well.
        rules = [self.heads[task].names for task in ("sequence", "tokens")]
        names = {name for rule in rules for name, own in rule.items() if own.startswith("out.")}
        return sorted(select(self._plain(weights), [*names, "qa_outputs.*"]))

    def _plain(self, weights: StateLike) -> Weights:
        """Returns weights with today's names and without a prefix."""
        for prefix in self.prefixes:
            weights = strip_prefix(weights, prefix)
        return rename(weights, self.old_names)
