"""The generation loop, for tokens and for text."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from maxmod.errors import ArgumentError, MaxmodWarning
from maxmod.generate.decoding import Decodable, Decoder
from maxmod.generate.defaults import GenerationDefaults
from maxmod.generate.encoding import OPTIONS, encode_prompt
from maxmod.generate.messages import Message
from maxmod.generate.prompts import check_prompt, stop_tokens, token_rows
from maxmod.generate.text import NewText, StopStrings, Tokenizer
from maxmod.op.rules import expect_int

# Largest number of new tokens that the cache has capacity for from the start.
FIRST_ROOM = 1024


class Generator(Decodable, Protocol):
    """The interface that generation needs; `LanguageModel` implements it.

    Attributes:
        folder: Contains its chat template.
        tokenizer: Text to tokens and back.
        vocab_size: Number of tokens.
        max_positions: The longest sequence.
        stop: Tokens that end a sequence.
        defaults: The options of its generation_config.json.
    """

    folder: Path
    vocab_size: int
    max_positions: int
    stop: frozenset[int]
    defaults: GenerationDefaults

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to tokens and back."""
        ...


def generate(model: Generator, tokens: Sequence[int], **options: Any) -> Iterator[int]:
    """Continues a sequence of tokens; yields each new token as soon as it is known.

    Args:
        model: The model, from `load_model`.
        tokens: The prompt; at least one token id.
        **options: As for `generate_batch`.

    Returns:
        An iterator of new tokens. It ends with a `MaxmodWarning` if the model has no more room.

    Raises:
        ArgumentError, SliceError, ModelError: As for `generate_batch`.

    Example:
        >>> from maxmod.generate import generate
        >>> from maxmod.models import adder_folder, load_model
        >>> model = load_model(adder_folder())
        >>> tokens = list(generate(model, model.tokenizer.encode("12+34=")))
        >>> tokens, model.tokenizer.decode(tokens)
        ([4, 6], '46')
    """
    steps = generate_batch(model, [tokens], **options)
    return (step[0] for step in steps if step[0] is not None)


def generate_batch(
    model: Generator,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | None = None,
    stop: Collection[int] | None = None,
    stop_strings: Iterable[str] = (),
    repetition_penalty: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    greedy: bool = False,
    eager: bool = False,
) -> Iterator[list[int | None]]:
    """Continues several sequences of tokens together, which may differ in length.

    Options that are None come from generation_config.json of the model's folder, as in the
    transformers library; one line of the log (standard error) says which. Where there is no such
    file, and where it does not set `do_sample`, the most likely token is taken.

    Args:
        model: The model, from `load_model`.
        prompts: One or more sequences of at least one token.
        max_new_tokens: The maximum number of tokens to yield; None for what the file says
            (`max_new_tokens` or `max_length`), or as many as the model allows.
        stop: Tokens that end a sequence and are not yielded; those of the model by default.
        stop_strings: Strings that end a sequence, which may be special tokens or contain some; the
            token that completes one is the last. They need a tokenizer.
        repetition_penalty: This and the next four are explained at `Sampling`, in
            `maxmod.generate.sampling`.
        temperature: 0 takes the most likely token; above that, tokens are sampled.
        top_k: Keep the k most likely tokens; 0 keeps all.
        top_p: Keep the fewest most likely tokens with this total probability; 1 keeps all.
        min_p: Keep tokens with at least `min_p` times the largest probability; 0 keeps all.
        seed: Seed of the random numbers, modulo 2^64; equal seeds give equal sequences. None, the
            default, draws one, so that each call gives other sequences.
        greedy: Take the most likely token at each step, and none of the file's options.
        eager: Run the model op by op instead of compiled.

    Returns:
        An iterator over the next tokens of all sequences, None for those that have ended. It
        warns with `MaxmodWarning` when a sequence reaches the longest that the model allows.

    Raises:
        ArgumentError: (a ValueError) If a prompt is empty or longer than the model allows, or a
            number is out of range.
        OperandError: (a TypeError) If an option is not a number, or not an integer where required.
        SliceError: (an IndexError and ValueError) If a token is not in the vocabulary.
        ModelError: (a ValueError) If the logits are NaN.

    Example:
        >>> from maxmod.generate import generate_batch
        >>> from maxmod.models import adder_folder, load_model
        >>> model = load_model(adder_folder())
        >>> prompts = [model.tokenizer.encode(text) for text in ("1+1=", "123+456=")]
        >>> list(generate_batch(model, prompts))  # the first one ends after one token
        [[2, 5], [None, 7], [None, 9]]
    """
    rows = token_rows("generate: prompts", prompts)
    if not rows:
        raise ArgumentError("generate: prompts: expected at least one, got none.")
    for row in rows:
        check_prompt(row, model.vocab_size, model.max_positions)
    if max_new_tokens is not None:
        max_new_tokens = expect_int("generate", max_new_tokens, "max_new_tokens")
    if max_new_tokens is not None and max_new_tokens < 0:
        raise ArgumentError(f"generate: max_new_tokens: expected 0 or more, got {max_new_tokens}.")
    given = {
        "repetition_penalty": repetition_penalty,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
    }
    options = model.defaults.sampling(given, seed, greedy=greedy)
    if max_new_tokens is None and not greedy:
        max_new_tokens = model.defaults.max_new_tokens(max(map(len, rows)))
    ends = model.stop if stop is None else stop_tokens(stop)
    stops = StopStrings(stop_strings).listed
    texts = [NewText(model.tokenizer, stops, row) for row in rows] if stops else []
    expected = max(map(len, rows)) + min(max_new_tokens or 0, FIRST_ROOM)
    room = model.max_positions - max(map(len, rows)) + 1  # tokens until a sequence is full
    steps = room if max_new_tokens is None else min(max_new_tokens, room)
    decoder = Decoder(model, options, rows, length=expected, steps=steps, eager=eager)
    # The checks above happen in the call, not when the first token is asked for.
    return _generate(model, decoder, rows, max_new_tokens, ends, texts)


def _generate(
    model: Generator,
    decoder: Decoder,
    prompts: list[list[int]],
    max_new_tokens: int | None,
    ends: Collection[int],
    texts: Sequence[NewText],
) -> Iterator[list[int | None]]:
    active = list(range(len(prompts)))  # sequences that have not ended
    new = 0
    while max_new_tokens is None or new < max_new_tokens:
        full = [i for i in active if len(prompts[i]) + new > model.max_positions]
        if full:
            warn_of_room(model)
            active = _without(active, full, decoder)
        if not active:
            return
        tokens = dict(zip(active, decoder.next_tokens()))
        active = _without(active, [i for i in active if tokens[i] in ends], decoder)
        if not active:
            return
        yield [tokens[i] if i in active else None for i in range(len(prompts))]
        new += 1
        active = _without(active, _stopped(texts, active, tokens), decoder)


def _stopped(texts: Sequence[NewText], active: list[int], tokens: dict[int, int]) -> list[int]:
    """Adds tokens to texts, if there are any; returns the sequences with a stop string."""
    if not texts:
        return []
    for i in active:
        texts[i].push(tokens[i])
    return [i for i in active if texts[i].is_stopped]


def _without(active: list[int], ended: Collection[int], decoder: Decoder) -> list[int]:
    """Removes sequences that have ended from the batch."""
    kept = [row for row, sequence in enumerate(active) if sequence not in ended]
    if ended and kept:
        decoder.keep(kept)
    return [active[row] for row in kept]


def generate_text(
    model: Generator,
    prompt: str | Sequence[Message],
    *,
    stop_strings: Sequence[str] = (),
    chat_template: str | None = None,
    template_variables: Mapping[str, object] | None = None,
    **options: Any,
) -> Iterator[str]:
    """Continues a text, or answers a chat; yields each piece of text as soon as it is final.

    Args:
        model: The model, from `load_model`; its folder must have a tokenizer.
        prompt: The text to continue; or the messages of a chat, such as
            `[{"role": "user", "content": "Hello"}]`, for which the folder must have a template.
        stop_strings: Strings that end the new text and are not part of it. They may be special
            tokens or contain some, such as `<|im_end|>`.
        chat_template: Of a chat, as for `encode_prompt`.
        template_variables: Of a chat, as for `encode_prompt`.
        **options: As for `generate_batch`; and for a chat any variables that its template reads,
            such as `tools`, `documents`, `enable_thinking` or `add_generation_prompt`.

    Returns:
        An iterator of pieces, which never end inside a character. A text and its pieces together
        are the whole text: they begin with the space that separates them, if there is one.

    Raises:
        ValueError: As `generate_batch`; also if the folder has no tokenizer, or no template for a
            chat.
        OperandError: (a TypeError) As `generate_batch`; also if the prompt is neither.

    Example:
        >>> from maxmod.generate import generate_text
        >>> from maxmod.models import adder_folder, load_model
        >>> list(generate_text(load_model(adder_folder()), "123+456="))
        ['5', '7', '9']
    """
    # What is not an option of generation is a variable of the template.
    variables = {name: options.pop(name) for name in list(options) if name not in OPTIONS}
    variables = {**(template_variables or {}), **variables}
    tokens = encode_prompt(model, prompt, chat_template=chat_template, **variables)
    # An answer is a text of its own: it is not given the space of a continuation.
    is_continued = isinstance(prompt, str) or variables.get("continue_final_message")
    new_text = NewText(model.tokenizer, stop_strings, tokens if is_continued else [])
    return _pieces(new_text, generate(model, tokens, **options))


def _pieces(text: NewText, tokens: Iterator[int]) -> Iterator[str]:
    for token in tokens:
        piece = text.push(token)
        if piece:
            yield piece
        if text.is_stopped:
            return
    piece = text.finish()
    if piece:
        yield piece


def warn_of_room(model: Generator) -> None:
    """Warns that a sequence is as long as the model allows."""
    warnings.warn(
        f"generate: stopped: the model has room for {model.max_positions} tokens, prompt included.",
        MaxmodWarning,
        stacklevel=3,
    )
