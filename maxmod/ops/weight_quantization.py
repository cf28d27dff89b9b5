"""Weight-only quantisation: weights of 8 or 4 bits with scales, and the products that read them.

A weight [out, in] becomes integer codes and floating scales, so that `weight ~ codes * scales`.
Rounding of int8 and int4 is to the nearest and symmetric: there is no zero point.

- `int8`: one code a byte, int8 [out, in], from -127 to 127; float32 scales [out, 1], one a row.
- `int4`: two codes a byte, uint8 [out, in / 2], from -8 to 7; float16 scales [out, in / group],
  one for each `group_size` consecutive weights of a row. Byte i of each 16 holds code i of 32 in
  its low half and code i + 16 in its high half, each plus 8: a vector of bytes is two of weights.
- `uint4`: as int4, and each group has an offset too, `weight ~ codes * scales + offsets * units`:
  offsets int8 [out, in / group] from -31 to 31, units float32 [out, 1]. The smallest weight of a
  group is `offset * unit - 8 * scale`. `ops/group_search.py` finds scales and offsets. A product is
  that of int4, and a second one of the sums of x over groups with the offsets, which has the format
  of int8: `x @ w.T = quantized_linear(x, codes, scales) + quantized_linear(sums, offsets, units)`.

For int8 and int4, a scale is the largest magnitude that it covers, divided by 127 or 7.5 and
rounded up to its dtype; so no weight is further from its code than half a scale.
"""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType, compute_dtype, storage_dtype
from maxmod.errors import ArgumentError, DTypeError, ShapeError
from maxmod.op import Kind, Op, lookup, op
from maxmod.op.rules import expect_dtype, expect_int, expect_sizes_static, is_float
from maxmod.ops.arithmetic import mul, sub
from maxmod.ops.bitwise import bitwise_and, bitwise_right_shift
from maxmod.ops.create import iota
from maxmod.ops.elementwise import cast
from maxmod.ops.group_search import search
from maxmod.ops.matmul import matmul
from maxmod.ops.shape import permute, reshape
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule, StorageDType
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

__all__ = ["dequantize_weight", "quantize_weight", "quantized_linear"]

BLOCK = 32  # int4 codes that are packed together
SCHEMES = ("int8", "int4", "uint4")
DEFAULT_GROUP_SIZE = 32
_SEARCHED_AT_ONCE = 1 << 17  # weights: the temporaries of the search stay in the L2 cache
_ROWS_AT_ONCE = 1 << 20  # weights that are quantised together: temporaries stay small


# ---- making codes ------------------------------------------------------------------------------


def _scheme(op: Op, weight: TensorType, *, scheme: object, group_size: object) -> Attrs:
    """Canonical static arguments: `group_size` is None for int8."""
    if scheme not in SCHEMES:
        raise ArgumentError(
            f"{op.name}: scheme: expected 'int8', 'int4' or 'uint4', got {scheme!r}."
        )
    if scheme == "int8":
        if group_size is not None:
            raise ArgumentError(
                f"{op.name}: group_size: int8 has one scale for each row, got {group_size!r}."
            )
        return {"scheme": scheme, "group_size": None}
    group = DEFAULT_GROUP_SIZE if group_size is None else group_size
    group = expect_int(op.name, group, "group_size")
    if group < 1 or group % BLOCK:
        raise ArgumentError(
            f"{op.name}: group_size: expected a multiple of {BLOCK}, got {group}. Hint: 32, 64 and "
            "128 are usual; smaller groups are more exact."
        )
    return {"scheme": scheme, "group_size": group}


def _codes_and_scales(
    op: Op, weight: TensorType, *, scheme: str, group_size: int | None
) -> tuple[TensorType, ...]:
    """The types of the codes and of the scales, and for uint4 of the offsets and their units."""
    expect_dtype(op, is_float, weight)
    if weight.rank != 2:
        raise ShapeError(f"{op.name}: weight: expected [out, in], got {weight.short()}.")
    rows, depth = weight.sizes
    if group_size is None:
        return (
            TensorType.of(DType.int8, (rows, depth), weight.device),
            TensorType.of(DType.float32, (rows, 1), weight.device),
        )
    expect_sizes_static(op, "the size of the last axis of weight", depth)
    assert isinstance(depth, int)
    if depth == 0 or depth % group_size:
        raise ShapeError(
            f"{op.name}: weight: the last axis must be a multiple of group_size={group_size}, got "
            f"{weight.short()}. Hint: a smaller group_size (a multiple of {BLOCK}), or int8, which "
            "has no groups."
        )
    found = (
        TensorType.of(DType.uint8, (rows, depth // 2), weight.device),
        TensorType.of(DType.float16, (rows, depth // group_size), weight.device),
    )
    if scheme != "uint4":
        return found
    return (
        *found,
        TensorType.of(DType.int8, (rows, depth // group_size), weight.device),
        TensorType.of(DType.float32, (rows, 1), weight.device),
    )


@op(Kind.OPAQUE, _codes_and_scales, prepare=_scheme, backend_method="quantize_weight")
def quantize_weight(
    xp: ArrayModule, weight: Tensor, scheme: str = "int8", group_size: int | None = None
) -> list[Tensor]:
    """Rounds a weight to 8 or 4 bits: codes and scales, `weight ~ codes * scales`.

    Args:
        weight: Floats [out, in].
        scheme: `"int8"`, one scale for each row; `"int4"`, one for each group of a row; or
            `"uint4"`, a scale and an offset for each group, found by a search for small errors.
        group_size: For 4 bits: how many weights share a scale, a multiple of 32 that divides `in`;
            32 by default.

    Returns:
        [codes, scales]: int8 [out, in] and float32 [out, 1], or uint8 [out, in / 2] with two codes
        a byte and float16 [out, in / group_size]. No weight is further from `dequantize_weight` of
        them than half its scale. For uint4 [codes, scales, offsets, units]: to what the first two
        give, `offsets * units` is added: int8 [out, in / group_size] and float32 [out, 1].

    Raises:
        ValueError: If the weight is not a matrix, `in` is not a multiple of the group size, a value
            is NaN or infinite or too large for a float16 scale, or it holds no floats.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> codes, scales = F.quantize_weight(Tensor([[1.0, -0.5, 0.25]]))
        >>> codes.to_numpy().tolist()
        [[127, -64, 32]]
    """
    if scheme == "uint4":
        assert group_size is not None
        return _searched(xp, weight, group_size)
    rows, depth = weight.shape
    group, top, dtype = group_size or depth, (7.5 if group_size else 127.0), np.float16
    codes = xp.empty((rows, depth // 2 if group_size else depth), "B" if group_size else "b")
    scales = xp.empty((rows, depth // group if group_size else 1), dtype if group_size else "f")
    step = max(1, _ROWS_AT_ONCE // max(depth, 1))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        groups = xp.asarray(weight[part], dtype=np.float32).reshape(-1, scales.shape[1], group)
        scale = _scales(xp, groups, top, scales.dtype)
        scales[part] = scale
        wide = scale.astype(np.float32)[..., None]
        q = xp.rint(groups / xp.where(wide == 0, np.float32(1), wide))
        if group_size:
            codes[part] = _packed(xp, xp.clip(q, -8, 7) + 8)
        else:
            codes[part] = xp.clip(q, -127, 127).reshape(-1, depth)
    return [codes, scales]


def quantized_types(
    weight: TensorType, scheme: str, group_size: int | None
) -> tuple[TensorType, ...]:
    """Returns the types of what `quantize_weight` makes of a weight."""
    record = lookup("quantize_weight")
    attrs = _scheme(record, weight, scheme=scheme, group_size=group_size)
    return _codes_and_scales(record, weight, **attrs)


def _searched(xp: ArrayModule, weight: Array, group: int) -> list[Array]:
    """Codes, scales, offsets and units of uint4."""
    rows, depth = weight.shape
    codes = xp.empty((rows, depth // 2), "B")
    scales = xp.empty((rows, depth // group), np.float16)
    offsets, units = xp.empty(scales.shape, "b"), xp.empty((rows, 1), "f")
    step = max(1, _SEARCHED_AT_ONCE // max(depth, 1))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        groups = xp.asarray(weight[part], dtype=np.float32).reshape(-1, depth // group, group)
        _expect_magnitudes(xp, xp.abs(groups), 7.5)
        found = search(xp, groups)
        codes[part] = _packed(xp, found.codes + 8)
        scales[part], offsets[part], units[part] = found.scales, found.offsets, found.units
    return [codes, scales, offsets, units]


def _expect_magnitudes(xp: ArrayModule, sizes: Array, top: float) -> None:
    """Raises if weights are not finite, or their scales may not fit float16."""
    if not bool(xp.isfinite(sizes).all()):
        raise ArgumentError("quantize_weight: weight: expected finite values, got NaN or infinity.")
    if sizes.size and float(sizes.max()) >= 65504 * top:
        raise ArgumentError(
            f"quantize_weight: weight: expected magnitudes below {65504 * top:.0f}, so that the "
            "scales fit float16. Hint: int8 has scales in float32."
        )


def _scales(xp: ArrayModule, groups: Array, top: float, dtype: StorageDType) -> Array:
    """Returns the scale of each group: its largest magnitude / top, rounded up."""
    largest = xp.abs(groups).max(axis=-1) if groups.shape[-1] else xp.zeros(groups.shape[:2], "f")
    if not bool(xp.isfinite(largest).all()):
        raise ArgumentError("quantize_weight: weight: expected finite values, got NaN or infinity.")
    scale = (largest / np.float32(top)).astype(dtype)
    bits = scale.view(f"u{scale.itemsize}")  # of numbers that are not negative: in their order
    up = scale.astype(np.float32) * np.float32(top) < largest
    scale = (bits + up.astype(bits.dtype)).view(dtype)
    if not bool(xp.isfinite(scale).all()):
        raise ArgumentError(
            f"quantize_weight: weight: expected magnitudes below {65504 * top:.0f}, so that the "
            "scales fit float16. Hint: int8 has scales in float32."
        )
    return scale


def _packed(xp: ArrayModule, codes: Array) -> Array:
    """Packs codes of 0 to 15 by two: [rows, groups, group] -> uint8 [rows, in / 2]."""
    halves = codes.astype(np.uint8).reshape(codes.shape[0], -1, 2, BLOCK // 2)
    return (halves[:, :, 0] | (halves[:, :, 1] << 4)).reshape(codes.shape[0], -1)


# ---- reading codes -----------------------------------------------------------------------------


def quantized_sizes(op: Op, weight: TensorType, scales: TensorType) -> tuple[int, int, int]:
    """Returns rows, depth and group size of quantised weights; raises if they do not fit.

    Raises:
        DTypeError: If codes or scales are of another kind.
        ShapeError: If they do not fit together.
    """
    if weight.dtype not in (DType.int8, DType.uint8) or not scales.dtype.is_float():
        raise DTypeError(
            f"{op.name}: expected codes of int8, or of uint8 with two a byte, and floating scales; "
            f"got {weight.short()} and {scales.short()}. Hint: F.quantize_weight makes them."
        )
    if weight.rank != 2 or scales.rank != 2:
        raise ShapeError(
            f"{op.name}: expected matrices of codes and scales, got {weight.short()} and "
            f"{scales.short()}."
        )
    expect_sizes_static(op, "sizes of quantised weights", *weight.sizes, *scales.sizes)
    rows, depth, groups = int(weight.sizes[0]), int(weight.sizes[1]), int(scales.sizes[1])
    packed = weight.dtype is DType.uint8
    depth = 2 * depth if packed else depth
    group = depth // groups if groups and depth % groups == 0 else 0
    fits = (group > 0 and group % BLOCK == 0) if packed else groups == 1
    if scales.sizes[0] != rows or not fits:
        wanted = f"[out, in / group] with groups of a multiple of {BLOCK}" if packed else "[out, 1]"
        raise ShapeError(
            f"{op.name}: codes and scales do not fit together: codes are {weight.short()}, scales "
            f"are {scales.short()}, expected {wanted}."
        )
    return rows, depth, group


def _dequantized(op: Op, weight: TensorType, scales: TensorType, *, dtype: DType) -> TensorType:
    """[out, in] of the dtype that is asked for."""
    rows, depth, _ = quantized_sizes(op, weight, scales)
    if not dtype.is_float():
        raise DTypeError(f"{op.name}: dtype: expected a floating dtype, got {dtype!r}.")
    return TensorType.of(dtype, (rows, depth), weight.device)


@op(Kind.OPAQUE, _dequantized, upcasts=True)
def dequantize_weight(
    xp: ArrayModule, weight: Tensor, scales: Tensor, dtype: DType = DType.float32
) -> Tensor:
    """Turns codes and scales back into a weight: `codes * scales`.

    Args:
        weight: int8 [out, in], or uint8 [out, in / 2] with two codes a byte.
        scales: Floats [out, 1], or [out, in / group].
        dtype: Floating dtype of the result.

    Returns:
        [out, in].

    Raises:
        ValueError: If codes and scales do not fit together, or a dtype is of another kind.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> codes, scales = F.quantize_weight(Tensor([[4.0, -2.0]]))
        >>> F.dequantize_weight(codes, scales).to_numpy().round(1).tolist()
        [[4.0, -2.0]]
    """
    return _weights(xp, weight, scales, storage_dtype(compute_dtype(dtype)))


def _weights(xp: ArrayModule, codes: Array, scales: Array, dtype: StorageDType) -> Array:
    """codes * scales in a wide dtype."""
    if codes.dtype == np.int8:
        return codes.astype(dtype) * scales.astype(dtype)
    rows = codes.shape[0]
    pairs = codes.reshape(rows, -1, 1, BLOCK // 2)
    nibbles = xp.concatenate([pairs & 15, pairs >> 4], axis=2)
    groups = nibbles.reshape(rows, scales.shape[1], -1).astype(dtype) - dtype.type(8)
    return (groups * scales.astype(dtype)[..., None]).reshape(rows, -1)


def _linear(op: Op, x: TensorType, weight: TensorType, scales: TensorType) -> TensorType:
    """[..., out], of the dtype of x."""
    expect_dtype(op, is_float, x)
    rows, depth, _ = quantized_sizes(op, weight, scales)
    if x.rank == 0 or x.sizes[-1] != depth:
        raise ShapeError(
            f"{op.name}: the last axis of x must have the {depth} elements of a row of weight, got "
            f"{x.short()}."
        )
    return TensorType.of(x.dtype, (*x.sizes[:-1], rows), x.device)


def _expand_linear(x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """A product with the weight as floats of the dtype of x."""
    wide = cast(_codes(weight), compute_dtype(x.dtype))
    rows, depth = wide.sizes
    groups = reshape(wide, (rows, scales.sizes[1], depth // scales.sizes[1]))
    factors = cast(reshape(scales, (*scales.sizes, 1)), wide.dtype)
    floats = cast(reshape(mul(groups, factors), (rows, depth)), x.dtype)
    return matmul(x, permute(floats, (1, 0)))


def _codes(weight: Tensor) -> Tensor:
    """One integer for each weight: int8 [out, in]."""
    if weight.dtype is DType.int8:
        return weight
    rows, nbytes = weight.sizes
    bits = mul(iota(count=2, dtype=DType.uint8, device=weight.type.device), 4)
    pairs = reshape(weight, (rows, nbytes // (BLOCK // 2), 1, BLOCK // 2))
    halves = bitwise_and(bitwise_right_shift(pairs, reshape(bits, (2, 1))), 15)
    return reshape(sub(cast(halves, DType.int8), 8), (rows, 2 * nbytes))


@op(Kind.CONTRACT, _linear, expand=_expand_linear)
def quantized_linear(xp: ArrayModule, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
    """x @ w.T over the last axis, where w is quantised: `dequantize_weight(weight, scales)`.

    Compiled for the host, spans of up to 128 numbers of a row of x become integers of 16 bits, but
    for numbers far above the others, and their sums of products with codes are exact. The results
    err by at most 1e-4 of the largest, and have the same bits on every processor and for any
    number of rows; `kernels/host/quantized.h` has the rule. On a GPU, a few rows read codes as they
    are, many rows turn the whole weight into floats of the dtype of x; sums are in float32.

    Args:
        x: Floats [..., in].
        weight: int8 [out, in], or uint8 [out, in / 2] with two codes a byte.
        scales: Floats [out, 1], or [out, in / group].

    Returns:
        [..., out] in the dtype of x. Half types accumulate in float32.

    Raises:
        ValueError: If the sizes do not fit together, or a dtype is of another kind.

    Source: the layouts follow what is usual for weight-only quantisation, as in gpt-fast and ggml.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> codes, scales = F.quantize_weight(Tensor([[1.0, 2.0], [3.0, -3.0]]))
        >>> F.quantized_linear(Tensor([1.0, 1.0]), codes, scales).to_numpy().round(1).tolist()
        [3.0, 0.0]
    """
    if weight.dtype == np.int8:
        return xp.matmul(x, weight.astype(x.dtype).T) * scales[:, 0].astype(x.dtype)
    return xp.matmul(x, _weights(xp, weight, scales, x.dtype).T)
