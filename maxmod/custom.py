"""User-defined kernels, which `F.custom` calls by name.

A kernel has a NumPy function (for the host, and as its definition), optionally CUDA source or a
CuPy function (for accelerators), and optionally a type rule for its results.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass

from maxmod.errors import ArgumentError, OperandError, did_you_mean
from maxmod.kernel.cache import sha256

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, eq=False)
class CustomKernel:
    """A registered kernel; two registrations are never equal.

    Attributes:
        name: The name to call it by.
        numpy: `numpy(*arrays, **parameters)` returns an array, or a tuple of them.
        cuda: CUDA C source, or a function like `numpy` on CuPy arrays, or None.
        entry: Name of the `extern "C" __global__` function in the source.
        infer: `infer(*types, **parameters)` returns the type of each result; or None.
        threads: Threads per block.
        digest: Digest of the sources, part of cache keys.
        number: Counts registrations.
    """

    name: str
    numpy: Callable[..., object] | None
    cuda: str | Callable[..., object] | None
    entry: str
    infer: Callable[..., object] | None
    threads: int
    digest: str
    number: int

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:8]}#{self.number}"


_KERNELS: dict[str, CustomKernel] = {}


def register(
    name: str,
    *,
    numpy: Callable[..., object] | None = None,
    cuda: str | Callable[..., object] | None = None,
    entry: str | None = None,
    infer: Callable[..., object] | None = None,
    threads: int = 256,
) -> CustomKernel:
    """Registers a kernel under a name, replacing an earlier one of that name.

    Functions that are already traced or compiled keep the kernel that they were traced with.

    Args:
        name: The name for `F.custom` and `F.inplace_custom`.
        numpy: `numpy(*arrays, **parameters)` returns one array for each result, or changes arrays
            in place for `inplace_custom`. Arrays passed to `F.custom` are read-only.
        cuda: The same on CuPy arrays, or CUDA C source, which is called as
            ``entry(inputs..., outputs..., long long n, parameters...)``: pointers to contiguous
            arrays, the number of elements of the first output (of the first input if there is
            none), and each int or bool parameter as ``long long``, each float as ``double``, in
            the order in which they are given. There is one thread for each of n elements.
        entry: Name of the `extern "C" __global__` function in the source; `name` by default.
        infer: `infer(*types, **parameters)` returns the types of the results; needed where
            `out_types` is not given, or has symbolic dimensions outside a trace.
        threads: Threads per block.

    Returns:
        The record.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If there is neither a NumPy nor a CUDA version, or the number of threads is
            out of range.

    Example:
        >>> import maxmod
        >>> from maxmod import Tensor, functional as F
        >>> _ = maxmod.custom.register("twice_plus", numpy=lambda x, add: x * 2 + add)
        >>> x = Tensor([1.0, 2.0])
        >>> F.custom("twice_plus", x.device, [x], [x.type], {"add": 1})[0].to_numpy().tolist()
        [3.0, 5.0]
    """
    if not isinstance(name, str) or not name:
        raise OperandError(f"register: name: expected a non-empty str, got {name!r}.")
    for what, function in (("numpy", numpy), ("infer", infer)):
        if function is not None and not callable(function):
            raise OperandError(f"register: {what}: expected a function, got {function!r}.")
    if cuda is not None and not isinstance(cuda, str) and not callable(cuda):
        raise OperandError(f"register: cuda: expected a str or a function, got {cuda!r}.")
    if numpy is None and cuda is None:
        raise ArgumentError(f"register: {name!r} needs a numpy function, a cuda version, or both.")
    if not 1 <= threads <= 1024:
        raise ArgumentError(f"register: threads: expected 1 to 1024, got {threads}.")
    text = "\0".join((name, entry or name, str(threads), *map(_source, (numpy, cuda, infer))))
    digest = sha256(text.encode()).hexdigest()
    kernel = CustomKernel(name, numpy, cuda, entry or name, infer, threads, digest, next(_NUMBERS))
    _KERNELS[name] = kernel
    return kernel


def lookup(name: str) -> CustomKernel:
    """Returns a registered kernel.

    Raises:
        ValueError: If none has that name.
    """
    if name not in _KERNELS:
        raise ArgumentError(
            f"custom: no kernel is registered as {name!r}.{did_you_mean(str(name), _KERNELS)} "
            "Hint: maxmod.custom.register(name, numpy=...)."
        )
    return _KERNELS[name]


def _source(part: str | Callable[..., object] | None) -> str:
    """Returns the source of a function, or its bytecode where there is no file."""
    if part is None or isinstance(part, str):
        return part or ""
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        code = getattr(part, "__code__", None)
        return repr(part) if code is None else f"{code.co_code.hex()} {code.co_consts!r}"
