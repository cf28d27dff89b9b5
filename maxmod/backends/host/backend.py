"""The host: NumPy arrays, and kernels in C built by the system's compiler."""

from __future__ import annotations

import contextvars
import functools
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from maxmod import config, log
from maxmod.backends.base import Backend, Kernel, Launch
from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host import limits as host_limits
from maxmod.backends.host import quantize as host_quantize
from maxmod.backends.host.chain import HostChain
from maxmod.backends.host.launch import LoadedKernel, address
from maxmod.backends.host.memory import POOLED_NBYTES, HostPool
from maxmod.dtype import storage_dtype
from maxmod.errors import CompileError
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op import Kind, Op
from maxmod.values.array import Array, ArrayModule, HostArray
from maxmod.values.device import DeviceKind
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType


class CpuBackend(Backend):
    """Runs ops with NumPy and kernels through ctypes."""

    kind = DeviceKind.CPU
    api = "cpu"

    def __init__(self) -> None:
        self.pool = HostPool()

    @property
    def xp(self) -> ArrayModule:
        return np

    def device_count(self) -> int:
        return 1

    def unavailable_reason(self) -> str:
        return ""

    def from_host(self, array: HostArray, index: int) -> HostArray:
        return array

    def to_host(self, array: HostArray) -> HostArray:
        return array

    def address(self, array: Array) -> int:
        return address(array)  # type: ignore[arg-type]  # a NumPy array

    def synchronize(self, index: int) -> None:
        return None

    def architecture(self, index: int) -> str:
        return platform.machine()

    def stats(self, index: int) -> dict[str, int]:
        return host_limits.memory()

    def run(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, types: Sequence[TensorType]
    ) -> list[Array]:
        # Domain errors give NaN or infinity without a warning, on every device.
        try:
            with np.errstate(all="ignore"):
                return super().run(op, arrays, attrs, types)
        except MemoryError as error:
            raise host_limits.out_of_memory(op.label, error) from None

    def runner(
        self, op: Op, operands: Sequence[TensorType], attrs: Attrs, types: Sequence[TensorType]
    ) -> Callable[[Sequence[Array]], list[Array]]:
        general = super().runner(op, operands, attrs, types)
        is_wide = all(storage_dtype(type.dtype).char in _WIDE_CHARS for type in operands)
        is_special = op.signature.variadic or op.kind is Kind.OPAQUE
        if len(types) != 1 or is_special or not is_wide:
            return general
        body, dtype = op.meaning.eager, storage_dtype(types[0].dtype)

        def run(arrays: Sequence[Array]) -> list[Array]:  # the common case, with nothing to decide
            if config.current().verify:
                return general(arrays)
            try:
                result: Any = _quietly(body, np, *arrays, **attrs)
            except MemoryError as error:
                raise host_limits.out_of_memory(op.label, error) from None
            if type(result) is np.ndarray and result.dtype is dtype:
                return [result]  # type: ignore[list-item]  # pyright gives up on NumPy's types
            return [np.asarray(result, dtype=dtype)]  # type: ignore[list-item]

        return run

    def quantize_weight(
        self, weight: HostArray, scheme: str, group_size: int | None
    ) -> Sequence[Array]:
        # The eager body of the op raises the error, if any.
        made = host_quantize.codes_and_scales(weight, scheme, group_size)
        return made or super().quantize_weight(weight, scheme, group_size)

    # ---- kernels -------------------------------------------------------------------------------

    def dialect(self) -> Dialect | None:
        return Dialect.HOST if _compiler_found() else None

    def build(self, sources: Sequence[KernelSource], index: int) -> list[Kernel | CompileError]:
        return self.start_build(sources, index)()

    def start_build(
        self, sources: Sequence[KernelSource], index: int
    ) -> Callable[[], list[Kernel | CompileError]]:
        finish = host_compiler.start_each(sources)

        def built() -> list[Kernel | CompileError]:
            return [
                made if isinstance(made, CompileError) else LoadedKernel(made)  # type: ignore[misc]
                for made in finish()  # kernels of NumPy arrays
            ]

        return built

    def chain(
        self,
        launches: Sequence[Launch],
        fillings: Sequence[tuple[int, int, int]],
        flags: Mapping[int, Array],
    ) -> HostChain:
        return HostChain(launches, fillings, flags)  # type: ignore[arg-type]  # those of the host

    def addresses(self, arrays: Sequence[Array]) -> tuple[int, ...] | None:
        if not all(array.flags.c_contiguous for array in arrays):
            return None
        return tuple(map(self.address, arrays))

    def empty(self, type: TensorType) -> Array:
        nbytes = type.num_elements() * type.dtype.size_in_bytes
        return self.view_bytes(self.empty_bytes(nbytes, 0), 0, type)

    def allocator(self, type: TensorType) -> Callable[[], Array]:
        sizes, dtype = tuple(map(int, type.sizes)), storage_dtype(type.dtype)
        nbytes = type.num_elements() * type.dtype.size_in_bytes
        make = functools.partial(np.empty, sizes, dtype)
        if nbytes >= POOLED_NBYTES:
            make = functools.partial(self.pool.array, sizes, dtype, nbytes)

        def allocate() -> Array:
            try:
                return make()
            except MemoryError as error:
                raise host_limits.out_of_memory("an allocation", error) from None

        return allocate

    def empty_bytes(self, nbytes: int, index: int) -> HostArray:
        try:
            return self.pool.empty(nbytes)
        except MemoryError as error:
            raise host_limits.out_of_memory("an allocation", error) from None

    def contract(
        self,
        lhs: HostArray,
        rhs: HostArray,
        out: HostArray,
        bias: HostArray | None = None,
        addend: HostArray | None = None,
        activation: str = "",
    ) -> str:
        if bias is not None or addend is not None or activation:
            return super().contract(lhs, rhs, out, bias, addend, activation)
        if lhs.ndim > 2 and rhs.ndim == 2 and lhs.flags.c_contiguous:
            # One product of many rows is faster than one product for each matrix of the batch.
            rows = math.prod(lhs.shape[:-1])  # -1 would be ambiguous with a size of 0
            lhs = lhs.reshape(rows, lhs.shape[-1])
            out = out.reshape(rows, out.shape[-1])
        try:
            with np.errstate(all="ignore"):
                if lhs.dtype == out.dtype and out.dtype in _BLAS_DTYPES:
                    np.matmul(lhs, rhs, out=out)
                else:
                    super().contract(lhs, rhs, out)
        except MemoryError as error:
            raise host_limits.out_of_memory("matmul", error) from None
        return ""


# Codes of the dtypes that are computed as they are.
_WIDE_CHARS = frozenset("?bBhHiIlLqQfd")
_BLAS_DTYPES = (np.dtype(np.float32), np.dtype(np.float64))


P = ParamSpec("P")
R = TypeVar("R")

# Contexts in which NumPy warns of no floating-point error. Running in one costs a tenth of a
# `with np.errstate`. A call takes one out and puts it back: it can be entered once at a time.
_QUIET: list[contextvars.Context] = []


def _quietly(fn: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Calls a function that reads no context variable, without warnings of NumPy."""
    try:
        context = _QUIET.pop()
    except IndexError:
        context = contextvars.Context()
        context.run(np.seterr, all="ignore")
    result = context.run(fn, *args, **kwargs)
    _QUIET.append(context)
    return result


@functools.cache
def _compiler_found() -> bool:
    """Looks for a C compiler once; says once that there is none."""
    reason = host_compiler.unavailable_reason()
    if reason:
        log.logger.warning("Compiled models run op by op: %s", reason)
    return not reason
