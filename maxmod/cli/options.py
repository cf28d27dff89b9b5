"""Interprets the options shared by several subcommands."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.dtype import DType
from maxmod.errors import ArgumentError
from maxmod.models import adder_folder
from maxmod.runtime.compiled import CompiledModel
from maxmod.tensor.default_context import defaults


def chosen_device(name: str | None) -> Device:
    """Returns the device that `--device` names."""
    if name is None:
        return defaults()[1]
    return CPU() if name == "cpu" else Accelerator()


def chosen_dtype(name: str | None) -> DType | None:
    """Returns the dtype that `--dtype` names; None for the dtype of the weights."""
    return None if name is None else DType[name]


def rounding(options: Namespace) -> dict[str, Any]:
    """Returns the arguments of a loading function that say how weights are rounded."""
    names = ("quantize", "group_size", "skip", "head", "sensitive")
    return {name: getattr(options, name) for name in names}


def chosen_folder(command: str, name: str | None) -> str | os.PathLike[str]:
    """Returns the folder that `--model` names; the embedded adder for None.

    Raises:
        ArgumentError: If the name is empty, as from an unset shell variable.
    """
    if name is None:
        return adder_folder()
    return given_path(command, "--model", name)


def given_path(command: str, what: str, path: str) -> str:
    """Returns a path, and refuses an empty one, which would be the current folder."""
    if not path:
        raise ArgumentError(f"{command}: {what}: expected a path, got an empty string.")
    return path


def standard_input(command: str) -> str:
    """Returns the text of standard input, without the end of its last line.

    Raises:
        ArgumentError: If it is closed, or not text in UTF-8.
    """
    if sys.stdin is None:
        raise ArgumentError(f"{command}: -: standard input is closed.")
    try:
        text = sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ArgumentError(
            f"{command}: -: expected text in UTF-8 on standard input, got the byte "
            f"0x{error.object[error.start]:02x} at position {error.start}."
        ) from None
    return text.replace("\r\n", "\n").removesuffix("\n")


def texts_of(command: str, given: Sequence[str]) -> list[str]:
    """Returns the texts of a command line; `-` alone stands for the lines of standard input.

    Raises:
        ArgumentError: If `-` is given besides texts, or standard input is not text in UTF-8.
    """
    if "-" not in given:
        return list(given)
    if len(given) > 1:
        raise ArgumentError(f"{command}: -: expected no texts in addition to standard input.")
    return standard_input(command).split("\n")


def token_ids(command: str, text: str) -> list[int]:
    """Returns the numbers of a text such as `15 20 7` or `15,20,7`.

    Raises:
        ArgumentError: If it holds anything else.
    """
    try:
        return [int(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise ArgumentError(f"{command}: --token-ids: expected integers, got {text!r}.") from None


def kernels_text(models: Sequence[CompiledModel]) -> str:
    """Returns how many kernels the models have and where they came from: `12 kernels, cached`."""
    built = sum(model.stats.kernels_built for model in models)
    count = built + sum(model.stats.kernels_cached for model in models)
    made = f"{count} kernels, {f'{built} built' if built else 'cached'}" if count else "no kernels"
    slower = [f"{times} x {why}" for model in models for why, times in model.stats.slower.items()]
    return "; ".join([made, *slower])
