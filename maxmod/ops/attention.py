"""Scaled dot-product attention, defined in other ops; compiled, it becomes one kernel."""

from __future__ import annotations

import math

import numpy as np

from maxmod.dtype import DType, compute_dtype
from maxmod.errors import ArgumentError, DTypeError, ShapeError
from maxmod.interpreters.operands import promote_strong, strong
from maxmod.op import Kind, Op, Operands, function, op
from maxmod.op.rules import expect_dtype, expect_same_dtype, is_float
from maxmod.ops.arithmetic import add, mul
from maxmod.ops.comparison import greater_equal, where
from maxmod.ops.create import iota
from maxmod.ops.elementwise import cast
from maxmod.ops.matmul import matmul
from maxmod.ops.norm import softmax
from maxmod.ops.shape import permute, reshape, unsqueeze
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.dim import Size
from maxmod.values.plain import Attrs
from maxmod.values.shape import Sizes, broadcast
from maxmod.values.tensor_type import TensorType

__all__ = ["scaled_dot_product_attention"]

NAME = "scaled_dot_product_attention"


def _attended(op: Op, *types: TensorType, **attrs: object) -> TensorType:
    """[..., heads, queries, width of a value], of the dtype of the operands."""
    query, key, value = types[:3]
    expect_dtype(op, is_float, query, key, value)
    expect_same_dtype(op, query, key, value)
    for name, operand in zip(op.signature.tensor_names, (query, key, value)):
        if operand.rank < 2:
            raise ShapeError(
                f"{NAME}: {name}: expected [..., heads, positions, width], got {operand.short()}."
            )
    if query.sizes[-1] != key.sizes[-1]:
        raise ShapeError(
            f"{NAME}: queries and keys differ in width: query is {query.short()}, key is "
            f"{key.short()}."
        )
    if key.sizes[-2] != value.sizes[-2]:
        raise ShapeError(
            f"{NAME}: there must be one value for each key: key is {key.short()}, value is "
            f"{value.short()}."
        )
    batch = _batch(query, key, value)
    if len(types) > 3:
        _check_mask(types[3], (*batch, query.sizes[-2], key.sizes[-2]))
    return TensorType.of(query.dtype, (*batch, query.sizes[-2], value.sizes[-1]), query.device)


def _batch(query: TensorType, key: TensorType, value: TensorType) -> Sizes:
    groups = _groups(query.sizes, key.sizes)
    sizes = [query.sizes[:-2]]
    for operand in (key, value):
        heads = operand.sizes[:-2]
        if groups > 1 and heads and heads[-1] == key.sizes[-3]:
            heads = (*heads[:-1], query.sizes[-3])
        elif groups > 1:
            raise ShapeError(
                f"{NAME}: there must be as many value heads as key heads: key is {key.short()}, "
                f"value is {value.short()}."
            )
        sizes.append(heads)
    try:
        return broadcast(*sizes)
    except ShapeError:
        raise ShapeError(
            f"{NAME}: batch axes are neither equivalent nor broadcastable: query is "
            f"{query.short()}, key is {key.short()}, value is {value.short()}. Hint: the number of "
            "key and value heads must divide that of query heads."
        ) from None


def _check_mask(mask: TensorType, scores: Sizes) -> None:
    if mask.dtype is not DType.bool and not mask.dtype.is_float():
        raise DTypeError(f"{NAME}: mask: expected bool or floats, got {mask.short()}.")
    try:
        fits = broadcast(mask.sizes, scores) == scores
    except ShapeError:
        fits = False
    if not fits:
        shown = ",".join(str(size) for size in scores)
        raise ShapeError(
            f"{NAME}: mask: expected a shape that broadcasts to [{shown}], got {mask.short()}."
        )


def _groups(query: Sizes, key: Sizes) -> int:
    """Returns how many query heads share a key head; 1 if they are not to be grouped."""
    if len(query) < 3 or len(key) < 3:
        return 1
    heads, shared = query[-3], key[-3]
    if not (isinstance(heads, int) and isinstance(shared, int)) or shared in (0, 1, heads):
        return 1
    return heads // shared if heads % shared == 0 else 1


def _scaled(op: Op, *types: TensorType, scale: object, is_causal: object) -> Attrs:
    width: Size = types[0].sizes[-1] if types[0].rank else 1
    if scale is None:
        if not isinstance(width, int):
            raise ArgumentError(f"{NAME}: scale: must be given where the width {width} is a name.")
        scale = 1 / math.sqrt(max(width, 1))
    return {"scale": float(scale), "is_causal": bool(is_causal)}


def _expand(query: Tensor, key: Tensor, value: Tensor, *mask: Tensor, **attrs: object) -> Tensor:
    """The definition in other ops; sums are formed in the compute dtype."""
    dtype, wide = query.dtype, compute_dtype(query.dtype)
    groups = _groups(query.sizes, key.sizes)
    mask = tuple(_grouped_mask(m, query.sizes[-3], groups) if groups > 1 else m for m in mask)
    if groups > 1:
        query = _grouped(query, groups)
        key = unsqueeze(key, -3)
        value = unsqueeze(value, -3)
    query, key, value = (cast(x, wide) for x in (query, key, value))
    order = [*range(key.rank - 2), key.rank - 1, key.rank - 2]
    scores = mul(matmul(query, permute(key, order)), attrs["scale"])
    if attrs["is_causal"]:
        scores = where(_causal_mask(query, key), scores, -math.inf)
    for m in mask:
        scores = (
            where(m, scores, -math.inf) if m.dtype is DType.bool else add(scores, cast(m, wide))
        )
    result = cast(matmul(softmax(scores), value), dtype)
    if groups > 1:
        *batch, shared, each, positions, width = result.sizes
        result = reshape(result, [*batch, shared * each, positions, width])
    return result


def _causal_mask(query: Tensor, key: Tensor) -> Tensor:
    row = iota(count=query.sizes[-2], dtype=DType.int64, device=query.type.device)
    column = iota(count=key.sizes[-2], dtype=DType.int64, device=query.type.device)
    return greater_equal(unsqueeze(row, 1), column)


def _grouped(x: Tensor, groups: int) -> Tensor:
    """[..., heads, positions, width] -> [..., heads / groups, groups, positions, width]"""
    *batch, heads, positions, width = x.sizes
    return reshape(x, [*batch, heads // groups, groups, positions, width])


def _grouped_mask(mask: Tensor, heads: Size, groups: int) -> Tensor:
    if mask.rank < 3:
        return mask
    return unsqueeze(mask, -3) if mask.sizes[-3] == 1 else _grouped(mask, groups)


def _run(
    xp: ArrayModule,
    query: Array,
    key: Array,
    value: Array,
    mask: Array,
    scale: float | None,
    is_causal: bool,
) -> Array:
    """The eager body of both ops."""
    groups = _groups(query.shape, key.shape)
    if groups > 1:
        key = xp.repeat(key, groups, axis=-3)
        value = xp.repeat(value, groups, axis=-3)
    scores = xp.matmul(query, xp.swapaxes(key, -1, -2)) * query.dtype.type(scale)
    lowest = query.dtype.type(-np.inf)
    if is_causal:
        rows, columns = scores.shape[-2:]
        scores = xp.where(xp.arange(rows)[:, None] >= xp.arange(columns), scores, lowest)
    if mask is not None:
        scores = xp.where(mask, scores, lowest) if mask.dtype == bool else scores + mask
    if scores.size == 0:
        return xp.matmul(scores, value)
    weights = xp.exp(scores - xp.max(scores, axis=-1, keepdims=True))
    return xp.matmul(weights / xp.sum(weights, axis=-1, keepdims=True), value)


@op(
    Kind.COMPOSITE,
    _attended,
    operands=Operands.STRONG,
    prepare=_scaled,
    expand=_expand,
    name="attention",
)
def _attention(
    xp: ArrayModule, query: Tensor, key: Tensor, value: Tensor, scale: float | None, is_causal: bool
) -> Tensor:
    """softmax(query key^T scale) value; see `scaled_dot_product_attention`."""
    return _run(xp, query, key, value, None, scale, is_causal)


@op(
    Kind.COMPOSITE,
    _attended,
    operands=Operands.STRONG,
    prepare=_scaled,
    expand=_expand,
    name="masked_attention",
)
def _masked_attention(
    xp: ArrayModule,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scale: float | None,
    is_causal: bool,
) -> Tensor:
    """softmax(query key^T scale + mask) value; see `scaled_dot_product_attention`."""
    return _run(xp, query, key, value, mask, scale, is_causal)


@function
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None = None,
    scale: float | None = None,
    is_causal: bool = False,
) -> Tensor:
    """softmax(query @ key^T * scale + mask) @ value, for each batch and head.

    A compiled model computes it in one kernel that keeps no score matrix in memory, and so it does
    with the same formula written out in other ops.

    Args:
        query: Tensor [..., heads, queries, width] of a float dtype.
        key: Tensor [..., heads, keys, width]. Its number of heads, and that of `value`, may be a
            divisor of the query heads, which then share them in groups.
        value: Tensor [..., heads, keys, width of a value].
        mask: Tensor that broadcasts to [..., heads, queries, keys]: bool, true where a query may
            look at a key, or floats that are added to the scores.
        scale: Factor of the scores; 1 / sqrt(width) if None.
        is_causal: Let query i look at the keys 0 to i only, besides what the mask says.

    Returns:
        [..., heads, queries, width of a value] in the promoted dtype. Half types are computed in
        float32 and rounded once; tensor cores of a GPU take rounded weights, too. A query that may
        look at no key gives NaN; keys that are masked for all of a run of queries may be left out,
        so that a NaN in their values does not count.

    Raises:
        ValueError: If shapes or dtypes do not fit, or the scale is not given and the width is not
            known.

    Source: A. Vaswani et al., Attention Is All You Need, arXiv 1706.03762. Named as in PyTorch,
        whose masks it takes.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> q = Tensor.ones([2, 5, 4])
        >>> F.scaled_dot_product_attention(q, q, q, is_causal=True).shape == [2, 5, 4]
        True
    """
    query, key, value = promote_strong(NAME, [strong(NAME, x) for x in (query, key, value)])
    if mask is None:
        return _attention(query, key, value, scale=scale, is_causal=is_causal)
    mask = strong(NAME, mask)
    return _masked_attention(query, key, value, mask, scale=scale, is_causal=is_causal)
