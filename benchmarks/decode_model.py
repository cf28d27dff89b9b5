"""Decodes a model of a folder beside other libraries, for `decode.py --model FOLDER`.

Each contender makes the same number of tokens after the same prompt, on as many threads as there
are CPUs, and they take turns. The time is that between two tokens; the first is not counted.

- maxmod in each of `--dtypes`; int8 and int4 are rounded from the folder.
- llama.cpp (`xllamacpp`) with each file of `--gguf`, which its own tools write. Its time is the
  one that its server reports.
- CTranslate2 with each folder of `--ctranslate2`, which its converter writes.
- transformers with the folder, in its dtype.

A peer that is not installed is left out.

`peer_files.py` writes GPT-2 small with random weights for all of them.

Measured on 2 cores of an AMD EPYC (Zen 3, AVX2), December 2026, 16 + 24 tokens, best of 3 or 4
rounds, tokens per second; contenders of two lines each were run together. GPT-2 small, random:

| weights              | maxmod | llama.cpp | ratio | CTranslate2 |
|----------------------|--------|-----------|-------|-------------|
| float32, F32         |   61.0 |      38.0 |  1.61 |        57.1 |
| bfloat16, BF16       |   71.4 |      59.0 |  1.21 |             |
| int8, Q8_0           |  177.3 |      64.2 |  2.76 |        50.2 |
| int4, Q4_1           |  156.2 |      80.2 |  1.95 |             |

SmolLM2-135M-Instruct, an hour later, when all of the machine was a third slower (the other numbers
vary by as much; transformers in bfloat16 made 15.0 here):

| weights              | maxmod | llama.cpp | ratio | CTranslate2 |
|----------------------|--------|-----------|-------|-------------|
| float32, F32         |   45.3 |      24.9 |  1.81 |        40.5 |
| bfloat16, BF16       |   52.7 |      41.4 |  1.27 |             |
| int8, Q8_0           |  110.7 |      57.1 |  1.94 |        22.8 |
| int4, Q4_1           |  103.2 |      70.2 |  1.47 |             |

Since then rows times codes are faster; another run, as slow: int8 121.9 against 61.4 (1.99), int4
150.7 against 60.5 (2.49; by medians of 4 rounds 2.0). Once more with nothing else running, 16 + 48
tokens, best of 3: bfloat16 55.9 against 35.4 (1.58), int8 115.4 against 60.8 (1.90), int4 119.2
against 73.1 (1.63).

On 2 cores of an Intel Xeon (Emerald Rapids: AVX-512 with VNNI), December 2026, 16 + 24 tokens, best
of 4 rounds, nothing else running, int8 with a scale for each 64 weights. SmolLM2-135M-Instruct:

| weights              | maxmod | llama.cpp | ratio | CTranslate2 |
|----------------------|--------|-----------|-------|-------------|
| float32, F32         |   35.0 |      22.2 |  1.58 |        27.6 |
| bfloat16, BF16       |   55.1 |      34.0 |  1.62 |             |
| int8, Q8_0           |   96.7 |      52.2 |  1.85 |        60.6 |
| int4, Q4_1           |   86.5 |      65.2 |  1.33 |             |

GPT-2 small, random:

| weights              | maxmod | llama.cpp | ratio | CTranslate2 |
|----------------------|--------|-----------|-------|-------------|
| float32, F32         |   42.1 |      26.6 |  1.58 |        38.5 |
| bfloat16, BF16       |   60.7 |      38.6 |  1.57 |             |
| int8, Q8_0           |  116.8 |      63.6 |  1.84 |       102.3 |
| int4, Q4_1           |  123.8 |      79.4 |  1.56 |             |

A step of SmolLM2 is 282 kernels. Called one by one from Python, a token took 7.6 ms in int8 and 8.7
in int4 where one call for all of them takes 6.6 and 6.8 (same day, alternating in one process; no
peer ran then). Of 6.5 ms in kernels, norms take 0.07, rotary embeddings and stores 0.05, attention
0.16, and products the rest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import products

from maxmod import CPU, DType
from maxmod.generate import generate
from maxmod.models import load_model

# Makes some tokens, and returns the mean time of one, in seconds.
Decode = Callable[[int], float]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this module."""
    parser.add_argument("--model", type=Path, help="a folder, in place of random weights")
    parser.add_argument("--gguf", type=Path, nargs="*", default=[], help="files for llama.cpp")
    parser.add_argument("--ctranslate2", type=Path, nargs="*", default=[], help="its folders")


def maxmod_decode(folder: Path, kind: str, prompt: list[int]) -> Decode:
    """Decodes with maxmod; in int8 and int4 the weights of the folder are rounded."""
    options: dict[str, Any] = {"quantize": kind} if kind in ("int8", "int4") else {}
    if not options:
        options = {"dtype": DType[kind]}
    model = load_model(folder, device=CPU(), **options)

    def run(count: int) -> float:
        times = [
            time.perf_counter()
            for _ in generate(model, prompt, max_new_tokens=count, stop=(), greedy=True)
        ]
        return (times[-1] - times[0]) / (len(times) - 1)

    return run


def llama_cpp_decode(file: Path, prompt: list[int]) -> Decode:
    """Decodes with llama.cpp."""
    import xllamacpp

    if not file.is_file():  # it would say nothing but that its server does not start
        raise SystemExit(f"decode: --gguf: expected files with spaces between, got {file}.")
    params = xllamacpp.CommonParams()
    params.model.path = str(file)
    params.n_ctx, params.n_parallel, params.verbosity = 1024, 1, -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = harness.processors()
    server = xllamacpp.Server(params)

    def run(count: int) -> float:
        wanted = {"prompt": prompt, "n_predict": count, "temperature": 0, "ignore_eos": True}
        found = server.handle_completions({**wanted, "cache_prompt": False})
        found = json.loads(found) if isinstance(found, str) else found
        timings = found["timings"]
        # Its time is that of all but the first token, which the prompt gives.
        return timings["predicted_ms"] / 1e3 / max(timings["predicted_n"] - 1, 1)

    return run


def ctranslate2_decode(folder: Path, prompt: list[int]) -> Decode:
    """Decodes with CTranslate2."""
    import ctranslate2

    generator = ctranslate2.Generator(str(folder), intra_threads=harness.processors())
    vocabulary = json.loads((folder / "vocabulary.json").read_text("utf-8"))
    tokens = [vocabulary[token] for token in prompt]

    def run(count: int) -> float:
        steps = generator.generate_tokens(tokens, max_length=count, end_token=[], sampling_topk=1)
        times = [time.perf_counter() for _ in steps]
        if len(times) != count:
            raise SystemExit(f"CTranslate2: expected {count} tokens, got {len(times)}.")
        return (times[-1] - times[0]) / (count - 1)

    return run


def transformers_decode(folder: Path, prompt: list[int]) -> Decode:
    """Decodes with transformers."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()
    tokens = torch.tensor([prompt])

    def run(count: int) -> float:
        options = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(tokens)}
        times: list[float] = []

        class Marks:
            def put(self, _: Any) -> None:
                times.append(time.perf_counter())

            def end(self) -> None:
                pass

        with torch.inference_mode():
            model.generate(
                tokens, max_new_tokens=count, min_new_tokens=count, streamer=Marks(), **options
            )
        return (times[-1] - times[1]) / (len(times) - 2)

    return run


def contenders(args: argparse.Namespace, prompt: list[int]) -> dict[str, Decode]:
    """Returns what takes part, by name."""
    found = {
        f"maxmod {kind}": maxmod_decode(args.model, kind, prompt) for kind in args.dtypes.split(",")
    }
    if harness.is_installed("xllamacpp"):
        found.update((f"llama.cpp {f.stem}", llama_cpp_decode(f, prompt)) for f in args.gguf)
    if harness.is_installed("ctranslate2"):
        for folder in args.ctranslate2:
            found[f"CTranslate2 {folder.name}"] = ctranslate2_decode(folder, prompt)
    if "torch" in args.peers and harness.is_installed("transformers"):
        found["transformers"] = transformers_decode(args.model, prompt)
    return found


def run(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    """Measures and prints."""
    config = json.loads((args.model / "config.json").read_text("utf-8"))
    prompt = [n * 97 % int(config["vocab_size"]) for n in range(1, args.prompt + 1)]
    calls = contenders(args, prompt)
    for call in calls.values():
        call(4)  # builds kernels and fills caches
    near = products.Neighbours()
    samples: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(args.rounds):
        for name, call in calls.items():
            time.sleep(harness.SETTLE_S)
            samples[name].append(call(args.tokens))
    best = {name: min(found) for name, found in samples.items()}
    rows = [
        (
            name,
            harness.duration(statistics.median(found)),
            harness.duration(best[name]),
            f"{1 / best[name]:.1f}",
            *(f"{best[name] / best[own]:.2f}" for own in calls if own.startswith("maxmod")),
        )
        for name, found in samples.items()
    ]
    ratios = [f"x {own}" for own in calls if own.startswith("maxmod")]
    title = f"{args.model.name}, {args.prompt} + {args.tokens} tokens"
    harness.print_table((title, "median", "best", "tokens/s", *ratios), rows)
    products.mark(near)
    records = [
        {"contender": name, "median_s": statistics.median(found), "best_s": best[name]}
        for name, found in samples.items()
    ]
    harness.save(args, "decode", facts, records)
