"""Turns the arguments of an op call into operand tensors, static arguments and result types.

Every interpreter uses `operands` and `plan`, so that a mistake gives the same error whether the
call is run, traced or postponed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from maxmod import backends
from maxmod.dtype import DType, promote, storage_dtype
from maxmod.errors import DeviceError, DTypeError, OperandError, class_name
from maxmod.op import Op, Operands, call, freeze
from maxmod.tensor import Tensor
from maxmod.tensor.buffer import Buffer
from maxmod.tensor.exchange import DLPackArray, import_array
from maxmod.tensor.like import TensorLike
from maxmod.tensor.literal import is_scalar, rounded, weak_array, weak_scalar
from maxmod.values.array import Array
from maxmod.values.device import DeviceRef
from maxmod.values.dim import Dim
from maxmod.values.plain import Attrs, Scalar
from maxmod.values.shape import Shape
from maxmod.values.tensor_type import TensorType


def operands(op: Op, args: Sequence[TensorLike]) -> Sequence[Tensor]:
    """Converts the arguments of a call to tensors by the op's `operands` policy.

    Raises:
        TypeError: For values that the op does not take.
        ValueError: If dtypes cannot be promoted, or devices differ.
    """
    policy = op.signature.operands
    if policy is _PROMOTED:
        return promote_operands(op.label, args)
    if policy is _STRONG:
        return [a if type(a) is Tensor else strong(op.label, a) for a in args]
    return promote_strong(op.label, [strong(op.label, a) for a in args])


# Looking up a member of an enumeration takes as long as a call.
_PROMOTED, _STRONG = Operands.PROMOTED, Operands.STRONG


def promote_operands(op_name: str, args: Sequence[TensorLike]) -> Sequence[Tensor]:
    """Promotes tensors and weak values to one dtype and device; one must be a tensor."""
    first = args[0]
    if type(first) is Tensor and len(args) == 2:
        second = args[1]
        like = first._type
        if type(second) is Tensor:
            other = second._type
            if other is like or (like._dtype is other._dtype and like._device == other._device):
                return first, second
        elif type(second) is int or (type(second) is float and second != 0.0):
            found = _SCALARS.get((second.__class__, second, like._dtype, like._device))
            return first, weak(op_name, second, first) if found is None else found
    found = [as_strong(a) for a in args if is_strong(a)]
    if not found:
        example = f"{args[0]!r}" if is_scalar(args[0]) else "x"
        raise OperandError(
            f"{op_name}: expected at least one Tensor, got {' and '.join(map(class_name, args))}. "
            f"Hint: Tensor({example}) makes one."
        )
    cast = promote_strong(op_name, found)
    rest = iter(cast)
    return [next(rest) if is_strong(a) else weak(op_name, a, cast[0]) for a in args]


def promote_strong(op_name: str, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Casts tensors to their common dtype; devices must be equal."""
    if not tensors:
        return tensors
    same_device(op_name, tensors)
    try:
        dtype = promote([t.dtype for t in tensors])
    except DTypeError as error:
        types = ", ".join(t.type.short() for t in tensors)
        raise DTypeError(
            f"{op_name}: {types}: {error}. Hint: use x.cast(dtype); nothing is cast silently."
        ) from None
    return [t if t.dtype is dtype else call("cast", t, dtype=dtype) for t in tensors]


def is_strong(value: object) -> bool:
    """True for tensors, and for Dims and shapes, which count as int64 tensors on the host."""
    return isinstance(value, (Tensor, Dim, Shape)) or hasattr(value, "__tensorvalue__")


def as_strong(value: Any) -> Tensor:
    """Returns the tensor of a strong value."""
    if isinstance(value, Tensor):
        return value
    if isinstance(value, Dim):
        return Tensor.from_dim(value)
    if isinstance(value, Shape):
        return call("shape_to_tensor", value)
    return value.__tensorvalue__()


def strong(op_name: str, value: object) -> Tensor:
    """Returns the tensor of a strong value; rejects numbers, arrays and everything else.

    Raises:
        TypeError: If the value is not strong.
    """
    if is_strong(value):
        return as_strong(value)
    raise OperandError(
        f"{op_name}: expected a Tensor, got {class_name(value)}. Hint: Tensor(x) makes one."
    )


_SCALARS: dict[tuple[Hashable, ...], Tensor] = backends.device_cache()


def weak(op_name: str, value: object, like: Tensor) -> Tensor:
    """Converts a Python or NumPy value to the dtype and device of a tensor.

    Raises:
        TypeError: If the value is neither a number nor an array.
        ValueError: If it would lose information.
    """
    dtype, device = like._type._dtype, like._type._device
    if is_scalar(value):
        key = (type(value), value, dtype, device)
        cached = _SCALARS.get(key)
        if cached is None or (value == 0 and not isinstance(value, int)):  # 0.0 == -0.0
            cached = _scalar(value, dtype, device)
            if len(_SCALARS) > 1024:
                _SCALARS.clear()
            _SCALARS[key] = cached
        return cached
    if isinstance(value, (np.ndarray, Buffer, DLPackArray)):
        if isinstance(value, np.ndarray):
            value = np.ascontiguousarray(value).reshape(value.shape)
        array, found = import_array(value)
        host = backends.get(found.device).to_host(array)
        data = backends.get(device).from_host(weak_array(host, dtype), device.id)
        return Tensor.wrap(data, TensorType.of(dtype, tuple(host.shape), device))
    hint = (
        " Hint: compare with None by `x is None`."
        if value is None and op_name.endswith("equal")
        else ""
    )
    raise OperandError(
        f"{op_name}: expected a tensor, a number or an array, got {class_name(value)}.{hint}"
    )


def _scalar(value: Scalar, dtype: DType, device: DeviceRef) -> Tensor:
    number = weak_scalar(value, dtype)
    host = rounded(number, dtype) if dtype.is_float() else np.array(number, storage_dtype(dtype))
    tensor = Tensor.wrap(
        backends.get(device).from_host(host, device.id), TensorType.of(dtype, (), device)
    )
    tensor._literal = number
    return tensor


class Plan(NamedTuple):
    """Static information about a call, computed before it runs.

    Attributes:
        attrs: Canonical static arguments.
        types: Types of the results.
        runners: Holds the function that runs the call on its device, after the first run.
    """

    attrs: Attrs
    types: tuple[TensorType, ...]
    runners: list[Callable[[Sequence[Array]], list[Array]]]


_PLANS: dict[tuple[Hashable, ...], Plan] = backends.device_cache()


def plan(op: Op, tensors: Sequence[Tensor], attrs: Attrs) -> Plan:
    """Returns canonical static arguments and the types of the results; cached by operand types.

    Raises:
        ValueError, TypeError, IndexError: From the op's `prepare` and type rule.
    """
    if not attrs:
        key: tuple[Hashable, ...] = (op, *[t._type for t in tensors])
    else:
        attrs = {name: freeze(value) for name, value in attrs.items()}
        # These distinguish True, 1 and 1.0, and 0.0 and -0.0, which are equal as keys.
        kinds = [
            math.copysign(1.0, value) if isinstance(value, float) else value.__class__
            for value in attrs.values()
        ]
        key = (op, *[t._type for t in tensors], *attrs.values(), *kinds)
    try:
        found = _PLANS.get(key)
    except TypeError:
        names = [name for name, value in attrs.items() if not _is_hashable(value)]
        raise OperandError(f"{op.label}: {', '.join(names)}: expected a static value.") from None
    if found is not None:
        return found
    if not op.signature.mixed_devices:
        same_device(op.label, tensors)
    types = [t._type for t in tensors]
    canonical = op.prepared(*types, **attrs)
    made = Plan(canonical, op.result_types(*types, **canonical), [])
    if len(_PLANS) > 4096:
        _PLANS.clear()
    _PLANS[key] = made
    return made


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def same_device(op_name: str, tensors: Iterable[Tensor]) -> None:
    """Raises `DeviceError` unless all tensors live on one device."""
    listed = list(tensors)
    if any(t._type._device != listed[0]._type._device for t in listed):
        lines = "\n".join(f"  {tensor._type!r}" for tensor in listed)
        raise DeviceError(
            f"{op_name}: Input values must be on the same device:\n{lines}\n"
            "Hint: move one with .to(device); transfers are never implicit."
        )
