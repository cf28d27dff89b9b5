"""Activation functions by their names in config.json."""

from __future__ import annotations

from functools import partial

from maxmod import functional as F
from maxmod.errors import ModelError

ACTIVATIONS = {
    "gelu": F.gelu,
    "gelu_new": partial(F.gelu, approximate="tanh"),
    "gelu_pytorch_tanh": partial(F.gelu, approximate="tanh"),
    "quick_gelu": partial(F.gelu, approximate="quick"),
    "relu": F.relu,
    "silu": F.silu,
    "tanh": F.tanh,
}


def check_activation(field: str, name: str) -> None:
    """Raises `ModelError` unless `name` is known."""
    if name not in ACTIVATIONS:
        raise ModelError(f"{field}: expected one of {', '.join(ACTIVATIONS)}, got {name!r}.")
