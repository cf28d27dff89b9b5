"""BERT and sentence vectors against what transformers computed."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.folders import ASSETS, copy

import maxmod
from maxmod import CPU, Device, DType, Tensor
from maxmod.errors import MaxmodError, ModelError, WeightsError
from maxmod.models import adder_folder, encoder, load_encoder, load_model, text_inputs
from maxmod.models.encoders.bert import Bert, Config
from maxmod.models.packing import pack
from maxmod.models.pooling import Pooling, read_pooling
from maxmod.nn import QuantizedLinear
from maxmod.nn.places import descendants_of
from maxmod.weights import add_prefix, merge, open_checkpoint, save_state

FOLDER = ASSETS / "bert" / "sentences"
GOLDEN = json.loads((FOLDER / "golden.json").read_text("utf-8"))
TEXTS = GOLDEN["texts"]


def _golden() -> dict[str, np.ndarray]:
    with np.load(FOLDER / "golden.npz") as data:
        return dict(data)


@pytest.mark.parametrize("is_compiled", [False, True])
def test_hidden_states(is_compiled: bool, device: Device) -> None:
    """Texts of several lengths together; what fills them up has no part in the others."""
    golden = _golden()
    model = load_encoder(FOLDER, device=device, dtype=DType.float32)
    rows = [Tensor(golden[name]).to(device) for name in ("tokens", "lengths")]
    run = model.module.compile(*[row.type for row in rows]) if is_compiled else model.module
    found = np.array(run(*rows))
    for text, expected, length in zip(found, golden["hidden"], golden["lengths"]):
        np.testing.assert_allclose(text[:length], expected[:length], rtol=0, atol=3e-5)


def test_bfloat16() -> None:
    golden = _golden()
    model = load_encoder(FOLDER, device=CPU())
    assert model.dtype is DType.bfloat16
    rows = [Tensor(golden[name], device=CPU()) for name in ("tokens", "lengths")]
    found = np.array(model.module(*rows).cast(DType.float32))
    kept = np.arange(found.shape[1]) < golden["lengths"][:, None]
    theirs = np.sqrt(np.mean((golden["half"] - golden["hidden"])[kept] ** 2))
    ours = np.sqrt(np.mean((found - golden["hidden"])[kept] ** 2))
    assert 0 < ours < 2 * theirs < 0.2


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_vectors(batch_size: int | None, eager: bool) -> None:
    model = load_encoder(FOLDER, device=CPU(), dtype=DType.float32)
    assert model.tokenizer.encode(TEXTS[0]) == GOLDEN["tokens"][0]
    found = model.embed(TEXTS, batch_size=batch_size, eager=eager)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _golden()["mean"], rtol=0, atol=1e-5)


def test_batches_have_a_number_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are in the order of the texts, and none depends on the texts of its batch."""
    model = load_encoder(FOLDER, device=CPU(), dtype=DType.float32)
    rows = [GOLDEN["tokens"][number % 3][: 2 + number * 5 % 17] for number in range(12)]
    batches: list[list[int]] = []

    def packed(texts: Sequence[Sequence[int]]) -> Any:
        batches.append([len(text) for text in texts])
        return pack(texts)

    monkeypatch.setattr(encoder, "pack", packed)
    monkeypatch.setattr(text_inputs, "BATCH_TOKENS", 20)
    found = model.embed_tokens(rows, eager=True)
    assert sorted(map(len, rows)) == [length for batch in batches for length in batch]
    assert all(sum(batch) <= 20 for batch in batches)
    assert all(sum(a) + b[0] > 20 for a, b in pairwise(batches))
    alone = [model.embed_tokens([row], eager=True)[0] for row in rows]
    np.testing.assert_allclose(found, alone, rtol=0, atol=1e-6)


def test_a_text_longer_than_a_batch_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_encoder(FOLDER, device=CPU(), dtype=DType.float32)
    monkeypatch.setattr(text_inputs, "BATCH_TOKENS", 2)
    found = model.embed_tokens(GOLDEN["tokens"], eager=True)
    np.testing.assert_allclose(found, _golden()["mean"], rtol=0, atol=1e-5)


def test_text_with_infinities_leaves_others_alone() -> None:
    model = load_encoder(FOLDER, device=CPU(), dtype=DType.float32)
    rows = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
    expected = model.embed_tokens(rows)
    words = model.module.words.weight.to_numpy().copy()
    words[9] = np.inf
    model.module.words.weight = Tensor(words)
    model.forget_compiled()
    found = model.embed_tokens(rows)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-6)


def _schemes(model: Bert) -> dict[str, str]:
    layers = [(name, x) for name, _, x in descendants_of(model) if isinstance(x, QuantizedLinear)]
    return {name: layer.scheme for name, layer in layers}


def test_4_bits_keep_8_where_vectors_change_most() -> None:
    config = Config(20, 32, 2, 2, 64)
    wide = ("attention.value", "attention.dense", "mlp.up")
    narrow = ("attention.query", "attention.key", "mlp.down")
    names = {f"layers.{i}.{name}": name in wide for i in range(2) for name in wide + narrow}
    found = _schemes(maxmod.quantize(Bert(config), "int4"))
    assert found == {name: "int8" if is_wide else "int4" for name, is_wide in names.items()}
    found = _schemes(maxmod.quantize(Bert(config), "int4", sensitive="int4"))
    assert found == dict.fromkeys(names, "int4")


def test_vector_of_the_first_token(tmp_path: Path) -> None:
    folder = copy(FOLDER, tmp_path / "model")
    for table in (
        {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        {"pooling_mode": "cls"},
    ):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(table), "utf-8")
        model = load_encoder(folder, device=CPU(), dtype=DType.float32)
        np.testing.assert_allclose(model.embed(TEXTS), _golden()["cls"], rtol=0, atol=1e-5)


def test_without_files_of_sentence_transformers(tmp_path: Path) -> None:
    """The mean, of any length."""
    folder = copy(FOLDER, tmp_path / "model")
    (folder / "modules.json").unlink()
    (folder / "sentence_bert_config.json").unlink()
    model = load_encoder(folder, device=CPU(), dtype=DType.float32)
    assert model.max_positions == 20
    found = model.embed(TEXTS)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    assert np.abs(lengths - 1).min() > 0.1
    np.testing.assert_allclose(found / lengths, _golden()["mean"], rtol=0, atol=1e-5)


def test_no_texts() -> None:
    assert load_encoder(FOLDER, device=CPU()).embed([]).shape == (0, 24)


def test_long_texts() -> None:
    model = load_encoder(FOLDER, device=CPU(), dtype=DType.float32)
    assert model.max_positions == 16
    words = ["cat"] * 14
    longest = model.embed([" ".join(words)])
    with pytest.raises(ValueError, match="text 1 is too long: expected at most 16 tokens, got 17"):
        model.embed(["cat", " ".join([*words, "dog"])], truncate=False)
    cut = model.embed([" ".join([*words, "dog"])], truncate=True)
    np.testing.assert_array_equal(cut, longest)


def test_vectors_of_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)  # not needed
    model = load_encoder(FOLDER, device=CPU(), dtype=DType.float32)
    found = model.embed_tokens(GOLDEN["tokens"])
    np.testing.assert_allclose(found, _golden()["mean"], rtol=0, atol=1e-5)
    assert model.embed_tokens([]).shape == (0, 24)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([1, 2], r"embed: rows\[0\]: expected a sequence of token ids, got 1"),
        (["a"], r"embed: rows\[0\]: expected a sequence of token ids, got 'a'"),
        ([[1.5]], r"embed: rows\[0\]\[0\]: expected an int, got 1.5"),
        ([[]], "embed: the prompt is empty"),
        ([[1, 10_000]], "embed: token 10000 at position 1 is not in the vocabulary"),
        ([[1] * 17], "embed: the prompt is too long: expected at most 16 tokens, got 17"),
    ],
)
def test_malformed_tokens(rows: Any, message: str) -> None:
    with pytest.raises(MaxmodError, match=message):
        load_encoder(FOLDER, device=CPU()).embed_tokens(rows)


def test_arguments() -> None:
    model = load_encoder(FOLDER, device=CPU())
    with pytest.raises(ValueError, match="texts: expected a list of str, got str"):
        model.embed("one")
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, got 0"):
        model.embed(["one"], batch_size=0)


def test_names_with_prefix_and_heads(tmp_path: Path) -> None:
    """As a model with a head saves them."""
    folder = copy(FOLDER, tmp_path / "model")
    with open_checkpoint(FOLDER) as checkpoint:
        names = add_prefix(dict(checkpoint.items()), "bert.")
        extra = {
            "cls.predictions.bias": np.ones(3, np.float32),
            "bert.embeddings.position_ids": np.arange(20).reshape(1, 20),
        }
        save_state(merge(names, extra), folder / "model.safetensors")
    model = load_encoder(folder, device=CPU(), dtype=DType.float32)
    np.testing.assert_allclose(model.embed(TEXTS), _golden()["mean"], rtol=0, atol=1e-5)


def test_missing_weights(tmp_path: Path) -> None:
    folder = copy(FOLDER, tmp_path / "model", num_hidden_layers=3)
    with pytest.raises(
        WeightsError, match=r"(?s)load_encoder: .*layers\.2\.attention\.query"
    ) as caught:
        load_encoder(folder, device=CPU())
    assert str(folder) in str(caught.value)


# ---- folders of another kind ---------------------------------------------------------------------


def test_encoders_and_language_models_are_told_apart() -> None:
    with pytest.raises(
        ModelError, match=r"load_model does not read 'bert'\. Hint: use load_encoder"
    ):
        load_model(FOLDER, device=CPU())
    with pytest.raises(
        ModelError,
        match=r"load_encoder does not read 'gpt2'\. Hint: use load_model",
    ):
        load_encoder(adder_folder(), device=CPU())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 25}, "hidden_size=25 is not a multiple of num_attention_heads=3"),
        ({"hidden_size": 0}, "sizes must be above 0"),
        ({"hidden_act": "erf"}, "hidden_act: expected one of gelu"),
        ({"position_embedding_type": "relative_key"}, "expected position_embedding_type 'absol"),
        ({"is_decoder": True}, "is_decoder false, got 'absolute' and True"),
        ({"embedding_size": 8}, "'embedding_size': models with this field are not supported"),
    ],
)
def test_refused_configurations(tmp_path: Path, changes: dict, message: str) -> None:
    folder = copy(FOLDER, tmp_path / "model", **changes)
    with pytest.raises(ModelError, match=message):
        load_encoder(folder, device=CPU())


START = {"type": "Transformer", "path": ""}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [{"type": "x.Dense", "path": "2"}], "unknown part: .*got 'x.Dense'"),
        ("modules.json", [3], "unknown part: .*got ''"),
        ("modules.json", {}, "expected a JSON array, got dict"),
        (
            "modules.json",
            [START, {"type": "Pooling", "path": "../x"}],
            "path: expected the name of a",
        ),
        (
            "modules.json",
            [START, {"type": "Pooling", "path": ".."}],
            "path: expected the name of a",
        ),
        ("modules.json", [START, {"type": "Pooling"}], "path: expected the name of a"),
        ("1_Pooling/config.json", {"pooling_mode": "sum"}, "expected one of 'cls', .*got 'sum'"),
        ("1_Pooling/config.json", {"pooling_mode_mean_tokens": 1}, "expected true or false, got 1"),
        ("sentence_bert_config.json", {"max_seq_length": "9"}, "expected 2 or more, got '9'"),
    ],
)
def test_refused_parts(tmp_path: Path, file: str, content: object, message: str) -> None:
    folder = Path(shutil.copytree(FOLDER, tmp_path / "model"))
    (folder / file).write_text(json.dumps(content), "utf-8")
    with pytest.raises(ModelError, match=message) as caught:
        load_encoder(folder, device=CPU())
    assert str(folder) in str(caught.value)


def test_pooling_is_read_from_the_folder() -> None:
    assert read_pooling(FOLDER) == Pooling(normalize=True)
