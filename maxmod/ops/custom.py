"""Calls of kernels that users registered with `maxmod.custom`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from maxmod import backends
from maxmod.backends.base import Backend
from maxmod.custom import CustomKernel, lookup
from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, DeviceError, OperandError, ShapeError, TraceError
from maxmod.interpreters.lazy import before_change
from maxmod.interpreters.operands import same_device, strong
from maxmod.op import Kind, Op, function, op
from maxmod.ops.context import active_trace
from maxmod.tensor import Tensor
from maxmod.tensor.buffer import Buffer
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Array, ArrayModule
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.plain import Attrs
from maxmod.values.shape import Sizes, format_sizes
from maxmod.values.tensor_type import TensorType

__all__ = ["custom", "inplace_custom"]

# (name, repr, value); the repr keeps 1, 1.0 and True apart, which are equal as keys.
Parameters = tuple[tuple[str, str, object], ...]


def _declared(
    op: Op,
    *types: TensorType,
    shapes: tuple[Sizes, ...],
    dtypes: tuple[DType, ...],
    device: DeviceRef,
    **attrs: object,
) -> tuple[TensorType, ...]:
    return tuple(TensorType.of(d, s, device) for d, s in zip(dtypes, shapes, strict=True))


def _where_operands_are(op: Op, *types: TensorType, **attrs: object) -> Attrs:
    return {**attrs, "device": types[0].device} if types else attrs


@op(Kind.OPAQUE, _declared, prepare=_where_operands_are, name="custom_kernel")
def _custom(
    xp: ArrayModule,
    values: Sequence[Tensor],
    kernel: CustomKernel,
    parameters: Parameters,
    shapes: tuple[Sizes, ...],
    dtypes: tuple[DType, ...],
    device: DeviceRef,
    mutates: bool = False,
) -> list[Tensor]:
    """Runs a registered kernel; one that `mutates` returns its operands too, changed."""
    storage = [storage_dtype(dtype) for dtype in dtypes]
    given = {name: value for name, _, value in parameters}
    if xp is not np and isinstance(kernel.cuda, str):
        outputs = [xp.empty(shape, dtype) for shape, dtype in zip(shapes, storage, strict=True)]
        _launch(xp, kernel, values, outputs, given)
        return [*values, *outputs] if mutates else outputs
    inputs = [_read_only(array) for array in values] if xp is np and not mutates else values
    made = _python_version(xp, kernel)(*inputs, **given)
    results = _listed(made)
    if len(results) != len(shapes):
        raise ShapeError(f"custom: {kernel.name} gave {len(results)} results, not {len(shapes)}.")
    found = []
    for result, shape, dtype in zip(results, shapes, storage, strict=True):
        array = xp.asarray(result, dtype=dtype)
        if tuple(array.shape) != tuple(shape):
            raise ShapeError(
                f"custom: {kernel.name} gave a result of another shape: expected "
                f"{format_sizes(shape)}, got {list(array.shape)}."
            )
        shared = any(xp.may_share_memory(array, value) for value in values)
        found.append(array.copy() if shared else array)
    return [*values, *found] if mutates else found


def _listed(made: object) -> list[Array]:
    if made is None:
        return []
    return list(made) if isinstance(made, (tuple, list)) else [made]


def _read_only(array: Array) -> Array:
    """A view that the function of a user cannot write to."""
    view = array.view()
    view.flags.writeable = False
    return view


def _python_version(xp: ArrayModule, kernel: CustomKernel) -> Callable[..., object]:
    found = kernel.numpy if xp is np else kernel.cuda
    if not callable(found):
        missing = "numpy" if xp is np else "cuda"
        raise ArgumentError(
            f"custom: {kernel.name} has no version for this device. Hint: "
            f"register({kernel.name!r}, {missing}=...)."
        )
    return found


def _launch(
    xp: ArrayModule,
    kernel: CustomKernel,
    inputs: Sequence[Array],
    outputs: Sequence[Array],
    parameters: Mapping[str, object],
) -> None:
    """Starts the CUDA text of a kernel on CuPy arrays."""
    arrays = [*(xp.ascontiguousarray(array) for array in inputs), *outputs]
    count = int((outputs or inputs)[0].size)
    numbers = [_number(kernel, name, value) for name, value in parameters.items()]
    blocks = -(-count // kernel.threads)
    if blocks:
        compiled = xp.RawKernel(kernel.cuda, kernel.entry)
        compiled((blocks,), (kernel.threads,), (*arrays, np.int64(count), *numbers))


def _number(kernel: CustomKernel, name: str, value: object) -> object:
    if isinstance(value, (bool, int)):
        return np.int64(value)
    if isinstance(value, float):
        return np.float64(value)
    raise OperandError(
        f"custom: {kernel.name}: {name}: CUDA text takes numbers only, got {value!r}."
    )


# ---- the public functions ----------------------------------------------------------------------


def _checked_parameters(name: str, parameters: Mapping[str, object] | None) -> Attrs:
    for key, value in (parameters or {}).items():
        if not isinstance(value, (bool, int, float, str, DType)):
            raise OperandError(
                f"{name}: parameters: {key}: expected a bool, int, float, str or DType, got "
                f"{type(value).__name__}."
            )
    return dict(parameters or {})


def _operands(
    name: str, device: DeviceLike, values: Sequence[TensorLike]
) -> tuple[list[Tensor], DeviceRef]:
    ref = DeviceRef.from_device(device)
    for value in values:
        if isinstance(value, Buffer):
            raise OperandError(
                f"{name}: expected tensors, got a Buffer. Hint: inplace_custom changes tensors."
            )
    tensors = [strong(name, value) for value in values]
    same_device(name, tensors)
    if tensors and tensors[0].type.device != ref:
        raise DeviceError(
            f"{name}: the operands are on another device than {ref}: {tensors[0].type!r}."
        )
    return tensors, ref


def _result_types(
    name: str,
    kernel: CustomKernel,
    tensors: Sequence[Tensor],
    out_types: object,
    parameters: Mapping[str, object],
) -> list[TensorType]:
    types: list[TensorType] = (
        [out_types] if isinstance(out_types, TensorType) else list(out_types or ())
    )
    for type in types:
        if not isinstance(type, TensorType):
            raise OperandError(f"{name}: out_types: expected TensorTypes, got {type!r}.")
    if kernel.infer is not None:
        made = kernel.infer(*(tensor.type for tensor in tensors), **parameters)
        inferred = [made] if isinstance(made, TensorType) else list(made)
        if types and not _agree(inferred, types):
            raise ShapeError(
                f"{name}: out_types are not what {kernel.name} gives: expected "
                f"{', '.join(t.short() for t in inferred)}, got "
                f"{', '.join(t.short() for t in types)}."
            )
        return inferred
    named = any(not isinstance(size, int) for type in types for size in type.sizes)
    if named and active_trace() is None:
        raise ArgumentError(
            f"{name}: out_types has names for sizes, which are known in a trace only. Hint: "
            f"register({kernel.name!r}, infer=...), or give the sizes."
        )
    return types


def _agree(inferred: Sequence[TensorType], types: Sequence[TensorType]) -> bool:
    """True if the types are those inferred; a symbolic dimension matches any size."""
    if len(inferred) != len(types):
        return False
    for found, wanted in zip(inferred, types, strict=True):
        if found.dtype is not wanted.dtype or found.rank != wanted.rank:
            return False
        pairs = zip(found.sizes, wanted.sizes, strict=True)
        if any(isinstance(a, int) and isinstance(b, int) and a != b for a, b in pairs):
            return False
    return True


@function
def custom(
    name: str,
    device: DeviceLike,
    values: Sequence[Tensor],
    out_types: Sequence[TensorType] | None,
    parameters: Mapping[str, object] | None = None,
    custom_extensions: object = None,
) -> list[Tensor]:
    """Calls a kernel that was registered with `maxmod.custom.register`.

    Args:
        name: Its name.
        device: Where it runs; the operands must be there.
        values: Tensors.
        out_types: The type of each result; may be None if the kernel has a rule for them.
        parameters: Static arguments: bool, int, float, str or DType.
        custom_extensions: Accepted for compatibility; kernels are registered in Python.

    Returns:
        A list of the results.

    Raises:
        ValueError: If there is no such kernel or no version of it for the device, operands are
            elsewhere, or results do not have the types.
        TypeError: If an operand is not a tensor, or a parameter is of another kind.

    Example:
        >>> import numpy as np
        >>> from maxmod import CPU, Tensor
        >>> from maxmod import functional as F
        >>> from maxmod.custom import register
        >>> def shifted(x, by):
        ...     return np.roll(x, by)
        >>> _ = register("doc_roll", numpy=shifted, infer=lambda x, by: x)
        >>> x = Tensor([1.0, 2.0, 3.0])
        >>> (y,) = F.custom("doc_roll", CPU(), [x], None, parameters={"by": 1})
        >>> y.to_numpy().tolist()
        [3.0, 1.0, 2.0]
    """
    kernel = lookup(name)
    given = _checked_parameters("custom", parameters)
    tensors, ref = _operands("custom", device, values)
    types = _result_types("custom", kernel, tensors, out_types, given)
    if not types:
        raise ArgumentError(f"custom: {name} must have results. Hint: inplace_custom needs none.")
    if any(type.device != ref for type in types):
        raise DeviceError(f"custom: out_types must be on {ref}, as the operands are.")
    made = _custom(tensors, **_attributes(kernel, given, types, ref))
    return made if isinstance(made, list) else [made]


def _attributes(
    kernel: CustomKernel, given: Mapping[str, object], types: Sequence[TensorType], ref: DeviceRef
) -> Attrs:
    return {
        "kernel": kernel,
        "parameters": tuple((key, repr(value), value) for key, value in given.items()),
        "shapes": tuple(type.sizes for type in types),
        "dtypes": tuple(type.dtype for type in types),
        "device": ref,
    }


@function
def inplace_custom(
    name: str,
    device: DeviceLike,
    values: Sequence[Tensor],
    out_types: Sequence[TensorType] | None = None,
    parameters: Mapping[str, object] | None = None,
    custom_extensions: object = None,
) -> list[Tensor]:
    """Calls a registered kernel that changes its operands in place; see `custom`.

    Args:
        name: Its name.
        device: Where it runs; the operands must be there.
        values: Tensors, each of which the kernel may change.
        out_types: The type of each result, if there are any.
        parameters: Static arguments: bool, int, float, str or DType.
        custom_extensions: Accepted for compatibility; kernels are registered in Python.

    Returns:
        A list of the results, empty if there are none.

    Raises:
        ValueError: As `custom`.
        TypeError: As `custom`; also while tracing, where only stores change tensors.

    Example:
        >>> from maxmod import CPU, Tensor
        >>> from maxmod import functional as F
        >>> from maxmod.custom import register
        >>> def sort_in_place(x):
        ...     x.sort()
        >>> _ = register("doc_sort", numpy=sort_in_place)
        >>> x = Tensor([3.0, 1.0, 2.0])
        >>> F.inplace_custom("doc_sort", CPU(), [x])
        []
        >>> x.to_numpy().tolist()
        [1.0, 2.0, 3.0]
    """
    kernel = lookup(name)
    given = _checked_parameters("inplace_custom", parameters)
    tensors, ref = _operands("inplace_custom", device, values)
    if active_trace() is not None:
        raise TraceError(
            f"inplace_custom: {name} cannot change tensors of a compiled function. Hint: let "
            "F.custom return the new value, and keep it with F.buffer_store."
        )
    types = _result_types("inplace_custom", kernel, tensors, out_types, given)
    for tensor in tensors:
        before_change(tensor)
        tensor.own()
    attrs = {**_attributes(kernel, given, types, ref), "mutates": True}
    backend = backends.get(ref)
    arrays = [_writable(backend, tensor) for tensor in tensors]
    every = [*(tensor.type for tensor in tensors), *types]
    made = backend.run(_custom.op, arrays, attrs, every)
    results = made[len(tensors) :]
    return [Tensor.wrap(data, type) for data, type in zip(results, types, strict=True)]


def _writable(backend: Backend, tensor: Tensor) -> Array:
    """The array of a tensor, contiguous, so that a kernel can write to it."""
    data = backend.contiguous(tensor.data)
    tensor._data = data if getattr(data.flags, "writeable", True) else data.copy()
    return tensor._data
