"""Labels of classifiers, as config.json names them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maxmod.errors import ModelError
from maxmod.values.plain import JsonObject

MAX_LABELS = 1 << 20  # ImageNet has 21,841

_REGRESSION, _SEVERAL = "regression", "multi_label_classification"
_PROBLEMS = (_REGRESSION, _SEVERAL, "single_label_classification")
_LOADERS = {
    "SequenceClassification": "load_classifier",
    "TokenClassification": "load_tagger",
    "MaskedLM": "load_masked_model",
}
# The functions of scores that the library sentence-transformers writes into config.json.
_ACTIVATIONS = {
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.linear.Identity": "identity",
}


def label_names(table: object, count: int | None) -> list[str]:
    """Returns the names of labels, in the order of the logits.

    Args:
        table: The field `id2label`.
        count: The field `num_labels`, which counts if there is no table; 2 if neither is there.

    Raises:
        ModelError: If the table does not map 0, 1, ... to strings.
    """
    if not table:
        count = 2 if count is None else count  # as in transformers
        return [f"LABEL_{number}" for number in range(count)]
    entries = table if isinstance(table, dict) else {}
    names = [entries.get(str(number)) for number in range(max(len(entries), 1))]
    if not all(isinstance(name, str) for name in names):
        raise ModelError('id2label: expected strings under "0", "1" and so on.')
    return [str(name) for name in names]


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a text classifier.

    Attributes:
        names: Their names, in the order of the logits.
        scoring: How logits become scores: "softmax", "sigmoid" or "identity".
        ranking: How the logit of a pair of texts becomes its score.
    """

    names: tuple[str, ...]
    scoring: str
    ranking: str


def read_labels(table: JsonObject, where: Path, kind: str) -> Labels:
    """Reads what config.json says about labels.

    Exclusive labels have probabilities that sum to 1, and so have two labels or more where the
    field `problem_type` is missing; independent ones, and a single one, have a probability each;
    regression gives the number itself. That is the rule of the pipelines of transformers.

    Args:
        table: The config.json.
        where: Its path, for messages.
        kind: The end of the class that the field `architectures` must name.

    Raises:
        ModelError: If it names another class, or a field is malformed.
    """
    _expect_class(table, where, kind)
    count, problem = table.get("num_labels"), table.get("problem_type")
    if count is not None and (type(count) is not int or not 0 < count <= MAX_LABELS):
        raise ModelError(f"{where}: num_labels: expected 1 to {MAX_LABELS}, got {count!r:.80}.")
    if problem is not None and problem not in _PROBLEMS:
        raise ModelError(
            f"{where}: problem_type: expected one of {', '.join(_PROBLEMS)}, got {problem!r:.80}."
        )
    try:
        names = label_names(table.get("id2label"), count)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    several = problem == _SEVERAL or len(names) == 1
    scoring = "identity" if problem == _REGRESSION else "sigmoid" if several else "softmax"
    return Labels(tuple(names), scoring, _ranking(table, where, len(names)))


def _expect_class(table: JsonObject, where: Path, kind: str) -> None:
    """Refuses the class of another head; where none is named, the weights tell."""
    classes = table.get("architectures")
    if not isinstance(classes, list) or not classes:
        return
    named = classes[0]
    if not isinstance(named, str) or not named.endswith(kind):
        raise ModelError(
            f"{where}: 'architectures': the model has no such head: expected a class that ends "
            f"with {kind}, got {named!r:.80}. Hint: {_hint(named)}."
        )


def _hint(named: object) -> str:
    """Returns which function reads a class of transformers."""
    for end, loader in _LOADERS.items():
        if isinstance(named, str) and named.endswith(end):
            return f"{loader} reads it"
    return "load_encoder gives vectors of texts"


def _ranking(table: JsonObject, where: Path, count: int) -> str:
    """Returns how sentence-transformers makes scores; a single label is a probability."""
    name = table.get("sbert_ce_default_activation_function")
    inner = table.get("sentence_transformers")
    if isinstance(inner, dict) and inner.get("activation_fn") is not None:
        name = inner["activation_fn"]
    if name is None:
        return "sigmoid" if count == 1 else "identity"
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ModelError(
            f"{where}: activation_fn: expected one of {', '.join(_ACTIVATIONS)}, got {name!r:.80}."
        )
    return _ACTIVATIONS[name]
