"""`maxmod tag`: the parts of texts that have a label, such as names."""

from __future__ import annotations

import argparse
import json
import sys
import time

from maxmod.cli.arguments import add_device, add_eager, add_quantize, add_strict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Prints the parts of texts that have a label, such as names of people and places: one line "
        "of JSON per text to standard output, a list of label, text, start, end and score, and one "
        "line of timing to standard error."
    )
    text = "a text; - reads standard input, a text in each line"
    parser.add_argument("texts", metavar="TEXT", nargs="+", help=text)
    text = "a folder of a text encoder with a head for labels of tokens"
    parser.add_argument("--model", metavar="FOLDER", required=True, help=text)
    parser.add_argument(
        "--merge",
        choices=["none", "simple", "first"],
        default="simple",
        help="what makes a part: each token, neighbours with one label (default), or neighbours "
        "with all tokens of a word labelled as its first",
    )
    add_device(parser)
    add_eager(parser)
    add_quantize(parser)
    add_strict(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import chosen_device, chosen_dtype, given_path, rounding, texts_of
    from maxmod.models import load_tagger

    texts = texts_of("tag", options.texts)
    start = time.perf_counter()
    model = load_tagger(
        given_path("tag", "--model", options.model),
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        **rounding(options),
    )
    loaded = time.perf_counter()
    found = model.tag(texts, merge=options.merge, eager=options.eager)
    done = time.perf_counter()
    for tags in found:
        rows = [tag._asdict() | {"score": round(tag.score, 4)} for tag in tags]
        print(json.dumps(rows, ensure_ascii=False))
    count = "1 text" if len(found) == 1 else f"{len(found)} texts"
    print(
        f"maxmod: load {loaded - start:.3f} s, {count} in {done - loaded:.3f} s, "
        f"{len(model.labels)} labels, {model.device} {model.dtype.name}",
        file=sys.stderr,
    )
    return 0
