"""Prompts as tokens: a text, or a chat with the variables of its template."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from maxmod.errors import ArgumentError, OperandError, did_you_mean
from maxmod.generate.chat import ChatTemplate, open_chat_template
from maxmod.generate.messages import Message
from maxmod.generate.prompts import expect_prompt
from maxmod.generate.text import Tokenizer

# What every template takes, whether it reads it or not.
_ALWAYS = {"add_generation_prompt", "continue_final_message"}

# Options of other libraries, with what to write here.
_ELSEWHERE = {
    "do_sample": "temperature=1.0 samples, greedy=True does not",
    "max_tokens": "max_new_tokens",
    "max_length": "max_new_tokens, without the prompt",
    "eos_token_id": "stop=[...], of token ids",
    "stop_token_ids": "stop=[...]",
    "chat_template_kwargs": "template_variables={...}, or give the variables as keywords",
    "num_beams": "there is no beam search",
}


class Encoder(Protocol):
    """What is needed of a model."""

    @property
    def folder(self) -> os.PathLike[str]:
        """Contains the chat template."""
        ...

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        ...


def encode_prompt(
    model: Encoder,
    prompt: str | Sequence[Message],
    *,
    chat_template: str | None = None,
    template_variables: Mapping[str, object] | None = None,
    **variables: object,
) -> list[int]:
    """Returns the tokens of a prompt, for `generate` and `generate_batch`.

    Args:
        model: The model, from `load_model`; its folder must have a tokenizer.
        prompt: A text; or the messages of a chat, such as `[{"role": "user", "content": "Hello"}]`,
            for which the folder must have a template.
        chat_template: Which template of the folder to take, by its name, or the source of another
            one; by default `tool_use` for a chat with `tools` if there is one of this name, else
            the only one or `default`.
        template_variables: Variables of the template, such as `{"enable_thinking": False}`.
        **variables: More of them: those whose names are not options.

    Returns:
        Token ids; with those that start a text, where the tokenizer adds them.

    Raises:
        OperandError: (a TypeError) If the prompt is neither a text nor a chat, or there is a
            variable that the template does not read, such as a misspelt option.
        ArgumentError: (a ValueError) If a message or variable has no meaning.
        ModelError: (a ValueError) If there is no tokenizer, or no template for a chat, or the
            template rejects the messages.

    Example:
        >>> from maxmod.generate import encode_prompt, generate_batch
        >>> from maxmod.models import adder_folder, load_model
        >>> model = load_model(adder_folder())
        >>> encode_prompt(model, "1+2=")
        [1, 10, 2, 11]
    """
    expect_prompt(prompt)
    given = {**(template_variables or {}), **variables}
    if isinstance(prompt, str):
        if chat_template is not None or given:
            _refuse_for_text([*given, "chat_template"][0])
        return model.tokenizer.encode(prompt)
    template = open_chat_template(model.folder, chat_template, for_tools=bool(given.get("tools")))
    _expect_variables(template, given, variables)
    text = template.render(prompt, **given)  # type: ignore[arg-type]
    for position, message in enumerate(prompt):
        content = message.get("content") if isinstance(message, Mapping) else None
        if isinstance(content, (list, tuple)) and content and str(content) in text:
            raise ArgumentError(
                f"chat: message {position}: content: the chat template of the folder takes no list "
                "of parts. Hint: give the text as a str."
            )
    return model.tokenizer.encode(text, special=False)


def _refuse_for_text(name: str) -> None:
    hint = _hint(name, OPTIONS)
    raise OperandError(
        f"generate: {name!r}: expected an option of generation for a text; a variable of a chat "
        f"template needs messages.{hint}"
    )


def _expect_variables(
    template: ChatTemplate, given: Mapping[str, object], keywords: Collection[str]
) -> None:
    """Refuses variables that the template never reads, so that none is lost."""
    unread = [name for name in given if given[name] is not None and name not in _ALWAYS]
    unread = [name for name in unread if name not in template.names] if unread else []
    if unread:
        name = unread[0]
        own = sorted(template.names - {"messages"})
        hint = _hint(name, [*own, *(OPTIONS if name in keywords else ())])
        raise OperandError(
            f"generate: {name!r}: expected an option or a variable that the chat template reads "
            f"({', '.join(own)[:300] or 'it reads none'}).{hint}"
        )


def _hint(name: str, known: Collection[str]) -> str:
    if name in _ELSEWHERE:
        return f" Hint: {_ELSEWHERE[name]}."
    return did_you_mean(name, known)


# The options of generation, for messages.
OPTIONS = (
    "max_new_tokens",
    "stop",
    "stop_strings",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "seed",
    "greedy",
    "eager",
    "chat_template",
    "template_variables",
)
