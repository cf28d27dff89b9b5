"""GPT-2 against logits that transformers computed, for folders as `save_pretrained` writes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from maxmod import CPU, Device, DType, Tensor
from maxmod.errors import ModelError, WeightsError
from maxmod.models import LanguageModel, load_model
from maxmod.models.decoders.gpt2 import GPT2, Config
from maxmod.weights import add_prefix, merge, open_checkpoint, save_state

FIXTURES = Path(__file__).parents[1] / "assets" / "gpt2"
FOLDERS = sorted(folder.name for folder in FIXTURES.iterdir() if folder.is_dir())
TOLERANCE = 1e-4  # of logits in float32; they are about 10


def _golden(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    with np.load(FIXTURES / name / "golden.npz") as data:
        return [(data[f"input_ids_{i}"], data[f"logits_{i}"]) for i in range(3)]


def _load(name: str, device: Device | None = None) -> LanguageModel:
    return load_model(FIXTURES / name, device=device or CPU(), dtype=DType.float32)


def _copy(name: str, target: Path, **changes: object) -> Path:
    """Copies a folder, with other fields in its config.json; None leaves a field out."""
    shutil.copytree(FIXTURES / name, target)
    path = target / "config.json"
    table = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in table.items() if v is not None}), "utf-8")
    return target


def test_all_kinds_of_folders_are_there() -> None:
    assert {"tied", "untied_gelu", "sharded", "bfloat16", "inverse_layer_scale"} <= set(FOLDERS)


@pytest.mark.parametrize("name", FOLDERS)
def test_logits(name: str, device: Device) -> None:
    model = _load(name, device)
    compiled = model.module.compile(model.tokens_type)
    for tokens, expected in _golden(name):
        rows = Tensor(tokens).to(device)
        eager = model.module(rows)
        assert eager.dtype is DType.float32
        assert eager.device == device
        np.testing.assert_allclose(np.array(eager), expected, rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(np.array(compiled(rows)), expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("eager", [True, False])
@pytest.mark.parametrize("name", FOLDERS)
def test_next_logits_belong_to_the_last_position(name: str, eager: bool) -> None:
    model = _load(name)
    for tokens, expected in _golden(name):
        found = model.next_logits(tokens, eager=eager)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected[:, -1], rtol=0, atol=TOLERANCE)


def test_one_compile_serves_all_sizes() -> None:
    model = _load("tied")
    for tokens, _ in _golden("tied"):
        model.next_logits(tokens)
    assert model.last_logits.stats.calls == 3
    assert "[batch,seq]" in str(model.last_logits.graph)


@pytest.mark.parametrize("dtype", [DType.bfloat16, DType.float16])
def test_half_types(dtype: DType) -> None:
    """Every op rounds to 8 or 11 bits, so that logits of up to 20 are off by some tenths."""
    model = load_model(FIXTURES / "tied", device=CPU(), dtype=dtype)
    assert {tensor.dtype for _, tensor in model.module.parameters} == {dtype}
    for tokens, expected in _golden("tied"):
        logits = np.array(model.module(Tensor(tokens, device=CPU())).cast(DType.float32))
        bound = 0.05 if dtype is DType.bfloat16 else 0.006
        scale = np.abs(expected).max()
        assert np.abs(logits - expected).max() < bound * scale
        found = model.next_logits(tokens)
        assert np.abs(found - expected[:, -1]).max() < bound * scale


def test_the_file_gives_the_dtype_unless_given() -> None:
    model = load_model(FIXTURES / "bfloat16", device=CPU())
    assert model.dtype is DType.bfloat16
    assert {tensor.dtype for _, tensor in model.module.parameters} == {DType.bfloat16}
    assert _load("bfloat16").dtype is DType.float32


def test_tied_head_stays_one_tensor(emulated_accelerator: Device) -> None:
    for device in (CPU(), emulated_accelerator):
        module = _load("tied", device).module
        assert module.lm_head.weight is module.wte.weight
        assert module.device == device
    module = _load("untied_gelu").module
    assert module.lm_head.weight is not module.wte.weight


def test_names_without_prefix_and_with_masks(tmp_path: Path) -> None:
    """As the model without a head, and old versions of transformers, save them."""
    folder = _copy("tied", tmp_path / "old")
    with open_checkpoint(FIXTURES / "tied") as checkpoint:
        names = {name.removeprefix("transformer."): tensor for name, tensor in checkpoint.items()}
        masks = {
            "h.0.attn.bias": np.ones((1, 1, 16, 16), np.uint8),
            "h.1.attn.masked_bias": np.float32(-1e4).reshape(1),
        }
        save_state(merge(names, masks), folder / "model.safetensors")
    tokens, expected = _golden("tied")[1]
    found = load_model(folder, device=CPU()).module(Tensor(tokens, device=CPU()))
    np.testing.assert_allclose(np.array(found), expected, rtol=0, atol=TOLERANCE)


def test_scores_without_scale(tmp_path: Path) -> None:
    """The scale moves logits; without it they are those of queries that are 1/scale larger."""
    folder = _copy("tied", tmp_path / "unscaled", scale_attn_weights=False)
    unscaled = load_model(folder, device=CPU()).module
    scaled = _load("tied").module
    tokens, expected = _golden("tied")[1]
    rows = Tensor(tokens, device=CPU())
    assert np.abs(np.array(unscaled(rows)) - expected).max() > 0.1
    for block in scaled.h:
        layer = block.attn.c_attn
        factor = np.ones(96, np.float32)
        factor[:32] = np.sqrt(8)  # of the queries; heads have 8 elements
        layer.weight = Tensor(np.array(layer.weight) * factor[:, None])
        layer.bias = Tensor(np.array(layer.bias) * factor)
    np.testing.assert_allclose(
        np.array(scaled(rows)), np.array(unscaled(rows)), rtol=0, atol=TOLERANCE
    )


def test_later_tokens_change_nothing() -> None:
    model = _load("tied")
    tokens, _ = _golden("tied")[2]
    changed = tokens.copy()
    changed[:, 9:] = 5
    both = [np.array(model.module(Tensor(t, device=CPU()))) for t in (tokens, changed)]
    np.testing.assert_array_equal(both[0][:, :9], both[1][:, :9])
    assert np.abs(both[0][:, 9:] - both[1][:, 9:]).max() > 0.1


def test_trace_names_lines_of_the_model() -> None:
    text = str(_load("tied").module.trace(_load("tied").tokens_type))
    assert "float32[batch,seq,97]" in text
    assert "# gpt2.py:" in text


# ---- bad input -----------------------------------------------------------------------------------


def test_token_outside_the_vocabulary() -> None:
    model = _load("tied")
    rows = Tensor([[1, 97]], dtype=DType.int64, device=CPU())
    with pytest.raises(IndexError, match="gather: position 97 out of range"):
        model.module(rows)
    with pytest.raises(IndexError, match="gather: position 97 out of range"):
        model.module.compile(model.tokens_type)(rows)


def test_sequence_longer_than_the_positions() -> None:
    rows = Tensor.zeros([1, 17], dtype=DType.int64, device=CPU())
    with pytest.raises(IndexError, match="gather: position 16 out of range for an axis of size 16"):
        _load("tied").module(rows)


def test_wrong_type_of_tokens() -> None:
    model = _load("tied")
    with pytest.raises(ValueError, match=r"gather: indices have an unsupported dtype.*float32"):
        model.module(Tensor.zeros([1, 2], dtype=DType.float32, device=CPU()))
    with pytest.raises(ValueError, match=r"tokens: expected int64\[batch,seq\], got int64\[2\]"):
        model.module(Tensor.zeros([2], dtype=DType.int64, device=CPU()))
    compiled = model.module.compile(model.tokens_type)
    with pytest.raises(ValueError, match=r"argument 0: expected int64\[batch,seq\] for tokens"):
        compiled(Tensor.zeros([2], dtype=DType.int64, device=CPU()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "gelu_old"}, "activation_function: expected one of gelu, "),
        ({"n_head": 5}, "n_embd=32 is not a multiple of n_head=5"),
        ({"n_layer": 0}, "sizes must be above 0"),
        ({"n_inner": -1}, "sizes must be above 0"),
        ({"n_embd": "32"}, "'n_embd': expected int, got \"32\""),
        ({"n_layer": True}, "'n_layer': expected int, got true"),
        ({"n_inner": 1.5}, "'n_inner': expected int or null, got 1.5"),
        ({"layer_norm_epsilon": []}, r"'layer_norm_epsilon': expected float, got \[\]"),
        ({"n_positions": None}, "the field 'n_positions' is missing"),
    ],
)
def test_bad_configuration(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    folder = _copy("tied", tmp_path / "bad", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(folder, device=CPU())
    assert str(caught.value).startswith(str(folder / "config.json"))


def test_whole_numbers_are_floats() -> None:
    assert Config(1, 1, 1, 1, 1, layer_norm_epsilon=1).layer_norm_epsilon == 1
    with pytest.raises(TypeError):
        GPT2(Config(1, 1, 1, 1, 1))(1, 2)  # type: ignore[call-arg]


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    folder = _copy("tied", tmp_path / "wide", n_layer=3, vocab_size=98)
    with pytest.raises(WeightsError) as caught:
        load_model(folder, device=CPU())
    text = str(caught.value)
    assert text.startswith(f"load_model: {folder}: load_state_dict: the weights do not fit")
    assert "12 missing, 1 mismatched" in text
    assert "'h.2.attn.c_attn.weight' is missing" in text
    assert "'wte.weight': Loaded tensor (shape=[97,32]" in text


def test_unknown_weights_are_refused(tmp_path: Path) -> None:
    folder = _copy("tied", tmp_path / "more")
    with open_checkpoint(FIXTURES / "tied") as checkpoint:
        extra = add_prefix({"weight": np.ones(3, np.float32)}, "transformer.h.0.crossattention.")
        save_state(merge(checkpoint, extra), folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"'h\.0\.crossattention\.weight'"):
        load_model(folder, device=CPU())


# ---- live ----------------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("activation", ["gelu_new", "gelu", "quick_gelu", "relu", "silu", "tanh"])
def test_folder_written_by_transformers(tmp_path: Path, activation: str) -> None:
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.GPT2Config(
        vocab_size=61,
        n_positions=12,
        n_embd=24,
        n_layer=2,
        n_head=3,
        activation_function=activation,
        initializer_range=0.3,
    )
    oracle = transformers.GPT2LMHeadModel(config).eval()
    oracle.save_pretrained(tmp_path)
    tokens = torch.randint(61, (2, 12))
    with torch.inference_mode():
        expected = oracle(tokens).logits.numpy()
    found = load_model(tmp_path, device=CPU()).module(Tensor(tokens.numpy(), device=CPU()))
    np.testing.assert_allclose(np.array(found), expected, rtol=0, atol=TOLERANCE)
