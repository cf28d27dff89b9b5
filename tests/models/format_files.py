"""Writes folders as other tools quantise them, with the floats that their definitions say.

Every packing is a loop over bits by the published layout, apart from the code that reads it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from maxmod.weights import save_state

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 61,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
LAYERS = {
    "self_attn.q_proj": (64, 64),
    "self_attn.k_proj": (32, 64),
    "self_attn.v_proj": (32, 64),
    "self_attn.o_proj": (64, 64),
    "mlp.gate_proj": (96, 64),
    "mlp.up_proj": (96, 64),
    "mlp.down_proj": (64, 96),
}
PLAIN = {
    "model.embed_tokens.weight": (61, 64),
    "model.norm.weight": (64,),
    "model.layers.0.input_layernorm.weight": (64,),
    "model.layers.0.post_attention_layernorm.weight": (64,),
    "lm_head.weight": (61, 64),
}
ORDER = [0, 2, 4, 6, 1, 3, 5, 7]
# QLoRA's NormalFloat of 4 bits, appendix E of arXiv 2305.14314.
NF4 = [
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635,
    -0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725,
    0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941,
    0.7229568362236023, 1.0,
]  # fmt: skip

Tensors = dict[str, np.ndarray]
Maker = Callable[[np.random.Generator, int, int], tuple[Tensors, np.ndarray]]


def write(
    folder: Path,
    make: Maker,
    quantization: Any,
    *,
    layers: Mapping[str, tuple[int, int]] = LAYERS,
    plain: Mapping[str, tuple[int, ...]] | None = None,
    prefix: str = "model.layers.0.",
    transposed: bool = False,
    **changes: object,
) -> tuple[Path, Path]:
    """Writes a folder with quantised layers, and one with the same floats; returns both.

    Args:
        folder: Where both go.
        make: Makes the tensors of a layer.
        quantization: The field `quantization_config`.
        layers: The sizes [out, in] of the quantised layers.
        plain: The sizes of the other tensors.
        prefix: Of the names of the layers.
        transposed: Whether floats are kept as [in, out].
        changes: Fields of config.json.
    """
    rng = np.random.default_rng(5)
    sizes = PLAIN if plain is None else plain
    common: Tensors = {
        name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()
    }
    floats, stored = dict(common), dict(common)
    for layer, (rows, depth) in layers.items():
        name = f"{prefix}{layer}"
        parts, weight = make(rng, rows, depth)
        stored |= {f"{name}.{part}": value for part, value in parts.items()}
        wide = weight.T if transposed else weight
        floats[f"{name}.weight"] = np.ascontiguousarray(wide, np.float32)
    table = CONFIG | changes
    _folder(folder / "floats", table, floats)
    _folder(folder / "codes", table | {"quantization_config": quantization}, stored)
    return folder / "codes", folder / "floats"


def _folder(folder: Path, table: dict[str, Any], tensors: Tensors) -> None:
    folder.mkdir(parents=True)
    table = {name: value for name, value in table.items() if value is not ...}
    (folder / "config.json").write_text(json.dumps(table), "utf-8")
    save_state(tensors, folder / "model.safetensors")


def _words(codes: np.ndarray, bits: int) -> np.ndarray:
    """Packs each row, the first code in the lowest bits: int32 [rows, columns * bits / 32]."""
    result = []
    for row in codes.tolist():
        number = sum(int(code) << (bits * place) for place, code in enumerate(row))
        count = -(-len(row) * bits // 32)
        result.append([(number >> (32 * word)) & 0xFFFFFFFF for word in range(count)])
    return np.array(result, np.uint32).view(np.int32)


def _scales(rng: np.random.Generator, bits: int, *sizes: int) -> np.ndarray:
    return rng.uniform(0.1, 0.5, size=sizes) / (1 << bits)


def _less_one(zeros: np.ndarray, bits: int) -> np.ndarray:
    """Packs zero points as version 1 keeps them: of 3 bits each less 1, else words less ones."""
    if bits == 3:
        return _words((zeros - 1) % 8, bits)
    ones = sum(1 << at for at in range(0, 32, bits))
    words = [[(int(word) - ones) & 0xFFFFFFFF for word in row] for row in _words(zeros, bits)]
    return np.array(words, np.uint32).view(np.int32)


def gptq(bits: int, group: int, *, symmetric: bool, added: int = 1, order: str = "plain") -> Maker:
    """AutoGPTQ's layout; `order` is `plain`, `none` without the tensor, or `acts`."""

    def make(rng: np.random.Generator, rows: int, depth: int) -> tuple[Tensors, np.ndarray]:
        size = depth if group < 0 else group
        groups = depth // size
        codes = rng.integers(0, 1 << bits, (rows, depth))
        zeros = np.full((rows, groups), 1 << (bits - 1))
        if not symmetric:
            zeros = rng.integers(0, 1 << bits, (rows, groups))
        scales = _scales(rng, bits, rows, groups).astype(np.float16)
        of = np.arange(depth) // size
        of = rng.permutation(of) if order == "acts" else of
        weight = (codes - zeros[:, of]) * scales[:, of].astype(np.float64)
        tensors = {
            "qweight": np.ascontiguousarray(_words(codes, bits).T),
            "qzeros": _less_one(zeros.T, bits) if added else _words(zeros.T, bits),
            "scales": np.ascontiguousarray(scales.T),
        }
        if order != "none":
            tensors["g_idx"] = of.astype(np.int32)
        return tensors, weight

    return make


def awq(group: int, *, symmetric: bool = False) -> Maker:
    """AutoAWQ's version gemm."""

    def make(rng: np.random.Generator, rows: int, depth: int) -> tuple[Tensors, np.ndarray]:
        codes = rng.integers(0, 16, (rows, depth))
        zeros = rng.integers(0, 16, (rows, depth // group))
        zeros = np.full_like(zeros, 8) if symmetric else zeros
        scales = _scales(rng, 4, rows, depth // group).astype(np.float16)
        of = np.arange(depth) // group
        weight = (codes - zeros[:, of]) * scales[:, of].astype(np.float64)

        def packed(values: np.ndarray) -> np.ndarray:
            eights = values.T.reshape(values.shape[1], -1, 8)[..., ORDER]
            return _words(eights.reshape(values.shape[1], -1), 4)

        scaled = np.ascontiguousarray(scales.T)
        return {"qweight": packed(codes), "qzeros": packed(zeros), "scales": scaled}, weight

    return make


def packed(bits: int, group: int, *, symmetric: bool = True, acts: bool = False) -> Maker:
    """The format pack-quantized of compressed-tensors."""

    def make(rng: np.random.Generator, rows: int, depth: int) -> tuple[Tensors, np.ndarray]:
        size, half = depth if group < 0 else group, 1 << (bits - 1)
        codes = rng.integers(-half, half, (rows, depth))
        zeros = rng.integers(-half, half, (rows, depth // size)) * (not symmetric)
        scales = _scales(rng, bits, rows, depth // size).astype(ml_dtypes.bfloat16)
        of = np.arange(depth) // size
        of = rng.permutation(of) if acts else of
        weight = (codes - zeros[:, of]) * scales[:, of].astype(np.float64)
        tensors = {
            "weight_packed": _words(codes + half, bits),
            "weight_scale": scales,
            "weight_shape": np.array([rows, depth], np.int64),
        }
        if not symmetric:
            tensors["weight_zero_point"] = np.ascontiguousarray(_words(zeros.T + half, bits).T)
        if acts:
            tensors["weight_g_idx"] = of.astype(np.int32)
        return tensors, weight

    return make


def integers(scale: str) -> Maker:
    """The format int-quantized, with a scale for `all`, for each `row` or for each `group`."""

    def make(rng: np.random.Generator, rows: int, depth: int) -> tuple[Tensors, np.ndarray]:
        codes = rng.integers(-128, 128, (rows, depth))
        sizes = {"all": (1,), "row": (rows, 1), "group": (rows, depth // 32)}[scale]
        scales = _scales(rng, 8, *sizes).astype(np.float32)
        each = scales.astype(np.float64).reshape(-1, scales.shape[-1])
        each = np.repeat(each, depth // each.shape[1], axis=1)
        return {"weight": codes.astype(np.int8), "weight_scale": scales}, codes * each

    return make


def float8(scale: str, name: str = "weight_scale_inv") -> Maker:
    """FP8 with a scale for `all`, for each `row`, or for each `block` of 48 by 40."""

    def make(rng: np.random.Generator, rows: int, depth: int) -> tuple[Tensors, np.ndarray]:
        codes = rng.normal(size=(rows, depth)).astype(ml_dtypes.float8_e4m3fn)
        blocks = (-(-rows // 48), -(-depth // 40))
        sizes = {"all": (), "row": (rows, 1), "block": blocks}[scale]
        scales = np.asarray(rng.uniform(0.1, 0.5, size=sizes), np.float32)
        each = scales.astype(np.float64)
        if scale == "block":
            each = np.repeat(np.repeat(each, 48, axis=0)[:rows], 40, axis=1)[:, :depth]
        tensors = {"weight": codes, name: scales, "input_scale": np.ones(1, np.float32)}
        return tensors, codes.astype(np.float64) * each

    return make


def rows_of_8_bits(rng: np.random.Generator, rows: int, depth: int) -> tuple[Tensors, np.ndarray]:
    """LLM.int8() of bitsandbytes."""
    codes = rng.integers(-127, 128, (rows, depth))
    largest = rng.uniform(1, 4, rows).astype(np.float32)
    tensors = {"weight": codes.astype(np.int8), "SCB": largest, "weight_format": np.uint8(0)}
    tensors = {name: np.asarray(value) for name, value in tensors.items()}
    return tensors, codes * (largest.astype(np.float64) / 127)[:, None]


def four_bit_floats(*, nested: bool, storage: Any = np.uint8) -> Maker:
    """NF4 of bitsandbytes in blocks of 32, whose magnitudes may have 8 bits themselves."""

    def make(rng: np.random.Generator, rows: int, depth: int) -> tuple[Tensors, np.ndarray]:
        codes = rng.integers(0, 16, rows * depth)
        count = rows * depth // 32
        largest: np.ndarray = rng.uniform(0.1, 0.4, count).astype(np.float32)
        state: dict[str, Any] = {"quant_type": "nf4", "blocksize": 32, "dtype": "bfloat16"}
        state |= {"shape": [rows, depth]}
        tensors = {
            "weight": (codes[::2] << 4 | codes[1::2]).astype(np.uint8).view(storage)[:, None],
            "weight.quant_map": np.array(NF4, np.float32),
            "weight.absmax": largest,
        }
        wide = largest.astype(np.float64)
        if nested:
            values = np.sort(rng.uniform(-1, 1, 256)).astype(np.float32)
            few = rng.integers(0, 256, count)
            outer = rng.uniform(0.01, 0.05, -(-count // 16)).astype(np.float32)
            wide = values[few].astype(np.float64) * np.repeat(outer, 16)[:count] + 0.25
            tensors["weight.absmax"] = few.astype(np.uint8)
            tensors |= {"weight.nested_absmax": outer, "weight.nested_quant_map": values}
            state |= {"nested_blocksize": 16, "nested_offset": 0.25, "nested_dtype": "float32"}
        data = np.frombuffer(json.dumps(state).encode(), np.uint8)
        tensors["weight.quant_state.bitsandbytes__nf4"] = data
        weight = np.array(NF4, np.float32)[codes] * np.repeat(wide, 32)
        return tensors, weight.reshape(rows, depth)

    return make
