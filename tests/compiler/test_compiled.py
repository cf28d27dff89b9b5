"""Compiled calls: argument checks, nested arguments and results, threads, weights."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pytest
from compiler.graphs import compiled, f32

import maxmod
from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.runtime.staging import trace_function
from maxmod.tensor.buffer import Buffer
from maxmod.values.device import CPU_REF


@pytest.fixture(scope="module")
def model() -> CompiledModel:
    def forward(x: Tensor, scale: Tensor) -> Tensor:
        return x * scale

    return compile_function(
        forward, [f32("batch", 5), f32("batch", 1)], name="forward", parameters={}
    )


def ones(*shape: int, dtype: Any = np.float32) -> np.ndarray[Any, Any]:
    return np.ones(shape, dtype)


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        ((ones(3, 5),), TypeError, "expected 2 arguments, got 1"),
        (
            (ones(3, 5, dtype=np.float64), ones(3, 1)),
            ValueError,
            r"argument 0: expected float32\[batch,5\] for x, got float64\[3,5\].*implicitly",
        ),
        ((ones(3), ones(3, 1)), ValueError, r"argument 0: expected.*for x.*ranks differ"),
        (
            (ones(3, 4), ones(3, 1)),
            ValueError,
            r"argument 0: expected.*for x.*axis 1 has 4 elements",
        ),
        (
            (ones(3, 5), ones(2, 1)),
            ValueError,
            r"argument 1 \(scale\): the size 'batch' of axis 0 is 2, but axis 0 of argument 0",
        ),
        (
            ("text", ones(3, 1)),
            TypeError,
            r"argument 0: expected a Tensor.* for x, got str",
        ),
        ((None, ones(3, 1)), ValueError, "got NoneType"),
        (([ones(3, 5)], ones(3, 1)), (TypeError, ValueError), "got list|nested differently"),
    ],
)
def test_wrong_arguments(model: CompiledModel, args: Any, error: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        model(*args)


def test_arrays_buffers_and_numbers_are_accepted(model: CompiledModel) -> None:
    assert model(ones(3, 5), Buffer.from_numpy(ones(3, 1))).shape == [3, 5]
    scalar = compiled(lambda x, y: x + y, f32(2), f32())
    assert scalar(ones(2), 2.5).to_numpy().tolist() == [3.5, 3.5]
    assert scalar(ones(2), np.float64(2.5)).dtype is DType.float32


def test_strided_arguments_are_read_right() -> None:
    double = compiled(lambda x: F.exp(x) * 2.0, f32("n", 3))
    x = Tensor(np.arange(12, dtype=np.float32).reshape(3, 4) * 0.1)
    np.testing.assert_allclose(
        double(x.T).to_numpy(), np.exp(x.to_numpy().T.astype(np.float64)) * 2, rtol=1e-6
    )


@pytest.mark.parametrize("n", [0, 1, 7])
def test_named_sizes_may_be_anything_from_zero(n: int) -> None:
    model = compiled(lambda x: F.softmax(F.exp(x) + 1.0) @ x.T, f32("n", 3))
    assert model(ones(n, 3)).shape == [n, n]


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclass
class Box:
    value: Any
    label: str


@pytest.mark.parametrize(
    ("left", "right"),
    [((2, 3, 0), (0, 4)), ((0, 3, 4), (4, 5)), ((2, 3, 4), (4, 0)), ((2, 0, 4), (4, 5))],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_products_with_a_size_of_zero(left: Any, right: Any, dtype: Any) -> None:
    x, y = ones(*left, dtype=dtype), ones(*right, dtype=dtype)
    types = [TensorType(DType.from_numpy(dtype), shape, CPU_REF) for shape in (left, right)]
    product = compile_function(F.matmul, types, name="product", parameters={})
    np.testing.assert_array_equal(product(x, y).to_numpy(), x @ y)


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64, DType.float16])
def test_products_of_infinities_give_no_warning(dtype: DType) -> None:
    x = np.full((40, 40), np.inf, dtype.to_numpy())
    types = [TensorType(dtype, (40, 40), CPU_REF)] * 2
    product = compile_function(F.matmul, types, name="product", parameters={})
    assert np.isnan(product(x, 0 * np.eye(40, dtype=x.dtype)).to_numpy()).all()


def test_nested_arguments_and_results_keep_structure() -> None:
    def fn(pair: Pair, cache: dict[str, Tensor], factor: int) -> Any:
        total = pair.first + pair.second[0]
        return {"sum": total, "all": [total * factor, (cache["k"], None)], "box": Box(total, "b")}

    t = f32(2)
    model = compiled(fn, Pair(t, [t]), {"k": t}, 3)  # type: ignore[arg-type]
    made = model(Pair(ones(2), [ones(2)]), {"k": ones(2)}, 3)
    assert sorted(made) == ["all", "box", "sum"]
    assert isinstance(made["all"], list)
    assert made["all"][0].to_numpy().tolist() == [6, 6]
    assert made["all"][1][1] is None
    assert isinstance(made["box"], Box)
    assert made["box"].label == "b"
    with pytest.raises(ValueError, match="static value differs"):
        model(Pair(ones(2), [ones(2)]), {"k": ones(2)}, 4)
    with pytest.raises(ValueError, match="nested differently"):
        model(Pair(ones(2), [ones(2)]), {"q": ones(2)}, 3)


def test_a_tensor_in_place_of_a_type_is_refused() -> None:
    with pytest.raises(TypeError, match="expected a TensorType, got a tensor"):
        compiled(lambda x: x, Tensor(ones(2)))  # type: ignore[arg-type]


def test_derived_sizes_are_checked() -> None:
    n = maxmod.Dim("n")
    model = compiled(lambda x, y: F.exp(x).sum(axis=None) + y.sum(), f32("n"), f32(n * 2))
    assert model(ones(2), ones(4)).shape == [1]
    with pytest.raises(ValueError, match=r"expected n \* 2 = 4, got 5"):
        model(ones(2), ones(5))


def test_one_value_returned_twice_gives_two_tensors() -> None:
    first, second = compiled(lambda x: (x * 2.0,) * 2, f32(2))(ones(2))
    assert first.data is not second.data


def test_weights_of_compile_time_stay_until_replaced() -> None:
    w = Tensor(ones(2))
    model = compiled(lambda x: x * w, f32(2), weights={"w": w})
    assert model(ones(2)).to_numpy().tolist() == [1, 1]
    model.load_state({"w": Tensor(np.full(2, 3, np.float32))})
    assert model(ones(2)).to_numpy().tolist() == [3, 3]
    with pytest.raises(KeyError, match=r"w: expected float32\[2\], got float32\[3\]"):
        model.load_state({"w": Tensor(ones(3))})
    assert dict(model.weights)["w"].to_numpy().tolist() == [3, 3]


def test_sizes_share_one_arena(monkeypatch: pytest.MonkeyPatch) -> None:
    """A larger size gets a new block, and programs of the old one are bound again."""
    monkeypatch.setattr("maxmod.runtime.arena.LEAST_NBYTES", 0)
    model = compiled(lambda x: (x @ x.T) @ x, f32("n", 8))
    rng = np.random.default_rng(3)
    sizes = []
    for n in (5, 3, 5, 40, 3, 5, 40):
        x = rng.normal(size=(n, 8)).astype(np.float32)
        expected = x.astype(np.float64) @ x.T @ x
        np.testing.assert_allclose(model(x).to_numpy(), expected, rtol=1e-4, atol=1e-4)
        sizes.append(model._arena.block.nbytes)
    assert sizes == [model.memory_plan(n=n).arena_nbytes for n in (5, 5, 5, 40, 40, 40, 40)]
    assert sizes[0] < sizes[-1]
    assert model.stats.programs == 5


def test_threads_share_a_model() -> None:
    model = compiled(lambda x: F.softmax(x @ x.T) @ x, f32("n", 8))
    rng = np.random.default_rng(0)
    inputs = [rng.normal(size=(n % 5 + 1, 8)).astype(np.float32) for n in range(24)]
    expected = [model(x).to_numpy().copy() for x in inputs]
    wrong: list[int] = []

    def work(start: int) -> None:
        for step in range(40):
            n = (start + step) % len(inputs)
            if not np.array_equal(model(inputs[n]).to_numpy(), expected[n]):
                wrong.append(n)

    threads = [threading.Thread(target=work, args=(n * 3,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("option", ["compile", "noopt", "check", "sync"])
def test_the_debug_switches_change_no_result(option: str) -> None:
    with maxmod.configure(**{option: option != "compile"}):
        model = compiled(lambda x: F.layer_norm(x, x[0], x[0], 1e-5) * 1.0, f32("n", 8))
        x = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
        centered = x - x.mean(-1, keepdims=True, dtype=np.float64)
        scaled = centered / np.sqrt((centered**2).mean(-1, keepdims=True) + 1e-5)
        np.testing.assert_allclose(model(x).to_numpy(), scaled * x[0] + x[0], rtol=1e-4, atol=1e-5)


def test_dump_writes_every_stage(tmp_path: Any) -> None:
    with maxmod.configure(dump=str(tmp_path)):
        compiled(lambda x: F.softmax(x), f32(3))
    names = " ".join(path.name for path in sorted(tmp_path.iterdir()))
    assert "traced" in names
    assert "merge_common" in names


def test_a_broken_compiler_falls_back_to_ops(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with maxmod.configure(cc=str(broken), cache_dir=str(tmp_path / "cache")):
        model = compiled(lambda x: F.exp(x) + 1.0, f32(3))
        assert not model.kernels
        np.testing.assert_allclose(model(np.zeros(3, np.float32)).to_numpy(), 2.0)


def test_staged_graphs_print_and_name_types() -> None:
    staged = trace_function(lambda x: F.exp(x), [f32("n")], name="f", parameters={})
    assert "exp %x" in str(staged)
    assert staged.in_layouts == [f32("n")]
    assert staged.out_layouts == [f32("n")]


def test_transfers_between_devices_run_op_by_op(emulated_accelerator: Any) -> None:
    gpu = emulated_accelerator

    def fn(x: Tensor) -> Tensor:
        return (x.to(gpu) * 2.0).to(CPU()) + x

    model = compile_function(
        fn, [TensorType(DType.float32, ["n"], CPU_REF)], name="f", parameters={}
    )
    result = model(ones(3))
    assert result.device == CPU()
    assert result.to_numpy().tolist() == [3, 3, 3]
