"""Files go both ways between maxmod and torch, ties included."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maxmod import DType, Tensor
from maxmod.weights import open_checkpoint, save_state

pytestmark = pytest.mark.oracle


def tied_model() -> Any:
    import torch

    model = torch.nn.Module()
    model.wte = torch.nn.Embedding(5, 4)
    model.head = torch.nn.Linear(4, 5, bias=False)
    model.head.weight = model.wte.weight
    model.norm = torch.nn.LayerNorm(4, dtype=torch.bfloat16)
    return model


def test_reads_save_model(tmp_path: Path) -> None:
    from safetensors.torch import save_model

    model = tied_model()
    save_model(model, str(tmp_path / "model.safetensors"))
    with open_checkpoint(tmp_path) as checkpoint:
        state = dict(checkpoint)
    assert set(state) == {"wte.weight", "head.weight", "norm.weight", "norm.bias"}
    assert state["head.weight"] is state["wte.weight"]
    np.testing.assert_array_equal(state["wte.weight"].data, model.wte.weight.detach().numpy())
    assert state["norm.weight"].dtype is DType.bfloat16


def test_load_model_reads_ours(tmp_path: Path) -> None:
    from safetensors.torch import load_model

    source, target = tied_model(), tied_model()
    shared = Tensor(source.wte.weight.detach().numpy())
    state = {
        "wte.weight": shared,
        "head.weight": shared,
        "norm.weight": source.norm.weight.detach() * 3,
        "norm.bias": source.norm.bias.detach(),
    }
    path = save_state(state, tmp_path)
    missing, unexpected = load_model(target, path)
    assert not missing and not unexpected
    np.testing.assert_array_equal(
        target.head.weight.detach().numpy(), source.wte.weight.detach().numpy()
    )
    assert target.norm.weight.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("max_shard_size", ["1GB", "20KB"])
def test_transformers_both_ways(tmp_path: Path, max_shard_size: str) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=50, n_positions=16, n_embd=16, n_layer=2, n_head=2)
    )
    model.save_pretrained(tmp_path, max_shard_size=max_shard_size)
    with open_checkpoint(tmp_path) as checkpoint:
        for name, tensor in checkpoint.items():
            np.testing.assert_array_equal(tensor.data, model.state_dict()[name].numpy())
        save_state(checkpoint, tmp_path, max_shard_bytes=20_000)
    again = GPT2LMHeadModel.from_pretrained(tmp_path)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(value.numpy(), again.state_dict()[name].numpy())
