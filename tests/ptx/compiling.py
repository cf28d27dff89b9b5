"""CUDA text to PTX, with NVRTC."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from dataclasses import replace

import build_cache

from maxmod.backends.cuda import nvrtc
from maxmod.errors import CompileError
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.kernel.text import prelude
from ptx.text import Kernel, parse

ARCHITECTURE = "compute_90"
_OPTIONS = ("--std=c++17",)


def together(sources: Sequence[KernelSource]) -> KernelSource:
    """Puts kernels into one source, each in its own namespace, with its number behind its name.

    The prelude is read once for all of them.
    """
    parts: list[str] = []
    for number, source in enumerate(sources):
        parts += [
            f"#define {source.entry} {source.entry}_{number}",
            f"namespace k{number} {{",
            source.plain,
            "}",
            f"#undef {source.entry}",
        ]
    return replace(sources[0], plain="\n".join(parts))


def kernels_of(sources: Sequence[KernelSource], arch: str = ARCHITECTURE) -> list[Kernel]:
    """Compiles kernels together and returns them as PTX, in order."""
    found = {kernel.name: kernel for kernel in parse(ptx_of(together(sources), arch))}
    return [found[f"{source.entry}_{number}"] for number, source in enumerate(sources)]


def ptx_of(source: KernelSource, arch: str = ARCHITECTURE) -> str:
    """Returns the PTX of a source; what tests compiled before comes from their cache."""
    if build_cache.FOLDER not in os.environ:
        return _compile(source, arch).decode()
    version = map(str, nvrtc.load().version)
    parts = [nvrtc.__name__, *version, arch, *_OPTIONS, *source.options]
    parts += [prelude(Dialect.CUDA), source.plain]
    return build_cache.cached(".ptx", parts, lambda: _compile(source, arch)).read_text("utf-8")


def _compile(source: KernelSource, arch: str) -> bytes:
    lib = nvrtc.load().handle
    program = ctypes.c_void_p()
    text = source.full_text().encode()
    options = [f"--gpu-architecture={arch}", *_OPTIONS, *source.options]
    table = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
    nvrtc._check(lib, lib.nvrtcCreateProgram(ctypes.byref(program), text, b"", 0, None, None))
    try:
        if lib.nvrtcCompileProgram(program, len(options), table):
            raise CompileError(nvrtc._blob(lib, program, "ProgramLog").decode())
        return nvrtc._blob(lib, program, "PTX").rstrip(b"\0")
    finally:
        lib.nvrtcDestroyProgram(ctypes.byref(program))
