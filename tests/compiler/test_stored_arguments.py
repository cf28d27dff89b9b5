"""What a compiled function stores into must be writable memory of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from helpers import tensor

import maxmod
from maxmod import CPU, BufferType, DType, Module, Tensor
from maxmod import functional as F
from maxmod.engine import InferenceSession
from maxmod.graph import Graph, ops
from maxmod.runtime.compiled import CompiledModel
from maxmod.values.device import CPU_REF
from maxmod.weights import open_checkpoint, save_state

BUFFER = BufferType(DType.float32, ["n"], CPU_REF)


def numbers(count: int = 6) -> np.ndarray[Any, Any]:
    return np.arange(count, dtype=np.float32)


@pytest.fixture(scope="module", params=[True, False], ids=["kernels", "ops"])
def add(request: pytest.FixtureRequest) -> CompiledModel:
    """Adds x to a buffer; works with an array as it is."""

    def fn(buffer: Tensor, x: Tensor) -> Tensor:
        F.buffer_store(buffer, buffer + x)
        return x * 2.0

    with maxmod.configure(compile=request.param):
        return compiled(fn, BUFFER, f32("n"))


def test_read_only_memory_is_refused(add: CompiledModel, tmp_path: Path) -> None:
    save_state({"a": tensor(numbers())}, tmp_path / "a.safetensors")
    mapped = open_checkpoint(tmp_path / "a.safetensors", mmap=True)["a"]
    fixed = numbers()
    fixed.flags.writeable = False
    repeated = np.broadcast_to(np.float32(1), 6)
    for array in (mapped, Tensor.wrap(fixed, tensor(fixed).type)):
        with pytest.raises(TypeError, match=r"argument 0 \(buffer\) .* read-only memory.*copy"):
            add(array, numbers())
    for array in (fixed, repeated, 1.0):  # a tensor of them would be a copy
        with pytest.raises(TypeError, match="argument 0: expected a buffer"):
            add(array, numbers())
    with pytest.raises(TypeError, match="read-only memory"):
        add(Tensor.wrap(repeated, tensor(numbers()).type), numbers())
    np.testing.assert_array_equal(fixed, numbers())
    buffer = Tensor(mapped.to_numpy().copy())  # what the message says
    add(buffer, numbers())
    np.testing.assert_array_equal(buffer, numbers() * 2)
    array = numbers()
    add(array, tensor(fixed))
    np.testing.assert_array_equal(array, numbers() * 2)


def test_a_view_gets_separate_memory_as_eagerly(add: CompiledModel) -> None:
    base = tensor(numbers())
    views = [base[1:5], F.broadcast_to(base[2:3], [4])]
    for view, want in zip(views, ([2.0, 3.0, 4.0, 5.0], [3.0, 3.0, 3.0, 3.0])):
        add(view, np.ones(4, np.float32))
        assert view.to_numpy().tolist() == want
        np.testing.assert_array_equal(base, numbers())


def test_memory_that_is_read_and_stored_is_refused(add: CompiledModel) -> None:
    x = tensor(numbers())
    with pytest.raises(ValueError, match=r"argument 0 \(buffer\) .* with argument 1 \(x\).*copy"):
        add(x, x)
    array = numbers(8)
    with pytest.raises(ValueError, match="shares memory"):
        add(array[:6], array[2:])
    np.testing.assert_array_equal(array, numbers(8))
    add(array[:4], array[4:])
    assert array.tolist() == [4.0, 6.0, 8.0, 10.0, 4.0, 5.0, 6.0, 7.0]


def test_two_buffers_with_the_same_memory_are_refused() -> None:
    def fn(a: Tensor, b: Tensor) -> None:
        F.buffer_store(a, F.sum(b, axis=0) + a)
        F.buffer_store(b, F.softmax(a) + b)

    model = compiled(fn, BUFFER, BUFFER)
    x, array = tensor(numbers()), numbers(8)
    for pair in [(x, x), (array[:6], array[2:]), (array, array)]:
        with pytest.raises(ValueError, match=r"argument 1 \(b\) .* with argument 0 \(a\)"):
            model(*pair)
    np.testing.assert_array_equal(x, numbers())
    np.testing.assert_array_equal(array, numbers(8))
    columns = np.zeros((4, 2), np.float32)  # no element in common
    kinds = [tensor(numbers(4)).type] * 2
    left, right = (Tensor.wrap(columns[:, n], kind) for n, kind in enumerate(kinds))
    model(left, right)
    np.testing.assert_allclose(columns[:, 1], 0.25)
    views = [x[:4], x[2:]]  # separate tensors, which eagerly get memory of their own
    eager = [tensor(view.to_numpy().copy()) for view in views]
    model(*views)
    fn(*eager)
    for found, want in zip(views, eager):
        np.testing.assert_allclose(found, want, rtol=1e-6)
    for _ in range(2):  # the same good arguments again
        model(left, right)
    model(tensor(np.zeros(0, np.float32)), tensor(np.zeros(0, np.float32)))


def test_a_buffer_that_is_a_weight_is_refused() -> None:
    class Counting(Module):
        def __init__(self) -> None:
            self.seen = tensor(numbers(3))

        def forward(self, buffer: Tensor) -> Tensor:
            F.buffer_store(buffer, buffer + 1.0)
            return self.seen * 2.0

    module = Counting()
    model = module.compile(BufferType(DType.float32, [3], CPU()))
    with pytest.raises(ValueError, match="shares memory with the weight 'seen'"):
        model(module.seen)
    other = tensor(numbers(3))
    assert model(other).to_numpy().tolist() == [0.0, 2.0, 4.0]
    assert other.to_numpy().tolist() == [1.0, 2.0, 3.0]
    model.load_state({"seen": other})
    with pytest.raises(ValueError, match="shares memory with the weight 'seen'"):
        model(other)
    assert model(module.seen).to_numpy().tolist() == [2.0, 4.0, 6.0]


def test_arguments_without_a_store_may_share_memory() -> None:
    model = compiled(lambda a, b, unused: [a + b], BUFFER, BUFFER, f32("n"))
    x = tensor(numbers())
    np.testing.assert_array_equal(model(x, x, x)[0], numbers() * 2)


def test_a_session_stores_into_no_copy_of_a_list() -> None:
    with Graph("add", input_types=[BufferType(DType.float32, [2], CPU_REF)]) as graph:
        (buffer,) = graph.inputs
        ops.buffer_store(buffer, buffer[...] + 1.0)
        graph.output()
    model = InferenceSession().load(graph)
    with pytest.raises(TypeError, match="got list"):
        model.execute([1.0, 2.0])
    array = numbers(2)
    model.execute(array)
    assert array.tolist() == [1.0, 2.0]


def test_memory_of_an_accelerator(emulated_accelerator: maxmod.Device) -> None:
    kind = BufferType(DType.float32, ["n"], emulated_accelerator)

    def fn(a: Tensor, b: Tensor) -> None:
        F.buffer_store(a, a + b)
        F.buffer_store(b, a * 2.0)

    model = compiled(fn, kind, kind)
    a, b = (tensor(numbers()).to(emulated_accelerator) for _ in range(2))
    with pytest.raises(ValueError, match="shares memory"):
        model(a, a)
    model(a, b)
    np.testing.assert_array_equal(b.to(CPU()), numbers() * 4)
