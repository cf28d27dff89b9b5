"""The default dtype and device of literals and new tensors."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from maxmod import backends
from maxmod.backends.devices import Device, device_of
from maxmod.dtype import DType, dtype_hint
from maxmod.values.device import CPU_REF, DeviceLike, DeviceRef

_DEVICE: ContextVar[DeviceRef | None] = ContextVar("maxmod_default_device", default=None)
_DTYPE: ContextVar[DType | None] = ContextVar("maxmod_default_dtype", default=None)


def resolve(
    dtype: DType | None = None, device: DeviceLike | None = None
) -> tuple[DType, DeviceRef]:
    """Fills in defaults; the device is returned as a `DeviceRef`."""
    if device is not None:
        ref = DeviceRef.from_device(device)
    else:
        ref = _DEVICE.get() or (DeviceRef.GPU() if backends.accelerator_count() else CPU_REF)
    if dtype is None:
        dtype = _DTYPE.get() or (DType.float32 if ref.is_cpu() else DType.bfloat16)
    elif not isinstance(dtype, DType):
        raise TypeError(f"dtype: expected a DType, got {dtype!r}. {dtype_hint(dtype)}")
    return dtype, ref


def defaults(dtype: DType | None = None, device: DeviceLike | None = None) -> tuple[DType, Device]:
    """Returns the dtype and device that a new tensor gets.

    Args:
        dtype: Used if given; else the active `default_dtype`, else float32 on the host and
            bfloat16 on an accelerator.
        device: Used if given; else the active `default_device`, else the first accelerator, else
            the host.

    Returns:
        The pair (dtype, device).

    Example:
        >>> from maxmod import CPU, DType, Tensor, defaults, default_dtype
        >>> defaults(device=CPU())
        (float32, Device(type=cpu,id=0))
        >>> with default_dtype(DType.float64):
        ...     defaults(device=CPU())[0], Tensor([1.0]).dtype, Tensor([1], dtype=DType.int8).dtype
        (float64, float64, int8)
    """
    dtype, ref = resolve(dtype, device)
    return dtype, device_of(ref)


T = TypeVar("T")


@contextlib.contextmanager
def contextvar_context(var: ContextVar[T], value: T) -> Iterator[T]:
    """Sets a context variable for a block, also if the block raises.

    Args:
        var: A `contextvars.ContextVar`.
        value: Its value in the block.

    Returns:
        A context manager, which gives the value.
    """
    token = var.set(value)
    try:
        yield value
    finally:
        var.reset(token)


@contextlib.contextmanager
def default_device(device: DeviceLike) -> Iterator[Device]:
    """Sets the default device for a block: ``with default_device(CPU()): ...``.

    Args:
        device: A `Device` or `DeviceRef`.

    Returns:
        A context manager, which gives the device. Blocks nest; each thread and task has its own.

    Raises:
        TypeError: If `device` is of another kind.
        RuntimeError: If there is no such device.

    Example:
        >>> from maxmod import CPU, Tensor, default_device
        >>> with default_device(CPU()) as device:
        ...     Tensor([1.0]).device == device
        True
    """
    ref = DeviceRef.from_device(device)
    with contextvar_context(_DEVICE, ref):
        yield device_of(ref)


@contextlib.contextmanager
def default_dtype(dtype: DType) -> Iterator[DType]:
    """Sets the default dtype for a block: ``with default_dtype(DType.bfloat16): ...``.

    It is the dtype of literals; arrays that have a dtype keep it.

    Args:
        dtype: The dtype.

    Returns:
        A context manager, which gives the dtype. Blocks nest; each thread and task has its own.

    Raises:
        TypeError: If `dtype` is not a `DType`.

    Example:
        >>> from maxmod import DType, nn, default_dtype
        >>> with default_dtype(DType.bfloat16):
        ...     nn.Linear(2, 3).weight.dtype
        bfloat16
    """
    dtype, _ = resolve(dtype, CPU_REF)
    with contextvar_context(_DTYPE, dtype):
        yield dtype


@contextlib.contextmanager
def defaults_like(like: Any) -> Iterator[None]:
    """Sets both defaults from a tensor or a type for a block.

    Args:
        like: Tensor or TensorType, whose dtype and device are taken.

    Returns:
        A context manager.

    Example:
        >>> from maxmod import DType, Tensor, defaults_like
        >>> with defaults_like(Tensor([1.0], dtype=DType.float64)):
        ...     Tensor.ones([2]).dtype
        float64
    """
    with default_device(like.device), default_dtype(like.dtype):
        yield
