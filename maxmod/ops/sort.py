"""Ops that order elements: argsort, the largest and smallest, boxes that do not overlap."""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType, compute_dtype
from maxmod.errors import ArgumentError, DTypeError, ShapeError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, Op, function, op
from maxmod.op.rules import expect_int, expect_same_dtype, normalize_axis
from maxmod.ops.context import active_trace
from maxmod.ops.control_flow.late_sizes import declare_size
from maxmod.ops.shape import transfer_to
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.device import CPU_REF
from maxmod.values.dim import DimLike, Size, as_size
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

__all__ = ["argsort", "bottom_k", "non_maximum_suppression", "top_k"]

# ---- argsort and top_k -------------------------------------------------------------------------


def _order(xp: ArrayModule, x: Array, descending: bool) -> Array:
    """Positions that sort the last axis; the first of equals comes first, NaN is the largest."""
    if not descending:
        return xp.argsort(x, axis=-1, kind="stable")
    # Sorted backwards from the end, so that equal elements keep their order.
    order = xp.argsort(xp.flip(x, -1), axis=-1, kind="stable")
    return xp.flip(x.shape[-1] - 1 - order, -1)


def _vector_to_positions(op: Op, x: TensorType, *, ascending: bool) -> TensorType:
    if x.rank != 1:
        raise ShapeError(f"{op.name}: expected rank 1, got {x.short()}.")
    return TensorType.of(DType.int64, x.sizes, x.device)


def _flag(op: Op, x: TensorType, *, ascending: object) -> Attrs:
    return {"ascending": bool(ascending)}


@op(Kind.OPAQUE, _vector_to_positions, prepare=_flag, upcasts=True)
def argsort(xp: ArrayModule, x: Tensor, ascending: bool = True) -> Tensor:
    """Positions that sort a vector; equal elements keep their order, NaN counts as the largest.

    Args:
        x: Tensor [n] of any dtype.
        ascending: Smallest first, else largest first.

    Returns:
        int64 [n].

    Raises:
        ValueError: If the rank is not 1.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.argsort(Tensor([3.0, 1.0, 2.0])).to_numpy().tolist()
        [1, 2, 0]
    """
    return _order(xp, x, descending=not ascending)


def _count_on_axis(op: Op, input: TensorType, *, k: object, axis: object) -> Attrs:
    axis = normalize_axis(op.name, axis, input.rank)
    count = as_size(k) if not isinstance(k, (int, np.integer)) else expect_int(op.name, k, "k")
    return {"k": count, "axis": axis}


def _values_and_positions(
    op: Op, input: TensorType, *, k: Size, axis: int
) -> tuple[TensorType, TensorType]:
    size = input.sizes[axis]
    known = isinstance(k, int) and isinstance(size, int)
    if (isinstance(k, int) and k < 0) or (known and k > size):
        raise ArgumentError(
            f"{op.name}: k must lie in 0..{size} for axis {axis} of {input.short()}, got {k}."
        )
    sizes = (*input.sizes[:axis], k, *input.sizes[axis + 1 :])
    return input.with_sizes(sizes), TensorType.of(DType.int64, sizes, input.device)


def _chosen(
    xp: ArrayModule, name: str, x: Array, k: int, axis: int, descending: bool
) -> list[Array]:
    if k > x.shape[axis]:
        raise ArgumentError(f"{name}: k is {k}, the axis has {x.shape[axis]} elements.")
    rows = xp.moveaxis(x, axis, -1)
    positions = _candidates(xp, rows, k, descending)
    if positions is None:
        positions = _order(xp, rows, descending)[..., :k]
    else:
        order = _order(xp, xp.take_along_axis(rows, positions, -1), descending)[..., :k]
        positions = xp.take_along_axis(positions, order, -1)
    values = xp.take_along_axis(rows, positions, -1)
    return [xp.moveaxis(values, -1, axis), xp.moveaxis(positions, -1, axis)]


def _candidates(xp: ArrayModule, rows: Array, k: int, descending: bool) -> Array | None:
    """Positions, in order, of a few elements in each row that hold the k chosen ones, or None.

    Sorting them alone is ten times faster than sorting a row of a vocabulary.
    """
    size = rows.shape[-1]
    if k == 0 or 8 * k >= size or rows.size == 0:
        return None
    at = size - k if descending else k - 1
    limit = xp.partition(rows, at, axis=-1)[..., at : at + 1]
    # Written so that NaN, the largest, stays among the elements of a descending choice.
    possible = ~(rows < limit) if descending else ~(rows > limit) & (rows == rows)
    if not descending and bool((limit != limit).any()):
        return None
    count = int(possible.sum(axis=-1).max())
    if 4 * count >= size:
        return None
    return xp.argsort(~possible, axis=-1, kind="stable")[..., :count]


@op(Kind.OPAQUE, _values_and_positions, prepare=_count_on_axis, upcasts=True)
def top_k(xp: ArrayModule, input: Tensor, k: Size, axis: int = -1) -> list[Tensor]:
    """The k largest elements along an axis, largest first, and their positions.

    Args:
        input: Tensor of any dtype.
        k: How many; 0 to the size of the axis.
        axis: The axis.

    Returns:
        A list of the values and their int64 positions; the axis has the size k. The first of
        equals comes first, NaN counts as the largest.

    Raises:
        ValueError: If k is out of range, or the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> values, positions = F.top_k(Tensor([3.0, 1.0, 2.0]), 2)
        >>> values.to_numpy().tolist(), positions.to_numpy().tolist()
        ([3.0, 2.0], [0, 2])
    """
    return _chosen(xp, "top_k", input, k, axis, descending=True)


@op(Kind.OPAQUE, _values_and_positions, prepare=_count_on_axis, upcasts=True)
def bottom_k(xp: ArrayModule, input: Tensor, k: Size, axis: int = -1) -> list[Tensor]:
    """The k smallest elements along an axis, smallest first, and their positions.

    Args:
        input: Tensor of any dtype.
        k: How many; 0 to the size of the axis.
        axis: The axis.

    Returns:
        A list of the values and their int64 positions; the axis has the size k. The first of
        equals comes first, NaN counts as the largest.

    Raises:
        ValueError: If k is out of range, or the axis lies outside the rank.
        TypeError: If `input` is not a tensor, or k is not an int.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> values, positions = F.bottom_k(Tensor([3.0, float("nan"), 1.0, 2.0]), 2)
        >>> values.to_numpy().tolist(), positions.to_numpy().tolist()
        ([1.0, 2.0], [2, 3])
    """
    return _chosen(xp, "bottom_k", input, k, axis, descending=False)


def _right_side(op: Op, x: TensorType, values: TensorType, *, right: object) -> Attrs:
    return {"right": bool(right)}


def _positions_of_values(op: Op, x: TensorType, values: TensorType, *, right: bool) -> TensorType:
    if x.rank != 1:
        raise ShapeError(f"{op.name}: expected a sorted vector, got {x.short()}.")
    expect_same_dtype(op, x, values)
    return TensorType.of(DType.int64, values.sizes, x.device)


@op(Kind.OPAQUE, _positions_of_values, prepare=_right_side, upcasts=True)
def searchsorted(xp: ArrayModule, x: Tensor, values: Tensor, right: bool = False) -> Tensor:
    """Positions at which values can be put into a sorted vector, so that it stays sorted.

    Args:
        x: Tensor [n] of any dtype, sorted; NaN counts as the largest.
        values: Tensor of the same dtype and any shape.
        right: Take the last of the positions that fit, else the first.

    Returns:
        int64, the shape of `values`.

    Raises:
        ValueError: If the rank of x is not 1, or the dtypes differ.
    """
    return xp.searchsorted(x, values, side="right" if right else "left")


# ---- boxes -------------------------------------------------------------------------------------


_NMS = "non_maximum_suppression"


def _expect_boxes(
    boxes: TensorType,
    scores: TensorType,
    max_output_boxes_per_class: TensorType,
    iou_threshold: TensorType,
    score_threshold: TensorType,
) -> None:
    shown = f"boxes is {boxes.short()}, scores is {scores.short()}"
    if not boxes.dtype.is_float() or boxes.dtype is not scores.dtype:
        raise DTypeError(f"{_NMS}: expected boxes and scores of one float dtype: {shown}.")
    shaped = boxes.rank == 3 and scores.rank == 3 and boxes.sizes[2] == 4
    if not shaped or boxes.sizes[0] != scores.sizes[0] or boxes.sizes[1] != scores.sizes[2]:
        raise ShapeError(
            f"{_NMS}: expected boxes [batch, n, 4] and scores [batch, classes, n]: {shown}."
        )
    if not max_output_boxes_per_class.dtype.is_integral():
        raise DTypeError(
            f"{_NMS}: max_output_boxes_per_class: expected an integer, got "
            f"{max_output_boxes_per_class.short()}."
        )
    for limit in (iou_threshold, score_threshold):
        if not limit.dtype.is_float():
            raise DTypeError(f"{_NMS}: thresholds must be floats, got {limit.short()}.")
    for limit in (max_output_boxes_per_class, iou_threshold, score_threshold):
        if limit.rank != 0:
            raise ShapeError(f"{_NMS}: the limits must be scalars, got {limit.short()}.")


def _selected_rows(op: Op, *types: TensorType, out_dim: Size) -> TensorType:
    _expect_boxes(*types)
    return TensorType.of(DType.int64, (out_dim, 3), types[0].device)


@op(Kind.OPAQUE, _selected_rows, name="select_boxes", upcasts=True)
def _select_boxes(
    xp: ArrayModule,
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Tensor,
    iou_threshold: Tensor,
    score_threshold: Tensor,
    out_dim: Size,
) -> Tensor:
    """Rows (batch, class, box) of the boxes that are kept; computed on the host."""
    limits = (max_output_boxes_per_class, iou_threshold, score_threshold)
    host = [array if xp is np else xp.asnumpy(array) for array in (boxes, scores)]
    found = _kept_boxes(*host, *(limit.item() for limit in limits))
    if found.shape[0] != out_dim:
        raise ShapeError(f"{_NMS}: out_dim is {out_dim}, but {found.shape[0]} boxes are kept.")
    return found


def _number_of_boxes(op: Op, *types: TensorType) -> TensorType:
    _expect_boxes(*types)
    return TensorType.of(DType.int64, (), types[0].device)


@op(Kind.OPAQUE, _number_of_boxes, name="count_boxes", upcasts=True)
def _count_boxes(
    xp: ArrayModule,
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Tensor,
    iou_threshold: Tensor,
    score_threshold: Tensor,
) -> Tensor:
    """The number of boxes that are kept; computed on the host."""
    limits = (max_output_boxes_per_class, iou_threshold, score_threshold)
    host = [array if xp is np else xp.asnumpy(array) for array in (boxes, scores)]
    return xp.asarray(len(_kept_boxes(*host, *(limit.item() for limit in limits))), np.int64)


def _kept_boxes(boxes: Array, scores: Array, most: int, overlap: float, least: float) -> Array:
    """Greedy choice by descending score, for each batch and class."""
    rows = []
    low = np.minimum(boxes[..., :2], boxes[..., 2:])
    high = np.maximum(boxes[..., :2], boxes[..., 2:])
    area = np.prod(high - low, axis=-1)
    for batch, group in np.ndindex(*scores.shape[:2]):
        score = scores[batch, group]
        wanted = np.nonzero(score > least)[0]
        wanted = wanted[np.argsort(-score[wanted], kind="stable")]
        kept = 0
        while wanted.size and kept < most:
            best, rest = wanted[0], wanted[1:]
            rows.append((batch, group, best))
            kept += 1
            near = np.minimum(high[batch, best], high[batch, rest])
            near = near - np.maximum(low[batch, best], low[batch, rest])
            common = np.prod(np.maximum(near, 0), axis=-1)
            union = area[batch, best] + area[batch, rest] - common
            # A product instead of a quotient: two boxes without area have no quotient.
            wanted = rest[~(common > overlap * union)]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


@function
def non_maximum_suppression(
    boxes: Tensor,
    scores: Tensor,
    max_output_boxes_per_class: Tensor,
    iou_threshold: Tensor,
    score_threshold: Tensor,
    out_dim: DimLike = "num_selected",
) -> Tensor:
    """Chooses boxes with high scores that do not overlap much, for each batch and class.

    Boxes with a score above `score_threshold` are taken in the order of their scores; each one
    drops those whose intersection over union with it is above `iou_threshold`. Works on the host,
    wherever the operands live. Follows NonMaxSuppression of ONNX.

    Args:
        boxes: Tensor [batch, n, 4] of a float dtype: two opposite corners (y1, x1, y2, x2).
        scores: Tensor [batch, classes, n] of the same dtype.
        max_output_boxes_per_class: Integer scalar tensor.
        iou_threshold: Float scalar tensor.
        score_threshold: Float scalar tensor.
        out_dim: The number of boxes, or a symbolic dimension; outside a trace, it matches any.

    Returns:
        int64 [out_dim, 3] with rows (batch, class, box), best first in each class.

    Raises:
        ValueError: If shapes or dtypes do not fit, or a given number is wrong.

    Example:
        >>> from maxmod import DType, Tensor
        >>> from maxmod import functional as F
        >>> boxes = Tensor([[[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9], [5.0, 5.0, 6.0, 6.0]]])
        >>> scores = Tensor([[[0.8, 0.9, 0.4]]])
        >>> most = Tensor(10, dtype=DType.int64)
        >>> kept = F.non_maximum_suppression(boxes, scores, most, Tensor(0.5), Tensor(0.3))
        >>> kept.to_numpy().tolist()  # box 0 overlaps box 1, which has a better score
        [[0, 0, 1], [0, 0, 2]]
    """
    limits = (max_output_boxes_per_class, iou_threshold, score_threshold)
    given = [strong(_NMS, value) for value in (boxes, scores, *limits)]
    device = given[0].type.device
    operands = [transfer_to(tensor, CPU_REF) for tensor in given]
    size = as_size(out_dim)
    if isinstance(size, int) or active_trace() is not None:
        if not isinstance(size, int):
            declare_size(size, _count_boxes(*operands), f"{_NMS}: out_dim")
        return transfer_to(_select_boxes(*operands, out_dim=size), device)
    _expect_boxes(*[tensor.type for tensor in operands])
    most, overlap, least = (tensor.item() for tensor in operands[2:])
    wide = [tensor.cast(compute_dtype(tensor.dtype)).data for tensor in operands[:2]]
    rows = _kept_boxes(*wide, most, overlap, least)
    found = Tensor.wrap(rows, TensorType.of(DType.int64, rows.shape, CPU_REF))
    return transfer_to(found, device)
