"""How many kernels of the host a layer of a decoder is while it makes one token; none is built.

A golden number: fewer is better, more needs a reason. Kernels that follow each other are one call
from Python, so what a further one costs is the time in it: a norm takes 1.1 us in a model of 576
columns, a rotary embedding 0.6, and the smallest product 15 (2 cores of a Zen 3, December 2026).
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from models.folders import ASSETS, copy

from maxmod import CPU, DType, Tensor
from maxmod.backends.host.backend import CpuBackend
from maxmod.compiler.steps import RunKernel
from maxmod.models import load_model
from maxmod.models.language import LanguageModel
from maxmod.weights import open_checkpoint, save_state

# From attention on: its output, the MLP, queries, keys and values, and where those go. The store of
# Llama rotates the keys as well; GPT-2 has nothing to rotate.
LLAMA = ["attention", "product", "norm", "gated", "product", "norm", "product", "rotary", "store"]
GPT2 = ["attention", "product", "norm", "product", "product", "norm", "product", "store"]
# Of other decoders, in float32. What is more than Llama's: norms of queries and keys, which come
# before rotation and so keep it out of the product's kernel; the two parts of a head of which one
# is rotated; biases, with which keys and values are stored by two kernels.
GATED = ["attention", "product", "norm", "gated", "product", "norm"]
PLAIN = ["attention", "product", "norm", "product", "product", "norm"]
NORMED = ["product", "norm", "norm", "store", "store"]
OTHERS = {
    "cohere": ["attention", "product", "gated", "product", "norm", *NORMED],
    "cohere2": ["attention", "product", "gated", "product", "norm", "product", "store"],
    "glm4": [*GATED, "gated", "rotary", "rotary", "store"],
    "granite": LLAMA,
    "ministral": LLAMA,
    "ministral3": LLAMA,
    "olmo2": [*GATED, *NORMED],
    "opt": GPT2,
    "phi3": [*GATED, "product", "rotary", "rotary", "store"],
    "pythia": ["attention", *["product"] * 3, "norm", "store", "gated", "rotary", "store"],
    "smollm3": [*GATED, "product", "store"],  # a layer without positions
    "starcoder2": [*PLAIN, "product", "store", "store"],
    "yarn": [*GATED, *NORMED],  # Qwen3
}
FIRST_WORDS = {
    "choose": "",
    "attention": "attention",
    "matmul": "product",
    "quantized": "product",
    "row": "norm",
    "map": "store",
}


@pytest.fixture(autouse=True)
def _nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(backend: CpuBackend, sources: Any, index: int) -> list[Any]:
        return [SimpleNamespace(cached=True) for _ in sources]

    monkeypatch.setattr(CpuBackend, "build", build)


def kind_of(name: str) -> str:
    """Returns what a kernel does, by the ops in its name."""
    words = name.split("_")
    if words[:2] == ["map", "rotary"] and "update" not in words:
        return "rotary"
    is_gated = name.count("matmul") + name.count("quantized_linear") > 1
    return "gated" if is_gated else FIRST_WORDS[words[0]]


def kernels_of_layer(model: LanguageModel) -> list[str]:
    """Returns the kernels from the attention of one layer to that of the next."""
    schedule = model.step()._schedule
    steps = [step for step in schedule.all_steps if isinstance(step, RunKernel)]
    kinds = [kind_of(schedule.kernels[step.kernel].name) for step in steps]
    first, second, *_ = (n for n, kind in enumerate(kinds) if kind == "attention")
    return kinds[first:second]


@pytest.fixture(scope="module")
def wide_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of Llama with widths that groups of 32 weights divide; all weights are 1."""
    source, folder = ASSETS / "llama" / "llama32", tmp_path_factory.mktemp("llama") / "wide"
    copy(source, folder, hidden_size=32, intermediate_size=64)
    wider = {24: 32, 40: 64}
    shapes = {name: weight.shape for name, weight in open_checkpoint(source).items()}
    made = {
        name: Tensor.ones([wider.get(int(size), int(size)) for size in shape], dtype=DType.bfloat16)
        for name, shape in shapes.items()
    }
    save_state(made, folder)
    return folder


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8", "int4"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_kernels_of_a_layer(family: str, kind: str, wide_llama: Path) -> None:
    is_quantized = kind.startswith("int")
    options: dict[str, Any] = {"quantize": kind} if is_quantized else {"dtype": DType[kind]}
    is_llama = family == "llama"
    folder = wide_llama if is_llama else ASSETS / "gpt2" / "tied"
    model = load_model(folder, device=CPU(), **options)
    assert kernels_of_layer(model) == (LLAMA if is_llama else GPT2)


@pytest.mark.parametrize("name", OTHERS)
def test_kernels_of_a_layer_of_other_decoders(name: str) -> None:
    model = load_model(ASSETS / "decoders" / name, device=CPU(), dtype=DType.float32)
    assert kernels_of_layer(model) == OTHERS[name]
