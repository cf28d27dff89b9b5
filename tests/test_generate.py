"""Generation: tokens one by one, text piece by piece."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizer_folders import sentence_pieces, write_whole

from maxmod import CPU, Device, DType, Tensor
from maxmod.errors import MaxmodWarning, ModelError, OperandError
from maxmod.generate import generate, generate_batch, generate_text
from maxmod.generate.decoding import Decoder
from maxmod.generate.tokenizer_files import open_tokenizer
from maxmod.models import LanguageModel, adder_folder, load_model

FOLDER = Path(__file__).parent / "assets" / "gpt2" / "with_tokenizer"
GOLDEN = json.loads((FOLDER / "golden.json").read_text("utf-8"))["generations"]
CHAT = FOLDER.parents[1] / "llama" / "chat"
CHATS = json.loads((CHAT / "golden.json").read_text("utf-8"))["chats"]

pytestmark = pytest.mark.usefixtures("unoptimised_host_kernels")


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model(FOLDER, device=CPU())


@pytest.fixture(scope="module")
def adder() -> LanguageModel:
    return load_model(adder_folder(), device=CPU())


def _without_end(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(0)] if 0 in tokens else tokens


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["prompt"])
def test_greedy(model: LanguageModel, case: dict[str, object], eager: bool) -> None:
    count = case["max_new_tokens"]
    tokens = list(generate(model, case["prompt_ids"], max_new_tokens=count, eager=eager))
    assert tokens == _without_end(case["new_ids"])
    pieces = list(generate_text(model, case["prompt"], max_new_tokens=count, eager=eager))
    assert "".join(pieces) == case["text"]
    assert len(pieces) > 1


def test_methods_of_a_model(model: LanguageModel) -> None:
    """The same output, whole and in pieces, for a text and for a chat."""
    case = GOLDEN[0]
    options = {"max_new_tokens": case["max_new_tokens"]}
    assert model.generate(case["prompt"], **options) == case["text"]
    pieces = list(model.stream(case["prompt"], **options))
    assert "".join(pieces) == case["text"]
    assert len(pieces) > 1
    chat = load_model(CHAT, device=CPU(), dtype=DType.float32)
    asked = next(case for case in CHATS if "answer" in case)
    assert chat.generate(asked["messages"]) == asked["answer"]
    with pytest.raises(TypeError, match="top_kk"):
        model.generate("a", top_kk=3)


def test_on_each_device(device: Device) -> None:
    model = load_model(FOLDER, device=device)
    tokens = list(generate(model, GOLDEN[0]["prompt_ids"], max_new_tokens=12))
    assert tokens == GOLDEN[0]["new_ids"]


def test_adder(adder: LanguageModel) -> None:
    assert "".join(generate_text(adder, "123+456=")) == "579"
    assert list(generate_text(adder, "999+999=")) == ["1", "9", "9", "8"]


def test_tokens_come_one_by_one(adder: LanguageModel) -> None:
    prompt = adder.tokenizer.encode("123+456=")
    prefill, decode = adder.step(seq=len(prompt)).stats, adder.step().stats
    before = prefill.calls, decode.calls
    tokens = generate(adder, prompt)
    assert (prefill.calls, decode.calls) == before
    assert next(tokens) == 5
    assert (prefill.calls, decode.calls) == (before[0] + 1, before[1])
    assert list(tokens) == [7, 9]
    assert (prefill.calls, decode.calls) == (before[0] + 1, before[1] + 3)


def test_nothing_is_compiled_again(adder: LanguageModel) -> None:
    """Sixteen tokens after prompts of several lengths: one program for all their positions."""
    adder.step(seq=2)
    decode = adder.step()
    programs = decode.stats.programs
    for prompt in ("1+1=", "12+34=", "1+"):
        list(generate(adder, adder.tokenizer.encode(prompt), stop=[], max_new_tokens=9))
    assert set(adder._steps) == {(True, True, False), (True, False, False)}
    assert adder.step() is decode
    assert decode.stats.programs - programs <= 1


def test_the_cache_grows(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maxmod.generate.decoding.ROWS", 2)
    case = GOLDEN[0]
    tokens = list(generate(model, case["prompt_ids"], stop=[0]))
    assert len(tokens) > 20
    text = list(case["prompt_ids"])
    for token in tokens[:20]:
        assert model.next_logits([text])[0].argmax() == token
        text.append(token)


def test_prompts_of_one_token(adder: LanguageModel) -> None:
    """They are read by the step for one token, alone and in a batch."""
    prompts = [[1], [4], [10]]
    expected = []
    for prompt in prompts:
        text = list(prompt)
        for _ in range(5):
            text.append(int(adder.next_logits([text])[0].argmax()))
        expected.append(text[1:])
        assert list(generate(adder, prompt, stop=(), max_new_tokens=5)) == expected[-1]
    steps = list(generate_batch(adder, prompts, stop=(), max_new_tokens=5))
    assert _columns(steps) == expected


# ---- batches -------------------------------------------------------------------------------------


def _columns(steps: list[list[int | None]]) -> list[list[int]]:
    return [[token for token in column if token is not None] for column in zip(*steps)]


@pytest.mark.parametrize("eager", [False, True])
def test_a_batch_gives_the_tokens_of_each_text_alone(model: LanguageModel, eager: bool) -> None:
    """Prompts of several lengths; two of the texts end before the others."""
    prompts = [case["prompt_ids"] for case in GOLDEN]
    steps = list(generate_batch(model, prompts, max_new_tokens=12, eager=eager))
    found = _columns(steps)
    assert found == [_without_end(case["new_ids"]) for case in GOLDEN]
    assert len({len(tokens) for tokens in found}) > 1


def test_a_chat_model_answers_several_questions() -> None:
    model = load_model(CHAT, device=CPU(), dtype=DType.float32)
    cases = [case for case in CHATS if "answer" in case]
    steps = list(generate_batch(model, [case["ids"] for case in cases], max_new_tokens=24))
    for tokens, case in zip(_columns(steps), cases):
        assert model.tokenizer.decode(tokens) == case["answer"]


def test_texts_of_a_batch_differ(model: LanguageModel) -> None:
    prompt = GOLDEN[0]["prompt_ids"]
    options = {"max_new_tokens": 8, "temperature": 2.0, "stop": [], "seed": 1}
    columns = _columns(list(generate_batch(model, [prompt] * 3, **options)))
    assert columns[0] == list(generate(model, prompt, **options))
    assert len(set(map(tuple, columns))) == 3


@pytest.mark.parametrize("eager", [False, True])
def test_texts_of_a_batch_are_drawn_as_in_any_other(model: LanguageModel, eager: bool) -> None:
    """Where other texts have other lengths, or have ended; the first one is as if it were alone."""
    prompts = [case["prompt_ids"] for case in GOLDEN[:3]]
    options = {"max_new_tokens": 8, "temperature": 1.5, "top_p": 0.9, "seed": 4, "eager": eager}
    whole = _columns(list(generate_batch(model, prompts, stop=[], **options)))
    assert whole[0] == list(generate(model, prompts[0], stop=[], **options))
    ended = whole[1][2]
    assert ended not in whole[0] + whole[2]
    others = _columns(list(generate_batch(model, prompts, stop=[ended], **options)))
    assert others == [whole[0], whole[1][: whole[1].index(ended)], whole[2]]


@pytest.mark.parametrize("eager", [False, True])
def test_a_penalty_knows_prompt_and_text(adder: LanguageModel, eager: bool) -> None:
    prompt = adder.tokenizer.encode("12+34=")
    options = {"repetition_penalty": 1e6, "stop": [], "max_new_tokens": 6, "eager": eager}
    tokens = list(generate(adder, prompt, **options))
    text = list(prompt)
    for token in tokens:
        logits = adder.next_logits([text])[0].astype(np.float64)
        for seen in set(text):
            logits[seen] *= 1e6 if logits[seen] < 0 else 1e-6
        assert token == logits.argmax()
        text.append(token)


def test_room_within_a_batch(adder: LanguageModel) -> None:
    """A long text has to end; shorter ones go on."""
    with pytest.warns(MaxmodWarning, match="room for 16 tokens"):
        steps = list(generate_batch(adder, [[1] * 15, [2, 3]], stop=[], max_new_tokens=8))
    assert [len(column) for column in _columns(steps)] == [2, 8]


def test_empty_batch(adder: LanguageModel) -> None:
    with pytest.raises(ValueError, match="prompts: expected at least one, got none"):
        generate_batch(adder, [])


# ---- chats and stop strings ----------------------------------------------------------------------


@pytest.mark.parametrize("case", [c for c in CHATS if "answer" in c], ids=lambda c: c["answer"])
def test_answers(case: dict) -> None:
    model = load_model(CHAT, device=CPU(), dtype=DType.float32)
    pieces = list(generate_text(model, case["messages"], max_new_tokens=24))
    assert "".join(pieces) == case["answer"]
    assert len(pieces) > 3


def test_stop_strings(adder: LanguageModel) -> None:
    assert "".join(generate_text(adder, "123+456=", stop_strings=["9"])) == "57"
    assert "".join(generate_text(adder, "123+456=", stop_strings=["79", "x"])) == "5"
    assert "".join(generate_text(adder, "123+456=", stop_strings=["78", "99"])) == "579"
    with pytest.raises(ValueError, match="expected a list of non-empty strings"):
        generate_text(adder, "1+1=", stop_strings=[""])


# ---- where it ends -------------------------------------------------------------------------------


def test_number_of_tokens(adder: LanguageModel) -> None:
    for count, answer in ((0, ""), (1, "5"), (2, "57"), (3, "579"), (100, "579")):
        assert "".join(generate_text(adder, "123+456=", max_new_tokens=count)) == answer


def test_stop_tokens(adder: LanguageModel) -> None:
    prompt = adder.tokenizer.encode("123+456=")
    assert list(generate(adder, prompt, stop=[9])) == [5, 7]
    assert list(generate(adder, prompt, stop=[], max_new_tokens=4)) == [5, 7, 9, 12]


def test_room_of_the_model(adder: LanguageModel) -> None:
    """The last position of the model gives one more token; then there is a notice."""
    prompt = adder.tokenizer.encode("123+456=")
    with pytest.warns(MaxmodWarning, match="stopped: the model has room for 16 tokens"):
        tokens = list(generate(adder, prompt, stop=[]))
    assert len(tokens) == 16 - len(prompt) + 1
    full = [1] * 16
    with pytest.warns(MaxmodWarning, match="room for 16 tokens"):
        assert len(list(generate(adder, full, stop=[]))) == 1
    assert len(list(generate(adder, full, stop=[], max_new_tokens=1))) == 1  # and no warning


# ---- temperature ---------------------------------------------------------------------------------


def test_seed_decides(model: LanguageModel) -> None:
    options = {"max_new_tokens": 8, "temperature": 2.0, "stop": []}
    prompt = GOLDEN[0]["prompt_ids"]
    one = list(generate(model, prompt, seed=1, **options))
    assert one == list(generate(model, prompt, seed=1, **options))
    others = [list(generate(model, prompt, seed=seed, **options)) for seed in range(2, 6)]
    assert any(one != other for other in others)


def test_low_temperature_is_greedy(model: LanguageModel) -> None:
    tokens = list(generate(model, GOLDEN[0]["prompt_ids"], max_new_tokens=12, temperature=1e-6))
    assert tokens == GOLDEN[0]["new_ids"]


def test_drawn_tokens_have_the_right_frequencies(adder: LanguageModel) -> None:
    """2000 draws; the bound is five standard deviations of each frequency."""
    prompt = adder.tokenizer.encode("12+")
    temperature = 3.0
    logits = adder.next_logits([prompt])[0].astype(np.float64) / temperature
    expected = np.exp(logits - logits.max())
    expected /= expected.sum()
    count = 2000
    options = {"max_new_tokens": 1, "temperature": temperature, "stop": []}
    drawn = Counter(next(generate(adder, prompt, seed=s, **options)) for s in range(count))
    for token, probability in enumerate(expected):
        spread = np.sqrt(probability * (1 - probability) / count)
        assert abs(drawn[token] / count - probability) <= 5 * spread + 1 / count


# ---- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("token", "place"), [(13, 2), (-1, 0), (10**9, 1)])
def test_token_outside_the_vocabulary(adder: LanguageModel, token: int, place: int) -> None:
    tokens = [1, 10, 2]
    tokens[place] = token
    with pytest.raises(IndexError, match=f"token {token} at position {place} is not in the") as e:
        generate(adder, tokens)
    assert str(e.value).endswith("expected 0 to 12.")


def test_prompt_of_the_wrong_length(adder: LanguageModel) -> None:
    with pytest.raises(ValueError, match="the prompt is empty: expected at least one token"):
        generate_text(adder, "")
    with pytest.raises(ValueError, match="too long: expected at most 16 tokens, got 17"):
        generate(adder, [1] * 17)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": -1}, "max_new_tokens: expected 0 or more, got -1"),
        ({"temperature": -0.5}, "temperature: expected a finite float32, 0 or more, got -0.5"),
        (
            {"temperature": float("nan")},
            "temperature: expected a finite float32, 0 or more, got nan",
        ),
        (
            {"temperature": float("inf")},
            "temperature: expected a finite float32, 0 or more, got inf",
        ),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
    ],
)
def test_options_out_of_range(adder: LanguageModel, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        generate(adder, [1], **options)


def test_max_new_tokens_is_an_integer(adder: LanguageModel) -> None:
    assert len(list(generate(adder, [1], max_new_tokens=np.int64(1), stop=(), eager=True))) == 1
    with pytest.raises(TypeError, match="generate: max_new_tokens: expected an int, got 2.5"):
        generate(adder, [1], max_new_tokens=2.5)


def test_damaged_weights() -> None:
    model = load_model(adder_folder(), device=CPU())
    model.module.ln_f.bias = Tensor.full([64], float("nan"), dtype=DType.float32, device=CPU())
    with pytest.raises(ModelError, match="the logits are NaN"):
        next(generate(model, [1, 10, 2, 11]))


# ---- what may be given ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        (["12+3="], r"prompts\[0\]: expected a sequence of token ids, got '12\+3='.*encode"),
        ("12+3=", r"prompts: expected sequences of token ids, got '12\+3='"),
        ([1, 2], r"prompts\[0\]: expected a sequence of token ids, got 1. Hint: .* \[\[1, 2\]\]"),
        (None, "prompts: expected sequences of token ids, got None"),
        ([[1], None], r"prompts\[1\]: expected a sequence of token ids, got None"),
        ([[float("nan")]], r"prompts\[0\]\[0\]: expected an int, got nan"),
        ([[1, 1.9]], r"prompts\[0\]\[1\]: expected an int, got 1.9"),
        ([[1, "2"]], r"prompts\[0\]\[1\]: expected an int, got '2'"),
    ],
)
def test_prompts_that_are_not_token_ids(adder: LanguageModel, prompts: Any, message: str) -> None:
    with pytest.raises(OperandError, match=f"generate: {message}"):
        generate_batch(adder, prompts)


@pytest.mark.parametrize(
    ("stop", "message"),
    [
        (3, r"expected a list of token ids, got 3. Hint: stop=\[2\]"),
        ("a", "expected a list of token ids, got 'a'"),
        (["a"], "expected token ids, got 'a'.*stop_strings"),
        ([1.5], "expected an int, got 1.5"),
    ],
)
def test_stops_that_are_not_token_ids(adder: LanguageModel, stop: Any, message: str) -> None:
    with pytest.raises(OperandError, match=f"generate: stop: {message}"):
        generate_batch(adder, [[1]], stop=stop)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (5, "got 5"),
        (None, "got None"),
        (b"12+3=", "got b'12"),
        ({"role": "user", "content": "a"}, "Hint: put the message into a list"),
        ([1, 2], "Hint: maxmod.generate.generate"),
    ],
)
def test_prompts_that_are_not_a_text(adder: LanguageModel, prompt: Any, message: str) -> None:
    with pytest.raises(OperandError, match=f"prompt: expected a str, or a list .*{message}"):
        adder.generate(prompt)


def test_token_ids_of_arrays_and_tensors(adder: LanguageModel) -> None:
    rows = np.array([[1, 10, 1, 11], [2, 10, 1, 11]])
    expected = list(generate_batch(adder, rows.tolist()))
    assert list(generate_batch(adder, rows)) == expected
    assert list(generate_batch(adder, list(rows.astype(np.int32)))) == expected


def test_the_adder_names_the_model(adder: LanguageModel) -> None:
    with pytest.raises(ModelError, match="know the character 'h'.* comes with maxmod.*--model"):
        adder.generate("hello")


# ---- the ends of texts ---------------------------------------------------------------------------


def test_both_end_tokens_stop(tmp_path: Path) -> None:
    """That of config.json ends texts, that of the tokenizer ends chats."""
    folder = Path(shutil.copytree(CHAT, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"eos_token_id": 5}))
    expected = open_tokenizer(folder).encode("<|end|>", special=False)
    assert len(expected) == 1
    assert load_model(folder, device=CPU()).stop == {5, *expected}
    (folder / "generation_config.json").write_text('{"eos_token_id": [7, 9]}')
    assert load_model(folder, device=CPU()).stop == {7, 9, *expected}


def test_special_tokens_as_stop_strings(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [*model.tokenizer.encode("yes"), 0, *model.tokenizer.encode("\nuser: more")]
    monkeypatch.setattr("maxmod.generate.loop.generate", lambda *_, **__: iter(tokens))
    assert model.generate("a") == "yes\nuser: more"
    assert model.generate("a", stop_strings=["<|endoftext|>"]) == "yes"
    assert "".join(model.stream("a", stop_strings=["s<|endoftext|>\n"])) == "ye"


def test_stop_strings_of_a_batch(model: LanguageModel) -> None:
    """Each sequence ends with the token that completes a stop string, and the others go on."""
    first, second = GOLDEN[:2]
    options = {"max_new_tokens": 12, "stop": [], "eager": True}
    prompts = [first["prompt_ids"], second["prompt_ids"]]
    rows = [list(row) for row in zip(*generate_batch(model, prompts, **options))]
    texts = [model.tokenizer.decode(row) for row in rows]
    pairs = (texts[0][at : at + 2] for at in range(2, len(texts[0])))
    stop = next(pair for pair in pairs if pair not in texts[1])
    found = list(zip(*generate_batch(model, prompts, stop_strings=[stop], **options)))
    kept = [token for token in found[0] if token is not None]
    assert kept == rows[0][: len(kept)]
    decoded = [model.tokenizer.decode(kept[:count]) for count in (len(kept) - 1, len(kept))]
    assert [stop in text for text in decoded] == [False, True]
    assert list(found[1]) == rows[1]
    assert list(generate(model, prompts[0], stop_strings=[stop], **options)) == kept


def test_special_tokens_as_stop_strings_of_a_batch(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = [[41, 41], [0, 42], [43, 0], [44, 44]]
    monkeypatch.setattr(Decoder, "keep", lambda self, kept: None)
    left = [[row[1]] if place > 1 else row for place, row in enumerate(script)]
    monkeypatch.setattr(Decoder, "next_tokens", lambda self: left.pop(0))
    options = {"stop": [], "stop_strings": ["<|endoftext|>"], "max_new_tokens": 4}
    assert list(generate_batch(model, [[5], [6]], **options)) == [[41, 41], [0, 42], [None, 0]]


def test_continuations_and_answers(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A continuation begins with its space; an answer is a text of its own."""
    write_whole(tmp_path, sentence_pieces(), tokenizer_config={"chat_template": "Paris"})
    other = replace(model, folder=tmp_path)
    new = other.tokenizer.encode("Paris is", special=False)
    monkeypatch.setattr("maxmod.generate.loop.generate", lambda *_, **__: iter(new))
    assert other.generate("Paris") == " Paris is"
    assert other.generate([{"role": "user", "content": "Hello"}]) == "Paris is"
