"""Decoding steps and prompts of models, planned for a GPU: small ones to run, large ones to see.

Nothing here needs a GPU: a model is traced on the host and planned for CUDA, which knows no device.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import maxmod
from maxmod.compiler.pipeline import plan_graph
from maxmod.compiler.steps import Schedule
from maxmod.dtype import DType
from maxmod.generate.kv_cache import KVCache
from maxmod.generate.sampling import Sampler, Sampling
from maxmod.interpreters.lazy import lazy
from maxmod.kernel.source import Dialect
from maxmod.models.decoders import gpt2, llama
from maxmod.models.language import NextTokens
from maxmod.nn import Module, quantize
from maxmod.op import ir
from maxmod.runtime import tree
from maxmod.runtime.staging import trace_function
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

ARCHITECTURE = "sm_90"
# Grouped heads, a rotary embedding that is scaled, sizes of several steps of a warp.
LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 200,
    "hidden_size": 256,
    "intermediate_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
}
GPT2: dict[str, Any] = {
    "vocab_size": 200,
    "n_positions": 128,
    "n_embd": 128,
    "n_layer": 2,
    "n_head": 2,
}
# Of Llama-3.1-8B, Llama-3.2-1B and GPT-2, with 2 layers. Source: their config.json.
LLAMA_8B = LLAMA | {
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rope_theta": 500000.0,
}
LLAMA_1B = LLAMA_8B | {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "head_dim": 64,
    "tie_word_embeddings": True,
}
GPT2_124M = GPT2 | {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_head": 12}


@dataclass(frozen=True)
class Case:
    """A model and how it is used.

    Attributes:
        name: "llama", "gpt2", "llama_8b", "llama_1b" or "gpt2_124m".
        weights: "bfloat16", "float32", "int8" or "int4".
        is_prompt: True for many tokens at once, False for one.
    """

    name: str
    weights: str
    is_prompt: bool = False

    @property
    def dtype(self) -> DType:
        """What it computes in."""
        return DType.float32 if self.weights == "float32" else DType.bfloat16

    def __str__(self) -> str:
        return f"{self.name}, {self.weights}, {'a prompt' if self.is_prompt else 'one token'}"


def _config(name: str, layers: int = 2) -> Any:
    fields = {
        "llama": LLAMA,
        "gpt2": GPT2,
        "llama_8b": LLAMA_8B,
        "llama_1b": LLAMA_1B,
        "gpt2_124m": GPT2_124M,
    }[name]
    if name.startswith("gpt2"):
        return gpt2.Config(**fields | {"n_layer": layers})
    return llama.Config(**fields | {"num_hidden_layers": layers})


def model(case: Case, layers: int = 2) -> Any:
    """Returns a module with random weights, which are made when they are first needed."""
    config = _config(case.name, layers)
    maxmod.random.set_seed(3)
    is_gpt2 = case.name.startswith("gpt2")
    with lazy(), maxmod.default_device(CPU_REF), maxmod.default_dtype(case.dtype):
        module = gpt2.GPT2(config) if is_gpt2 else llama.make_module(config)
        if case.weights.startswith("int"):
            quantize(module, case.weights)
    return module


@dataclass(frozen=True, eq=False)
class Step:
    """A planned step of a model.

    Attributes:
        case: Which.
        module: The model.
        next_tokens: What was traced.
        graph: The graph of `plan`.
        plan: The schedule.
    """

    case: Case
    module: Any
    next_tokens: Module[Any, None]
    graph: ir.Graph
    plan: Schedule

    @property
    def weights(self) -> dict[str, np.ndarray[Any, Any]]:
        """The data of the weights."""
        return {name: np.asarray(t.data) for name, t in self.next_tokens.parameters}


@functools.cache
def planned(case: Case, layers: int = 2) -> Step:
    """Plans a step of a model of one sequence."""
    module = model(case, layers)
    config = _config(case.name, layers)
    fn = NextTokens(module)
    types: list[Any] = [
        KVCache.types(config.cache_shape, 1, case.dtype, CPU_REF),
        Sampler.types(1, config.vocab_size, CPU_REF),
    ]
    if case.is_prompt:
        types.append(TensorType(DType.int64, [1, "seq"], CPU_REF))
    traced = trace_function(fn, types, name="step", parameters=dict(fn.parameters)).graph
    graph, plan = plan_graph(traced, Dialect.CUDA, _run, _timed, ARCHITECTURE)
    return Step(case, module, fn, graph, plan)


def _run(op: Any, arrays: Any, attrs: Any, types: Any) -> Any:
    from maxmod import backends

    return backends.get(CPU_REF).run(op, arrays, attrs, types)


def _timed(stage: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


@dataclass(frozen=True, eq=False)
class Arguments:
    """What a step is called with.

    Attributes:
        cache: Keys and values, some rows of which are in use.
        sampler: The last tokens, and how the next one is chosen.
        prompt: The tokens to read, or nothing.
    """

    cache: KVCache
    sampler: Sampler
    prompt: Tensor | None

    def arrays(self) -> list[np.ndarray[Any, Any]]:
        """Returns copies of all arrays, in the order of the inputs of the graph."""
        parts = (self.cache, self.sampler, *(() if self.prompt is None else (self.prompt,)))
        return [np.array(leaf.data) for part in parts for leaf in tree.flatten(part)[0]]


def arguments(case: Case, *, used: int, length: int, prompt: Sequence[int] = ()) -> Arguments:
    """Returns arguments with random keys and values.

    Args:
        case: Which step.
        used: Rows of the cache that are in use.
        length: All rows of the cache.
        prompt: The tokens to read.
    """
    config, rng = _config(case.name), np.random.default_rng(used)
    cache = KVCache.empty(config.cache_shape, [0], length, case.dtype, CPU_REF)
    for rows in (*cache.keys, *cache.values):
        assert isinstance(rows, Tensor)
        given = rng.standard_normal(rows.data.shape).astype(np.float32)
        given[:, :, used:] = 0
        rows.data[...] = given.astype(rows.data.dtype)
    assert isinstance(cache.used, Tensor)
    cache.used.data[...] = used
    sampler = Sampler.start(Sampling(temperature=0), [[7, 11]], config.vocab_size, CPU_REF)
    tokens = None
    if prompt:
        tokens = Tensor(np.array([prompt]), dtype=DType.int64, device=CPU_REF)
    return Arguments(cache, sampler, tokens)
