"""Folders that other tools quantised: their floats, their codes in kernels, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from models import format_files as files

from maxmod import CPU, DType
from maxmod.cli import main
from maxmod.errors import ModelError, WeightsError
from maxmod.models import load_model, save_quantized
from maxmod.models.formats.scaled import Float8Layer
from maxmod.models.registry import describe
from maxmod.nn import Linear, QuantizedLinear
from maxmod.weights import open_checkpoint, save_state
from maxmod.weights.mapping import InMemory, format_nbytes

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 32, "desc_act": False, "sym": True}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm", "zero_point": True}
PACKED = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}
FP8 = {"quant_method": "fp8", "weight_block_size": [48, 40], "activation_scheme": "dynamic"}
BITS = {"quant_method": "bitsandbytes", "load_in_4bit": True}
TOKENS = [[1, 2, 3, 50, 7]]

# What is written, what config.json says, and how layers are kept: None for floats.
CASES: dict[str, tuple[files.Maker, dict[str, Any], str | None]] = {
    "gptq": (files.gptq(4, 32, symmetric=True), GPTQ, "int4_symmetric"),
    "gptq, rows": (files.gptq(4, -1, symmetric=True), GPTQ | {"group_size": -1}, "int4_symmetric"),
    "gptq, no order": (files.gptq(4, 32, symmetric=True, order="none"), GPTQ, "int4_symmetric"),
    "gptq, zero points": (files.gptq(4, 32, symmetric=False), GPTQ | {"sym": False}, "int8"),
    "gptq_v2, zero points": (
        files.gptq(4, 32, symmetric=False, added=0),
        GPTQ | {"sym": False, "checkpoint_format": "gptq_v2"},
        "int8",
    ),
    "gptq, 2 bits": (files.gptq(2, 32, symmetric=True), GPTQ | {"bits": 2}, "int4_symmetric"),
    "gptq, 3 bits": (files.gptq(3, 32, symmetric=False), GPTQ | {"bits": 3}, "int4_symmetric"),
    "gptq, 8 bits": (files.gptq(8, 32, symmetric=True), GPTQ | {"bits": 8}, "int8"),
    "gptq, 8 bits, zero points": (files.gptq(8, 32, symmetric=False), GPTQ | {"bits": 8}, None),
    "gptq, order": (files.gptq(4, 32, symmetric=True, order="acts"), GPTQ, None),
    "gptq, groups of 16": (files.gptq(4, 16, symmetric=True), GPTQ | {"group_size": 16}, None),
    "awq": (files.awq(32), AWQ, "int8"),
    "awq, symmetric": (files.awq(32, symmetric=True), AWQ, "int4_symmetric"),
    "packed": (files.packed(4, 32), PACKED, "int4_symmetric"),
    "packed, rows": (files.packed(4, -1), PACKED, "int4_symmetric"),
    "packed, zero points": (files.packed(4, 32, symmetric=False), PACKED, "int8"),
    "packed, 8 bits": (files.packed(8, 32), PACKED, "int8"),
    "packed, order": (files.packed(4, 32, acts=True), PACKED, None),
    "integers, all": (files.integers("all"), PACKED | {"format": "int-quantized"}, "int8"),
    "integers, rows": (files.integers("row"), PACKED | {"format": "int-quantized"}, "int8"),
    "integers, groups": (files.integers("group"), PACKED | {"format": "int-quantized"}, "int8"),
    "float-quantized": (
        files.float8("row", "weight_scale"),
        PACKED | {"format": "float-quantized"},
        None,
    ),
    "fp8, blocks": (files.float8("block"), FP8, None),
    "fp8, all": (files.float8("all", "weight_scale"), FP8 | {"weight_block_size": None}, None),
    "fbgemm_fp8": (files.float8("row", "weight_scale"), {"quant_method": "fbgemm_fp8"}, None),
    "LLM.int8": (files.rows_of_8_bits, BITS | {"load_in_4bit": False}, "int8"),
    "nf4": (files.four_bit_floats(nested=False), BITS, None),
    "nf4, nested": (files.four_bit_floats(nested=True), BITS, None),
    "nf4 in float16": (files.four_bit_floats(nested=False, storage=np.float16), BITS, None),
}


@pytest.mark.parametrize("case", CASES)
def test_logits_of_codes_and_floats_agree(
    case: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "maxmod")
    make, quantization, scheme = CASES[case]
    codes, floats = files.write(tmp_path, make, quantization)
    model = load_model(codes, device=CPU(), dtype=DType.float32)
    expected = load_model(floats, device=CPU()).next_logits(TOKENS, eager=True)
    found = model.next_logits(TOKENS, eager=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    layer = model.module.layers[0].mlp.down_proj  # type: ignore[attr-defined]
    said = " ".join(caplog.messages)
    has_zeros = scheme == "int8" and (case == "awq" or "zero points" in case)
    assert ("with zero points are kept" in said) == has_zeros
    assert ("are read as float32. Hint: quantize='int4'" in said) == (scheme is None)
    assert (getattr(layer, "scheme", None), type(layer) is Linear) == (scheme, scheme is None)


@pytest.mark.parametrize("case", ["gptq", "awq", "integers, groups", "packed, rows"])
def test_kernels_read_the_codes(case: str, tmp_path: Path) -> None:
    make, quantization, _ = CASES[case]
    codes, floats = files.write(tmp_path, make, quantization)
    model = load_model(codes, device=CPU(), dtype=DType.float32)
    expected = load_model(floats, device=CPU()).next_logits(TOKENS, eager=True)
    found = model.next_logits(TOKENS)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3 * np.abs(expected).max())


FUSED = {
    "self_attn.qkv_proj": (128, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_up_proj": (192, 64),
    "mlp.down_proj": (64, 96),
}


def test_halves_of_fused_layers_are_split(tmp_path: Path) -> None:
    """Phi-3 has queries, keys and values in one weight, and the gate with the other half."""
    make, quantization, _ = CASES["gptq"]
    names = {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "pad_token_id": None}
    codes, floats = files.write(tmp_path, make, quantization, layers=FUSED, **names)
    model = load_model(codes, device=CPU(), dtype=DType.float32)
    expected = load_model(floats, device=CPU()).next_logits(TOKENS, eager=True)
    found = model.next_logits(TOKENS, eager=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    mlp = model.module.layers[0].mlp  # type: ignore[attr-defined]
    assert {type(mlp.gate_proj), type(mlp.up_proj)} == {QuantizedLinear}


def test_weights_of_gpt2_are_turned(tmp_path: Path) -> None:
    """Its layers keep weights as [in, out], quantised ones as others do."""
    plain = {"wte.weight": (61, 64), "wpe.weight": (32, 64)}
    for norm in ("h.0.ln_1", "h.0.ln_2", "ln_f"):
        plain |= {f"{norm}.weight": (64,), f"{norm}.bias": (64,)}
    sizes = {"attn.c_attn": (192, 64), "attn.c_proj": (64, 64)}
    sizes |= {"mlp.c_fc": (256, 64), "mlp.c_proj": (64, 256)}
    plain |= {f"h.0.{name}.bias": (rows,) for name, (rows, _) in sizes.items()}
    config = dict.fromkeys(files.CONFIG, ...) | {"model_type": "gpt2", "vocab_size": 61}
    config |= {"n_positions": 32, "n_embd": 64, "n_layer": 1, "n_head": 4}
    make, quantization, _ = CASES["gptq"]
    codes, floats = files.write(
        tmp_path,
        make,
        quantization,
        layers=sizes,
        plain=plain,
        prefix="h.0.",
        transposed=True,
        **config,
    )
    found = load_model(codes, device=CPU(), dtype=DType.float32).next_logits(TOKENS, eager=True)
    expected = load_model(floats, device=CPU()).next_logits(TOKENS, eager=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def _with(
    make: files.Maker, change: Callable[[files.Tensors, np.ndarray], files.Tensors]
) -> files.Maker:
    def made(rng: np.random.Generator, rows: int, depth: int) -> tuple[files.Tensors, np.ndarray]:
        tensors, weight = make(rng, rows, depth)
        return change(tensors, weight), weight

    return made


def test_tensors_that_round_activations_are_left_out(tmp_path: Path) -> None:
    """Scales of the KV cache stand beside the layers; zero points of floats are zeros."""
    make, quantization, _ = CASES["float-quantized"]
    zeros = _with(make, lambda t, _: t | {"weight_zero_point": np.zeros_like(t["weight_scale"])})
    plain = {f"model.layers.0.self_attn.{name}_scale": (1,) for name in "qkv"}
    codes, floats = files.write(tmp_path, zeros, quantization, plain=files.PLAIN | plain)
    found = load_model(codes, device=CPU(), dtype=DType.float32).next_logits(TOKENS, eager=True)
    state = dict(open_checkpoint(floats))
    kept = {name: state[name] for name in state if name not in plain}
    (floats / "model.safetensors").unlink()
    save_state(kept, floats / "model.safetensors")
    expected = load_model(floats, device=CPU()).next_logits(TOKENS, eager=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_as_many_blocks_as_outputs_stay_blocks() -> None:
    """Blocks of 128 by 128 of 16,384 inputs are as many as there are outputs."""
    codes = np.arange(1, 17, dtype=np.float32).reshape(4, 4).astype(ml_dtypes.float8_e4m3fn)
    scales = np.array([[1, 2], [4, 8]], np.float32)
    stored = InMemory({"a.weight": codes, "a.weight_scale_inv": scales})
    found = Float8Layer(stored, "a", "weight_scale_inv", (2, 2)).floats()
    np.testing.assert_array_equal(found, codes.astype("f") * np.kron(scales, np.ones((2, 2))))


@pytest.mark.parametrize(
    ("case", "change", "message"),
    [
        (
            "float-quantized",
            lambda t, weight: t | {"weight": weight.astype(np.float32)},
            "weight: expected float8_e4m3fn or .* beside a scale, got float32. Hint: these weights",
        ),
        (
            "integers, rows",
            lambda t, _: t | {"weight": t["weight"].astype(np.int32)},
            "weight: expected int8 beside a scale, got int32",
        ),
        (
            "float-quantized",
            lambda t, _: t | {"weight_zero_point": np.ones_like(t["weight_scale"])},
            "weight_zero_point: expected zeros for 8-bit floats, got others",
        ),
        (
            "LLM.int8",
            lambda t, _: t | {"weight_format": np.asarray(np.uint8(2))},
            "weight_format: expected 0, rows as they are, got 2. Hint: earlier versions",
        ),
        (
            "gptq",
            lambda t, _: t | {"qzeros": t["qzeros"].astype(np.float32)},
            "qzeros: expected int32, got float32",
        ),
        (
            "packed",
            lambda t, _: t | {"weight_scale": t["weight_scale"].astype(np.int32)},
            "weight_scale: expected floats for groups, got int32",
        ),
        (
            "nf4, nested",
            lambda t, _: t | {"weight.nested_absmax": t["weight.nested_absmax"][1:].copy()},
            r"weight.nested_absmax: expected \d+ numbers, got",
        ),
    ],
    ids=["float32", "int32", "zero points", "tiles", "words", "scales", "magnitudes"],
)
def test_weights_in_another_state_are_refused(
    case: str,
    change: Callable[[files.Tensors, np.ndarray], files.Tensors],
    message: str,
    tmp_path: Path,
) -> None:
    """Weights that were not yet rounded, or were rearranged for a GPU, would give wrong numbers."""
    make, quantization, _ = CASES[case]
    codes, _ = files.write(tmp_path, _with(make, change), quantization)
    with pytest.raises(ModelError, match=message):
        load_model(codes, device=CPU())


def test_floats_beside_a_file_of_another_folder_are_read(tmp_path: Path) -> None:
    _, floats = files.write(tmp_path, CASES["gptq"][0], None)
    (floats / "quantize_config.json").write_text('{"bits": 4}', "utf-8")
    assert load_model(floats, device=CPU()).dtype is DType.float32


def test_older_folders_have_another_file(tmp_path: Path) -> None:
    """The first versions of the tools left config.json as it was."""
    for case, name in (("gptq", "quantize_config.json"), ("awq", "quant_config.json")):
        make, quantization, scheme = CASES[case]
        codes, floats = files.write(tmp_path / case, make, None)
        older = {"w_bit": 4, "q_group_size": 32, "version": "GEMM", "zero_point": True}
        table = older if case == "awq" else quantization
        (codes / name).write_text(json.dumps(table), "utf-8")
        model = load_model(codes, device=CPU(), dtype=DType.float32)
        assert model.module.layers[0].mlp.up_proj.scheme == scheme  # type: ignore[attr-defined]
        expected = load_model(floats, device=CPU()).next_logits(TOKENS, eager=True)
        found = model.next_logits(TOKENS, eager=True)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_layers_that_were_left_alone_stay_floats(tmp_path: Path) -> None:
    """The tensors tell which these are, whatever the lists of config.json say."""
    some = {name: size for name, size in files.LAYERS.items() if "mlp" in name}
    rest = {
        f"model.layers.0.{name}.weight": size
        for name, size in files.LAYERS.items()
        if name not in some
    }
    make, quantization, _ = CASES["packed"]
    plain = files.PLAIN | rest
    codes, floats = files.write(tmp_path, make, quantization, layers=some, plain=plain)
    model = load_model(codes, device=CPU(), dtype=DType.float32)
    block = model.module.layers[0]  # type: ignore[attr-defined]
    assert (type(block.self_attn.q_proj), type(block.mlp.up_proj)) == (Linear, QuantizedLinear)
    expected = load_model(floats, device=CPU()).next_logits(TOKENS, eager=True)
    found = model.next_logits(TOKENS, eager=True)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(expected).max())


def test_codes_may_be_rounded_again(tmp_path: Path) -> None:
    make, quantization, _ = CASES["awq"]
    codes, floats = files.write(tmp_path, make, quantization)
    model = load_model(codes, device=CPU(), dtype=DType.float32, quantize="int4")
    expected = load_model(floats, device=CPU(), quantize="int4")
    for (name, left), (_, right) in zip(model.module.parameters, expected.module.parameters):
        assert left.data.tobytes() == right.data.tobytes(), name


def test_kept_codes_are_saved_and_loaded(tmp_path: Path) -> None:
    make, quantization, _ = CASES["awq"]
    codes, _ = files.write(tmp_path, make, quantization)
    model = load_model(codes, device=CPU(), dtype=DType.float32)
    again = load_model(save_quantized(model, tmp_path / "again"), device=CPU())
    for (name, left), (_, right) in zip(model.module.parameters, again.module.parameters):
        assert (left.type, left.data.tobytes()) == (right.type, right.data.tobytes()), name


def test_inspect_names_the_method(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, quantization, _ = CASES["gptq"]
    codes, _ = files.write(tmp_path, make, quantization)
    assert describe(codes) == "llama, quantised by gptq, read by load_model"
    assert main(["inspect", str(codes)]) == 0
    said = capsys.readouterr().out
    assert "quantised by gptq" in said
    assert "quantised layers  7 read as int4_symmetric, groups of 32" in said


def test_inspect_counts_weights_and_no_words(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight codes in a number of 32 bits are eight weights."""
    weights = sum(rows * depth for rows, depth in files.LAYERS.values())
    others = 2 * 61 * 64 + 3 * 64
    for case, nbytes in (("gptq", 4 * others + weights // 2 + weights // 32 * 2), ("nf4", None)):
        make, quantization, _ = CASES[case]
        codes, _ = files.write(tmp_path / case, make, quantization)
        assert main(["inspect", str(codes)]) == 0
        said = capsys.readouterr().out
        assert f"float32 {format_nbytes(4 * (weights + others))}, bfloat16" in said
        own = [line for line in said.splitlines() if line.startswith("memory of the weights  ")]
        assert own == (
            [] if nbytes is None else [f"memory of the weights  {format_nbytes(nbytes)}"]
        )


def test_inspect_says_why_a_folder_cannot_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, quantization, _ = CASES["awq"]
    codes, _ = files.write(tmp_path, make, quantization | {"version": "gemv"})
    assert main(["inspect", str(codes)]) == 0
    said = capsys.readouterr().out
    assert "quantised layers  cannot be read: " in said
    assert "version: expected 'gemm', got \"gemv\"" in said


@pytest.mark.parametrize(
    ("case", "changes", "message"),
    [
        ("gptq", {"checkpoint_format": "marlin"}, "checkpoint_format: expected one of gptq, gptq_"),
        ("gptq", {"checkpoint_format": ["gptq"]}, "checkpoint_format: expected one of gptq, gptq_"),
        ("gptq", {"group_size": "32"}, "group_size: expected an integer, got"),
        ("gptq", {"quant_method": "hqq"}, 'quantised by "hqq" are not supported: expected null'),
        ("awq", {"version": "gemv"}, "version: expected 'gemm', got \"gemv\""),
        ("awq", {"bits": 8}, "bits: expected 4, got 8"),
        ("awq", {"quant_method": "fp8"}, "no layer of the folder has the tensors of this method"),
        ("packed", {"format": "nvfp4-pack-quantized"}, "compressed-tensors: format: expected one"),
        ("packed", {"transform_config": {"config_groups": {"a": 1}}}, "transform_config: weights"),
        ("packed", {"sparsity_config": [1]}, r"sparsity_config: expected an object or null, got"),
        ("fp8, blocks", {"weight_block_size": [64, 64]}, "weight_scale_inv: expected a scale for"),
        ("fp8, blocks", {"weight_block_size": [0, 64]}, "expected two numbers above 0, got"),
    ],
)
def test_refused_folders(case: str, changes: dict, message: str, tmp_path: Path) -> None:
    make, quantization, _ = CASES[case]
    codes, _ = files.write(tmp_path, make, quantization | changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_model(codes, device=CPU())
    assert str(codes / "config.json") in str(caught.value)


def test_codes_of_another_layout_do_not_fit(tmp_path: Path) -> None:
    make, quantization, _ = CASES["awq"]
    codes, _ = files.write(tmp_path, make, quantization | {"quant_method": "gptq"})
    with pytest.raises(WeightsError, match=r"'layers.0.self_attn.q_proj.weight': Loaded tensor"):
        load_model(codes, device=CPU())


def _without(part: str, make: files.Maker) -> files.Maker:
    def made(rng: np.random.Generator, rows: int, depth: int) -> tuple[files.Tensors, np.ndarray]:
        tensors, weight = make(rng, rows, depth)
        del tensors[part]
        return tensors, weight

    return made


def _cut(part: str, make: files.Maker) -> files.Maker:
    def made(rng: np.random.Generator, rows: int, depth: int) -> tuple[files.Tensors, np.ndarray]:
        tensors, weight = make(rng, rows, depth)
        return tensors | {part: np.ascontiguousarray(tensors[part][:-1])}, weight

    return made


@pytest.mark.parametrize(
    ("case", "part"),
    [
        ("gptq", "qzeros"),
        ("gptq, order", "g_idx"),
        ("awq", "qzeros"),
        ("packed", "weight_scale"),
        ("packed, zero points", "weight_zero_point"),
        ("fp8, blocks", "weight_scale_inv"),
        ("LLM.int8", "SCB"),
        ("nf4", "weight.absmax"),
        ("nf4", "weight.quant_map"),
        ("nf4, nested", "weight.nested_quant_map"),
    ],
)
def test_tensors_that_do_not_fit_are_named(case: str, part: str, tmp_path: Path) -> None:
    make, quantization, _ = CASES[case]
    codes, _ = files.write(tmp_path, _cut(part, make), quantization)
    with pytest.raises(ModelError, match=rf"layers.0.self_attn.\w+.*{part}: expected"):
        load_model(codes, device=CPU())


@pytest.mark.parametrize(
    ("case", "part"),
    [("gptq", "qzeros"), ("awq", "scales"), ("packed", "weight_shape"), ("nf4", "weight.absmax")],
)
def test_missing_tensors_are_named(case: str, part: str, tmp_path: Path) -> None:
    make, quantization, _ = CASES[case]
    codes, _ = files.write(tmp_path, _without(part, make), quantization)
    with pytest.raises(ModelError, match=f"{part}: there is no such tensor beside "):
        load_model(codes, device=CPU())
