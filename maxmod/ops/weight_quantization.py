"""Weight-only quantisation: weights of 8 or 4 bits with scales, and the products that read them.

A weight [out, in] becomes integer codes and scales. Rounding is to the nearest.

- `int8`: one code a byte, int8 [out, in], from -127 to 127; bfloat16 scales [out, in / group], each
  of `group_size` consecutive weights of a row. `weight ~ code * scale`: 8.25 bits a weight for
  groups of 64. A row that is one group, and every row of earlier versions, has one float32 scale,
  [out, 1]. Other tools' scales may be float16 or float32 as well.
- `int4`: two codes a byte, uint8 [out, in / 2], from 0 to 15. Byte i of each 16 holds code i of 32
  in its low half and code i + 16 in its high half: a vector of bytes is two of weights. Bytes of
  scales, uint8 [out, 2 * in / group + 1]: for each `group_size` consecutive weights of a row a
  scale, then for each a minimum, then the exponent e of the row.
  `weight ~ (code * scale - 8 * minimum) * 2^(e - 127)`: 4.5 bits a weight for groups of 32.
- `int4_symmetric`: the same codes, with float16 scales [out, in / group] and no minimum, as
  earlier versions saved them. `weight ~ (code - 8) * scale`.

Scales without minimum are the largest magnitude that they cover, divided by 127 or 7.5 and rounded
up to their dtype; so no weight is further from its code than half a scale. For int8 the largest
weights are worth that: with the scale of least squared error, of 16 down to 49/64 of the whole,
the error of SmolLM2-135M-Instruct fell by 1 %, but its perplexity on eight texts of 400 tokens was
1.0 % above that of the floats in place of 0.4 % (rows with one scale, December 2026). Scales of
bfloat16 have the range of float32, and rounding one up costs at most 1/128 of a step.

Where int8 lost with one scale a row, by the divergence from the guesses of the floats on five texts
of 128 tokens (that model, December 2026): 0.42 % for the linear layers and 0.14 % for the head; of
the whole, down projections have 31 %, the head 29 %, values 15 %, up projections 10 %, all others
15 %. One of the 576 numbers of the stream is 10 to 20 times the others, and makes up to 80 % of the
error of values. It has small weights, which no scale of their row makes exact: the scale of least
error weighted by the activations gave 0.37 % in place of 0.42 %, columns scaled to one norm 0.33 %,
codes that make up for each other's errors on 3,000 tokens of text 0.28 %, values in floats 0.32 %.
A scale for each 64 weights halves it.

How scales and minimums of `int4` are found is told in `maxmod/ops/four_bits.py`.
"""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType, compute_dtype, storage_dtype
from maxmod.errors import ArgumentError, DTypeError, ShapeError
from maxmod.op import Kind, Op, lookup, op
from maxmod.op.rules import expect_dtype, expect_int, expect_sizes_static, is_float
from maxmod.ops import four_bits
from maxmod.ops.arithmetic import add, mul, pow, sub
from maxmod.ops.bitwise import bitwise_and, bitwise_right_shift
from maxmod.ops.create import iota
from maxmod.ops.elementwise import cast
from maxmod.ops.matmul import matmul
from maxmod.ops.shape import permute, reshape
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule, StorageDType
from maxmod.values.device import DeviceRef
from maxmod.values.dim import Size
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

__all__ = ["dequantize_weight", "quantize_weight", "quantized_linear"]

BLOCK = 32  # int4 codes that are packed together
ROWS = -1  # as a group size of int8: one scale for each row
SCHEMES = ("int8", "int4", "int4_symmetric")
DEFAULT_GROUP_SIZES = {"int8": 64, "int4": 32, "int4_symmetric": 32}
_ROWS_AT_ONCE = 1 << 20  # weights that are quantised together: temporaries stay small


# ---- making codes ------------------------------------------------------------------------------


def _scheme(op: Op, weight: TensorType, *, scheme: object, group_size: object) -> Attrs:
    """Canonical static arguments: `group_size` is ROWS for int8 with one scale for each row."""
    if scheme not in SCHEMES:
        raise ArgumentError(
            f"{op.name}: scheme: expected 'int8' or 'int4' (or 'int4_symmetric', of earlier "
            f"versions), got {scheme!r}."
        )
    assert isinstance(scheme, str)
    if scheme == "int8" and group_size in (None, ROWS):
        return {"scheme": scheme, "group_size": ROWS if group_size else _usual_group(weight)}
    group = DEFAULT_GROUP_SIZES[scheme] if group_size is None else group_size
    group = expect_int(op.name, group, "group_size")
    if group < 1 or group % BLOCK:
        rows = f", or {ROWS} for one scale for each row" if scheme == "int8" else ""
        raise ArgumentError(
            f"{op.name}: group_size: expected a multiple of {BLOCK}{rows}, got {group}. Hint: 32, "
            "64 and 128 are usual; smaller groups are more exact."
        )
    is_row = scheme == "int8" and weight.rank == 2 and weight.sizes[1] == group
    return {"scheme": scheme, "group_size": ROWS if is_row else group}


def _usual_group(weight: TensorType) -> int:
    """The groups of int8 by default: of 64, or of 32, or rows where neither divides them."""
    depth = weight.sizes[1] if weight.rank == 2 else 0
    if not isinstance(depth, int):
        return ROWS
    usual = DEFAULT_GROUP_SIZES["int8"]
    group = next((n for n in (usual, BLOCK) if depth % n == 0), depth)
    return ROWS if group >= depth else group


def _codes_and_scales(
    op: Op, weight: TensorType, *, scheme: str, group_size: int
) -> tuple[TensorType, TensorType]:
    """The types of the codes and of the scales."""
    expect_dtype(op, is_float, weight)
    if weight.rank != 2:
        raise ShapeError(f"{op.name}: weight: expected [out, in], got {weight.short()}.")
    rows, depth = weight.sizes
    if group_size == ROWS:
        return (
            TensorType.of(DType.int8, (rows, depth), weight.device),
            TensorType.of(DType.float32, (rows, 1), weight.device),
        )
    expect_sizes_static(op, "the size of the last axis of weight", depth)
    assert isinstance(depth, int)
    if depth == 0 or depth % group_size:
        raise ShapeError(
            f"{op.name}: weight: the last axis must be a multiple of group_size={group_size}, got "
            f"{weight.short()}. Hint: a smaller group_size (a multiple of {BLOCK}), or int8 "
            "without one, whose groups may be whole rows."
        )
    if scheme == "int8":
        return (
            TensorType.of(DType.int8, (rows, depth), weight.device),
            TensorType.of(DType.bfloat16, (rows, depth // group_size), weight.device),
        )
    return (
        TensorType.of(DType.uint8, (rows, depth // 2), weight.device),
        scales_type(scheme, rows, depth // group_size, weight.device),
    )


def scales_type(scheme: str, rows: Size, groups: int, device: DeviceRef) -> TensorType:
    """Returns the type of the scales of 4-bit codes; see the top of this file."""
    if scheme == "int4":
        return TensorType.of(DType.uint8, (rows, 2 * groups + 1), device)
    return TensorType.of(DType.float16, (rows, groups), device)


@op(Kind.OPAQUE, _codes_and_scales, prepare=_scheme, backend_method="quantize_weight")
def quantize_weight(
    xp: ArrayModule, weight: Tensor, scheme: str = "int8", group_size: int | None = None
) -> list[Tensor]:
    """Rounds a weight to 8 or 4 bits: codes and scales.

    int8 keeps `code * scale`, with a scale for each group of a row. int4 has a scale and a minimum
    for each, so that a group whose weights are not around 0 loses nothing; of several of them those
    are taken whose codes have the least sum of squared errors.

    Args:
        weight: Floats [out, in].
        scheme: `"int8"`, a scale for each group of a row; or `"int4"`, a scale and a minimum.
            `"int4_symmetric"` has no minimum, as folders of earlier versions.
        group_size: How many weights share a scale, a multiple of 32 that divides `in`. By default
            32 for int4, and for int8 64, 32 where `in` is no multiple of 64, or a whole row. For
            int8, -1 is one scale for each row, as folders of earlier versions.

    Returns:
        [codes, scales]: int8 [out, in] and bfloat16 [out, in / group_size] (float32 [out, 1] where
        a row is one group), or uint8 [out, in / 2] with two codes a byte and uint8
        [out, 2 * in / group_size + 1] (float16 [out, in / group_size] without minimums). int8 and
        int4_symmetric keep each weight within half its scale.

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
    rows, depth = weight.shape
    given = TensorType.of(DType.float32, (rows, depth), DeviceRef.CPU())
    codes_type, kept_type = quantized_types(given, scheme, group_size)
    assert group_size is not None
    codes = xp.empty(codes_type.sizes, storage_dtype(codes_type.dtype))
    scales = xp.empty(kept_type.sizes, storage_dtype(kept_type.dtype))
    step = max(1, _ROWS_AT_ONCE // max(depth, 1))
    for start in range(0, rows, step):
        part = slice(start, start + step)
        wide = xp.asarray(weight[part], dtype=np.float32)
        if scheme == "int4":
            groups = wide.reshape(len(wide), -1, group_size)
            codes[part], scales[part] = four_bits.codes_and_scales(xp, groups)
        else:
            codes[part], scales[part] = _symmetric(xp, wide, scheme, group_size, scales.dtype)
    return [codes, scales]


def _symmetric(
    xp: ArrayModule, weights: Array, scheme: str, group_size: int, dtype: StorageDType
) -> tuple[Array, Array]:
    """Codes and scales without minimums."""
    rows, depth = weights.shape
    top = 127.0 if scheme == "int8" else 7.5
    groups = weights.reshape(rows, -1, depth if group_size == ROWS else group_size)
    scale = _scales(xp, groups, top, dtype)
    wide = scale.astype(np.float32)[..., None]
    q = xp.rint(groups / xp.where(wide == 0, np.float32(1), wide))
    if scheme != "int8":
        return four_bits.packed(xp, xp.clip(q, -8, 7) + 8), scale
    return xp.clip(q, -127, 127).reshape(rows, depth), scale


def scheme_of(codes: DType, scales: DType) -> str:
    """Returns the scheme of codes and scales of these dtypes."""
    if codes is DType.int8:
        return "int8"
    return "int4" if scales is DType.uint8 else "int4_symmetric"


def group_size_of(codes: TensorType, scales: TensorType) -> int | None:
    """Returns how many codes of a row share a scale; None where all codes of int8 do."""
    scheme = scheme_of(codes.dtype, scales.dtype)
    kept = int(scales.sizes[1])
    if scheme == "int8":
        return int(codes.sizes[1]) // kept if kept > 1 else None
    groups = kept // 2 if scheme == "int4" else kept
    return 2 * int(codes.sizes[1]) // max(1, groups)


def quantized_types(
    weight: TensorType, scheme: str, group_size: int | None
) -> tuple[TensorType, TensorType]:
    """Returns the types of codes and scales of a weight; see `quantize_weight`."""
    record = lookup("quantize_weight")
    attrs = _scheme(record, weight, scheme=scheme, group_size=group_size)
    return _codes_and_scales(record, weight, **attrs)


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


# ---- reading codes -----------------------------------------------------------------------------


def quantized_sizes(op: Op, weight: TensorType, scales: TensorType) -> tuple[int, int, int]:
    """Returns rows, depth and group size of quantised weights; raises if they do not fit.

    Raises:
        DTypeError: If codes or scales are of another kind.
        ShapeError: If they do not fit together.
    """
    has_minimums = weight.dtype is DType.uint8 and scales.dtype is DType.uint8
    fits = has_minimums or scales.dtype.is_float()
    if weight.dtype not in (DType.int8, DType.uint8) or not fits:
        raise DTypeError(
            f"{op.name}: expected codes of int8, or of uint8 with two a byte, and floating scales "
            f"(uint8 with minimums); got {weight.short()} and {scales.short()}. Hint: "
            "F.quantize_weight makes them."
        )
    if weight.rank != 2 or scales.rank != 2:
        raise ShapeError(
            f"{op.name}: expected matrices of codes and scales, got {weight.short()} and "
            f"{scales.short()}."
        )
    expect_sizes_static(op, "sizes of quantised weights", *weight.sizes, *scales.sizes)
    rows, depth, kept = int(weight.sizes[0]), int(weight.sizes[1]), int(scales.sizes[1])
    groups = kept // 2 if has_minimums else kept
    packed = weight.dtype is DType.uint8
    depth = 2 * depth if packed else depth
    group = depth // groups if groups and depth % groups == 0 else 0
    fits = (group > 0 and group % BLOCK == 0) or (not packed and groups == 1)
    fits = fits and (not has_minimums or kept % 2 == 1)
    if scales.sizes[0] != rows or not fits:
        of_groups = "[out, 2 * in / group + 1]" if has_minimums else "[out, in / group]"
        wanted = f"{of_groups} with groups of a multiple of {BLOCK}"
        wanted = wanted if packed else f"[out, 1], or {wanted}"
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
    """Turns codes and scales back into a weight; see `quantize_weight`.

    Args:
        weight: int8 [out, in], or uint8 [out, in / 2] with two codes a byte.
        scales: Floats [out, 1], or [out, in / group]; or uint8 [out, 2 * in / group + 1].
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
    """The weight in a wide dtype."""
    if codes.dtype == np.int8:
        parts = codes.astype(dtype).reshape(*scales.shape, -1) if codes.size else codes[..., None]
        return (parts * scales.astype(dtype)[..., None]).reshape(codes.shape)
    if scales.dtype == np.uint8:
        return four_bits.weights(xp, codes, scales, dtype)
    rows = codes.shape[0]
    nibbles = four_bits.unpacked(xp, codes)
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
    if scales.dtype is DType.uint8:
        floats = _with_minimums(wide, cast(scales, wide.dtype))
    else:
        groups = reshape(wide, (rows, scales.sizes[1], depth // scales.sizes[1]))
        floats = mul(groups, cast(reshape(scales, (*scales.sizes, 1)), wide.dtype))
    return matmul(x, permute(cast(reshape(floats, (rows, depth)), x.dtype), (1, 0)))


def _with_minimums(codes: Tensor, scales: Tensor) -> Tensor:
    """Weights [out, groups, group] from codes less 8 and bytes of scales, as floats."""
    rows, depth = codes.sizes
    kept = int(scales.sizes[1])
    groups = reshape(codes, (rows, kept // 2, depth // (kept // 2)))
    scale, minimum = (
        reshape(scales[:, first : first + kept // 2], (rows, kept // 2, 1))
        for first in (0, kept // 2)
    )
    unit = pow(2.0, sub(reshape(scales[:, kept - 1 :], (rows, 1, 1)), 127.0))
    return mul(add(mul(groups, scale), mul(sub(scale, minimum), 8.0)), unit)


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
        scales: Floats [out, 1], or [out, in / group]; or uint8 [out, 2 * in / group + 1].

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
    if weight.dtype == np.int8 and scales.shape[1] == 1:
        return xp.matmul(x, weight.astype(x.dtype).T) * scales[:, 0].astype(x.dtype)
    return xp.matmul(x, _weights(xp, weight, scales, x.dtype).T)
