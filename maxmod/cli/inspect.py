"""`maxmod inspect`: what is in a file or folder of weights."""

from __future__ import annotations

import argparse

from maxmod.weights import inspect_text


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    print(inspect_text(options.path, fold=not options.all))
    return 0
