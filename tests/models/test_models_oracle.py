"""Every architecture against transformers itself, on random models that it saves now.

The golden folders say that nothing has changed since they were written; this says that what
transformers writes and computes today is still what maxmod reads and computes.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.folders import ASSETS
from models.gguf_files import write_gguf

from maxmod import CPU, DType, MaxmodWarning, Tensor
from maxmod.models import (
    load_classifier,
    load_encoder,
    load_masked_model,
    load_model,
    load_tagger,
    load_vision_model,
)
from maxmod.models.architectures import FAMILIES
from maxmod.models.encoders.heads import WordsAt
from maxmod.models.registry import KINDS
from maxmod.models.text_part import PARTS

pytestmark = pytest.mark.oracle

LANGUAGE = sorted(KINDS["load_model"].keys() - PARTS)
RELATIVE = 1e-4  # of the largest number, in float32
DECODER = {
    "vocab_size": 71,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 40,
    "sliding_window": 6,
    "use_sliding_window": True,
    "max_window_layers": 1,
}
# What else shows whether a family is computed as it should be.
DECODERS: dict[str, dict[str, Any]] = {
    "cohere": {"use_qk_norm": True, "logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3},
    "glm": {"attention_bias": True, "pad_token_id": 0, "eos_token_id": 1},
    "glm4": {"attention_bias": True, "pad_token_id": 0, "eos_token_id": 1},
    "gpt_neox": {
        "rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}
        | {"rope_theta": 50.0}
    },
    "granite": {"attention_bias": True, "mlp_bias": True, "embedding_multiplier": 3.0}
    | {"attention_multiplier": 0.2, "residual_multiplier": 0.5, "logits_scaling": 4.0},
    "ministral3": {
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 50.0,
            "factor": 4.0,
            "original_max_position_embeddings": 5,
            "llama_4_scaling_beta": 0.3,
        }
    },
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 24, "do_layer_norm_before": True},
    "phi3": {"pad_token_id": 0, "original_max_position_embeddings": 20}
    | {
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 100.0,
            "partial_rotary_factor": 0.5,
            "short_factor": [1.5, 2.5],
            "long_factor": [3.0, 5.0],
        }
    },
    "smollm3": {"pad_token_id": 0, "no_rope_layers": [1, 0, 1]},
    "starcoder2": {"use_bias": True},
}
GPT2 = {"vocab_size": 71, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40}
BERT = {**DECODER, "vocab_size": 90}
_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
VIT = {name: DECODER[name] for name in _SIZES}
VIT |= {"image_size": 20, "patch_size": 5, "num_labels": 7}


def _randomized(model: Any) -> Any:
    """Fresh models are nearly linear: gains of 1, no biases, small weights."""
    import torch

    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.2)
    return model.eval()


def _close(found: Any, expected: Any) -> None:
    array = expected.numpy()
    atol = RELATIVE * np.abs(array).max()
    np.testing.assert_allclose(np.array(found), array, rtol=0, atol=atol)


def _rope(kind: str, **fields: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 50.0, **fields}}


_YARN = {"factor": 4.0, "original_max_position_embeddings": 10}
# Further forms of a family.
VARIANTS = [
    ("cohere", {}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("granite", {"tie_word_embeddings": True}),
    ("llama", _rope("dynamic", factor=2.0)),
    ("llama", _rope("yarn", **_YARN)),
    ("olmo2", _rope("linear", factor=3.0)),
    (
        "olmo3",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "yarn", "rope_theta": 50.0, **_YARN},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        },
    ),
    ("opt", {"ffn_dim": 48, "do_layer_norm_before": False}),
    ("opt", {"ffn_dim": 48, "enable_bias": False, "layer_norm_elementwise_affine": False}),
    ("phi3", {"pad_token_id": 0}),
    ("qwen2", _rope("yarn", **_YARN, beta_fast=8.0, beta_slow=2.0)),
    ("qwen3", _rope("yarn", **_YARN, truncate=False, attention_factor=1.3)),
    ("qwen3", _rope("yarn", **_YARN, mscale=0.7, mscale_all_dim=1.2)),
    ("smollm3", {"pad_token_id": 0, "sliding_window": 4, "no_rope_layer_interval": 2}),
    ("starcoder2", {"use_bias": False, "sliding_window": None}),
]


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        *((kind, GPT2 if kind == "gpt2" else DECODERS.get(kind, {})) for kind in LANGUAGE),
        *VARIANTS,
    ],
)
def test_language_models(kind: str, own: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    known = AutoConfig.for_model(kind).to_dict() | own
    fields = {name: value for name, value in (DECODER | own).items() if name in known}
    config = AutoConfig.for_model(kind, **fields)
    theirs = _randomized(AutoModelForCausalLM.from_config(config, attn_implementation="eager"))
    theirs.save_pretrained(tmp_path)
    model = load_model(tmp_path, device=CPU())
    assert model.dtype is DType.float32
    compiled = model.module.compile(model.tokens_type)
    for shape in ((1, 1), (3, 17)):
        tokens = torch.randint(71, shape, generator=torch.Generator().manual_seed(shape[1]))
        with torch.inference_mode():
            expected = theirs(tokens, use_cache=False).logits
        _close(compiled(Tensor(tokens.numpy(), device=CPU())), expected)


# Whose code asks config.json what tokens see.
_BOTH_WAYS: list[tuple[str, dict[str, Any]]] = [
    ("gemma3_text", {"use_bidirectional_attention": True}),
    *(
        (kind, {"is_causal": False, "sliding_window": None, "use_sliding_window": False})
        for kind in ("llama", "qwen2", "qwen3", "olmo2")
    ),
]


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        *((kind, {}) for kind in LANGUAGE if kind in KINDS["load_encoder"]),
        *_BOTH_WAYS,
    ],
)
def test_decoders_as_encoders(kind: str, own: dict[str, Any], tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModel

    fields = DECODER | DECODERS.get(kind, {}) | own
    known = AutoConfig.for_model(kind).to_dict() | {"is_causal": None} | DECODERS.get(kind, {})
    config = AutoConfig.for_model(kind, **{n: v for n, v in fields.items() if n in known})
    if "is_causal" in own:
        config.is_causal = False
    theirs = _randomized(AutoModel.from_config(config, attn_implementation="eager"))
    theirs.save_pretrained(tmp_path)
    tokens = np.random.default_rng(1).integers(0, 71, (3, 17))
    lengths = np.array([17, 9, 1])
    kept = np.arange(17) < lengths[:, None]
    given = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(kept).long()}
    with torch.inference_mode():
        expected = theirs(**given, use_cache=False)[0]
    module = load_encoder(tmp_path, device=CPU()).module
    found = module(*(Tensor(array, device=CPU()) for array in (tokens, lengths))).to_numpy()
    _close(found[kept], expected[torch.tensor(kept)])


_SCORED = [kind for kind in LANGUAGE if kind in KINDS["load_classifier"]]
_UNSCORED = {"cohere", "cohere2", "granite"}  # whose class transformers lacks


@pytest.mark.parametrize("kind", [kind for kind in _SCORED if kind not in _UNSCORED])
def test_decoders_as_classifiers(kind: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    fields = DECODER | DECODERS.get(kind, {}) | {"num_labels": 3, "pad_token_id": 0}
    known = AutoConfig.for_model(kind).to_dict() | {"num_labels": 3} | DECODERS.get(kind, {})
    config = AutoConfig.for_model(kind, **{n: v for n, v in fields.items() if n in known})
    theirs = AutoModelForSequenceClassification.from_config(config, attn_implementation="eager")
    _randomized(theirs).save_pretrained(tmp_path)
    tokens = np.random.default_rng(1).integers(2, 71, (3, 17))
    lengths = np.array([17, 9, 1])
    kept = np.arange(17) < lengths[:, None]
    mask = torch.tensor(kept).long()
    with torch.inference_mode():
        expected = theirs(torch.tensor(tokens) * mask, attention_mask=mask, use_cache=False).logits
    module = load_classifier(tmp_path, device=CPU()).module
    found = module(*(Tensor(array, device=CPU()) for array in (tokens, lengths)))
    _close(found.to_numpy(), expected)


_TOWER = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 1, "depth": 1}
_TOWER |= {"num_attention_heads": 4, "num_heads": 4, "image_size": 28, "patch_size": 14}
_TOWER |= {"embed_dim": 32, "out_hidden_size": 32, "fullatt_block_indexes": [0]}
_TOWER |= {"head_dim": 8, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
_SECTIONS = {"rope_type": "default", "rope_theta": 50.0, "mrope_section": [2, 1, 1]}


@pytest.mark.parametrize("is_flat", [False, True])
@pytest.mark.parametrize("kind", sorted(PARTS))
def test_text_models_of_images_and_text(kind: str, is_flat: bool, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForImageTextToText

    kinds = AutoConfig.for_model(kind)
    tower, text = kinds.vision_config.to_dict(), kinds.text_config.to_dict()
    own = DECODER | ({"rope_parameters": _SECTIONS} if "qwen" in kind else {})
    own |= {"use_sliding_window": False, "layer_types": None}
    config = type(kinds)(
        vision_config=tower | {n: v for n, v in _TOWER.items() if n in tower},
        text_config=text | {n: v for n, v in own.items() if n in text},
        tie_word_embeddings=is_flat,
    )
    theirs = AutoModelForImageTextToText.from_config(config, attn_implementation="eager")
    _randomized(theirs).save_pretrained(tmp_path)
    if is_flat and kind in ("qwen2_vl", "qwen2_5_vl"):  # as the folders on the Hub
        path = tmp_path / "config.json"
        table = json.loads(path.read_text("utf-8"))
        inner = table.pop("text_config")
        rope = {"type": "mrope", "mrope_section": [2, 1, 1]}
        inner |= {"rope_scaling": rope, "rope_theta": inner.pop("rope_parameters")["rope_theta"]}
        path.write_text(json.dumps(inner | table), "utf-8")
    with pytest.warns(MaxmodWarning, match="its vision tower is left out"):
        model = load_model(tmp_path, device=CPU())
    tokens = torch.randint(71, (3, 17), generator=torch.Generator().manual_seed(5))
    with torch.inference_mode():
        expected = theirs(input_ids=tokens, use_cache=False).logits
    _close(model.module(Tensor(tokens.numpy(), device=CPU())), expected)


# A name of transformers, and the function that loads what it makes.
TASKS = {
    "AutoModel": load_encoder,
    "AutoModelForSequenceClassification": load_classifier,
    "AutoModelForTokenClassification": load_tagger,
    "AutoModelForMaskedLM": load_masked_model,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 24, "num_hidden_groups": 2, "inner_group_num": 2},
    "deberta-v2": {
        "relative_attention": True,
        "position_buckets": 8,
        "pos_att_type": "c2p|p2c",
        "norm_rel_ebd": "layer_norm",
    },
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 3, "n_heads": 4},
    "electra": {"embedding_size": 24},
    "modernbert": {"local_attention": 8, "bos_token_id": 0, "eos_token_id": 2}
    | {"cls_token_id": 0, "sep_token_id": 2, "norm_bias": True, "attention_bias": True},
}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_encoders(kind: str, task: str, tmp_path: Path) -> None:
    import torch
    import transformers

    fields = {**BERT, "pad_token_id": 1, **SPECIAL.get(kind, {})}
    known = transformers.AutoConfig.for_model(kind).to_dict()
    config = transformers.AutoConfig.for_model(
        kind,
        **{name: value for name, value in fields.items() if name in known | SPECIAL.get(kind, {})},
    )
    config.num_labels = 3
    theirs = _randomized(
        getattr(transformers, task).from_config(config, attn_implementation="eager")
    )
    theirs.save_pretrained(tmp_path)
    model = TASKS[task](tmp_path, device=CPU())
    tokens = np.random.default_rng(1).integers(2, 90, (3, 17))
    lengths = np.array([17, 9, 1])
    kept = np.arange(17) < lengths[:, None]
    tokens[~kept] = 1
    given = {"input_ids": torch.tensor(tokens), "attention_mask": torch.tensor(kept).long()}
    arrays = [tokens, lengths]
    if model.config.type_vocab_size > 1 and task != "AutoModel":
        types = np.ascontiguousarray(np.broadcast_to(np.arange(17) > 6, (3, 17))).astype(np.int64)
        given["token_type_ids"] = torch.tensor(types)
        arrays.append(types)
    run = model.module
    if task == "AutoModelForMaskedLM":
        run = WordsAt(model.module)
        arrays.insert(2, np.flatnonzero(kept))
    with torch.inference_mode():
        expected = theirs(**given)[0]
    found = run(*(Tensor(array, device=CPU()) for array in arrays)).to_numpy()
    if task == "AutoModelForMaskedLM":
        _close(found, expected[torch.tensor(kept)])
    elif found.ndim == 3:
        _close(found[kept], expected[torch.tensor(kept)])
    else:
        _close(found, expected)


def test_vision_models(tmp_path: Path) -> None:
    import torch
    from transformers import ViTConfig, ViTForImageClassification

    theirs = _randomized(ViTForImageClassification(ViTConfig(**VIT)))
    theirs.save_pretrained(tmp_path)
    model = load_vision_model(tmp_path, device=CPU())
    assert len(model.labels) == 7
    pixels = torch.randn((2, 3, 20, 20), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(pixels).logits
    _close(model.module(Tensor(pixels.numpy(), device=CPU())), expected)


@pytest.mark.parametrize("folder", ["llama/llama2", "llama/qwen2"])
def test_gguf_files(folder: str, tmp_path: Path) -> None:
    """transformers reads the same file, by a table of names of its own."""
    import torch
    from transformers import AutoModelForCausalLM

    path = write_gguf(ASSETS / folder, tmp_path / "model.gguf")
    theirs = AutoModelForCausalLM.from_pretrained(
        tmp_path, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager"
    )
    model = load_model(path, device=CPU())
    tokens = torch.randint(50, (2, 9), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(tokens, use_cache=False).logits
    _close(model.module(Tensor(tokens.numpy(), device=CPU())), expected)
