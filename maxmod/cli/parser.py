"""The parser of the command line, made from a table of subcommands.

A subcommand is a module of this folder with its name and two functions: `add_arguments(parser)` and
`run(options)`. Only the requested subcommand's module is imported, and it imports its own
dependencies in `run`, so help is fast.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from typing import Protocol, cast

from maxmod.cli.arguments import add_debug

# Each subcommand with its line in `maxmod --help`.
SUBCOMMANDS = {
    "generate": "continue a text",
    "embed": "compute embedding vectors of texts",
    "classify": "classify images or texts",
    "rank": "order texts by how well they answer a query",
    "batch": "run a model over the rows of files",
    "tag": "find names and the like in texts",
    "run": "run a script written for MAX",
    "explain": "show the kernels and the plan of a compiled model",
    "bench": "measure how fast a model runs here",
    "quantize": "write a model folder with int8 or int4 weights",
    "models": "list the models that can be loaded",
    "inspect": "list the tensors of a checkpoint",
    "doctor": "show versions, devices, compiler and cache",
    "cache": "show or clear the cache of built kernels",
}


class Subcommand(Protocol):
    """What the module of a subcommand defines."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds its description and arguments to its parser."""
        ...

    def run(self, options: argparse.Namespace) -> int:
        """Runs it and returns its exit code."""
        ...


def subcommand(name: str) -> Subcommand:
    """Imports a subcommand of the table."""
    return cast(Subcommand, importlib.import_module(f"maxmod.cli.{name}"))


def new_parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    """Returns the parser of a command line; the name of the subcommand becomes `command`, and what
    shows its usage and exits `refuse`.

    Args:
        arguments: The command line; only the subcommand that it names gets its arguments.
    """
    parser = argparse.ArgumentParser(
        prog="maxmod", description="Inference with pretrained weights, on any CPU or an NVIDIA GPU."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    # Options before the subcommand take no values.
    named = next((text for text in arguments if not text.startswith("-")), None)
    for name, text in SUBCOMMANDS.items():
        added = commands.add_parser(name, help=text)
        if name == named:
            subcommand(name).add_arguments(added)
            add_debug(added)
            added.set_defaults(refuse=added.error)  # shows the usage of the subcommand
    return parser


class _Version(argparse.Action):
    """Prints the version; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        from maxmod.config import __version__

        print(f"maxmod {__version__}")
        parser.exit()
