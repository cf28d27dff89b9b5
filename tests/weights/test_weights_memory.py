"""Memory of a load, measured in a child process: the model, and at most the largest tensor."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maxmod import DType
from maxmod import functional as F
from maxmod.models.decoders import gpt2
from maxmod.weights import save_state, transpose

MB = 1_000_000
COUNT, EACH = 12, 10 * MB

# Resets the high-water mark of the kernel, so that imports do not count.
MEASURE = """
import sys
from maxmod import DType
from maxmod.weights import open_checkpoint, split, transpose

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024

path, kind = sys.argv[1:]
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS:")
with open_checkpoint(path) as checkpoint:
    view = {
        "plain": lambda c: c,
        "cast": lambda c: c.astype(DType.bfloat16),
        "transpose": lambda c: transpose(c, "*"),
        "split": lambda c: split(c, {"*": ["*.a", "*.b"]}),
        "stream": lambda c: c,
    }[kind](checkpoint)
    if kind == "stream":
        for name in view:
            view[name]
    else:
        loaded = dict(view)
print(status("VmHWM:") - before)
"""


@pytest.mark.parametrize("kind", ["plain", "cast", "transpose", "split", "stream"])
def test_peak_of_a_load(tmp_path: Path, kind: str) -> None:
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak memory of a process")
    state = {f"t{i}": np.full((1000, EACH // 4000), i, np.float32) for i in range(COUNT)}
    path = save_state(state, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, path, kind], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout)
    model = {"cast": COUNT * EACH // 2, "stream": 0}.get(kind, COUNT * EACH)
    fixed = 8 * MB  # the ops of the first cast, page tables, threads
    assert model * 0.95 < peak < model + EACH + fixed, (kind, peak)


MODEL = """
import sys
from maxmod import CPU, DType
from maxmod.models import load_model

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024

open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS:")
model = load_model(sys.argv[1], device=CPU(), dtype=DType[sys.argv[2]])
print(status("VmHWM:") - before)
"""


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16])
def test_peak_of_loading_a_model(tmp_path: Path, dtype: DType) -> None:
    """With weights that are transposed, tied, and cast."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak memory of a process")
    config = gpt2.Config(vocab_size=5000, n_positions=64, n_embd=512, n_layer=6, n_head=8)
    with F.lazy():
        module = gpt2.GPT2(config)
    sizes = {name: t.sizes for name, t in module.parameters if name != "lm_head.weight"}
    layers = [f"h.*.{name}.weight" for name in ("c_attn", "c_fc", "c_proj")]
    state = {name: np.full(size, 0.5, np.float32) for name, size in sizes.items()}
    save_state(transpose(state, layers), tmp_path)
    table = {"model_type": "gpt2", **dataclasses.asdict(config)}
    (tmp_path / "config.json").write_text(json.dumps(table), "utf-8")
    arguments = [sys.executable, "-c", MODEL, str(tmp_path), dtype.name]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    peak = int(done.stdout)
    nbytes = sum(array.nbytes for array in state.values()) * dtype.size_in_bytes // 4
    largest = max(array.nbytes for array in state.values())
    assert nbytes * 0.95 < peak < nbytes + largest + 8 * MB, peak


def test_estimate_matches(tmp_path: Path) -> None:
    """`nbytes` tells before loading what a load takes."""
    state = {"a": np.ones((100, 100), np.float32), "b": np.ones(7, np.int32)}
    from maxmod.weights import open_checkpoint

    with open_checkpoint(save_state(state, tmp_path)) as checkpoint:
        for dtype in (DType.float32, DType.bfloat16, DType.float64):
            loaded = checkpoint.astype(dtype)
            assert checkpoint.nbytes(dtype) == sum(t.data.nbytes for t in loaded.values())
