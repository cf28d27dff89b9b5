"""The axes of a reduction, as MAX, NumPy and PyTorch spell them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeAlias, TypedDict, TypeVar

T = TypeVar("T")

Axes: TypeAlias = int | Sequence[int] | None
"""One axis, several, or None for all."""


class AxisKeywords(TypedDict, total=False):
    """Other keywords of reductions.

    `dim` means what it means in PyTorch: the axis goes, unless `keepdim` is true. With `axis` it
    stays with size 1, as in MAX, unless `keepdims` is false.
    """

    keepdims: bool
    dim: Axes
    keepdim: bool


class Extreme(NamedTuple, Generic[T]):
    """What `max` and `min` give for `dim`, as in PyTorch.

    Attributes:
        values: The largest or smallest elements.
        indices: Their positions, int64; the first of equals.
    """

    values: T
    indices: T


class Wanted(NamedTuple):
    """Axes to reduce.

    Attributes:
        axes: One axis, several, or None for all.
        keep: Whether they stay with size 1; None is MAX's rule: one axis stays, and all become one.
        by_dim: Whether they were given as `dim`.
    """

    axes: int | tuple[int, ...] | None
    keep: bool | None
    by_dim: bool

    @staticmethod
    def of(axis: Axes, keywords: AxisKeywords) -> Wanted:
        """Returns the axes that a call names."""
        by_dim = "dim" in keywords
        given = keywords.get("dim", axis)
        axes = tuple(given) if isinstance(given, Sequence) else given
        keep = keywords.get("keepdim", keywords.get("keepdims", False if by_dim else None))
        return Wanted(axes, keep, by_dim)
