"""`maxmod quantize`: writes a copy of a model folder with int8 or int4 weights."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from maxmod.cli.arguments import SCHEMES, add_dtype, add_rounding, add_strict
from maxmod.errors import ArgumentError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Quantizes the weights of a model's linear layers and writes a new folder, which the other "
        "commands and load_model accept like any other."
    )
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="a Hugging Face model folder")
    add("out", metavar="OUT", help="the folder to create; it appears once complete")
    add(
        "--weights",
        "--quantize",
        dest="quantize",
        choices=SCHEMES,
        default="int8",
        help="default: int8",
    )
    add_rounding(parser)
    text = (
        "a text like those that the model is for, some thousands of words, a line each for an "
        "encoder: errors on it are made to cancel; needs memory for the floats of the model"
    )
    add("--calibration", metavar="FILE", help=text)
    add_dtype(parser)
    add_strict(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.backends.devices import CPU
    from maxmod.cli.options import chosen_dtype, given_path, rounding
    from maxmod.models import save_quantized
    from maxmod.models.quantized_folder import expect_new_folder
    from maxmod.models.registry import loader_of
    from maxmod.nn.quantizing import quantize
    from maxmod.weights.inspect import opened, stored_nbytes
    from maxmod.weights.mapping import format_nbytes

    given_path("quantize", "FOLDER", options.folder)
    expect_new_folder(given_path("quantize", "OUT", options.out))
    start = time.perf_counter()
    load = loader_of(options.folder)
    texts = None if options.calibration is None else _texts(options.calibration, load.__name__)
    model = load(
        options.folder,
        device=CPU(),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        **(rounding(options) if texts is None else {}),
    )
    if texts is not None:
        given = rounding(options)
        quantize(model, given.pop("quantize"), **given, calibration=texts)
    made = save_quantized(model, options.out)
    sizes = []
    for folder in (options.folder, made):
        with opened(folder) as checkpoint:
            sizes.append(format_nbytes(stored_nbytes(checkpoint)))
    print(
        f"maxmod: {made}: {sizes[1]} of weights, from {sizes[0]}, in "
        f"{time.perf_counter() - start:.3f} s",
        file=sys.stderr,
    )
    return 0


def _texts(name: str, loader: str) -> list[str]:
    """Returns the texts of a file: the whole for a language model, else its lines.

    Raises:
        ArgumentError: If it cannot be read, is no UTF-8, or holds no text.
    """
    try:
        text = Path(name).read_text("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ArgumentError(f"quantize: --calibration: {name}: {error}.") from None
    if not text.strip():
        raise ArgumentError(f"quantize: --calibration: {name}: there is no text in it.")
    return [text] if loader == "load_model" else text.splitlines()
