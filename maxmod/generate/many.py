"""Many prompts on one device: texts that ended give way to others, so that the batch stays full."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, TypedDict, Unpack, overload

from maxmod.errors import ArgumentError, MaxmodError, OperandError
from maxmod.generate.encoding import encode_prompt
from maxmod.generate.loop import FIRST_ROOM, Generator, warn_of_room
from maxmod.generate.messages import Message
from maxmod.generate.prompts import check_prompt, stop_tokens, token_list
from maxmod.generate.sampling import Sampling
from maxmod.generate.slots import Slots
from maxmod.generate.text import NewText, StopStrings
from maxmod.op.rules import expect_int

# A text, the messages of a chat, or token ids.
Prompt: TypeAlias = "str | Sequence[Message] | Sequence[int]"

_STREAMS = 1 << 32  # of random numbers for each seed
_WINDOW = 16  # prompts that are sorted by length together, for each slot


@dataclass(frozen=True, slots=True)
class Request:
    """A prompt of `generate_many` with options of its own; None takes that of the call.

    Attributes:
        prompt: A text, the messages of a chat, or token ids.
        max_new_tokens: The maximum number of new tokens.
        stop: Tokens that end the text and are not part of it.
        stop_strings: Strings that end the text and are not part of it.

    Example:
        >>> from maxmod.generate import Request, generate_many
        >>> from maxmod.models import adder_folder, load_model
        >>> requests = ["123+456=", Request("123+456=", max_new_tokens=2)]
        >>> list(generate_many(load_model(adder_folder()), requests))
        ['579', '57']
    """

    prompt: Prompt
    max_new_tokens: int | None = None
    stop: Collection[int] | None = None
    stop_strings: Iterable[str] | None = None


@dataclass(eq=False, slots=True)
class _Text:
    """A prompt and its new text so far.

    Attributes:
        place: Where it stands among all prompts.
        stream: The number of its stream of random numbers.
        prompt: Its tokens.
        text: Makes text of new tokens.
        limit: The most new tokens; None for as many as the model allows.
        ends: Tokens that end it.
        count: The number of new tokens.
        pieces: The new text.
    """

    place: int
    stream: int
    prompt: list[int]
    text: NewText
    limit: int | None
    ends: Collection[int]
    count: int = 0
    pieces: list[str] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class _Refused:
    """A prompt that cannot be continued: where it stands, and why."""

    place: int
    error: MaxmodError


class ManyOptions(TypedDict, total=False):
    """The options of `generate_many` that do not decide what it yields, for type checkers."""

    batch_size: int
    max_new_tokens: int | None
    stop: Collection[int] | None
    stop_strings: Iterable[str]
    repetition_penalty: float | None
    temperature: float | None
    top_k: int | None
    top_p: float | None
    min_p: float | None
    seed: int | None
    streams: Iterable[int] | None
    greedy: bool
    eager: bool
    chat_template: str | None
    template_variables: Mapping[str, object] | None


@overload
def generate_many(
    model: Generator,
    prompts: Iterable[Prompt | Request],
    *,
    ordered: Literal[True] = True,
    on_error: Literal["raise"] = "raise",
    **options: Unpack[ManyOptions],
) -> Iterator[str]: ...
@overload
def generate_many(
    model: Generator,
    prompts: Iterable[Prompt | Request],
    *,
    ordered: Literal[True] = True,
    on_error: Literal["yield"],
    **options: Unpack[ManyOptions],
) -> Iterator[str | MaxmodError]: ...
@overload
def generate_many(
    model: Generator,
    prompts: Iterable[Prompt | Request],
    *,
    ordered: Literal[False],
    on_error: Literal["raise"] = "raise",
    **options: Unpack[ManyOptions],
) -> Iterator[tuple[int, str]]: ...
@overload
def generate_many(
    model: Generator,
    prompts: Iterable[Prompt | Request],
    *,
    ordered: Literal[False],
    on_error: Literal["yield"],
    **options: Unpack[ManyOptions],
) -> Iterator[tuple[int, str | MaxmodError]]: ...
def generate_many(
    model: Generator,
    prompts: Iterable[Prompt | Request],
    *,
    ordered: bool = True,
    on_error: str = "raise",
    batch_size: int = 16,
    max_new_tokens: int | None = None,
    stop: Collection[int] | None = None,
    stop_strings: Iterable[str] = (),
    repetition_penalty: float | None = None,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    min_p: float | None = None,
    seed: int | None = None,
    streams: Iterable[int] | None = None,
    greedy: bool = False,
    eager: bool = False,
    chat_template: str | None = None,
    template_variables: Mapping[str, object] | None = None,
) -> Iterator[object]:
    """Continues any number of prompts, `batch_size` at a time; yields each new text, in order.

    A text that ends gives its place in the batch to the next prompt. Prompts are taken as they are
    needed, 16 for each place in the batch, of which the longest are read first.

    Args:
        model: The model, from `load_model`; its folder must have a tokenizer.
        prompts: Texts, chats (lists of messages) and lists of token ids, also from a generator;
            and any of them as a `Request`, with options of its own.
        ordered: False yields each text as soon as it ends, as a pair of the place of its prompt
            and the text; nothing is kept until earlier ones have ended.
        on_error: "raise", or "yield": an error in a prompt stands in place of its text, as an
            exception that is not raised, and the others go on. Errors of the iterable itself and
            of the model are raised in any case.
        batch_size: How many texts are continued together.
        max_new_tokens: The maximum number of new tokens of each; as for `generate_batch`, as are
            the options that follow.
        stop: Tokens that end a text and are not part of it.
        stop_strings: Strings that end a text and are not part of it.
        repetition_penalty: See `generate_batch`.
        temperature: See there.
        top_k: See there.
        top_p: See there.
        min_p: See there.
        seed: Seed of the random numbers. Each text has a stream of them, by the place of its prompt
            among all: it is the same for any `batch_size`, and the first is that of
            `generate_text` with this seed.
        streams: The number of the stream of each prompt, below 2^32, in place of its place: so that
            a part of the prompts, or another order of them, gives the same texts.
        greedy: Take the most likely token at each step.
        eager: Run the model op by op instead of compiled.
        chat_template: Of chats, as for `encode_prompt`.
        template_variables: Of chats, as for `encode_prompt`.

    Returns:
        An iterator of the new texts, in the order of the prompts unless `ordered` is False. Errors
        in a prompt are raised when it is taken. Sums of a batch may be rounded in another way than
        those of one text, so that a choice between tokens of almost equal logits may differ.

    Raises:
        ArgumentError: (a ValueError) If a prompt is empty or longer than the model allows, or a
            number is out of range.
        OperandError: (a TypeError) If an option or a prompt is of another type.
        SliceError: (an IndexError and ValueError) If a token is not in the vocabulary.
        ModelError: (a ValueError) If the logits are NaN, or there is no tokenizer, or no template
            for a chat.

    Example:
        >>> from maxmod.generate import generate_many
        >>> from maxmod.models import adder_folder, load_model
        >>> list(generate_many(load_model(adder_folder()), ["1+1=", "123+456=", "5+6="]))
        ['2', '579', '11']
    """
    if isinstance(prompts, (str, bytes, Mapping, Request)) or not isinstance(prompts, Iterable):
        raise OperandError(
            "generate_many: prompts: expected an iterable of texts, chats or lists of token ids, "
            f"got {prompts!r:.60}. Hint: one prompt is [prompt]."
        )
    if on_error not in ("raise", "yield"):
        raise ArgumentError(
            f"generate_many: on_error: expected 'raise' or 'yield', got {on_error!r:.60}."
        )
    batch_size = expect_int("generate_many", batch_size, "batch_size")
    if batch_size < 1:
        raise ArgumentError(f"generate_many: batch_size: expected 1 or more, got {batch_size}.")
    max_new_tokens = _limit("generate_many", max_new_tokens)
    given = {
        "repetition_penalty": repetition_penalty,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
    }
    options = model.defaults.sampling(given, seed, greedy=greedy)
    ends = model.stop if stop is None else stop_tokens(stop)
    stops = StopStrings(stop_strings).listed

    variables = {"chat_template": chat_template, "template_variables": template_variables}

    def read(place: int, request: Request, stream: int) -> _Text:
        where = f"generate_many: prompts[{place}]"
        limit = _limit(where, request.max_new_tokens)
        limit = max_new_tokens if limit is None else limit
        own_ends = ends if request.stop is None else stop_tokens(request.stop)
        own = request.stop_strings
        own_stops = stops if own is None else StopStrings(own).listed
        tokens, is_continued = _tokens(model, f"prompts[{place}]", request.prompt, variables)
        if limit is None and not greedy:
            limit = model.defaults.max_new_tokens(len(tokens))
        text = NewText(model.tokenizer, own_stops, tokens if is_continued else [])
        return _Text(place, stream, tokens, text, limit, own_ends)

    def taken(place: int, prompt: Prompt | Request, stream: int) -> _Text | _Refused:
        if not 0 <= expect_int("generate_many", stream, "streams") < _STREAMS:
            raise ArgumentError(
                f"generate_many: streams: expected numbers from 0 to {_STREAMS - 1}, got {stream}."
            )
        request = prompt if isinstance(prompt, Request) else Request(prompt)
        if on_error == "raise":
            return read(place, request, stream)
        try:
            return read(place, request, stream)
        except MaxmodError as error:
            return _Refused(place, error)

    # The checks above happen in the call, not when the first text is asked for.
    numbers = itertools.count() if streams is None else streams
    texts = (taken(place, *row) for place, row in enumerate(_numbered(prompts, numbers)))
    ended = _ended(model, texts, options, batch_size, eager)
    results = ((text.place, _result(text)) for text in ended)
    return _in_order(results) if ordered else results


def _numbered(
    prompts: Iterable[Prompt | Request], numbers: Iterable[int]
) -> Iterator[tuple[Prompt | Request, int]]:
    """Yields each prompt with its number; raises where there are fewer numbers."""
    left = iter(numbers)
    for place, prompt in enumerate(prompts):
        number = next(left, None)
        if number is None:
            raise ArgumentError(
                f"generate_many: streams: expected a number for each prompt, got {place}."
            )
        yield prompt, number


def _limit(where: str, limit: int | None) -> int | None:
    """Returns a number of new tokens; what is below 0, or no int, is refused."""
    if limit is None:
        return None
    limit = expect_int(where, limit, "max_new_tokens")
    if limit < 0:
        raise ArgumentError(f"{where}: max_new_tokens: expected 0 or more, got {limit}.")
    return limit


def _result(ended: _Text | _Refused) -> str | MaxmodError:
    return ended.error if isinstance(ended, _Refused) else "".join(ended.pieces)


def _tokens(
    model: Generator, where: str, prompt: Prompt, variables: Mapping[str, object]
) -> tuple[list[int], bool]:
    """Returns the tokens of a prompt, and whether the new text continues one."""
    where = f"generate_many: {where}"
    is_chat = isinstance(prompt, Sequence) and bool(prompt) and isinstance(prompt[0], Mapping)
    if isinstance(prompt, str):
        tokens = encode_prompt(model, prompt)
    elif is_chat:
        tokens = encode_prompt(model, prompt, **variables)  # type: ignore[arg-type]
    else:
        tokens = token_list(where, prompt)
    check_prompt(tokens, model.vocab_size, model.max_positions, where)
    continues = variables["template_variables"] or {}
    is_continued = not is_chat or bool(continues.get("continue_final_message"))  # type: ignore[attr-defined]
    return tokens, is_continued


def _in_order(results: Iterable[tuple[int, str | MaxmodError]]) -> Iterator[str | MaxmodError]:
    early: dict[int, str | MaxmodError] = {}
    expected = 0
    for place, result in results:
        early[place] = result
        while expected in early:
            yield early.pop(expected)
            expected += 1


def _ended(
    model: Generator,
    texts: Iterator[_Text | _Refused],
    options: Sampling,
    batch_size: int,
    eager: bool,
) -> Iterator[_Text | _Refused]:
    """Yields texts as they end, and prompts that cannot be continued."""
    running: dict[int, _Text] = {}  # by slot
    waiting: list[_Text] = []  # the longest prompt is the last
    slots: Slots | None = None
    while True:
        # A slot takes prompts until one of them needs another step.
        while slots is None or slots.free:
            if not waiting:
                window = list(itertools.islice(texts, _WINDOW * batch_size))
                if not window:
                    break
                yield from (refused for refused in window if isinstance(refused, _Refused))
                waiting = [text for text in window if isinstance(text, _Text)]
                waiting.sort(key=lambda text: len(text.prompt))
                continue
            if slots is None:
                longest = len(waiting[-1].prompt) + min(waiting[-1].limit or 0, FIRST_ROOM)
                count = min(batch_size, len(waiting))
                slots = Slots(model, options, count, longest, eager=eager)
            text = waiting.pop()
            if text.limit == 0:
                yield text
                continue
            slot = slots.free[0]
            token = slots.put(slot, text.prompt, text.stream)
            if _goes_on(model, text, token):
                running[slot] = text
            else:
                slots.end(slot)
                yield text
        if slots is None or not running:
            return
        tokens = slots.next_tokens()
        for slot, text in list(running.items()):
            if not _goes_on(model, text, tokens[slot]):
                slots.end(slot)
                yield running.pop(slot)


def _goes_on(model: Generator, text: _Text, token: int) -> bool:
    """Adds a token to a text; returns whether it needs another one."""
    if token not in text.ends:
        text.count += 1
        text.pieces.append(text.text.push(token))
        if text.text.is_stopped:
            return False
        is_full = len(text.prompt) + text.count > model.max_positions
        if text.count != text.limit and not is_full:
            return True
        if text.count != text.limit:
            warn_of_room(model)
    text.pieces.append(text.text.finish())
    return False
