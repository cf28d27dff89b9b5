"""Tensors made by a rule for their positions: identity, triangles, one-hot rows, even steps."""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DTypeError, ShapeError
from maxmod.interpreters.operands import strong
from maxmod.op import function
from maxmod.op.rules import expect_int
from maxmod.ops.arithmetic import add
from maxmod.ops.comparison import equal, greater_equal, where
from maxmod.ops.create import constant, iota
from maxmod.ops.elementwise import cast
from maxmod.ops.gather import gather
from maxmod.ops.shape import reshape, unsqueeze
from maxmod.tensor import Tensor
from maxmod.tensor.default_context import resolve
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.dim import DimLike, Size, as_size
from maxmod.values.plain import Scalar

__all__ = ["eye", "linspace", "one_hot", "tril", "triu"]


def _positions(count: Size, device: DeviceRef, *, as_column: bool = False) -> Tensor:
    """0, 1, ... as a row [count] or a column [count, 1]."""
    row = iota(count=count, dtype=DType.int64, device=device)
    return unsqueeze(row, -1) if as_column else row


@function
def eye(
    n: DimLike,
    m: DimLike | None = None,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Tensor:
    """The identity matrix: ones on the diagonal, zeros elsewhere.

    Args:
        n: Number of rows.
        m: Number of columns; n if it is not given.
        dtype: Element type; the default dtype if it is not given.
        device: Where to put it; the default device if it is not given.

    Returns:
        [n, m].

    Example:
        >>> from maxmod import functional as F
        >>> F.eye(2, 3).to_numpy().tolist()
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    dtype, ref = resolve(dtype, device)
    rows, columns = as_size(n), as_size(n if m is None else m)
    return cast(equal(_positions(rows, ref, as_column=True), _positions(columns, ref)), dtype)


def _triangle(name: str, x: Tensor, diagonal: int, *, upper: bool) -> Tensor:
    x = strong(name, x)
    if x.rank < 2:
        raise ShapeError(f"{name}: expected at least two axes, got {x.type.short()}.")
    shift = expect_int(name, diagonal, "diagonal")
    device = x.type.device
    rows = add(_positions(x.sizes[-2], device, as_column=True), shift)
    columns = _positions(x.sizes[-1], device)
    kept = greater_equal(columns, rows) if upper else greater_equal(rows, columns)
    zero = Tensor.full((), 0, dtype=x.dtype, device=device)
    return where(kept, x, zero)


@function
def tril(x: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of matrices, with zeros above.

    Args:
        x: Tensor [..., m, n] of any dtype.
        diagonal: The last diagonal that stays: 0 is the main one, 1 the one above.

    Returns:
        The type of x.

    Raises:
        ValueError: If there are fewer than two axes.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.tril(Tensor([[1.0, 2.0], [3.0, 4.0]])).to_numpy().tolist()
        [[1.0, 0.0], [3.0, 4.0]]
    """
    return _triangle("tril", x, diagonal, upper=False)


@function
def triu(x: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of matrices, with zeros below.

    Args:
        x: Tensor [..., m, n] of any dtype.
        diagonal: The first diagonal that stays: 0 is the main one, 1 the one above.

    Returns:
        The type of x.

    Raises:
        ValueError: If there are fewer than two axes.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.triu(Tensor([[1.0, 2.0], [3.0, 4.0]]), diagonal=1).to_numpy().tolist()
        [[0.0, 2.0], [0.0, 0.0]]
    """
    return _triangle("triu", x, diagonal, upper=True)


@function
def one_hot(x: Tensor, num_classes: DimLike, *, dtype: DType = DType.int64) -> Tensor:
    """Rows of zeros with a one at each position.

    Args:
        x: Integer tensor; negative positions count from the end.
        num_classes: Length of a row.
        dtype: Element type; int64 as in PyTorch.

    Returns:
        x.shape + [num_classes].

    Raises:
        ValueError: If x holds no integers, or num_classes is negative.
        IndexError: If, on the host, a position is out of range.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> F.one_hot(Tensor([2, 0], dtype=DType.int64), 3).to_numpy().tolist()
        [[0, 0, 1], [1, 0, 0]]
    """
    x = strong("one_hot", x)
    if not x.dtype.is_integral():
        raise DTypeError(
            f"one_hot: expected integers, got {x.type.short()}. Hint: x.cast(DType.int64); "
            "Tensor([1, 2], dtype=DType.int64) holds integers, Tensor([1, 2]) floats."
        )
    count = as_size(num_classes)
    if isinstance(count, int) and count < 0:
        raise ArgumentError(
            f"one_hot: num_classes: expected a size, got {count}. Hint: "
            "F.one_hot(x, int(x.max(axis=None).item()) + 1) counts the classes."
        )
    classes = _positions(count, x.type.device)
    found = gather(classes, x, axis=0)  # checks the positions
    return cast(equal(unsqueeze(found, -1), classes), dtype)


@function
def linspace(
    start: Scalar,
    stop: Scalar,
    num: int,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Tensor:
    """Numbers in even steps from start to stop, both included.

    Args:
        start: The first number.
        stop: The last one.
        num: How many there are.
        dtype: A float type; the default dtype if it is not given.
        device: Where to put them; the default device if it is not given.

    Returns:
        [num], computed in float64 and rounded once.

    Raises:
        ValueError: If num is negative, or the dtype is not a float.

    Example:
        >>> from maxmod import functional as F
        >>> F.linspace(0, 1, 5).to_numpy().tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    dtype, ref = resolve(dtype, device)
    num = expect_int("linspace", num, "num")
    if num < 0 or not dtype.is_float():
        raise ArgumentError(
            f"linspace: expected a number of elements and a float dtype, got {num} and {dtype!r}."
        )
    values = np.linspace(float(start), float(stop), num).tolist()
    return reshape(constant(values, dtype=dtype, device=ref), (num,))
