"""Programs that store into a buffer, for both kernel languages.

A program takes a buffer, new elements and a position, and changes the buffer; what it returns is
checked as well. The oracle does the same to a NumPy array.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from helpers import numbers

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import BufferType, TensorType


@dataclass(frozen=True)
class Program:
    """A function, the same in NumPy, and its shapes.

    Attributes:
        in_kernels: How many stores are done by kernels, in the memory of the buffer.
    """

    fn: Callable[..., Any]
    oracle: Callable[..., Any]
    buffer: tuple[Any, ...] = ("n", 8)
    x: tuple[Any, ...] = ("s", 8)
    in_kernels: int = 1

    def types(self, dtype: DType, device: Any = CPU_REF) -> list[TensorType]:
        """The types of the arguments."""
        return [
            BufferType(dtype, self.buffer, device),
            TensorType(dtype, self.x, device),
            TensorType(DType.int64, [], device),
        ]

    def arguments(
        self, rng: np.random.Generator, dtype: DType, sizes: dict[str, int], position: int
    ) -> list[Any]:
        """Arrays for the symbols in the shapes."""
        shapes = [[sizes.get(size, size) for size in shape] for shape in (self.buffer, self.x)]
        return [*(numbers(rng, dtype, shape) for shape in shapes), np.array(position)]


def _rows(buffer: Any, x: Any, position: Any, axis: int = 0) -> None:
    pair = (slice(position, None), x.shape[axis])
    F.buffer_store_slice(buffer, x, [slice(None)] * axis + [pair])


def _put(buffer: Any, x: Any, position: Any, axis: int = 0) -> None:
    at = slice(int(position), int(position) + x.shape[axis])
    buffer[(slice(None),) * axis + (at,)] = x


def _norm(x: Any) -> Any:
    return x / F.sqrt(F.mean(x * x) + 1)


def _norm_oracle(x: Any) -> Any:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1)


def _heads(x: Any) -> Any:
    return x.reshape([*x.shape[:2], 2, 4]).permute([0, 2, 1, 3])


def _heads_oracle(x: Any) -> Any:
    return x.reshape(*x.shape[:2], 2, 4).transpose(0, 2, 1, 3)


def _shared(buffer: Any, x: Any, position: Any) -> Any:
    y = F.exp(x)
    _rows(buffer, y, position)
    return y * 2


def _shared_oracle(buffer: Any, x: Any, position: Any) -> Any:
    _put(buffer, np.exp(x), position)
    return np.exp(x) * 2


def _twice(buffer: Any, x: Any, position: Any) -> Any:
    before = F.sum(buffer, axis=0)
    _rows(buffer, x * 2, position)
    between = F.sum(buffer, axis=0)
    _rows(buffer, x * 3, position)
    return [before, between, F.sum(buffer, axis=0)]


def _twice_oracle(buffer: Any, x: Any, position: Any) -> Any:
    found = [buffer.sum(0, keepdims=True)]
    for factor in (2, 3):
        _put(buffer, x * factor, position)
        found.append(buffer.sum(0, keepdims=True))
    return found


def _old(buffer: Any, x: Any, position: Any) -> Any:
    old = buffer.reshape([8, -1])
    _rows(buffer, x, position)
    return old


def _old_oracle(buffer: Any, x: Any, position: Any) -> Any:
    old = buffer.copy().reshape(8, -1)
    _put(buffer, x, position)
    return old


def _looked_up(buffer: Any, x: Any, position: Any) -> None:
    zeros = F.arange(0, 3, dtype=DType.int64, device=x.device) * 0
    _rows(buffer, F.gather(x, zeros, axis=0), position * 0)


def _store(buffer: Any, x: Any, *items: Any) -> None:
    F.buffer_store_slice(buffer, x, list(items))


STORES = {
    "rows": Program(lambda b, x, p: _rows(b, x * 2 + 1, p), lambda b, x, p: _put(b, x * 2 + 1, p)),
    "copied": Program(lambda b, x, p: _rows(b, x, p), _put),
    "heads": Program(
        lambda b, x, p: _rows(b, _heads(x), p, 2),
        lambda b, x, p: _put(b, _heads_oracle(x), p, 2),
        buffer=("b", 2, "n", 4),
        x=("b", "s", 8),
    ),
    "last axis": Program(
        lambda b, x, p: _rows(b, F.exp(x), p, 1),
        lambda b, x, p: _put(b, np.exp(x), p, 1),
        buffer=(8, "n"),
        x=(8, "s"),
    ),
    "normed": Program(
        lambda b, x, p: _rows(b, _norm(x), p), lambda b, x, p: _put(b, _norm_oracle(x), p)
    ),
    "normed columns": Program(  # a row becomes a column
        lambda b, x, p: _rows(b, _norm(x.T), p, 1),
        lambda b, x, p: _put(b, _norm_oracle(x.T), p, 1),
        buffer=(8, "n"),
    ),
    "computed position": Program(
        lambda b, x, p: _rows(b, x, p * 2 - p), lambda b, x, p: _put(b, x, p)
    ),
    "shared": Program(_shared, _shared_oracle),
    "twice": Program(_twice, _twice_oracle, in_kernels=2),
    "looked up": Program(
        _looked_up, lambda b, x, p: _put(b, x[[0, 0, 0]], 0), buffer=("n", 8), x=("s", 8)
    ),
    "product": Program(  # the product has an own kernel, or none on a GPU
        lambda b, x, p: _rows(b, x @ (x.T @ x) * 0.1, p),
        lambda b, x, p: _put(b, x @ (x.T @ x) * 0.1, p),
    ),
    "steps": Program(
        lambda b, x, p: _store(b, F.exp(x), slice(None), slice(1, 8, 2)),
        lambda b, x, p: b.__setitem__((slice(None), slice(1, 8, 2)), np.exp(x)),
        x=("n", 4),
    ),
    "normed steps": Program(
        lambda b, x, p: _store(b, _norm(x), slice(None), slice(1, 8, 2)),
        lambda b, x, p: b.__setitem__((slice(None), slice(1, 8, 2)), _norm_oracle(x)),
        x=("n", 4),
    ),
    "steps back": Program(
        lambda b, x, p: _store(b, F.exp(x), slice(None, None, -1), slice(6, 0, -2)),
        lambda b, x, p: b.__setitem__((slice(None, None, -1), slice(6, 0, -2)), np.exp(x)),
        x=("n", 3),
    ),
    "normed backward": Program(
        lambda b, x, p: _store(b, _norm(x)[:, ::-1], slice(None, None, -1)),
        lambda b, x, p: b.__setitem__(slice(None, None, -1), _norm_oracle(x)[:, ::-1]),
        x=("n", 8),
    ),
    "turned around": Program(
        lambda b, x, p: F.buffer_store(b, F.flip(b) * 2),
        lambda b, x, p: b.__setitem__(slice(None), b[::-1, ::-1] * 2),
        in_kernels=0,
    ),
    "one row": Program(
        lambda b, x, p: _store(b, x * 2, 1), lambda b, x, p: b.__setitem__(1, x * 2), x=(8,)
    ),
    "added": Program(  # reads what it overwrites, element by element
        lambda b, x, p: _store(b, b[1:2] + x, slice(1, 2)),
        lambda b, x, p: b.__setitem__(slice(1, 2), b[1:2] + x),
        x=(1, 8),
    ),
    "whole": Program(
        lambda b, x, p: F.buffer_store(b, F.exp(x)),
        lambda b, x, p: b.__setitem__(slice(None), np.exp(x)),
        x=("n", 8),
    ),
    "whole from itself": Program(
        lambda b, x, p: F.buffer_store(b, b * 2 + x),
        lambda b, x, p: b.__setitem__(slice(None), b * 2 + x),
        x=("n", 8),
    ),
    "whole after rows": Program(
        lambda b, x, p: [_rows(b, x, p), F.sum(b, axis=0), F.buffer_store(b, b + 1)][1],
        lambda b, x, p: [_put(b, x, p), b.sum(0, keepdims=True), b.__iadd__(1)][1],
    ),
    "moved": Program(
        lambda b, x, p: _store(b, b[:-1] * 1.5, slice(1, None)),
        lambda b, x, p: b.__setitem__(slice(1, None), b[:-1] * 1.5),
    ),
    "normed in place": Program(
        lambda b, x, p: F.buffer_store(b, _norm(b)),
        lambda b, x, p: b.__setitem__(slice(None), _norm_oracle(b)),
        in_kernels=0,
    ),
    "turned": Program(
        lambda b, x, p: F.buffer_store(b, b.T * 2),
        lambda b, x, p: b.__setitem__(slice(None), b.T * 2),
        buffer=(8, 8),
        in_kernels=0,
    ),
    "old contents": Program(_old, _old_oracle, in_kernels=0),
}
# Sizes of a buffer and of the stored value, and the position.
SIZES = (
    ({"n": 6, "b": 2, "s": 3}, 2),
    ({"n": 40, "b": 1, "s": 1}, 39),
    ({"n": 5, "b": 1, "s": 5}, 0),
    ({"n": 3, "b": 2, "s": 3}, 0),
)
