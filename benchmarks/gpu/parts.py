"""The parts of `run.py`, each for a process of its own.

    python benchmarks/gpu/parts.py decode DIR [--small]

Every number is written as soon as it is known. All values are rates, so that more is better. With
`--small`, sizes are those of a dry run on the emulated GPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

import handwritten
import numpy as np
import report

import kernels
import maxmod
from maxmod import DType, Tensor, TensorType
from maxmod.backends.devices import Accelerator
from maxmod.generate.kv_cache import KVCache
from maxmod.generate.sampling import Sampler, Sampling
from maxmod.models.decoders import gpt2, llama
from maxmod.models.language import NextTokens
from maxmod.weights import open_checkpoint, save_state

LENGTH = 512
PROMPT = 2048
COPIED_NBYTES = 1 << 30
LOADED_NBYTES = 16 << 30
ROUNDS = 5
_LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 131072,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
}
# Llama-3.1-8B, Llama-3.2-1B and GPT-2.
MODELS: dict[str, dict[str, Any]] = {
    "8B": _LLAMA,
    "1B": _LLAMA
    | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64}
    | {"tie_word_embeddings": True},
    "GPT-2": {"vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12},
}
SMALL = {
    "1B": _LLAMA
    | {"vocab_size": 64, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    | {"num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 128},
}


class Model:
    """A model with random weights, made on the device."""

    def __init__(self, given: dict[str, Any], dtype: str) -> None:
        self.device = Accelerator()
        with maxmod.default_device(self.device), maxmod.default_dtype(DType.bfloat16):
            if "n_embd" in given:
                self.config: Any = gpt2.Config(**given)
                self.module: Any = gpt2.GPT2(self.config)
            else:
                self.config = llama.Config(**given)
                self.module = llama.make_module(self.config)
        if dtype != "bf16":
            maxmod.quantize(self.module, dtype)

    def step(self, length: int, seq: int = 1) -> Callable[[], object]:
        """Returns a step of decoding, or of reading so many tokens, as a call to repeat."""
        ref = self.device.ref
        tokens = [TensorType(DType.int64, [1, seq], self.device)] if seq > 1 else []
        compiled = NextTokens(self.module).compile(
            KVCache.types(self.config.cache_shape, 1, DType.bfloat16, ref),
            Sampler.types(1, self.config.vocab_size, ref),
            *tokens,
        )
        cache = KVCache.empty(self.config.cache_shape, [0], length, DType.bfloat16, ref)
        sampler = Sampler.start(Sampling(), [[1]], self.config.vocab_size, ref)
        prompt = [Tensor(np.ones((1, seq), np.int64), device=self.device)] if seq > 1 else []
        used = Tensor.zeros([], dtype=DType.int64, device=ref)
        call = compiled.repeated(cache, sampler, *prompt)

        def run() -> None:
            cache.used.data[...] = used.data  # it would leave the cache after some steps
            call()

        return run


def decode(part: report.Part, small: bool) -> None:
    """Tokens of one sequence in a second, and what the host needs for a step."""
    for name, given in (SMALL if small else MODELS).items():
        for dtype in ("bf16", "int8", "int4"):
            case = f"decode {name} {dtype}"
            step = part.attempt(case, "maxmod", lambda g=given, d=dtype: _decoding(g, d, small))
            if step is None:
                continue
            timing = part.attempt(case, "maxmod", lambda s=step: kernels.measure({"": s}, ROUNDS))
            if timing is not None:
                part.number(case, "maxmod", 1 / timing[""].median_s, "tok/s")
            host = part.attempt(case, "maxmod", lambda s=step: _host_s(s))
            if host is not None:
                part.number(f"host of {case}", "maxmod", 1 / host, "steps/s")
            del step
        part.attempt(
            f"decode {name} bf16", "transformers", lambda n=name, g=given: _transformers(part, n, g)
        )


def _decoding(given: dict[str, Any], dtype: str, small: bool) -> Callable[[], object]:
    step = Model(given, dtype).step(64 if small else LENGTH)
    for _ in range(3):
        step()
    return step


def _host_s(step: Callable[[], object]) -> float:
    Accelerator().synchronize()
    start = time.thread_time()
    for _ in range(20):
        step()
    found = (time.thread_time() - start) / 20
    Accelerator().synchronize()
    return max(found, 1e-9)


def _transformers(part: report.Part, name: str, given: dict[str, Any]) -> None:
    import torch
    import transformers

    kind = transformers.GPT2Config if "n_embd" in given else transformers.LlamaConfig
    config = kind(**{key: value for key, value in given.items() if key != "model_type"})
    with torch.device("cuda"), torch.no_grad():
        torch.set_default_dtype(torch.bfloat16)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        tokens = torch.ones((1, 8), dtype=torch.int64)
        options = {"do_sample": False, "min_new_tokens": 64, "max_new_tokens": 64}
        for implementation in (None, "static"):
            more = options | ({"cache_implementation": implementation} if implementation else {})
            model.generate(tokens, **more)
            torch.cuda.synchronize()
            start = time.perf_counter()
            model.generate(tokens, **more)
            torch.cuda.synchronize()
            label = "transformers" + (", static cache" if implementation else "")
            rate = 64 / (time.perf_counter() - start)
            part.number(f"decode {name} bf16", label, rate, "tok/s")


def prefill(part: report.Part, small: bool) -> None:
    """Tokens of a prompt in a second."""
    count = 8 if small else PROMPT
    for name, given in (SMALL if small else MODELS).items():
        if name == "GPT-2":  # has room for fewer
            continue
        case = f"prefill {name} {count}"
        step = part.attempt(case, "maxmod", lambda g=given: Model(g, "bf16").step(2 * count, count))
        timing = step and part.attempt(
            case, "maxmod", lambda s=step: kernels.measure({"": s}, ROUNDS)
        )
        if timing:
            part.number(case, "maxmod", count / timing[""].median_s, "tok/s")


# ---- kernels -------------------------------------------------------------------------------------


def _compared(
    part: report.Part,
    case: Any,
    nbytes: int,
    made: Callable[[], dict[str, kernels.Call]],
    unit: str,
) -> None:
    """Measures the contenders of a case together; one that fails leaves the others."""
    calls = part.attempt(case.name, "contenders", made) or {}
    calls = {n: c for n, c in calls.items() if part.attempt(case.name, n, lambda c=c: (c(),))}
    found = part.attempt(case.name, "timing", lambda: kernels.measure(calls, ROUNDS)) or {}
    for name, timing in found.items():
        part.number(case.name, name, nbytes / timing.median_s * 1e-9, unit)


def _own_cases(part: report.Part, cases: Sequence[handwritten.Case]) -> None:
    for case in cases:

        def made(case: handwritten.Case = case) -> dict[str, kernels.Call]:
            chosen = handwritten.contenders(case, ["torch"])
            right = handwritten.expected(case, handwritten._sets(case)[0])
            for name, (call, to_numpy) in [*chosen.items()]:
                check = lambda n=name, c=call, t=to_numpy: (  # noqa: E731
                    handwritten.check(case, n, t(c()), right),
                )
                if part.attempt(case.name, name, check) is None:
                    del chosen[name]
            return handwritten.limit(case) | {name: call for name, (call, _) in chosen.items()}

        is_memory = case.is_bound_by_memory
        work = case.nbytes if is_memory else case.flops
        _compared(part, case, work, made, "GB/s" if is_memory else "GFLOP/s")


def gemv(part: report.Part, small: bool) -> None:
    """Products of one row, after the speed of a copy, which is the limit."""
    nbytes = 1 << 16 if small else COPIED_NBYTES
    copy = part.attempt("copy", "limit: copy", lambda: kernels.copying(nbytes))
    timing = copy and part.attempt("copy", "limit: copy", lambda: kernels.measure({"": copy}, 3))
    if timing:
        part.number("copy", "limit: copy", nbytes / timing[""].median_s * 1e-9, "GB/s")
    cases = [case for case in handwritten.CASES if not case.is_attention]
    if small:
        cases = [handwritten.Case("gemv", DType.bfloat16, ((1, 64), (40, 64)))]
    _own_cases(part, cases)


def attention(part: report.Part, small: bool) -> None:
    """Attention of one query, then of many."""
    cases = [case for case in handwritten.CASES if case.is_attention]
    if small:
        sizes = ((4, 2), (1, 70), 64)
        cases = [handwritten._attention("few", DType.bfloat16, *sizes, causal=False)]
    _own_cases(part, cases)


def rows(part: report.Part, small: bool) -> None:
    """Norms, softmax and element-wise kernels."""
    for case in kernels.CASES[:1] if small else kernels.CASES:

        def made(case: kernels.Case = case) -> dict[str, kernels.Call]:
            chosen = kernels.contenders(case, ["cupy", "torch", "torch.compile"])
            for name, (call, to_numpy) in [*chosen.items()]:
                check = lambda n=name, c=call, t=to_numpy: (  # noqa: E731
                    kernels.check(case, n, c(), t),
                )
                if part.attempt(case.name, name, check) is None:
                    del chosen[name]
            limit = {"limit: copy": kernels.copying(kernels._nbytes(case))}
            return limit | {name: call for name, (call, _) in chosen.items()}

        _compared(part, case, kernels._nbytes(case), made, "GB/s")


# ---- loading -------------------------------------------------------------------------------------


def load(part: report.Part, small: bool) -> None:
    """Weights from files in the page cache to the device; compiling with and without a cache."""
    nbytes = 1 << 16 if small else LOADED_NBYTES
    part.attempt("load", "maxmod", lambda: _load(part, nbytes))
    given = next(iter(SMALL.values())) if small else MODELS["8B"] | {"num_hidden_layers": 2}
    part.attempt("compile", "maxmod", lambda: _compile(part, given))


def _load(part: report.Part, nbytes: int) -> None:
    count = 32
    with tempfile.TemporaryDirectory() as folder:
        block = np.ones(nbytes // count, np.uint8)
        saved = save_state({f"w{n}": block for n in range(count)}, Path(folder))
        for _ in range(2):
            with open_checkpoint(saved) as checkpoint:
                Accelerator().synchronize()
                start = time.perf_counter()
                for _, tensor in checkpoint.on(Accelerator()).items_in_file_order():
                    assert tensor.data is not None
                Accelerator().synchronize()
                part.number("load", "maxmod", nbytes / (time.perf_counter() - start) * 1e-9, "GB/s")


def _compile(part: report.Part, given: dict[str, Any]) -> None:
    model = Model(given, "bf16")
    with tempfile.TemporaryDirectory() as folder, maxmod.configure(cache_dir=folder):
        for how in ("cold", "warm"):
            start = time.perf_counter()
            model.step(64)
            rate = 1 / (time.perf_counter() - start)
            part.number(f"compile, {how}", "maxmod", rate, "1/s")


PARTS = {
    "decode": decode,
    "gemv": gemv,
    "attention": attention,
    "rows": rows,
    "prefill": prefill,
    "load": load,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a part."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("part", choices=PARTS)
    made.add_argument("out", type=Path)
    made.add_argument("--small", action="store_true")
    options = made.parse_args(argv)
    part = report.Part(options.out, options.part)
    facts = part.attempt("machine", "facts", kernels.facts)
    report.append(options.out, {"part": options.part, "facts": facts})
    PARTS[options.part](part, options.small)


if __name__ == "__main__":
    main()
