"""The protocol that a backend implements, and what all backends share."""

from __future__ import annotations

import abc
import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from maxmod import config
from maxmod.dtype import DType, compute_dtype, storage_dtype
from maxmod.errors import CompileError, GraphError, NoAcceleratorError
from maxmod.kernel.source import ACTIVATIONS, Dialect, KernelSource
from maxmod.op import Op, lookup
from maxmod.values.array import Array, ArrayModule, HostArray, StorageDType
from maxmod.values.device import DeviceKind
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

_WIDE = {storage_dtype(d): d for d in DType if compute_dtype(d) is d}


def widened(array: Array) -> Array:
    """Returns an array in a dtype that the library computes in directly."""
    return array if array.dtype in _WIDE else array.astype(np.float32)


class Launch(Protocol):
    """A kernel with its integer arguments filled in; buffers are filled in for each call."""

    def keep(self, position: int, array: Array) -> None:
        """Sets a buffer that is the same in every call, and keeps it alive."""
        ...

    def fill(self, position: int, array: Array) -> Array:
        """Sets a buffer for the next call, and returns it; one that is not contiguous is copied."""
        ...

    def __call__(self) -> None:
        """Launches."""
        ...


class Chain(Protocol):
    """Launches that follow each other, by one call."""

    def __call__(self, done: int, addresses: Sequence[int]) -> int:
        """Launches kernels, and returns how many are launched in all.

        These are all of them, unless one has set its flag, or the time is over after which Python
        should handle signals. Then it is called again.

        Args:
            done: How many are launched already.
            addresses: The buffers that are filled in for each call; read if `done` is 0.
        """
        ...


class Kernel(Protocol):
    """A built kernel.

    Attributes:
        cached: Whether it came from the cache.
    """

    cached: bool

    def bind(self, buffers: int, scalars: Sequence[int]) -> Launch:
        """Prepares launches with the given integer arguments."""
        ...


class Stream(Protocol):
    """A stream of an accelerator, as CuPy has it; current in the block of a `with`."""

    @property
    def ptr(self) -> int:
        """Its handle."""
        ...

    def record(self) -> object:
        """Returns an event that stands behind the work that is queued now."""
        ...

    def wait_event(self, event: object) -> None:
        """Makes later work wait for an event."""
        ...

    def synchronize(self) -> None:
        """Waits for its work."""
        ...

    def __enter__(self) -> object: ...

    def __exit__(self, *error: object) -> object: ...


@dataclass(frozen=True, slots=True)
class NotRecorded:
    """Why work could not be recorded.

    Attributes:
        reason: In words.
        is_final: Whether it would be refused again.
    """

    reason: str
    is_final: bool


class Uploader(Protocol):
    """Fills arrays of a device in pieces, from memory that need not be read at once."""

    def send(self, target: Array, fill: Callable[[memoryview, int], None]) -> None:
        """Fills a contiguous array; work that is queued on the current stream later sees it.

        Args:
            target: An array of the device.
            fill: Fills a piece of host memory with the bytes that start at a position; called by
                several threads at once. When the call returns, it will not be called again.
        """
        ...


class Backend(abc.ABC):
    """What one kind of device can do. Arrays are opaque to callers: NumPy or CuPy."""

    kind: DeviceKind
    api: str

    @property
    @abc.abstractmethod
    def xp(self) -> ArrayModule:
        """The array module: numpy or cupy."""

    @abc.abstractmethod
    def device_count(self) -> int:
        """Number of usable devices."""

    @abc.abstractmethod
    def unavailable_reason(self) -> str:
        """Why `device_count` is 0 and what to install; empty if it is above 0."""

    def require(self, index: int) -> None:
        """Raises `NoAcceleratorError`, which says why, unless device `index` can be used."""
        count = self.device_count()
        if count == 0:
            raise NoAcceleratorError(
                f"Accelerator({index}): no accelerator can be used. {self.unavailable_reason()}"
            )
        if index >= count:
            raise NoAcceleratorError(
                f"Accelerator({index}): there is no such device: expected an ordinal below {count}."
            )

    @abc.abstractmethod
    def from_host(self, array: HostArray, index: int) -> Array:
        """Returns the array on device `index`; shares memory where the device is the host."""

    @abc.abstractmethod
    def to_host(self, array: Array) -> HostArray:
        """Returns the array on the host; shares memory if it is already there."""

    def later(self, array: Array) -> Callable[[], HostArray]:
        """Returns what gives the contents that a contiguous array has after the work queued so far.

        Where work is only queued, later work may overwrite the array, and is not waited for.
        """
        found = self.to_host(array).copy()
        return lambda: found

    @abc.abstractmethod
    def synchronize(self, index: int) -> None:
        """Waits for all work on device `index`."""

    @abc.abstractmethod
    def architecture(self, index: int) -> str:
        """The name of the instruction set, such as `sm_90`."""

    def empty_pinned(self, shape: tuple[int, ...], dtype: StorageDType) -> HostArray | None:
        """Returns a page-locked NumPy array, or None where memory cannot be page-locked."""
        return None

    def uploader(self, index: int) -> Uploader | None:
        """Returns what fills arrays of device `index` in pieces, or None if nothing can."""
        return None

    def stream(self, index: int, new: bool) -> Stream | None:
        """Returns a new or the default stream of device `index`; None on a synchronous device."""
        return None

    @contextlib.contextmanager
    def using(self, stream: Stream | None, index: int) -> Iterator[None]:
        """Puts work of a block on a stream, in order with the default stream before and after."""
        yield

    def wait(self, stream: Stream | None, other: Stream | None) -> None:
        """Makes later work on a stream wait for the work queued so far on another one."""
        assert stream is None and other is None, "work of this backend is done at once"

    def follow(self, last: Stream | None, index: int) -> Stream | None:
        """Orders later work of this thread after the work queued since the last call.

        Args:
            last: What the last call returned; None the first time.
            index: The device.
        """
        return None

    @abc.abstractmethod
    def address(self, array: Array) -> int:
        """Returns where the first element of an array lies."""

    # ---- recorded work -------------------------------------------------------------------------

    records = False  # whether `record` can succeed

    def record(self, work: Callable[[], None], index: int) -> Callable[[], None] | NotRecorded:
        """Records what `work` queues on device `index`, without running it.

        Memory that `work` allocates belongs to the recording.

        Returns:
            A function that queues all of it at once, on the same memory; why there is none, with a
            log message, if something cannot be recorded.
        """
        return NotRecorded(f"the {self.kind} backend records nothing", is_final=True)

    def addresses(self, arrays: Sequence[Array]) -> tuple[int, ...] | None:
        """Returns the addresses of arrays, or None if kernels would need a copy of one."""
        return None

    def copy_into(self, target: Array, source: Array) -> None:
        """Overwrites a contiguous array with another of the same type."""
        target[...] = source

    def empty_like(self, array: Array) -> Array:
        """Returns an uninitialised contiguous array of the type of another one."""
        return self.xp.empty(array.shape, array.dtype)

    # ---- kernels -------------------------------------------------------------------------------

    def dialect(self) -> Dialect | None:
        """The kernel language that can be built here, or None if ops run one by one."""
        return None

    def build(self, sources: Sequence[KernelSource], index: int) -> list[Kernel | CompileError]:
        """Builds kernels, or loads them from the cache.

        Returns:
            For each source its kernel, or the error of one that cannot be built or loaded.

        Raises:
            CompileError: If none of them can be built here.
        """
        raise CompileError(f"The {self.kind} backend builds no kernels.")

    def start_build(
        self, sources: Sequence[KernelSource], index: int
    ) -> Callable[[], list[Kernel | CompileError]]:
        """Starts to build kernels, where that can go on beside other work.

        Returns:
            A function that waits for the end and returns what `build` does. What is started before
            it is called may be built together.

        Raises:
            CompileError: As for `build`; or the function raises it.
        """
        return functools.partial(self.build, sources, index)

    def chain(
        self,
        launches: Sequence[Launch],
        fillings: Sequence[tuple[int, int, int]],
        flags: Mapping[int, Array],
    ) -> Chain | None:
        """Returns launches as one call; None where they are one by one.

        Args:
            launches: What to launch, in order.
            fillings: (number of a launch, position in it, number of an address) of the buffers
                that are filled in for each call.
            flags: For the number of a launch the flag that its kernel may set.
        """
        return None

    def empty(self, type: TensorType) -> Array:
        """Returns an uninitialised contiguous array."""
        return self.xp.empty(type.sizes, dtype=storage_dtype(type.dtype))

    def allocator(self, type: TensorType) -> Callable[[], Array]:
        """Returns a function that gives an uninitialised contiguous array in each call."""
        return lambda: self.empty(type)

    def empty_bytes(self, nbytes: int, index: int) -> Array:
        """Returns an uninitialised, 64-byte aligned block of bytes."""
        return self.xp.empty(nbytes, dtype=np.uint8)

    def view_bytes(self, block: Array, offset: int, type: TensorType) -> Array:
        """Returns an array of a type at an offset of a block."""
        count = type.num_elements() * type.dtype.size_in_bytes
        piece = block[offset : offset + count].view(storage_dtype(type.dtype))
        return piece.reshape(type.sizes)

    def copy(self, array: Array) -> Array:
        """Returns a copy of an array."""
        return array.copy()

    def contiguous(self, array: Array) -> Array:
        """Returns the array itself, or a copy with its elements in row-major order."""
        return array if array.flags.c_contiguous else self.xp.ascontiguousarray(array)

    def contract(
        self,
        lhs: Array,
        rhs: Array,
        out: Array,
        bias: Array | None = None,
        addend: Array | None = None,
        activation: str = "",
    ) -> str:
        """Writes `activation(lhs @ rhs + bias + addend)` into `out`; all arrays have one dtype.

        Args:
            lhs: Array [..., m, k].
            rhs: Array [..., k, n].
            out: Array [..., m, n].
            bias: Array of n elements, or None.
            addend: Array of the shape of `out`, or None.
            activation: A key of `maxmod.kernel.source.ACTIVATIONS`, or nothing.

        Returns:
            Why a slower way was taken than the one that is meant for these arrays, or nothing.
        """
        total = self.xp.matmul(widened(lhs), widened(rhs))
        out[...] = self._finished(total, bias, addend, activation)
        return ""

    def _finished(
        self, total: Array, bias: Array | None, addend: Array | None, activation: str
    ) -> Array:
        """Applies the epilogue of a product to its sums, op by op."""
        for added in (bias, addend):
            total = total if added is None else total + widened(added)
        if activation:
            (total,) = lookup(activation).run(self.xp, [total], **ACTIVATIONS[activation])
        return total

    def is_close(self, found: Array, expected: Array, dtype: DType, error: float = 0.0) -> bool:
        """True if two results agree within the rounding of a chain of ops in `dtype`.

        Args:
            found: A result.
            expected: What it should be.
            dtype: Their type.
            error: What may be lost in addition, as a part of the largest magnitude.
        """
        if not dtype.is_float():
            return bool((found == expected).all())
        tolerance = max(64 * float(DType.finfo(dtype).eps), error)
        a, b = (self.to_host(x).astype(np.float64) for x in (found, expected))
        scale = max(1.0, float(np.max(np.abs(b), initial=0, where=np.isfinite(b))))
        return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance * scale, equal_nan=True))

    def stats(self, index: int) -> dict[str, int]:
        """Memory numbers of device `index` in bytes."""
        return {}

    def run(
        self, op: Op, arrays: Sequence[Array], attrs: Attrs, types: Sequence[TensorType]
    ) -> list[Array]:
        """Runs the eager body of an op.

        Narrow floats are computed in float32 and rounded once at the end.

        Args:
            op: The op.
            arrays: Operands on this backend.
            attrs: Static arguments, without symbols.
            types: The inferred types of the results.

        Returns:
            One array for each type, of exactly that dtype and shape.
        """
        if op.meaning.upcasts:
            arrays = [widened(array) for array in arrays]
        method = op.meaning.backend_method
        if method is None:
            results = op.run(self.xp, arrays, **attrs)
        else:
            results = getattr(self, method)(*arrays, **attrs)
        if op.signature.mixed_devices:  # leaves operands on other devices as they are
            pairs = zip(results, types, strict=True)
            here = self.xp.ndarray
            return [self._fit(op, r, t) if isinstance(r, here) else r for r, t in pairs]
        return [self._fit(op, r, t) for r, t in zip(results, types, strict=True)]

    def runner(
        self,
        op: Op,
        operands: Sequence[TensorType],
        attrs: Attrs,
        types: Sequence[TensorType],
    ) -> Callable[[Sequence[Array]], list[Array]]:
        """Returns `run` as a function of the arrays, for operands of these types."""
        return lambda arrays: self.run(op, arrays, attrs, types)

    def quantize_weight(
        self, weight: Array, scheme: str, group_size: int | None
    ) -> Sequence[Array]:
        """Returns codes and scales of a weight [out, in]; see the op of this name."""
        op = lookup("quantize_weight")
        return op.run(self.xp, [weight], scheme=scheme, group_size=group_size)

    def _fit(self, op: Op, array: Array, type: TensorType) -> Array:
        """Rounds to the stored dtype, and turns NumPy scalars back into arrays."""
        dtype = storage_dtype(type.dtype)
        if config.current().verify:
            self._check(op, array, type)
        if isinstance(array, self.xp.ndarray) and array.dtype == dtype:
            return array
        return self.xp.asarray(array, dtype=dtype)

    def _check(self, op: Op, array: Array, type: TensorType) -> None:
        computed = storage_dtype(compute_dtype(type.dtype)) if op.meaning.upcasts else None
        if array.dtype not in (storage_dtype(type.dtype), computed) or array.shape != type.sizes:
            raise GraphError(
                f"{op.name}: the eager body returned {array.dtype}{list(array.shape)} where its "
                f"type rule says {type.short()}."
            )
