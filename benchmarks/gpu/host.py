"""What the host does for a step of decoding on a GPU, measured without one.

    python benchmarks/gpu/host.py [--layers 32] [--json FILE]

The CUDA backend runs on the emulated CuPy of `tests/emulated_cuda.py`, which starts no kernels
here, so that what is left is the time of Python: of a step that is a recorded graph, from the call
to its launch, and of binding a program for a new length of the prompt or the cache. Arrays cost
more in the emulation than in CuPy, since their addresses are found by Python.

AMD EPYC (Zen 3), loaded, December 2026, CPU time, a Llama of 16 layers: before calls could be
repeated and bound steps used again, a step took 262 us and binding another cache length 18.5 ms;
now 31 us and 6.2 ms.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

import numpy as np
from emulated_cuda import FakeGraph, emulated_cuda

import maxmod
from maxmod import DType
from maxmod.generate.kv_cache import KVCache
from maxmod.generate.sampling import Sampler, Sampling
from maxmod.models.decoders import llama
from maxmod.models.language import NextTokens
from maxmod.runtime.compiled import CompiledModel

WIDTH = 64


def configuration(layers: int) -> dict[str, Any]:
    """The smallest Llama with this number of layers."""
    return {
        "model_type": "llama",
        "vocab_size": 128,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
    }


class Setup:
    """A model on the emulated GPU.

    Args:
        backend: The emulated backend; its kernels are not run.
        device: The emulated device.
        layers: The number of layers.
    """

    def __init__(self, backend: Any, device: Any, layers: int) -> None:
        backend.cuda.driver.launchKernel = lambda *args: None
        self.device, self.config = device, llama.Config(**configuration(layers))
        with maxmod.default_device(device), maxmod.default_dtype(DType.bfloat16):
            self.module = llama.make_module(self.config)

    def compiled(self, *, prefill: bool) -> CompiledModel:
        """The step of decoding, or of reading a prompt."""
        shape, ref = self.config.cache_shape, self.device.ref
        prompts = [maxmod.TensorType(DType.int64, [1, "seq"], self.device)] if prefill else []
        return NextTokens(self.module).compile(
            KVCache.types(shape, 1, DType.bfloat16, ref),
            Sampler.types(1, self.config.vocab_size, ref),
            *prompts,
            name="prefill" if prefill else "decode",
        )

    def state(self, length: int) -> tuple[KVCache, Sampler]:
        """A cache and a sampler."""
        ref = self.device.ref
        cache = KVCache.empty(self.config.cache_shape, [0], length, DType.bfloat16, ref)
        return cache, Sampler.start(Sampling(), [[1, 2]], self.config.vocab_size, ref)


def best(work: Callable[[], object], calls: int, rounds: int = 5) -> float:
    """Returns the least CPU seconds of a call."""
    found = []
    for _ in range(rounds):
        start = time.thread_time()
        for _ in range(calls):
            work()
        found.append((time.thread_time() - start) / calls)
    return min(found)


def step_times(setup: Setup) -> dict[str, float]:
    """Returns microseconds of a step that is replayed: as a call, and as a repeated call."""
    step, state = setup.compiled(prefill=False), setup.state(64)
    for _ in range(3):
        step(*state)
    assert step.stats.replays, step.stats
    found = {"step_call_us": best(lambda: step(*state), 20) * 1e6}
    if hasattr(step, "repeated"):
        found["step_repeated_us"] = best(step.repeated(*state), 50) * 1e6
    return found


def binding_times(setup: Setup) -> dict[str, float]:
    """Returns milliseconds of the first call with another length of the cache or of the prompt."""
    step = setup.compiled(prefill=False)
    states = [setup.state(64 * count) for count in range(1, 9)]
    step(*states.pop())
    decode = best(lambda: step(*states.pop()), 1)
    read = setup.compiled(prefill=True)
    state = setup.state(64)
    prompts = [
        maxmod.Tensor(np.zeros((1, count), np.int64), device=setup.device)
        for count in range(40, 48)
    ]
    read(*state, prompts.pop())
    prefill = best(lambda: read(*state, prompts.pop()), 1)
    return {"bind_decode_ms": decode * 1e3, "bind_prefill_ms": prefill * 1e3}


def measure(layers: int) -> dict[str, float]:
    """Returns all figures."""
    os.environ.setdefault("PYTEST_CURRENT_TEST", "benchmarks/gpu/host.py::")  # names the emulation
    launch = FakeGraph.launch
    FakeGraph.launch = lambda self, stream=None: None  # type: ignore[method-assign]
    try:
        with emulated_cuda() as (device, backend), maxmod.configure(nocache=True, verify=False):
            setup = Setup(backend, device, layers)
            return {**step_times(setup), **binding_times(setup)}
    finally:
        FakeGraph.launch = launch  # type: ignore[method-assign]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the figures."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--layers", type=int, default=32)
    made.add_argument("--json", type=Path, metavar="FILE")
    options = made.parse_args(argv)
    found = measure(options.layers)
    for name, value in found.items():
        print(f"{name:20} {value:10.1f}")
    if options.json:
        options.json.write_text(json.dumps({"layers": options.layers, **found}, indent=1), "utf-8")


if __name__ == "__main__":
    main()
