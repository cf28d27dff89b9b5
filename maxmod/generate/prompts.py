"""What may be continued, and where: checks of the arguments of generation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from maxmod.errors import ArgumentError, OperandError, SliceError
from maxmod.op.rules import expect_int

_TEXT_HINT = (
    " Hint: model.generate(text) continues a text; model.tokenizer.encode(text) has its tokens."
)
_ROW_HINT = " Hint: one prompt of two tokens is [[1, 2]]."
_STOP_HINT = " Hint: stop=[2] has one token; strings are given as stop_strings=['###']."


def expect_prompt(prompt: object) -> None:
    """Refuses what is neither a text nor a list of messages."""
    if isinstance(prompt, str):
        return
    hint = ""
    if isinstance(prompt, Mapping):
        hint = " Hint: put the message into a list."
    elif isinstance(prompt, Sequence) and not isinstance(prompt, (bytes, bytearray)):
        if not prompt or not isinstance(prompt[0], (int, np.integer)):
            return
        hint = " Hint: maxmod.generate.generate(model, tokens) continues token ids."
    raise OperandError(
        "generate: prompt: expected a str, or a list of messages with 'role' and 'content', got "
        f"{_shown(prompt)}.{hint}"
    )


def token_rows(where: str, rows: object) -> list[list[int]]:
    """Returns rows of tokens as lists of int; anything but sequences of token ids is refused.

    Args:
        where: Whose argument it is, for messages, such as `generate: prompts`.
        rows: The rows.
    """
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise OperandError(
            f"{where}: expected sequences of token ids, got {_shown(rows)}.{_hint(rows)}"
        )
    return [token_list(f"{where}[{place}]", row) for place, row in enumerate(rows)]


def token_list(where: str, tokens: object) -> list[int]:
    """Returns tokens as a list of int; anything but a sequence of token ids is refused."""
    if isinstance(tokens, (str, bytes, Mapping)) or not isinstance(tokens, Iterable):
        raise OperandError(
            f"{where}: expected a sequence of token ids, got {_shown(tokens)}.{_hint(tokens)}"
        )
    caller, _, name = where.partition(": ")
    return [expect_int(caller, token, f"{name}[{at}]") for at, token in enumerate(tokens)]


def stop_tokens(stop: object) -> frozenset[int]:
    """Returns stop tokens as a set of int; anything but token ids is refused."""
    if isinstance(stop, (str, bytes)) or not isinstance(stop, Iterable):
        raise OperandError(
            f"generate: stop: expected a list of token ids, got {_shown(stop)}.{_STOP_HINT}"
        )
    listed = list(stop)
    for token in listed:
        if isinstance(token, str):
            raise OperandError(
                f"generate: stop: expected token ids, got {_shown(token)}.{_STOP_HINT}"
            )
    return frozenset(expect_int("generate", token, "stop") for token in listed)


def _hint(value: object) -> str:
    if isinstance(value, str):
        return _TEXT_HINT
    return _ROW_HINT if isinstance(value, (int, np.integer)) else ""


def _shown(value: object) -> str:
    return f"{value!r:.60}"


def check_prompt(
    tokens: Sequence[int], vocab_size: int, max_positions: int, caller: str = "generate"
) -> None:
    """Refuses prompts that are empty, too long or not in the vocabulary."""
    if not tokens:
        raise ArgumentError(
            f"{caller}: the prompt is empty: expected at least one token, got none."
        )
    for position, token in enumerate(tokens):
        if not 0 <= token < vocab_size:
            raise SliceError(
                f"{caller}: token {token} at position {position} is not in the vocabulary: "
                f"expected 0 to {vocab_size - 1}."
            )
    if len(tokens) > max_positions:
        raise ArgumentError(
            f"{caller}: the prompt is too long: expected at most {max_positions} tokens, got "
            f"{len(tokens)}."
        )
