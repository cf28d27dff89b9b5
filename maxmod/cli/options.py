"""Options that several subcommands have."""

from __future__ import annotations

from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.defaults import defaults
from maxmod.dtype import DType


def chosen_device(name: str | None) -> Device:
    """Returns the device that `--device` names."""
    if name is None:
        return defaults()[1]
    return CPU() if name == "cpu" else Accelerator()


def chosen_dtype(name: str | None) -> DType | None:
    """Returns the dtype that `--dtype` names; None for that of the file."""
    return None if name is None else DType[name]
