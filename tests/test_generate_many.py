"""Many prompts in a batch whose places are taken again: each text is that of its prompt alone."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from maxmod import CPU, Device, DType
from maxmod.errors import ArgumentError, MaxmodWarning, OperandError
from maxmod.generate import Request, generate, generate_batch, generate_many
from maxmod.generate.text import CharacterTokenizer
from maxmod.models import LanguageModel, adder_folder, load_model

ASSETS = Path(__file__).parent / "assets"
WORDS = ASSETS / "gpt2" / "with_tokenizer"
CHAT = ASSETS / "llama" / "chat"
PROMPT = json.loads((WORDS / "golden.json").read_text("utf-8"))["generations"][0]["prompt"]

pytestmark = pytest.mark.usefixtures("unoptimised_host_kernels")


@pytest.fixture(scope="module")
def adder() -> LanguageModel:
    return load_model(adder_folder(), device=CPU())


@pytest.fixture(scope="module")
def words() -> LanguageModel:
    return load_model(WORDS, device=CPU(), dtype=DType.float32)


def _sums(count: int) -> tuple[list[str], list[str]]:
    """Sums of numbers of one to three digits, and what they are."""
    rng = random.Random(count)
    pairs = [[rng.randrange(10 ** rng.randint(1, 3)) for _ in "ab"] for _ in range(count)]
    return [f"{a}+{b}=" for a, b in pairs], [str(a + b) for a, b in pairs]


def _prompts(model: LanguageModel, count: int) -> list[list[int]]:
    """Tokens of several lengths, in no order of length."""
    tokens = model.tokenizer.encode(PROMPT)
    return [(tokens * 3)[place % 3 : place % 3 + 1 + 5 * place % 13] for place in range(count)]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_sums_in_any_batch_size(adder: LanguageModel, batch_size: int) -> None:
    prompts, wanted = _sums(70)
    assert list(adder.generate_many(iter(prompts), batch_size=batch_size)) == wanted


def test_one_program_for_all_texts_of_a_run(device: Device) -> None:
    """Slots are filled again in the same memory, so that nothing is bound or recorded anew."""
    model = load_model(adder_folder(), device=device)
    prompts, wanted = _sums(12)
    assert list(model.generate_many(prompts, batch_size=3)) == wanted
    assert model.step(batch=3).stats.programs == 1


@pytest.mark.parametrize("rows", [2, 64])
def test_texts_equal_texts_of_single_prompts(
    words: LanguageModel, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """Also where the cache is moved and grows, and longer prompts come after shorter ones."""
    monkeypatch.setattr("maxmod.generate.slots.ROWS", rows)
    monkeypatch.setattr("maxmod.generate.many._WINDOW", 1)
    prompts = _prompts(words, 11)
    wanted = []
    for prompt in prompts:
        steps = generate_batch(words, [prompt], max_new_tokens=9, stop=[0, 3])
        tokens = [token for (token,) in steps if token is not None]
        whole = words.tokenizer.decode([*prompt, *tokens])
        wanted.append(whole.removeprefix(words.tokenizer.decode(prompt)))
    for batch_size in (2, 4):
        options: dict[str, Any] = {"max_new_tokens": 9, "stop": [0, 3], "batch_size": batch_size}
        assert list(words.generate_many(prompts, **options)) == wanted
    assert len({len(text) for text in wanted}) > 2


def test_drawn_texts_depend_on_the_seed_and_not_on_the_batch(words: LanguageModel) -> None:
    prompts = [PROMPT] * 7
    options: dict[str, Any] = {"max_new_tokens": 5, "temperature": 4.0, "seed": 3}
    found = [list(words.generate_many(prompts, batch_size=n, **options)) for n in (1, 2, 7)]
    assert found[0] == found[1] == found[2]
    assert len({*found[0]}) > 3
    assert found[0][0] == words.generate(PROMPT, **options)
    rows = zip(*generate_batch(words, [words.tokenizer.encode(PROMPT)] * 7, **options))
    tokens = [[token for token in row if token is not None] for row in rows]
    start = words.tokenizer.encode(PROMPT)
    whole = [words.tokenizer.decode([*start, *row]) for row in tokens]
    assert found[0] == [text.removeprefix(words.tokenizer.decode(start)) for text in whole]


@pytest.mark.parametrize("name", ["mistral", "gemma3"])
def test_windows_of_attention(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Rows are counted from the start of each text, however often the cache is moved."""
    monkeypatch.setattr("maxmod.generate.slots.ROWS", 2)
    monkeypatch.setattr("maxmod.generate.many._WINDOW", 2)
    model = load_model(ASSETS / "llama" / name, device=CPU(), dtype=DType.float32)
    letters = [chr(0x4E00 + token) for token in range(model.vocab_size)]
    model._tokenizer = CharacterTokenizer({letter: n for n, letter in enumerate(letters)})
    rng = random.Random(2)
    prompts = [[rng.randrange(model.vocab_size) for _ in range(n)] for n in (3, 9, 1, 14, 5, 2, 20)]
    options: dict[str, Any] = {"max_new_tokens": 12, "greedy": True, "repetition_penalty": 1.2}
    wanted = ["".join(letters[t] for t in generate(model, row, **options)) for row in prompts]
    assert list(model.generate_many(prompts, batch_size=3, **options)) == wanted


def test_stop_strings_and_chats(words: LanguageModel) -> None:
    whole = words.generate(PROMPT, max_new_tokens=8)
    end = whole[len(whole) // 2 :][:2]
    options: dict[str, Any] = {"max_new_tokens": 8, "stop_strings": [end]}
    assert (
        list(words.generate_many([PROMPT] * 3, batch_size=2, **options))
        == [words.generate(PROMPT, **options)] * 3
    )
    chat = load_model(CHAT, device=CPU(), dtype=DType.float32)
    messages = [{"role": "user", "content": "Hello"}]
    alone = chat.generate(messages, max_new_tokens=6)
    assert list(chat.generate_many([messages] * 2, max_new_tokens=6)) == [alone] * 2


def test_a_text_that_fills_the_model_ends_with_a_warning(adder: LanguageModel) -> None:
    prompts = ["1+1=", "12+34="]
    with pytest.warns(MaxmodWarning, match="room"):
        found = list(adder.generate_many(prompts, stop=[], batch_size=2))
    with pytest.warns(MaxmodWarning, match="room"):
        assert found == [adder.generate(prompt, stop=[]) for prompt in prompts]


def test_prompts_are_taken_as_needed(adder: LanguageModel) -> None:
    taken = []

    def endless() -> Iterator[str]:
        while True:
            taken.append(1)
            yield "1+1="

    texts = generate_many(adder, endless(), batch_size=2)
    assert taken == []
    assert [next(texts) for _ in range(5)] == ["2"] * 5
    assert len(taken) <= 64
    assert list(generate_many(adder, [])) == []
    assert list(generate_many(adder, ["1+1="] * 3, max_new_tokens=0)) == [""] * 3


def test_refused_arguments(adder: LanguageModel) -> None:
    for given, options, error, message in (
        ("1+1=", {}, OperandError, "expected an iterable of texts.*Hint"),
        (["1+1="], {"batch_size": 0}, ArgumentError, "batch_size: expected 1 or more, got 0"),
        (["1+1="], {"max_new_tokens": -1}, ArgumentError, "max_new_tokens: expected 0 or more"),
        (["1+1="], {"top_p": 2}, ArgumentError, "top_p: expected above 0"),
        (["1+1="], {"top_kk": 2}, TypeError, "top_kk"),
    ):
        with pytest.raises(error, match=message):
            adder.generate_many(given, **options)  # type: ignore[arg-type]
    for prompt, message in (([], "empty"), ([99], "not in the vocabulary"), (3, "sequence")):
        texts = adder.generate_many(["1+1=", prompt])  # type: ignore[list-item]
        with pytest.raises((ValueError, TypeError), match=rf"prompts\[1\].*{message}"):
            list(texts)


def test_options_of_one_request_change_no_other_text(adder: LanguageModel) -> None:
    """Options of one prompt change no other text, and what a request leaves out is the call's."""
    six = adder.tokenizer.encode("6")
    requests = [
        "123+456=",
        Request("123+456=", max_new_tokens=1),
        Request("123+456=", stop_strings=["9"]),
        Request(adder.tokenizer.encode("123+543="), stop=six),
        Request("123+456=", max_new_tokens=0),
        Request("123+456="),
    ]
    wanted = ["579", "5", "57", "", "", "579"]
    for batch_size in (1, 2, 6):
        assert list(adder.generate_many(requests, batch_size=batch_size)) == wanted
    short = ["57", "5", "57", "", "", "57"]
    assert list(adder.generate_many(requests, max_new_tokens=2)) == short
    assert list(
        adder.generate_many([Request("123+456=", stop_strings=[])], stop_strings=["7"])
    ) == ["579"]


def test_texts_in_the_order_of_ending(adder: LanguageModel) -> None:
    prompts, wanted = _sums(40)
    found = list(generate_many(adder, iter(prompts), batch_size=4, ordered=False))
    assert sorted(found) == list(enumerate(wanted))
    assert found != sorted(found)


def test_errors_of_prompts_in_place_of_texts(adder: LanguageModel) -> None:
    prompts: list[Any] = [[], "1+1=", [99], 3, Request("2+2=", max_new_tokens=-1), "3+4=", "x"]
    prompts += [Request("2+2=", stop_strings="4"), "5+5="]
    found = list(generate_many(adder, prompts, batch_size=2, on_error="yield"))
    texts = {place: text for place, text in enumerate(found) if isinstance(text, str)}
    assert texts == {1: "2", 5: "7", 8: "10"}
    assert [type(error).__name__ for error in found if not isinstance(error, str)] == [
        "ArgumentError",
        "SliceError",
        "OperandError",
        "ArgumentError",
        "ModelError",
        "ArgumentError",
    ]
    assert "prompts[4]: max_new_tokens: expected 0 or more, got -1" in str(found[4])
    pairs = list(generate_many(adder, prompts, batch_size=2, on_error="yield", ordered=False))
    assert {place: text for place, text in pairs if isinstance(text, str)} == texts
    assert len(pairs) == len(prompts)
    assert not [text for text in generate_many(adder, [[]] * 40, on_error="yield") if text == ""]


def test_errors_of_the_iterable_are_raised(adder: LanguageModel) -> None:
    def broken() -> Iterator[str]:
        yield "1+1="
        raise ArgumentError("the file ends early")

    with pytest.raises(ArgumentError, match="ends early"):
        list(generate_many(adder, broken(), on_error="yield"))
    with pytest.raises(ArgumentError, match="on_error: expected 'raise' or 'yield', got 'skip'"):
        generate_many(adder, [], on_error="skip")  # type: ignore[call-overload]


def test_streams_are_numbers_of_all_prompts(adder: LanguageModel) -> None:
    options: dict[str, Any] = {"temperature": 60.0, "seed": 2, "max_new_tokens": 5}
    whole = list(generate_many(adder, ["1+1="] * 6, **options))
    assert list(generate_many(adder, ["1+1="] * 2, streams=[4, 1], **options)) == [
        whole[4],
        whole[1],
    ]
    with pytest.raises(ArgumentError, match="expected a number for each prompt, got 1"):
        list(generate_many(adder, ["1+1="] * 2, streams=[4], **options))
    with pytest.raises(ArgumentError, match="expected numbers from 0 to 4294967295, got -1"):
        list(generate_many(adder, ["1+1="], streams=[-1], **options))
