"""What is known of the GGUF files of each architecture.

The names of tensors and metadata are those of the project llama.cpp, which also says how its files
differ from the folders that they were made of: rows of queries and keys in another order (Llama),
gains that are stored with 1 added (Gemma), and matrices the other way round (GPT-2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from maxmod.values.plain import JsonObject

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
class Kind:
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


COMMON = {
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
    "llama": Kind("llama", swaps_pairs=True, fields=_HEAD_DIM),
    "granite": Kind(
        "granite",
        swaps_pairs=True,
        fields={
            "attention.scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "logit_scale": "logits_scaling",
            "residual_scale": "residual_multiplier",
        },
    ),
    "smollm3": Kind("smollm3", swaps_pairs=True),
    "qwen2": Kind("qwen2", constants={"use_sliding_window": False}),
    "qwen3": Kind("qwen3", inner=_LLAMA | _HEAD_NORMS, fields=_HEAD_DIM),
    "gemma": Kind("gemma", adds_one=True, fields=_HEAD_DIM, constants=_TANH),
    "gemma2": Kind("gemma2", inner=_GEMMA2, adds_one=True, fields=_GEMMA_CAPS, constants=_TANH),
    "gemma3": Kind(
        "gemma3_text",
        inner=_GEMMA2 | _HEAD_NORMS,
        adds_one=True,
        fields={**_HEAD_DIM, "attention.sliding_window": "sliding_window"},
        constants=_TANH,
    ),
    "gpt2": Kind(
        "gpt2",
        inner=_GPT2,
        outer=_GPT2_OUTER,
        layers="transformer.h",
        transposed=("attn_qkv", "attn_output", "ffn_up", "ffn_down"),
        fields={"attention.layer_norm_epsilon": "layer_norm_epsilon"},
    ),
    "olmo2": Kind(
        "olmo2",
        inner=_LLAMA
        | _HEAD_NORMS
        | {
            "post_attention_norm": "post_attention_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
    ),
    "phi3": Kind(
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
    "starcoder2": Kind(
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
FACTORS = {"rope_freqs": "short_factor", "rope_factors_short": "short_factor"}
FACTORS |= {"rope_factors_long": "long_factor"}
