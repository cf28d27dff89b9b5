"""Writes GGUF files of golden folders as llama.cpp converts them, with the package gguf."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from maxmod import DType
from maxmod.weights import open_checkpoint

# The `general.architecture` of a model_type.
NAMES = {"gemma3_text": "gemma3"}


def _swapped(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head with both elements of a pair side by side."""
    rows = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return rows.swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    folder: Path,
    path: Path,
    *,
    kind: str = "F32",
    extra: Mapping[str, list[float]] | None = None,
    **fields: object,
) -> Path:
    """Writes the weights and the configuration of a folder as a GGUF file without a tokenizer.

    Args:
        folder: In the layout of Hugging Face.
        path: The file.
        kind: The type of matrices; vectors are float32.
        extra: Further tensors, by their names in the file.
        fields: Further metadata, by their names without the architecture; None leaves one out.
    """
    import gguf

    config = json.loads((folder / "config.json").read_text("utf-8"))
    name = NAMES.get(config["model_type"], config["model_type"])
    layers = config.get("num_hidden_layers", config.get("n_layer"))
    writer = gguf.GGUFWriter(path, name)
    for key, value in (_metadata(config) | fields).items():
        if value is not None:
            add: Callable[[str, Any], None] = writer.add_uint32
            add = writer.add_float32 if isinstance(value, float) else add
            add = writer.add_string if isinstance(value, str) else add
            add(f"{name}.{key}", value)
    kinds = {text: number for number, text in gguf.MODEL_ARCH_NAMES.items()}
    names = gguf.get_tensor_name_map(kinds[name], layers)
    for old, tensor in open_checkpoint(folder).items():
        weight = tensor.cast(DType.float32).to_numpy()
        weight = _converted(old, weight, config)
        new = names.get_name(old, try_suffixes=(".weight", ".bias"))
        assert new is not None, old
        if kind == "F32" or weight.ndim == 1:
            writer.add_tensor(new, weight)
        else:
            type = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(new, gguf.quantize(weight, type), raw_dtype=type)
    for new, numbers in (extra or {}).items():
        writer.add_tensor(new, np.array(numbers, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _converted(name: str, weight: np.ndarray, config: dict[str, Any]) -> np.ndarray:
    kind = config["model_type"]
    if kind in ("llama", "granite", "smollm3"):
        heads = config["num_attention_heads"]
        if "q_proj" in name:
            weight = _swapped(weight, heads)
        if "k_proj" in name:
            weight = _swapped(weight, config.get("num_key_value_heads") or heads)
    if kind.startswith("gemma") and name.endswith("norm.weight"):
        weight = weight + 1
    if kind == "gpt2" and name.endswith((".c_attn.weight", ".c_fc.weight", ".c_proj.weight")):
        weight = weight.T
    return np.ascontiguousarray(weight, np.float32)


def _metadata(config: dict[str, Any]) -> dict[str, object]:
    def field(*names: str) -> Any:
        return next((config[name] for name in names if config.get(name) is not None), None)

    rope = config.get("rope_parameters") or {}
    given = {
        "vocab_size": field("vocab_size"),
        "context_length": field("max_position_embeddings", "n_positions"),
        "embedding_length": field("hidden_size", "n_embd"),
        "feed_forward_length": field("intermediate_size", "n_inner"),
        "block_count": field("num_hidden_layers", "n_layer"),
        "attention.head_count": field("num_attention_heads", "n_head"),
        "attention.head_count_kv": field("num_key_value_heads"),
        "attention.key_length": field("head_dim"),
        "attention.layer_norm_rms_epsilon": field("rms_norm_eps"),
        "attention.layer_norm_epsilon": field("layer_norm_epsilon", "norm_epsilon"),
        "attention.sliding_window": field("sliding_window"),
        "attn_logit_softcapping": field("attn_logit_softcapping"),
        "final_logit_softcapping": field("final_logit_softcapping"),
        "attention.scale": field("attention_multiplier"),
        "embedding_scale": field("embedding_multiplier"),
        "residual_scale": field("residual_multiplier"),
        "logit_scale": field("logits_scaling"),
        "rope.freq_base": field("rope_theta") or rope.get("rope_theta"),
    }
    floats = ("epsilon", "softcapping", "scale", "freq_base")
    return {k: float(v) if k.endswith(floats) and v is not None else v for k, v in given.items()}
