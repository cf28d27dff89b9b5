"""Which folders `load_model` takes, and what it says about the others."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.folders import ASSETS, LLAMA

from maxmod import CPU, Device, DType, models
from maxmod.errors import CheckpointError, MaxmodError, ModelError
from maxmod.models import adder_folder, load_model
from maxmod.values.device import DeviceRef
from maxmod.weights import open_checkpoint, save_state
from maxmod.weights.json_files import read_json


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the embedded model."""
    return Path(shutil.copytree(adder_folder(), tmp_path / "model"))


def _change(folder: Path, **changes: object) -> None:
    table = json.loads((folder / "config.json").read_text("utf-8")) | changes
    (folder / "config.json").write_text(json.dumps(table), "utf-8")


def test_facts_of_a_model(folder: Path) -> None:
    model = load_model(str(folder), device=CPU())
    assert model.folder == folder
    assert (model.vocab_size, model.max_positions, model.stop) == (13, 16, {12})
    assert model.device == DeviceRef.CPU()


def test_default_device(folder: Path, emulated_accelerator: Device) -> None:
    model = load_model(folder)
    assert model.module.device == emulated_accelerator
    assert {tensor.device for _, tensor in model.module.parameters} == {emulated_accelerator}
    assert model.dtype.name == "float32"  # that of the file, not the default dtype


@pytest.mark.parametrize(
    ("config", "generation", "expected"),
    [
        (12, None, {12}),
        ([3, 12], None, {3, 12}),
        (None, None, set()),
        (12, {"eos_token_id": [1, 2]}, {1, 2}),
        (12, {"eos_token_id": None}, set()),
        (12, {"do_sample": False}, {12}),
    ],
)
def test_stop_tokens(folder: Path, config: object, generation: object, expected: set[int]) -> None:
    _change(folder, eos_token_id=config)
    if generation is not None:
        (folder / "generation_config.json").write_text(json.dumps(generation), "utf-8")
    assert load_model(folder, device=CPU()).stop == expected


def test_malformed_stop_token(folder: Path) -> None:
    _change(folder, eos_token_id="</s>")
    with pytest.raises(ModelError, match="eos_token_id: expected an integer or a list of them"):
        load_model(folder, device=CPU())


@pytest.mark.parametrize(
    ("model_type", "shown"),
    [
        ("gpt3", "model_type 'gpt3' is not supported in this version"),
        ("deberta", "model_type 'deberta' is not supported in this version"),
        ([], r"model_type \[\] is not supported in this version"),
        (None, "config.json has no model_type, which says how the model computes"),
    ],
)
def test_unknown_architecture(folder: Path, model_type: object, shown: str) -> None:
    _change(folder, model_type=model_type)
    loaders = (
        "load_model reads 'gpt2', .*; load_encoder, load_classifier, load_tagger, "
        "load_masked_model read 'albert', 'bert', .*; load_vision_model reads 'vit'"
    )
    with pytest.raises(ModelError, match=f"{shown}: {loaders}.$"):
        load_model(folder, device=CPU())


def test_weights_of_8_bits(folder: Path) -> None:
    """They are computed with in bfloat16, which holds each of them exactly."""
    with open_checkpoint(folder) as checkpoint:
        narrow = dict(checkpoint.astype(DType.float8_e4m3fn))
    save_state(narrow, folder / "model.safetensors")
    model = load_model(folder, device=CPU())
    assert model.dtype is DType.bfloat16
    found = model.module.wte.weight  # type: ignore[attr-defined]
    expected = narrow["transformer.wte.weight"].cast(DType.float32)
    np.testing.assert_array_equal(np.array(found.cast(DType.float32)), np.array(expected))
    assert np.isfinite(model.next_logits([[1, 2, 10, 3]])).all()


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="there is no such folder. Hint: nothing is downloaded"):
        load_model(tmp_path / "gpt2")


def test_missing_configuration(folder: Path) -> None:
    (folder / "config.json").unlink()
    with pytest.raises(ModelError) as caught:
        load_model(folder, device=CPU())
    assert f"{folder}: there is no config.json. Hint: expected a folder" in str(caught.value)


def test_missing_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no weights: expected model.safetensors") as caught:
        load_model(folder, device=CPU())
    assert str(folder) in str(caught.value)


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError) as caught:
        load_model(folder, device=CPU())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected JSON"),
        (b'{"model_type": "gpt2"', "expected JSON"),
        (b"\xff\xfe", "expected text in UTF-8, got the byte 0xff"),
        (b"[" * 100_000, "expected JSON"),
        (b"[1, 2]", "expected a JSON object, got list"),
    ],
)
def test_malformed_json(folder: Path, content: bytes, message: str) -> None:
    path = folder / "config.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder, device=CPU())
    assert str(caught.value).startswith(str(path))


def test_huge_json_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelError, match="expected at most"):
        read_json(path)


@pytest.mark.parametrize(("source", "name"), [("", "n_layer"), ("llama", "num_hidden_layers")])
def test_no_more_layers_than_tensors(folder: Path, source: str, name: str) -> None:
    if source:
        shutil.rmtree(folder)
        shutil.copytree(LLAMA[0], folder)
    with open_checkpoint(folder) as checkpoint:
        count = len(checkpoint)
    _change(folder, **{name: count + 1})
    message = rf"config.json: {name}: expected at most {count}, as many .*, got {count + 1}\."
    with pytest.raises(ModelError, match=message):
        load_model(folder, device=CPU())
    _change(folder, **{name: 10**18})
    with pytest.raises(ModelError, match=f"{name}: expected at most {count}"):
        load_model(folder, device=CPU())


def test_errors_are_value_errors() -> None:
    assert issubclass(ModelError, MaxmodError)
    assert issubclass(ModelError, ValueError)


# ---- pickled models ------------------------------------------------------------------------------


def _used(model: Any) -> Any:
    if hasattr(model, "generate"):
        return model.generate("1+1="), model.next_logits([[1, 2]]).tolist()
    if hasattr(model, "tokenizer"):
        return model.embed(["a cat"]).tolist()
    return model.classify([np.zeros((8, 8, 3), np.uint8)])


@pytest.mark.parametrize(
    ("loader", "folder"),
    [
        ("load_model", adder_folder()),
        ("load_encoder", ASSETS / "bert" / "sentences"),
        ("load_vision_model", ASSETS / "vit" / "classifier"),
    ],
)
def test_used_models_are_pickled(loader: str, folder: Path) -> None:
    """What they compiled stays in the process."""
    model = getattr(models, loader)(folder, device=CPU())
    fresh = len(pickle.dumps(model))
    expected = _used(model)
    data = pickle.dumps(model)
    assert len(data) < fresh + 100_000  # with its tokenizer
    assert _used(pickle.loads(data)) == expected
