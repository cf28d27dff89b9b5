"""Ops that rearrange elements: reshape, permute, broadcast, slice; transfers and assertions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from maxmod import backends
from maxmod.errors import ArgumentError, ShapeError, SliceError
from maxmod.interpreters.operands import strong
from maxmod.op import Kind, Op, function, ir, op
from maxmod.op.affine import ZERO, Index, broadcast_indices, through_reshape
from maxmod.op.rules import normalize_axis, same_count
from maxmod.ops.control_flow.late_sizes import declare_size
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.dim import Size, SymbolicDim, as_size, evaluate
from maxmod.values.plain import Attrs
from maxmod.values.shape import ShapeLike, Sizes, as_sizes, format_sizes, product
from maxmod.values.tensor_type import TensorType

__all__ = [
    "broadcast_to",
    "flatten",
    "permute",
    "rebind",
    "reshape",
    "squeeze",
    "transfer_to",
    "transpose",
    "unsqueeze",
]

V = Kind.VIEW


# ---- reshape and its relatives -----------------------------------------------------------------


def _reshape_sizes(op: Op, x: TensorType, *, shape: object) -> Attrs:
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
            raise ShapeError(f"reshape: -1 is ambiguous with a size of 0: {format_sizes(sizes)}.")
        total = product(x.sizes)
        rest = as_size(total // known) if known != total else 1
        sizes[unknown[0]] = rest
    same_count(op, x, tuple(sizes))
    return {"shape": tuple(sizes)}


def _reshaped(op: Op, x: TensorType, *, shape: Sizes) -> TensorType:
    same_count(op, x, shape)
    return x.with_sizes(shape)


def _reshape_view(
    indices: Sequence[Index], x: TensorType, out: TensorType, *, shape: Sizes
) -> list[Index]:
    return through_reshape(indices, shape, x.sizes)


@op(V, _reshaped, prepare=_reshape_sizes, view=_reshape_view)
def reshape(xp: ArrayModule, x: Tensor, shape: ShapeLike) -> Tensor:
    """Same elements in row-major order, in another shape.

    Args:
        x: Tensor of any dtype.
        shape: Sizes; at most one is -1 and is worked out. While tracing also names of sizes and
            terms of them, such as `x.shape[0] * 4`.

    Returns:
        The dtype of x, the shape `shape`.

    Raises:
        ValueError: If the number of elements differs, or is not known to agree; if -1 occurs twice
            or with a size of 0.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.reshape(Tensor.zeros([2, 6]), [4, -1]).shape
        [Dim(4), Dim(3)]
    """
    return xp.reshape(x, shape)


@function
def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Merges neighbouring axes into one.

    Args:
        x: Tensor of any dtype.
        start_dim: The first axis to merge.
        end_dim: The last one, included.

    Returns:
        The dtype of x; the axes are one, of the product of their sizes. A scalar becomes [1].

    Raises:
        IndexError: If an axis lies outside the rank.
        ValueError: If the start lies after the end.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.flatten(Tensor.zeros([2, 3, 4]), start_dim=1).shape
        [Dim(2), Dim(12)]
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

    Args:
        x: Tensor of any dtype.
        axis: The axis.

    Returns:
        The dtype of x, one axis less.

    Raises:
        IndexError: If the axis lies outside the rank.
        ValueError: If its size is not 1.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.squeeze(F.sum(Tensor([[1.0, 2.0], [3.0, 4.0]])), -1).to_numpy().tolist()
        [3.0, 7.0]
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
    """Adds an axis of size 1.

    Args:
        x: Tensor of any dtype.
        axis: Its position in the result, -(rank + 1) to rank.

    Returns:
        The dtype of x, one axis more.

    Raises:
        IndexError: If the axis is out of range (also a ValueError).

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.unsqueeze(Tensor([1.0, 2.0]), -1).shape
        [Dim(2), Dim(1)]
    """
    x = strong("unsqueeze", x)
    axis = normalize_axis("unsqueeze", axis, x.rank + 1)
    return reshape(x, (*x.sizes[:axis], 1, *x.sizes[axis:]))


# ---- permute -----------------------------------------------------------------------------------


def _permutation(op: Op, x: TensorType, *, dims: object) -> Attrs:
    axes = tuple(dims)
    if len(axes) != x.rank:
        raise ShapeError(f"permute: expected {x.rank} axes for {x.short()}, got {list(axes)}.")
    axes = tuple(normalize_axis("permute", axis, x.rank) for axis in axes)
    if len(set(axes)) != len(axes):
        raise ShapeError(f"permute: an axis occurs twice in {list(axes)}.")
    return {"dims": axes}


def _permuted(op: Op, x: TensorType, *, dims: tuple[int, ...]) -> TensorType:
    return x.with_sizes(tuple(x.sizes[axis] for axis in dims))


def _permute_view(
    indices: Sequence[Index], x: TensorType, out: TensorType, *, dims: Sequence[int]
) -> list[Index]:
    source = [ZERO] * len(dims)
    for position, axis in enumerate(dims):
        source[axis] = indices[position]
    return source


@op(V, _permuted, prepare=_permutation, view=_permute_view)
def permute(xp: ArrayModule, x: Tensor, dims: Iterable[int]) -> Tensor:
    """Reorders the axes: axis i of the result is axis dims[i] of x.

    Args:
        x: Tensor of any dtype.
        dims: Every axis of x once, in the new order.

    Returns:
        The dtype of x, its sizes in the new order.

    Raises:
        ValueError: If the number of axes is wrong or one occurs twice.
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
    """Swaps two axes.

    Args:
        x: Tensor of any dtype.
        axis_1: One axis.
        axis_2: The other.

    Returns:
        The dtype of x, two sizes swapped. A scalar is returned unchanged for the axes 0 and -1.

    Raises:
        IndexError: If an axis lies outside the rank.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.transpose(Tensor.zeros([2, 3, 4]), 1, -1).shape
        [Dim(2), Dim(4), Dim(3)]
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


def _broadcast_sizes(op: Op, x: TensorType, *, shape: object) -> Attrs:
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


def _broadcast_view(
    indices: Sequence[Index], x: TensorType, out: TensorType, *, shape: Sizes
) -> list[Index]:
    return broadcast_indices(indices, x.sizes)


@op(
    V,
    _broadcasted,
    prepare=_broadcast_sizes,
    view=_broadcast_view,
    label="broadcast_to",
)
def broadcast(xp: ArrayModule, x: Tensor, shape: Sizes) -> Tensor:
    """Repeats axes of size 1 and adds leading axes."""
    return xp.broadcast_to(x, shape)


@function
def broadcast_to(x: Tensor, shape: ShapeLike, out_dims: ShapeLike | None = None) -> Tensor:
    """Repeats axes of size 1 and adds leading axes, without copying where possible.

    Args:
        x: Tensor of any dtype.
        shape: Sizes of the result.
        out_dims: The sizes as they are known while tracing, where `shape` is a tensor.

    Returns:
        The dtype of x, the shape `shape`.

    Raises:
        ValueError: If a size is neither 1 nor equal to the target, or `shape` is a tensor and
            `out_dims` is missing.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.broadcast_to(Tensor([[1.0], [2.0]]), [2, 3]).to_numpy().tolist()
        [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
    """
    if isinstance(shape, Tensor):
        if out_dims is None:
            raise ArgumentError("broadcast_to: a tensor as shape needs out_dims.")
        shape = _declared_sizes(x, shape, out_dims)
    return broadcast(x, shape=shape)


def _declared_sizes(x: Tensor, shape: Tensor, out_dims: ShapeLike) -> Sizes:
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
    for size, start, stop, step in zip(x.sizes, starts, stops, steps, strict=True):
        _expect_inside(start, stop, size)
        sizes.append(
            as_size((stop - start + step - 1) // step) if step != 1 else as_size(stop - start)
        )
    return x.with_sizes(tuple(sizes))


def _expect_inside(start: Size, stop: Size, size: Size) -> None:
    """Refuses bounds that are out of range, as far as they are known."""
    known = isinstance(start, int) and isinstance(stop, int) and isinstance(size, int)
    if known and not 0 <= start <= stop <= size:  # type: ignore[operator]
        raise SliceError(
            f"index: {start}:{stop} is out of range for dimension size {size}. Hint: bounds are "
            "not clipped."
        )


def _slice_view(
    indices: Sequence[Index],
    x: TensorType,
    out: TensorType,
    *,
    starts: Sizes,
    stops: Sizes,
    steps: Sizes,
) -> list[Index]:
    return [i.scaled(step) + Index((), start) for i, start, step in zip(indices, starts, steps)]


@op(V, _sliced, view=_slice_view, name="slice")
def basic_slice(xp: ArrayModule, x: Tensor, starts: Sizes, stops: Sizes, steps: Sizes) -> Tensor:
    """Elements start, start + step, ... below stop on every axis; bounds are counted from 0."""
    for size, start, stop in zip(x.shape, starts, stops, strict=True):
        _expect_inside(start, stop, size)
    return x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps, strict=True))]


def slice_axis(x: Tensor, axis: int, start: Size, stop: Size) -> Tensor:
    """Elements start..stop of one axis."""
    starts: list[Size] = [0] * x.rank
    stops = list(x.sizes)
    starts[axis], stops[axis] = start, stop
    return basic_slice(x, starts=tuple(starts), stops=tuple(stops), steps=(1,) * x.rank)


# ---- devices and assertions --------------------------------------------------------------------


def _on_device(op: Op, x: TensorType, *, device: DeviceRef) -> Attrs:
    return {"device": DeviceRef.from_device(device)}


def _transferred(op: Op, x: TensorType, *, device: DeviceRef) -> TensorType:
    return TensorType.of(x.dtype, x.sizes, device)


@op(Kind.OPAQUE, _transferred, prepare=_on_device, name="transfer_to")
def _transfer(xp: ArrayModule, x: Tensor, device: DeviceRef) -> Tensor:
    """Copies a tensor to a device."""
    host = backends.get(_array_device(x)).to_host(x)
    return backends.get(device).from_host(host, device.id)


def transfer_to(x: Tensor, device: DeviceLike) -> Tensor:
    """Copies a tensor to a device.

    Args:
        x: Tensor of any dtype.
        device: A `Device` or `DeviceRef`.

    Returns:
        The tensor on that device; x itself if it is there already.

    Raises:
        RuntimeError: If there is no such device.

    Example:
        >>> from maxmod import CPU, Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0])
        >>> F.transfer_to(x, CPU()) is x
        True
    """
    return strong("transfer_to", x).to(device)


def _array_device(array: Array) -> DeviceRef:
    index = getattr(getattr(array, "device", None), "id", None)
    return DeviceRef.CPU() if index is None else DeviceRef.GPU(index)


def _rebind_sizes(op: Op, x: TensorType, *, shape: object, message: str) -> Attrs:
    return {"shape": as_sizes(shape, "rebind: shape"), "message": message}


def _rebound(op: Op, x: TensorType, *, shape: Sizes, message: str) -> TensorType:
    known = list(zip(x.sizes, shape, strict=False))
    wrong = any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in known)
    if len(shape) != x.rank or wrong:
        raise ShapeError(
            f"rebind: {x.short()} cannot have the shape {format_sizes(shape)}. {message}".rstrip()
        )
    return x.with_sizes(tuple(a if isinstance(a, int) else b for a, b in known))


def _rebind_view(
    indices: Sequence[Index], x: TensorType, out: TensorType, **attrs: object
) -> list[Index]:
    return list(indices)


@op(V, _rebound, prepare=_rebind_sizes, view=_rebind_view)
def rebind(xp: ArrayModule, x: Tensor, shape: ShapeLike, message: str = "") -> Tensor:
    """Asserts that a tensor has a shape, when the graph runs for sizes that are symbolic.

    Args:
        x: Tensor of any dtype.
        shape: Sizes, as many as x has axes.
        message: Added to the error.

    Returns:
        x with the given names and sizes; known sizes of x stay.

    Raises:
        ValueError: If the rank or a known size differs; when the graph runs, if a size does.

    Example:
        >>> from maxmod import CPU, DType, Module, Tensor, TensorType
        >>> from maxmod import functional as F
        >>> class Total(Module):
        ...     def forward(self, x, y):  # [m] and [n], which x + y would refuse
        ...         return x + F.rebind(y, x.shape, "x and y need one length")
        >>> m, n = (TensorType(DType.float32, [name], CPU()) for name in ("m", "n"))
        >>> Total().compile(m, n)(Tensor([1.0, 2.0]), Tensor([3.0, 4.0])).to_numpy().tolist()
        [4.0, 6.0]
    """
    # Outside a graph, a symbolic dimension matches any size.
    if any(isinstance(want, int) and have != want for have, want in zip(x.shape, shape)):
        raise ShapeError(
            f"rebind: expected {format_sizes(tuple(shape))}, got {format_sizes(x.shape)}. {message}"
        )
    return x


def rebound_sizes(graph: ir.Graph, dims: Mapping[str, int]) -> dict[str, int]:
    """Checks each `rebind` of a graph, before it runs: a kernel that it is part of does not.

    Args:
        graph: The graph.
        dims: The values of symbolic dimensions in the types of the inputs, and of later ones.

    Returns:
        The same, with the names that `rebind` introduces. Sizes that depend on names that are not
        known yet are left out.

    Raises:
        ShapeError: If a size is another one than was asserted.
    """
    known = dict(dims)
    for node in graph.nodes:
        if node.op is not rebind.op:
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
