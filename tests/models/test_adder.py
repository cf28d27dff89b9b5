"""The embedded model adds, also numbers that it never saw."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from models.folders import relative_error

from maxmod import CPU
from maxmod.models import LanguageModel, adder_folder, load_model

OPTIMISED = True  # a thousand problems take longer than the compiler
HELD_OUT = Path(__file__).parents[1] / "assets" / "adder_held_out.json"


@pytest.fixture(scope="module")
def adder() -> LanguageModel:
    return load_model(adder_folder(), device=CPU())


def _answers(model: LanguageModel, prompts: list[str]) -> dict[str, str]:
    """Continues many prompts greedily; those of one length go through the model together."""
    groups: dict[int, list[str]] = defaultdict(list)
    for prompt in prompts:
        groups[len(prompt)].append(prompt)
    (end,) = model.stop
    found: dict[str, str] = {}
    for group in groups.values():
        tokens = np.array([model.tokenizer.encode(prompt) for prompt in group])
        length = tokens.shape[1]
        for _ in range(5):  # four digits and the end
            best = model.next_logits(tokens).argmax(axis=-1)
            tokens = np.concatenate([tokens, best[:, None]], axis=1)
        for prompt, row in zip(group, tokens[:, length:].tolist()):
            answer = row[: row.index(end)] if end in row else row
            found[prompt] = model.tokenizer.decode(answer)
    return found


def test_held_out_problems(adder: LanguageModel) -> None:
    problems = json.loads(HELD_OUT.read_text("utf-8"))
    assert len({tuple(pair) for pair in problems}) == 1000
    expected = {f"{a}+{b}=": str(a + b) for a, b in problems}
    found = _answers(adder, list(expected))
    right = sum(found[prompt] == answer for prompt, answer in expected.items())
    assert right >= 990


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [("123+456=", "579"), ("0+0=", "0"), ("7+5=", "12"), ("999+999=", "1998"), ("1+99=", "100")],
)
def test_known_answers(adder: LanguageModel, prompt: str, answer: str) -> None:
    assert _answers(adder, [prompt])[prompt] == answer


# Errors that were measured are half of these limits or less.
@pytest.mark.parametrize(("scheme", "group", "limit"), [("int8", None, 0.02), ("int4", 64, 0.2)])
def test_the_adder_still_adds(scheme: str, group: int | None, limit: float) -> None:
    problems = json.loads(HELD_OUT.read_text("utf-8"))
    expected = {f"{a}+{b}=": str(a + b) for a, b in problems}
    floats = load_model(adder_folder(), device=CPU())
    rounded = load_model(adder_folder(), device=CPU(), quantize=scheme, group_size=group)
    found = _answers(rounded, list(expected))
    assert sum(found[prompt] == answer for prompt, answer in expected.items()) >= 990
    tokens = [floats.tokenizer.encode(f"{a}+{b}=") for a, b in problems if a > 99 and b > 99]
    wanted, logits = floats.next_logits(tokens), rounded.next_logits(tokens)
    assert 0 < relative_error(logits, wanted) < limit
    assert np.mean(wanted.argmax(axis=-1) == logits.argmax(axis=-1)) >= 0.99


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in adder_folder().iterdir()) < 1_000_000
