"""What a folder of sentence-transformers says about texts: length, case and prompts.

Source: the documentation of `SentenceTransformer.encode` and of its Transformer module.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from maxmod.errors import ArgumentError, ModelError, did_you_mean
from maxmod.models.config import judge_fields
from maxmod.models.config_fields import SENTENCE_BERT, SENTENCE_TRANSFORMERS
from maxmod.values.plain import JsonObject
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import has_file

# Fields of sentence_bert_config.json that change vectors, with the values that change nothing.
_NEUTRAL: dict[str, tuple[object, ...]] = {
    "transformer_task": (None, "feature-extraction"),
    "module_output_name": (None, "token_embeddings"),
    "processing_kwargs": (None, {}),
    "query_expansion": (None,),
    "query_length": (None,),
    "document_length": (None,),
}


@dataclass(frozen=True, slots=True)
class TextRules:
    """What is done to a text before it becomes tokens.

    Attributes:
        max_tokens: The longest text, special tokens included.
        lower_case: Whether texts are converted to lower case.
        cuts_start: Whether a text that is too long loses its start in place of its end.
        prompts: Texts to put in front, by name.
        default_prompt: The name of the one that is used if none is asked for.
    """

    max_tokens: int
    lower_case: bool = False
    cuts_start: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None

    def prompt(self, name: str | None, text: str | None) -> str:
        """Returns the prompt to use: the text, or the one with the name, or the default one.

        Raises:
            ArgumentError: If both are given, or there is no prompt of that name.
        """
        if name is not None and text is not None:
            raise ArgumentError("embed: expected prompt_name or prompt, got both.")
        if text is not None:
            if not isinstance(text, str):
                raise ArgumentError(f"embed: prompt: expected a str, got {type(text).__name__}.")
            return text
        name = self.default_prompt if name is None else name
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.prompts:
            known = ", ".join(map(repr, self.prompts)) or "no name, as the folder has no prompts"
            raise ArgumentError(
                f"embed: prompt_name: expected {known}, got {name!r}."
                f"{did_you_mean(str(name), self.prompts)} Hint: prompt takes the text itself."
            )
        return self.prompts[name]


def read_text_rules(folder: Path, positions: int, *, strict: bool = False) -> TextRules:
    """Reads sentence_bert_config.json and config_sentence_transformers.json, where they exist.

    Args:
        folder: The model folder.
        positions: The longest sequence of the model.
        strict: Refuse fields that nobody here knows, in place of a warning.

    Raises:
        ModelError: If a file is malformed, or asks for what is not supported.
    """
    path = folder / "sentence_bert_config.json"
    table = _optional(path)
    for name, values in _NEUTRAL.items():
        if table.get(name) not in values:
            raise ModelError(f"{path}: {name}: expected {values[-1]!r}, got {table[name]!r}.")
    lower = table.get("do_lower_case")
    if type(lower) not in (bool, type(None)):
        raise ModelError(f"{path}: do_lower_case: expected true or false, got {lower!r}.")
    used = {"max_seq_length", "do_lower_case", *_NEUTRAL}
    judge_fields(table, used, str(path), known=SENTENCE_BERT, strict=strict)
    _check_output(path, table)
    prompts, default = _prompts(folder / "config_sentence_transformers.json", strict)
    return TextRules(
        max_tokens=_max_tokens(folder, path, table, positions),
        lower_case=bool(lower),
        cuts_start=_cuts_start(folder),
        prompts=prompts,
        default_prompt=default,
    )


def _optional(path: Path) -> JsonObject:
    return read_json(path) if has_file(path) else {}


def _check_output(path: Path, table: JsonObject) -> None:
    """Rejects a Transformer that pools other vectors than those of the tokens."""
    modes = table.get("modality_config")
    text = modes.get("text") if isinstance(modes, dict) else None
    name = text.get("method_output_name") if isinstance(text, dict) else None
    if name not in (None, "last_hidden_state"):
        raise ModelError(f"{path}: method_output_name: expected 'last_hidden_state', got {name!r}.")


def _cuts_start(folder: Path) -> bool:
    path = folder / "tokenizer_config.json"
    side = _optional(path).get("truncation_side")
    if side not in (None, "left", "right"):
        raise ModelError(f"{path}: truncation_side: expected 'left' or 'right', got {side!r}.")
    return side == "left"


def _max_tokens(folder: Path, path: Path, table: JsonObject, positions: int) -> int:
    """Returns the length that the model was trained for, at most what the model has positions for.

    Without `max_seq_length`, sentence-transformers takes it from the tokenizer.
    """
    value = table.get("max_seq_length")
    if value is None:
        return _max_of_tokenizer(folder / "tokenizer_config.json", positions)
    if type(value) is not int or value < 2:
        raise ModelError(f"{path}: max_seq_length: expected 2 or more, got {value!r}.")
    return min(value, positions)


def _max_of_tokenizer(path: Path, positions: int) -> int:
    value = _optional(path).get("model_max_length")
    if value is None:
        return positions
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= 2:
        raise ModelError(f"{path}: model_max_length: expected 2 or more, got {value!r}.")
    return int(min(value, positions))  # 1e30 where nobody set it


def _prompts(path: Path, strict: bool) -> tuple[Mapping[str, str], str | None]:
    """Returns the prompts by name, and the name of the default one."""
    table = _optional(path)
    used = {"prompts", "default_prompt_name"}
    judge_fields(table, used, str(path), known=SENTENCE_TRANSFORMERS, strict=strict)
    found = table.get("prompts")
    prompts = {} if found is None else found
    if not isinstance(prompts, dict) or not all(
        isinstance(text, (str, type(None))) for text in prompts.values()
    ):
        raise ModelError(f"{path}: prompts: expected names with texts.")
    prompts = {name: text or "" for name, text in prompts.items()}
    default = table.get("default_prompt_name")
    if default is not None and default not in ("query", "document", *prompts):
        known = ", ".join(map(repr, prompts)) or "no name, as there are no prompts"
        raise ModelError(f"{path}: default_prompt_name: expected {known}, got {default!r}.")
    if default is not None:
        prompts = {default: "", **prompts}
    return prompts, default
