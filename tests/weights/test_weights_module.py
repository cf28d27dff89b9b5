"""From a file through a module and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from maxmod import DType, Tensor, nn
from maxmod.errors import WeightsError
from maxmod.ops.elementwise import tanh
from maxmod.weights import open_checkpoint, rename, save_state, split, strip_prefix, transpose


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        self.query = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.value(tanh(self.query(x)))


class Model(nn.Module):
    def __init__(self, width: int = 8, rows: int = 11) -> None:
        self.embedding = nn.Embedding(rows, dim=width)
        self.blocks = nn.ModuleList([Block(width) for _ in range(2)])
        self.head = nn.Linear(width, rows, bias=False)
        self.head.weight = self.embedding.weight  # tied

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embedding(ids)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x)


def foreign(width: int = 8, rows: int = 11) -> dict[str, np.ndarray]:
    """Weights as another framework stores them: fused, transposed, prefixed, the head left out."""
    rng = np.random.default_rng(0)
    state = {"model.wte": rng.normal(size=(rows, width)).astype(np.float32)}
    for i in range(2):
        state[f"model.h.{i}.qv.w"] = rng.normal(size=(width, 2 * width)).astype(np.float32)
        state[f"model.h.{i}.qv.b"] = rng.normal(size=2 * width).astype(np.float32)
    return state


def expected(state: dict[str, np.ndarray], ids: np.ndarray) -> np.ndarray:
    """The model in float64, from the foreign weights."""
    wide = {name: array.astype(np.float64) for name, array in state.items()}
    x = wide["model.wte"][ids]
    for i in range(2):
        w, b = wide[f"model.h.{i}.qv.w"], wide[f"model.h.{i}.qv.b"]
        width = x.shape[-1]
        y = np.tanh(x @ w[:, :width] + b[:width])
        x = x + y @ w[:, width:] + b[width:]
    return x @ wide["model.wte"].T


@pytest.mark.parametrize("mmap", [False, True])
def test_load_state_dict_end_to_end(tmp_path: Path, mmap: bool) -> None:
    state = foreign()
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors")
    model = Model()
    with open_checkpoint(tmp_path, mmap=mmap) as checkpoint:
        view = strip_prefix(checkpoint, "model.")
        view = transpose(view, "*.w")
        view = split(view, {"*.qv.*": ["*.query.*", "*.value.*"]})
        view = rename(
            view,
            {"wte": "embedding.weight", "h.*.w": "blocks.*.weight", "h.*.b": "blocks.*.bias"},
        )
        model.load_state_dict(view)
    ids = np.array([[0, 3, 10], [7, 7, 1]])
    got = model(Tensor(ids)).to_numpy()
    np.testing.assert_allclose(got, expected(state, ids), rtol=1e-5, atol=1e-5)
    # And back: tied weights once, then read by the same class without any view.
    path = save_state(model.parameters, tmp_path / "saved", max_shard_bytes=300)
    again = Model()
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.nbytes() == sum(array.nbytes for array in state.values())
        again.load_state_dict(checkpoint)
    assert again.head.weight is again.embedding.weight
    np.testing.assert_array_equal(again(Tensor(ids)).to_numpy(), got)


def test_load_state_takes_a_checkpoint(tmp_path: Path) -> None:
    model, other = Model(), Model()
    with open_checkpoint(save_state(model.parameters, tmp_path)) as checkpoint:
        other.load_state(checkpoint)
    for (name, one), (_, two) in zip(model.parameters, other.parameters):
        np.testing.assert_array_equal(one.to_numpy(), two.to_numpy(), err_msg=name)


def test_wrong_checkpoint_changes_nothing_and_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_state(Model(width=6).parameters, tmp_path)
    model = Model()
    before = dict(model.parameters)
    monkeypatch.setattr("maxmod.weights.checkpoint.WeightFile.read", None)
    with open_checkpoint(path) as checkpoint, pytest.raises(WeightsError, match="mismatched"):
        model.load_state_dict(checkpoint)
    assert all(tensor is before[name] for name, tensor in model.parameters)


def test_cast_on_load(tmp_path: Path) -> None:
    path = save_state(Model().parameters, tmp_path)
    model = Model()
    with open_checkpoint(path) as checkpoint:
        model.load_state(checkpoint.astype(DType.bfloat16))
    assert {tensor.dtype for _, tensor in model.parameters} == {DType.bfloat16}
    assert model.head.weight is model.embedding.weight
