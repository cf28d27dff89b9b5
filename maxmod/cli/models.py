"""`maxmod models`: lists the models that can be loaded."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Lists the models that can be loaded, with their model_type in config.json and the "
        "functions of maxmod.models that load them."
    )


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.models.names import supported

    rows = [("models", "model_type", "loaded by")]
    rows += [(found.names, found.model_type, ", ".join(found.functions)) for found in supported()]
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for names, model_type, functions in rows:
        print(f"{names:{widths[0]}}  {model_type:{widths[1]}}  {functions}")
    return 0
