"""Products with the same left operand are one kernel, on the host and on an emulated GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from cuda_function import sources_of
from cuda_registers import assert_no_spills
from emulated_cuda import emulated_cuda
from helpers import tensor
from ops.samples_quantized import dequantized, with_minimums

import maxmod
from maxmod import CPU, DType, Module, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.cuda import nvrtc
from maxmod.compiler.steps import RunKernel
from maxmod.nn import Linear, QuantizedLinear, quantize
from maxmod.values.device import CPU_REF

DEPTH = 96
WIDTHS = (19, 7, 50, 33)  # of three products side by side, and of a gate
ROWS = (1, 2, 7, 8, 9, 40)
TOLERANCE = {DType.float32: 3e-6, DType.bfloat16: 1e-2}


class Siblings(Module[[Tensor], list[Tensor]]):
    """Three maps with epilogues of different kinds, and a gated one, as in a transformer."""

    def __init__(self, dtype: DType = DType.float32) -> None:
        rng = np.random.default_rng(5)
        shapes = {"q": WIDTHS[0], "k": WIDTHS[1], "v": WIDTHS[2], "gate": WIDTHS[3]}
        shapes["up"] = WIDTHS[3]
        for name, width in shapes.items():
            weight = tensor(rng.standard_normal((width, DEPTH)).astype(np.float32)).cast(dtype)
            layer = Linear(DEPTH, width, bias=name in "qgate")
            layer.weight = weight
            if name in "qgate":
                layer.bias = tensor(rng.standard_normal(width).astype(np.float32)).cast(dtype)
            setattr(self, name, layer)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Returns four results of one left operand."""
        gated = F.silu(self.gate(x)) * self.up(x)
        return [F.relu(self.q(x)), self.k(x), self.v(x) * 2 - 1, gated]


def _layer(layer: Any, x: Any) -> Any:
    """The oracle of one map, in float64."""
    if isinstance(layer, QuantizedLinear):
        codes, scales = (t.to(CPU()).data for t in (layer.weight, layer.scales))
        codes = codes if codes.dtype == np.uint8 else codes.astype(np.float64)
        scales = scales.astype(np.float64)
        y = x @ (with_minimums if layer.scheme == "int4" else dequantized)(codes, scales).T
    else:
        y = x @ layer.weight.to(CPU()).cast(DType.float64).to_numpy().T
    bias = layer.bias
    return y if not isinstance(bias, Tensor) else y + bias.to(CPU()).cast(DType.float64).to_numpy()


def _wanted(model: Siblings, x: Any) -> list[Any]:
    q, k, v, gate, up = (_layer(getattr(model, n), x) for n in ("q", "k", "v", "gate", "up"))
    return [np.maximum(q, 0), k, v * 2 - 1, gate / (1 + np.exp(-gate)) * up]


def _check(model: Siblings, run: Any, dtype: DType, rows: Sequence[int], device: Any) -> None:
    for count in rows:
        x = tensor(np.random.default_rng(count).standard_normal((count, DEPTH))).cast(dtype)
        found = run(x.to(device))
        wanted = _wanted(model, x.cast(DType.float64).to_numpy())
        for one, other in zip(found, wanted, strict=True):
            array = one.to(CPU()).cast(DType.float64).to_numpy()
            atol = TOLERANCE[dtype] * max(1.0, np.abs(other).max())
            np.testing.assert_allclose(array, other, rtol=0, atol=atol)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rows", ["n", 3])
def test_products_of_one_left_operand(dtype: DType, rows: int | str) -> None:
    model = Siblings(dtype)
    run = model.compile(TensorType(dtype, [rows, DEPTH], CPU_REF))
    assert len(run.kernels) == 2
    with maxmod.configure(check=True):
        _check(model, run, dtype, ROWS if rows == "n" else [3], CPU())


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rows", ["n", 1])
def test_products_of_one_left_operand_in_cuda(dtype: DType, rows: int | str) -> None:
    """Up to 8 rows by two kernels, more by the library."""
    with emulated_cuda() as (device, _):
        model = Siblings(dtype).to(device)
        run = model.compile(TensorType(dtype, [rows, DEPTH], device))
        names = [kernel.name for kernel in run.kernels]
        assert sum(name.count("matmul") >= 2 for name in names) == 2
        _check(model, run, dtype, (1, 2, 8, 9) if rows == "n" else [1], device)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_quantised_products(scheme: Any) -> None:
    """Rows are rounded to bytes where integers are multiplied, which the products apart do, too."""
    model = Siblings()
    quantize(model, scheme)
    run = model.compile(f32("n", DEPTH))
    assert len(run.kernels) == 2
    alone = [getattr(model, name).compile(f32("n", DEPTH)) for name in ("k", "up")]
    for count in ROWS:
        x = tensor(np.random.default_rng(count).standard_normal((count, DEPTH)).astype(np.float32))
        found = run(x)
        np.testing.assert_array_equal(found[1].to_numpy(), alone[0](x).to_numpy())
        for one, other in zip(found, _wanted(model, x.to_numpy().astype(np.float64)), strict=True):
            atol = 0.02 * np.abs(other).max()
            np.testing.assert_allclose(one.to_numpy(), other, rtol=0, atol=atol)


@pytest.mark.parametrize("scheme", ["int8", "int4"])
def test_quantised_products_in_cuda(scheme: Any) -> None:
    with emulated_cuda() as (device, _):
        model = quantize(Siblings(), scheme).to(device)
        run = model.compile(TensorType(DType.float32, [3, DEPTH], device))
        assert len(run.kernels) == 2  # a gate is beside the others, and read by what it gates
        x = np.random.default_rng(3).standard_normal((3, DEPTH)).astype(np.float32)
        found = run(tensor(x).to(device))
        for one, other in zip(found, _wanted(model, x.astype(np.float64)), strict=True):
            atol = 1e-5 * np.abs(other).max()
            np.testing.assert_allclose(one.to(CPU()).to_numpy(), other, rtol=0, atol=atol)


def test_weights_that_change_after_compiling() -> None:
    model = Siblings()
    run = model.compile(f32("n", DEPTH))
    other = Siblings()
    for layer in (other.q, other.k, other.up):
        layer.weight = layer.weight * 2 + 1
    run.load_state(dict(other.parameters))
    _check(other, run, DType.float32, [1, 9], CPU())


def test_one_weight_in_two_products() -> None:
    """The embedding of a model may be several of its layers."""
    model = Siblings()
    model.up.weight = model.gate.weight
    model.v = model.q
    run = model.compile(f32("n", DEPTH))
    _check(model, run, DType.float32, [1, 9], CPU())


def _step_names(fn: Any, *types: TensorType) -> list[str]:
    model = compiled(fn, *types)
    steps = [step for step in model._schedule.steps if isinstance(step, RunKernel)]
    return [model.kernels[step.kernel].name for step in steps]


W = f32(24, DEPTH)
X = f32("n", DEPTH)


@pytest.mark.parametrize(
    ("fn", "types", "launches"),
    [
        (lambda x, v, w: [x @ v.T, x @ w.T], [X, W, f32(7, DEPTH)], 1),
        (lambda x, v, w: [x @ v.T, x @ w], [X, W, f32(DEPTH, 7)], 2),
        (lambda x, v, w: [x @ v.T, (x + 1) @ w.T], [X, W, W], 2),
        (lambda x, v, w: [x @ v.T, x @ w.T], [X, W, f32("m", DEPTH)], 2),
        (lambda x, v, w: [F.exp(x @ v.T) @ v + x, x @ w.T], [X, W, W], 2),
        (lambda x, v, w: [(x @ v.T) * (x @ w.T), x @ v.T], [X, W, W], 2),
        (lambda x, v, w: (x @ v.T) * F.exp(x @ w.T), [X, W, W], 1),
    ],
    ids=["alike", "transposed", "another operand", "symbolic", "a chain", "read twice", "a pair"],
)
def test_launches(fn: Any, types: list[TensorType], launches: int) -> None:
    """Results are right, whichever products are joined."""
    names = _step_names(fn, *types)
    matmuls = [name for name in names if "matmul" in name]
    assert len(matmuls) == launches, names
    model = compiled(fn, *types)
    for count in (1, 5, 12):
        rng = np.random.default_rng(count)
        sizes = [[s if isinstance(s, int) else count for s in t.sizes] for t in types]
        arrays = [rng.standard_normal(s).astype(np.float32) / 8 for s in sizes]
        with maxmod.configure(check=True):
            found = model(*map(tensor, arrays))
        wide = fn(*(tensor(array.astype(np.float64)) for array in arrays))
        pairs = zip(found, wide) if isinstance(found, list) else [(found, wide)]
        for one, other in pairs:
            np.testing.assert_allclose(one.to_numpy(), other.to_numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(
    not nvrtc.is_available(), reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
)
def test_no_spills() -> None:
    """Gate and up, and queries, keys and values of an 8B model."""

    def fn(x: Any, q: Any, k: Any, v: Any, gate: Any, up: Any) -> Any:
        return [x @ q.T, x @ k.T, F.relu(x @ v.T), F.silu(x @ gate.T) * (x @ up.T)]

    widths = (4096, 1024, 1024, 14336, 14336)
    for dtype in (DType.bfloat16, DType.float32):
        shapes = [["n", 4096], *([width, 4096] for width in widths)]
        types = [TensorType(dtype, shape, CPU_REF) for shape in shapes]
        sources = [s for s in sources_of(fn, *types) if "matmul" in s.name]
        assert len(sources) == 2
        assert_no_spills(sources, registers=128)
