"""Every architecture against transformers itself, on random models that it saves now.

The golden folders say that nothing has changed since they were written; this says that what
transformers writes and computes today is still what maxmod reads and computes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maxmod import CPU, DType, Tensor
from maxmod.models import load_encoder, load_model, load_vision_model
from maxmod.models.registry import KINDS

pytestmark = pytest.mark.oracle

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
GPT2 = {"vocab_size": 71, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40}
BERT = {**DECODER, "vocab_size": 90}
VIT = {**DECODER, "image_size": 20, "patch_size": 5, "num_labels": 7}


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


@pytest.mark.parametrize("kind", sorted(KINDS["load_model"]))
def test_language_models(kind: str, tmp_path: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **(GPT2 if kind == "gpt2" else DECODER))
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


def test_encoders(tmp_path: Path) -> None:
    import torch
    from transformers import BertConfig, BertModel

    theirs = _randomized(BertModel(BertConfig(**BERT)))
    theirs.save_pretrained(tmp_path)
    model = load_encoder(tmp_path, device=CPU())
    tokens = torch.randint(90, (2, 11), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = theirs(tokens).last_hidden_state
    lengths = Tensor(np.array([11, 11]), device=CPU())
    _close(model.module(Tensor(tokens.numpy(), device=CPU()), lengths), expected)


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
