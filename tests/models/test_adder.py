"""The embedded model adds, also numbers that it never saw."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from maxmod import CPU
from maxmod.models import LanguageModel, adder_folder, load_model

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


def test_the_folder_is_small() -> None:
    assert sum(path.stat().st_size for path in adder_folder().iterdir()) < 1_000_000
