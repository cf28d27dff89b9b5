"""Which C compiler is taken, what identifies it, and what is known of the processor."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import maxmod
from maxmod.backends.host import build as host_build
from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host import finding, processor
from maxmod.backends.host.library import HostCompiler

pytestmark = pytest.mark.usefixtures("cache_folder")
needs_links = pytest.mark.skipif(sys.platform == "win32", reason="programs are scripts here")


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """The commands that were tried; no compiler is run, and all of them work."""
    tried: list[tuple[str, tuple[str, ...]]] = []

    def probe(path: str, options: tuple[str, ...]) -> tuple[tuple[str, str, list[str]], str]:
        tried.append((path, options))
        return ("Clang 1", "__AVX2__", [*options, "-O3"]), ""

    monkeypatch.setattr(host_build, "probe", probe)
    return tried


def program(path: Path, text: str = "") -> Path:
    """Makes a file that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
    return path


def found(wanted: str = "", cc: str = "", search_path: object = "") -> HostCompiler:
    compiler, problem = finding.first_that_works(wanted, cc, str(search_path))
    assert compiler is not None, problem
    return compiler


# ---- commands ------------------------------------------------------------------------------------


@needs_links
def test_package_with_a_compiler(
    probes: list[tuple[str, tuple[str, ...]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken where the system has none, and where none of the system works."""
    zig = program(tmp_path / "site" / "ziglang" / "zig")
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    compiler = found(search_path=tmp_path)
    assert compiler.path == str(zig)
    assert compiler.flags[0] == "cc"
    gcc = program(tmp_path / "gcc")
    assert found(search_path=tmp_path).path == str(gcc)
    none, problem = finding.first_that_works("no-such-compiler", "", str(tmp_path))
    assert none is None  # what was asked for by name has no substitute
    assert "ziglang:" not in problem


def test_hint_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    compiler, problem = finding.first_that_works("", "", str(tmp_path))
    assert compiler is None
    assert "cc: not found; gcc: not found; clang: not found" in problem
    assert "pip install ziglang" in problem
    with maxmod.configure(cc="no-such-compiler"):
        assert "pip install ziglang" in host_compiler.unavailable_reason()


@needs_links
@pytest.mark.parametrize("command", ["ccache mine -g0", "mine"])
def test_replaced_compiler(
    command: str, probes: list[tuple[str, tuple[str, ...]]], tmp_path: Path
) -> None:
    """Another file of the same name is tried again, also behind a program that calls it."""
    program(tmp_path / "ccache")
    program(tmp_path / "mine")
    first = found(command, search_path=tmp_path)
    assert found(command, search_path=tmp_path) == first
    assert len(probes) == 1
    program(tmp_path / "mine", "# another version\n")
    assert found(command, search_path=tmp_path).identity != first.identity
    assert len(probes) == 2


# ---- the key -------------------------------------------------------------------------------------


def test_features_are_part_of_the_identity(
    probes: list[tuple[str, tuple[str, ...]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(tmp_path / "mine")
    first = found("mine", search_path=tmp_path)
    assert "__AVX2__" in first.identity.split("\n")
    monkeypatch.setattr(finding, "processor", lambda: "linux x86_64\nanother\nsse2")
    other = found("mine", search_path=tmp_path)
    assert other.identity.endswith("another\nsse2")
    assert len(probes) == 2


def test_unknown_processor(
    probes: list[tuple[str, tuple[str, ...]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the system tells nothing, the compiler is asked in each process."""
    program(tmp_path / "mine")
    monkeypatch.setattr(finding, "processor", lambda: "linux x86_64")
    found("mine", search_path=tmp_path)
    found("mine", search_path=tmp_path)
    assert len(probes) == 2


@pytest.mark.skipif(bool(host_compiler.unavailable_reason()), reason="needs a C compiler")
def test_compiler_tells_the_features() -> None:
    """With options that switch instruction sets off, others are in the identity."""
    compiler = host_compiler.find()
    assert compiler is not None
    features = compiler.identity.split("\n")[1].split()
    assert all(name.startswith("__") for name in features)
    if "__AVX__" not in features:
        pytest.skip("needs a processor of the x86 family with AVX")
    with maxmod.configure(cc=f"{compiler.path} -mno-avx"):
        other = host_compiler.find()
    assert other is not None
    assert set(other.identity.split("\n")[1].split()) < set(features)


# ---- systems -------------------------------------------------------------------------------------

_X86 = (
    "processor\t: 0\nmodel name\t: Some CPU\ncpu MHz\t\t: 2400.1\nflags\t\t: fpu avx2 fma\n\n"
    "processor\t: 1\nmodel name\t: Another\nflags\t\t: sse2\n"
)
_ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


def _described(monkeypatch: pytest.MonkeyPatch, system: str) -> str:
    monkeypatch.setattr(processor.sys, "platform", system)
    return processor.processor.__wrapped__()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(_X86, "Some CPU\nfpu avx2 fma"), (_ARM, "fp asimd asimddp\n0x41\n0xd0c")],
    ids=["x86", "arm"],
)
def test_linux(text: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(processor, "_CPUINFO", str(path))
    found = _described(monkeypatch, "linux")
    assert found.split("\n", 1)[1] == wanted
    path.unlink()
    assert not processor.is_known(_described(monkeypatch, "linux"))


def _of_macos(features: dict[str, bytes]) -> Callable[..., int]:
    """`sysctlbyname` of a system that knows these names."""

    def sysctlbyname(name: bytes, buffer: ctypes.Array, size: object, *rest: object) -> int:
        value = features.get(name.decode())
        if value is None:
            return -1
        ctypes.memmove(buffer, value, len(value))
        ctypes.cast(size, ctypes.POINTER(ctypes.c_size_t))[0] = len(value)
        return 0

    return sysctlbyname


def test_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processors of one name are told apart by a feature."""
    texts = []
    for has_dot_products in (0, 1):
        known = {
            "machdep.cpu.brand_string": b"Apple M9\0",
            "hw.optional.arm.FEAT_DotProd": bytes([has_dot_products, 0, 0, 0]),
        }
        library = type("Library", (), {"sysctlbyname": staticmethod(_of_macos(known))})
        monkeypatch.setattr(processor.ctypes, "CDLL", lambda name, library=library: library)
        texts.append(_described(monkeypatch, "darwin"))
    assert texts[0].startswith("darwin")
    assert f"machdep.cpu.brand_string {b'Apple M9'.hex()}" in texts[0].split("\n")
    assert texts[0] != texts[1]
    monkeypatch.setattr(processor.ctypes, "CDLL", lambda name: object())
    assert not processor.is_known(_described(monkeypatch, "darwin"))


def test_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSOR_IDENTIFIER", "Intel64 Family 6 Model 151")
    texts = []
    for highest in (40, 41):  # 40 is AVX2, 41 is AVX-512
        kernel32 = type(
            "Library",
            (),
            {"IsProcessorFeaturePresent": staticmethod(lambda n, top=highest: 39 <= n <= top)},
        )
        monkeypatch.setattr(processor.ctypes, "CDLL", lambda name, library=kernel32: library)
        texts.append(_described(monkeypatch, "win32"))
    assert [text.split("\n")[-1] for text in texts] == ["39 40", "39 40 41"]
    assert "Intel64 Family 6 Model 151" in texts[0].split("\n")
