"""`maxmod classify`: the most likely labels of images."""

from __future__ import annotations

import argparse
import sys
import time

from maxmod.cli.arguments import add_device, add_eager, add_quantize, add_strict


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Prints the most likely labels of images with their probabilities to standard output, and "
        "one line of timing to standard error. Photos are turned as their EXIF orientation says; "
        "transparent pixels are laid on white."
    )
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="an image file")
    parser.add_argument("--model", metavar="FOLDER", required=True, help="a ViT model folder")
    parser.add_argument("--top", metavar="N", type=int, default=5, help="labels (default: 5)")
    add_device(parser)
    add_eager(parser)
    add_quantize(parser)
    add_strict(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import chosen_device, chosen_dtype, given_path
    from maxmod.models import load_vision_model

    start = time.perf_counter()
    model = load_vision_model(
        given_path("classify", "--model", options.model),
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        quantize=options.quantize,
        group_size=options.group_size,
    )
    loaded = time.perf_counter()
    found = model.classify(options.images, top=options.top, eager=options.eager)
    done = time.perf_counter()
    for image, labels in zip(options.images, found):
        if len(found) > 1:
            print(f"{image}:")
        for label, probability in labels:
            print(f"{probability:.4f}  {label}")
    count = "1 image" if len(found) == 1 else f"{len(found)} images"
    print(
        f"maxmod: load {loaded - start:.3f} s, {count} in {done - loaded:.3f} s, "
        f"{len(model.labels)} labels, {model.device} {model.dtype.name}",
        file=sys.stderr,
    )
    return 0
