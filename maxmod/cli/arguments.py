"""Arguments shared by several subcommands; `maxmod.cli.options` interprets them."""

from __future__ import annotations

from argparse import ArgumentParser, _ArgumentGroup
from typing import TypeAlias

# A parser or a group of it.
Arguments: TypeAlias = "ArgumentParser | _ArgumentGroup"

SCHEMES = ("int8", "int4")


def add_model(parser: ArgumentParser) -> None:
    """Adds `--model`, for a language model, and `--strict`."""
    text = (
        "a Hugging Face model folder, or the name of a model in its cache (default: the embedded "
        "model, which adds numbers)"
    )
    parser.add_argument("--model", metavar="FOLDER", help=text)
    add_strict(parser)


def add_strict(parser: ArgumentParser) -> None:
    """Adds `--strict`."""
    text = "refuse a folder with a configuration field that nobody here knows, instead of a note"
    parser.add_argument("--strict", action="store_true", help=text)


def add_device(parser: ArgumentParser) -> None:
    """Adds `--device` and `--dtype`."""
    parser.add_argument("--device", choices=["cpu", "gpu"], help="default: gpu if there is one")
    add_dtype(parser)


def add_dtype(parser: ArgumentParser) -> None:
    """Adds `--dtype`."""
    choices = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=choices, help="default: the dtype of the weights")


def add_eager(parser: ArgumentParser) -> None:
    """Adds `--eager`."""
    parser.add_argument("--eager", action="store_true", help="run op by op, without compiling")


def add_quantize(parser: ArgumentParser) -> None:
    """Adds `--quantize` and what `add_rounding` adds."""
    text = "quantize weights to 8 or 4 bits while loading"
    parser.add_argument("--quantize", "--weights", choices=SCHEMES, help=text)
    add_rounding(parser)


def add_rounding(parser: ArgumentParser) -> None:
    """Adds the options of `maxmod.quantize`: `--group-size`, `--skip`, `--head`, `--sensitive`."""
    add = parser.add_argument
    text = "number of weights that share a scale, for int4 (default: 32)"
    add("--group-size", metavar="N", type=int, help=text)
    text = "a layer to leave as it is; * matches any characters; repeatable"
    add("--skip", metavar="NAME", action="append", default=[], help=text)
    text = "for the layer that chooses among all tokens (default: int8)"
    add("--head", choices=SCHEMES, default="int8", help=text)
    text = "for layers that lose most by 4 bits, with int4 (default: int8)"
    add("--sensitive", choices=SCHEMES, default="int8", help=text)


def add_sampling(parser: Arguments) -> None:
    """Adds the options of how tokens are chosen, which `maxmod.generate` documents."""
    add = parser.add_argument
    text = "take the most likely token at each step, and nothing of generation_config.json"
    add("--greedy", action="store_true", help=text)
    text = "sampling temperature; 0 takes the most likely token"
    add("--temperature", metavar="T", type=float, help=text)
    text = "keep the K most likely tokens; 0 keeps all"
    add("--top-k", metavar="K", type=int, help=text)
    text = "keep the most likely tokens whose probabilities sum to P"
    add("--top-p", metavar="P", type=float, help=text)
    text = "keep tokens with probability at least P times the largest"
    add("--min-p", metavar="P", type=float, help=text)
    text = "make tokens that already occur less likely if above 1"
    add("--repetition-penalty", metavar="R", type=float, help=text)
    text = "seed of the random numbers (default: another text each time)"
    add("--seed", metavar="S", type=int, help=text)


def add_debug(parser: ArgumentParser) -> None:
    """Adds `--debug`, which every subcommand has."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
