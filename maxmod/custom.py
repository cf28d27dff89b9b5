"""Kernels of users: what `F.custom` calls by name.

A kernel has a NumPy function (the host, and the meaning of the kernel), optionally CUDA text or a
CuPy function (accelerators), and optionally a rule for the types of its results.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from maxmod.errors import ArgumentError, OperandError, did_you_mean
from maxmod.kernel.cache import sha256

_NUMBERS = itertools.count(1)


@dataclass(frozen=True, slots=True, eq=False)
class CustomKernel:
    """A registered kernel; two registrations are never equal.

    Attributes:
        name: What it is called by.
        numpy: `numpy(*arrays, **parameters)` returns an array, or a tuple of them.
        cuda: CUDA C text, or a function like `numpy` on CuPy arrays; None if there is none.
        entry: Name of the `extern "C" __global__` function in the text.
        infer: `infer(*types, **parameters)` returns the type of each result; None if there is none.
        threads: Threads of one block.
        digest: Digest of the source texts, part of cache keys.
        number: Counts registrations.
    """

    name: str
    numpy: Callable[..., Any] | None
    cuda: str | Callable[..., Any] | None
    entry: str
    infer: Callable[..., Any] | None
    threads: int
    digest: str
    number: int

    def __repr__(self) -> str:
        return f"{self.name}@{self.digest[:8]}#{self.number}"


_KERNELS: dict[str, CustomKernel] = {}


def register(
    name: str,
    *,
    numpy: Callable[..., Any] | None = None,
    cuda: str | Callable[..., Any] | None = None,
    entry: str | None = None,
    infer: Callable[..., Any] | None = None,
    threads: int = 256,
) -> CustomKernel:
    """Registers a kernel under a name; an earlier one of that name is replaced.

    What was traced or compiled before keeps the kernel that it was traced with.

    Args:
        name: What `F.custom` and `F.inplace_custom` call it by.
        numpy: `numpy(*arrays, **parameters)` returns one array for each result, or changes arrays
            if it is meant for `inplace_custom`. Arrays given to `F.custom` cannot be written to.
        cuda: The same on CuPy arrays, or CUDA C text. Text is called as
            ``entry(inputs..., outputs..., long long n, parameters...)``: pointers to contiguous
            arrays, the number of elements of the first output (of the first input if there is
            none), and each int or bool parameter as ``long long``, each float as ``double``, in
            the order in which they are given. There is one thread for each of n elements.
        entry: Name of the `extern "C" __global__` function in the text; `name` by default.
        infer: `infer(*types, **parameters)` returns the types of the results; needed where
            `out_types` is not given, or has names for sizes outside a trace.
        threads: Threads of one block.

    Returns:
        The record.

    Raises:
        TypeError: If an argument is of the wrong kind.
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
        raise OperandError(f"register: name: expected a text, got {name!r}.")
    for what, function in (("numpy", numpy), ("infer", infer)):
        if function is not None and not callable(function):
            raise OperandError(f"register: {what}: expected a function, got {function!r}.")
    if cuda is not None and not isinstance(cuda, str) and not callable(cuda):
        raise OperandError(f"register: cuda: expected a text or a function, got {cuda!r}.")
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
        ValueError: If there is none of that name.
    """
    if name not in _KERNELS:
        raise ArgumentError(
            f"custom: no kernel is registered as {name!r}.{did_you_mean(str(name), _KERNELS)} "
            "Hint: maxmod.custom.register(name, numpy=...)."
        )
    return _KERNELS[name]


def _source(part: Any) -> str:
    """Returns the text of a function, or its bytecode where there is no file."""
    if part is None or isinstance(part, str):
        return part or ""
    try:
        return inspect.getsource(part)
    except (OSError, TypeError):
        code = getattr(part, "__code__", None)
        return repr(part) if code is None else f"{code.co_code.hex()} {code.co_consts!r}"
