"""YaRN: rotary embeddings for longer sequences than in training.

Source: B. Peng et al., YaRN: Efficient Context Window Extension of Large Language Models, arXiv
2309.00071.
"""

from __future__ import annotations

import math

from maxmod.dtype import DType
from maxmod.errors import ArgumentError
from maxmod.nn.rope.rope import exact_embed, exact_theta
from maxmod.tensor import Tensor
from maxmod.tensor.default_context import resolve


def positional_embedding(
    dim: int,
    base: float,
    max_sequence_length: int,
    original_max_sequence_length: int,
    alpha: float,
    beta: float,
) -> Tensor:
    """A table whose slow frequencies are stretched to a longer sequence (NTK by parts).

    Frequencies that turn more than `alpha` times within the original length are kept, those that
    turn less than `beta` times are divided by the ratio of the lengths, with a ramp between.

    Args:
        dim: Size of a head; even.
        base: The base.
        max_sequence_length: Number of positions.
        original_max_sequence_length: Number of positions in training.
        alpha: Turns at which the ramp starts.
        beta: Turns at which it ends; below alpha.

    Returns:
        Tensor [max_sequence_length, dim / 2, 2] of the default dtype, scaled by `length_scaling`.

    Raises:
        ValueError: If the ramp is empty.
    """
    scale = max_sequence_length / original_max_sequence_length

    def index_of(turns: float) -> float:
        ratio = original_max_sequence_length / (2 * math.pi * turns)
        return dim / 2 * math.log(ratio) / math.log(base)

    first = max(0, math.floor(index_of(alpha)))
    last = min(dim - 1, math.ceil(index_of(beta)))
    kept = exact_theta(dim, base)
    mask = _ramp(first, last, dim // 2)
    frequencies = linear_interpolation(kept, kept / scale, mask)
    table = exact_embed(frequencies, max_sequence_length) * length_scaling(scale)
    return table.cast(resolve()[0])


def linear_ramp_mask(start_idx: float, end_idx: float, length: int) -> Tensor:
    """clip((k - start_idx) / (end_idx - start_idx), 0, 1) for k = 0 .. length - 1.

    Raises:
        ValueError: If the start is not before the end.
    """
    return _ramp(start_idx, end_idx, length).cast(resolve()[0])


def _ramp(start: float, end: float, length: int) -> Tensor:
    if start >= end:
        raise ArgumentError(
            f"yarn.linear_ramp_mask: expected start_idx below end_idx, got {start} and {end}."
        )
    steps = Tensor.arange(0, length, dtype=DType.float64)
    return ((steps - float(start)) / float(end - start)).clip(min=0.0, max=1.0)


def linear_interpolation(low: Tensor, high: Tensor, mask: Tensor) -> Tensor:
    """(1 - mask) * low + mask * high."""
    return (1 - mask) * low + mask * high


def length_scaling(scale_factor: float = 1.0) -> float:
    """0.1 * ln(scale_factor) + 1: the factor that keeps attention as sharp as in training."""
    return 0.1 * math.log(scale_factor) + 1.0
