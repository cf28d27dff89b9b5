"""Codes whose errors make up for each other on the inputs that a layer is known to have.

The scales of a quantised weight stay as they are. Its columns are rounded one after the other,
those with the largest inputs first; what a column loses is made up for, as far as its input goes
along with theirs, by the columns that are not rounded yet: the sum of squared errors of the results
falls, not that of the weights.

Source: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained
Transformers", arXiv:2210.17323.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from maxmod.dtype import DType
from maxmod.ops import four_bits
from maxmod.ops.weight_quantization import scheme_of
from maxmod.values.array import HostArray

# Of the mean square of the inputs, added to each: inputs that were rare or zero stay possible, and
# the matrix has an inverse. The share of the paper.
_DAMPING = 0.01
_BLOCK = 128  # columns after which the others are corrected: by a product of matrices


class Grid(NamedTuple):
    """Which numbers codes stand for: `code * step - below`.

    Attributes:
        steps: float32 [groups, rows], above 0.
        below: float32 [groups, rows].
        least: The least code.
        most: The largest code.
    """

    steps: HostArray
    below: HostArray
    least: int
    most: int

    @classmethod
    def of(cls, scales: HostArray, scheme: str) -> Grid:
        """Returns the grid of scales as `quantize_weight` makes them."""
        if scheme == "int4":
            groups = scales.shape[1] // 2
            unit = np.ldexp(np.float32(1), scales[:, -1].astype(np.int32) - 127)
            parts = scales[:, :-1].astype(np.float32).T * unit.astype(np.float32)
            return cls(parts[:groups], 8 * parts[groups:], 0, 15)
        steps = scales.astype(np.float32).T
        steps = np.where(steps == 0, np.float32(1), steps)
        if scheme == "int8":
            return cls(steps, np.zeros_like(steps), -127, 127)
        return cls(steps, 8 * steps, 0, 15)


def compensated(
    weight: HostArray, codes: HostArray, scales: HostArray, moments: HostArray
) -> HostArray:
    """Rounds a weight again, with the same scales.

    Args:
        weight: Floats [out, in].
        codes: As `quantize_weight` makes them.
        scales: Its scales.
        moments: float32 [in, in], the sum of x[i] * x[j] over inputs x of the layer.

    Returns:
        Codes of the same shape and dtype.
    """
    scheme = scheme_of(_dtype(codes), _dtype(scales))
    made = _rounded(np.asarray(weight, np.float32), Grid.of(scales, scheme), moments)
    if scheme == "int8":
        return made.astype(np.int8)
    return four_bits.packed(np, made.reshape(len(made), -1, four_bits.BLOCK))


def _dtype(array: HostArray) -> DType:
    return DType[array.dtype.name]


def _rounded(weight: HostArray, grid: Grid, moments: HostArray) -> HostArray:
    """Returns codes as floats, [out, in]."""
    order = np.argsort(-np.diagonal(moments), kind="stable")
    factor = _factor(moments[np.ix_(order, order)])
    left = weight.T[order]
    codes = np.empty_like(left)
    group = len(order) // len(grid.steps)
    for start in range(0, len(order), _BLOCK):
        part = left[start : start + _BLOCK]
        end = start + len(part)
        errors = np.empty_like(part)
        for i, column in enumerate(order[start:end]):
            row = factor[start + i]
            codes[column], lost = _column(part[i], grid, column // group)
            errors[i] = lost / row[start + i]
            part[i + 1 :] -= np.outer(row[start + i + 1 : end], errors[i])
        left[end:] -= factor[start:end, end:].T @ errors
    return np.ascontiguousarray(codes.T)


def _column(weights: HostArray, grid: Grid, group: int) -> tuple[HostArray, HostArray]:
    """Returns the codes of a column, and what is lost."""
    step, below = grid.steps[group], grid.below[group]
    codes = np.clip(np.rint((weights + below) / step), grid.least, grid.most)
    return codes, weights - (codes * step - below)


def _factor(moments: HostArray) -> HostArray:
    """The upper Cholesky factor of the inverse of damped moments, float32."""
    wide = moments.astype(np.float64)
    mean = float(np.mean(np.diagonal(wide)))
    wide[np.diag_indices_from(wide)] += _DAMPING * mean if mean > 0 else 1.0
    # With rows and columns turned around, a lower factor of the moments is the inverse of an upper
    # one of their inverse.
    lower = np.linalg.cholesky(wide[::-1, ::-1])
    return np.linalg.inv(lower)[::-1, ::-1].astype(np.float32)
