"""Models of GGUF files: tensors, configuration and tokenizer, and files that are refused."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.folders import ASSETS, copy, golden
from models.gguf_files import write_gguf

from maxmod import CPU, DType, Tensor
from maxmod.cli import main
from maxmod.errors import CheckpointError, ModelError
from maxmod.generate.tokenizer_files import open_tokenizer
from maxmod.models import load_model
from maxmod.models.gguf.config import config_of
from maxmod.models.gguf.tokenizer import write_tokenizer
from maxmod.models.registry import describe
from maxmod.weights import open_checkpoint, save_state
from maxmod.weights.gguf import GGUFWeights

gguf = pytest.importorskip("gguf", reason="needs gguf: pip install gguf")

RELATIVE = 1e-4  # of the largest logit
FOLDERS = {
    "gemma": ASSETS / "llama/gemma",
    "gpt2": ASSETS / "gpt2/tied",
    "granite": ASSETS / "decoders/granite",
    "llama": ASSETS / "llama/llama2",
    "olmo2": ASSETS / "decoders/olmo2",
    "qwen3": ASSETS / "llama/qwen3",
    "starcoder2": ASSETS / "decoders/starcoder2",
}


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_equal_the_folder(name: str, tmp_path: Path) -> None:
    path = write_gguf(FOLDERS[name], tmp_path / "model.gguf")
    model = load_model(path, device=CPU())
    assert model.dtype is DType.float32
    for tokens, expected in golden(FOLDERS[name]):
        found = model.module(Tensor(tokens, device=CPU())).to_numpy()
        atol = RELATIVE * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_quantised_file_is_read_in_bfloat16(tmp_path: Path) -> None:
    weights = np.random.default_rng(0).normal(size=(6, 64)).astype(np.float32)
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for kind in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "BF16"):
        type = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(f"{kind}.weight", gguf.quantize(weights, type), raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GGUFWeights(path)
    assert file.is_quantised
    assert file.quantised_kinds == ["Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"]
    for name in file:
        found = file[name]
        assert found.shape == [6, 64]
        errors = found.cast(DType.float32).to_numpy() - weights
        assert 0 < np.abs(errors).max() < 0.35
    assert file["BF16.weight"].dtype is DType.bfloat16


@pytest.mark.parametrize("kind", ["Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS"])
def test_blocks_of_many_kinds(kind: str, tmp_path: Path) -> None:
    """Random blocks: shape and values as the formulas of the package say."""
    type = gguf.GGMLQuantizationType[kind]
    count, nbytes = gguf.GGML_QUANT_SIZES[type]
    blocks = np.random.default_rng(1).integers(0, 60, (3, 2 * nbytes)).astype(np.uint8)
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("a.weight", blocks, raw_dtype=type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found = GGUFWeights(path)["a.weight"]
    assert found.type.short() == f"float32[3,{2 * count}]"
    np.testing.assert_array_equal(found.to_numpy(), gguf.dequantize(blocks, type))


def test_dequantised_weights_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "maxmod")
    source, wide = ASSETS / "llama/llama32", tmp_path / "wide"
    copy(source, wide, hidden_size=32, intermediate_size=64)
    sizes = {24: 32, 40: 64}
    made = {
        name: Tensor.ones([sizes.get(int(size), int(size)) for size in weight.shape])
        for name, weight in open_checkpoint(source).items()
    }
    save_state(made, wide)
    path = write_gguf(wide, tmp_path / "m.gguf", kind="Q8_0")
    assert load_model(path, device=CPU()).dtype is DType.bfloat16
    (said,) = [message for message in caplog.messages if "are read as" in message]
    assert said.startswith("m.gguf: weights of Q8_0 are read as bfloat16. Hint: quantize='int4'")
    caplog.clear()
    load_model(path, device=CPU(), quantize="int8")
    assert not [message for message in caplog.messages if "are read as" in message]


def test_rounding_while_the_file_is_read(tmp_path: Path) -> None:
    path = write_gguf(FOLDERS["llama"], tmp_path / "model.gguf")
    model = load_model(path, device=CPU(), quantize="int8")
    tokens, expected = golden(FOLDERS["llama"])[2]
    found = model.module(Tensor(tokens, device=CPU())).cast(DType.float32).to_numpy()
    assert np.sqrt(np.mean((found - expected) ** 2)) < 0.05 * expected.std()


def test_scaled_positions(tmp_path: Path) -> None:
    fields = {
        "rope.scaling.type": "yarn",
        "rope.scaling.factor": 4.0,
        "rope.scaling.original_context_length": 8,
    }
    path = write_gguf(ASSETS / "decoders/yarn", tmp_path / "model.gguf", **fields)
    tokens, expected = golden(ASSETS / "decoders/yarn")[2]
    found = load_model(path, device=CPU()).module(Tensor(tokens, device=CPU())).to_numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


def test_factors_of_frequencies(tmp_path: Path) -> None:
    """Phi-3: short and long factors, and the factor of attention that goes with them."""
    folder = ASSETS / "decoders/phi3"
    path = write_gguf(
        folder,
        tmp_path / "model.gguf",
        extra={
            "rope_factors_short.weight": [1.5, 2.5],
            "rope_factors_long.weight": [3.0, 5.0],
        },
        **{
            "rope.dimension_count": 4,
            "rope.scaling.original_context_length": 24,
            "rope.scaling.attn_factor": math.sqrt(1 + math.log(32 / 24) / math.log(24)),
        },
    )
    model = load_model(path, device=CPU())
    assert model.max_positions == 24
    tokens, expected = golden(folder)[2]
    found = model.module(Tensor(tokens, device=CPU())).to_numpy()
    np.testing.assert_allclose(found, expected, rtol=0, atol=RELATIVE * np.abs(expected).max())


@pytest.mark.parametrize(("layers", "scalar"), [(3, 8), (46, 6)])
def test_scale_of_gemma(layers: int, scalar: int, tmp_path: Path) -> None:
    """That of heads of 8; the model of 27B divides its width of 24 by 4 heads."""
    path = write_gguf(ASSETS / "llama/gemma2", tmp_path / "m.gguf", block_count=layers)
    assert config_of("load_model", GGUFWeights(path))["query_pre_attn_scalar"] == scalar


def test_folder_with_one_file(tmp_path: Path) -> None:
    write_gguf(FOLDERS["llama"], tmp_path / "one.gguf")
    assert describe(tmp_path) == "llama, read by load_model"
    write_gguf(FOLDERS["llama"], tmp_path / "two.gguf")
    with pytest.raises(ModelError, match="it holds several GGUF files; name one of them"):
        load_model(tmp_path, device=CPU())


def test_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_gguf(FOLDERS["llama"], tmp_path / "model.gguf", kind="F16")
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "blk.*.attn_q.weight" in shown and "F16" in shown
    assert "architecture  llama, read by load_model" in shown
    out = tmp_path / "int8"
    assert main(["quantize", str(path), str(out), "--quantize", "int8"]) == 0
    assert load_model(out, device=CPU()).config.num_hidden_layers == 2


# ---- tokenizers ----------------------------------------------------------------------------------

BYTES = [f"<0x{number:02X}>" for number in range(256)]


def _tokenizer(folder: Path, **fields: object) -> Any:
    """The tokenizer of a file with some metadata; None if there is none."""
    write_tokenizer(
        folder, folder / "m.gguf", {f"tokenizer.ggml.{k}": v for k, v in fields.items()}
    )
    return open_tokenizer(folder) if (folder / "tokenizer.json").exists() else None


def test_sentence_pieces(tmp_path: Path) -> None:
    """The best pair is merged first; a start token is put in front; others become bytes."""
    pieces = ["<unk>", "<s>", "</s>", *BYTES, "▁", "a", "b", "ab", "▁a", "▁ab"]
    made = _tokenizer(
        tmp_path,
        model="llama",
        tokens=pieces,
        scores=[0.0] * 262 + [-1.0, -3.0, -2.0],
        token_type=[2, 3, 3] + [6] * 256 + [1] * 6,
        bos_token_id=1,
        eos_token_id=2,
        unknown_token_id=0,
    )
    texts = [pieces[token] for token in made.encode("ab aé")]
    assert texts == ["<s>", "▁ab", "▁a", "<0xC3>", "<0xA9>"]
    assert made.decode(made.encode("ab aé")) == "ab aé"


@pytest.mark.parametrize(
    ("pre", "words"),
    [
        ("llama-bpe", ["<s>", "a", "1", "2", "3"]),
        ("qwen2", ["a", "1", "2", "3"]),
        ("smollm", ["a", "1", "2", "3"]),
        ("gpt-2", ["a", "12", "3"]),
    ],
)
def test_words_of_byte_level_tokenizers(pre: str, words: list[str], tmp_path: Path) -> None:
    """Digits are words of their own, or not; Llama 3 has a start token by itself."""
    tokens = ["<s>", "a", "1", "2", "3", "12"]
    merges = [] if pre == "llama-bpe" else ["1 2"]
    made = _tokenizer(
        tmp_path,
        model="gpt2",
        pre=pre,
        tokens=tokens,
        merges=merges,
        token_type=[3, 1, 1, 1, 1, 1],
        bos_token_id=0,
    )
    assert [tokens[token] for token in made.encode("a123")] == words


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"model": "gpt2", "pre": "tekken"}, "tokenizer.ggml.pre: expected one of .* got 'tekken'"),
        ({"model": "gpt2"}, "tokenizer.ggml.pre: expected one of .* got 'default'"),
        ({"model": "t5"}, "tokenizer.ggml.model: expected one of gpt2, llama, got 't5'"),
    ],
)
def test_unknown_tokenizers_are_told(
    fields: dict[str, object],
    reason: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "maxmod")
    assert _tokenizer(tmp_path, tokens=["a"], merges=[], **fields) is None
    (said,) = caplog.messages
    assert re.search(f"^m.gguf: its tokenizer is not read: {reason}. Hint: put the", said)


def test_tokenizer_beside_the_file(tmp_path: Path) -> None:
    write_gguf(FOLDERS["llama"], tmp_path / "model.gguf")
    beside = ASSETS / "llama/chat/tokenizer.json"
    (tmp_path / "tokenizer.json").write_bytes(beside.read_bytes())
    made = load_model(tmp_path / "model.gguf", device=CPU()).tokenizer
    assert made.decode(made.encode("Who bakes?")) == "Who bakes?"


def test_header_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_gguf(FOLDERS["llama"], tmp_path / "model.gguf")
    opened: list[object] = []
    original = GGUFWeights.__init__

    def init(self: GGUFWeights, given: Path) -> None:
        opened.append(given)
        original(self, given)

    monkeypatch.setattr(GGUFWeights, "__init__", init)
    assert describe(path) == "llama, read by load_model"
    load_model(path, device=CPU())
    assert opened == [path]
    path.write_bytes(path.read_bytes())  # another file with the same name
    load_model(path, device=CPU())
    assert opened == [path, path]


# ---- refused files -------------------------------------------------------------------------------


def test_refused_files(tmp_path: Path) -> None:
    path = write_gguf(FOLDERS["llama"], tmp_path / "model.gguf")
    whole = path.read_bytes()
    for data, message in (
        (b"GGUX" + whole[4:], "expected it to begin with b'GGUF', got b'GGUX'"),
        (whole[:40], "malformed or cut short"),
        (whole[: len(whole) - 100], "malformed or cut short|the download is incomplete"),
        (b"", "expected it to begin with b'GGUF', got b''"),
    ):
        path.write_bytes(data)
        with pytest.raises(CheckpointError, match=message):
            load_model(path, device=CPU())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rope.scaling.type": "su"}, "rope.scaling.type: expected none, linear or yarn, got 'su'"),
        ({"expert_count": 8}, "models of experts are not supported"),
        ({"attention.head_count": 5}, "num_attention_heads=5 is not a multiple of num_key"),
    ],
)
def test_refused_metadata(fields: dict[str, object], message: str, tmp_path: Path) -> None:
    path = write_gguf(FOLDERS["llama"], tmp_path / "model.gguf", **fields)
    with pytest.raises(ModelError, match=message):
        load_model(path, device=CPU())


def test_unknown_architecture(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="general.architecture: .* llama, .*; got 'mamba'"):
        load_model(path, device=CPU())


def test_missing_part(tmp_path: Path) -> None:
    path = write_gguf(FOLDERS["llama"], tmp_path / "m-00001-of-00002.gguf")
    with pytest.raises(CheckpointError, match="has 2 parts, and 'm-00002-of-00002.gguf' is not"):
        load_model(path, device=CPU())
