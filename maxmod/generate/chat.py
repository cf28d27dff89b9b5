"""Chat templates: from messages to the text that a model was trained to continue."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from maxmod.errors import ArgumentError, ModelError
from maxmod.generate.special_tokens import read_folder_tokens
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import read_text

_MAX_BYTES = 1 << 20


Message: TypeAlias = Mapping[str, object]
"""What one side said: `role`, `content`, and what else the template of a model reads."""


class ChatTemplate:
    """A Jinja template, run in a sandbox: it sees its messages and variables and nothing else.

    Args:
        source: The source of the template.
        variables: Variables besides the messages, such as `bos_token`.
        where: The file, for messages.

    Raises:
        ModelError: If the template is malformed, or the package jinja2 is missing.

    Example:
        >>> from maxmod.generate.chat import ChatTemplate
        >>> template = ChatTemplate("{% for m in messages %}<{{ m.role }}>{{ m.content }}"
        ...     "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}", {}, "here")
        >>> template.render([{"role": "user", "content": "Hello"}])
        '<user>Hello<assistant>'
    """

    def __init__(self, source: str, variables: Mapping[str, object], where: str) -> None:
        try:
            import jinja2
            import jinja2.sandbox
        except ImportError as error:
            raise ModelError(
                f"{where}: chat templates need the package jinja2, which cannot be imported "
                f"({error}). Hint: pip install 'maxmod[text]'."
            ) from None
        # The settings that templates on the Hugging Face hub assume.
        environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = _now
        self._where = where
        self._variables = dict(variables)
        self._error = jinja2.TemplateError
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ModelError(f"{where}: the chat template is malformed: {error}") from None

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        **variables: object,
    ) -> str:
        """Returns the text of a chat.

        Args:
            messages: Each with `role` (`system`, `user` or `assistant`) and `content`.
            add_generation_prompt: Whether the text ends with the start of the model's answer.
            **variables: Further variables of the template, such as `tools`.

        Raises:
            ArgumentError: If a message has no role or content.
            ModelError: If the template rejects the messages, or fails.
        """
        for position, message in enumerate(messages):
            if not isinstance(message, Mapping) or not {"role", "content"} <= message.keys():
                raise ArgumentError(
                    f"chat: message {position}: expected a mapping with 'role' and 'content'."
                )
        known = {"tools": None, "documents": None, **self._variables, **variables}
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                add_generation_prompt=add_generation_prompt,
                **known,
            )
        except (self._error, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise ModelError(f"{self._where}: the chat template failed: {error}") from None


def _raise(message: str) -> NoReturn:
    raise ValueError(message)


def _now(format: str) -> str:
    return datetime.datetime.now().strftime(format)


def _to_json(value: object, **options: Any) -> str:
    # jinja2's own filter escapes for HTML, which models were not trained on.
    return json.dumps(value, **{"ensure_ascii": False, **options})


def open_chat_template(folder: str | os.PathLike[str]) -> ChatTemplate:
    """Opens the chat template of a model folder.

    Looked for in this order: chat_template.jinja; the field `chat_template` of
    tokenizer_config.json, a string or a list of named strings of which `default` is taken.

    Raises:
        ModelError: (a ValueError) If there is none, it is malformed, or jinja2 is missing.
    """
    folder = Path(folder)
    own, path = folder / "chat_template.jinja", folder / "tokenizer_config.json"
    table = read_json(path) if path.exists() else {}
    if own.exists():
        return ChatTemplate(
            read_text(own, max_nbytes=_MAX_BYTES), read_folder_tokens(folder).special, str(own)
        )
    source = table.get("chat_template")
    if isinstance(source, list):
        named = {t.get("name"): t.get("template") for t in source if isinstance(t, dict)}
        source = named.get("default")
    if not isinstance(source, str):
        raise ModelError(
            f"{folder}: there is no chat template: expected the field chat_template in "
            "tokenizer_config.json. Hint: pass a str in place of messages; models that were not "
            "trained on chats only continue text."
        )
    return ChatTemplate(source, read_folder_tokens(folder).special, str(path))
