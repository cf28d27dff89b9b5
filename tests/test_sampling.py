"""Sampling: probabilities as transformers computes them, and draws that have them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from maxmod.errors import ArgumentError, ModelError
from maxmod.sampling import Sampler, Sampling, candidates

GOLDEN = json.loads((Path(__file__).parent / "assets" / "llama" / "sampling.json").read_text())
LOGITS = np.array(GOLDEN["logits"])
SEEN = np.unique(GOLDEN["seen"])


def _probabilities(logits: np.ndarray, options: Sampling, seen: np.ndarray) -> np.ndarray:
    tokens, weights = candidates(logits, options, seen)
    result = np.zeros(len(logits))
    result[tokens] = weights
    return result


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["options"]))
def test_probabilities(case: dict) -> None:
    found = _probabilities(LOGITS, Sampling(**case["options"]), SEEN)
    np.testing.assert_allclose(found, case["probabilities"], rtol=1e-9, atol=1e-15)
    assert ((found > 0) == (np.array(case["probabilities"]) > 0)).all()


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["options"]))
def test_draws_have_the_probabilities(case: dict) -> None:
    """A chi-square test of 20000 draws with a fixed seed.

    Tokens that are expected less than 10 times are counted together. The bound is the value that a
    chi-square variable exceeds once in a million times, by the approximation of E. B. Wilson and
    M. M. Hilferty (1931).
    """
    count = 20_000
    expected = np.array(case["probabilities"]) * count
    sampler = Sampler(Sampling(**case["options"], seed=7), GOLDEN["seen"])
    sampler._remember = lambda token: None  # each draw is the first one
    drawn = np.bincount([sampler.choose(LOGITS) for _ in range(count)], minlength=len(LOGITS))
    assert not drawn[expected == 0].any()
    often = expected >= 10
    found = np.append(drawn[often], drawn[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    found, wanted = found[wanted > 0], wanted[wanted > 0]
    freedom = len(found) - 1
    if freedom == 0:
        assert found[0] == count
        return
    statistic = ((found - wanted) ** 2 / wanted).sum()
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 4.753 * np.sqrt(spread)) ** 3


def test_seeds_and_rows_decide() -> None:
    def draws(seed: int, row: int) -> list[int]:
        sampler = Sampler(Sampling(temperature=2.0, seed=seed), [], row)
        return [sampler.choose(LOGITS) for _ in range(20)]

    assert draws(3, 0) == draws(3, 0)
    assert len({tuple(draws(seed, row)) for seed in (0, 3) for row in (0, 1)}) == 4


def test_ties() -> None:
    """All tokens as likely as the last one are kept by top-k; one of equals is kept by top-p."""
    logits = np.array([1.0, 2.0, 2.0, 2.0, 0.0])
    tokens, weights = candidates(logits, Sampling(temperature=1.0, top_k=2), SEEN[:0])
    assert tokens.tolist() == [1, 2, 3]
    np.testing.assert_allclose(weights, 1 / 3)
    tokens, _ = candidates(np.zeros(8), Sampling(temperature=1.0, top_p=0.25), SEEN[:0])
    assert len(tokens) == 2
    assert Sampler(Sampling(), []).choose(np.zeros(4)) == 0


def test_at_least_one_token_is_left() -> None:
    options = Sampling(temperature=1.0, top_k=10**9, top_p=1e-300, min_p=1.0)
    tokens, weights = candidates(LOGITS, options, SEEN)
    assert tokens.tolist() == [LOGITS.argmax()]
    assert weights.tolist() == [1.0]


def test_infinities() -> None:
    logits = np.array([-np.inf, 1.0, -np.inf, 1.0])
    tokens, weights = candidates(logits, Sampling(temperature=0.5, min_p=0.1), SEEN[:0])
    assert tokens.tolist() == [1, 3]
    np.testing.assert_allclose(weights, 0.5)


def test_tiny_temperatures_are_greedy() -> None:
    sampler = Sampler(Sampling(temperature=1e-300), [])
    assert {sampler.choose(LOGITS) for _ in range(10)} == {int(LOGITS.argmax())}


def test_tokens_that_were_chosen_count_as_repeated() -> None:
    logits = np.array([2.0, 1.5, 1.2, -3.0])
    sampler = Sampler(Sampling(repetition_penalty=2.0), [])
    assert [sampler.choose(logits) for _ in range(4)] == [0, 1, 2, 0]
    sampler = Sampler(Sampling(repetition_penalty=2.0), [0])
    assert sampler.choose(logits) == 1
    # A negative logit moves away from 0 as well.
    negative = np.array([-1.0, -1.5])
    assert Sampler(Sampling(repetition_penalty=2.0), [0]).choose(negative) == 1
    np.testing.assert_array_equal(logits, [2.0, 1.5, 1.2, -3.0])  # not changed in place


def test_nan() -> None:
    for options in (Sampling(), Sampling(temperature=1.0)):
        with pytest.raises(ModelError, match="the logits are NaN"):
            Sampler(options, []).choose(np.array([0.0, np.nan, 1.0]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.5}, "temperature: expected 0 or more, got -0.5"),
        ({"temperature": float("nan")}, "temperature: expected 0 or more, got nan"),
        ({"temperature": float("inf")}, "temperature: expected 0 or more, got inf"),
        ({"top_k": -1}, "top_k: expected 0 or more, got -1"),
        ({"top_p": 0.0}, "top_p: expected above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p: expected above 0 and at most 1, got 1.5"),
        ({"min_p": -0.1}, "min_p: expected 0 to 1, got -0.1"),
        ({"min_p": float("nan")}, "min_p: expected 0 to 1, got nan"),
        ({"repetition_penalty": 0.0}, "repetition_penalty: expected above 0, got 0.0"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Sampling(**options)
