"""Folders of encoders as they lie on the Hub: old names, leftovers of heads, decoders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from models.folders import ASSETS, copy

from maxmod import CPU, DType, MaxmodWarning, Tensor
from maxmod.errors import ModelError, WeightsError
from maxmod.models import load_encoder, load_model
from maxmod.models.registry import describe, loader_of
from maxmod.weights import add_prefix, merge, open_checkpoint, rename, save_state

FOLDER = ASSETS / "bert" / "sentences"
TEXTS = json.loads((FOLDER / "golden.json").read_text("utf-8"))["texts"]
POSITIONS = np.arange(20).reshape(1, 20)


def _changed(target: Path, change: Callable, **fields: object) -> Path:
    """A copy of the folder, with other weights and other fields in its config.json."""
    folder = copy(FOLDER, target, **fields)
    with open_checkpoint(FOLDER) as checkpoint:
        save_state(change(dict(checkpoint.items())), folder / "model.safetensors")
    return folder


def _assert_golden(folder: Path) -> None:
    with np.load(FOLDER / "golden.npz") as data:
        expected = data["mean"]
    model = load_encoder(folder, device=CPU(), dtype=DType.float32)
    np.testing.assert_allclose(model.embed(TEXTS, eager=True), expected, rtol=0, atol=1e-5)


# ---- names of weights ----------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "bert."])
def test_gamma_and_beta_of_2018(tmp_path: Path, prefix: str) -> None:
    """The names that google-bert/bert-base-uncased still has, beside the heads of pretraining."""

    def change(state: dict) -> object:
        old = rename(
            state, {"*LayerNorm.weight": "*LayerNorm.gamma", "*LayerNorm.bias": "*LayerNorm.beta"}
        )
        heads = {
            "cls.predictions.transform.LayerNorm.gamma": np.ones(24, np.float32),
            "cls.predictions.transform.LayerNorm.beta": np.ones(24, np.float32),
            "cls.seq_relationship.weight": np.ones((2, 24), np.float32),
        }
        return merge(add_prefix(old, prefix) if prefix else old, heads)

    fields = {"gradient_checkpointing": False, "position_embedding_type": "absolute"}
    fields |= {"architectures": ["BertForMaskedLM"], "use_cache": True}
    _assert_golden(_changed(tmp_path / "model", change, **fields))


def test_gamma_beside_weight_is_refused(tmp_path: Path) -> None:
    extra = {"embeddings.LayerNorm.gamma": np.ones(24, np.float32)}
    folder = _changed(tmp_path / "model", lambda state: merge(state, extra))
    with pytest.raises(WeightsError, match=r"two tensors would be called 'embeddings.LayerNorm"):
        load_encoder(folder, device=CPU())


@pytest.mark.parametrize(
    "extra",
    [
        {"embeddings.position_ids": POSITIONS, "embeddings.token_type_ids": POSITIONS * 0},
        {"cls.predictions.bias": np.ones(75, np.float32)},
    ],
    ids=["numbers", "words"],
)
def test_leftovers_are_dropped_silently(tmp_path: Path, extra: dict) -> None:
    """Every model of that age has them, and no vector depends on them."""
    _assert_golden(_changed(tmp_path / "model", lambda state: merge(state, extra)))


@pytest.mark.parametrize("name", ["classifier", "qa_outputs"])
def test_a_head_for_labels_is_dropped_with_a_warning(tmp_path: Path, name: str) -> None:
    extra = {
        f"{name}.weight": np.ones((2, 24), np.float32),
        f"{name}.bias": np.ones(2, np.float32),
    }
    folder = _changed(
        tmp_path / "model",
        lambda state: merge(add_prefix(state, "bert."), extra),
        architectures=["BertForSequenceClassification"],
    )
    with pytest.warns(MaxmodWarning) as caught:
        _assert_golden(folder)
    (warning,) = caught
    assert f"head for labels, which is left out: {name}.bias, {name}.weight" in str(warning.message)
    assert warning.filename == __file__


def test_an_unknown_head_is_refused(tmp_path: Path) -> None:
    """It may be a part of the vector, as the projection of ColBERT is."""
    extra = {"linear.weight": np.ones((8, 24), np.float32)}
    folder = _changed(tmp_path / "model", lambda state: merge(add_prefix(state, "bert."), extra))
    with pytest.raises(WeightsError, match=r"linear\.weight"):
        load_encoder(folder, device=CPU())


# ---- config.json without model_type --------------------------------------------------------------


@pytest.mark.parametrize("named", [..., None, ["BertForMaskedLM"]])
def test_config_without_model_type(tmp_path: Path, named: object) -> None:
    """As fine-tuned models of 2019 to 2021 have it."""
    fields = {"finetuning_task": None, "num_labels": 2, "output_attentions": False}
    fields |= {"output_hidden_states": False, "pruned_heads": {}, "torchscript": False}
    fields |= {"use_bfloat16": False, "directionality": "bidi", "pooler_fc_size": 768}
    fields |= {"pooler_num_attention_heads": 12, "pooler_num_fc_layers": 3}
    fields |= {"pooler_size_per_head": 128, "pooler_type": "first_token_transform"}
    fields |= {"model_type": ..., "architectures": named}
    folder = copy(FOLDER, tmp_path / "model", **fields)
    assert describe(folder) == "bert, read by load_encoder"
    assert loader_of(folder) is load_encoder
    _assert_golden(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"architectures": ["RobertaModel"]},
        {"architectures": "BertModel"},
        {"architectures": [3]},
        {"type_vocab_size": 1},
        {"type_vocab_size": ...},
        {"embedding_size": 24},
        {"model_type": "deberta"},
    ],
)
def test_other_configs_without_model_type_are_refused(tmp_path: Path, changes: dict) -> None:
    folder = copy(FOLDER, tmp_path / "model", **({"model_type": ...} | changes))
    with pytest.raises(ModelError, match="has no model_type|is not supported in this version"):
        load_encoder(folder, device=CPU())


# ---- decoders ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2", "llama32", "gemma"])
@pytest.mark.parametrize("is_headless", [False, True])
def test_a_decoder_is_an_encoder(tmp_path: Path, name: str, is_headless: bool) -> None:
    """Embedders made of decoders, such as Qwen3-Embedding, are saved without a head."""
    folder = copy(ASSETS / "llama" / name, tmp_path / "model")
    with open_checkpoint(ASSETS / "llama" / name) as checkpoint:
        state = {n: t for n, t in checkpoint.items() if not is_headless or n != "lm_head.weight"}
        save_state(state, folder / "model.safetensors")
    tokens = Tensor(np.array([[1, 2, 3]]), device=CPU())
    found = load_encoder(folder, device=CPU()).module(tokens, Tensor(np.array([3]), device=CPU()))
    expected = load_model(ASSETS / "llama" / name, device=CPU()).module.hidden(tokens)
    np.testing.assert_array_equal(*(x.cast(DType.float32).to_numpy() for x in (found, expected)))


def test_decoders_that_make_no_vectors_are_named(tmp_path: Path) -> None:
    folder = copy(ASSETS / "gpt2" / "tied", tmp_path / "model")
    with pytest.raises(ModelError, match="load_encoder does not read 'gpt2'. Hint: use load_model"):
        load_encoder(folder, device=CPU())
