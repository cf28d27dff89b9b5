"""Options that several subcommands have."""

from __future__ import annotations

from collections.abc import Sequence

from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.compiled import CompiledModel
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


def kernels_text(models: Sequence[CompiledModel]) -> str:
    """Returns how many kernels models have and where they came from: `12 kernels, cached`."""
    built = sum(model.stats.kernels_built for model in models)
    count = built + sum(model.stats.kernels_cached for model in models)
    return f"{count} kernels, {f'{built} built' if built else 'cached'}" if count else "no kernels"
