"""Sampling: probabilities as transformers computes them, and draws that have them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cuda_shim
import numpy as np
import pytest
from emulated_cuda import emulated_cuda
from ops.samples_choose import OPTIONS, probabilities

from maxmod import CPU, DType, Tensor, TensorType
from maxmod.backends.devices import Device
from maxmod.errors import ArgumentError, OperandError
from maxmod.generate.sampling import Sampler, Sampling
from maxmod.nn import Module
from maxmod.ops.choose import candidates
from maxmod.values.device import CPU_REF

GOLDEN = json.loads((Path(__file__).parent / "assets" / "llama" / "sampling.json").read_text())
LOGITS = np.array(GOLDEN["logits"], np.float32)
VOCAB = len(LOGITS)


class Choosing(Module):
    """A step that is given its logits."""

    def forward(self, sampler: Sampler, logits: Tensor) -> None:
        sampler.choose(logits)


@pytest.fixture(scope="module", params=["eager", "compiled", "cuda"])
def place(request: pytest.FixtureRequest) -> Iterator[tuple[Device, bool]]:
    """A device, and whether ops run one by one there."""
    if request.param != "cuda":
        yield CPU(), request.param == "eager"
    elif cuda_shim.unavailable_reason():
        pytest.skip(cuda_shim.unavailable_reason())
    else:
        with emulated_cuda(runs_long=True) as (device, _):
            yield device, False


def _choices(
    place: Any, options: Sampling, prompts: Any, *steps: Any, vocab: int = VOCAB
) -> np.ndarray:
    """The tokens of each step after prompts: [steps, texts]; logits are [texts, vocab]."""
    device, eager = place
    sampler = Sampler.start(options, prompts, vocab, device.ref)
    step = Choosing()
    if not eager:
        logits = TensorType(DType.float32, ["batch", vocab], device)
        step = step.compile(Sampler.types("batch", vocab, device.ref), logits)
    found = []
    for logits in steps:
        given = np.broadcast_to(np.asarray(logits, np.float32), (len(prompts), vocab))
        step(sampler, Tensor(np.ascontiguousarray(given), device=CPU()).to(device))
        found.append(sampler.tokens.to(CPU()).to_numpy()[:, 0].copy())
    return np.array(found)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["options"]))
def test_probabilities(case: dict) -> None:
    """Those of transformers, by the op's own definition and by the oracle of the kernels."""
    wanted = np.array(case["probabilities"])
    options = Sampling(**case["options"])
    numbers = (options.temperature, options.top_k, options.top_p, options.min_p)
    logits = np.array(GOLDEN["logits"])
    for token in set(GOLDEN["seen"]):
        penalty = options.repetition_penalty
        logits[token] *= penalty if logits[token] < 0 else 1 / penalty
    tokens, weights = candidates(np, logits, *numbers)
    found = np.zeros(VOCAB)
    found[tokens] = weights
    for result in (found, probabilities(logits, numbers)):
        np.testing.assert_allclose(result, wanted, rtol=1e-9, atol=1e-15)
        assert ((result > 0) == (wanted > 0)).all()


# Draws of a chi-square test, on the device where they are cheap; elsewhere the first of them.
DRAWS, FEW_DRAWS = 20_000, 150


@functools.cache
def _draws(case: int) -> np.ndarray:
    """The tokens that the compiled kernel of the host draws, from a fixed seed."""
    options = Sampling(**GOLDEN["cases"][case]["options"], seed=7)
    return _choices((CPU(), False), options, [GOLDEN["seen"]] * DRAWS, LOGITS)[0]


CASES = pytest.mark.parametrize(
    "case", range(len(GOLDEN["cases"])), ids=[str(case["options"]) for case in GOLDEN["cases"]]
)


@CASES
def test_draws_have_the_probabilities(case: int) -> None:
    """A chi-square test of draws with a fixed seed.

    Tokens that are expected less than 10 times are counted together. The bound is the value that a
    chi-square variable exceeds once in a million times, by the approximation of E. B. Wilson and
    M. M. Hilferty (1931).
    """
    expected = np.array(GOLDEN["cases"][case]["probabilities"]) * DRAWS
    drawn = np.bincount(_draws(case), minlength=VOCAB)
    assert not drawn[expected == 0].any()
    often = expected >= 10
    counts = np.append(drawn[often], drawn[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    counts, wanted = counts[wanted > 0], wanted[wanted > 0]
    freedom = len(counts) - 1
    if freedom == 0:
        assert counts[0] == DRAWS
        return
    statistic = ((counts - wanted) ** 2 / wanted).sum()
    spread = 2 / (9 * freedom)
    assert statistic < freedom * (1 - spread + 4.753 * np.sqrt(spread)) ** 3


@CASES
def test_draws_are_equal_everywhere(place: Any, case: int) -> None:
    """Draws of every device are the ones that have the probabilities."""
    options = Sampling(**GOLDEN["cases"][case]["options"], seed=7)
    found = _choices(place, options, [GOLDEN["seen"]] * FEW_DRAWS, LOGITS)
    np.testing.assert_array_equal(found[0], _draws(case)[:FEW_DRAWS])


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_tokens_are_equal_everywhere(place: Any, options: Any) -> None:
    """And those of the definition, with the random numbers of NumPy."""
    names = ("temperature", "top_k", "top_p", "min_p")
    settings = dict(zip(names, options))
    steps = np.random.default_rng(1).normal(scale=2, size=(3, 2, VOCAB)).astype(np.float32)
    found = _choices(place, Sampling(seed=9, **settings), [[1], [2]], *steps)
    for text in range(2):
        for step, logits in enumerate(steps[:, text]):
            if np.float32(options[0]) == 0:
                assert found[step, text] == logits.argmax()
                continue
            bits = np.random.Philox(key=9).advance(((text << 32) + step) // 4)
            word = int(bits.random_raw(4)[step % 4])
            reached = np.cumsum(probabilities(logits, options))
            assert found[step, text] == np.argmax(reached > (word >> 11) * 2.0**-53 * reached[-1])


def test_seeds_and_texts_decide(place: Any) -> None:
    def draws(seed: int, texts: int) -> list[tuple[int, ...]]:
        options = Sampling(temperature=2.0, seed=seed)
        found = _choices(place, options, [[0]] * texts, *[LOGITS] * 20)
        return [tuple(column) for column in found.T]

    assert draws(3, 2) == draws(3, 2)
    assert draws(3, 1) == draws(3, 2)[:1]
    assert draws(3 + 2**64, 1) == draws(3, 1)
    assert len({*draws(0, 2), *draws(3, 2), *draws(2**63, 2)}) == 6


def test_some_texts_go_on() -> None:
    """The tokens drawn for one text do not depend on the others."""
    options = Sampling(temperature=2.0, repetition_penalty=3.0, seed=5)
    rows = np.random.default_rng(2).normal(size=(3, VOCAB)).astype(np.float32)
    sampler = Sampler.start(options, [[0], [1], [2]], VOCAB, CPU_REF)
    sampler.choose(Tensor(rows, device=CPU()))
    some = sampler.select([2, 0])
    for _ in range(5):
        some.choose(Tensor(rows[[2, 0]], device=CPU()))
        sampler.choose(Tensor(rows, device=CPU()))
        assert (some.tokens.to_numpy() == sampler.tokens.to_numpy()[[2, 0]]).all()
        assert (some.seen.to_numpy() == sampler.seen.to_numpy()[[2, 0]]).all()


def test_tiny_temperatures_are_greedy(place: Any) -> None:
    for temperature in (1e-300, 1e-30, 1e-6):
        found = _choices(place, Sampling(temperature=temperature), [[0]] * 10, LOGITS)
        assert set(found[0].tolist()) == {int(LOGITS.argmax())}


def test_top_k_beyond_the_vocabulary(place: Any) -> None:
    options = {"temperature": 2.0, "seed": 4}
    all_of_them = _choices(place, Sampling(**options), [[0]] * 20, LOGITS)
    for top_k in (VOCAB, VOCAB + 1, 10**400):
        found = _choices(place, Sampling(top_k=top_k, **options), [[0]] * 20, LOGITS)
        assert (found == all_of_them).all()


def test_tokens_that_were_chosen_count_as_repeated(place: Any) -> None:
    logits = [2.0, 1.5, 1.2, -3.0]
    options = Sampling(repetition_penalty=2.0)
    found = _choices(place, options, [[3], [0]], *[logits] * 4, vocab=4)
    assert found.T.tolist() == [[0, 1, 2, 0], [1, 2, 0, 0]]
    # A negative logit moves away from 0 as well.
    assert _choices(place, options, [[0]], [-1.0, -1.5], vocab=2) == [[1]]


NAN, INF = float("nan"), float("inf")


def test_options_without_a_meaning_give_no_token(place: Any) -> None:
    """The kernel is data-driven and cannot raise; -1 is what the decoder refuses."""
    device, eager = place
    step = Choosing()
    if not eager:
        logits = TensorType(DType.float32, ["batch", VOCAB], device)
        step = step.compile(Sampler.types("batch", VOCAB, device.ref), logits)
    given = Tensor(np.stack([LOGITS] * 2), device=CPU()).to(device)
    for place_of, values in enumerate(
        [(NAN, -1.0, -1e-300, INF, 1e39), (NAN, -1.0), (NAN, -0.5, 1.5), (NAN, -0.1, 1.1)]
    ):
        for value in values:
            numbers = np.array([1.0, 3.0, 0.9, 0.1])
            numbers[place_of] = value
            sampler = Sampler.start(Sampling(seed=1), [[0], [0]], VOCAB, device.ref)
            sampler.options = Tensor(numbers, device=CPU()).to(device)
            step(sampler, given)
            assert sampler.tokens.to(CPU()).to_numpy().tolist() == [[-1], [-1]], numbers
    sampler = Sampler.start(Sampling(seed=1), [[0], [0]], VOCAB, device.ref)
    sampler.options = Tensor(np.array([9.0, 0.0, 0.0, 0.0]), device=CPU()).to(device)
    step(sampler, given)  # the fewest tokens that add up to nothing are still one
    assert (sampler.tokens.to(CPU()).to_numpy() == LOGITS.argmax()).all()


def test_options_at_the_ends_of_the_ranges_give_tokens(place: Any) -> None:
    largest = float(np.finfo(np.float32).max)
    for temperature, top_p, min_p in ((largest, 1.0, 1.0), (1e-46, 5e-324, 0.0), (-0.0, 1.0, 1.0)):
        options = Sampling(temperature=temperature, top_p=top_p, min_p=min_p, seed=2)
        assert (_choices(place, options, [[0]] * 3, LOGITS) >= 0).all()


def test_nan_is_not_a_token(place: Any) -> None:
    for temperature in (0.0, 1.0):
        rows = np.zeros((3, 8), np.float32)
        rows[1, 7] = np.nan
        options = Sampling(temperature=temperature, repetition_penalty=1.5)
        (found,) = _choices(place, options, [[7], [7], [7]], rows, vocab=8)
        assert (found < 0).tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.5}, "temperature: expected a finite float32, 0 or more, got -0.5"),
        (
            {"temperature": -1e-300},
            "temperature: expected a finite float32, 0 or more, got -1e-300",
        ),
        ({"temperature": float("nan")}, "temperature: expected a finite float32, .*, got nan"),
        ({"temperature": float("inf")}, "temperature: expected a finite float32, .*, got inf"),
        ({"temperature": 1e300}, r"temperature: expected a finite float32, .*, got 1e\+300"),
        ({"top_k": -1}, "top_k: expected 0 or more, got -1"),
        ({"top_p": 0.0}, "top_p: expected above 0 and at most 1, got 0.0"),
        ({"top_p": 1.5}, "top_p: expected above 0 and at most 1, got 1.5"),
        ({"min_p": -0.1}, "min_p: expected 0 to 1, got -0.1"),
        ({"min_p": float("nan")}, "min_p: expected 0 to 1, got nan"),
        ({"repetition_penalty": 0.0}, "penalty: expected a finite float32 above 0, got 0.0"),
        ({"repetition_penalty": 1e-300}, "penalty: expected a finite float32 above 0, got 1e-300"),
        ({"repetition_penalty": 1e300}, r"penalty: expected a finite float32 above 0, got 1e\+300"),
        ({"seed": -1}, "seed: expected 0 or more, got -1"),
    ],
)
def test_options_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        Sampling(**options)


def test_numbers_of_numpy_are_numbers() -> None:
    given = Sampling(np.float32(1.5), np.float64(0.5), np.int64(3), seed=np.uint64(2**64 - 1))
    assert given == Sampling(1.5, 0.5, 3, seed=2**64 - 1)
    assert type(given.seed) is type(given.top_k) is int
    assert type(given.temperature) is type(given.repetition_penalty) is float


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": 1.5}, "generate: seed: expected an int, got 1.5"),
        ({"top_k": 2.5}, "generate: top_k: expected an int, got 2.5"),
        ({"top_k": None}, "generate: top_k: expected an int, got 'NoneType'"),
        ({"temperature": "1"}, "generate: temperature: expected a number, got str"),
        ({"min_p": [1]}, "generate: min_p: expected a number, got list"),
    ],
)
def test_options_of_another_kind(options: dict, message: str) -> None:
    with pytest.raises(OperandError, match=message):
        Sampling(**options)
