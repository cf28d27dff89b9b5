"""`LoRA`: each row takes the adapter of its group."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from maxmod import DType, Tensor, TensorType
from maxmod.backends.devices import Device
from maxmod.nn import Linear, LoRA, Module, ModuleList, lora_layers, lora_parameters

COUNT, RANK, IN, OUT = 3, 2, 5, 4


class Model(Module):
    """Two layers with adapters; what changes from call to call is an argument."""

    def __init__(self) -> None:
        self.up = LoRA(
            Linear(IN, OUT), max_num_loras=COUNT, max_lora_rank=RANK, max_lora_seq_len=64
        )
        self.rest = ModuleList(
            [
                LoRA(
                    Linear(OUT, IN, bias=False),
                    max_num_loras=COUNT,
                    max_lora_rank=RANK,
                    max_lora_seq_len=64,
                )
            ]
        )

    def forward(
        self, x: Tensor, ids: Tensor, offsets: Tensor, end: Tensor, *adapters: Tensor
    ) -> Tensor:
        for _, layer in lora_layers(self):
            layer.set_lora_batch_info(ids, offsets, end)
        for (_, slot), adapter in zip(lora_parameters(self), adapters, strict=True):
            slot.set(adapter)
        return self.rest[0](self.up(x))


def expected(
    model: Model,
    x: np.ndarray,
    ids: Sequence[int],
    offsets: Sequence[int],
    end: int,
    adapters: Sequence[np.ndarray],
) -> np.ndarray:
    """Row by row in float64."""
    layers = [layer for _, layer in lora_layers(model)]
    rows = x.astype(np.float64)
    for layer, a, b in zip(layers, adapters[::2], adapters[1::2], strict=True):
        linear = layer.module
        result = rows @ linear.weight.to_numpy().astype(np.float64).T
        if isinstance(linear.bias, Tensor):
            result = result + linear.bias.to_numpy()
        for index, (start, stop) in enumerate(itertools.pairwise(offsets)):
            for row in range(start, min(stop, end)):
                if ids[index] >= 0:
                    result[row] += b[ids[index]] @ (a[ids[index]] @ rows[row])
        rows = result
    return rows


# (adapter of each group, first row of each group and the end, rows that count)
BATCHES = [
    ([0], [0, 6], 6),
    ([2, 0], [0, 2, 6], 6),
    ([1, -1, 2], [0, 1, 4, 6], 6),
    ([1, 0, 1], [0, 0, 5, 5], 6),  # empty groups, and a row of none
    ([1, 2], [0, 3, 6], 4),
    ([-1], [0, 6], 6),
]


@pytest.mark.parametrize(("ids", "offsets", "end"), BATCHES)
@pytest.mark.parametrize("compiled", [False, True])
def test_values(
    ids: list[int], offsets: list[int], end: int, compiled: bool, no_accelerator: None
) -> None:
    model = Model()
    rng = np.random.default_rng(0)
    x = rng.normal(size=[6, IN]).astype(np.float32)
    adapters = [
        rng.normal(size=[int(d) for d in slot.type.shape]).astype(np.float32)
        for _, slot in lora_parameters(model)
    ]
    arguments = [
        Tensor(x),
        Tensor(ids, dtype=DType.int32),
        Tensor(offsets, dtype=DType.uint32),
        Tensor(end, dtype=DType.int64),
        *map(Tensor, adapters),
    ]
    call = model
    if compiled:
        names = [["rows", IN], ["groups"], ["offsets"], []]
        types = [
            TensorType(tensor.dtype, shape, tensor.device)
            for tensor, shape in zip(arguments, names, strict=False)
        ]
        call = model.compile(*types, *(slot.type for _, slot in lora_parameters(model)))
    np.testing.assert_allclose(
        call(*arguments).to_numpy(),
        expected(model, x, ids, offsets, end, adapters),
        rtol=1e-4,
        atol=1e-4,
    )


def test_the_wrapper_does_not_change_names() -> None:
    model = Model()
    assert [name for name, _ in model.parameters] == ["up.weight", "up.bias", "rest.0.weight"]
    assert [name for name, _ in lora_layers(model)] == ["up", "rest.0"]
    assert [name for name, _ in lora_parameters(model)] == [
        *("up.lora_a", "up.lora_b", "rest.0.lora_a", "rest.0.lora_b"),
    ]
    weights = {name: Tensor.zeros_like(tensor) for name, tensor in model.parameters}
    model.load_state_dict(weights)
    assert model.up.module.weight is weights["up.weight"]


def test_slots(device: Device) -> None:
    layer = Linear(IN, OUT)
    lora = LoRA(layer, max_num_loras=COUNT, max_lora_rank=RANK, max_lora_seq_len=8)
    assert lora.lora_a.type == layer.weight.type.with_sizes((COUNT, RANK, IN))
    assert lora.lora_b.type == layer.weight.type.with_sizes((COUNT, OUT, RANK))
    assert layer.weight.device == device
    assert repr(lora.lora_a) == f"LoRASlot({lora.lora_a.type.short()})"
    value = Tensor.zeros_like(lora.lora_a.type)
    lora.lora_a.set(value)
    assert lora.lora_a.get() is value
    with pytest.raises(RuntimeError, match="no adapters were set"):
        lora.lora_b.get()
    with pytest.raises(ValueError, match=r"LoRASlot\.set: expected"):
        lora.lora_b.set(value)


def test_wrong_use(no_accelerator: None) -> None:
    options = {"max_num_loras": COUNT, "max_lora_rank": RANK, "max_lora_seq_len": 8}
    with pytest.raises(TypeError, match="module: expected a Linear, got ModuleList"):
        LoRA(ModuleList([]), **options)
    lora = LoRA(Linear(IN, OUT), **options)
    with pytest.raises(RuntimeError, match="set_lora_batch_info"):
        lora(Tensor.ones([2, IN]))
    one = Tensor([0], dtype=DType.int64)
    lora.set_lora_batch_info(one, Tensor([0, 2], dtype=DType.int64), one)
    with pytest.raises(RuntimeError, match="no adapters were set"):
        lora(Tensor.ones([2, IN]))
    with pytest.raises(ValueError, match=r"expected x \[rows, in_dim\]"):
        lora(Tensor.ones([1, 2, IN]))
