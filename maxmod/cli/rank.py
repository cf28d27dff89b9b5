"""`maxmod rank`: texts in the order in which they answer a query."""

from __future__ import annotations

import argparse
import sys
import time

from maxmod.cli.arguments import add_device, add_eager, add_quantize, add_strict
from maxmod.errors import ArgumentError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Prints texts in the order in which they answer a query, each with its score, to standard "
        "output, and one line of timing to standard error. A cross-encoder reads the query with "
        "each text; any other encoder compares their vectors."
    )
    parser.add_argument("query", metavar="QUERY", help="the query")
    text = "a text; - reads standard input, a text in each line"
    parser.add_argument("texts", metavar="TEXT", nargs="+", help=text)
    text = "a folder of a cross-encoder, or of an encoder"
    parser.add_argument("--model", metavar="FOLDER", required=True, help=text)
    parser.add_argument("--top", metavar="N", type=int, help="texts to print (default: all)")
    add_device(parser)
    add_eager(parser)
    add_quantize(parser)
    add_strict(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import chosen_device, chosen_dtype, given_path, rounding, texts_of
    from maxmod.models import load_classifier, load_encoder
    from maxmod.models.registry import loader_of

    texts = texts_of("rank", options.texts)
    if options.top is not None and options.top < 1:
        raise ArgumentError(f"rank: --top: expected 1 or more, got {options.top}.")
    folder = given_path("rank", "--model", options.model)
    loader = load_classifier if loader_of(folder) is load_classifier else load_encoder
    start = time.perf_counter()
    model = loader(
        folder,
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        **rounding(options),
    )
    loaded = time.perf_counter()
    found = model.rank(options.query, texts, top=options.top, eager=options.eager)
    done = time.perf_counter()
    for place, score in found:
        print(f"{score:.4f}  {texts[place]}")
    count = "1 text" if len(texts) == 1 else f"{len(texts)} texts"
    print(
        f"maxmod: load {loaded - start:.3f} s, {count} in {done - loaded:.3f} s, "
        f"{model.device} {model.dtype.name}",
        file=sys.stderr,
    )
    return 0
