"""CUDA C to machine code through NVRTC, called with ctypes: no CuPy, no driver and no GPU needed.

The result is a cubin, not PTX: only the assembler finds wrong sizes and instructions, and a cubin
loads on every driver of the same major version. For a GPU that is newer than NVRTC it is PTX, which
the driver compiles. A kernel that is in the cache does not load NVRTC.
"""

from __future__ import annotations

import ctypes
import functools
import json
import os
import re
import time
from typing import NamedTuple

from maxmod.backends.cuda import libraries as cuda_libraries
from maxmod.backends.refusal import refused
from maxmod.errors import CompileError
from maxmod.kernel import cache as kernel_cache
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.log import logger

_OPTIONS = ("--std=c++17", "--ptxas-options=-v")  # -v: registers and spills are in the log
_HINT = (
    "Hint: pip install 'cuda-toolkit[nvrtc]==13.*', or ==12.*, whichever CUDA version the driver "
    "has; without a GPU either compiles."
)
_USAGE = re.compile(
    r"Compiling entry function '(?P<entry>\w+)'.*?"
    r"(?P<stack>\d+) bytes stack frame, (?P<spill_stores>\d+) bytes spill stores, "
    r"(?P<spill_loads>\d+) bytes spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


class Usage(NamedTuple):
    """What a kernel occupies on the device, as the assembler reports it."""

    registers: int
    stack_nbytes: int
    spill_nbytes: int


class Library(NamedTuple):
    """A loaded NVRTC."""

    handle: ctypes.CDLL
    path: str
    version: tuple[int, int]


def compile_cubin(source: KernelSource, arch: str) -> bytes:
    """Returns the machine code of a kernel, from the cache if possible.

    Args:
        source: A kernel of the CUDA dialect.
        arch: The architecture, such as `sm_90`.

    Raises:
        CompileError: If NVRTC is missing or refuses the kernel; the error has its log.
    """
    cached = cached_cubin(source, arch)
    if cached is not None:
        return cached
    start = time.perf_counter()
    cubin, log = compile_text(source, arch)
    note = _note(source, arch, log, time.perf_counter() - start)
    text = source.full_text()
    kernel_cache.store(_key(source, arch), cubin, source=text, note=note)
    return cubin


def cached_cubin(source: KernelSource, arch: str) -> bytes | None:
    """Returns the machine code of a kernel if it is in the cache."""
    entry = kernel_cache.load(_key(source, arch))
    return None if entry is None else entry.data


def _key(source: KernelSource, arch: str) -> str:
    path = _library_path()
    if path is None:
        raise CompileError(unavailable_reason())
    return kernel_cache.make_key(
        "cuda",
        arch,
        _file_identity(path),
        "\0".join((*_OPTIONS, *source.options)),
        source.entry,
        source.plain,
        shared=kernel_text.prelude(Dialect.CUDA),
    )


def compile_text(source: KernelSource, arch: str) -> tuple[bytes, str]:
    """Returns the machine code of a kernel and the log of NVRTC, without looking at the cache.

    Args:
        source: A kernel of the CUDA dialect.
        arch: The architecture, such as `sm_90`.

    Raises:
        CompileError: If NVRTC is missing or refuses the kernel.
    """
    if source.dialect is not Dialect.CUDA:
        raise CompileError(f"nvrtc: {source.name}: expected CUDA text, got {source.dialect}.")
    nvrtc = load().handle
    program = ctypes.c_void_p()
    text = source.full_text().encode()
    name = b"kernel.cu"
    _check(nvrtc, nvrtc.nvrtcCreateProgram(ctypes.byref(program), text, name, 0, None, None))
    try:
        target, result = _target(arch)
        options = [f"--gpu-architecture={target}", *_OPTIONS, *source.options]
        table = (ctypes.c_char_p * len(options))(*[option.encode() for option in options])
        status = nvrtc.nvrtcCompileProgram(program, len(options), table)
        log = _blob(nvrtc, program, "ProgramLog").rstrip(b"\0").decode("utf-8", "replace").strip()
        if status:
            raise _refused(nvrtc, source, arch, status, log)
        return _blob(nvrtc, program, result), log
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@functools.cache
def _target(arch: str) -> tuple[str, str]:
    """Returns what to compile for, and what the result is: "CUBIN" or "PTX"."""
    nvrtc = load().handle
    count = ctypes.c_int()
    _check(nvrtc, nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count)))
    known = (ctypes.c_int * count.value)()
    _check(nvrtc, nvrtc.nvrtcGetSupportedArchs(known))
    number = int("".join(filter(str.isdigit, arch)))
    if number <= max(known):
        return arch, "CUBIN"
    logger.warning(
        "nvrtc: %s is newer than this NVRTC knows; kernels are compiled for compute_%d, and by the "
        "driver. Hint: a newer 'cuda-toolkit[nvrtc]' makes better ones.",
        arch,
        max(known),
    )
    return f"compute_{max(known)}", "PTX"


def usage(log: str) -> dict[str, Usage]:
    """Returns registers and spills by entry name, from the log of `compile_text`."""
    return {
        m["entry"]: Usage(
            int(m["registers"]), int(m["stack"]), int(m["spill_stores"]) + int(m["spill_loads"])
        )
        for m in _USAGE.finditer(log)
    }


def warnings_of(log: str) -> str:
    """Returns the lines of a log that are not a resource report; empty for clean code."""
    quiet = ("ptxas info", "ptxas    ")
    lines = [line for line in log.splitlines() if line and not line.startswith(quiet)]
    return "\n".join(lines)


# ---- finding the library -------------------------------------------------------------------------


def is_available() -> bool:
    """Whether NVRTC is installed."""
    return _library_path() is not None


def unavailable_reason() -> str:
    """Returns why nothing can be compiled, with a hint; empty if it can."""
    if is_available():
        return ""
    newer, major = cuda_libraries.too_new("nvrtc"), cuda_libraries.driver_major()
    if not newer:
        return f"nvrtc: libnvrtc was not found. {_HINT}"
    return (
        f"nvrtc: {newer} is newer than the driver, which loads what CUDA {major} makes. "
        f"Hint: pip install 'cuda-toolkit[nvrtc]=={major}.*', or update the driver."
    )


@functools.cache
def load() -> Library:
    """Loads NVRTC.

    Raises:
        CompileError: If it is not installed or cannot be loaded.
    """
    path = _library_path()
    if path is None:
        raise CompileError(unavailable_reason())
    try:
        nvrtc = ctypes.CDLL(path)
    except OSError as error:
        raise CompileError(f"nvrtc: {path} cannot be loaded: {error}. {_HINT}") from None
    nvrtc.nvrtcGetErrorString.restype = ctypes.c_char_p
    program = ctypes.c_void_p
    text = ctypes.c_char_p
    nvrtc.nvrtcCreateProgram.argtypes = (program, text, text, ctypes.c_int, program, program)
    nvrtc.nvrtcCompileProgram.argtypes = (program, ctypes.c_int, program)
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(nvrtc, nvrtc.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return Library(nvrtc, path, (major.value, minor.value))


def _library_path() -> str | None:
    return cuda_libraries.find("nvrtc")


def _file_identity(path: str) -> str:
    try:
        facts = os.stat(path)
    except OSError:  # found by the loader, under its bare name
        return f"{path} {load().version}"
    return f"{path} {facts.st_size} {facts.st_mtime_ns}"


# ---- calls ---------------------------------------------------------------------------------------


def _check(nvrtc: ctypes.CDLL, status: int) -> None:
    if status:
        raise CompileError(f"nvrtc: {nvrtc.nvrtcGetErrorString(status).decode()}.")


def _blob(nvrtc: ctypes.CDLL, program: ctypes.c_void_p, what: str) -> bytes:
    size = ctypes.c_size_t()
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(nvrtc, getattr(nvrtc, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _refused(
    nvrtc: ctypes.CDLL, source: KernelSource, arch: str, status: int, log: str
) -> CompileError:
    reason = f"refused for {arch}: {nvrtc.nvrtcGetErrorString(status).decode()}"
    return refused("nvrtc", source, _key(source, arch), reason, log)


def _note(source: KernelSource, arch: str, log: str, time_s: float) -> str:
    library = load()
    used = usage(log).get(source.entry)
    note = {
        "name": source.name,
        "dialect": source.dialect.value,
        "entry": source.entry,
        "arch": arch,
        "compiler": f"NVRTC {library.version[0]}.{library.version[1]}, {library.path}",
        "options": [*_OPTIONS, *source.options],
        "build_time_s": round(time_s, 4),
        "registers": used.registers if used else None,
        "spill_nbytes": used.spill_nbytes if used else None,
    }
    return json.dumps(note, indent=1) + "\n"
