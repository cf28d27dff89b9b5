"""`maxmod embed`: texts to vectors."""

from __future__ import annotations

import argparse
import json
import sys
import time

from maxmod.cli.options import chosen_device, chosen_dtype, given_path
from maxmod.models import load_encoder


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    start = time.perf_counter()
    model = load_encoder(
        given_path("embed", "--model", options.model),
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        quantize=options.quantize,
        group_size=options.group_size,
    )
    loaded = time.perf_counter()
    vectors = model.embed(options.texts, truncate=options.truncate, eager=options.eager)
    done = time.perf_counter()
    for vector in vectors:
        print(json.dumps([round(float(number), 7) for number in vector]))
    count = "1 text" if len(vectors) == 1 else f"{len(vectors)} texts"
    print(
        f"maxmod: load {loaded - start:.3f} s, {count} in {done - loaded:.3f} s, "
        f"{vectors.shape[1]} numbers each, {model.device} {model.dtype.name}",
        file=sys.stderr,
    )
    return 0
