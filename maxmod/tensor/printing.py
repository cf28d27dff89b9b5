"""The text form of tensors: brackets as in NumPy, the shape, long axes shortened."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from maxmod.backends.devices import device_of
from maxmod.dtype import DType
from maxmod.values.array import HostArray
from maxmod.values.shape import Sizes
from maxmod.values.tensor_type import TensorType

# As repr of eager tensors in MAX 26.x: what is shown of long axes, and the digits of floats.
_SUMMARIZE_ABOVE = 1000  # elements
_EDGE = 3  # entries shown at each end of a long axis
_WIDTH = 100  # columns; longer rows are wrapped
_START = "Tensor("


def format_tensor(type: TensorType, host: HostArray | None) -> str:
    """Returns `Tensor(<data>, shape=..., dtype=..., device=...)`."""
    data = "<unrealized>" if host is None else format_data(host, type.dtype)
    device = f"Device(type={type.device.device_type},id={type.device.id})"
    if host is not None:
        device = str(device_of(type.device))
    return f"{_START}{data}, shape={_shape(type.sizes)}, dtype={type.dtype}, device={device})"


def _shape(sizes: Sizes) -> str:
    """Returns `[2, n]`: what `shape` compares equal to, without the class of sizes."""
    return "[" + ", ".join(map(str, sizes)) + "]"


def format_data(host: HostArray, dtype: DType) -> str:
    """Returns the elements as text, aligned for a place behind `Tensor(`."""
    values = host.astype(np.float64) if dtype.is_float() else host
    widths = [0]

    def measured(value: object) -> str:
        widths.append(len(_cell(value)))
        return _cell(value)

    _laid_out(values, measured)  # finds what is shown of long axes
    width = max(widths)
    return _laid_out(values, lambda value: _cell(value).rjust(width))


def _laid_out(values: HostArray, cell: Callable[[object], str]) -> str:
    return np.array2string(
        values,
        max_line_width=_WIDTH,
        prefix=_START,
        threshold=_SUMMARIZE_ABOVE,
        edgeitems=_EDGE,
        formatter={"all": cell},
    )


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
