"""Runs CUDA C++ kernels on the host: compiled with g++, each CUDA thread a fiber.

    module = Module([Code(text, "mm_kernel")])
    module.kernels[0]((64,), (256,), (x, y, np.int64(1024)), order=2)

Array arguments are copied next to inaccessible pages and copied back, so that an access outside an
array raises `ShimError`; so do too little shared memory, barriers that not all threads reach,
deadlocks and a wrong number or size of arguments. Shared memory starts as NaN. `order` chooses in
which order threads run: 0 and 1 in step, up and down; 2 and 3 each warp as far as it can, up and
down; above 3 a random order of warps. A missing barrier shows under 2 or 3.

Tensor cores, matrix loads and asynchronous copies are emulated (`cuda_shim_mma.h`); a copy is done
when its thread waits for it. Not covered: other inline PTX, clusters, races within a warp, and the
arithmetic of a GPU (the host's math library, no fused multiply-add).
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import build_cache
import numpy as np

HEADER = Path(__file__).with_name("cuda_shim.h")
COMPILER = shutil.which("g++") or shutil.which("c++")
SHARED_LIMIT = 48 << 10

_FLAGS = [
    "-std=c++17",
    "-fPIC",
    "-w",
    "-fno-strict-aliasing",
    "-ffp-contract=off",
    "-U_FORTIFY_SOURCE",
    "-fcf-protection=none",
    "-fsanitize=alignment",  # a GPU refuses what a PC merely does slowly
    "-fsanitize-undefined-trap-on-error",
]
_HEADERS = re.compile(r'^[ \t]*#[ \t]*include[ \t]*[<"]cuda_\w+\.h[>"].*$', re.M)
_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+((?:(?:__align__|alignas)\s*\([^)]*\)\s*)?)([\w: ]+?)\s+(\w+)"
    r"\s*\[\s*\]\s*;"
)
_LOCK = threading.Lock()  # the scheduler of the fibers is one global
_stacks: int | None = None  # of the fibers, for all modules


class ShimError(RuntimeError):
    """The text does not compile, or a kernel did something that a GPU would not forgive."""


@dataclass(frozen=True)
class Code:
    """Text of a kernel without its prelude, and the name of its entry function."""

    text: str
    entry: str


class Module:
    """Kernels that are compiled together.

    Args:
        codes: The kernels; they may use the same names.
        prelude: Text in front of all of them.
        runs_long: Whether running takes longer than compiling: optimising doubles or triples the
            one and halves the other.

    Raises:
        ShimError: With the messages of the compiler.
    """

    def __init__(
        self, codes: Sequence[Code], prelude: str = "", *, runs_long: bool = False
    ) -> None:
        flags = ("-O1" if runs_long else "-O0", *_FLAGS)
        self.lib = ctypes.CDLL(str(_library(_unit(codes, prelude), flags)))
        _share_stacks(self.lib)
        self.lib.shim_error.restype = ctypes.c_char_p
        self.lib.shim_alloc.restype = self.lib.shim_fault.restype = ctypes.c_void_p
        self.lib.shim_alloc.argtypes = [ctypes.c_size_t]
        self.lib.shim_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self.kernels = [Kernel(self.lib, index) for index in range(len(codes))]


def _library(unit: str, flags: tuple[str, ...]) -> Path:
    """Returns the shared library of a translation unit."""
    header = str(_compiled_header(flags)).removesuffix(".gch")
    command = [*flags, "-include", header, "-shared", "-x", "c++", "-"]
    return build_cache.cached(".so", [*_toolchain(flags), unit], lambda: _compile(command, unit))


@functools.cache
def _compiled_header(flags: tuple[str, ...]) -> Path:
    """Returns the precompiled header of the shim, which saves half of the time of a small unit."""
    command = [*flags, "-x", "c++-header", str(HEADER)]
    return build_cache.cached(".h.gch", _toolchain(flags), lambda: _compile(command))


@functools.cache
def _toolchain(flags: tuple[str, ...]) -> list[str]:
    """Returns what the result depends on, apart from the text of the unit."""
    headers = [path.read_text("utf-8") for path in sorted(HEADER.parent.glob("cuda_shim*.h"))]
    return [build_cache.identity(str(COMPILER)), *flags, *headers]


def _compile(arguments: list[str], text: str | None = None) -> bytes:
    """Runs the compiler and returns what it made; raises `ShimError` with its messages."""
    with tempfile.TemporaryDirectory(prefix="cuda_shim_") as folder:
        output = Path(folder, "output")
        command = [str(COMPILER), *arguments, "-o", str(output)]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ShimError(done.stderr)
        return output.read_bytes()


def _share_stacks(lib: Any) -> None:
    global _stacks
    lib.shim_share_stacks.restype = ctypes.c_void_p
    lib.shim_share_stacks.argtypes = [ctypes.c_void_p]
    _stacks = lib.shim_share_stacks(_stacks)


def _unit(codes: Sequence[Code], prelude: str) -> str:
    """Returns the translation unit: everything in one namespace, each kernel in its own.

    The unnamed namespace gives instances of templates internal linkage, which the section of
    shared variables needs.
    """
    parts = ["namespace {", _host_text(prelude)]
    for number, code in enumerate(codes):
        parts += [
            f"#define {code.entry} {code.entry}_{number}",
            f"namespace k{number} {{",
            f'#line 1 "kernel {number}"',
            _host_text(code.text),
            "}",
            f"#undef {code.entry}",
        ]
    parts.append("}")
    parts += [f"SHIM_EXPORT(shim_k{n}, k{n}::{c.entry}_{n})" for n, c in enumerate(codes)]
    return "\n".join(parts) + "\n"


def _host_text(text: str) -> str:
    text = _HEADERS.sub("", text).replace("#pragma once", "")
    return _DYNAMIC.sub(lambda m: f"{m[2]}* {m[3]} = ({m[2]}*)shim::C.dyn;", text)


class Kernel:
    """A kernel of a module."""

    def __init__(self, lib: Any, index: int) -> None:
        self._lib = lib
        self._run = getattr(lib, f"shim_k{index}")
        sizes = (ctypes.c_int * 256)()
        count = getattr(lib, f"shim_k{index}_sizes")(sizes)
        self.sizes = list(sizes[:count])  # bytes of each parameter, -1 for a pointer

    def __call__(
        self,
        grid: Sequence[int],
        threads: Sequence[int],
        args: Sequence[Any],
        shared_nbytes: int = 0,
        *,
        order: int = 0,
    ) -> None:
        """Launches on NumPy arrays, which the kernel may change, and NumPy numbers."""
        if len(args) != len(self.sizes):
            raise ShimError(f"the kernel takes {len(self.sizes)} arguments, got {len(args)}")
        with self._guarded(args) as guarded:
            values = [self._value(position, arg, guarded) for position, arg in enumerate(args)]
            table = (ctypes.c_void_p * max(1, len(values)))(*[v.ctypes.data for v in values])
            self.launch(grid, threads, ctypes.addressof(table), shared_nbytes, order, guarded)

    def launch(
        self,
        grid: Sequence[int],
        threads: Sequence[int],
        table: int,
        shared_nbytes: int,
        order: int = 0,
        guarded: dict[int, Any] | None = None,
    ) -> None:
        """Launches with a table of addresses of the arguments, as the driver takes it."""
        dims = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*threads, 1, 1)[:3])
        with _LOCK:
            failed = self._run(ctypes.c_void_p(table), dims, shared_nbytes, SHARED_LIMIT, order)
            if failed:
                message = self._lib.shim_error().decode()
                raise ShimError(message + _place(self._lib.shim_fault(), guarded or {}))

    def _value(self, position: int, arg: Any, guarded: dict[int, Any]) -> Any:
        size = self.sizes[position]
        if size == -1 and isinstance(arg, np.ndarray):
            return np.array(guarded[arg.ctypes.data][0], np.uint64)
        value = np.array(arg)
        if value.nbytes != (8 if size == -1 else size):
            raise ShimError(
                f"argument {position}: the parameter has {size} bytes, the value {value.nbytes}"
            )
        return value

    @contextlib.contextmanager
    def _guarded(self, args: Sequence[Any]) -> Iterator[dict[int, Any]]:
        """Copies arrays to memory that ends at an inaccessible page, and back."""
        found: dict[int, Any] = {}
        try:
            for position, array in enumerate(args):
                if not isinstance(array, np.ndarray) or array.ctypes.data in found:
                    continue
                if not array.flags.c_contiguous:
                    raise ShimError(f"argument {position} is not contiguous")
                address = self._lib.shim_alloc(array.nbytes)
                ctypes.memmove(address, array.ctypes.data, array.nbytes)
                found[array.ctypes.data] = (address, array, position)
            yield found
            for address, array, position in found.values():
                around = ctypes.string_at(address + array.nbytes, -array.nbytes % 16)
                around += ctypes.string_at(address & ~4095, address & 4095)
                if around.strip(b"\xa5"):
                    raise ShimError(f"the kernel wrote just outside argument {position}")
                if array.flags.writeable:
                    ctypes.memmove(array.ctypes.data, address, array.nbytes)
        finally:
            for address, array, _ in found.values():
                self._lib.shim_free(address, array.nbytes)


def _place(fault: int | None, guarded: dict[int, Any]) -> str:
    """Names the argument next to which a fault happened."""
    if not fault or not guarded:
        return ""

    def distance(entry: Any) -> int:
        address, array, _ = entry
        return min(abs(fault - address), abs(fault - address - array.nbytes))

    address, array, position = min(guarded.values(), key=distance)
    return f"; byte {fault - address} of argument {position}, which has {array.nbytes} bytes"


def unavailable_reason() -> str:
    """Why kernels cannot run here; empty if they can."""
    if COMPILER is None:
        return "needs g++"
    return "" if os.name == "posix" else "needs a POSIX system"
