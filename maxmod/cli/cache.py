"""`maxmod cache`: shows or clears the cache of built kernels."""

from __future__ import annotations

import argparse

from maxmod.kernel import cache as kernel_cache


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.add_argument("action", choices=["info", "clear", "path"], help="what to do")


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    if options.action == "path":
        print(kernel_cache.path())
    elif options.action == "clear":
        print(f"{kernel_cache.clear()} kernels removed from {kernel_cache.path()}")
    else:
        found = kernel_cache.info()
        state = "writable" if found.writable else "read-only" if found.usable else "not used"
        print(f"folder   {found.path} ({state})")
        print(f"kernels  {found.entries}")
        print(f"size     {found.nbytes / 1e6:.1f} MB of at most {found.max_bytes / 1e6:.0f} MB")
    return 0
