"""The text form of tensors: matrices side by side, long axes shortened."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from maxmod.backends.devices import device_of
from maxmod.dtype import DType
from maxmod.values.array import HostArray
from maxmod.values.tensor_type import TensorType

# Source: repr of eager tensors in MAX 26.x, whose layout and numbers are followed.
_SUMMARIZE_ABOVE = 1000  # elements
_EDGE = 3  # entries shown at each end of a long axis
_WIDTH_SAMPLE = 30  # cells that decide the cell width of a summary

_Block = list[str]  # lines
T = TypeVar("T")


def format_tensor(type: TensorType, host: HostArray | None) -> str:
    """Returns `Tensor(<data>, dtype=..., device=...)`; without data, the shape is shown instead."""
    dtype = type.dtype
    if host is None:
        return (
            f"Tensor(<unrealized>, shape={type.shape!r}, dtype={dtype}, "
            f"device=Device(type={type.device.device_type},id={type.device.id}))"
        )
    data = format_data(host, dtype)
    return f"Tensor({data}, dtype={dtype}, device={device_of(type.device)})"


def format_data(host: HostArray, dtype: DType) -> str:
    """Returns the elements as text."""
    if host.size == 0:
        return "[]"
    values = host.astype(np.float64) if dtype.is_float() else host
    summarize = host.size > _SUMMARIZE_ABOVE
    if summarize:
        for axis in range(host.ndim):
            if values.shape[axis] > 2 * _EDGE:
                ends = [*range(_EDGE), *range(values.shape[axis] - _EDGE, values.shape[axis])]
                values = np.take(values, ends, axis=axis)
    cells = [_cell(v) for v in values.reshape(-1).tolist()]
    sample = cells[:_WIDTH_SAMPLE] if summarize else cells
    width = max(len(cell) for cell in sample)
    if host.ndim == 0:
        return cells[0]
    text = np.array([cell.rjust(width) for cell in cells], dtype=object).reshape(values.shape)
    shortened = [summarize and size > 2 * _EDGE for size in host.shape]
    lines = _block(text, shortened)
    return "[" + "\n ".join(lines) + "]"


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _with_dots(items: list[T], shortened: bool, dots: T) -> list[T]:
    return [*items[:_EDGE], dots, *items[_EDGE:]] if shortened else items


def _block(text: HostArray, shortened: list[bool]) -> _Block:
    """Lays out an array of cells: rows, then alternately side by side and stacked."""
    if text.ndim == 1:
        return [" ".join(_with_dots(list(text), shortened[0], "..."))]
    blocks = [_block(part, shortened[1:]) for part in text]
    if text.ndim == 2:
        return [block[0] for block in _with_dots(blocks, shortened[0], ["..."])]
    blocks = _with_dots(blocks, shortened[0], ["..."])
    if text.ndim % 2 == 1:
        return _joined(blocks, " | " if text.ndim == 3 else f" {':' * ((text.ndim - 3) // 2)} ")
    return _stacked(blocks, (text.ndim - 4) // 2)


def _joined(blocks: list[_Block], separator: str) -> _Block:
    height = max(len(block) for block in blocks)
    columns = []
    for block in blocks:
        width = max(len(line) for line in block)
        filled = block * height if block == ["..."] else block
        columns.append([line.ljust(width) for line in filled])
    return [separator.join(column[i] for column in columns).rstrip() for i in range(height)]


def _stacked(blocks: list[_Block], rules: int) -> _Block:
    width = max(len(line) for block in blocks for line in block)
    between = ["-" * width] * rules if rules else [""]
    lines: _Block = []
    for index, block in enumerate(blocks):
        lines += [*between, *block] if index else block
    return lines
