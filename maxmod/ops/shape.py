"""Ops that rearrange elements: reshape, permute, broadcast, slice, concat, and what follows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from maxmod import backends, ir
from maxmod.affine import Index, broadcast_indices, through_reshape
from maxmod.device import DeviceLike, DeviceRef
from maxmod.dim import (
    Size,
    Sizes,
    SymbolicDim,
    as_size,
    as_sizes,
    evaluate,
    format_sizes,
    product,
)
from maxmod.errors import ArgumentError, OperandError, ShapeError
from maxmod.op import Kind, Op, Operands, function, op
from maxmod.operands import strong
from maxmod.ops.late import declare_size
from maxmod.rules import expect_int, normalize_axis, same_count
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType

V = Kind.VIEW


# ---- reshape and its relatives -----------------------------------------------------------------


def _reshape_sizes(op: Op, x: TensorType, *, shape: Any) -> dict[str, Any]:
    """Resolves a -1 in the shape."""
    sizes = list(as_sizes(shape, "reshape: shape"))
    unknown = [axis for axis, size in enumerate(sizes) if size == -1]
    if len(unknown) > 1:
        raise ShapeError(f"reshape: at most one size may be -1, got {format_sizes(sizes)}.")
    if any(isinstance(size, int) and size < -1 for size in sizes):
        raise ShapeError(f"reshape: sizes must not be negative, got {format_sizes(sizes)}.")
    if unknown:
        known = product(size for size in sizes if size != -1)
        if known == 0:
            raise ShapeError(f"reshape: -1 is undecided beside a size 0: {format_sizes(sizes)}.")
        total = product(x.sizes)
        rest = as_size(total // known) if known != total else 1
        sizes[unknown[0]] = rest
    same_count(op, x, tuple(sizes))
    return {"shape": tuple(sizes)}


def _reshaped(op: Op, x: TensorType, *, shape: Sizes) -> TensorType:
    same_count(op, x, shape)
    return x.with_sizes(shape)


def _reshape_view(indices: Any, x: TensorType, out: TensorType, *, shape: Sizes) -> list[Index]:
    return through_reshape(indices, shape, x.sizes)


@op(V, _reshaped, prepare=_reshape_sizes, view=_reshape_view)
def reshape(xp: Any, x: Tensor, shape: Iterable[Any]) -> Tensor:
    """Same elements in row-major order, in another shape.

    Args:
        x: Tensor of any dtype.
        shape: Sizes; at most one is -1 and is worked out.

    Raises:
        ValueError: If the number of elements differs, or -1 stands twice or beside a 0.
    """
    return xp.reshape(x, shape)


@function
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merges the axes from `start_dim` to `end_dim`, both included; a scalar becomes [1].

    Raises:
        IndexError: If an axis lies outside the rank.
        ValueError: If the start lies after the end.
    """
    x = strong("flatten", x)
    if x.rank == 0:
        return reshape(x, (1,))
    start = normalize_axis("flatten", start_dim, x.rank, "start_dim")
    end = normalize_axis("flatten", end_dim, x.rank, "end_dim")
    if start > end:
        raise ShapeError(f"flatten: start_dim={start_dim} lies after end_dim={end_dim}.")
    sizes = x.sizes
    return reshape(x, (*sizes[:start], product(sizes[start : end + 1]), *sizes[end + 1 :]))


@function
def squeeze(x: Tensor, axis: int) -> Tensor:
    """Drops an axis of size 1.

    Raises:
        IndexError: If the axis lies outside the rank.
        ValueError: If its size is not 1.
    """
    x = strong("squeeze", x)
    axis = normalize_axis("squeeze", axis, x.rank)
    if x.sizes[axis] != 1:
        raise ShapeError(
            f"squeeze: axis {axis} of {x.type.short()} has size {x.sizes[axis]}, not 1."
        )
    return reshape(x, (*x.sizes[:axis], *x.sizes[axis + 1 :]))


@function
def unsqueeze(x: Tensor, axis: int) -> Tensor:
    """Adds an axis of size 1 at position `axis` of the result.

    Raises:
        ValueError: If `axis` lies outside `-(rank + 1) .. rank`.
    """
    x = strong("unsqueeze", x)
    axis = normalize_axis("unsqueeze", axis, x.rank + 1)
    return reshape(x, (*x.sizes[:axis], 1, *x.sizes[axis:]))


# ---- permute -----------------------------------------------------------------------------------


def _permutation(op: Op, x: TensorType, *, dims: Any) -> dict[str, Any]:
    axes = tuple(dims)
    if len(axes) != x.rank:
        raise ShapeError(f"permute: expected {x.rank} axes for {x.short()}, got {list(axes)}.")
    axes = tuple(normalize_axis("permute", axis, x.rank) for axis in axes)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"permute: an axis stands twice in {list(axes)}.")
    return {"dims": axes}


def _permuted(op: Op, x: TensorType, *, dims: tuple[int, ...]) -> TensorType:
    return x.with_sizes(tuple(x.sizes[axis] for axis in dims))


def _permute_view(indices: Any, x: TensorType, out: TensorType, *, dims: Any) -> list[Index]:
    source: list[Any] = [None] * len(dims)
    for position, axis in enumerate(dims):
        source[axis] = indices[position]
    return source


@op(V, _permuted, prepare=_permutation, view=_permute_view)
def permute(xp: Any, x: Tensor, dims: Iterable[int]) -> Tensor:
    """Reorders the axes: axis i of the result is axis dims[i] of x.

    Raises:
        ValueError: If the number of axes is wrong or one stands twice.
        IndexError: If an axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.permute(Tensor.zeros([2, 3, 4]), [2, 0, 1]).shape
        [Dim(4), Dim(2), Dim(3)]
    """
    return xp.transpose(x, dims)


@function
def transpose(x: Tensor, axis_1: int, axis_2: int) -> Tensor:
    """Swaps two axes; a scalar is returned unchanged.

    Raises:
        IndexError: If an axis lies outside the rank.
    """
    x = strong("transpose", x)
    rank = max(x.rank, 1)
    first = normalize_axis("transpose", axis_1, rank, "axis_1")
    second = normalize_axis("transpose", axis_2, rank, "axis_2")
    if x.rank == 0:
        return x
    axes = list(range(x.rank))
    axes[first], axes[second] = second, first
    return permute(x, axes)


# ---- broadcast ---------------------------------------------------------------------------------


def _broadcast_sizes(op: Op, x: TensorType, *, shape: Any) -> dict[str, Any]:
    return {"shape": as_sizes(shape, "broadcast_to: shape")}


def _broadcasted(op: Op, x: TensorType, *, shape: Sizes) -> TensorType:
    offset = len(shape) - x.rank
    negative = any(isinstance(size, int) and size < 0 for size in shape)
    if (
        offset < 0
        or negative
        or any(size not in (1, shape[offset + axis]) for axis, size in enumerate(x.sizes))
    ):
        raise ShapeError(
            f"broadcast_to: input dimensions must be either 1 or equal to the target, aligned at "
            f"the last axis: x is {x.short()}, shape is {format_sizes(shape)}."
        )
    return x.with_sizes(shape)


def _broadcast_view(indices: Any, x: TensorType, out: TensorType, *, shape: Sizes) -> list[Index]:
    return broadcast_indices(indices, x.sizes)


@op(V, _broadcasted, prepare=_broadcast_sizes, view=_broadcast_view, name="broadcast")
def _broadcast(xp: Any, x: Tensor, shape: Sizes) -> Tensor:
    """Repeats axes of size 1 and adds leading axes."""
    return xp.broadcast_to(x, shape)


@function
def broadcast_to(x: Tensor, shape: Iterable[Any], out_dims: Any = None) -> Tensor:
    """Repeats axes of size 1 and adds leading axes, without copying where possible.

    Args:
        x: Tensor of any dtype.
        shape: Sizes of the result.
        out_dims: The sizes as they are known while tracing, where `shape` is a tensor.

    Raises:
        ValueError: If a size is neither 1 nor equal to the target.
    """
    if isinstance(shape, Tensor):
        if out_dims is None:
            raise ArgumentError("broadcast_to: a tensor as shape needs out_dims.")
        shape = _declared_sizes(x, shape, out_dims)
    return _broadcast(x, shape=shape)


def _declared_sizes(x: Tensor, shape: Tensor, out_dims: Iterable[Any]) -> Sizes:
    """Returns the sizes that a tensor holds: those declared, if it is known only at run time."""
    if shape._value is None:
        return tuple(shape.to_numpy().tolist())
    sizes = as_sizes(out_dims, "broadcast_to: out_dims")
    for axis, size in enumerate(sizes):
        if size not in x.sizes:
            declare_size(size, shape[axis], f"broadcast_to: size {axis} of out_dims")
    return sizes


# ---- slices ------------------------------------------------------------------------------------


def _sliced(op: Op, x: TensorType, *, starts: Sizes, stops: Sizes, steps: Sizes) -> TensorType:
    sizes = []
    for start, stop, step in zip(starts, stops, steps, strict=True):
        sizes.append(
            as_size((stop - start + step - 1) // step) if step != 1 else as_size(stop - start)
        )
    return x.with_sizes(tuple(sizes))


def _slice_view(
    indices: Any, x: TensorType, out: TensorType, *, starts: Sizes, stops: Sizes, steps: Sizes
) -> list[Index]:
    return [i.scaled(step) + Index((), start) for i, start, step in zip(indices, starts, steps)]


@op(V, _sliced, view=_slice_view, name="slice")
def basic_slice(xp: Any, x: Tensor, starts: Sizes, stops: Sizes, steps: Sizes) -> Tensor:
    """Elements start, start + step, ... below stop on every axis; bounds are counted from 0."""
    for size, start, stop in zip(x.shape, starts, stops, strict=True):
        if not 0 <= start <= stop <= size:
            raise ShapeError(f"slice: bounds {start}:{stop} are out of range for size {size}.")
    return x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))]


def slice_axis(x: Tensor, axis: int, start: Size, stop: Size) -> Tensor:
    """Elements start..stop of one axis."""
    starts: list[Size] = [0] * x.rank
    stops = list(x.sizes)
    starts[axis], stops[axis] = start, stop
    return basic_slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)


@function
def split(
    x: Tensor, split_size_or_sections: Any = None, axis: int = 0, *, split_sizes: Any = None
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

    Raises:
        ValueError: If the axis cannot be divided evenly, or x is a scalar.
        IndexError: If the axis lies outside the rank (also a ValueError).
        TypeError: If the axis is symbolic.
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


# ---- joining -----------------------------------------------------------------------------------


def _concat_axis(op: Op, *types: TensorType, axis: Any) -> dict[str, Any]:
    if not types:
        raise ArgumentError("concat: expected at least one tensor, got none.")
    return {"axis": normalize_axis("concat", axis, types[0].rank)}


def _concatenated(op: Op, *types: TensorType, axis: int) -> TensorType:
    first = types[0]
    total: Any = 0
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


@op(V, _concatenated, operands=Operands.STRONG_PROMOTED, prepare=_concat_axis)
def concat(xp: Any, original_vals: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Joins tensors along an axis.

    Args:
        original_vals: At least one tensor; equal sizes on the other axes, dtypes are promoted.
        axis: The axis.

    Raises:
        ValueError: If there is no tensor, or ranks or sizes differ.
        IndexError: If the axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.concat([Tensor([1.0]), Tensor([2.0, 3.0])]).to_numpy().tolist()
        [1.0, 2.0, 3.0]
    """
    return xp.concatenate(original_vals, axis=axis)


@function
def stack(values: Sequence[Tensor], axis: int = 0, device: Any = None) -> Tensor:
    """Joins tensors of one type along a new axis.

    Raises:
        ValueError: If there is no tensor, or shapes or dtypes differ.
        IndexError: If the axis lies outside `-(rank + 1) .. rank`.
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
    """Pairs (x[2k], x[2k + 1]) of the last axis as (re, im) on a new last axis of size 2.

    Raises:
        TypeError: If the last size is not known.
        ValueError: If it is odd, or x is a scalar.
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
    """
    operands = [strong("complex_mul", lhs), strong("complex_mul", rhs)]
    for x in operands:
        if x.sizes[-1:] != (2,):
            raise ShapeError(f"complex_mul: expected [..., 2], got {x.type.short()}.")
    a, b = (slice_axis(operands[0], -1, i, i + 1) for i in range(2))
    c, d = (slice_axis(operands[1], -1, i, i + 1) for i in range(2))
    return concat([a * c - b * d, a * d + b * c], axis=-1)


# ---- devices and assertions --------------------------------------------------------------------


def _on_device(op: Op, x: TensorType, *, device: Any) -> dict[str, Any]:
    return {"device": DeviceRef.from_device(device)}


def _transferred(op: Op, x: TensorType, *, device: DeviceRef) -> TensorType:
    return TensorType.of(x.dtype, x.sizes, device)


@op(Kind.OPAQUE, _transferred, prepare=_on_device, name="transfer_to")
def _transfer(xp: Any, x: Tensor, device: Any) -> Tensor:
    """Copies a tensor to a device."""
    host = backends.get(_array_device(x)).to_host(x)
    return backends.get(device).from_host(host, device.id)


def transfer_to(x: Tensor, device: DeviceLike) -> Tensor:
    """Copies a tensor to a `Device` or `DeviceRef`; if it is there already, returns it as it is."""
    return strong("transfer_to", x).to(device)


def _array_device(array: Any) -> DeviceRef:
    index = getattr(getattr(array, "device", None), "id", None)
    return DeviceRef.CPU() if index is None else DeviceRef.GPU(index)


def _rebind_sizes(op: Op, x: TensorType, *, shape: Any, message: str) -> dict[str, Any]:
    return {"shape": as_sizes(shape, "rebind: shape"), "message": message}


def _rebound(op: Op, x: TensorType, *, shape: Sizes, message: str) -> TensorType:
    known = list(zip(x.sizes, shape, strict=False))
    wrong = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in known)
    if len(shape) != x.rank or wrong:
        raise ShapeError(
            f"rebind: {x.short()} cannot have the shape {format_sizes(shape)}. {message}".rstrip()
        )
    return x.with_sizes(tuple(a if isinstance(a, int) else b for a, b in known))


def _rebind_view(indices: Any, x: TensorType, out: TensorType, **attrs: Any) -> list[Index]:
    return list(indices)


@op(V, _rebound, prepare=_rebind_sizes, view=_rebind_view)
def rebind(xp: Any, x: Tensor, shape: Iterable[Any], message: str = "") -> Tensor:
    """Asserts that a tensor has a shape, when the graph runs for sizes that are symbolic.

    Args:
        x: Tensor of any dtype.
        shape: The sizes that it must have.
        message: Added to the error.

    Raises:
        ValueError: If the rank or a known size differs, or a symbolic one at run time.
    """
    # Outside a graph a name has no size and stands for any.
    if any(isinstance(want, int) and have != want for have, want in zip(x.shape, shape)):
        raise ShapeError(
            f"rebind: expected {format_sizes(tuple(shape))}, got {format_sizes(x.shape)}. {message}"
        )
    return x


def rebound_sizes(graph: ir.Graph, dims: Mapping[str, int]) -> dict[str, int]:
    """Checks each `rebind` of a graph, before it runs: a kernel that it is part of does not.

    Args:
        graph: The graph.
        dims: The value of each name in the types of the inputs, and of what is known later.

    Returns:
        The same, with the names that `rebind` introduces. Sizes that depend on names that are not
        known yet are left out.

    Raises:
        ShapeError: If a size is another one than was asserted.
    """
    known = dict(dims)
    for node in graph.nodes:
        if node.op is not rebind.op:  # type: ignore[attr-defined]
            continue
        attrs = node.kwargs
        for have, want in zip(node.inputs[0].type.sizes, attrs["shape"], strict=True):
            if not _is_known(have, known):
                continue
            if isinstance(want, SymbolicDim) and want.name not in known:
                known[want.name] = evaluate(have, known)
            elif _is_known(want, known) and evaluate(have, known) != evaluate(want, known):
                text = f"rebind: expected {_valued(want, known)}, got {_valued(have, known)}."
                where = f"\n  at {node.source}" if node.source else ""
                raise ShapeError(f"{text} {attrs['message']}".rstrip() + where)
    return known


def _is_known(size: Size, dims: Mapping[str, int]) -> bool:
    return isinstance(size, int) or all(symbol.name in dims for symbol in size.parameters)


def _valued(size: Size, dims: Mapping[str, int]) -> str:
    return str(size) if isinstance(size, int) else f"{size} = {evaluate(size, dims)}"
