"""Running the C compiler: trying its flags, and building shared libraries.

Imported by `host_compiler` only when something is missing in the kernel cache.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping

from maxmod.backends.host.library import (
    HostCompiler,
    Place,
    link,
    open_library,
    place_in_unit,
)
from maxmod.backends.host.progress import Progress
from maxmod.backends.host.shared import SharedLibraries
from maxmod.backends.host.units import Unit, units
from maxmod.backends.refusal import error_line, refused
from maxmod.errors import CompileError
from maxmod.kernel import cache as kernel_cache
from maxmod.kernel.source import KernelSource

TIMEOUT_S = 300.0

# Every number here is meant: no -ffast-math, because NaN and infinities must survive.
_ALWAYS = (
    "-std=gnu11",
    "-O3",
    *(() if sys.platform == "win32" else ("-fPIC",)),  # clang refuses it there: all code is so
    "-shared",
    "-Werror=implicit-function-declaration",  # else an unknown function is found when loading
    "-ffp-contract=fast",  # a * b + c may round once
    "-fno-math-errno",  # sqrt and floor become instructions
    "-fno-trapping-math",  # comparisons become selects
    "-fwrapv",  # integers wrap on overflow
    "-fno-strict-aliasing",
)
_LIBRARIES = () if sys.platform == "win32" else ("-lm", "-lpthread")
_SUFFIX = ".dll" if sys.platform == "win32" else ".so"
# Alternatives, best first; the first that builds and loads is taken.
_NATIVE = (("-march=native",), ("-mcpu=native",), ())
_SIMD = (("-fopenmp-simd",), ())  # for the loops that are marked so; no library comes with it
# GCC 12 and older prefer 256-bit vectors everywhere. Processors with VNNI (Ice Lake, Zen 4 and
# later) run 512-bit ones at full clock.
_WIDE_VECTORS = ("-mprefer-vector-width=512",)

# Macros by which compilers tell the instruction sets that they build for.
_MACROS = (
    "SSE2 SSE3 SSSE3 SSE4_1 SSE4_2 POPCNT AVX AVX2 FMA F16C BMI BMI2 LZCNT AVXVNNI AVXIFMA "
    "AVXVNNIINT8 AVXVNNIINT16 AVXNECONVERT AVX512F AVX512CD AVX512DQ AVX512BW AVX512VL AVX512IFMA "
    "AVX512VBMI AVX512VBMI2 AVX512VNNI AVX512BITALG AVX512VPOPCNTDQ AVX512BF16 AVX512FP16 AMX_TILE "
    "AMX_INT8 AMX_BF16 AMX_FP16 AVX10_1 AVX10_2 GFNI VAES",  # of x86
    "DOTPROD MATMUL_INT8 BF16 FP16_VECTOR_ARITHMETIC FMA ATOMICS SVE SVE2 SME",  # of Arm
)
_NAMES = [f"__{name}__" for name in _MACROS[0].split()]
_NAMES += [f"__ARM_FEATURE_{name}" for name in _MACROS[1].split()]
_FEATURES = "\n".join(f'#ifdef {name}\n"{name} "\n#endif' for name in _NAMES)

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
const char features[] = ""
FEATURES
;
void sample(float *x, long n)
{
    #pragma omp simd
    for (long i = 0; i < n; i++)
        x[i] = __builtin_sqrtf(x[i]);
}
""".replace("FEATURES", _FEATURES)


class Refused(Exception):
    """The compiler gave an error; holds its log."""


def probe(path: str, options: tuple[str, ...]) -> tuple[tuple[str, str, list[str]] | None, str]:
    """Finds out which flags a compiler accepts.

    Returns:
        (version, macros of the instruction sets, flags), or None with the reason.
    """
    problem = ""
    with _new_folder() as folder:
        for native in _NATIVE:
            for simd in _SIMD:
                flags = [*options, *_ALWAYS, *native, *simd]
                try:
                    library = _load(_compile(path, flags, _SAMPLE, folder), folder, "sample")
                except (Refused, OSError) as error:
                    problem = problem or f"cannot build a shared library: {error_line(str(error))}"
                    continue
                if ctypes.c_int.in_dll(library, "has_wide_vectors").value:
                    flags += _WIDE_VECTORS
                return (_text(library, "version"), _text(library, "features"), flags), ""
    return None, problem


def _text(library: ctypes.CDLL, name: str) -> str:
    """Returns a text of a library."""
    start = ctypes.addressof(ctypes.c_char.in_dll(library, name))
    return ctypes.string_at(start).decode("utf-8", "replace").replace("\n", " ").strip()


# What was started, and nobody waited for yet.
_UNFINISHED: contextvars.ContextVar[Building | None] = contextvars.ContextVar(
    "unfinished", default=None
)


def start(compiler: HostCompiler, sources: Mapping[str, KernelSource]) -> tuple[Building, set[str]]:
    """Starts to compile kernels, as many at a time as there are CPUs.

    Args:
        compiler: What compiles them.
        sources: Kernels by their keys.

    Returns:
        The work, which others may be a part of: what was started before, and not waited for yet;
        and the keys of the kernels that are not among those.
    """
    building = _UNFINISHED.get()
    if building is None or building.compiler != compiler:
        building = Building(compiler)
        _UNFINISHED.set(building)
    return building, building.add(sources)


class Building:
    """Units that are being built, and what came of them.

    Args:
        compiler: What compiles them.
    """

    def __init__(self, compiler: HostCompiler) -> None:
        self.compiler = compiler
        self._errors: dict[str, Exception] = {}
        self._built: dict[str, Place] = {}
        self._units: dict[str, Unit] = {}  # in which kernels are that need a shared library
        self._sources: dict[str, KernelSource] = {}
        self._folder = _new_folder()
        self._cpus = _usable_cpus()
        self._shared = SharedLibraries(compiler)
        self._progress = Progress()
        self._todo: deque[Unit] = deque()
        self._workers: list[threading.Thread] = []

    def add(self, sources: Mapping[str, KernelSource]) -> set[str]:
        """Builds more kernels by their keys; those that are being built are not built again.

        Returns:
            The keys of the others.
        """
        new = {key: source for key, source in sources.items() if key not in self._sources}
        shared = self._shared.missing(new.values())
        self._sources |= new
        self._progress.total += len(new) + len(shared)
        self._todo.extend(Unit({key: source}) for key, source in shared.items())
        self._todo.extend(units(new, self._cpus))
        self._start_workers()
        return set(new)

    def _start_workers(self) -> None:
        self._workers = [worker for worker in self._workers if worker.is_alive()]
        for _ in range(min(len(self._todo), self._cpus - len(self._workers))):
            # Each with a copy of the context, which holds the configuration.
            run = contextvars.copy_context().run
            self._workers.append(threading.Thread(target=run, args=(self._run_one,)))
            self._workers[-1].start()

    def results(self, keys: Iterable[str]) -> dict[str, Place | CompileError]:
        """Waits for everything.

        Returns:
            For each key where its kernel is, or the error of one that the compiler refuses or that
            cannot be loaded.
        """
        if _UNFINISHED.get() is self:
            _UNFINISHED.set(None)
        try:
            while self._todo or self._workers:  # a worker may have ended as more was added
                self._start_workers()
                self._progress.wait_for(self._workers)
                self._workers.clear()
        finally:
            self._todo.clear()  # where the user interrupts, nothing more is started
        self._link()
        self._folder.cleanup()
        return {key: self._built[key] if key in self._built else self._failure(key) for key in keys}

    def _run_one(self) -> None:
        while True:
            try:
                unit = self._todo.popleft()
            except IndexError:
                return
            self._build(unit)

    def _build(self, unit: Unit) -> None:
        try:
            built = _build_unit(self.compiler, unit, self._shared, self._folder.name)
            library = _load_saved(*built, self._folder.name)
            self._built |= {key: Place(library, unit.entry(key)) for key in unit.sources}
            self._units |= {key: unit for key in unit.sources if unit.pointer(key)}
        except Exception as error:
            smaller = unit.smaller() if isinstance(error, Refused | OSError) else []
            if smaller:
                self._todo.extend(smaller)  # only what is refused alone has failed
                return
            self._errors.update(dict.fromkeys(unit.sources, error))
        self._progress.advance(len(unit.sources))

    def _link(self) -> None:
        """Gives kernels what they share; where that was refused, it becomes a part of them."""
        left: list[Unit] = []
        needing, self._units = self._units, {}
        for key, unit in needing.items():
            source, place = unit.sources[key], self._built.pop(key)
            shared = self._shared.library(source, self._built)
            if shared is None:
                left.append(Unit({key: source}, is_whole=True))
                continue
            link(place.library, unit.pointer(key), shared)
            self._built[key] = place._replace(shared=shared)
        for unit in left:
            self._build(unit)

    def _failure(self, key: str) -> CompileError:
        source, error = self._sources[key], self._errors[key]
        if not isinstance(error, Refused | OSError):
            raise error
        verb = "refused" if isinstance(error, Refused) else "built, but cannot load,"
        reason = f"{self.compiler.path} ({self.compiler.version}) {verb} the kernel"
        return refused("host_compiler", source, key, reason, str(error))


def _build_unit(
    compiler: HostCompiler, unit: Unit, shared: SharedLibraries, folder: str
) -> tuple[str, bytes]:
    """Compiles a unit and saves it, with a note of where it is for each of its kernels.

    Returns:
        Its key in the cache, and its library.
    """
    start = time.perf_counter()
    flags = [*compiler.flags, *unit.options]
    data = _compile(compiler.path, flags, unit.text, folder)
    time_s = round(time.perf_counter() - start, 4)
    if unit.is_whole:
        ((key, source),) = unit.sources.items()
        note = _note(compiler, source, build_time_s=time_s)
        kernel_cache.store(key, data, source=unit.text, note=note)
        return key, data
    unit_key = kernel_cache.make_key("host unit", compiler.identity, "\0".join(flags), unit.text)
    names = [source.name for source in unit.sources.values()]
    about = {"kernels": names, "compiler": compiler.version, "build_time_s": time_s}
    text = json.dumps(about, indent=1) + "\n"
    if kernel_cache.store(unit_key, data, source=unit.text, note=text) is not None:
        for key, source in unit.sources.items():
            pointer = unit.pointer(key)
            needed = shared.key(source) if pointer else ""
            where = place_in_unit(unit_key, unit.entry(key), needed, pointer)
            note = _note(compiler, source, unit=unit_key)
            kernel_cache.store(key, where, source=source.full_text(), note=note)
    return unit_key, data


def _note(compiler: HostCompiler, source: KernelSource, **more: object) -> str:
    """Returns JSON text about a kernel, for people."""
    note = {
        "name": source.name,
        "dialect": source.dialect.value,
        "entry": source.entry,
        "compiler": compiler.version,
        "flags": list(compiler.flags),
        "options": list(source.options),
        **more,
    }
    return json.dumps(note, indent=1) + "\n"


def _compile(path: str, flags: list[str], text: str, folder: str) -> bytes:
    """Returns the shared library; raises `Refused` with the log."""
    handle, output = tempfile.mkstemp(suffix=_SUFFIX, dir=folder)
    os.close(handle)
    # The text comes through a pipe, so that no file name gets into the library.
    command = [path, *flags, "-x", "c", "-", "-o", output, *_LIBRARIES]
    try:
        done = subprocess.run(
            command,
            input=text.encode(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=TIMEOUT_S,
            env={**os.environ, "LC_ALL": "C"},
            # An import library is written into the current folder on Windows, beside the other.
            cwd=folder if sys.platform == "win32" else None,
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
    path = os.path.join(folder, f"{name}{_SUFFIX}")
    with open(path, "wb") as file:
        file.write(data)
    return open_library(path)


def _new_folder() -> tempfile.TemporaryDirectory[str]:
    """Returns a temporary folder; libraries stay loaded after their files are gone."""
    return tempfile.TemporaryDirectory(prefix="maxmod-", ignore_cleanup_errors=True)


def _usable_cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
