"""`maxmod classify`: the most likely labels of images or texts."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING, TypeAlias

from maxmod.cli.arguments import add_device, add_eager, add_quantize, add_strict
from maxmod.errors import ArgumentError

if TYPE_CHECKING:
    from maxmod.models import TextClassifier, VisionModel

    Classifier: TypeAlias = "TextClassifier | VisionModel"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Prints the most likely labels of images or texts with their probabilities to standard "
        "output, and one line of timing to standard error. The folder says which of both it "
        "classifies. Photos are turned as their EXIF orientation says; transparent pixels are laid "
        "on white."
    )
    text = "an image file or a text; - reads standard input, a text in each line"
    parser.add_argument("inputs", metavar="INPUT", nargs="+", help=text)
    text = "a model folder: a ViT, or a text encoder with a head for labels"
    parser.add_argument("--model", metavar="FOLDER", required=True, help=text)
    parser.add_argument("--top", metavar="N", type=int, default=5, help="labels (default: 5)")
    text = "a second text, which the model reads together with each text"
    parser.add_argument("--pair", metavar="TEXT", help=text)
    add_device(parser)
    add_eager(parser)
    add_quantize(parser)
    add_strict(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import chosen_device, chosen_dtype, given_path, rounding
    from maxmod.models import TextClassifier, load_classifier, load_vision_model
    from maxmod.models.registry import loader_of

    folder = given_path("classify", "--model", options.model)
    is_vision = loader_of(folder) is load_vision_model
    loader = load_vision_model if is_vision else load_classifier
    if is_vision and options.pair is not None:
        raise ArgumentError("classify: --pair: expected a model of texts, got one of images.")
    start = time.perf_counter()
    model = loader(
        folder,
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        **rounding(options),
    )
    loaded = time.perf_counter()
    is_text = isinstance(model, TextClassifier)
    found = _labels_of_texts(options, model) if is_text else _labels_of_images(options, model)
    done = time.perf_counter()
    for shown, labels in zip(options.inputs, found):
        if len(found) > 1:
            print(f"{shown}:")
        for label, probability in labels:
            print(f"{probability:.4f}  {label}")
    kind = "text" if is_text else "image"
    count = f"1 {kind}" if len(found) == 1 else f"{len(found)} {kind}s"
    print(
        f"maxmod: load {loaded - start:.3f} s, {count} in {done - loaded:.3f} s, "
        f"{len(model.labels)} labels, {model.device} {model.dtype.name}",
        file=sys.stderr,
    )
    return 0


def _labels_of_images(
    options: argparse.Namespace, model: VisionModel
) -> list[list[tuple[str, float]]]:
    return model.classify(options.inputs, top=options.top, eager=options.eager)


def _labels_of_texts(
    options: argparse.Namespace, model: TextClassifier
) -> list[list[tuple[str, float]]]:
    from maxmod.cli.options import texts_of

    options.inputs = texts_of("classify", options.inputs)
    second = options.pair
    given = [text if second is None else (text, second) for text in options.inputs]
    return model.classify(given, top=options.top, eager=options.eager)
