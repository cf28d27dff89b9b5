"""Folders that are found by name or path, and what is said about those that are no model."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from models.folders import ASSETS, LLAMA, copy

from maxmod import CPU
from maxmod.errors import CheckpointError, ModelError
from maxmod.models import adder_folder, load_encoder, load_model, load_vision_model
from maxmod.models.registry import describe, loader_of
from maxmod.weights import open_checkpoint, save_state
from maxmod.weights.hub_cache import cache_folder

VARIABLES = ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of Hugging Face with the model org/adder in two revisions."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    root = tmp_path / "hub" / "models--org--adder"
    (root / "blobs").mkdir(parents=True)
    snapshot = root / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    (root / "snapshots" / "0ld").mkdir()
    for number, path in enumerate(sorted(adder_folder().iterdir())):
        if path.is_file():
            shutil.copy(path, root / "blobs" / str(number))
            (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("c0ffee")
    return tmp_path / "hub"


def test_models_of_the_cache_have_names(cache: Path) -> None:
    root = cache / "models--org--adder"
    for name in (
        "org/adder",
        "models--org--adder",
        root,
        str(root) + "/",
        root / "snapshots/c0ffee",
    ):
        model = load_model(name, device=CPU())
        assert model.folder == root / "snapshots" / "c0ffee"
        assert describe(name) == "gpt2, read by load_model"
        assert loader_of(name) is load_model
        with open_checkpoint(name) as checkpoint:
            assert "transformer.wte.weight" in checkpoint
    assert load_model("org/adder", device=CPU()).generate("1+2=", eager=True) == "3"


def test_model_without_an_owner(cache: Path) -> None:
    (cache / "models--org--adder").rename(cache / "models--adder")
    assert load_model("adder", device=CPU()).vocab_size == 13


def test_path_wins_over_a_name_of_the_cache(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy(LLAMA[0], tmp_path / "org" / "adder")
    assert load_model("org/adder", device=CPU()).vocab_size != 13


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HUGGINGFACE_HUB_CACHE": "/a", "HF_HOME": "/b"}, "/a"),
        ({"HF_HOME": "/b", "XDG_CACHE_HOME": "/c"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"HF_HOME": "~/x"}, "/home/me/x/hub"),
        ({}, "/home/me/.cache/huggingface/hub"),
    ],
)
def test_place_of_the_cache(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str
) -> None:
    """As huggingface_hub documents its variables."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Path(cache_folder()) == Path(expected)


def test_snapshot_without_a_reference(cache: Path) -> None:
    root = cache / "models--org--adder"
    shutil.rmtree(root / "refs")
    with pytest.raises(ModelError, match=r"has no revision to choose: .*snapshots.0ld, .*c0ffee"):
        load_model("org/adder")
    shutil.rmtree(root / "snapshots" / "0ld")
    assert load_model("org/adder", device=CPU()).vocab_size == 13


@pytest.mark.parametrize("reference", ["", "missing", "../../..", "a/b", "c0ffee\0"])
def test_bad_references(cache: Path, reference: str) -> None:
    (cache / "models--org--adder" / "refs" / "main").write_text(reference)
    for load in (load_model, open_checkpoint):
        with pytest.raises(ValueError, match="has no revision to choose: .*, got none"):
            load("org/adder")


def test_names_that_are_not_there(cache: Path) -> None:
    message = "no such model in the cache of Hugging Face .*`hf download org/other`"
    with pytest.raises(ModelError, match=message) as caught:
        load_model("org/other")
    assert str(cache) in str(caught.value) and "pip install huggingface_hub" in str(caught.value)
    with pytest.raises(ModelError, match="no such folder. Hint: nothing is downloaded; give"):
        load_model(cache / "nowhere" / "at" / "all")
    for name in ("a\0b", "a/b/c", "../adder", "org/../adder"):
        with pytest.raises(ModelError, match="no such folder. Hint: nothing is downloaded; give"):
            load_model(name)
    with pytest.raises(ModelError, match="expected a folder, got an empty string"):
        load_model("")
    with pytest.raises(CheckpointError, match="org/other: there is no such file.*`hf download"):
        open_checkpoint("org/other")


# ---- not a model folder --------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_model, load_encoder, load_vision_model])
def test_files_are_not_folders(tmp_path: Path, load: object) -> None:
    file = adder_folder() / "model.safetensors"
    with pytest.raises(ModelError, match="expected a folder, got a file. Hint: give the folder"):
        load(file)  # type: ignore[operator]
    gguf = tmp_path / "m.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match="m.gguf: the file is malformed or cut short"):
        load(gguf)  # type: ignore[operator]
    with pytest.raises(ModelError, match="expected a folder, got a pipe or device"):
        load(os.devnull)  # type: ignore[operator]
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModelError, match="the link leads nowhere"):
        load(link)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("params.json", "{}", "the original layout of the weights"),
        ("model_index.json", "{}", "a pipeline of diffusers"),
        ("notes.txt", "", "Hint: expected a folder as save_pretrained of transformers writes it"),
    ],
)
def test_folders_without_a_configuration(
    tmp_path: Path, name: str, content: str, message: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(
        ModelError,
        match=f"load_model: .*: there is no config.json. {message}|"
        f"there is no config.json. Hint: this is {message}",
    ):
        load_model(tmp_path)


def test_adapters_are_named(tmp_path: Path) -> None:
    table = {"base_model_name_or_path": "meta-llama/Llama-3.2-1B", "peft_type": "LORA"}
    (tmp_path / "adapter_config.json").write_text(json.dumps(table))
    save_state({"a": np.zeros(1, np.float32)}, tmp_path / "adapter_model.safetensors")
    with pytest.raises(ModelError, match="a LoRA adapter of 'meta-llama/Llama-3.2-1B', not a"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["mixtral", "deberta", "qwen3_5", "gemma3n", "mamba", "lama"])
def test_no_architecture_is_suggested_for_another(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": name}))
    with pytest.raises(ModelError, match=f"model_type '{name}' is not supported in") as caught:
        load_model(tmp_path)
    assert "Did you mean" not in str(caught.value)


def test_leftovers_of_rotary_embeddings_are_dropped(tmp_path: Path) -> None:
    for folder in (f for f in LLAMA if f.name in ("llama2", "gemma2")):
        target = Path(shutil.copytree(folder, tmp_path / folder.name))
        with open_checkpoint(folder) as checkpoint:
            extra = {"model.rotary_emb.inv_freq": np.ones(4, np.float32)}
            extra["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(4, np.float32)
            for old in target.glob("*.safetensors*"):
                os.unlink(old)
            save_state({**checkpoint, **extra}, target)
        tokens = [[1, 2, 3]]
        found, expected = (
            load_model(f, device=CPU()).next_logits(tokens, eager=True) for f in (target, folder)
        )
        np.testing.assert_array_equal(found, expected)


# ---- hostile files -------------------------------------------------------------------------------

FILES = ("config.json", "generation_config.json", "vocab.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("name", FILES)
def test_pipes_in_place_of_files(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(adder_folder(), tmp_path / "m"))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match=f"{name}: .*expected a file, got a pipe or device"):
        load_model(folder, device=CPU()).generate("1+2=", eager=True)


@pytest.mark.parametrize("name", FILES)
def test_pages_in_place_of_files(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(adder_folder(), tmp_path / "m"))
    for content, what in (
        (b"<!DOCTYPE html>", "an HTML page"),
        (b"version https://git-lfs.g", "a git-lfs"),
    ):
        (folder / name).write_bytes(content)
        with pytest.raises(ModelError, match=f"{name}: got {what}"):
            load_model(folder, device=CPU()).generate("1+2=", eager=True)


@pytest.mark.parametrize("name", FILES)
def test_links_that_lead_nowhere(tmp_path: Path, name: str) -> None:
    """As in a cache whose blobs were removed: the file is asked for, not left out."""
    folder = Path(shutil.copytree(adder_folder(), tmp_path / "m"))
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=f"{name}: cannot read the file: No such file"):
        load_model(folder, device=CPU()).generate("1+2=", eager=True)


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
TOKENIZER_FILES += ("added_tokens.json", "chat_template.jinja")
CHAT = ASSETS / "llama" / "chat"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
@pytest.mark.parametrize("name", TOKENIZER_FILES)
def test_pipes_and_pages_in_place_of_tokenizer_files(tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(CHAT, tmp_path / "m"))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    chat = [{"role": "user", "content": "a"}]
    with pytest.raises(ModelError, match=f"{name}: .*expected a file, got a pipe or device"):
        load_model(folder, device=CPU()).generate(chat, max_new_tokens=1, eager=True)
    (folder / name).unlink()
    (folder / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d")
    with pytest.raises(ModelError, match=f"{name}: got a git-lfs pointer in place of the file"):
        load_model(folder, device=CPU()).generate(chat, max_new_tokens=1, eager=True)


def test_byte_order_marks_in_a_folder(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(CHAT, tmp_path / "m"))
    for path in folder.glob("*.json"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    chat = [{"role": "user", "content": "a"}]
    found, expected = (
        load_model(f, device=CPU()).generate(chat, max_new_tokens=3, eager=True, greedy=True)
        for f in (folder, CHAT)
    )
    assert found == expected


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_pipe_in_place_of_an_image(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.png")
    model = load_vision_model(ASSETS / "vit" / "classifier", device=CPU())
    with pytest.raises(ValueError, match="photo.png: "):
        model.classify([tmp_path / "photo.png"], eager=True)
