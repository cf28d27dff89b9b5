"""NVRTC: the CUDA prelude compiles for several architectures without a GPU, cleanly."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from prelude_runner import ENTRY, cuda_source

import maxmod
from maxmod.backends.cuda import nvrtc
from maxmod.errors import CompileError
from maxmod.kernel.source import Dialect, KernelSource

MISSING = nvrtc.unavailable_reason()
needs_nvrtc = pytest.mark.skipif(bool(MISSING), reason=MISSING or "-")
ARCHITECTURES = ("sm_80", "sm_90", "sm_100")
FLOAT_FUNCTIONS = (
    "exp",
    "log",
    "log1p",
    "sqrt",
    "rsqrt",
    "sin",
    "cos",
    "tanh",
    "atanh",
    "acos",
    "erf",
    "floor",
    "ceil",
    "trunc",
    "round",
    "sigmoid",
    "gelu_none",
    "gelu_tanh",
    "gelu_quick",
    "abs",
    "relu",
    "is_nan",
    "is_inf",
)
BINARY_FUNCTIONS = ("max", "min", "floor_div", "mod", "pow")
INTEGERS = (
    "int8_t",
    "int16_t",
    "int32_t",
    "int64_t",
    "uint8_t",
    "uint16_t",
    "uint32_t",
    "uint64_t",
    "bool",
)
NARROW = (
    "float16",
    "bfloat16",
    "float8_e5m2",
    "float8_e4m3fn",
    "float8_e5m2fnuz",
    "float8_e4m3fnuz",
    "float8_e8m0fnu",
    "float6_e3m2fn",
    "float6_e2m3fn",
    "float4_e2m1fn",
)


def _floats(kind: str) -> KernelSource:
    unary = [f"a1[i] += mm_{name}(a0[i]);" for name in FLOAT_FUNCTIONS]
    binary = [f"a1[i] += mm_{name}(a0[i], a1[i]);" for name in BINARY_FUNCTIONS]
    return cuda_source([kind, kind], [*unary, *binary])


def _integers(kind: str) -> KernelSource:
    binary = [f"a1[i] += mm_{name}(a0[i], a1[i]);" for name in BINARY_FUNCTIONS]
    unary = [f"a1[i] += mm_{name}(a0[i]);" for name in ("abs", "relu", "is_nan", "is_inf")]
    names = [kind.removesuffix("_t"), "float32", "float64", "bool", "float16"]
    casts = [f"a1[i] = mm_cast_{name}(a0[i]) != 0;" for name in names]
    return cuda_source([kind, kind], [*binary, *unary, *casts])


def _narrow(name: str) -> KernelSource:
    storage = "uint16_t" if name in NARROW[:2] else "uint8_t"
    statements = [
        f"a1[i] = mm_load_{name}(a0[i]);",
        f"a0[i] = mm_store_{name}(a1[i]);",
        f"a2[i] = mm_cast_{name}(a2[i]);",
        "a1[i] += mm_philox(3, i) & 1;",
    ]
    return cuda_source([storage, "float", "double"], statements)


SOURCES = {
    **{kind: _floats(kind) for kind in ("float", "double")},
    **{kind: _integers(kind) for kind in INTEGERS},
    **{name: _narrow(name) for name in NARROW},
}


@needs_nvrtc
@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("name", SOURCES)
def test_prelude(name: str, arch: str) -> None:
    cubin, log = nvrtc.compile_text(SOURCES[name], arch)
    assert cubin.startswith(b"\x7fELF")
    assert nvrtc.warnings_of(log) == ""
    used = nvrtc.usage(log)[ENTRY]
    assert used.spill_nbytes == 0
    assert used.registers > 0


@needs_nvrtc
def test_compile_and_cache(cache_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = SOURCES["bool"]
    cubin = nvrtc.compile_cubin(source, "sm_90")
    (note,) = cache_folder.glob("*.json")
    facts = json.loads(note.read_text())
    assert facts["arch"] == "sm_90"
    assert facts["compiler"].startswith("NVRTC 1")
    assert facts["spill_nbytes"] == 0
    assert note.with_suffix(".src").read_text() == source.full_text()

    def fail(*args: object) -> None:
        raise AssertionError("compiled again")

    monkeypatch.setattr(nvrtc, "compile_text", fail)
    assert nvrtc.compile_cubin(source, "sm_90") == cubin
    with pytest.raises(AssertionError, match="compiled again"):
        nvrtc.compile_cubin(source, "sm_80")


@needs_nvrtc
def test_refused_kernel(cache_folder: Path) -> None:
    bad = KernelSource("bad", Dialect.CUDA, "__global__ void k() {\n  nonsense;\n}", "k", 0, 0)
    with pytest.raises(CompileError, match="nvrtc: bad: refused for sm_90") as caught:
        nvrtc.compile_cubin(bad, "sm_90")
    assert "kernel.cu(2): error" in caught.value.log
    assert Path(caught.value.source_path).parent == cache_folder
    assert Path(caught.value.source_path).read_text() == bad.full_text()


@needs_nvrtc
def test_too_much_shared_memory(cache_folder: Path) -> None:
    """Only the assembler knows; an error of it must not be lost."""
    code = "__global__ void k(float *x) { __shared__ float s[20000]; s[threadIdx.x] = x[0]; "
    source = KernelSource("big", Dialect.CUDA, code + "x[1] = s[0]; }", "k", 1, 0)
    with pytest.raises(CompileError, match="too much shared data"):
        nvrtc.compile_cubin(source, "sm_90")


@needs_nvrtc
def test_unknown_architecture(cache_folder: Path) -> None:
    with pytest.raises(CompileError, match="refused for sm_1"):
        nvrtc.compile_cubin(SOURCES["bool"], "sm_1")


@needs_nvrtc
def test_warnings_are_seen() -> None:
    source = cuda_source(["float"], ["int unused; a0[i] = 1;"])
    _, log = nvrtc.compile_text(source, "sm_90")
    assert "unused" in nvrtc.warnings_of(log)


@needs_nvrtc
def test_a_gpu_that_is_newer_than_nvrtc(caplog: pytest.LogCaptureFixture) -> None:
    """The driver of such a GPU compiles the text of the newest architecture that NVRTC knows."""
    nvrtc._target.cache_clear()
    for _ in range(2):
        text, _ = nvrtc.compile_text(SOURCES["bool"], "sm_990")
        assert text.endswith(b"\0")
        assert b".visible .entry" in text
        assert re.search(rb"\.target sm_1\d\d\b", text)
    assert caplog.text.count("sm_990 is newer than this NVRTC knows") == 1
    assert nvrtc.compile_cubin(SOURCES["bool"], "sm_990") == text
    assert nvrtc.compile_text(SOURCES["bool"], "sm_90a")[0].startswith(b"\x7fELF")


@needs_nvrtc
def test_other_dialect_is_refused() -> None:
    host = KernelSource("k", Dialect.HOST, "", "k", 0, 0)
    with pytest.raises(CompileError, match="k: expected CUDA text, got Dialect.HOST"):
        nvrtc.compile_text(host, "sm_90")


def test_missing_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvrtc, "_library_path", lambda: None)
    assert not nvrtc.is_available()
    with pytest.raises(CompileError, match=r"libnvrtc was not found. Hint: pip install"):
        nvrtc.compile_cubin(SOURCES["bool"], "sm_90")


def test_without_cache(cache_folder: Path) -> None:
    if MISSING:
        pytest.skip(MISSING)
    with maxmod.configure(nocache=True):
        assert nvrtc.compile_cubin(SOURCES["bool"], "sm_90").startswith(b"\x7fELF")
    assert not cache_folder.exists()
