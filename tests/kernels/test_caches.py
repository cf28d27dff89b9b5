"""Sizes of caches: what systems tell, what is believed, and numbers that do not depend on them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import maxmod
from maxmod import CPU, DType, Tensor, TensorType
from maxmod.backends.host import caches
from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel import text as kernel_text
from maxmod.runtime.compiled import compile_function

KB, MB = 1 << 10, 1 << 20
Caches = Sequence[tuple[str, str, str]]  # level, type, size


def _told(folder: Path, found: Caches, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, facts in enumerate(found):
        index = folder / f"index{number}"
        index.mkdir()
        for name, fact in zip(("level", "type", "size"), facts, strict=True):
            (index / name).write_text(fact + "\n", "ascii")
    (folder / "uevent").write_text("", "ascii")
    monkeypatch.setattr(caches, "_CPU", str(folder))
    monkeypatch.setattr("sys.platform", "linux")


@pytest.mark.parametrize(
    ("found", "sizes", "flags"),
    [
        pytest.param(
            [("1", "Data", "32K"), ("1", "Instruction", "64K"), ("2", "Unified", "512K")],
            {1: 32 * KB, 2: 512 * KB},
            [],
            id="those assumed",
        ),
        pytest.param(
            [("1", "Data", "48K"), ("2", "Unified", "2048K"), ("3", "Unified", "12M")],
            {1: 48 * KB, 2: 2 * MB, 3: 12 * MB},
            ["-DMM_L1_NBYTES=49152", "-DMM_L2_NBYTES=2097152", "-DMM_L3_NBYTES=12582912"],
            id="others",
        ),
        pytest.param(
            [("1", "Data", "0K"), ("2", "Unified", "-1"), ("3", "Unified", "x"), ("", "", "")],
            {},
            [],
            id="nonsense",
        ),
        pytest.param([], {}, [], id="nothing"),
    ],
)
def test_sizes_on_linux(
    found: Caches,
    sizes: dict[int, int],
    flags: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _told(tmp_path, found, monkeypatch)
    assert caches.sizes() == sizes
    assert caches.flags() == flags


def test_a_system_without_the_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caches, "_CPU", str(tmp_path / "missing"))
    monkeypatch.setattr("sys.platform", "linux")
    assert caches.flags() == []


def test_sizes_of_fast_cores_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"hw.perflevel0.l1dcachesize": 128 * KB, "hw.l1dcachesize": 64 * KB}
    told["hw.l2cachesize"] = 4 * MB

    def read(name: str) -> bytes:
        return told[name].to_bytes(8, "little") if name in told else b""

    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setattr("sys.byteorder", "little")
    monkeypatch.setattr(caches, "sysctl", lambda: read)
    assert caches.sizes() == {1: 128 * KB, 2: 4 * MB}
    monkeypatch.setattr(caches, "sysctl", lambda: None)  # as on Windows
    assert caches.sizes() == {}


def test_kernels_assume_the_same_sizes() -> None:
    text = kernel_text.read("host/gemm_operands.h")
    found = re.findall(r"#define MM_L(\d)_NBYTES \((\d+) << (\d+)\)", text)
    assert {int(n): int(a) << int(b) for n, a, b in found} == caches.ASSUMED


@pytest.mark.skipif(bool(host_compiler.unavailable_reason()), reason="no compiler")
def test_numbers_do_not_depend_on_the_caches() -> None:
    """Other blocks, parts and ways to multiply, and the same sums."""
    compiler = host_compiler.find()
    assert compiler is not None
    rows, depth, columns = 131, 450, 50
    x, w = (
        np.random.default_rng(n).normal(size=s)
        for n, s in enumerate([(rows, depth), (columns, depth)])
    )
    arguments = [Tensor(array.astype(np.float32), device=CPU()) for array in (x, w)]
    types = [TensorType(DType.float32, t.shape, CPU()) for t in arguments]
    results: list[bytes] = []
    for sizes in ({}, {1: 128 * KB, 2: 256 * KB, 3: 1 * MB}, {1: 16 * KB, 2: 4 * MB}):
        options = "".join(f" -DMM_L{level}_NBYTES={size}" for level, size in sizes.items())
        with maxmod.configure(cc=compiler.path + options):
            model = compile_function(lambda a, b: a @ b.T, types, name="f", parameters={})
            results.append(model(*arguments).to_numpy().tobytes())
    assert len(set(results)) == 1
    found = np.frombuffer(results[0], np.float32).reshape(rows, columns)
    np.testing.assert_allclose(found, x @ w.T, rtol=0, atol=2e-4)
