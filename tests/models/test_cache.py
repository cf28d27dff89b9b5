"""A cached forward gives what an uncached one gives, token by token, for every model."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
from models.folders import ASSETS, GPT2, LLAMA

from maxmod import CPU, Device, DType, Tensor
from maxmod.compiler.steps import RunKernel, RunOp
from maxmod.generate.kv_cache import KVCache
from maxmod.models import LanguageModel, load_model

ALL = GPT2 + LLAMA
TOLERANCE = 3e-5  # of the largest logit: sums in another order


def _model(folder: Path, device: Device | None = None) -> LanguageModel:
    return load_model(folder, device=device or CPU(), dtype=DType.float32)


def _whole(model: LanguageModel, tokens: np.ndarray) -> np.ndarray:
    """The logits after each token, read at once: [batch, seq, vocab]."""
    return np.array(model.module(Tensor(tokens, dtype=DType.int64).to(model.device)))


def _tokens(model: LanguageModel, batch: int, seq: int) -> np.ndarray:
    return np.random.default_rng(seq).integers(0, model.vocab_size, (batch, seq))


def _close(found: np.ndarray, expected: np.ndarray) -> None:
    atol = TOLERANCE * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


# They differ from `tied` and `llama32` in sizes, in the form of their files and in the numbers of
# their positions only, so that compiling them proves nothing new.
ALIKE = {"bfloat16", "with_tokenizer", "llama31_old_config", "linear_scaling", "chat"}
COMPILED = [folder for folder in ALL if folder.name not in ALIKE]


def _ids(folders: list[Path]) -> list[str]:
    return [f"{folder.parent.name}-{folder.name}" for folder in folders]


CASES = [
    pytest.param(folder, eager, id=f"{name}-{eager}")
    for folder, name in zip(ALL, _ids(ALL))
    for eager in ([False, True] if folder in COMPILED else [True])
]


@pytest.mark.parametrize(("folder", "eager"), CASES)
def test_token_by_token(folder: Path, eager: bool) -> None:
    """Prompts of several lengths, then one token at a time up to the last position."""
    model = _model(folder)
    count = min(model.max_positions, 24)
    tokens = _tokens(model, 1, count)
    whole = _whole(model, tokens)[0]
    for prompt in (1, 5):
        cache = model.empty_cache([0], count)
        steps = [tokens[:, :prompt], *(tokens[:, i : i + 1] for i in range(prompt, count))]
        found = [model.next_logits_cached(step, cache, eager=eager)[0] for step in steps]
        _close(np.array(found), whole[prompt - 1 :])
        assert cache.used.item() == count


def test_on_each_device(device: Device) -> None:
    model = _model(ASSETS / "llama" / "qwen2", device)
    tokens = _tokens(model, 1, 7)
    cache = model.empty_cache([0], 8)
    model.next_logits_cached(tokens[:, :6], cache)
    found = model.next_logits_cached(tokens[:, 6:], cache)
    assert cache.keys[0].device == device
    _close(found[0], _whole(model, tokens)[0, -1])


def test_several_tokens_after_others() -> None:
    model = _model(ASSETS / "llama" / "mistral")
    tokens = _tokens(model, 1, 20)
    cache = model.empty_cache([0], 20)
    for part in np.split(tokens, [3, 4, 11], axis=1):
        found = model.next_logits_cached(part, cache)
    _close(found[0], _whole(model, tokens)[0, -1])


# Compiled: learned positions, rotary ones, and layers with and without a window and bounds.
SEVERAL = ["gpt2/tied", "llama/llama32", "llama/gemma2"]


@pytest.mark.parametrize(
    ("name", "eager"),
    [
        *((name, False) for name in SEVERAL),
        *((name, True) for name in (*SEVERAL, "llama/mistral", "llama/qwen3", "llama/gemma3")),
    ],
)
def test_sequences_of_several_lengths_in_a_batch(name: str, eager: bool) -> None:
    model = _model(ASSETS / name)
    lengths = [4, 9, 1]
    rows = [_tokens(model, 1, length + 2)[0] for length in lengths]
    cache = model.empty_cache([9 - length for length in lengths], 16)
    prompts = np.full((3, 9), 5)
    for prompt, row, length in zip(prompts, rows, lengths):
        prompt[9 - length :] = row[:length]
    steps = [prompts, *(np.array([[r[n + i]] for r, n in zip(rows, lengths)]) for i in range(2))]
    found = [model.next_logits_cached(step, cache, eager=eager) for step in steps]
    for index, (row, length) in enumerate(zip(rows, lengths)):
        expected = _whole(model, row[None])[0, length - 1 :]
        _close(np.array([logits[index] for logits in found]), expected)


def test_tokens_of_the_padding_do_not_matter() -> None:
    model = _model(ASSETS / "llama" / "llama2")
    results = []
    for filler in (0, 60):
        cache = model.empty_cache([3, 0], 6)
        tokens = _tokens(model, 2, 5)
        tokens[0, :3] = filler
        results.append(model.next_logits_cached(tokens, cache))
    np.testing.assert_array_equal(*results)


def test_half_types() -> None:
    model = load_model(ASSETS / "llama" / "llama32", device=CPU())
    tokens = _tokens(model, 1, 9)
    cache = model.empty_cache([0], 12)
    assert cache.keys[0].dtype is DType.bfloat16
    found = [model.next_logits_cached(part, cache) for part in np.split(tokens, [6, 7, 8], axis=1)]
    wide = _whole(_model(model.folder), tokens)[0]
    half = np.array(model.module(Tensor(tokens, device=CPU())).cast(DType.float32))[0]
    bound = 3 * np.abs(half - wide).max()
    np.testing.assert_allclose([f[0] for f in found], wide[5:], rtol=0, atol=bound)


# ---- the cache -----------------------------------------------------------------------------------


def test_two_compiles_serve_all_lengths() -> None:
    model = _model(ASSETS / "llama" / "qwen2")
    tokens = _tokens(model, 1, 12)
    for prompt in (2, 5, 7):
        cache = model.empty_cache([0], 12)
        model.next_logits_cached(tokens[:, :prompt], cache)
        for at in range(prompt, 12):
            model.next_logits_cached(tokens[:, at : at + 1], cache)
    assert len(model._steps) == 2
    assert model.step(logits=True).stats.programs == 1  # the position is not part of it
    assert model.step(seq=9, logits=True).stats.programs == 3


def test_a_step_changes_the_cache_in_place() -> None:
    model = _model(ASSETS / "llama" / "qwen2")
    steps = model.step(logits=True)._schedule.steps
    targets = [n for step in steps for n in getattr(step, "targets", ())]
    assert sum(n >= 0 for n in targets) == 5  # keys and values of two layers, and their number
    cache = model.empty_cache([0], 5)
    before = [rows.data for rows in cache.keys + cache.values]
    model.next_logits_cached(np.array([[3]]), cache)
    for rows, memory in zip(cache.keys + cache.values, before):
        assert rows.data is memory
        assert np.abs(memory[:, :, 0]).max() > 0
        assert np.abs(memory[:, :, 1:]).max() == 0


@pytest.mark.parametrize("folder", COMPILED, ids=_ids(COMPILED))
def test_a_step_multiplies_with_each_weight_once(folder: Path) -> None:
    """And runs nothing but kernels and stores: it is limited by reading the weights."""
    plan = _model(folder).step()._schedule
    names = {slot: name for name, slot in plan.weights.items()}
    readers: dict[str, list[str]] = {}
    for step in plan.steps:
        if isinstance(step, RunOp):
            assert step.is_view or step.in_place, step.op.name
        for slot in step.inputs:
            if isinstance(step, RunOp) and step.is_view and slot in names:
                names[step.outputs[0]] = names[slot]
            elif isinstance(step, RunKernel) and slot in names:
                readers.setdefault(names[slot], []).append(plan.kernels[step.kernel].name)
    assert len(readers) > 10
    for name, found in readers.items():
        assert sum("matmul" in kernel for kernel in found) <= 1, (name, found)


@pytest.mark.parametrize("eager", [False, True])
def test_a_full_cache(eager: bool) -> None:
    model = _model(ASSETS / "llama" / "qwen2")
    cache = model.empty_cache([0], 3)
    model.next_logits_cached(np.array([[1, 2, 3]]), cache, eager=eager)
    with pytest.raises(IndexError, match="3:4 is out of range for an axis of size 3"):
        model.next_logits_cached(np.array([[4]]), cache, eager=eager)


def test_longer_caches_and_parts_of_a_batch() -> None:
    model = _model(ASSETS / "llama" / "qwen2")
    tokens = _tokens(model, 3, 8)
    cache = model.empty_cache([0, 2, 0], 6)
    model.next_logits_cached(tokens[:, :6], cache)
    before = weakref.ref(cache.keys[0])
    cache.lengthen(9)
    assert before() is None  # the shorter buffers are not kept
    chosen = cache.select([2, 1])
    assert [int(size) for size in chosen.keys[0].shape] == [2, 2, 9, 6]
    found = model.next_logits_cached(tokens[[2, 1], 6:7], chosen)
    _close(found[0], _whole(model, tokens[2:, :7])[0, -1])
    _close(found[1], _whole(model, tokens[1:2, 2:7])[0, -1])
    assert cache.used.item() == 6  # copies


def test_types_of_a_cache() -> None:
    model = _model(ASSETS / "llama" / "qwen3")
    types = KVCache.types(model.cache_shape, "batch", model.dtype, model.device)
    assert types.keys[1].short() == "float32[batch,1,length,12]"
    assert types.used.short() == "int64[]"
