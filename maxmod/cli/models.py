"""`maxmod models`: lists the models that can be loaded."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Lists the models that can be loaded, by the functions of maxmod.models that load them, "
        "with their model_type in config.json."
    )


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.models.names import supported

    models = list(supported())
    width = max(len(found.model_type) for found in models)
    for functions in dict.fromkeys(found.functions for found in models):
        print(f"{', '.join(functions)}:")
        for found in models:
            if found.functions == functions:
                print(f"  {found.model_type:{width}}  {found.names}")
    return 0
