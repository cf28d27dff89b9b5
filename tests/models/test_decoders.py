"""The decoders of `maxmod.models.decoders` against logits that transformers computed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulated_cuda import emulated_cuda
from models.folders import ASSETS, DECODERS, copy, golden

from maxmod import CPU, Device, DType, Tensor
from maxmod.errors import ModelError
from maxmod.generate import generate
from maxmod.models import LanguageModel, load_model
from maxmod.models.decoders.blocks import DecoderModel
from maxmod.models.rope_scaling import Positions, read_rope

RELATIVE = 1e-4  # of the largest logit, in float32

pytestmark = pytest.mark.usefixtures("unoptimised_host_kernels")


def _close(found: np.ndarray, expected: np.ndarray) -> None:
    atol = RELATIVE * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def _float32(folder: Path, device: Device | None = None) -> LanguageModel:
    return load_model(folder, device=device or CPU(), dtype=DType.float32)


@pytest.mark.parametrize("folder", DECODERS, ids=lambda folder: folder.name)
def test_logits(folder: Path) -> None:
    module = _float32(folder).module
    for tokens, expected in golden(folder):
        _close(module(Tensor(tokens, device=CPU())).to_numpy(), expected)


@pytest.mark.parametrize("folder", DECODERS, ids=lambda folder: folder.name)
def test_bfloat16(folder: Path) -> None:
    """No further from float32 than twice what transformers is in bfloat16."""
    model = load_model(folder, device=CPU())
    assert model.dtype is DType.bfloat16
    with np.load(folder / "golden.npz") as data:
        halves = [data[f"half_{i}"] for i in range(3)]
    for (tokens, expected), half in zip(golden(folder), halves):
        found = model.module(Tensor(tokens, device=CPU())).cast(DType.float32).to_numpy()
        theirs = np.sqrt(np.mean((half - expected) ** 2))
        scale = np.abs(expected).max()
        assert np.sqrt(np.mean((found - expected) ** 2)) < 2 * theirs + 1e-3 * scale


def _one_by_one(model: LanguageModel, rows: list[np.ndarray], prompts: list[int]) -> None:
    """Rows of several lengths in one cache, compiled, against each row read at once."""
    longest = max(prompts)
    cache = model.empty_cache([longest - length for length in prompts], longest + 3)
    first = np.full((len(rows), longest), 3)
    for line, row, length in zip(first, rows, prompts):
        line[longest - length :] = row[:length]
    nexts = [np.array([[row[n + i]] for row, n in zip(rows, prompts)]) for i in range(2)]
    found = [model.next_logits_cached(step, cache) for step in (first, *nexts)]
    for index, (row, length) in enumerate(zip(rows, prompts)):
        tokens = Tensor(row[None], dtype=DType.int64, device=CPU()).to(model.device)
        whole = model.module(tokens).to(CPU()).to_numpy()[0, length - 1 :]
        _close(np.array([logits[index] for logits in found]), whole)


def _rows(model: LanguageModel, prompts: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, model.vocab_size, length + 2) for length in prompts]


@pytest.mark.parametrize("folder", DECODERS, ids=lambda folder: folder.name)
def test_token_by_token_in_a_batch(folder: Path) -> None:
    model, prompts = _float32(folder), [4, 9, 1]
    _one_by_one(model, _rows(model, prompts), prompts)


# Neighbouring pairs and norms of heads; a part of each head; no rotation, and norms after.
@pytest.mark.parametrize("name", ["cohere", "phi3", "opt_350m"])
def test_emulated_cuda(name: str) -> None:
    with emulated_cuda() as (device, _):
        model, prompts = _float32(ASSETS / "decoders" / name, device), [2, 6]
        _one_by_one(model, _rows(model, prompts), prompts)


def test_greedy_tokens_follow_the_logits() -> None:
    model = _float32(ASSETS / "decoders" / "olmo3")
    prompt = [5, 9, 2, 31]
    tokens = list(prompt)
    for _ in range(6):
        rows = Tensor(np.array([tokens]), dtype=DType.int64, device=CPU())
        tokens.append(int(model.module(rows).to_numpy()[0, -1].argmax()))
    assert list(generate(model, prompt, max_new_tokens=6, stop=())) == tokens[4:]


# ---- configurations ------------------------------------------------------------------------------


def test_layers_without_positions_forget_the_order() -> None:
    model = load_model(ASSETS / "decoders" / "smollm3", device=CPU())
    assert isinstance(model.module, DecoderModel)
    assert [block.self_attn.rotates for block in model.module.layers] == [True, False]


def test_longrope_ends_where_other_factors_begin() -> None:
    model = load_model(ASSETS / "decoders" / "phi3", device=CPU())
    assert model.max_positions == 24


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("phi3", {"partial_rotary_factor": 2.0, "rope_parameters": None}, "expected at most 1"),
        ("olmo2", {"partial_rotary_factor": 0.5}, "partial_rotary_factor.*not supported"),
        ("granite", {"logits_scaling": 0}, "logits_scaling: expected another number than 0"),
        ("smollm3", {"no_rope_layers": [1]}, "no_rope_layers: expected 2 times 0 or 1"),
        ("cohere2", {"layer_types": ["all"] * 2}, "layer_types: expected 2 times one of full"),
        ("olmo3", {"rope_parameters": {"rope_type": "yarn"}}, "rope_parameters: expected an obj"),
        ("pythia", {"num_attention_heads": 5}, "is not a multiple of num_attention_heads=5"),
        ("starcoder2", {"hidden_act": "mish"}, "hidden_act: expected one of"),
        ("opt", {"word_embed_proj_dim": 0}, "sizes must be above 0"),
        ("ministral", {"sliding_window": 0}, "sizes must be above 0"),
        (
            "ministral3",
            {"rope_parameters": {"rope_type": "yarn", "original_max_position_embeddings": 8}},
            "llama_4_scaling_beta: expected a number above 0, got None",
        ),
    ],
)
def test_refused_configurations(
    name: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    folder = copy(ASSETS / "decoders" / name, tmp_path / "m", **changes)
    with pytest.raises(ModelError, match=message):
        load_model(folder, device=CPU())


@pytest.mark.parametrize(
    ("scaling", "message"),
    [
        ({"rope_type": "longrope", "short_factor": [1.0]}, "missing field 'long_factor'"),
        (
            {"rope_type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1.0] * 4},
            "short_factor: expected 4 numbers, one for each pair, got 3",
        ),
        ({"rope_type": "longrope", "short_factor": 1, "long_factor": []}, "expected a list, got 1"),
        ({"rope_type": "yarn", "truncate": 1}, "truncate: expected true or false, got 1"),
        ({"rope_type": "yarn", "beta_fast": -1}, "beta_fast: expected a number above 0, got -1"),
        ({"rope_type": "yarn", "rope_theta": 1.0}, "expected another number than 1"),
        ({"rope_type": "dynamic"}, "missing field 'factor'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor: expected 1, got 0.5"),
    ],
)
def test_refused_scalings(scaling: dict[str, object], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        read_rope(8, None, scaling, Positions(64))
