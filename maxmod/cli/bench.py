"""`maxmod bench`: how fast a model reads a prompt and writes tokens on this machine."""

from __future__ import annotations

import argparse
import itertools
import json
import time
from typing import TYPE_CHECKING

from maxmod.cli.arguments import add_device, add_model, add_quantize
from maxmod.errors import ArgumentError

if TYPE_CHECKING:
    from maxmod.models import LanguageModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Times loading, compiling, the first token and the tokens after it, with a random prompt; "
        "shows the best of several rounds."
    )
    add_model(parser)
    add = parser.add_argument
    add("--prompt-tokens", metavar="N", type=int, default=8, help="default: 8")
    add("--new-tokens", metavar="N", type=int, default=8, help="default: 8")
    add("--batch", metavar="N", type=int, default=1, help="sequences (default: 1)")
    add("--rounds", metavar="N", type=int, default=3, help="default: 3")
    add("--json", action="store_true", help="print the results as JSON")
    add_device(parser)
    add_quantize(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import (
        chosen_device,
        chosen_dtype,
        chosen_folder,
        kernels_text,
        rounding,
    )
    from maxmod.models import load_model

    if options.rounds < 1:
        raise ArgumentError(f"bench: --rounds: expected 1 or more, got {options.rounds}.")
    start = time.perf_counter()
    model = load_model(
        chosen_folder("bench", options.model),
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        **rounding(options),
    )
    load_s = time.perf_counter() - start
    count, new = options.prompt_tokens, options.new_tokens
    if min(count, options.batch) < 1 or new < 2 or count + new > model.max_positions:
        raise ArgumentError(
            f"bench: expected a batch and a prompt of 1 or more, 2 or more new tokens, and at most "
            f"{model.max_positions} tokens together, got {options.batch}, {count} and {new}."
        )
    start = time.perf_counter()
    steps = model.steps(dict.fromkeys((count, 1)), batch=options.batch)
    compile_s = time.perf_counter() - start
    first_s, token_s = _times(model, options)
    prefill_s, decode_s = min(first_s[1:]), min(token_s[1:])
    reads = int(steps[-1].explanation(batch=options.batch, length=count + new).reads())
    found = {
        "model": str(model.folder),
        "device": str(model.device),
        "dtype": model.dtype.name,
        "quantize": options.quantize,
        "batch": options.batch,
        "load_s": load_s,
        "compile_s": compile_s,
        "kernels": kernels_text(steps),
        "first_call_s": first_s[0],
        "prompt_tokens": count,
        "first_token_s": prefill_s,
        "prompt_tokens_per_s": options.batch * count / prefill_s,
        "new_tokens": new,
        "new_tokens_per_s": options.batch / decode_s,
        "bytes_per_step": reads,
        "read_gb_s": reads / decode_s / 1e9,
    }
    print(json.dumps(found) if options.json else _text(found))
    return 0


def _times(model: LanguageModel, options: argparse.Namespace) -> tuple[list[float], list[float]]:
    """Generates once per round, with random prompts.

    Returns:
        For each round, the seconds until the first token, and the median seconds of the tokens
        after it. The first round binds programs and does not count.
    """
    import numpy as np

    from maxmod.generate import generate_batch

    rng = np.random.default_rng(0)
    size = options.batch, options.prompt_tokens
    prompts = rng.integers(0, model.vocab_size, size).tolist()
    first_s, token_s = [], []
    for _ in range(options.rounds + 1):
        times = [time.perf_counter()]
        for _ in generate_batch(
            model, prompts, max_new_tokens=options.new_tokens, stop=(), greedy=True
        ):
            times.append(time.perf_counter())
        first_s.append(times[1] - times[0])
        token_s.append(float(np.median([b - a for a, b in itertools.pairwise(times[1:])])))
    return first_s, token_s


def _text(found: dict[str, object]) -> str:
    return (
        "{model}, {dtype} on {device}, batch {batch}\n"
        "load          {load_s:9.3f} s\n"
        "compile       {compile_s:9.3f} s     {kernels}\n"
        "first call    {first_call_s:9.3f} s     includes one-time binding and allocation\n"
        "first token   {first_token_s:9.3f} s     {prompt_tokens} tokens read, "
        "{prompt_tokens_per_s:.0f} tokens/s\n"
        "then          {new_tokens_per_s:9.1f} tokens/s, median of {new_tokens}; a step reads "
        "{megabytes:.1f} MB, {read_gb_s:.1f} GB/s"
    ).format(**found, megabytes=float(str(found["bytes_per_step"])) / 1e6)
