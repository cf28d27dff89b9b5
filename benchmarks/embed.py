"""Embedding sentences with a model of a folder, beside transformers and onnxruntime.

    python benchmarks/embed.py --model FOLDER [--counts 1,64,1000] [--dtypes float32,int8,int4]

- Sentences have 3 to 40 words, shuffled. Every contender gets the same texts and sorts them by
  length itself: maxmod inside `embed`, the peers as sentence-transformers does, 32 at a time.
  Tokenizing is part of the time.
- transformers: `AutoModel` in float32, and the mean over the tokens.
- onnxruntime: the file of `--onnx`, which `embed_onnx.py` writes.
- Vectors in float32 are compared with those of maxmod before anything is timed.
- Calls that take milliseconds are repeated for a tenth of a second in each turn.

Measured on 2 cores of an AMD EPYC (Zen 3, AVX2), December 2026, all-MiniLM-L6-v2, best times of one
run; the ratios are those of maxmod in float32 to transformers and to onnxruntime in float32:

| sentences | float32 | int8    | int4    | transformers  | onnxruntime   |
|-----------|---------|---------|---------|---------------|---------------|
|         1 | 4.79 ms | 2.88 ms | 3.33 ms | 11.6 ms, 2.42 | 4.96 ms, 1.04 |
|        64 |  258 ms |  200 ms |  214 ms |  358 ms, 1.39 |  332 ms, 1.29 |
|     1,000 |  3.36 s |  3.02 s |  3.61 s |  5.01 s, 1.49 |  4.04 s, 1.20 |

On 2 cores of an Intel Xeon (Emerald Rapids, AVX-512), December 2026, best of 2 rounds; 1,000
sentences in another run, with a fifth of the machine taken by others:

| sentences | float32 | int8    | int4    | transformers  | onnxruntime   |
|-----------|---------|---------|---------|---------------|---------------|
|         1 | 5.15 ms | 2.38 ms | 2.56 ms | 9.72 ms, 1.89 | 3.39 ms, 0.66 |
|        64 |  209 ms |  176 ms |  194 ms |  370 ms, 1.77 |  377 ms, 1.80 |
|     1,000 |  3.36 s |         |         |  4.05 s, 1.20 |  4.50 s, 1.34 |

Since 9 to 32 rows read weights unpacked with AVX-512 as well, one sentence in float32 takes 2.64 ms
where the version before takes 3.52, as multiples of transformers 2.63 and 2.20, of onnxruntime 0.92
and 0.76 (best of 4 rounds each, the version before first, the one pair of runs without other load;
with half to four fifths of the machine taken by others, pairs were 0.93 and 0.53, 0.80 and 0.98).

Before texts were packed without padding, and 9 to 32 rows read weights unpacked, one sentence was
2.03 and 64 were 1.23 times as fast as with transformers.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import harness
import numpy as np
import products

from maxmod import CPU, DType
from maxmod.models import load_encoder

BATCH = 32  # of the peers: the default of sentence-transformers
WORDS = ("the", "river", "a", "stone", "model", "of", "light", "water", "questions", "quickly")

Embed = Callable[[Sequence[str]], Any]


def sentences(count: int) -> list[str]:
    """Returns sentences of different lengths, the same in every run."""
    rng = random.Random(count)
    return [" ".join(rng.choices(WORDS, k=rng.randint(3, 40))) for _ in range(count)]


def maxmod_embed(folder: Path, kind: str) -> Embed:
    """Embeds with maxmod; in int8 and int4 the weights of the folder are rounded."""
    options: dict[str, Any] = {"quantize": kind} if kind != "float32" else {}
    model: Any = load_encoder(folder, device=CPU(), dtype=DType.float32, **options)
    return model.embed


def by_length(texts: Sequence[str], embed: Callable[[list[str]], Any]) -> Any:
    """Embeds texts of similar length together, and returns the vectors in their order."""
    order = sorted(range(len(texts)), key=lambda index: -len(texts[index]))
    parts = [
        embed([texts[index] for index in order[start : start + BATCH]])
        for start in range(0, len(order), BATCH)
    ]
    found = np.concatenate(parts)
    result = np.empty_like(found)
    result[order] = found
    return result


def pooled(hidden: Any, mask: Any) -> Any:
    """Returns the mean over the tokens, of length 1."""
    weights = mask[..., None].astype(np.float32)
    mean = (hidden * weights).sum(1) / weights.sum(1)
    return mean / np.linalg.norm(mean, axis=-1, keepdims=True)


def transformers_embed(folder: Path) -> Embed:
    """Embeds with transformers."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder).eval()

    def embed(texts: list[str]) -> Any:
        given = tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**given).last_hidden_state.numpy()
        return pooled(hidden, given["attention_mask"].numpy())

    return lambda texts: by_length(texts, embed)


def onnx_embed(folder: Path, file: Path) -> Embed:
    """Embeds with onnxruntime; tokens come from transformers."""
    import onnxruntime
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}

    def embed(texts: list[str]) -> Any:
        given = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
        arrays = {name: array for name, array in given.items() if name in names}
        return pooled(session.run(None, arrays)[0], given["attention_mask"])

    return lambda texts: by_length(texts, embed)


def contenders(args: Any) -> dict[str, Embed]:
    """Returns what takes part, by name."""
    folder, texts = args.model, sentences(8)
    found = {f"maxmod {kind}": maxmod_embed(folder, kind) for kind in args.dtypes.split(",")}
    own = found.get("maxmod float32")
    peers: dict[str, Embed] = {}
    if "torch" in args.peers and harness.is_installed("transformers"):
        peers["transformers"] = transformers_embed(folder)
    if args.onnx and harness.is_installed("onnxruntime"):
        peers["onnxruntime"] = onnx_embed(folder, args.onnx)
    for name, call in peers.items():
        if own is not None:
            harness.check(name, call(texts), np.asarray(own(texts)))
    return {**found, **peers}


def turn(call: Embed, texts: Sequence[str]) -> list[float]:
    """Returns the seconds of calls within `harness.TURN_S`, one at least."""
    time.sleep(harness.SETTLE_S)
    found: list[float] = []
    begin_s = now_s = time.perf_counter()
    while not found or now_s - begin_s < harness.TURN_S:
        call(texts)
        end_s = time.perf_counter()
        # The first milliseconds after a pause do not count, unless a call takes much longer.
        if now_s - begin_s >= harness.WARM_S or end_s - now_s > 10 * harness.WARM_S:
            found.append(end_s - now_s)
        now_s = end_s
    return found


def times(calls: dict[str, Embed], texts: Sequence[str], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of calls; the contenders take turns."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(texts)
    for _ in range(rounds):
        for name, call in calls.items():
            found[name] += turn(call, texts)
    return found


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--model", type=Path, required=True, help="a folder of an encoder")
    parser.add_argument("--onnx", type=Path, help="the same model for onnxruntime")
    parser.add_argument("--counts", default="1,64,1000", help="numbers of sentences")
    parser.add_argument("--dtypes", default="float32,int8,int4")
    parser.set_defaults(rounds=3)
    args = harness.parse(parser)
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    calls = contenders(args)
    records: list[dict[str, Any]] = []
    near = products.Neighbours()
    for count in [8] if args.smoke else map(int, args.counts.split(",")):
        found = times(calls, sentences(count), args.rounds)
        best = {name: min(samples) for name, samples in found.items()}
        own = best[next(iter(best))]
        rows = [
            (
                name,
                harness.duration(statistics.median(samples)),
                harness.duration(best[name]),
                harness.ratio(best[name], own),
            )
            for name, samples in found.items()
        ]
        title = f"{count} sentences"
        harness.print_table((title, "median", "best", f"x {next(iter(best))}"), rows)
        records += [
            {
                "contender": name,
                "sentences": count,
                "median_s": statistics.median(samples),
                "best_s": best[name],
            }
            for name, samples in found.items()
        ]
    products.mark(near)
    harness.save(args, "embed", facts, records)


if __name__ == "__main__":
    main()
