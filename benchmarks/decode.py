"""GPT-2 small makes 128 tokens after a prompt of 16: batch 1, each token from the most likely.

Weights are random and written as Hugging Face folders first, so nothing is downloaded and every
contender reads the same file. The model of a folder has the dtype that it is stored in; for int8
and int4 the weights of a folder in bfloat16 are rounded while they are loaded.

- A token needs every weight once, so the limit is reading them: a probe that sums as many bytes as
  the weights of the first dtype have, as often as there are tokens. GB/s are the bytes of all
  weights but the table of positions for each token, and the part of the limit is what they are of
  the probe's; both are medians, since neighbours on the machine take bandwidth from both.
- A step is the time between two tokens as `maxmod.generate` and the `generate` of transformers give
  them; the first token, which reads the prompt, is not among them. Shown are the median and the
  best round. Contenders take turns.
- Of the first dtype, tokens are also drawn at random, with every filter (`SAMPLING`).
- First token: a new process imports maxmod, loads the folder and gives its first token, with
  kernels that are in the cache already. Beside it is the time to read the file into new memory.
- transformers is slow enough to make a run take minutes, so it is compared with the first dtype
  alone; `--peers numpy` leaves it out.

    python benchmarks/decode.py [--dtypes float32,int4] [--tokens 128] [--prompt 16] [--smoke]

With `--model FOLDER` it decodes that model beside llama.cpp, CTranslate2 and transformers; see
`decode_model.py`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import decode_model
import gpt2_prefill
import harness
import limits
import load
import numpy as np

from maxmod import CPU, DType
from maxmod.generate import generate
from maxmod.models import LanguageModel, load_model
from maxmod.models.decoders import gpt2
from maxmod.weights import save_state, transpose

FIRST_TOKEN_RUNS = 3
SAMPLING = {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "repetition_penalty": 1.1}

# Starts a generation of some tokens; yields the time at which each of them is available.
Start = Callable[[int], Iterator[float]]


# ---- the folders ---------------------------------------------------------------------------------


def write_folder(folder: Path, config: gpt2.Config, dtype: DType) -> None:
    """Writes random weights with names and layouts as transformers has them."""
    _, weights = gpt2_prefill.make_model(config)
    layers = ["h.*.c_attn.weight", "h.*.c_fc.weight", "h.*.c_proj.weight"]
    state = transpose(
        {f"transformer.{n}": w for n, w in weights.items()}, [f"*{n}" for n in layers]
    )
    save_state(dict(state.astype(dtype)), folder)
    ends = dict.fromkeys(("bos_token_id", "eos_token_id"), config.vocab_size - 1)
    kind = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    table = {**kind, **asdict(config), **ends}
    (folder / "config.json").write_text(json.dumps(table), "utf-8")


def load_options(folder: Path, kind: str) -> tuple[Path, dict[str, Any]]:
    """Returns the folder of a dtype and how to load it; int8 and int4 are made of bfloat16."""
    if kind in ("int8", "int4"):
        return folder / "bfloat16", {"quantize": kind}
    return folder / kind, {}


def weight_nbytes(model: LanguageModel) -> int:
    """Returns the bytes of the weights that a token needs; tied ones count once.

    Of the tables of positions and tokens one row is read, unless the latter is the head as well.
    """
    found = dict(model.module.parameters)
    head = found.get("lm_head.weight")
    tables = [t for name, t in found.items() if name in ("wpe.weight", "wte.weight")]
    skipped = {id(table) for table in tables if table is not head}
    used = {id(t): t for t in found.values() if id(t) not in skipped}
    return sum(int(t.type.nbytes) for t in used.values())


# ---- contenders ----------------------------------------------------------------------------------


def maxmod_start(model: LanguageModel, prompt: list[int], **sampling: Any) -> Start:
    """Generates with maxmod, without stop tokens."""

    def start(count: int) -> Iterator[float]:
        greedy = not sampling
        for _ in generate(model, prompt, max_new_tokens=count, stop=(), greedy=greedy, **sampling):
            yield time.perf_counter()

    return start


def torch_start(folder: Path, prompt: list[int]) -> Start:
    """Generates with transformers."""
    import torch
    from transformers import GenerationConfig, GPT2LMHeadModel

    torch.set_grad_enabled(False)
    model = GPT2LMHeadModel.from_pretrained(folder, dtype="auto").eval()
    tokens = torch.tensor([prompt])

    class Marks:
        """Called with the prompt, then with each token."""

        def __init__(self) -> None:
            self.times: list[float] = []

        def put(self, _: Any) -> None:
            self.times.append(time.perf_counter())

        def end(self) -> None:
            pass

    def start(count: int) -> Iterator[float]:
        marks = Marks()
        options = GenerationConfig(
            max_new_tokens=count, min_new_tokens=count, do_sample=False, pad_token_id=0
        )
        mask = torch.ones_like(tokens)
        model.generate(tokens, attention_mask=mask, generation_config=options, streamer=marks)
        return iter(marks.times[1:])

    return start


def check_tokens(model: LanguageModel, folder: Path, prompt: list[int]) -> None:
    """Ends the benchmark if transformers finds other tokens more likely; for float32."""
    import torch
    from transformers import GPT2LMHeadModel

    found = list(generate(model, prompt, max_new_tokens=16, stop=(), greedy=True))
    peer = GPT2LMHeadModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = peer(torch.tensor([prompt + found[:-1]])).logits[0, len(prompt) - 1 :].numpy()
    chosen = logits[np.arange(len(found)), found]
    if not np.all(chosen >= logits.max(axis=-1) - 1e-4 * np.abs(logits).max()):
        raise SystemExit("maxmod: a token is not the most likely one by transformers.")


def step_s(start: Start, count: int) -> float:
    """Returns the time of a step: the mean of one generation, without the first token."""
    times = list(start(count))
    return (times[-1] - times[0]) / (len(times) - 1)


def measure(
    starts: dict[str, Start], limit: harness.Call | None, rounds: int, count: int
) -> dict[str, harness.Timing]:
    """Times the contenders in turns, and the limit before each of them."""
    samples: dict[str, list[float]] = {"limit": []} if limit else {}
    for name, start in starts.items():
        step_s(start, 3)  # compiles and fills caches
        samples[name] = []
    for _ in range(rounds):
        for name, start in starts.items():
            time.sleep(harness.SETTLE_S)
            if limit is not None:
                limit()  # wakes up its threads
                samples["limit"].append(timeit.timeit(limit, number=count) / count)
            samples[name].append(step_s(start, count))
    return {
        name: harness.Timing(float(np.median(found)), min(found), len(found))
        for name, found in samples.items()
    }


# ---- the first token -----------------------------------------------------------------------------


def print_first_token(folder: str, kind: str, prompt: str) -> None:
    """The work of a child process: prints the time at which it has the first token."""
    place, options = load_options(Path(folder), kind)
    model = load_model(place, device=CPU(), **options)
    next(generate(model, json.loads(prompt)))
    print(json.dumps(time.time()))


def first_token(folder: Path, kind: str, prompt: list[int], runs: int) -> tuple[float, float]:
    """Returns the seconds from the start of a process to its first token, and to read the file."""
    arguments = ("--first-token-of", str(folder), kind, json.dumps(prompt))
    starts, reads = [], []
    read = load.read_into_new(load_options(folder, kind)[0] / "model.safetensors")
    for _ in range(runs + 1):  # the first run builds kernels
        before = time.time()
        starts.append(harness.child(Path(__file__), *arguments) - before)
        before = time.perf_counter()
        read()
        reads.append(time.perf_counter() - before)
    return float(np.median(starts[1:])), float(np.median(reads[1:]))


# ---- the whole benchmark -------------------------------------------------------------------------


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    parser.add_argument("--dtypes", default="float32,bfloat16,int8", help="also int4")
    parser.add_argument("--tokens", type=int, default=128, help="new tokens")
    parser.add_argument("--prompt", type=int, default=16, help="tokens of the prompt")
    parser.add_argument("--folder", type=Path, help="where to write the weights")
    decode_model.add_options(parser)
    parser.set_defaults(rounds=3)
    return parser


def run(args: argparse.Namespace, folder: Path, facts: dict[str, Any]) -> None:
    """Measures and prints."""
    config = gpt2_prefill.TINY if args.smoke else gpt2_prefill.SMALL
    count = min(args.tokens, config.n_positions - args.prompt)
    prompt = gpt2_prefill.make_tokens(config, args.prompt)[0].tolist()
    kinds = args.dtypes.split(",")
    starts: dict[str, Start] = {}
    nbytes: dict[str, int] = {}
    for kind in kinds:
        place, options = load_options(folder, kind)
        if not place.exists():
            write_folder(place, config, DType[place.name])
        model = load_model(place, device=CPU(), **options)
        name = f"maxmod {kind}"
        starts[name], nbytes[name] = maxmod_start(model, prompt), weight_nbytes(model)
        if kind == kinds[0]:
            sampled = f"{name}, sampled"
            starts[sampled] = maxmod_start(model, prompt, **SAMPLING)
            nbytes[sampled] = nbytes[name]
        if kind == kinds[0] and "torch" in args.peers and harness.is_installed("transformers"):
            if kind == "float32":
                check_tokens(model, place, prompt)
            peer = f"transformers {kind}"
            starts[peer], nbytes[peer] = torch_start(place, prompt), nbytes[name]
    size = next(iter(nbytes.values()))
    timings = measure(starts, limits.reading(size), args.rounds, count)
    bound = timings.get("limit")
    nbytes["limit"] = size
    own = timings[next(iter(starts))]
    rows = []
    for name, timing in timings.items():
        speed = nbytes[name] / timing.median_s / 1e9
        peak = size / bound.median_s / 1e9 if bound else 0.0
        rows.append(
            (
                name if name != "limit" else "limit: read once",
                harness.duration(timing.median_s),
                harness.duration(timing.best_s),
                f"{1 / timing.median_s:.1f}",
                f"{speed:.1f}",
                f"{speed / peak:.0%}" if peak else "",
                harness.ratio(own.median_s, timing.median_s),
            )
        )
    title = f"{args.prompt} + {count} tokens"
    header = ("median", "best", "tokens/s", "GB/s", "of limit", f"x {next(iter(starts))}")
    harness.print_table((title, *header), rows)
    records = [harness.record(t, contender=n, nbytes=nbytes[n]) for n, t in timings.items()]
    rows = []
    runs = 1 if args.smoke else FIRST_TOKEN_RUNS
    for kind in kinds:
        first_s, read_s = first_token(folder, kind, prompt, runs)
        rows.append((kind, *map(harness.duration, (first_s, read_s, first_s - read_s))))
        records.append({"first_token": kind, "median_s": first_s, "read_s": read_s})
    harness.print_table(("new process", "first token", "reading the file", "rest"), rows)
    harness.save(args, "decode", facts, records)


def main() -> None:
    if sys.argv[1:2] == ["--first-token-of"]:
        print_first_token(*sys.argv[2:])
        return
    args = harness.parse(options())
    if args.smoke:
        args.tokens, args.prompt = 8, 4
        args.dtypes = "float32,int8"
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    if args.model is not None:
        decode_model.run(args, facts)
        return
    with tempfile.TemporaryDirectory(prefix="maxmod-bench-", dir=args.folder) as folder:
        run(args, Path(folder), facts)


if __name__ == "__main__":
    main()
