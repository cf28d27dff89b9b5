"""Llama and its relatives against logits that transformers computed; what config.json may say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from models.folders import ASSETS, LLAMA, copy, golden

from maxmod import CPU, Device, DType, Tensor
from maxmod.errors import ModelError
from maxmod.models import load_model
from maxmod.models.config import from_table
from maxmod.models.config_fields import CONFIG
from maxmod.models.decoders import gemma
from maxmod.models.rope_scaling import rope_frequencies
from maxmod.models.rotary import RotaryTable
from maxmod.weights import merge, open_checkpoint, save_state

FOLDER = ASSETS / "llama"
RELATIVE = 1e-4  # of the largest logit, in float32
KINDS = {
    "chat",
    "gemma",
    "gemma2",
    "gemma3",
    "linear_scaling",
    "llama2",
    "llama31_old_config",
    "llama32",
    "mistral",
    "qwen2",
    "qwen3",
}


def test_all_kinds_of_folders_are_there() -> None:
    assert {folder.name for folder in LLAMA} == KINDS


@pytest.mark.parametrize("folder", LLAMA, ids=lambda folder: folder.name)
def test_logits(folder: Path, device: Device) -> None:
    model = load_model(folder, device=device, dtype=DType.float32)
    compiled = model.module.compile(model.tokens_type)
    for tokens, expected in golden(folder):
        rows = Tensor(tokens).to(device)
        eager = model.module(rows)
        assert eager.dtype is DType.float32
        atol = RELATIVE * np.abs(expected).max()
        np.testing.assert_allclose(np.array(eager), expected, rtol=0, atol=atol)
        np.testing.assert_allclose(np.array(compiled(rows)), expected, rtol=0, atol=atol)


# One of each way to norm, gate, bound and scale; the others differ in positions, in the window and
# in a bias, which are compiled in float32 above.
ROUNDED = {"chat", "gemma", "gemma2", "gemma3", "qwen3"}


@pytest.mark.parametrize("folder", LLAMA, ids=lambda folder: folder.name)
def test_bfloat16(folder: Path) -> None:
    """No further from float32 than twice what transformers is in bfloat16."""
    model = load_model(folder, device=CPU())
    assert model.dtype is DType.bfloat16
    runs = [model.module]
    if folder.name in ROUNDED:
        runs.append(model.module.compile(model.tokens_type))
    with np.load(folder / "golden.npz") as data:
        halves = [data[f"half_{i}"] for i in range(3)]
    for (tokens, expected), half in zip(golden(folder), halves):
        rows = Tensor(tokens, device=CPU())
        theirs = np.sqrt(np.mean((half - expected) ** 2))
        scale = np.abs(expected).max()
        assert theirs < 0.05 * scale
        for run in runs:
            ours = np.array(run(rows).cast(DType.float32))
            assert np.sqrt(np.mean((ours - expected) ** 2)) < 2 * theirs + 1e-3 * scale


def test_facts_of_a_model() -> None:
    model = load_model(FOLDER / "qwen3", device=CPU())
    assert (model.vocab_size, model.max_positions, model.stop) == (61, 32, {2})
    assert (model.cache_shape.layers, model.cache_shape.heads, model.cache_shape.head_dim) == (
        2,
        1,
        12,
    )


def test_tied_heads_stay_one_tensor() -> None:
    module = load_model(FOLDER / "llama32", device=CPU()).module
    assert module.lm_head.weight is module.embed_tokens.weight
    module = load_model(FOLDER / "llama2", device=CPU()).module
    assert module.lm_head.weight is not module.embed_tokens.weight


def test_the_window_hides_older_tokens() -> None:
    """Two layers with a window of 5 see at most 9 tokens; a full model sees all."""
    tokens, _ = golden(FOLDER / "mistral")[2]
    changed = tokens.copy()
    changed[:, :11] = 7
    for name, is_equal in (("mistral", True), ("llama2", False)):
        module = load_model(FOLDER / name, device=CPU(), dtype=DType.float32).module
        both = [np.array(module(Tensor(t, device=CPU())))[0, -1] for t in (tokens, changed)]
        assert np.array_equal(*both) is is_equal


def test_frequencies_in_the_file_are_left_out(tmp_path: Path) -> None:
    folder = copy(FOLDER / "llama2", tmp_path / "old")
    with open_checkpoint(FOLDER / "llama2") as checkpoint:
        extra = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}
        save_state(merge(dict(checkpoint.items()), extra), folder / "model.safetensors")
    tokens, expected = golden(folder)[1]
    model = load_model(folder, device=CPU(), dtype=DType.float32)
    found = np.array(model.module(Tensor(tokens, device=CPU())))
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


def test_fields_that_are_left_out(tmp_path: Path) -> None:
    """Old files of Llama 2 have neither the number of groups nor a base."""
    fields = ("num_key_value_heads", "head_dim", "attention_bias", "mlp_bias", "hidden_act")
    folder = copy(FOLDER / "llama2", tmp_path / "old", **dict.fromkeys(fields, ...))
    tokens, expected = golden(folder)[1]
    model = load_model(folder, device=CPU(), dtype=DType.float32)
    found = np.array(model.module(Tensor(tokens, device=CPU())))
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())
    assert load_model(copy(FOLDER / "mistral", tmp_path / "m", sliding_window=...)).config.windows()
    model = load_model(tmp_path / "m", device=CPU())
    assert model.config.windows() == [4096, 4096]


def test_layer_types_decide_about_windows(tmp_path: Path) -> None:
    kinds = ["sliding_attention", "full_attention"]
    folder = copy(FOLDER / "qwen2", tmp_path / "a", layer_types=kinds)
    assert load_model(folder, device=CPU()).config.windows() == [4, None]
    folder = copy(FOLDER / "qwen2", tmp_path / "b", layer_types=..., max_window_layers=1)
    assert load_model(folder, device=CPU()).config.windows() == [None, 4]
    folder = copy(FOLDER / "qwen2", tmp_path / "c", use_sliding_window=False)
    assert load_model(folder, device=CPU()).config.windows() == [None, None]


# ---- Gemma ---------------------------------------------------------------------------------------


def test_gemma3_in_the_newer_form(tmp_path: Path) -> None:
    """Rotations for each kind of layer."""
    parameters = {
        "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 4.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 20.0},
    }
    changes = {"rope_theta": ..., "rope_local_base_freq": ..., "rope_scaling": ...}
    changes["rope_parameters"] = parameters
    new = load_model(copy(FOLDER / "gemma3", tmp_path / "new", **changes), device=CPU())
    old = load_model(FOLDER / "gemma3", device=CPU())
    for kind, rope in old.config.ropes().items():
        np.testing.assert_array_equal(new.config.ropes()[kind].frequencies, rope.frequencies)
    np.testing.assert_array_equal(
        old.config.ropes()["full_attention"].frequencies,
        500.0 ** (-np.arange(0, 8, 2) / 8) / 4,
    )


@pytest.mark.parametrize(
    ("name", "full"), [("gemma", range(7)), ("gemma2", [1, 3, 5]), ("gemma3", [5])]
)
def test_which_layers_of_gemma_see_everything(name: str, full: Iterable[int]) -> None:
    table = json.loads((FOLDER / name / "config.json").read_text("utf-8"))
    table |= {"num_hidden_layers": 7, "layer_types": None}
    fields = gemma.DEFAULTS[table["model_type"]] | table
    known = CONFIG[table["model_type"]]
    kinds = from_table(gemma.Config, fields, "config.json", known=known).kinds()
    assert [n for n, kind in enumerate(kinds) if kind == "full_attention"] == list(full)


def test_gemma2_bounds_logits() -> None:
    tokens, expected = golden(FOLDER / "gemma2")[2]
    assert 2.5 < np.abs(expected).max() <= 3.0
    model = load_model(FOLDER / "gemma2", device=CPU(), dtype=DType.float32)
    assert np.abs(model.next_logits(tokens)).max() <= 3.0


# ---- rotary embeddings ---------------------------------------------------------------------------


def test_late_positions_are_as_exact_as_early_ones() -> None:
    frequencies = rope_frequencies(8, 10000.0, {})
    positions = np.array([0, 1, 1000, 131_071])
    x = np.random.default_rng(0).standard_normal((1, 2, 4, 8)).astype(np.float32)
    turned = RotaryTable(Tensor(positions, device=CPU()), frequencies).apply(
        Tensor(x, device=CPU())
    )
    angles = positions[:, None] * 10000.0 ** (-np.arange(0, 8, 2) / 8)
    first, second = x[..., :4].astype(np.float64), x[..., 4:].astype(np.float64)
    expected = np.concatenate(
        [
            first * np.cos(angles) - second * np.sin(angles),
            first * np.sin(angles) + second * np.cos(angles),
        ],
        axis=-1,
    )
    np.testing.assert_allclose(np.array(turned), expected, rtol=0, atol=1e-6)


def test_llama3_scaling_keeps_fast_turns_and_slows_slow_ones() -> None:
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    plain = rope_frequencies(128, 500000.0, {})
    ratio = rope_frequencies(128, 500000.0, scaling) / plain
    turns = 8192 * plain / (2 * np.pi)
    assert (ratio[turns > 4] == 1).all()
    np.testing.assert_allclose(ratio[turns < 1], 1 / 8)
    between = ratio[(turns > 1) & (turns < 4)]
    assert len(between) > 2
    assert (np.diff(between) < 0).all()
    assert 1 / 8 < between[-1] < between[0] < 1


# ---- configurations that are refused -------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("llama2", {"hidden_size": ...}, "'hidden_size' is missing"),
        ("llama2", {"hidden_size": "24"}, "'hidden_size': expected int, got \"24\""),
        ("llama2", {"hidden_size": 0}, "sizes must be above 0"),
        ("llama2", {"num_attention_heads": 0}, "sizes must be above 0"),
        ("llama2", {"num_key_value_heads": 3}, "num_attention_heads=4 is not a multiple of"),
        ("llama2", {"head_dim": None, "hidden_size": 25}, "hidden_size=25 is not a multiple of"),
        ("llama2", {"head_dim": 5}, "heads of an even size of .*, got 5"),
        ("llama2", {"hidden_act": "swish2"}, "hidden_act: expected one of gelu, .*got 'swish2'"),
        ("llama2", {"rope_scaling": {"type": "ntk", "factor": 2.0}}, "one of default, linear, ll"),
        ("llama2", {"rope_scaling": {"type": "linear"}}, "missing field 'factor' of 'linear'"),
        ("llama2", {"rope_scaling": {"type": "linear", "factor": 0}}, "a number above 0, got 0"),
        ("llama2", {"rope_scaling": {"mrope_section": [2]}}, "unknown field 'mrope_section'"),
        ("llama2", {"rope_scaling": 2.0}, "'rope_scaling': expected dict or null, got 2.0"),
        ("llama2", {"attn_logit_softcapping": 30.0}, "'attn_logit_softcapping': .*expected null"),
        ("llama2", {"logit_scale": 0.5}, "'logit_scale': .*expected null or 1, got 0.5"),
        ("llama2", {"quantization_config": {"bits": 4}}, "'quantization_config': .*got {\"bits\""),
        ("mistral", {"sliding_window": 0}, "sizes must be above 0"),
        ("qwen2", {"layer_types": ["full_attention"]}, "layer_types: expected 2 times one of"),
        ("qwen2", {"layer_types": ["full_attention", "chunked"]}, "one of full_attention, slid"),
        ("qwen2", {"layer_types": [1, []]}, "layer_types: expected 2 times"),
        (
            "gemma",
            {"hidden_act": "silu"},
            "hidden_activation: expected 'gelu_pytorch_tanh', got 'si",
        ),
        ("gemma", {"num_key_value_heads": 3}, "num_attention_heads=4 is not a multiple of"),
        ("gemma2", {"attn_logit_softcapping": -1.0}, "sizes must be above 0"),
        ("gemma2", {"use_bidirectional_attention": True}, "expected false, got true"),
        ("gemma3", {"layer_types": ["full_attention"]}, "layer_types: expected 3 times one of"),
        ("gemma3", {"rope_parameters": {"full_attention": 2}}, "expected an object for each of f"),
        ("gemma3", {"rope_scaling": {"rope_type": "spiral"}}, "unknown rope_type: expected one of"),
        ("gemma3", {"rope_scaling": {"type": ["linear"]}}, "unknown rope_type: expected one of"),
    ],
)
def test_refused_configurations(tmp_path: Path, name: str, changes: dict, message: str) -> None:
    folder = copy(FOLDER / name, tmp_path / "model", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder, device=CPU())
    assert str(folder / "config.json") in str(caught.value)


def test_fields_that_change_nothing_are_accepted(tmp_path: Path) -> None:
    changes = {"logit_scale": 1.0, "quantization_config": None, "unsloth_version": "2024.9"}
    folder = copy(FOLDER / "llama2", tmp_path / "model", **changes)
    assert load_model(folder, device=CPU()).vocab_size == 61
