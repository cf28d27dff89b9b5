"""Quantised folders: a saved model loads as the same model; bad folders are rejected."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from models.folders import ASSETS, copy

import maxmod
from maxmod import CPU, DType, Tensor
from maxmod import functional as F
from maxmod.cli import main
from maxmod.errors import ArgumentError, ModelError, WeightsError
from maxmod.models import (
    adder_folder,
    load_encoder,
    load_model,
    load_vision_model,
    registry,
    save_quantized,
)
from maxmod.models import quantized_folder as rounding
from maxmod.models.encoders.bert import Bert
from maxmod.models.encoders.bert import Config as BertConfig
from maxmod.models.registry import describe
from maxmod.nn import Linear, Module, QuantizedLinear, Sequential
from maxmod.weights import inspect_text, open_checkpoint, save_state
from maxmod.weights.quantized_view import stored_layers

TIED = ASSETS / "gpt2" / "tied"
SENTENCES = ASSETS / "bert" / "sentences"
CLASSIFIER = ASSETS / "vit" / "classifier"
FLOAT32 = DType.float32


def _assert_same(one: Any, two: Any) -> None:
    assert type(one.module) is type(two.module)
    for (name, left), (other, right) in zip(
        one.module.parameters, two.module.parameters, strict=True
    ):
        assert (name, left.type) == (other, right.type)
        assert left.data.tobytes() == right.data.tobytes(), name


def _vectors(model: Any) -> Any:
    return model.embed(["a cat", "the dog sees a bridge"], eager=True)


def _logits(model: Any) -> Any:
    return model.next_logits([[1, 2, 3], [4, 5, 6]], eager=True)


def _probabilities(model: Any) -> Any:
    with np.load(CLASSIFIER / "golden.npz") as data:
        found = model.classify([data["image_0"]], eager=True)
    return np.array([probability for _, probability in found[0]])


# folder, how it is loaded, what to quantise, what it gives
CASES = [
    (TIED, load_model, {"quantize": "int8"}, _logits),
    (TIED, load_model, {"quantize": "int4", "skip": ["h.0.*", "lm_head"]}, _logits),
    (adder_folder(), load_model, {"quantize": "int4", "group_size": 64}, _logits),
    (ASSETS / "llama" / "qwen3", load_model, {"quantize": "int8", "dtype": None}, _logits),
    (ASSETS / "llama" / "gemma3", load_model, {"quantize": "int8"}, _logits),
    (SENTENCES, load_encoder, {"quantize": "int8"}, _vectors),
    (CLASSIFIER, load_vision_model, {"quantize": "int8", "skip": "classifier"}, _probabilities),
]


@pytest.mark.parametrize(("folder", "load", "options", "results"), CASES)
def test_saved_folders_load(
    folder: Path,
    load: Callable[..., Any],
    options: dict[str, Any],
    results: Callable[[Any], Any],
    tmp_path: Path,
) -> None:
    model = load(folder, device=CPU(), **{"dtype": FLOAT32, **options})
    made = save_quantized(model, tmp_path / "new" / "model")
    again = load(made, device=CPU())
    assert again.dtype is model.dtype
    _assert_same(model, again)
    np.testing.assert_array_equal(results(model), results(again))
    table = json.loads((made / "config.json").read_text("utf-8"))
    bits = {"int8": 8, "int4": 4}[options["quantize"]]
    group = options.get("group_size", 32) if bits == 4 else None
    entry = table.pop("quantization_config")
    heads = {"lm_head": {"bits": 8, "group_size": None}}
    deep = ("h.0.mlp.c_proj", "h.1.mlp.c_proj")  # the others have one group, a row
    groups = {name: {"bits": 8, "group_size": 64} for name in deep}
    is_deep = folder == TIED and bits == 8
    wanted = heads if folder == adder_folder() else groups if is_deep else {}
    assert entry.pop("layers", {}) == wanted
    assert entry == {"quant_method": "maxmod", "bits": bits, "group_size": group, "version": 3}
    assert table == json.loads((folder / "config.json").read_text("utf-8"))
    assert list((tmp_path / "new").iterdir()) == [made]


class _Held(NamedTuple):
    folder: Path
    module: Module


def _entry_of(model: _Held, made: Path) -> dict[str, Any]:
    text = (save_quantized(model, made) / "config.json").read_text("utf-8")
    return json.loads(text)["quantization_config"]


def test_the_config_names_the_bits_of_each_layer(tmp_path: Path) -> None:
    """Those of most weights, not of most layers; of two halves those with fewer bits."""
    encoder = maxmod.quantize(Bert(BertConfig(20, 32, 1, 2, 64)), "int4")
    entry = _entry_of(_Held(SENTENCES, encoder), tmp_path / "bert")
    wide = [f"layers.0.{name}" for name in ("attention.value", "attention.dense", "mlp.up")]
    assert entry == {
        "quant_method": "maxmod",
        "bits": 4,
        "group_size": 32,
        "version": 3,
        "layers": {name: {"bits": 8, "group_size": None} for name in wide},
    }
    layers = Sequential(Linear(64, 64), Linear(64, 128), Linear(128, 32), Linear(32, 32))
    maxmod.quantize(layers, "int8", skip=["0", "2"])
    maxmod.quantize(layers, "int4", skip="2", group_size=64)
    maxmod.quantize(layers, "int4")
    entry = _entry_of(_Held(SENTENCES, layers), tmp_path / "layers")
    assert (entry["bits"], entry["group_size"]) == (8, None)
    assert entry["layers"] == {
        "0": {"bits": 4, "group_size": 64},
        "2": {"bits": 4, "group_size": 32},
    }


def test_layers_to_skip_may_be_a_generator() -> None:
    model = load_model(TIED, device=CPU(), quantize="int8", skip=(name for name in ["lm_head"]))
    assert type(model.module.lm_head) is Linear  # type: ignore[attr-defined]


def test_two_schemes_and_shards(tmp_path: Path) -> None:
    """Each layer is what its tensors say; saved again, it is the same."""
    model = load_model(TIED, device=CPU(), quantize="int4", skip="lm_head")
    maxmod.quantize(model, "int8")
    made = save_quantized(model, tmp_path / "one", max_shard_bytes=10_000)
    assert len(list(made.glob("*.safetensors"))) > 1
    again = load_model(save_quantized(load_model(made, device=CPU()), tmp_path / "two"))
    head, layer = again.module.lm_head, again.module.h[0].mlp.c_fc  # type: ignore[attr-defined]
    assert (head.scheme, layer.scheme, layer.group_size) == ("int8", "int4", 32)
    _assert_same(model, again)
    text = inspect_text(made)
    assert "quantised layers  8 of int4, groups of 32; 1 of int8\n" in text
    assert describe(made) == "gpt2, read by load_model"


def test_other_dtypes_do_not_touch_scales(tmp_path: Path) -> None:
    model = load_model(TIED, device=CPU(), dtype=FLOAT32, quantize="int8")
    again = load_model(save_quantized(model, tmp_path / "m"), device=CPU(), dtype=DType.bfloat16)
    found, wanted = again.module.lm_head, model.module.lm_head  # type: ignore[attr-defined]
    assert found.scales.dtype is FLOAT32
    np.testing.assert_array_equal(found.scales.to_numpy(), wanted.scales.to_numpy())
    assert again.module.wte.dtype is DType.bfloat16  # type: ignore[attr-defined]


def _floats_of_version_1(model: Any, folder: Path) -> dict[str, Tensor]:
    """Writes a folder as version 1 had it, codes around 0; returns the weights of its layers."""
    state, floats = dict(model.module.parameters), {}
    state["lm_head.weight"] = state["wte.weight"]
    for name in [n for n in state if n.endswith(("c_fc.weight", "lm_head.weight"))]:
        made = F.quantize_weight(state[name], "int4_symmetric")
        state[name], state[name.replace("weight", "scales")] = made
        floats[name] = F.dequantize_weight(*made)
    save_state(state, folder)
    table = json.loads((TIED / "config.json").read_text("utf-8"))
    table["quantization_config"] = {"quant_method": "maxmod", "bits": 4, "group_size": 32}
    (folder / "config.json").write_text(json.dumps(table))
    return floats


def test_folders_of_version_2(tmp_path: Path) -> None:
    """8 bits with one scale for each row; the embedding has the codes of the head."""
    model = load_model(TIED, device=CPU(), dtype=FLOAT32, quantize="int8", group_size=-1)
    made = save_quantized(model, tmp_path / "model")
    table = json.loads((made / "config.json").read_text("utf-8"))
    table["quantization_config"]["version"] = 2
    (made / "config.json").write_text(json.dumps(table))
    found = load_model(made, device=CPU())
    layer: Any = found.module.h[0].mlp.c_proj  # type: ignore[attr-defined]
    assert (layer.scheme, layer.group_size, layer.scales.dtype) == ("int8", None, FLOAT32)
    _assert_same(model, found)
    np.testing.assert_array_equal(_logits(found), _logits(model))


def test_folders_of_version_1(tmp_path: Path) -> None:
    """4 bits without minimums, and an embedding of floats beside the codes of the head."""
    model = load_model(TIED, device=CPU(), dtype=FLOAT32)
    floats = _floats_of_version_1(model, tmp_path)
    found = load_model(tmp_path, device=CPU())
    module: Any = found.module
    assert (module.lm_head.scheme, module.lm_head.group_size) == ("int4_symmetric", 32)
    assert module.wte.weight.dtype is FLOAT32
    assert "3 of int4_symmetric, groups of 32" in inspect_text(tmp_path)
    plain: Any = model.module
    for layer in (0, 1):
        plain.h[layer].mlp.c_fc.weight = floats[f"h.{layer}.mlp.c_fc.weight"]
    plain.lm_head.weight = floats["lm_head.weight"]
    wanted = _logits(model)
    limit = 1e-3 * np.abs(wanted).max()  # kernels round activations to 16 bits
    np.testing.assert_allclose(_logits(found), wanted, rtol=0, atol=limit)
    table = json.loads((tmp_path / "config.json").read_text("utf-8"))
    table["quantization_config"]["version"] = 4
    (tmp_path / "config.json").write_text(json.dumps(table))
    with pytest.raises(ModelError, match="version: expected 1 to 3, got 4. Hint: a newer maxmod"):
        load_model(tmp_path, device=CPU())


def test_quantised_state_loads_without_a_mark_in_the_config(tmp_path: Path) -> None:
    model = load_model(TIED, device=CPU(), quantize="int8")
    save_state(model.module.parameters, tmp_path)
    shutil.copy(TIED / "config.json", tmp_path)
    again = load_model(tmp_path, device=CPU())
    _assert_same(model, again)
    assert isinstance(again.module.lm_head, QuantizedLinear)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("load", "folder", "results"),
    [(load_encoder, SENTENCES, _vectors), (load_vision_model, CLASSIFIER, _probabilities)],
)
def test_encoders_and_vision_models_are_rounded_while_loading(
    load: Callable[..., Any], folder: Path, results: Callable[[Any], Any]
) -> None:
    floats = load(folder, device=CPU(), dtype=FLOAT32)
    one = load(folder, device=CPU(), dtype=FLOAT32, quantize="int8")
    wanted = results(floats)
    two = maxmod.quantize(load(folder, device=CPU(), dtype=FLOAT32), "int8")
    _assert_same(one, two)
    found = results(one)
    assert (found != wanted).any()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.02 * np.abs(wanted).max())
    with pytest.raises(ArgumentError, match=rf"{load.__name__}: group_size, skip, head and"):
        load(folder, device=CPU(), skip="x")
    with pytest.raises(ArgumentError, match=r"'q_prj' matches no linear layer"):
        load(folder, device=CPU(), quantize="int8", skip=["q_prj"])


# ---- rejected folders ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        *(({"quant_method": name, "bits": 4}, f'by "{name}"') for name in ("hqq", "aqlm", "mxfp4")),
        ({"quant_method": ["gptq"]}, r'by \["gptq"\]'),
        ({"bits": 4}, "in a way that is not named"),
        ([], "in a way that is not named"),
    ],
)
def test_other_methods_are_named(tmp_path: Path, given: Any, shown: str) -> None:
    folder = copy(TIED, tmp_path / "model", quantization_config=given)
    message = (
        rf"config.json: 'quantization_config': weights that were quantised {shown} are not "
        r"supported: expected null or a quant_method of awq, .*, maxmod, got .*"
        r"Hint: load the folder of the original floats"
    )
    with pytest.raises(ModelError, match=message):
        load_model(folder, device=CPU())
    cannot = f"gpt2, which load_model cannot read: {folder / 'config.json'}: 'quantiz"
    assert describe(folder).startswith(cannot)


def test_folders_of_mlx(tmp_path: Path) -> None:
    folder = copy(TIED, tmp_path / "model", quantization={"group_size": 64, "bits": 4})
    with pytest.raises(ModelError, match="'quantization': models with this field are not support"):
        load_model(folder, device=CPU())


def test_codes_that_do_not_fit(tmp_path: Path) -> None:
    model = load_model(TIED, device=CPU(), quantize="int4")
    made = save_quantized(model, tmp_path / "model")
    with pytest.raises(ArgumentError, match=r"model: quantize: the weights .* quantised already"):
        load_model(made, device=CPU(), quantize="int8")
    with open_checkpoint(made) as checkpoint:
        state = dict(checkpoint)
    name = "h.0.mlp.c_fc.scales"
    scales = state[name].to_numpy()
    for bad, message in (
        (scales[:-1], rf"'{name}': Loaded tensor .*not assignable"),
        (scales.repeat(2, 1), r"load_model: .*quantize: h.0.mlp.c_fc.weight: .*multiple of 32"),
        (scales[:, :0], rf"'{name}': Loaded tensor .*not assignable"),
        (scales.astype(np.float32), r"quantize: h.0.mlp.c_fc.weight: .*multiple of 32"),
    ):
        save_state(state | {name: Tensor(np.ascontiguousarray(bad))}, made)
        with pytest.raises(WeightsError, match=message):
            load_model(made, device=CPU())
    save_state({k: v for k, v in state.items() if k != name}, made)
    with pytest.raises(WeightsError, match=r"h.0.mlp.c_fc.weight'.*dtype=uint8|not assignable"):
        load_model(made, device=CPU())
    save_state({k: v for k, v in state.items() if not k.endswith("scales")}, made)
    with pytest.raises(ModelError, match="no layer of the folder is stored as codes"):
        load_model(made, device=CPU())


def test_full_folders_and_plain_models_are_not_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(TIED, device=CPU())
    with pytest.raises(ArgumentError, match=r"no layer of the model is quantised. Hint: maxmod.qu"):
        save_quantized(model, tmp_path / "model")
    maxmod.quantize(model, "int8", skip="lm_head")
    assert type(model.module.lm_head) is Linear  # type: ignore[attr-defined]
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    for target in ("full", "full/note.txt", "full/note.txt/below/it", "a\0b"):
        with pytest.raises(ArgumentError, match="that does not exist or is empty"):
            save_quantized(model, tmp_path / target)
    with pytest.raises(ArgumentError, match="'': expected a folder that does not exist"):
        save_quantized(model, "")

    def full(path: Path, data: bytes) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(rounding, "_write", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="the disk is full"):
        save_quantized(model, tmp_path / "model")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["empty", ".", "link", "dangling", "deep/er"])
def test_paths_that_may_be_saved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = load_model(TIED, device=CPU(), quantize="int8")
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    (tmp_path / "dangling").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path / "empty" if name == "." else tmp_path)
    made = save_quantized(model, name)
    assert made == Path(name).resolve() and not [p for p in made.iterdir() if p.name[0] == "."]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    _assert_same(load_model(name, device=CPU()), model)


def test_only_files_of_the_model_are_copied(tmp_path: Path) -> None:
    folder = copy(SENTENCES, tmp_path / "source")
    for name in (".git/note.txt", "other/config.json", ".hidden.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    made = save_quantized(load_encoder(folder, device=CPU(), quantize="int8"), folder / "made")
    found = {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()}
    assert {"1_Pooling/config.json", "config.json", "modules.json", "tokenizer.json"} <= found
    assert not [name for name in found if name.startswith((".", "other"))]


def test_the_folder_is_found_from_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(TIED.parent)
    models = [load_model("tied", device=CPU(), quantize="int8")]
    monkeypatch.chdir(SENTENCES.parent)
    models.append(load_encoder("sentences", device=CPU(), quantize="int8"))  # type: ignore[arg-type]
    monkeypatch.chdir(CLASSIFIER.parent)
    models.append(load_vision_model("classifier", device=CPU(), quantize="int8"))  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    for number, model in enumerate(models):
        save_quantized(model, str(number))


# ---- commands ------------------------------------------------------------------------------------


def test_commands(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = str(tmp_path / "adder")
    options = ("--weights", "int4", "--group-size", "64", "--skip", "lm_head")
    assert main(["quantize", str(adder_folder()), made, *options]) == 0
    assert "of weights, from" in capsys.readouterr().err
    assert main(["generate", "123+456=", "--model", made, "--eager"]) == 0
    assert capsys.readouterr().out == "579\n"
    assert main(["inspect", made]) == 0
    assert "quantised layers  12 of int4, groups of 64" in capsys.readouterr().out
    monkeypatch.setattr(registry, "loader_of", None)  # it is not asked for
    assert main(["quantize", str(adder_folder()), made]) == 1
    assert "expected a folder that does not exist or is empty" in capsys.readouterr().err
    monkeypatch.undo()
    assert main(["quantize", str(tmp_path), str(tmp_path / "other")]) == 1
    assert "there is no config.json. Hint: " in capsys.readouterr().err


def test_options_of_embed_and_classify(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    common = ["--device", "cpu", "--dtype", "float32", "--eager", "--quantize", "int8"]
    assert main(["embed", "--model", str(SENTENCES), *common, "a cat"]) == 0
    model = load_encoder(SENTENCES, device=CPU(), dtype=FLOAT32, quantize="int8")
    found = np.array(json.loads(capsys.readouterr().out))
    np.testing.assert_allclose(found, model.embed(["a cat"], eager=True)[0], rtol=0, atol=1e-7)
    assert main(["quantize", str(CLASSIFIER), str(tmp_path / "vit"), "--dtype", "float32"]) == 0
    photo = str(CLASSIFIER / "photo.png")
    outputs = []
    for options in ([str(CLASSIFIER), *common], [str(tmp_path / "vit"), *common[:5]]):
        capsys.readouterr()
        assert main(["classify", photo, "--model", *options]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != ""


def _stored(folder: Path) -> dict[str, str]:
    with open_checkpoint(folder) as checkpoint:
        return {name: str(layer) for name, layer in stored_layers(checkpoint).items()}


def test_the_command_has_the_options_of_the_function(tmp_path: Path) -> None:
    options = ("--quantize", "int4", "--head", "int4", "--skip", "h.0.*", "--skip", "h.1.attn.*")
    assert main(["quantize", str(TIED), str(tmp_path / "one"), *options]) == 0
    model = load_model(TIED, device=CPU())
    maxmod.quantize(model, "int4", head="int4", skip=["h.0.*", "h.1.attn.*"])
    found = _stored(tmp_path / "one")
    assert found == _stored(save_quantized(model, tmp_path / "two"))
    layers = ("lm_head", "h.1.mlp.c_fc", "h.1.mlp.c_proj")
    assert found == dict.fromkeys(layers, "int4, groups of 32")


@pytest.mark.parametrize("command", ["generate", "bench", "explain", "embed", "classify"])
@pytest.mark.parametrize("option", ["--head", "--sensitive", "--skip", "--group-size"])
def test_options_of_rounding_need_a_scheme(
    command: str, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = {"embed": SENTENCES, "classify": CLASSIFIER}
    value = {"--skip": "lm_head", "--group-size": "32"}.get(option, "int4")
    texts = {"bench": [], "explain": []}.get(command, ["text"])
    model = ["--model", str(folders.get(command, TIED))]
    assert main([command, *texts, *model, "--device", "cpu", option, value]) == 1
    assert "group_size, skip, head and sensitive need quantize as well" in capsys.readouterr().err
