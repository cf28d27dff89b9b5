"""Models of images and text, of which the text model is read: golden folders in a larger one."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.folders import ASSETS, golden

from maxmod import CPU, DType, MaxmodWarning, Tensor
from maxmod.errors import ModelError
from maxmod.models import LanguageModel, load_model, save_quantized
from maxmod.models.registry import describe
from maxmod.weights import open_checkpoint, save_state

pytestmark = pytest.mark.usefixtures("unoptimised_host_kernels")


def _older(name: str) -> str:
    return f"language_model.{name}"


def _newer(name: str) -> str:
    return re.sub(r"^model\.", "model.language_model.", name)


def _same(name: str) -> str:
    return name


# Of a model_type the golden folder of its text model, the name of that in text_config (None if all
# fields are in one), what tensors are called, and the tower.
CASES: dict[str, tuple[str, str | None, Callable[[str], str], str]] = {
    "gemma3": ("gemma3", "gemma3_text", _older, "vision_tower.a.weight"),
    "mistral3": ("mistral", "mistral", _older, "multi_modal_projector.b.weight"),
    "qwen2_vl": ("qwen2", "qwen2_vl_text", _newer, "model.visual.a.weight"),
    "qwen2_5_vl": ("qwen2", None, _same, "visual.a.weight"),
    "qwen3_vl": ("qwen3", "qwen3_vl_text", _newer, "model.visual.a.weight"),
}


def _sections(text: dict[str, Any], is_old: bool) -> None:
    """Gives a text model the fields of the multimodal rotary embedding."""
    rope = text.pop("rope_parameters")
    if is_old:
        text["rope_theta"] = rope.pop("rope_theta")
        text["rope_scaling"] = {"type": "mrope", "mrope_section": [1, 1, 1]}
    else:
        more = {"mrope_section": [1, 1, 1], "mrope_interleaved": True}
        text["rope_parameters"] = rope | more


def make_folder(kind: str, target: Path, **changes: object) -> Path:
    """The folder of a model of images and text around a golden one; `changes` are of its fields."""
    source, inner, name_of, tower = CASES[kind]
    with open_checkpoint(ASSETS / "llama" / source) as checkpoint:
        state = {name_of(name): tensor for name, tensor in checkpoint.items()}
        save_state(state | {tower: np.ones((2, 2), np.float32)}, target)
    text = json.loads((ASSETS / "llama" / source / "config.json").read_text("utf-8"))
    if kind.startswith("qwen"):
        _sections(text, inner is None)
    whole = {"model_type": kind, "architectures": ["ModelOfImages"], "vision_config": {"a": 1}}
    table = (
        text | whole if inner is None else {**whole, "text_config": text | {"model_type": inner}}
    )
    (target / "config.json").write_text(json.dumps(table | changes), "utf-8")
    return target


def load(folder: Path) -> LanguageModel:
    with pytest.warns(MaxmodWarning, match="its vision tower is left out"):
        return load_model(folder, device=CPU(), dtype=DType.float32)


@pytest.mark.parametrize("kind", CASES)
def test_logits_of_the_text_model(kind: str, tmp_path: Path) -> None:
    folder = make_folder(kind, tmp_path / "m")
    model = load(folder)
    for tokens, expected in golden(ASSETS / "llama" / CASES[kind][0]):
        found = model.module(Tensor(tokens, device=CPU())).to_numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert describe(folder) == f"{kind}, read by load_model"


def test_ministral_3(tmp_path: Path) -> None:
    source, folder = ASSETS / "decoders" / "ministral3", tmp_path / "m"
    with open_checkpoint(source) as checkpoint:
        state = {_older(name): tensor for name, tensor in checkpoint.items()}
        save_state(state | {"vision_tower.a": np.ones(2, np.float32)}, folder)
    text = json.loads((source / "config.json").read_text("utf-8"))
    table = {"model_type": "mistral3", "text_config": text, "vision_config": {}}
    (folder / "config.json").write_text(json.dumps(table), "utf-8")
    model = load(folder)
    for tokens, expected in golden(source):
        found = model.module(Tensor(tokens, device=CPU())).to_numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


def test_end_tokens_of_the_text_model_count(tmp_path: Path) -> None:
    assert load(make_folder("gemma3", tmp_path / "m")).stop == {2}
    assert load(make_folder("gemma3", tmp_path / "n", eos_token_id=[5, 7])).stop == {5, 7}


def test_rounded_folders_load_without_the_tower(tmp_path: Path) -> None:
    folder = make_folder("qwen3_vl", tmp_path / "m")
    with pytest.warns(MaxmodWarning, match="vision tower"):
        model = load_model(folder, device=CPU(), quantize="int8")
    again = load_model(save_quantized(model, tmp_path / "int8"), device=CPU())
    tokens = [[1, 2, 3]]
    found, expected = (m.next_logits(tokens, eager=True) for m in (again, model))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("kind", "tie", "is_tied"),
    [("gemma3", True, True), ("gemma3", False, False), ("mistral3", False, False)],
)
def test_the_whole_says_whether_the_head_is_tied(
    kind: str, tie: bool, is_tied: bool, tmp_path: Path
) -> None:
    folder = make_folder(kind, tmp_path / "m", tie_word_embeddings=tie)
    if kind == "gemma3" and not is_tied:  # the folder has no head of its own
        with pytest.raises(ValueError, match="lm_head"), pytest.warns(MaxmodWarning):
            load_model(folder, device=CPU())
    else:
        assert load(folder).config.tie_word_embeddings is is_tied


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "mistral3",
            {"text_config": {"model_type": "llama"}},
            "expected 'mistral' or 'ministral3', g",
        ),
        ("mistral3", {"text_config": {"model_type": []}}, r"model_type: expected .*, got \[\]"),
        ("qwen3_vl", {"text_config": None}, "text_config: expected an object, got None"),
        ("gemma3", {"text_config": [1]}, r"text_config: expected an object, got \[1\]"),
        ("gemma3", {"is_causal": False}, "'is_causal': models with this field are not supported"),
        ("qwen2_5_vl", {"auto_map": {"AutoModel": "a.B"}}, "defined by code of its own"),
        ("qwen3_vl", {"auto_map": {"AutoModel": "a.B"}}, "defined by code of its own"),
    ],
)
def test_refused_fields(
    kind: str, changes: dict[str, object], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=message):
        load_model(make_folder(kind, tmp_path / "m", **changes), device=CPU())


@pytest.mark.parametrize("kind", ["qwen2_5_vl", "qwen3_vl"])
def test_unknown_fields_of_the_whole(kind: str, tmp_path: Path) -> None:
    folder = make_folder(kind, tmp_path / "m", fancy=1)
    with pytest.raises(ModelError, match="nobody here knows the field 'fancy'"):
        load_model(folder, device=CPU(), strict_config=True)
