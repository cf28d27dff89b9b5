"""`InferenceSession` and `Model`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from maxmod import CPU, Accelerator, Tensor, configure
from maxmod.backends.devices import Device
from maxmod.driver import Buffer
from maxmod.dtype import DType
from maxmod.engine import InferenceSession, Model, TensorSpec
from maxmod.graph import BufferType, DeviceRef, Graph, TensorType, TensorValue, ops


def scaled(device: Any = None) -> Graph:
    ref = DeviceRef.from_device(device or CPU())
    kind = TensorType(DType.float32, ["n", 2], ref)
    factor = TensorType(DType.float32, [], ref)
    return Graph("scaled", lambda x, k: (x * k, x.cast(DType.int64) * 2), [kind, factor])


@pytest.fixture
def model(no_accelerator: None) -> Model:
    return InferenceSession().load(Graph("mul", ops.mul, scaled().input_types))


X = np.array([[1, 2], [3, 4]], np.float32)


def test_accepts_every_kind_of_array(model: Model) -> None:
    strided = np.asfortranarray(X)
    for x in (X, Tensor(X), Buffer.from_numpy(X), X.tolist(), X[:, :]):
        for k in (2, 2.0, np.float32(2), Tensor(2.0), np.array(2, np.float32)):
            (y,) = model(x, k)
            assert type(y) is Buffer
            np.testing.assert_array_equal(y.to_numpy(), X * 2)
    with pytest.raises(ValueError, match="contiguous"):
        model(strided, 2)


def test_arguments_by_name(model: Model) -> None:
    for found in (
        model(X, input1=3),
        model(input1=3, input0=X),
        model.execute(X, 3),
        model.execute(X, 3, copy_inputs_to_device=False),
    ):
        np.testing.assert_array_equal(found[0].to_numpy(), X * 3)
    for wrong in (
        lambda: model(X),
        lambda: model(X, 2, 3),
        lambda: model(X, 2, input1=2),
        lambda: model(X, factor=2),
    ):
        with pytest.raises(TypeError, match="mul: expected 2 inputs, got"):
            wrong()


def test_wrong_arguments(model: Model) -> None:
    with pytest.raises(ValueError, match=r"float32\[n,2\] for input0, got float64\[2,2\]"):
        model(X.astype(np.float64), 2)
    with pytest.raises(ValueError, match="input0"):
        model(np.ones([2, 3], np.float32), 2)
    for other in ("text", None, object()):
        with pytest.raises(TypeError, match="expected a Tensor"):
            model(other, 2)


def test_metadata(model: Model) -> None:
    assert model.input_metadata == [
        TensorSpec("input0", DType.float32, ["n", 2]),
        TensorSpec("input1", DType.float32, []),
    ]
    assert model.output_metadata == [TensorSpec("output0", DType.float32, ["n", 2])]
    assert repr(model) == "Model(mul: (float32[n,2], float32[]) -> (float32[n,2]))"
    assert "graph mul" in model.compiled.explain()


def test_results_are_fresh(model: Model) -> None:
    first = model(X, 2)[0]
    model(X, 3)
    np.testing.assert_array_equal(first.to_numpy(), X * 2)
    graph = Graph("same", lambda x: (x, x), [TensorType(DType.float32, [2], CPU())])
    data = np.array([1, 2], np.float32)
    one, two = InferenceSession().load(graph)(data)
    one[0] = 7.0
    assert (two.to_numpy()[0], data[0]) == (1, 1)


@pytest.mark.parametrize("compile", [True, False])
def test_compiled_and_interpreted(compile: bool, no_accelerator: None) -> None:
    with configure(compile=compile):
        model = InferenceSession().load(scaled())
        y, z = (part.to_numpy() for part in model(X, 0.5))
    np.testing.assert_array_equal(y, X / 2)
    assert z.tolist() == [[2, 4], [6, 8]]


def test_on_each_device(device: Device) -> None:
    """Inputs are moved to the device of the graph, results stay there."""
    model = InferenceSession(devices=[device]).load(
        Graph("mul", ops.mul, scaled(device).input_types)
    )
    (y,) = model(X, np.array(2, np.float32))
    assert y.device == device
    np.testing.assert_array_equal(y.to_numpy(), X * 2)
    if not device.is_host:
        with pytest.raises(ValueError, match="Hint: move it"):
            model.execute(X, 2.0, copy_inputs_to_device=False)


def test_buffers_are_not_moved(emulated_accelerator: Device) -> None:
    """A copy would be changed, and the caller would not see it."""
    kind = BufferType(DType.float32, [2], emulated_accelerator)

    def add_one(buffer: Any) -> None:
        buffer[...] = buffer[...] + 1

    model = InferenceSession().load(Graph("count", add_one, [kind]))
    memory = Buffer.zeros([2], DType.float32, emulated_accelerator)
    model(memory)
    assert memory.to_numpy().tolist() == [1, 1]
    with pytest.raises(ValueError, match="Hint: move it"):
        model(np.zeros(2, np.float32))


def test_devices(emulated_accelerator: Device) -> None:
    assert InferenceSession().devices == [Accelerator(0), Accelerator(1), CPU()]
    assert InferenceSession([CPU()]).devices == [CPU()]
    assert InferenceSession(devices=[Accelerator(1)]).devices == [Accelerator(1), CPU()]
    with pytest.raises(ValueError, match="the graph scaled uses gpu:0, the session has cpu:0"):
        InferenceSession(devices=[CPU()]).load(scaled(emulated_accelerator))


def test_wrong_use() -> None:
    with pytest.raises(TypeError, match="load: expected a Graph, got str"):
        InferenceSession().load("model.mef")
    with pytest.raises(NotImplementedError):
        InferenceSession(num_threads=2)
    with pytest.raises(NotImplementedError):
        InferenceSession().load(scaled(), custom_extensions=["kernels"])
    with pytest.raises(ValueError, match="is empty"):
        InferenceSession().load(Graph("empty", lambda: None))


def constant_of(*values: float, device: Device | None = None) -> TensorValue:
    ref = DeviceRef.from_device(device or CPU())
    return ops.constant(np.array(values, np.float32), DType.float32, ref)


def test_a_graph_without_inputs_gives_constants() -> None:
    with Graph("constants") as graph:
        one, other = constant_of(1.0, 2.0), constant_of(3.0)
        graph.output(one, other, one, ops.concat([one, other]))
    model = InferenceSession().load(graph)
    assert model.input_metadata == []
    found = [buffer.to_numpy().tolist() for buffer in model.execute()]
    assert found == [[1.0, 2.0], [3.0], [1.0, 2.0], [1.0, 2.0, 3.0]]
    with pytest.raises(TypeError, match="expected 0 inputs, got 1"):
        model.execute(np.zeros(1, np.float32))


def test_a_constant_that_is_returned_is_not_changed_through_the_result() -> None:
    with Graph("constants") as graph:
        graph.output(constant_of(1.0))
    model = InferenceSession().load(graph)
    model.execute()[0][0] = 5.0
    assert model.execute()[0].to_numpy().tolist() == [1.0]


def test_constants_are_returned_from_several_devices(emulated_accelerator: Device) -> None:
    with Graph("constants") as graph:
        graph.output(constant_of(1.0, device=emulated_accelerator), constant_of(2.0))
    session = InferenceSession(devices=[emulated_accelerator, CPU()])
    first, second = session.load(graph).execute()
    assert (first.device, second.device) == (emulated_accelerator, CPU())
    assert (first.to(CPU()).to_numpy().tolist(), second.to_numpy().tolist()) == ([1.0], [2.0])
