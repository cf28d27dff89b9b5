"""A GGUF file as a model folder: its metadata as config.json and tokenizer, its tensors renamed.

The names of tensors and metadata are those of the project llama.cpp, which also says how its files
differ from the folders that they were made of: rows of queries and keys in another order (Llama),
gains that are stored with 1 added (Gemma), and matrices the other way round (GPT-2).
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maxmod.errors import ModelError
from maxmod.models.gguf_tokenizer import write_tokenizer
from maxmod.tensor import Tensor
from maxmod.values.plain import JsonObject
from maxmod.values.tensor_type import TensorType
from maxmod.weights.gguf import GGUFWeights
from maxmod.weights.mapping import Recipe, Step, View

SOURCE = "gguf.path"  # in the folder that stands for a file: where the file is

# ---- architectures -------------------------------------------------------------------------------

_ATTENTION = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
_LLAMA = {
    **_ATTENTION,
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_GEMMA2 = {
    **_LLAMA,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_GPT2_OUTER = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
_GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is known about the files of an architecture.

    Attributes:
        model_type: That of config.json.
        inner: Names of the tensors of a block, with those of a folder.
        outer: The same for other tensors.
        layers: What blocks are called in a folder.
        swaps_pairs: Whether rows of queries and keys are in another order.
        adds_one: Whether gains are stored with 1 added.
        transposed: Tensors of a block that are the other way round.
        fields: Fields of config.json by the names of metadata, besides the common ones.
        constants: Fields that all such models have.
    """

    model_type: str
    inner: Mapping[str, str] = field(default_factory=lambda: _LLAMA)
    outer: Mapping[str, str] = field(default_factory=lambda: _OUTER)
    layers: str = "model.layers"
    swaps_pairs: bool = False
    adds_one: bool = False
    transposed: tuple[str, ...] = ()
    fields: Mapping[str, str] = field(default_factory=dict)
    constants: JsonObject = field(default_factory=dict)


_COMMON = {
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "block_count": "num_hidden_layers",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
}
_HEAD_DIM = {"attention.key_length": "head_dim"}
_GEMMA_CAPS = {
    **_HEAD_DIM,
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
    "attention.sliding_window": "sliding_window",
}
_TANH = {"hidden_activation": "gelu_pytorch_tanh"}

# By `general.architecture`.
KINDS = {
    "llama": _Kind("llama", swaps_pairs=True, fields=_HEAD_DIM),
    "granite": _Kind(
        "granite",
        swaps_pairs=True,
        fields={
            "attention.scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "logit_scale": "logits_scaling",
            "residual_scale": "residual_multiplier",
        },
    ),
    "smollm3": _Kind("smollm3", swaps_pairs=True),
    "qwen2": _Kind("qwen2", constants={"use_sliding_window": False}),
    "qwen3": _Kind("qwen3", inner=_LLAMA | _HEAD_NORMS, fields=_HEAD_DIM),
    "gemma": _Kind("gemma", adds_one=True, fields=_HEAD_DIM, constants=_TANH),
    "gemma2": _Kind("gemma2", inner=_GEMMA2, adds_one=True, fields=_GEMMA_CAPS, constants=_TANH),
    "gemma3": _Kind(
        "gemma3_text",
        inner=_GEMMA2 | _HEAD_NORMS,
        adds_one=True,
        fields={**_HEAD_DIM, "attention.sliding_window": "sliding_window"},
        constants=_TANH,
    ),
    "gpt2": _Kind(
        "gpt2",
        inner=_GPT2,
        outer=_GPT2_OUTER,
        layers="transformer.h",
        transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
        fields={"attention.layer_norm_epsilon": "layer_norm_epsilon"},
    ),
    "olmo2": _Kind(
        "olmo2",
        inner=_LLAMA
        | _HEAD_NORMS
        | {
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
    ),
    "phi3": _Kind(
        "phi3",
        inner={
            "attn_norm": "input_layernorm",
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
        fields={"attention.sliding_window": "sliding_window"},
    ),
    "starcoder2": _Kind(
        "starcoder2",
        inner={
            **_ATTENTION,
            "attn_norm": "input_layernorm",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
        fields={
            "attention.layer_norm_epsilon": "norm_epsilon",
            "attention.sliding_window": "sliding_window",
        },
    ),
}
# Frequencies of long contexts, which are fields of config.json elsewhere.
_FACTORS = {"rope_freqs": "short_factor", "rope_factors_short": "short_factor"}
_FACTORS |= {"rope_factors_long": "long_factor"}


def folder_of_file(caller: str, path: Path) -> Path:
    """Returns a folder that stands for a GGUF file: with its config.json and its tokenizer.

    It is in the folder of temporary files, and is removed when the process ends. `open_weights`
    opens the tensors.

    Raises:
        ModelError: If the architecture, or what its metadata say, is not supported.
        CheckpointError: If the file cannot be read.
    """
    file = GGUFWeights(path)
    config = config_of(caller, file)
    made = tempfile.mkdtemp(prefix="maxmod-gguf-")
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    folder = Path(made, path.name)  # messages name it
    folder.mkdir()
    _write(folder / "config.json", config)
    (folder / SOURCE).write_text(str(path.absolute()), "utf-8")
    write_tokenizer(folder, path, file.fields)
    _OPEN[folder] = file
    return folder


# Files whose tensors are about to be read: reading a header takes a second for 50,000 tokens.
_OPEN: dict[Path, GGUFWeights] = {}


def open_weights(folder: Path) -> GGUFView | None:
    """Returns the tensors of the file that a folder stands for, with the names of its model."""
    source = folder / SOURCE
    if not source.is_file():
        return None
    file = _OPEN.pop(folder, None)
    file = file or GGUFWeights(source.read_text("utf-8"))
    kind = KINDS[str(file.fields["general.architecture"])]
    return GGUFView(file, kind, json.loads((folder / "config.json").read_text("utf-8")))


def _write(path: Path, table: JsonObject) -> None:
    path.write_text(json.dumps(table), "utf-8")


# ---- config.json ---------------------------------------------------------------------------------


def config_of(caller: str, file: GGUFWeights) -> JsonObject:
    """Returns the config.json that the metadata of a file amount to.

    Raises:
        ModelError: If the architecture, or something that it says, is not supported.
    """
    name = file.fields.get("general.architecture")
    if name not in KINDS:
        raise ModelError(
            f"{caller}: {file.path}: general.architecture: GGUF files are read of "
            f"{', '.join(KINDS)}; got {name!r:.80}."
        )
    kind = KINDS[str(name)]

    def given(key: str) -> Any:
        return file.fields.get(f"{name}.{key}")

    fields = {**_COMMON, **kind.fields}
    table = {to: given(key) for key, to in fields.items() if given(key) is not None}
    table |= kind.constants
    table["model_type"] = kind.model_type
    table["vocab_size"] = int(file.tensor_type("token_embd.weight").sizes[0])
    table["tie_word_embeddings"] = "output.weight" not in file
    biased = any(key.endswith("attn_q.bias") for key in file)
    if kind.model_type in ("llama", "qwen3", "granite", "smollm3", "olmo2"):
        table["attention_bias"] = biased
    for token in ("bos", "eos"):
        table[f"{token}_token_id"] = file.fields.get(f"tokenizer.ggml.{token}_token_id")
    if given("expert_count"):
        raise ModelError(f"{caller}: {file.path}: models of experts are not supported.")
    if kind.model_type in _LARGE_GEMMA:
        # The scale of the scores is that of a head, but for the largest model of each.
        is_largest = table["num_hidden_layers"] == _LARGE_GEMMA[kind.model_type]
        shared = int(table["hidden_size"]) // int(table["num_attention_heads"])
        table["query_pre_attn_scalar"] = shared if is_largest else table["head_dim"]
    _add_rope(caller, file, table, given)
    if kind.model_type == "gpt2":
        return {_GPT2_FIELDS.get(key, key): value for key, value in table.items() if value}
    return table


_LARGE_GEMMA = {"gemma2": 46, "gemma3_text": 62}  # the layers of the models of 27B
_GPT2_FIELDS = {
    "max_position_embeddings": "n_positions",
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
}


def _add_rope(
    caller: str, file: GGUFWeights, table: JsonObject, given: Callable[[str], Any]
) -> None:
    heads = int(table["num_attention_heads"])  # type: ignore[call-overload]
    dim = int(table.get("head_dim") or int(table["hidden_size"]) // heads)  # type: ignore[call-overload]
    rotated = given("rope.dimension_count")
    if rotated and rotated != dim and table["model_type"] == "phi3":
        table["partial_rotary_factor"] = rotated / dim
    trained = given("rope.scaling.original_context_length")
    factors = {
        to: [float(number) for number in file[f"{key}.weight"].to_numpy()]
        for key, to in _FACTORS.items()
        if f"{key}.weight" in file
    }
    if factors:
        longest = table["max_position_embeddings"]
        both = "long_factor" in factors
        factors.setdefault("long_factor", factors["short_factor"])
        scaling: JsonObject = {"rope_type": "longrope", **factors}
        # One list is for all lengths; of two, the first is up to the length that was trained.
        scaling["original_max_position_embeddings"] = trained if both and trained else longest
        scaling["attention_factor"] = given("rope.scaling.attn_factor") or 1.0
        table["rope_scaling"] = scaling
        return
    kind = given("rope.scaling.type")
    if kind in (None, "none"):
        return
    if kind not in ("linear", "yarn"):
        raise ModelError(
            f"{caller}: {file.path}: rope.scaling.type: expected none, linear or yarn, got "
            f"{kind!r:.80}."
        )
    scaling = {"rope_type": kind, "factor": given("rope.scaling.factor")}
    if kind == "yarn" and trained:
        scaling["original_max_position_embeddings"] = trained
    table["rope_scaling"] = scaling


# ---- tensors -------------------------------------------------------------------------------------


class _Pairs(Step):
    """Puts the rows of each head back: first the first elements of all pairs, then the others."""

    def __init__(self, heads: int) -> None:
        self.heads = heads
        self.text = f"pairs of {heads} heads"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        return types[0]

    def apply(self, tensors: list[Tensor]) -> Tensor:
        data = tensors[0].data
        rows = data.reshape(self.heads, -1, 2, *data.shape[1:])
        found = np.ascontiguousarray(rows.swapaxes(1, 2)).reshape(data.shape)
        return Tensor.wrap(found, tensors[0].type)


class _LessOne(Step):
    """Takes the 1 off that gains are stored with."""

    text = "less one"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        return types[0]

    def apply(self, tensors: list[Tensor]) -> Tensor:
        data = tensors[0].data
        return Tensor.wrap((data - 1).astype(data.dtype), tensors[0].type)


class _Transposed(Step):
    text = "transposed"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        return types[0].with_sizes(types[0].sizes[::-1])

    def apply(self, tensors: list[Tensor]) -> Tensor:
        found = np.ascontiguousarray(tensors[0].data.T)
        return Tensor.wrap(found, self.type("", [tensors[0].type]))


class GGUFView(View):
    """The tensors of a GGUF file with the names and layouts of a model folder."""

    def __init__(self, file: GGUFWeights, kind: _Kind, config: JsonObject) -> None:
        self.file = file
        super().__init__(
            {
                new: Recipe((file, old), step=_step(old, kind, config))
                for old in file
                if (new := _folder_name(old, kind)) is not None
            }
        )

    def on(self, device: object) -> GGUFView:
        """Returns itself: tensors are dequantised on the host, whatever the device is."""
        return self

    def __enter__(self) -> GGUFView:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


def _folder_name(name: str, kind: _Kind) -> str | None:
    """Returns what a tensor is called in a folder; None for those that config.json has."""
    stem, _, suffix = name.rpartition(".")
    if stem in _FACTORS:
        return None
    if stem in kind.outer:
        return f"{kind.outer[stem]}.{suffix}"
    block, _, inner = stem.partition(".")[2].partition(".")
    if stem.startswith("blk.") and inner in kind.inner:
        return f"{kind.layers}.{block}.{kind.inner[inner]}.{suffix}"
    return name  # the model says that it has no such weight


def _step(name: str, kind: _Kind, config: JsonObject) -> Step | None:
    stem, _, suffix = name.rpartition(".")
    inner = stem.rpartition(".")[2]
    if kind.swaps_pairs and inner in ("attn_q", "attn_k"):
        heads = config["num_attention_heads"]
        if inner == "attn_k":
            heads = config.get("num_key_value_heads") or heads
        return _Pairs(int(heads))  # type: ignore[call-overload]
    if kind.adds_one and inner.endswith("norm"):
        return _LessOne()
    if inner in kind.transposed and suffix == "weight":
        return _Transposed()
    return None
