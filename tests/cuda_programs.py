"""Programs for tests of CUDA kernels: each becomes one kernel, and each has an oracle in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from helpers import HALVES, WIDE_FLOATS, narrow, numbers, wide
from ops.oracles import ORACLES

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.op import FUNCTIONS, lookup
from maxmod.values.device import CPU_REF
from maxmod.values.dim import SymbolicDim
from maxmod.values.tensor_type import TensorType

Program = tuple[Callable[..., Any], Callable[..., Any], Any]

# ---- rows ----------------------------------------------------------------------------------------


def softmax(x: Any) -> Any:
    """The oracle of softmax."""
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def layer_norm(x: Any, gamma: Any, beta: Any) -> Any:
    """The oracle of layer_norm."""
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * gamma + beta


def rms_norm(x: Any, gamma: Any) -> Any:
    """The oracle of rms_norm."""
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * gamma


def residual_norm(x: Any, y: Any, gamma: Any) -> list[Any]:
    """The oracle of a sum that is a result itself, and is normalised."""
    return [x + y, rms_norm(x + y, gamma)]


# Function, oracle, and for each argument "r" for rows or "w" for one row of weights.
ROWS: dict[str, Program] = {
    "softmax": (lambda x: F.softmax(x), softmax, "r"),
    "log_softmax": (lambda x: F.logsoftmax(x), lambda x: np.log(softmax(x)), "r"),
    "layer_norm": (lambda x, g, b: F.layer_norm(x, g, b, 1e-5), layer_norm, "rww"),
    "rms_norm": (lambda x, g: F.rms_norm(x, g, 1e-6), rms_norm, "rw"),
    "sum": (lambda x: F.sum(x), lambda x: x.sum(-1, keepdims=True), "r"),
    "max": (lambda x: F.max(x), lambda x: x.max(-1, keepdims=True), "r"),
    "residual_norm": (
        lambda x, y, g: [x + y, F.rms_norm(x + y, g, 1e-6)],
        residual_norm,
        "rrw",
    ),
}


def row_types(kinds: str, rows: Any, size: Any, dtype: DType) -> list[TensorType]:
    """Returns the types of the arguments of a row program."""
    shapes = {"r": [rows, size], "w": [size]}
    return [TensorType(dtype, shapes[kind], CPU_REF) for kind in kinds]


# ---- views ---------------------------------------------------------------------------------------

N = SymbolicDim("n")
M = SymbolicDim("m")

# Function, oracle, shapes of the arguments.
VIEWS: dict[str, Program] = {
    "scalar": (lambda x: x * 2, lambda x: x * 2, [[]]),
    "one": (lambda x: x + 1, lambda x: x + 1, [[1, 1]]),
    "prime": (lambda x: x + 1, lambda x: x + 1, [[101]]),
    "row": (lambda x, y: x + y, lambda x, y: x + y, [[9, 16], [16]]),
    "odd_row": (lambda x, y: x + y, lambda x, y: x + y, [[9, 15], [15]]),
    "column": (lambda x, y: x + y, lambda x, y: x + y, [[9, 16], [9, 1]]),
    "outer": (lambda x, y: x * y, lambda x, y: x * y, [[5, 1, 8], [6, 1]]),
    "transposed": (lambda x, y: x.T + y, lambda x, y: x.T + y, [[12, 8], [8, 12]]),
    "permuted": (
        lambda x: x.permute([2, 0, 1]) * 3,
        lambda x: x.transpose(2, 0, 1) * 3,
        [[4, 3, 8]],
    ),
    "slice": (lambda x: x[:, 4:12] + 1, lambda x: x[:, 4:12] + 1, [[7, 16]]),
    "odd_slice": (lambda x: x[:, 1:9] + 1, lambda x: x[:, 1:9] + 1, [[7, 16]]),
    "steps": (lambda x: x[::2, ::3] + 1, lambda x: x[::2, ::3] + 1, [[8, 16]]),
    "heads": (
        lambda x: x.reshape([2, 6, 4, 8]).permute([0, 2, 1, 3]) + 1,
        lambda x: x.reshape(2, 6, 4, 8).transpose(0, 2, 1, 3) + 1,
        [[2, 6, 32]],
    ),
    "halves": (
        lambda x: x[:, :8] * F.sigmoid(x[:, 8:]),
        lambda x: x[:, :8] / (1 + np.exp(-x[:, 8:])),
        [[5, 16]],
    ),
    "constant": (lambda x: x * 0 + 7, lambda x: x * 0 + 7, [[3, 5]]),
    "symbolic": (lambda x: x + 1, lambda x: x + 1, [[N]]),
    "symbolic_row": (lambda x, y: x + y, lambda x, y: x + y, [[N, M], [M]]),
    "symbolic_rows": (lambda x, y: x + y, lambda x, y: x + y, [[N, 12], [12]]),
    "symbolic_column": (lambda x, y: x + y, lambda x, y: x + y, [[N, M], [N, 1]]),
    "symbolic_swap": (
        lambda x, y: x.T + y,
        lambda x, y: x.T + y,
        [[N, M], [M, N]],
    ),
    "symbolic_pairs": (  # rows of a multiple of eight, whatever n is
        lambda x, y: x.reshape([M, N * 8]) + y.reshape([1, N * 8]),
        lambda x, y: x.reshape(len(x), -1) + y.reshape(1, -1),
        [[M, N, 8], [N, 8]],
    ),
    "flipped": (
        lambda x: F.flip(x)[:, 2:] * 2,
        lambda x: x[::-1, ::-1][:, 2:] * 2,
        [[7, 16]],
    ),
    "flipped_rows": (  # neighbours stay neighbours
        lambda x: x[::-1] + F.flip(x.reshape([-1])).reshape([7, 16]),
        lambda x: x[::-1] + x[::-1, ::-1],
        [[7, 16]],
    ),
    "flipped_steps": (lambda x: x[5:1:-3, ::-2] + 1, lambda x: x[5:1:-3, ::-2] + 1, [[8, 15]]),
    "symbolic_flipped": (
        lambda x, y: F.flip(x.T.reshape([-1])).reshape([M, N]) - y[::-1, ::-1],
        lambda x, y: x.T.reshape(-1)[::-1].reshape(x.T.shape) - y[::-1, ::-1],
        [[N, M], [M, N]],
    ),
    "symbolic_3d": (
        lambda x, y: x.permute([1, 0, 2]) * y,
        lambda x, y: x.transpose(1, 0, 2) * y,
        [[N, M, 6], [6]],
    ),
}


def view_types(shapes: Sequence[Sequence[Any]], dtype: DType) -> list[TensorType]:
    """Returns the types of the arguments of a view program."""
    return [TensorType(dtype, shape, CPU_REF) for shape in shapes]


# ---- elementwise ops -----------------------------------------------------------------------------


def op_cases(dtype: DType) -> list[tuple[str, int]]:
    """Returns (op, number of its attributes in the oracle) of everything that takes a dtype."""
    found = []
    for name, oracle in ORACLES.items():
        if dtype in oracle.dtypes:
            found += [(name, number) for number in range(len(oracle.attrs))]
    # A cast to its own dtype is not an op at all.
    return [c for c in found if c[0] != "cast" or ORACLES["cast"].attrs[c[1]]["dtype"] != dtype]


def op_program(
    name: str, number: int, dtype: DType, size: int
) -> tuple[Callable[..., Any], list[TensorType]]:
    """Returns a function that calls one op, and the types of its arguments."""
    oracle, function = ORACLES[name], FUNCTIONS[name]
    attrs = oracle.attrs[number]
    count = len(lookup(name).signature.tensor_names)
    dtypes = [oracle.first or dtype, *[dtype] * (count - 1)]
    types = [TensorType(d, [size], CPU_REF) for d in dtypes]
    # Written out, because arguments are named after parameters.
    if count == 1:
        return lambda x: function(x, **attrs), types
    if count == 2:
        return lambda x, y: function(x, y, **attrs), types
    return lambda x, y, z: function(x, y, z, **attrs), types


SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, 1e-7, 42]


def op_operands(name: str, number: int, dtype: DType, size: int) -> list[np.ndarray[Any, Any]]:
    """Returns random operands of an op, with special values in front."""
    op, oracle = lookup(name), ORACLES[name]
    rng = np.random.default_rng(7)
    arrays = []
    for position in range(len(op.signature.tensor_names)):
        kind = oracle.first if position == 0 and oracle.first is not None else dtype
        arrays.append(numbers(rng, kind, [size], *op.meaning.domain))
    if name == "pow" and dtype.is_integral():
        arrays[1] = np.abs(arrays[1]) % 4
    target = oracle.attrs[number].get("dtype", dtype)
    is_exact = target.is_float() and target.size_in_bits >= 32
    if name == "cast" and dtype.is_float():
        arrays[0] = np.abs(arrays[0])  # a negative float as unsigned is unspecified
    if dtype in (*WIDE_FLOATS, *HALVES) and (name != "cast" or is_exact):
        line = narrow(SPECIAL, dtype)
        if name == "select":
            arrays[1][: len(line)] = line
        else:
            for position, array in enumerate(arrays):
                array[: len(line) ** 2] = (
                    np.repeat(line, len(line)) if position else np.tile(line, len(line))
                )
    return arrays


def op_expected(name: str, number: int, dtype: DType, arrays: list[Any]) -> Any:
    """Returns what the oracle gives, in its wide type."""
    oracle = ORACLES[name]
    attrs = oracle.attrs[number]
    wides = [wide(array) for array in arrays]
    if name == "cast":
        if attrs["dtype"] is DType.bool:
            return wides[0] != 0
        if not attrs["dtype"].is_float() and dtype.is_float():
            return np.trunc(wides[0]).astype(np.int64)
        return wides[0]
    if name == "acos" and dtype is not DType.float64:
        return np.arccos(np.clip(wides[0], -1, 1))
    with np.errstate(all="ignore"):
        return oracle.fn(*wides, **attrs)
