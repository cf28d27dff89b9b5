"""Activation functions by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from maxmod import functional as F
from maxmod.errors import ArgumentError, did_you_mean
from maxmod.tensor import Tensor

_FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "gelu_quick": partial(F.gelu, approximate="quick"),
    "relu": F.relu,
    "sigmoid": F.sigmoid,
    "silu": F.silu,
    "tanh": F.tanh,
}


def activation_function_from_name(name: str) -> Callable[[Tensor], Tensor]:
    """Returns the function of a name.

    Args:
        name: `"gelu"`, `"gelu_tanh"`, `"gelu_quick"`, `"relu"`, `"sigmoid"`, `"silu"`, `"tanh"`.

    Returns:
        A function of a tensor.

    Raises:
        ValueError: For another name.
    """
    if name not in _FUNCTIONS:
        raise ArgumentError(
            f"activation_function_from_name: expected one of {', '.join(_FUNCTIONS)}, got "
            f"{name!r}.{did_you_mean(name, _FUNCTIONS)}"
        )
    return _FUNCTIONS[name]


__all__ = ["activation_function_from_name"]
