"""The messages of a chat and the variables of its template: checked, and made of plain values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from maxmod.errors import ArgumentError, ModelError
from maxmod.values.plain import JsonObject

Message: TypeAlias = Mapping[str, object]
"""What one side said: `role`, `content`, and what else the template of a model reads."""

# Messages of these roles are nothing without content; others may have tool calls instead.
_NEED_CONTENT = {"system", "developer", "user", "tool"}
# The reasoning of an answer, by the names that libraries give it; templates read the first two.
_REASONING = ("reasoning_content", "thinking", "reasoning")
# Put at the end of a message to find it in the text. Some templates on the hub know this word of
# the transformers library.
_MARK = "CONTINUE_FINAL_MESSAGE_TAG "


def checked_messages(messages: object) -> list[JsonObject]:
    """Returns a copy of messages in plain values.

    Raises:
        ArgumentError: If they are not a list of mappings, or one has no role or no content.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise ArgumentError(
            "chat: messages: expected a list of mappings with 'role' and 'content', got "
            f"{type(messages).__name__}."
        )
    if not messages:
        raise ArgumentError("chat: messages: expected at least one, got none.")
    return [_checked_message(f"message {i}", message) for i, message in enumerate(messages)]


def _checked_message(where: str, message: object) -> JsonObject:
    dump = getattr(message, "model_dump", None)
    if callable(dump):  # a message of the package openai
        message = dump()
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise ArgumentError(f"chat: {where}: expected a mapping with 'role' and 'content'.")
    plain = _plain(message, where)
    content, role = plain.get("content"), plain["role"]
    others = [name for name in plain if name not in ("role", "content", "name")]
    if content is None and (role in _NEED_CONTENT or not any(map(plain.get, others))):
        instead = "" if role in _NEED_CONTENT else ", or other fields such as 'tool_calls'"
        raise ArgumentError(
            f"chat: {where}: expected a mapping with 'role' and 'content'{instead}, got the role "
            f"{role!r} and {', '.join(map(repr, others)) or 'no other field'}."
        )
    parts = content if isinstance(content, (list, tuple)) else ()
    if not all(isinstance(part, (str, dict)) for part in parts):
        raise ArgumentError(
            f"chat: {where}: content: expected a str or a list of parts such as "
            "{'type': 'text', 'text': 'Hello'}."
        )
    reasoning = next((plain[n] for n in _REASONING if plain.get(n) is not None), None)
    if reasoning is None:
        return plain
    return {"thinking": reasoning, **plain, "reasoning_content": reasoning}


def checked_variables(variables: Mapping[str, object]) -> JsonObject:
    """Returns a copy of the variables of a template in plain values.

    Raises:
        ArgumentError: If one is made of other things than JSON is, or `tools` or `documents` are
            not lists.
    """
    for name in ("tools", "documents"):
        value = variables.get(name)
        if value is not None and not isinstance(value, (list, tuple)):
            raise ArgumentError(
                f"chat: {name}: expected a list of dicts, got {type(value).__name__}."
            )
    return {name: _plain(value, name) for name, value in variables.items()}


# Of a subclass, such as an enumeration, the value.
_PLAIN: dict[type, Callable[..., object]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}


def _plain(value: Any, where: str, depth: int = 0) -> Any:
    """Returns a copy of a value in Python's own types, whose methods are known to be harmless."""
    if value is None or isinstance(value, bool):
        return value
    for kind, convert in _PLAIN.items():
        if isinstance(value, kind):
            return convert(value)
    if depth > 200:
        raise ArgumentError(f"chat: {where}: expected values in at most 200 lists and mappings.")
    if isinstance(value, Mapping):
        return {
            (name if type(name) is str else str(name)): _plain(item, f"{where}: {name}", depth + 1)
            for name, item in value.items()
        }
    if isinstance(value, (list, tuple)):
        items = [_plain(item, where, depth + 1) for item in value]
        return items if isinstance(value, list) else tuple(items)
    hint = " Hint: transformers.utils.get_json_schema makes a JSON schema of a function."
    raise ArgumentError(
        f"chat: {where}: expected text, numbers, lists and mappings, got "
        f"{'a function' if callable(value) else type(value).__name__}."
        f"{hint if callable(value) else ''}"
    )


# ---- a message that is continued -----------------------------------------------------------------


def mark_end(message: JsonObject) -> None:
    """Marks the end of the text of a message, or of the last of its parts that has text.

    Raises:
        ArgumentError: If it has none.
    """
    content = message.get("content")
    if isinstance(content, str) and content.strip():
        message["content"] = content + _MARK
        return
    for part in reversed(content if isinstance(content, list) else []):
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            part["text"] += _MARK
            return
    raise ArgumentError("chat: continue_final_message: the last message has no text to continue.")


def cut_at_mark(text: str, where: str) -> str:
    """Returns the text before a mark, without the spaces that a template strips.

    Raises:
        ModelError: If the mark is not there.
    """
    end = text.rfind(_MARK.strip())
    if end < 0:
        raise ModelError(
            f"{where}: continue_final_message: the chat template leaves the end of the last "
            "message out."
        )
    return text[:end] if text.startswith(_MARK, end) else text[:end].rstrip()
