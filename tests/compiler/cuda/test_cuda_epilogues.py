"""What the matrix library does to the sums of a product, as the planner asks for it.

Whole compiled functions on the emulated GPU, whose library counts what it is told to do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from emulated_cuda import EmulatedCudaBackend, emulated_cuda
from helpers import tensor, wide

import maxmod
from maxmod import CPU, DType, TensorType
from maxmod import functional as F
from maxmod.backends.cuda.cublaslt import Epilogue
from maxmod.dtype import storage_dtype
from maxmod.runtime.compiled import CompiledModel, compile_function

K, N = 16, 24
TOLERANCE = {DType.float32: 1e-5, DType.bfloat16: 0.04, DType.float16: 0.005, DType.float64: 1e-12}
BIAS, ADD, BOTH = Epilogue(True), Epilogue(False, True), Epilogue(True, True)


@pytest.fixture
def gpu() -> Iterator[tuple[Any, EmulatedCudaBackend]]:
    with emulated_cuda() as found:
        yield found


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def _tanh_gelu(x: Any) -> Any:
    return F.gelu(x, approximate="tanh")


@dataclass(frozen=True)
class Program:
    """A function of x [m, K], w [N, K], b [N] and c [m, N], on tensors and on float64 arrays.

    Attributes:
        fn: On tensors.
        oracle: On arrays.
        library: What the library does for many rows, in order.
        kernels: How many kernels follow.
    """

    fn: Callable[..., Any]
    oracle: Callable[..., Any]
    library: tuple[Epilogue, ...]
    kernels: int = 0


def _shared(x: Any, w: Any, b: Any, c: Any) -> Any:
    """A residual stream: the addend is read before and after the product."""
    stream = c * 2
    stream = stream + F.exp(stream * 0.1) @ w @ w.T + b
    return F.softmax(stream) + stream


def _shared_oracle(x: Any, w: Any, b: Any, c: Any) -> Any:
    stream = c * 2
    stream = stream + np.exp(stream * 0.1) @ w @ w.T + b
    e = np.exp(stream - stream.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) + stream


PROGRAMS = {
    "bias": Program(lambda x, w, b, c: x @ w.T + b, lambda x, w, b, c: x @ w.T + b, (BIAS,)),
    "bias first": Program(
        lambda x, w, b, c: b.reshape([1, N]) + x @ w.T, lambda x, w, b, c: x @ w.T + b, (BIAS,)
    ),
    "relu": Program(
        lambda x, w, b, c: F.relu(x @ w.T),
        lambda x, w, b, c: np.maximum(x @ w.T, 0),
        (Epilogue(activation="relu"),),
    ),
    "bias, relu": Program(
        lambda x, w, b, c: F.relu(x @ w.T + b),
        lambda x, w, b, c: np.maximum(x @ w.T + b, 0),
        (Epilogue(True, activation="relu"),),
    ),
    "bias, gelu": Program(
        lambda x, w, b, c: _tanh_gelu(x @ w.T + b),
        lambda x, w, b, c: _gelu(x @ w.T + b),
        (Epilogue(True, activation="gelu"),),
    ),
    "gelu written out": Program(
        lambda x, w, b, c: (
            0.5 * (y := x @ w.T + b) * (1 + F.tanh(0.7978845608 * (y + 0.044715 * y**3)))
        ),
        lambda x, w, b, c: _gelu(x @ w.T + b),
        (Epilogue(True, activation="gelu"),),
    ),
    "addend": Program(lambda x, w, b, c: c + x @ w.T, lambda x, w, b, c: c + x @ w.T, (ADD,)),
    "bias and addend": Program(
        lambda x, w, b, c: (x @ w.T + b) + c, lambda x, w, b, c: x @ w.T + b + c, (BOTH,)
    ),
    "addend and bias": Program(
        lambda x, w, b, c: (x @ w.T + c) + b, lambda x, w, b, c: x @ w.T + b + c, (BOTH,)
    ),
    "one product to the other": Program(
        lambda x, w, b, c: x @ w.T + (x * 2) @ w.T,
        lambda x, w, b, c: 3 * (x @ w.T),
        (Epilogue(), ADD),
        kernels=1,
    ),
    "addend, then an activation": Program(
        lambda x, w, b, c: F.relu(x @ w.T + b + c),
        lambda x, w, b, c: np.maximum(x @ w.T + b + c, 0),
        (BIAS,),
        kernels=1,
    ),
    "another activation": Program(
        lambda x, w, b, c: F.gelu(x @ w.T + b, approximate="quick") * c,
        lambda x, w, b, c: (x @ w.T + b) / (1 + np.exp(-1.702 * (x @ w.T + b))) * c,
        (BIAS,),
        kernels=1,
    ),
    "a sum that others read": Program(
        lambda x, w, b, c: [(y := x @ w.T + b), F.relu(y)],
        lambda x, w, b, c: [x @ w.T + b, np.maximum(x @ w.T + b, 0)],
        (BIAS,),
        kernels=1,
    ),
    "a product that others read": Program(
        lambda x, w, b, c: (y := x @ w.T) * F.relu(y + b),
        lambda x, w, b, c: (x @ w.T) * np.maximum(x @ w.T + b, 0),
        (Epilogue(),),
        kernels=1,
    ),
    "twice": Program(lambda x, w, b, c: (y := x @ w.T) + y, lambda x, w, b, c: 2 * (x @ w.T),
        (Epilogue(),), kernels=1,
    ),
    "a bias that is computed": Program(
        lambda x, w, b, c: x @ w.T + b * 2,
        lambda x, w, b, c: x @ w.T + b * 2,
        (Epilogue(),),
        kernels=1,
    ),
    "an addend that is computed": Program(
        lambda x, w, b, c: x @ w.T + F.exp(c),
        lambda x, w, b, c: x @ w.T + np.exp(c),
        (Epilogue(),),
        kernels=1,
    ),
    "an addend that is transposed": Program(
        lambda x, w, b, c: x @ w.T + c.T.reshape(c.shape),
        lambda x, w, b, c: x @ w.T + c.T.reshape(c.shape),
        (Epilogue(),),
        kernels=1,
    ),
    "a column": Program(
        lambda x, w, b, c: x @ w.T + c[:, :1],
        lambda x, w, b, c: x @ w.T + c[:, :1],
        (Epilogue(),),
        kernels=1,
    ),
    "a stream": Program(_shared, _shared_oracle, (Epilogue(), BOTH), kernels=2),
}  # fmt: skip


def _types(dtype: DType, rows: int | str, device: Any) -> list[TensorType]:
    shapes: list[Any] = [[rows, K], [N, K], [N], [rows, N]]
    return [TensorType(dtype, shape, device) for shape in shapes]


def _arrays(dtype: DType, rows: int) -> list[Any]:
    rng = np.random.default_rng(rows)
    shapes = [(rows, K), (N, K), (N,), (rows, N)]
    return [(rng.standard_normal(s) / 2).astype(storage_dtype(dtype)) for s in shapes]


def _check(compiled: CompiledModel, program: Program, dtype: DType, rows: int, device: Any) -> None:
    arrays = _arrays(dtype, rows)
    found = compiled(*[tensor(array).to(device) for array in arrays])
    wanted = program.oracle(*map(wide, arrays))
    pairs = zip(found, wanted, strict=True) if isinstance(wanted, list) else [(found, wanted)]
    for one, want in pairs:
        atol = TOLERANCE[dtype] * max(1, np.abs(want).max())
        np.testing.assert_allclose(wide(np.asarray(one.to(CPU()).data)), want, rtol=0, atol=atol)


def _did(backend: EmulatedCudaBackend) -> list[Epilogue]:
    """What the library did since the last time."""
    products = backend.cuda.products
    by_number = {Epilogue(False, False, a).number: a for a in ("", "relu", "gelu")}
    found = [
        Epilogue(bool(number & 4), adds, by_number[(number & ~4) or 1])
        for *_, number, adds in products.calls
    ]
    products.calls.clear()
    return found


@pytest.mark.parametrize("name", PROGRAMS)
def test_known_sizes(gpu: Any, name: str) -> None:
    """Checked against its graph, too."""
    device, backend = gpu
    program = PROGRAMS[name]
    compiled = compile_function(
        program.fn, _types(DType.float32, N, device), name="f", parameters={}
    )
    _did(backend)
    backend.cuda.launches.clear()
    _check(compiled, program, DType.float32, N, device)
    assert _did(backend) == [*program.library]
    assert len(backend.cuda.launches) == program.kernels
    with maxmod.configure(check=True):
        compiled.load_state({})
        _check(compiled, program, DType.float32, N, device)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: dtype.name)
def test_types(gpu: Any, dtype: DType) -> None:
    """With float64 the library adds another matrix, and no more."""
    device, backend = gpu
    for name in ("bias, gelu", "bias and addend"):
        program = PROGRAMS[name]
        compiled = compile_function(program.fn, _types(dtype, 9, device), name="f", parameters={})
        _did(backend)
        _check(compiled, program, dtype, 9, device)
        has_bias = dtype is not DType.float64
        assert [epilogue.has_bias for epilogue in _did(backend)] == [has_bias]


def test_sizes_that_are_known_later(gpu: Any) -> None:
    """A few rows take our own kernel, which does all of it; many take the library."""
    device, backend = gpu
    models = {}
    for name, program in PROGRAMS.items():
        if name != "an addend that is transposed":  # its shape is not that of all rows
            types = _types(DType.float32, "m", device)
            models[name] = compile_function(program.fn, types, name="f", parameters={})
    for rows in (3, 12, 8, 9, 1):
        for name, compiled in models.items():
            program = PROGRAMS[name]
            _did(backend)
            backend.cuda.launches.clear()
            _check(compiled, program, DType.float32, rows, device)
            assert len(_did(backend)) == (len(program.library) if rows > 8 else 0)
            if len(program.library) == 1 and rows <= 8:
                assert len(backend.cuda.launches) == 1


def test_the_library_does_the_same_where_sizes_are_known_later(gpu: Any) -> None:
    device, backend = gpu
    for name in ("bias, gelu", "bias and addend", "a stream"):
        program = PROGRAMS[name]
        types = _types(DType.float32, "m", device)
        compiled = compile_function(program.fn, types, name="f", parameters={})
        _did(backend)
        _check(compiled, program, DType.float32, 12, device)
        assert _did(backend) == [*program.library]


def test_explain_names_the_epilogue_of_the_library(gpu: Any) -> None:
    device, _ = gpu
    types = _types(DType.float32, 12, device)
    texts = {
        name: compile_function(PROGRAMS[name].fn, types, name="f", parameters={}).explain(width=200)
        for name in ("bias, gelu", "bias and addend")
    }
    assert "= gelu(matmul(%x, %0) + %b)  # " in texts["bias, gelu"]
    assert "= matmul(%x, %0) + %b + %c  # " in texts["bias and addend"]
    for text in texts.values():
        assert "left to the matrix library" in text
        assert "0 launches of 0 kernels" in text


def test_switched_off_fusion_leaves_plain_products(gpu: Any) -> None:
    device, backend = gpu
    program = PROGRAMS["bias, gelu"]
    for options in ({"nofuse": True}, {"fuse_limit": 0}):
        with maxmod.configure(**options):
            types = _types(DType.float32, 12, device)
            compiled = compile_function(program.fn, types, name="f", parameters={})
        _did(backend)
        _check(compiled, program, DType.float32, 12, device)
        assert _did(backend) == [Epilogue()]


def test_sums_of_8_bit_floats_are_added_by_ops(gpu: Any) -> None:
    device, _ = gpu
    rng = np.random.default_rng(0)
    arrays = [rng.integers(-2, 3, size).astype(np.float32) for size in ((16, 8), (8, 4), (16, 4))]
    types = [TensorType(DType.float8_e4m3fn, array.shape, device) for array in arrays]
    model = compile_function(lambda x, w, r: x @ w + r, types, name="f", parameters={})
    operands = [tensor(array).cast(DType.float8_e4m3fn).to(device) for array in arrays]
    x, w, r = arrays
    wanted = tensor(x @ w).cast(DType.float8_e4m3fn).cast(DType.float32).to_numpy() + r
    found = model(*operands).to(CPU()).cast(DType.float32).to_numpy()
    rounded = tensor(wanted).cast(DType.float8_e4m3fn).cast(DType.float32).to_numpy()
    np.testing.assert_array_equal(found, rounded)


def test_copies_of_8_bit_floats_keep_the_dtype(gpu: Any) -> None:
    """A result that is an argument is copied."""
    device, _ = gpu
    x = tensor(np.arange(8, dtype=np.float32)).cast(DType.float8_e4m3fn)
    model = compile_function(
        lambda x: x.reshape([2, 4]),
        [TensorType(DType.float8_e4m3fn, [8], device)],
        name="f",
        parameters={},
    )
    found = model(x.to(device)).to(CPU()).cast(DType.float32).to_numpy()
    assert found.ravel().tolist() == list(range(8))
