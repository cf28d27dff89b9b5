"""Every benchmark script runs: tiny sizes, its checks against NumPy, its table and its JSON.

Nothing here looks at a time, so kernels are built without optimisation.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from build_cache import unoptimised_children

FOLDER = Path(__file__).parent.parent / "benchmarks"
# Script: what its table must name, and how many rows its JSON has.
SCRIPTS = {
    "limits": (["copy, NumPy copyto", "float32 GEMM, NumPy"], 2),
    "workloads": (["gelu_chain", "attention", "maxmod (", "NumPy", "/ maxmod"], 14),
    "gpt2_prefill": (["limit: products in NumPy", "maxmod (", "NumPy"], 3),
    "import_time": (["numpy", "maxmod", "after NumPy"], 3),
    "compile_time": (["cold", "warm", "first result", "trace", "lookup", "build"], 2),
    "call_overhead": (["x + 1, 8 floats", "Linear 10-20-5", "maxmod, eager", "x NumPy"], 5),
    "decode": (["limit: read once", "maxmod float32", "maxmod int8", "first token"], 6),
    "products": (["1x16x32 float32 out_in", "3:5x16x9", "NumPy", "ratio", "below 0.9x"], 12),
    "quantized": (["float32", "int8", "int4, groups of 32", "x float32"], 6),
    "quality": (["floats", "int4", "divergence", "mean cosine"], 7),
    "load": (["limit: read once", "maxmod, mmap", "safetensors"], 6),
    "embed": (["8 sentences", "maxmod float32", "maxmod int8"], 2),
}
_ENCODER = Path(__file__).parent / "assets" / "bert" / "sentences"
OPTIONS = {"embed": ["--model", str(_ENCODER), "--dtypes", "float32,int8"]}


@pytest.mark.parametrize("script", SCRIPTS)
def test_smoke_run(script: str, tmp_path: Path) -> None:
    words, count = SCRIPTS[script]
    file = tmp_path / "numbers.json"
    environ = {**os.environ, **unoptimised_children()}
    del environ["MAXMOD_VERIFY"]
    done = subprocess.run(
        [
            *(sys.executable, str(FOLDER / f"{script}.py"), "--smoke", "--json", str(file)),
            *OPTIONS.get(script, ()),
        ],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in words:
        assert word in done.stdout
    content = json.loads(file.read_text("utf-8"))
    assert content["benchmark"] == script
    assert content["machine"]["processors"] >= 1
    assert content["machine"]["numpy"]
    assert len(content["rows"]) >= count
    numbers = [v for row in content["rows"] for v in row.values() if not isinstance(v, str)]
    assert all(math.isfinite(number) for number in numbers)


def test_decoding_a_folder(tmp_path: Path) -> None:
    """The files for peers are written, too, as far as packages are installed."""
    file = tmp_path / "numbers.json"
    model = str(tmp_path / "float32")
    environ = {**os.environ, **unoptimised_children()}
    for words in (
        ["peer_files.py", str(tmp_path), "--smoke"],
        ["decode.py", "--model", model, "--dtypes", "float32,int8", "--smoke", "--json", str(file)],
    ):
        command = [sys.executable, str(FOLDER / words[0]), *words[1:]]
        done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
        assert done.returncode == 0, done.stderr
    assert "maxmod int8" in done.stdout
    content = json.loads(file.read_text("utf-8"))
    assert content["options"]["model"] == model
    assert [row["contender"] for row in content["rows"]] == ["maxmod float32", "maxmod int8"]
    assert all(0 < row["best_s"] <= row["median_s"] for row in content["rows"])


def test_a_wrong_result_ends_the_benchmark() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import harness, numpy as np; "
        "harness.check('peer', np.float32([1, 2]), np.float32([1, 2.001]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "peer: differs from NumPy by 0.001" in done.stderr


def test_unknown_names_are_refused() -> None:
    for option in ("--only", "--peers"):
        command = [sys.executable, str(FOLDER / "workloads.py"), option, "softmix"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "unknown softmix" in done.stderr
