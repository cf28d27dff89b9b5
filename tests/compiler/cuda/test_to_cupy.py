"""Kernels as objects of CuPy: what they are made of, and that the parts compute the right thing."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import cuda_shim
import numpy as np
import pytest
from compiler.graphs import compiled, f32
from cuda_function import sources_of

from maxmod import DType, TensorType
from maxmod import functional as F
from maxmod.errors import CompileError
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.values.device import CPU_REF


def _type(*sizes: Any, dtype: DType = DType.float32) -> TensorType:
    return TensorType(dtype, sizes, CPU_REF)


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands for the module: gives what the classes were called with."""
    module = SimpleNamespace(
        ElementwiseKernel=lambda *args, **kwargs: ("elementwise", args, kwargs),
        RawKernel=lambda *args: ("raw", args),
    )
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def _run(source: KernelSource, arrays: list[Any], results: list[Any]) -> None:
    """Runs the statements for each element, with the parameters as CuPy declares them."""
    inputs, outputs, statements = source.elementwise
    kinds = {"float32": "float", "float64": "double", "int64": "long long", "uint8": "uint8_t"}
    declared = [part.split() for part in f"{inputs}, {outputs}".split(", ")]
    params = ", ".join(f"{kinds[kind]}* p_{name}" for kind, name in declared)
    names = [f"{kinds[kind]}& {name} = p_{name}[threadIdx.x];" for kind, name in declared]
    body = "\n".join([*names, statements])
    text = f'extern "C" __global__ void k({params}) {{\n{body}\n}}\n'
    module = cuda_shim.Module([cuda_shim.Code(text, "k")], kernel_text.prelude(Dialect.CUDA))
    module.kernels[0]((1,), (results[0].size,), [*arrays, *results])


def test_elementwise_kernels(cupy: Any) -> None:
    (source,) = sources_of(
        lambda x, y: F.gelu(x * y + 1.5, approximate="tanh"), _type("n", 4), _type("n", 4)
    )
    kind, args, options = source.to_cupy()
    assert (kind, args) == ("elementwise", (*source.elementwise, source.name))
    assert args[:2] == ("float32 b0, float32 b1", "float32 b2")
    assert options == {"preamble": kernel_text.prelude(Dialect.CUDA)}
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(32).astype(np.float32) for _ in range(2))
    found = np.zeros(32, np.float32)
    _run(source, [x, y], [found])
    h = x.astype(np.float64) * y + 1.5
    expected = 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_several_results_and_dtypes(cupy: Any) -> None:
    def fn(x: Any, y: Any) -> Any:
        total = F.cast(x, DType.float64) + y
        return total, F.cast(total * 2, DType.uint8)

    (source,) = sources_of(fn, _type(8, dtype=DType.int64), _type(8, dtype=DType.float64))
    assert source.to_cupy()[1][:2] == ("int64 b0, float64 b1", "uint8 b2, float64 b3")
    x, y = np.arange(8), np.arange(8) / 2
    total, narrow = np.zeros(8), np.zeros(8, np.uint8)
    _run(source, [x, y], [narrow, total])
    np.testing.assert_array_equal(total, x + y)
    np.testing.assert_array_equal(narrow, (2 * (x + y)).astype(np.uint8))


@pytest.mark.parametrize(
    ("fn", "types"),
    [
        (lambda x, y: x + y, [_type("n", 4), _type(4)]),  # a row for all rows
        (lambda x: x.T + 1, [_type(4, 8)]),
        (lambda x: F.softmax(x), [_type("n", 4)]),
        (lambda x: x + 1, [_type(4, dtype=DType.bfloat16)]),  # CuPy has another class for it
        (lambda x: x + F.arange(0, 4, dtype=DType.float32, device=CPU_REF), [_type(4)]),
    ],
    ids=["broadcast", "transposed", "row", "bfloat16", "positions"],
)
def test_other_kernels_are_raw(cupy: Any, fn: Any, types: list[TensorType]) -> None:
    (source,) = sources_of(fn, *types)
    kind, (text, entry, options) = source.to_cupy()
    assert (kind, entry, options) == ("raw", source.entry, ("--std=c++17",))
    assert text == source.full_text()
    assert text.startswith(kernel_text.prelude(Dialect.CUDA))
    assert "#include" not in text


def test_kernels_of_the_host_have_none(cupy: Any) -> None:
    model = compiled(lambda x: x + 1, f32("n"))
    with pytest.raises(CompileError, match="is a host kernel. Hint: compile for an Acc"):
        model.kernels[0].to_cupy()
