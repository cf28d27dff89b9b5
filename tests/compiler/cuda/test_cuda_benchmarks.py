"""The benchmarks of kernels on a GPU run on the emulated one: small sizes, no look at a time."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from emulated_cuda import emulated_cuda

from maxmod import DType

FOLDER = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The emulated CuPy, with events and the printed properties of a device."""
    for folder in (FOLDER / "gpu", FOLDER):
        monkeypatch.syspath_prepend(str(folder))
    with emulated_cuda() as (_, backend):
        event = SimpleNamespace(record=lambda: None, synchronize=lambda: None)
        cuda = backend.cuda
        monkeypatch.setattr(cuda, "Event", lambda: event, raising=False)
        monkeypatch.setattr(cuda, "get_elapsed_time", lambda a, b: 1000.0, raising=False)
        properties = {"name": b"an emulated GPU"}
        facts = {"getDeviceProperties": lambda n: properties, "driverGetVersion": lambda: 13000}
        for name, function in facts.items():
            monkeypatch.setattr(cuda.runtime, name, function, raising=False)
        monkeypatch.setattr(backend.xp, "__version__", "14", raising=False)
        monkeypatch.setitem(sys.modules, "cupy", backend.xp)
        yield backend.xp


def _run(script: str, cases: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    module = importlib.import_module(script)
    monkeypatch.setattr(importlib.import_module("kernels"), "CACHE_NBYTES", 0)
    monkeypatch.setattr(module, "CASES", cases(module))
    file = tmp_path / "numbers.json"
    module.main(["--rounds", "1", "--peers", "cupy", "--json", str(file)])
    return json.loads(file.read_text("utf-8"))["rows"]


def test_generated_kernels(cupy: Any, monkeypatch: Any, tmp_path: Path, capsys: Any) -> None:
    def small(module: Any) -> Any:
        return [replace(case, shape=(70, 64)) for case in module.CASES]

    rows = _run("kernels", small, monkeypatch, tmp_path)
    assert {row["contender"] for row in rows} >= {"limit: copy", "CuPy", "maxmod (1 kernel)"}
    assert "an emulated GPU" in capsys.readouterr().out


def test_hand_written_kernels(cupy: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """The kernels are those that are meant, and without them there are others."""

    def small(module: Any) -> Any:
        return [
            module.Case("gemv", DType.bfloat16, ((1, 64), (40, 64))),
            module._attention("few", DType.bfloat16, (4, 2), (1, 70), 64, causal=False),
            module._attention("many", DType.bfloat16, (4, 2), (40, 40), 64, causal=True),
        ]

    rows = _run("handwritten", small, monkeypatch, tmp_path)
    assert len(rows) == 3 * 3
    assert {row["contender"] for row in rows} == {
        "limit: copy",
        "limit: product of 128^3",
        "maxmod (1 kernel)",
        "ops and library",
    }
    module = importlib.import_module("handwritten")
    for case in module.CASES:
        operands = module._sets(case)[0]
        assert "mm_run" in module._compiled(case, operands).kernels[0].code
        with module._without_kernels():
            assert not any("mm_run" in k.code for k in module._compiled(case, operands).kernels)
