"""Ops that cut tensors into pieces and join them, and complex numbers as pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from maxmod.errors import ArgumentError, DTypeError, OperandError, ShapeError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, Op, function, op
from maxmod.op.rules import expect_int, normalize_axis
from maxmod.ops.shape import reshape, slice_axis, unsqueeze
from maxmod.tensor import Tensor
from maxmod.values.array import ArrayModule
from maxmod.values.device import DeviceLike
from maxmod.values.dim import Dim, DimLike, Size, as_size
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

__all__ = ["as_interleaved_complex", "chunk", "complex_mul", "concat", "split", "stack"]


@function
def split(
    x: Tensor,
    split_size_or_sections: DimLike | Sequence[DimLike] | None = None,
    axis: int = 0,
    *,
    split_sizes: Sequence[DimLike] | None = None,
) -> list[Tensor]:
    """Cuts a tensor into pieces along an axis.

    Args:
        x: Tensor of any dtype.
        split_size_or_sections: Sizes of the pieces; or one int, the size of each piece but the
            last, which may be smaller.
        axis: The axis.
        split_sizes: Another name of `split_size_or_sections`.

    Returns:
        The pieces.

    Raises:
        ValueError: If the sizes are negative or do not add up to the size of the axis.
        IndexError: If the axis lies outside the rank.
        TypeError: For one int and a symbolic axis.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> [part.shape for part in F.split(Tensor.zeros([2, 5]), [2, 3], axis=1)]
        [[Dim(2), Dim(2)], [Dim(2), Dim(3)]]
    """
    x = strong("split", x)
    axis = normalize_axis("split", axis, x.rank)
    total = x.sizes[axis]
    wanted = split_size_or_sections if split_sizes is None else split_sizes
    if isinstance(wanted, Iterable):
        sizes = [expect_int("split", size, "sizes") for size in wanted]
    else:
        sizes = _even_pieces("split", total, expect_int("split", wanted, "size"))
    if not sizes:
        return []
    if any(size < 0 for size in sizes) or sum(sizes) != total:
        raise ShapeError(
            f"split: sizes must not be negative and add up to the axis: expected {total} on axis "
            f"{axis} of {x.type.short()}, got {sizes}."
        )
    pieces = []
    start = 0
    for size in sizes:
        pieces.append(slice_axis(x, axis, start, start + size))
        start += size
    return pieces


def _even_pieces(name: str, total: Size, size: int) -> list[int]:
    if not isinstance(total, int):
        raise OperandError(
            f"{name}: the axis is symbolic ({total}). Hint: give the sizes as a list."
        )
    if size <= 0:
        raise ArgumentError(f"{name}: expected a positive size, got {size}.")
    whole, rest = divmod(total, size)
    return [size] * whole + ([rest] if rest else [])


@function
def chunk(x: Tensor, chunks: int, axis: int = 0) -> list[Tensor]:
    """Cuts a tensor into equal pieces along an axis.

    Args:
        x: Tensor of any dtype.
        chunks: Number of pieces; divides the axis (it need not in PyTorch).
        axis: The axis.

    Returns:
        A list of the pieces.

    Raises:
        ValueError: If the axis cannot be divided evenly, or x is a scalar.
        IndexError: If the axis lies outside the rank (also a ValueError).
        TypeError: If the axis is symbolic, or x no tensor.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> q, k, v = F.chunk(Tensor.arange(6), 3)
        >>> k.to_numpy().tolist()
        [2.0, 3.0]
    """
    x = strong("chunk", x)
    axis = normalize_axis("chunk", axis, x.rank)
    chunks = expect_int("chunk", chunks, "chunks")
    total = x.sizes[axis]
    if not isinstance(total, int):
        raise OperandError(f"chunk: axis {axis} of {x.type.short()} is symbolic.")
    if chunks <= 0 or total % chunks:
        raise ShapeError(f"chunk: {total} elements on axis {axis} cannot be cut into {chunks}.")
    return split(x, [total // chunks] * chunks, axis)


def _concat_axis(op: Op, *types: TensorType, axis: object) -> Attrs:
    if not types:
        raise ArgumentError("concat: expected at least one tensor, got none.")
    return {"axis": normalize_axis("concat", axis, types[0].rank)}


def _concatenated(op: Op, *types: TensorType, axis: int) -> TensorType:
    first = types[0]
    if any(t.dtype is not first.dtype for t in types):
        raise DTypeError(
            f"concat: tensors must have one dtype: {', '.join(t.short() for t in types)}. Hint: "
            "F.concat([x, y.cast(x.dtype)]); nothing is cast silently."
        )
    total: int | Dim = 0
    for t in types:
        others = (*t.sizes[:axis], *t.sizes[axis + 1 :])
        if t.rank != first.rank or others != (*first.sizes[:axis], *first.sizes[axis + 1 :]):
            raise ShapeError(
                f"concat: tensors must have equal sizes outside axis {axis}: "
                f"{', '.join(t.short() for t in types)}."
            )
        total = total + t.sizes[axis]
    sizes = (*first.sizes[:axis], as_size(total), *first.sizes[axis + 1 :])
    return first.with_sizes(sizes)


@op(Kind.VIEW, _concatenated, prepare=_concat_axis)
def concat(xp: ArrayModule, original_vals: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Joins tensors along an axis.

    Args:
        original_vals: At least one tensor; one dtype, equal sizes on the other axes.
        axis: The axis.

    Returns:
        The dtype of the tensors; the sizes on `axis` are added up.

    Raises:
        ValueError: If there is not a tensor, or ranks, sizes or dtypes differ.
        IndexError: If the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 2.0]])
        >>> F.concat([x, Tensor([[3.0]])], axis=1).to_numpy().tolist()
        [[1.0, 2.0, 3.0]]
    """
    return xp.concatenate(original_vals, axis=axis)


@function
def stack(values: Sequence[Tensor], axis: int = 0, device: DeviceLike | None = None) -> Tensor:
    """Joins tensors of one type along a new axis.

    Args:
        values: At least one tensor; shapes and dtypes are equal.
        axis: Position of the new axis in the result, -(rank + 1) to rank.
        device: Accepted for compatibility.

    Returns:
        The dtype of the tensors, one axis more.

    Raises:
        ValueError: If there is not a tensor, or shapes or dtypes differ.
        IndexError: If the axis is out of range.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.stack([Tensor([1.0, 2.0]), Tensor([3.0, 4.0])], axis=-1).to_numpy().tolist()
        [[1.0, 3.0], [2.0, 4.0]]
    """
    tensors = [strong("stack", value) for value in values]
    if not tensors:
        raise ArgumentError("stack: expected at least one tensor, got none.")
    if any(t.type != tensors[0].type for t in tensors):
        raise ShapeError(
            f"stack: tensors must have one shape and dtype: "
            f"{', '.join(t.type.short() for t in tensors)}."
        )
    axis = normalize_axis("stack", axis, tensors[0].rank + 1)
    return concat([unsqueeze(t, axis) for t in tensors], axis)


@function
def as_interleaved_complex(x: Tensor) -> Tensor:
    """Pairs neighbours on the last axis: x[2k] and x[2k + 1] become (re, im).

    Args:
        x: Tensor [..., n] of any dtype, n even.

    Returns:
        Tensor [..., n / 2, 2].

    Raises:
        TypeError: If the last size is not known.
        ValueError: If it is odd, or x is a scalar.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.as_interleaved_complex(Tensor([1.0, 2.0, 3.0, 4.0])).to_numpy().tolist()
        [[1.0, 2.0], [3.0, 4.0]]
    """
    x = strong("as_interleaved_complex", x)
    last = x.sizes[normalize_axis("as_interleaved_complex", -1, x.rank)]
    if not isinstance(last, int):
        raise OperandError(
            f"as_interleaved_complex: the last axis of {x.type.short()} is symbolic."
        )
    if last % 2:
        raise ShapeError(f"as_interleaved_complex: the last axis of {x.type.short()} is odd.")
    return reshape(x, (*x.sizes[:-1], last // 2, 2))


@function
def complex_mul(lhs: Tensor, rhs: Tensor) -> Tensor:
    """Product of complex numbers given as (re, im) on the last axis; other axes broadcast.

    Args:
        lhs: Tensor [..., 2], numeric dtype.
        rhs: Tensor [..., 2], numeric dtype.

    Returns:
        Tensor [..., 2] in the promoted dtype.

    Raises:
        ValueError: If a last axis does not have the size 2.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> i = Tensor([0.0, 1.0])
        >>> F.complex_mul(i, i).to_numpy().tolist()
        [-1.0, 0.0]
    """
    operands = [strong("complex_mul", lhs), strong("complex_mul", rhs)]
    for x in operands:
        if x.sizes[-1:] != (2,):
            raise ShapeError(f"complex_mul: expected [..., 2], got {x.type.short()}.")
    a, b = (slice_axis(operands[0], -1, i, i + 1) for i in range(2))
    c, d = (slice_axis(operands[1], -1, i, i + 1) for i in range(2))
    return concat([a * c - b * d, a * d + b * c], axis=-1)
