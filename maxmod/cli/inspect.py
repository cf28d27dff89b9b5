"""`maxmod inspect`: lists the tensors of a checkpoint and the free memory."""

from __future__ import annotations

import argparse
from pathlib import Path

from maxmod import backends
from maxmod.backends.devices import CPU, Accelerator, Device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.add_argument(
        "path",
        metavar="PATH",
        help="a model folder, a .safetensors or .gguf file, or a name in the cache of Hugging Face",
    )
    parser.add_argument("--all", action="store_true", help="list the tensors of every layer")


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import given_path
    from maxmod.models.formats.memory import memory_lines
    from maxmod.models.registry import describe
    from maxmod.weights.gguf import gguf_of
    from maxmod.weights.hub_cache import find_in_cache
    from maxmod.weights.inspect import opened, text_of
    from maxmod.weights.mapping import format_nbytes

    path = Path(find_in_cache(given_path("inspect", "PATH", options.path)))
    with opened(path) as weights:
        print(text_of(weights, fold=not options.all, memory=memory_lines(path, weights)))
    print(f"\narchitecture  {describe(path if path.is_dir() or gguf_of(path) else path.parent)}")
    devices: list[Device] = [CPU(), *map(Accelerator, range(backends.accelerator_count()))]
    found = [(device, device.stats) for device in devices]
    free = [f"{device.ref} {format_nbytes(s['free_memory'])}" for device, s in found if s]
    if free:
        print(f"free memory  {', '.join(free)}")
    return 0
