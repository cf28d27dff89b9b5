"""Running the C compiler: trying its flags, and building shared libraries.

Imported by `host_compiler` only when something is missing in the kernel cache.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping

from maxmod.backends.host.library import HostCompiler, open_library
from maxmod.backends.refusal import refused
from maxmod.kernel import cache as kernel_cache
from maxmod.kernel.source import KernelSource

TIMEOUT_S = 300.0
VERSION_NBYTES = 256

# Every number here is meant: no -ffast-math, because NaN and infinities must survive.
_ALWAYS = (
    "-std=gnu11",
    "-O3",
    "-fPIC",
    "-shared",
    "-Werror=implicit-function-declaration",  # else an unknown function is found when loading
    "-ffp-contract=fast",  # a * b + c may round once
    "-fno-math-errno",  # sqrt and floor become instructions
    "-fno-trapping-math",  # comparisons become selects
    "-fwrapv",  # integers wrap on overflow
    "-fno-strict-aliasing",
)
# Alternatives, best first; the first that builds and loads is taken.
_NATIVE = (("-march=native",), ("-mcpu=native",), ())
_SIMD = (("-fopenmp-simd",), ())  # for the loops that are marked so; no library comes with it
# GCC 12 and older prefer 256-bit vectors everywhere. Processors with VNNI (Ice Lake, Zen 4 and
# later) run 512-bit ones at full clock.
_WIDE_VECTORS = ("-mprefer-vector-width=512",)

# One run tells everything: whether the compiler works, its version, the features of the CPU.
_SAMPLE = """
#ifdef __clang__
const char version[] = __VERSION__;
#else
const char version[] = "GCC " __VERSION__;
#endif
#ifdef __AVX512VNNI__
const int has_wide_vectors = 1;
#else
const int has_wide_vectors = 0;
#endif
void sample(float *x, long n)
{
    #pragma omp simd
    for (long i = 0; i < n; i++)
        x[i] = __builtin_sqrtf(x[i]);
}
"""


class Refused(Exception):
    """The compiler gave an error; holds its log."""


def probe(path: str, options: tuple[str, ...]) -> tuple[tuple[str, list[str]] | None, str]:
    """Finds out which flags a compiler accepts.

    Returns:
        (version, flags), or None with the reason.
    """
    problem = ""
    with _folder() as folder:
        for native in _NATIVE:
            for simd in _SIMD:
                flags = [*options, *_ALWAYS, *native, *simd]
                try:
                    library = _load(_compile(path, flags, _SAMPLE, folder), folder, "sample")
                except (Refused, OSError) as error:
                    problem = problem or f"cannot build a shared library: {_first_line(error)}"
                    continue
                if ctypes.c_int.in_dll(library, "has_wide_vectors").value:
                    flags += _WIDE_VECTORS
                version = (ctypes.c_char * VERSION_NBYTES).in_dll(library, "version").value
                return (version.decode("utf-8", "replace"), flags), ""
    return None, problem


def build_libraries(
    compiler: HostCompiler, sources: Mapping[str, KernelSource]
) -> dict[str, ctypes.CDLL]:
    """Compiles kernels side by side, saves them and loads them.

    Args:
        compiler: What compiles them.
        sources: Kernels by their keys.

    Returns:
        The libraries by their keys.

    Raises:
        CompileError: For the first kernel that the compiler refuses, after all were tried.
    """
    results: dict[str, bytes | Exception] = {}
    # Long ones first, so that no CPU works on one at the end while the others wait.
    todo = iter(sorted(sources.items(), key=lambda item: -len(item[1].plain)))
    lock = threading.Lock()

    def work(folder: str) -> None:
        while True:
            with lock:
                key, source = next(todo, (None, None))
            if key is None or source is None:
                return
            try:
                results[key] = _build_one(compiler, key, source, folder)
            except Exception as error:
                results[key] = error

    with _folder() as folder:
        count = min(len(sources), _usable_cpus() + 1)
        helpers = [  # each with a copy of the context, which holds the configuration
            threading.Thread(target=contextvars.copy_context().run, args=(work, folder))
            for _ in range(count - 1)
        ]
        for helper in helpers:
            helper.start()
        work(folder)
        for helper in helpers:
            helper.join()
        failed = [key for key in sources if isinstance(results[key], Exception)]
        if failed:
            raise _failure(compiler, failed, sources, results)
        libraries = {key: data for key, data in results.items() if isinstance(data, bytes)}
        return {key: _load_saved(key, libraries[key], folder) for key in sources}


def _build_one(compiler: HostCompiler, key: str, source: KernelSource, folder: str) -> bytes:
    text = source.full_text()
    start = time.perf_counter()
    data = _compile(compiler.path, [*compiler.flags, *source.options], text, folder)
    note = {
        "name": source.name,
        "dialect": source.dialect.value,
        "entry": source.entry,
        "compiler": compiler.version,
        "flags": list(compiler.flags),
        "options": list(source.options),
        "build_time_s": round(time.perf_counter() - start, 4),
    }
    kernel_cache.store(key, data, source=text, note=json.dumps(note, indent=1) + "\n")
    return data


def _compile(path: str, flags: list[str], text: str, folder: str) -> bytes:
    """Returns the shared library; raises `Refused` with the log."""
    handle, output = tempfile.mkstemp(suffix=".so", dir=folder)
    os.close(handle)
    # The text comes through a pipe, so that no file name gets into the library.
    command = [path, *flags, "-x", "c", "-", "-o", output, "-lm", "-lpthread"]
    try:
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise Refused(f"the compiler took longer than {TIMEOUT_S:.0f} s") from None
    except OSError as error:
        raise Refused(f"cannot be started: {error.strerror}") from None
    if done.returncode:
        log = done.stdout.decode("utf-8", "replace").strip()
        raise Refused(log or f"the compiler ended with status {done.returncode}")
    with open(output, "rb") as file:
        return file.read()


def _load_saved(key: str, data: bytes, folder: str) -> ctypes.CDLL:
    """Loads a library from the cache, or from a temporary file if it could not be saved there."""
    entry = kernel_cache.load(key)
    if entry is not None:
        with contextlib.suppress(OSError):  # a cache in a folder without execution rights
            return open_library(entry.path)
    return _load(data, folder, key)


def _load(data: bytes, folder: str, name: str) -> ctypes.CDLL:
    """Loads a library from a new file, whose name no other library of the process has."""
    path = os.path.join(folder, f"{name}.so")
    with open(path, "wb") as file:
        file.write(data)
    return open_library(path)


@contextlib.contextmanager
def _folder() -> Iterator[str]:
    """A temporary folder; libraries stay loaded after their files are gone."""
    folder = tempfile.mkdtemp(prefix="maxmod-")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _failure(
    compiler: HostCompiler,
    failed: list[str],
    sources: Mapping[str, KernelSource],
    results: Mapping[str, bytes | Exception],
) -> Exception:
    key = failed[0]
    error = results[key]
    assert isinstance(error, Exception), error
    if not isinstance(error, Refused):
        return error
    others = f" ({len(failed) - 1} more kernels failed)" if len(failed) > 1 else ""
    reason = f"{compiler.path} refused the kernel{others}"
    return refused("host_compiler", sources[key], key, reason, str(error))


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
