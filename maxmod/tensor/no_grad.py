"""`no_grad` and `inference_mode`: always in force, so that entering them changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from typing import Any


class no_grad(ContextDecorator):  # noqa: N801  # as in PyTorch
    """Changes nothing, as there are no gradients; for code that was written for PyTorch.

    Example:
        >>> import maxmod
        >>> with maxmod.no_grad():
        ...     maxmod.Tensor([1.0]).item()
        1.0
    """

    def __new__(cls, function: Callable[..., object] | bool | None = None) -> Any:
        """Returns the context, or a function that is decorated without brackets unchanged.

        Args:
            function: The function, or PyTorch's `mode`, which has no effect.
        """
        return function if callable(function) else super().__new__(cls)

    def __init__(self, function: object = None) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *exception: object) -> None:
        pass


class inference_mode(no_grad):  # noqa: N801  # as in PyTorch
    """Changes nothing: this is always inference; see `no_grad`."""
