"""Decoders as encoders: both directions of attention, pooling of the last token, Dense."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from models.folders import ASSETS, copy

from maxmod import CPU, DType, Tensor
from maxmod.errors import ModelError
from maxmod.models import TextEncoder, load_classifier, load_encoder, save_quantized
from maxmod.models.registry import describe, loader_of
from maxmod.weights import open_checkpoint, save_state

NO_WINDOW = {"use_sliding_window": False, "sliding_window": None, "layer_types": None}
# As in tests/assets/make_decoder_vectors.py.
CASES: dict[str, tuple[str, dict[str, object]]] = {
    "qwen3": ("decoders/yarn", {}),
    "mistral": ("llama/mistral", {}),
    "qwen2_both_ways": ("llama/qwen2", {"is_causal": False, **NO_WINDOW}),
    "gemma3_both_ways": ("llama/gemma3", {"use_bidirectional_attention": True}),
}
with np.load(ASSETS / "decoder_vectors.npz") as data:
    GOLDEN = dict(data)
ROWS = [row[:length].tolist() for row, length in zip(GOLDEN["tokens"], GOLDEN["lengths"])]
PARTS = ["Transformer", "Pooling", "Dense", "Normalize"]

pytestmark = pytest.mark.usefixtures("unoptimised_host_kernels")


def make_folder(name: str, target: Path, parts: list[str] | None = None) -> Path:
    """A folder of a case; with parts of sentence-transformers, if they are named."""
    source, fields = CASES[name]
    folder = copy(ASSETS / source, target, **fields)
    if parts is not None:
        listed = [
            {"path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
            for n, kind in enumerate(parts)
        ]
        write(folder / "modules.json", listed)
        write(folder / "1_Pooling/config.json", {"pooling_mode": "lasttoken"})
    return folder


def write(path: Path, value: object) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


def add_dense(folder: Path, activation: str = "Tanh", **fields: object) -> np.ndarray:
    """Adds a Dense part, and returns its weights."""
    weight = np.random.default_rng(1).normal(size=(5, 24)).astype(np.float32)
    kind = f"torch.nn.modules.activation.{activation}"
    sizes = {"in_features": 24, "out_features": 5, "bias": False}
    write(folder / "2_Dense/config.json", sizes | {"activation_function": kind} | fields)
    save_state({"linear.weight": weight}, folder / "2_Dense" / "model.safetensors")
    return weight


def float32(folder: Path) -> TextEncoder:
    return load_encoder(folder, device=CPU(), dtype=DType.float32)


@pytest.mark.parametrize("name", CASES)
def test_vectors_of_tokens(name: str, tmp_path: Path) -> None:
    module = float32(make_folder(name, tmp_path / "m")).module
    arrays = (GOLDEN["tokens"], GOLDEN["lengths"])
    found = module(*(Tensor(array, device=CPU()) for array in arrays)).to_numpy()
    for ours, theirs, length in zip(found, GOLDEN[name], GOLDEN["lengths"]):
        atol = 1e-4 * np.abs(theirs).max()
        np.testing.assert_allclose(ours[:length], theirs[:length], rtol=0, atol=atol)


@pytest.mark.parametrize("name", ["qwen3", "gemma3_both_ways"])
def test_last_tokens_through_dense(name: str, tmp_path: Path) -> None:
    folder = make_folder(name, tmp_path / "m", PARTS)
    weight = add_dense(folder)
    model = float32(folder)
    last = [theirs[length - 1] for theirs, length in zip(GOLDEN[name], GOLDEN["lengths"])]
    expected = np.tanh(np.array(last) @ weight.T)
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    for batch_size in (1, 3):
        found = model.embed_tokens(ROWS, batch_size=batch_size)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert model.embed_tokens([]).shape == (0, 5)


@pytest.mark.parametrize("activation", ["Identity", "ReLU", "GELU", "SiLU"])
def test_activations_of_dense(activation: str, tmp_path: Path) -> None:
    folder = make_folder("qwen3", tmp_path / "m", PARTS[:3])
    weight = add_dense(folder, activation)
    x = GOLDEN["qwen3"][0, GOLDEN["lengths"][0] - 1].astype(np.float64) @ weight.T
    gelu = {  # 0.5 (1 + erf(x / sqrt 2)), by a sum over a fine grid
        "GELU": lambda: x * np.array([_normal_below(value) for value in x]),
        "Identity": lambda: x,
        "ReLU": lambda: np.maximum(x, 0),
        "SiLU": lambda: x / (1 + np.exp(-x)),
    }
    found = float32(folder).embed_tokens(ROWS[:1], eager=True)[0]
    atol = 2e-4 * np.abs(x).max()
    np.testing.assert_allclose(found, gelu[activation](), rtol=0, atol=atol)


def _normal_below(x: float) -> float:
    grid = np.linspace(-12, max(x, -11.99), 20001)
    density = np.exp(-(grid**2) / 2) / np.sqrt(2 * np.pi)
    return float(((density[1:] + density[:-1]) / 2 * np.diff(grid)).sum())


def test_int8_has_no_codes_of_a_head(tmp_path: Path) -> None:
    folder = make_folder("qwen3", tmp_path / "m", PARTS)
    add_dense(folder)
    model = load_encoder(folder, device=CPU(), quantize="int8")
    names = [name for name, _ in model.module.descendants]
    assert "model.layers.0.mlp.up_proj" in names
    assert not any("lm_head" in name for name in names)
    found, plain = (m.embed_tokens(ROWS, eager=True) for m in (model, float32(folder)))
    cosines = (found * plain).sum(1)
    cosines /= np.linalg.norm(found, axis=1) * np.linalg.norm(plain, axis=1)
    assert cosines.min() > 0.98  # of 5 numbers, behind random weights
    again = load_encoder(save_quantized(model, tmp_path / "int8"), device=CPU())
    np.testing.assert_array_equal(again.embed_tokens(ROWS, eager=True), found)


def test_folders_for_vectors_are_loaded_as_encoders(tmp_path: Path) -> None:
    folder = make_folder("qwen3", tmp_path / "m", PARTS[:2])
    assert loader_of(folder) is load_encoder
    assert describe(folder) == "qwen3, read by load_encoder"
    assert loader_of(ASSETS / "decoders" / "yarn").__name__ == "load_model"


def test_a_classifier(tmp_path: Path) -> None:
    folder = copy(
        ASSETS / "decoders" / "yarn",
        tmp_path / "m",
        architectures=["Qwen3ForSequenceClassification"],
        id2label={"0": "bad", "1": "fair", "2": "good"},
    )
    with open_checkpoint(ASSETS / "decoders" / "yarn") as checkpoint:
        state = {name: value for name, value in checkpoint.items() if "lm_head" not in name}
        save_state(state | {"score.weight": GOLDEN["score"]}, folder / "model.safetensors")
    assert loader_of(folder) is load_classifier
    model = load_classifier(folder, device=CPU(), dtype=DType.float32)
    assert model.labels == ["bad", "fair", "good"]
    arrays = [Tensor(GOLDEN[name], device=CPU()) for name in ("tokens", "lengths")]
    expected = GOLDEN["logits"]
    for run in (model.module, model.compiled):
        atol = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(run(*arrays).to_numpy(), expected, rtol=0, atol=atol)


# ---- refused -------------------------------------------------------------------------------------


def test_both_ways_with_a_window_is_refused(tmp_path: Path) -> None:
    folder = copy(ASSETS / "llama" / "qwen2", tmp_path / "m", is_causal=False)
    with pytest.raises(ModelError, match="is_causal: .* not supported with sliding_window"):
        float32(folder)
    folder = copy(ASSETS / "llama" / "gemma3", tmp_path / "n", is_causal=False)
    with pytest.raises(ModelError, match="'is_causal': models with this field are not"):
        float32(folder)


def test_code_in_a_folder_needs_the_direction(tmp_path: Path) -> None:
    """Folders such as gte-Qwen2 have code that differs from Qwen2 in what tokens see."""
    code = {"AutoModel": "modeling_qwen.Qwen2Model"}
    source = ASSETS / "llama" / "qwen2"
    known = copy(source, tmp_path / "known", auto_map=code, is_causal=False, **NO_WINDOW)
    assert float32(known).embed_tokens(ROWS[:1], eager=True).shape == (1, 24)
    unknown = copy(source, tmp_path / "unknown", auto_map=code)
    with pytest.raises(ModelError, match="defined by code of its own"):
        float32(unknown)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"in_features": 7}, "in_features: expected 24, the size of the vectors before .* got 7"),
        ({"out_features": 0}, "sizes must be above 0"),
        ({"activation_function": "torch.nn.Hardswish"}, "expected one of torch.nn.Identity"),
        ({"activation_function": "mine.Tanh"}, "got 'mine.Tanh'"),
        ({"module_input_name": "token_embeddings"}, "'module_input_name': models with this"),
    ],
)
def test_refused_dense(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    folder = make_folder("qwen3", tmp_path / "m", PARTS[:3])
    add_dense(folder, **fields)
    with pytest.raises(ModelError, match=message):
        float32(folder)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["Transformer", "Dense", "Pooling"], "expected a Pooling before Dense"),
        (["Transformer", "Pooling", "Normalize", "Dense"], "expected Normalize after Dense"),
    ],
)
def test_refused_order_of_parts(parts: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=message):
        float32(make_folder("qwen3", tmp_path / "m", parts))
