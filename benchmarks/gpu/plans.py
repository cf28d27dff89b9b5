"""Plans of decoding steps of real widths for a GPU that is not there; weights are never made."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from emulated import EmulatedBackend

import maxmod
from maxmod import DType, backends
from maxmod import functional as F
from maxmod.compiler import pipeline
from maxmod.compiler.report.facts import Facts, StepFacts
from maxmod.compiler.steps import RunKernel, RunProduct
from maxmod.generate.kv_cache import KVCache
from maxmod.generate.sampling import Sampler
from maxmod.kernel.source import Dialect
from maxmod.models.decoders import gpt2, llama
from maxmod.models.language import NextTokens
from maxmod.op import ir
from maxmod.runtime.staging import trace_function
from maxmod.values.device import DeviceKind, DeviceRef
from maxmod.values.tensor_type import TensorType

ARCHITECTURE = "sm_90"
LENGTH = 512  # rows of the cache

_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
}
# Name, configuration, and the number of layers: Llama-3.1-8B, Llama-3.2-1B, GPT-2 (124M).
MODELS: dict[str, tuple[dict[str, Any], int]] = {
    "8B": (_LLAMA, 32),
    "1B": (
        _LLAMA
        | {"hidden_size": 2048, "intermediate_size": 8192, "head_dim": 64}
        | {"tie_word_embeddings": True},
        16,
    ),
    "GPT-2": ({"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_head": 12}, 12),
}
DTYPES = ("bf16", "int8", "int4")


class _PlanningBackend(EmulatedBackend):
    """An accelerator for which kernels are planned, and none is built."""

    def dialect(self) -> Dialect:
        return Dialect.CUDA

    def architecture(self, index: int) -> str:
        return ARCHITECTURE


@dataclass(frozen=True)
class Plan:
    """The decoding step of a model with a few layers.

    Attributes:
        facts: The facts about it, with sizes filled in.
        types: The type of each slot.
        layers: The number of layers.
    """

    facts: Facts
    types: list[TensorType]
    layers: int

    @property
    def launches(self) -> list[tuple[RunKernel | RunProduct, StepFacts]]:
        """What is launched, in order."""
        steps = self.facts.plan.bound_steps(self.facts.dims)
        running = [facts for facts in self.facts.steps if facts.runs]
        pairs = zip(steps, running, strict=True)
        return [(s, f) for s, f in pairs if isinstance(s, (RunKernel, RunProduct))]


@contextlib.contextmanager
def planning() -> Iterator[None]:
    """Plans for a GPU in this block."""
    previous = backends.replace(DeviceKind.GPU, _PlanningBackend())
    try:
        with maxmod.configure(nocache=True):
            yield
    finally:
        backends.replace(DeviceKind.GPU, previous)


def decoding(model: str, dtype: str, layers: int, vocab: int | None = None) -> Plan:
    """Returns the decoding step of one sequence.

    Args:
        model: A key of `MODELS`.
        dtype: Of `DTYPES`.
        layers: How many layers are planned.
        vocab: Another size of the vocabulary.
    """
    device = DeviceRef.GPU()
    given = MODELS[model][0] | ({} if vocab is None else {"vocab_size": vocab})
    with F.lazy(), maxmod.default_device(device), maxmod.default_dtype(DType.bfloat16):
        module: Any
        if "n_embd" in given:
            config: Any = gpt2.Config(**given, n_layer=layers)
            module = gpt2.GPT2(config)
        else:
            config = llama.Config(**given, num_hidden_layers=layers)
            module = llama.make_module(config)
        if dtype != "bf16":
            maxmod.quantize(module, dtype)
    step = NextTokens(module)
    cache = KVCache.types(config.cache_shape, 1, DType.bfloat16, device)
    sampler = Sampler.types(1, config.vocab_size, device)
    staged = trace_function(step, [cache, sampler], name="decode", parameters=dict(step.parameters))
    graph, plan = pipeline.plan_graph(
        staged.graph, Dialect.CUDA, backends.run, lambda *_: contextlib.nullcontext(), ARCHITECTURE
    )
    types = [ir.bind_type(value.type, {"length": LENGTH}) for value in ir.value_names(graph)]
    return Plan(Facts(graph, plan, {"length": LENGTH}), types, layers)
