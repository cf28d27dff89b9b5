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


PARTS = ("decode", "gemv", "attention", "rows", "prefill", "load")


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of NumPy, about whatever memory holds
def test_a_dry_run_of_the_parts(cupy: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """Each part writes numbers and no errors; the table has a line for each case.

    Kernels are not started: they have other tests, and what they give is not looked at.
    """
    monkeypatch.setattr(cupy.cuda.driver, "launchKernel", lambda *args: None)
    for script in ("handwritten", "kernels"):
        monkeypatch.setattr(importlib.import_module(script), "check", lambda *args: None)
    parts, report = importlib.import_module("parts"), importlib.import_module("report")
    kernels = importlib.import_module("kernels")
    monkeypatch.setattr(kernels, "CACHE_NBYTES", 0)
    monkeypatch.setattr(kernels, "CASES", [replace(kernels.CASES[0], shape=(70, 64))])
    monkeypatch.setattr(kernels, "SAMPLE_S", 0)
    monkeypatch.setattr(parts, "ROUNDS", 1)
    for part in PARTS:
        parts.main([part, str(tmp_path), "--small"])
    rows = report.rows(tmp_path)
    assert not [row for row in rows if "error" in row and row["contender"] != "transformers"]
    known = {(row["part"], row["case"]) for row in rows if "value" in row}
    assert {part for part, _ in known} == set(PARTS)
    for dtype in ("bf16", "int8", "int4"):
        assert ("decode", f"decode 1B {dtype}") in known
    assert all(row["value"] > 0 for row in rows if "value" in row)
    table = report.table(tmp_path)
    assert all(f"| {part} | {case} |" in table for part, case in known)
    assert "| decode | decode 8B" not in table


def test_a_failing_contender_leaves_the_others(cupy: Any, monkeypatch: Any, tmp_path: Path) -> None:
    """Its error is a line, also where it would end the process; so is a part that is ended."""
    parts, report = importlib.import_module("parts"), importlib.import_module("report")
    handwritten = importlib.import_module("handwritten")
    monkeypatch.setattr(importlib.import_module("kernels"), "CACHE_NBYTES", 0)
    monkeypatch.setattr(parts, "ROUNDS", 1)
    check = handwritten.check

    def refuse(case: Any, name: str, found: Any, wanted: Any) -> None:
        if name == "ops and library":
            raise SystemExit("differs from NumPy")
        check(case, name, found, wanted)

    monkeypatch.setattr(handwritten, "check", refuse)
    parts.main(["gemv", str(tmp_path), "--small"])
    rows = report.rows(tmp_path)
    errors = [row for row in rows if "error" in row]
    assert [row["contender"] for row in errors] == ["ops and library"]
    assert errors[0]["error"] == "SystemExit: differs from NumPy"
    values = {row["contender"] for row in rows if row.get("case") == "gemv" and "value" in row}
    assert values == {"limit: copy", "maxmod (1 kernel)"}
    with (tmp_path / report.FILE).open("a") as file:
        file.write('{"part": "gemv", "ca')  # cut off
    run = importlib.import_module("run")
    monkeypatch.setattr(run, "command", lambda *args, **kw: [sys.executable, "-c", "1/0"])
    assert run.main(["--part", "rows", "--out", str(tmp_path)]) == 1
    sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(run, "command", lambda *args, **kw: sleep)
    assert run.run("load", tmp_path, 0.2) == 124
    assert "ZeroDivisionError" in (tmp_path / "rows.log").read_text("utf-8")
    assert "- rows: exit status 1" in (tmp_path / "table.md").read_text("utf-8")


def test_the_tests_write_a_junit_file(cupy: Any, tmp_path: Path) -> None:
    run = importlib.import_module("run")
    command = run.command("tests", tmp_path, is_small=False)
    assert f"--junitxml={tmp_path / 'tests.xml'}" in command
    assert "-x" not in command
    assert run.PARTS[0] == "decode"
