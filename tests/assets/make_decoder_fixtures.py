"""Write the golden folders of further decoders under ``tests/assets/decoders``.

Run by hand, once, with ``torch``, ``transformers`` and ``numpy`` installed;
the tests only read what it wrote:

    python tests/assets/make_decoder_fixtures.py [NAME ...]

The folders are as those of ``make_llama_fixtures.py``: random weights in
bfloat16, and ``golden.npz``.  Each has at least one field beyond what a fresh
configuration of its family says, so that a part that is left out shows.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from make_llama_fixtures import make_config, random_model, write_model

OUT = Path(__file__).resolve().parent / "decoders"

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 100.0,
    "partial_rotary_factor": 0.5,
    "short_factor": [1.5, 2.5],
    "long_factor": [3.0, 5.0],
}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 50.0,
    "factor": 4.0,
    "original_max_position_embeddings": 8,
}
GROWING = {**YARN, "llama_4_scaling_beta": 0.3, "mscale": 1.0, "mscale_all_dim": 1.0}
PLAIN = {"rope_type": "default", "rope_theta": 50.0}
HALF = {**PLAIN, "partial_rotary_factor": 0.5}
KINDS = ["sliding_attention", "full_attention"]

# Of a name its model_type and fields.
MODELS: dict[str, tuple[str, dict]] = {
    "cohere": ("cohere", {"use_qk_norm": True, "logit_scale": 0.3}),
    "cohere2": ("cohere2", {"logit_scale": 0.25, "sliding_window": 5, "layer_types": KINDS}),
    "glm": ("glm", {"head_dim": 8, "rope_parameters": HALF, "attention_bias": True}),
    "glm4": ("glm4", {"head_dim": 8, "rope_parameters": HALF}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.2,
            "residual_multiplier": 0.5,
            "logits_scaling": 4.0,
            "tie_word_embeddings": True,
        },
    ),
    "ministral": ("ministral", {"head_dim": 8, "sliding_window": 5, "layer_types": KINDS}),
    "olmo2": ("olmo2", {"num_key_value_heads": 1}),
    "olmo3": (
        "olmo3",
        {
            "sliding_window": 5,
            "layer_types": KINDS,
            "rope_parameters": {"full_attention": YARN, "sliding_attention": PLAIN},
        },
    ),
    "opt": ("opt", {"ffn_dim": 40}),
    "opt_350m": (
        "opt",
        {"ffn_dim": 40, "word_embed_proj_dim": 16, "do_layer_norm_before": False},
    ),
    "phi3": (
        "phi3",
        {"hidden_size": 32, "original_max_position_embeddings": 24, "rope_parameters": LONGROPE},
    ),
    "pythia": ("gpt_neox", {"hidden_size": 32, "rope_parameters": HALF}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "starcoder2": ("starcoder2", {"sliding_window": 5}),
    "yarn": ("qwen3", {"head_dim": 12, "rope_parameters": YARN}),
    "ministral3": ("ministral3", {"head_dim": 8, "rope_parameters": GROWING}),
}


def main() -> None:
    torch.set_num_threads(1)
    OUT.mkdir(exist_ok=True)
    for number, (name, (kind, fields)) in enumerate(MODELS.items()):
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        padded = kind in ("phi3", "smollm3", "glm", "glm4")  # whose padding is a large number
        config = make_config(kind, **fields, **({"pad_token_id": 0} if padded else {}))
        if kind in ("gpt_neox", "opt"):
            del config.num_key_value_heads  # a field that these do not have
        if kind == "opt":
            del config.intermediate_size  # it is called ffn_dim
        write_model(name, random_model(config, 40 + number), 300 + number, OUT)


if __name__ == "__main__":
    main()
