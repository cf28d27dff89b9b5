"""Chat templates: from messages to the text that a model was trained to continue."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from maxmod.errors import ArgumentError, ModelError
from maxmod.generate.messages import (
    Message,
    checked_messages,
    checked_variables,
    cut_at_mark,
    mark_end,
)
from maxmod.generate.special_tokens import read_folder_tokens
from maxmod.generate.template_environment import (
    line_of,
    line_of_pieces,
    new_environment,
    new_template,
)
from maxmod.generate.template_limits import MAX_SOURCE, with_budget
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import has_file, read_text


class ChatTemplate:
    """A Jinja template, run in a sandbox: it sees its messages and variables and nothing else.

    Time and memory of a rendering are limited, also for loops without end and strings of any size.

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
            import jinja2  # noqa: F401
        except ImportError as error:
            raise ModelError(
                f"{where}: chat templates need the package jinja2, which cannot be imported "
                f"({error}). Hint: pip install jinja2."
            ) from None
        self._source = source
        self._where = where
        self._variables = dict(variables)
        try:
            self._template = new_template(source)
        except Exception as error:  # MemoryError and RecursionError as well
            raise self._failed("is malformed", error, line_of(error, source)) from None

    @functools.cached_property
    def names(self) -> frozenset[str]:
        """The variables that the template reads."""
        from jinja2.meta import find_undeclared_variables

        environment = new_environment()
        found = find_undeclared_variables(environment.parse(self._source))
        return frozenset(found - environment.globals.keys())

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool | None = None,
        continue_final_message: bool = False,
        **variables: object,
    ) -> str:
        """Returns the text of a chat.

        Args:
            messages: Each with `role`, such as `system`, `user`, `assistant` or `tool`, and
                `content`: a text, or a list of parts if the template knows them. An assistant's
                may have other fields instead, such as `tool_calls`.
            add_generation_prompt: Whether the text ends with the start of the model's answer; by
                default it does if no message is continued.
            continue_final_message: Whether the text ends within the last message, so that the model
                goes on with it.
            **variables: Further variables of the template, such as `tools` (JSON schemas),
                `documents` or `enable_thinking`. Those that it does not read change nothing.

        Raises:
            ArgumentError: If a message has no role or content, or `tools` or `documents` are not
                lists of mappings.
            ModelError: If the template rejects the messages, or fails, or takes more than a few
                seconds or more memory than a text can need.
        """
        chat = checked_messages(messages)
        if add_generation_prompt is None:
            add_generation_prompt = not continue_final_message
        if add_generation_prompt and continue_final_message:
            raise ArgumentError(
                "chat: add_generation_prompt, continue_final_message: expected one of them at "
                "most, got both."
            )
        if continue_final_message:
            mark_end(chat[-1])
        given = {
            "tools": None,
            "documents": None,
            **self._variables,
            **checked_variables(variables),
            "messages": chat,
            "add_generation_prompt": add_generation_prompt,
        }
        text = self._rendered(given)
        return cut_at_mark(text, self._where) if continue_final_message else text

    def _rendered(self, given: Mapping[str, object]) -> str:
        template = self._template
        pieces = template.root_render_func(template.new_context(given))
        try:
            return with_budget(given, lambda: template.environment.concat(pieces))
        except Exception as error:  # whatever the template computes
            line = line_of(error, self._source) or line_of_pieces(template, pieces)
            raise self._failed("failed", error, line) from None

    def _failed(self, what: str, error: Exception, line: int | None) -> ModelError:
        """Returns an error in one line, with the line of the template."""
        # jinja2 and Python add places to the messages of their errors.
        text = getattr(error, "message", None) or getattr(error, "msg", None) or error
        message = " ".join(str(text).split())
        if isinstance(error, (MemoryError, RecursionError)) or not message:
            message = f"{type(error).__name__}: {message}".rstrip(": ")
        place = "" if line is None else f" (line {line} of the template)"
        return ModelError(f"{self._where}: the chat template {what}: {message[:500]}{place}")


# ---- the templates of a folder -------------------------------------------------------------------


def open_chat_template(
    folder: str | os.PathLike[str], name: str | None = None, *, for_tools: bool = False
) -> ChatTemplate:
    """Opens a chat template of a model folder.

    Looked for in this order: chat_template.jinja, which is the one called `default`, with those of
    additional_chat_templates; the field `chat_template` of tokenizer_config.json, a string or a
    list of named ones.

    Args:
        folder: The folder.
        name: The name of the template, or the source of another one. By default it is `tool_use`
            for a chat with tools where there is one, else `default`.
        for_tools: Whether the chat has tools.

    Raises:
        ArgumentError: (a ValueError) If there is none of this name.
        ModelError: (a ValueError) If there is none, it is malformed, or jinja2 is missing.
    """
    folder = Path(folder)
    variables = read_folder_tokens(folder).special
    if name is not None and "{" in name:
        return ChatTemplate(name, variables, "chat_template")
    found = _sources(folder)
    if name is None:
        name = "tool_use" if for_tools and "tool_use" in found else "default"
        if name not in found:
            raise ModelError(_no_template(folder, found))
    if name not in found:
        raise ArgumentError(
            f"{folder}: chat_template: expected {_listing(found)} or the source of a template, "
            f"got {name!r}."
        )
    source, path = found[name]
    return ChatTemplate(source, variables, str(path))


def _no_template(folder: Path, found: Iterable[str]) -> str:
    hint = (
        "pass a str in place of messages; models that were not trained on chats only continue text"
    )
    if found:
        hint = f"give its name, chat_template={_listing(found)}; there is none called 'default'"
    return (
        f"{folder}: there is no chat template: expected the field chat_template in "
        f"tokenizer_config.json, or chat_template.jinja. Hint: {hint}."
    )


def _listing(names: Iterable[str]) -> str:
    return " or ".join(map(repr, names))


def _sources(folder: Path) -> dict[str, tuple[str, Path]]:
    """Returns the templates of a folder by name, each with its file."""
    path = folder / "tokenizer_config.json"
    listed = read_json(path).get("chat_template") if has_file(path) else None
    if isinstance(listed, str):
        listed = [{"name": "default", "template": listed}]
    found: dict[str, tuple[str, Path]] = {}
    for entry in listed if isinstance(listed, list) else []:
        name, source = (entry.get(k) if isinstance(entry, dict) else None for k in _ENTRY)
        if not isinstance(name, str) or not isinstance(source, str):
            raise ModelError(f"{path}: chat_template: expected a str, or a list of {_ENTRY}.")
        found[name] = source, path
    files = {"default": folder / "chat_template.jinja"}
    files |= {path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    for name, path in files.items():
        if has_file(path):
            found[name] = read_text(path, max_nbytes=MAX_SOURCE), path
    return found


_ENTRY = ("name", "template")
