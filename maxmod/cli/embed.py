"""`maxmod embed`: computes embedding vectors of texts."""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import TYPE_CHECKING

from maxmod.cli.arguments import add_device, add_eager, add_quantize, add_strict
from maxmod.errors import ArgumentError

if TYPE_CHECKING:
    from maxmod.models.encoder import TextEncoder
    from maxmod.values.array import HostArray


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Computes embedding vectors of texts with a pretrained encoder: one line of JSON per text "
        "to standard output, and one line of timing to standard error."
    )
    text = "a text to embed; - reads standard input, a text in each line"
    parser.add_argument("texts", metavar="TEXT", nargs="+", help=text)
    parser.add_argument("--model", metavar="FOLDER", required=True, help="a folder of an encoder")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument(
        "--prompt-name", metavar="NAME", help="a prompt of the folder, such as query"
    )
    prompt.add_argument("--prompt", metavar="TEXT", help="what to put in front of each text")
    parser.add_argument(
        "--truncate",
        action=argparse.BooleanOptionalAction,
        help="cut texts that are too long silently, or refuse them (default: cut and say so)",
    )
    parser.add_argument(
        "--token-ids",
        action="store_true",
        help="read each TEXT as token ids, such as '101 7592 102'; needs no tokenizer",
    )
    add_device(parser)
    add_eager(parser)
    add_quantize(parser)
    add_strict(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import chosen_device, chosen_dtype, given_path, rounding, texts_of
    from maxmod.models import load_encoder

    options.texts = texts_of("embed", options.texts)
    start = time.perf_counter()
    model = load_encoder(
        given_path("embed", "--model", options.model),
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        **rounding(options),
    )
    loaded = time.perf_counter()
    vectors = _vectors(options, model)
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


def _vectors(options: argparse.Namespace, model: TextEncoder) -> HostArray:
    from maxmod.cli.options import token_ids

    if not options.token_ids:
        return model.embed(
            options.texts,
            prompt_name=options.prompt_name,
            prompt=options.prompt,
            truncate=options.truncate,
            eager=options.eager,
        )
    if (options.prompt_name, options.prompt, options.truncate) != (None, None, None):
        raise ArgumentError(
            "embed: --token-ids: cannot be combined with --prompt, --prompt-name or --truncate."
        )
    rows = [token_ids("embed", text) for text in options.texts]
    return model.embed_tokens(rows, eager=options.eager)
