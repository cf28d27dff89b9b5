"""Building host kernels: the cache, parallel builds, failures, and machines without a compiler."""

from __future__ import annotations

import ctypes
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import maxmod
from maxmod.backends.host import compiler as host_compiler
from maxmod.errors import CompileError
from maxmod.kernel import cache as kernel_cache
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource

NO_COMPILER = host_compiler.unavailable_reason()
needs_compiler = pytest.mark.skipif(bool(NO_COMPILER), reason=NO_COMPILER or "-")
pytestmark = pytest.mark.usefixtures("cache_folder")


def source(number: int = 1, name: str = "add", **changes: object) -> KernelSource:
    """Returns a kernel that adds a number to an array of float."""
    code = (
        "void mm_kernel(void *const *buffers, const int64_t *scalars)\n"
        "{\n"
        "    float *x = buffers[0];\n"
        "    for (int64_t i = 0; i < scalars[0]; i++)\n"
        f"        x[i] += {number};\n"
        "}\n"
    )
    values = {"name": name, "dialect": Dialect.HOST, "plain": code, "entry": "mm_kernel"}
    return KernelSource(**{**values, "buffers": 1, "scalars": 1, **changes})  # type: ignore[arg-type]


def run(kernel: host_compiler.HostKernel, array: np.ndarray) -> None:
    buffers = (ctypes.c_void_p * 1)(array.ctypes.data)
    scalars = (ctypes.c_int64 * 1)(array.size)
    kernel(ctypes.addressof(buffers), ctypes.addressof(scalars))


@needs_compiler
def test_build_and_cache(cache_folder: Path) -> None:
    first = host_compiler.build(source())
    assert not first.cached
    second = host_compiler.build(source(name="another name"))
    assert second.cached
    assert second.key == first.key
    x = np.zeros(5, np.float32)
    run(first, x)
    run(second, x)
    assert x.tolist() == [2.0] * 5
    note = json.loads((cache_folder / f"{first.key}.json").read_text())
    assert note["name"] == "add"
    assert note["compiler"] == host_compiler.find().version
    text = (cache_folder / f"{first.key}.src").read_text()
    assert text == source().full_text()


@needs_compiler
def test_entry_pointer_is_callable() -> None:
    kernel = host_compiler.build(source())
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)(kernel.entry_pointer)
    x = np.zeros(3, np.float32)
    function((ctypes.c_void_p * 1)(x.ctypes.data), (ctypes.c_int64 * 1)(3))
    assert x.tolist() == [1.0] * 3
    assert repr(kernel) == "HostKernel('add')"


@needs_compiler
def test_many_at_once() -> None:
    """Order is kept, and equal kernels are built once."""
    host_compiler.build(source(3))
    numbers = [1, 2, 3, 2, 1]
    kernels = host_compiler.build_all([source(n) for n in numbers])
    assert [kernel.cached for kernel in kernels] == [False, False, True, False, False]
    assert all(host_compiler.build(source(n)).cached for n in numbers)
    assert kernels[0] is kernels[4]
    for number, kernel in zip(numbers, kernels, strict=True):
        x = np.zeros(2, np.float32)
        run(kernel, x)
        assert x.tolist() == [number] * 2
    assert host_compiler.build_all([]) == []


@needs_compiler
def test_every_input_changes_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    base = host_compiler.build(source()).key
    other_entry = source().plain.replace("mm_kernel", "mm_other")
    changed = [
        source(2),
        source(options=("-O1",)),
        source(plain=other_entry, entry="mm_other"),
    ]
    keys = {host_compiler.build(s).key for s in changed}
    monkeypatch.setattr(kernel_text, "prelude", lambda *args: "#include <stdint.h>\n")
    keys.add(host_compiler.build(source()).key)
    monkeypatch.undo()
    compiler = host_compiler.find()
    assert compiler is not None
    other = compiler._replace(identity=compiler.identity + " of another version")
    monkeypatch.setattr(host_compiler, "find", lambda: other)
    keys.add(host_compiler.build(source()).key)
    assert len(keys) == 5
    assert base not in keys


@needs_compiler
def test_damaged_entry_is_built_again(cache_folder: Path) -> None:
    key = host_compiler.build(source()).key
    file = cache_folder / f"{key}.bin"
    file.unlink()  # a loaded library must not change in place
    file.write_bytes(b"not a library")
    kernel = host_compiler.build(source())
    assert not kernel.cached
    x = np.zeros(2, np.float32)
    run(kernel, x)
    assert x.tolist() == [1.0, 1.0]


@needs_compiler
def test_entry_that_is_not_a_library_is_built_again() -> None:
    """The digest is right, but what it covers cannot be loaded."""
    with maxmod.configure(nocache=True):
        key = host_compiler.build(source()).key
    kernel_cache.store(key, b"bytes of something else")
    kernel = host_compiler.build(source())
    assert not kernel.cached
    x = np.zeros(2, np.float32)
    run(kernel, x)
    assert x.tolist() == [1.0, 1.0]


@needs_compiler
def test_without_cache(cache_folder: Path) -> None:
    with maxmod.configure(nocache=True):
        kernels = host_compiler.build_all([source(1), source(2)])
        again = host_compiler.build(source(1))
    assert not again.cached
    x = np.zeros(2, np.float32)
    for kernel in (*kernels, again):
        run(kernel, x)
    assert x.tolist() == [4.0, 4.0]
    assert not list(cache_folder.glob("*.bin"))


@needs_compiler
def test_refused_kernel(cache_folder: Path) -> None:
    bad = source(plain="void mm_kernel(void *const *b, const int64_t *s)\n{\n    return 1 +;\n}\n")
    with pytest.raises(CompileError, match=r"host_compiler: add: .* refused the kernel") as caught:
        host_compiler.build_all([source(1), bad, source(2)])
    error = caught.value
    assert "kernel.c:3" in error.log
    assert "error" in str(error)
    assert error.source_path in str(error)
    assert Path(error.source_path).parent == cache_folder
    assert Path(error.source_path).read_text() == bad.full_text()
    assert host_compiler.build(source(1)).cached  # the others were built and kept


@needs_compiler
def test_a_kernel_that_calls_an_unknown_function_is_refused() -> None:
    """Building tells, not loading, which happens later."""
    bad = source(plain="void mm_kernel(void *const *b, const int64_t *s)\n{\n    mm_none(1);\n}\n")
    with pytest.raises(CompileError, match="refused the kernel") as caught:
        host_compiler.build_all([bad])
    assert "mm_none" in caught.value.log


@needs_compiler
def test_other_dialect_is_refused() -> None:
    with pytest.raises(CompileError, match="add: expected host text, got Dialect.CUDA"):
        host_compiler.build(source(dialect=Dialect.CUDA))


def test_no_compiler() -> None:
    with maxmod.configure(cc="no-such-compiler"):
        assert host_compiler.find() is None
        reason = host_compiler.unavailable_reason()
        assert "no C compiler works: no-such-compiler: not found" in reason
        assert "MAXMOD_CC" in reason
        with pytest.raises(CompileError, match="no C compiler works"):
            host_compiler.build(source())


def test_compiler_that_fails(tmp_path: Path) -> None:
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\necho 'license expired' >&2\nexit 1\n")
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with maxmod.configure(cc=str(script)):
        assert host_compiler.find() is None
        assert (
            "cannot build a shared library: license expired" in host_compiler.unavailable_reason()
        )


@needs_compiler
def test_compiler_without_simd_pragmas(tmp_path: Path) -> None:
    """A compiler that knows nothing of OpenMP, not even its marks for vector loops."""
    real = host_compiler.find()
    assert real is not None
    script = tmp_path / "cc"
    refuse = 'for a in "$@"; do [ "$a" = -fopenmp-simd ] && exit 1; done\n'
    script.write_text(f'#!/bin/sh\n{refuse}exec {real.path} "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    with maxmod.configure(cc=str(script)):
        compiler = host_compiler.find()
        assert compiler is not None
        assert "-fopenmp-simd" not in compiler.flags
        x = np.zeros(2, np.float32)
        run(host_compiler.build(source()), x)
        assert x.tolist() == [1.0, 1.0]


@needs_compiler
def test_order_of_names(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = host_compiler.find()
    assert real is not None
    for name in ("mine", "cc"):
        (tmp_path / name).symlink_to(real.path)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("CC", raising=False)
    with maxmod.configure(cc=""):
        assert host_compiler.find().path == str(tmp_path / "cc")
        monkeypatch.setenv("CC", "mine -g0")
        assert host_compiler.find().path == str(tmp_path / "mine")
        assert host_compiler.find().flags[0] == "-g0"
    with maxmod.configure(cc=real.path):
        assert host_compiler.find().path == real.path


_WARM = """
import ctypes, sys
from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel.source import Dialect, KernelSource
code = "void k(void *const *b, const int64_t *s) { *(float *)b[0] = 7; }"
kernel = host_compiler.build(KernelSource("k", Dialect.HOST, code, "k", 1, 0))
value = ctypes.c_float()
kernel((ctypes.c_void_p * 1)(ctypes.addressof(value)), None)
heavy = [m for m in ("subprocess", "tempfile", "platformdirs", "hashlib") if m in sys.modules]
print(value.value, kernel.cached, heavy)
"""


@needs_compiler
def test_processes(cache_folder: Path) -> None:
    """Four processes on a cold cache, then a warm start that runs and imports no compiler."""
    environ = {**os.environ, "MAXMOD_CACHE_DIR": str(cache_folder.parent)}
    command = [sys.executable, "-W", "error", "-c", _WARM]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    racers = [subprocess.Popen(command, env=environ, **pipes) for _ in range(4)]
    outputs = [racer.communicate()[0] for racer in racers]
    assert [output.split()[0] for output in outputs] == ["7.0"] * 4
    warm = subprocess.run(command, env=environ, check=False, **pipes)
    assert warm.stdout == "7.0 True []\n"


@needs_compiler
@pytest.mark.parametrize("name", ["exp", "log", "log1p", "sin", "tanh", "erf", "gelu_tanh", "pow"])
def test_functions_become_vector_code(name: str) -> None:
    """GCC reports each loop that it vectorises; what it does not is ten times slower."""
    compiler = host_compiler.find()
    assert compiler is not None
    if not compiler.version.startswith("GCC"):
        pytest.skip("only GCC reports vectorised loops in this form")
    text = kernel_text.prelude(Dialect.HOST, f"mm_{name}(") + (
        '#line 1 "loop.c"\n'
        "void loop(float *restrict x, int64_t n)\n{\n#pragma omp simd\n"
        "for (int64_t i = 0; i < n; i++)\n"
        f"    x[i] = mm_{name}({'x[i], 1.5f' if name == 'pow' else 'x[i]'});\n}}\n"
    )
    command = [compiler.path, *compiler.flags, "-fopt-info-vec", "-x", "c", "-", "-S", "-o", "-"]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True)
    assert re.search(r"loop\.c:.*loop vectorized", done.stderr)


@needs_compiler
def test_stream_row() -> None:
    """Rows of every length and alignment, and nothing is written around them."""
    code = (
        "void mm_kernel(void *const *buffers, const int64_t *scalars)\n{\n"
        "    mm_stream_row((char *)buffers[0] + scalars[0], buffers[1], (size_t)scalars[1]);\n"
        "    mm_fence();\n}\n"
    )
    kernel = host_compiler.build(source(plain=code))
    rng = np.random.default_rng(0)
    data = rng.integers(1, 255, 700).astype(np.uint8)
    for offset in (0, 1, 4, 31, 63, 64):
        for nbytes in (0, 1, 3, 63, 64, 65, 127, 128, 500, 640):
            out = np.zeros(800, np.uint8)
            buffers = (ctypes.c_void_p * 2)(out.ctypes.data, data.ctypes.data)
            kernel(buffers, (ctypes.c_int64 * 2)(offset, nbytes))
            want = np.zeros(800, np.uint8)
            want[offset : offset + nbytes] = data[:nbytes]
            np.testing.assert_array_equal(out, want)
