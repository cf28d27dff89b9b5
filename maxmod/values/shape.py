"""Shapes: sequences of sizes, and functions of them.

Public code sees a `Shape`, a list of `Dim`. Inside maxmod a shape is a tuple of sizes (`Sizes`);
`as_sizes` converts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NoReturn, TypeAlias, cast

from maxmod.errors import OperandError, ShapeError
from maxmod.values.dim import Dim, DimLike, Size, StaticDim, SymbolicDim, as_dim, as_size

Sizes: TypeAlias = tuple[Size, ...]
ShapeLike: TypeAlias = Iterable[DimLike]


class Shape(list[Dim]):
    """The sizes of a tensor: a list of `Dim`.

    Equal to a list of ints, names or Dims with the same entries; never equal to a tuple.

    Args:
        dims: Ints, names or Dims.

    Raises:
        TypeError: If one of them is of another kind.

    Example:
        >>> from maxmod import Shape
        >>> shape = Shape(["batch", 3])
        >>> shape, shape == ["batch", 3], shape.static_dims, Shape.is_static(shape)
        ([Dim('batch'), Dim(3)], True, [3], False)
    """

    def __init__(self, dims: Iterable[DimLike] = ()) -> None:
        super().__init__(as_dim(dim) for dim in dims)

    @property
    def rank(self) -> int:
        """The number of dimensions."""
        return len(self)

    @property
    def static_dims(self) -> list[int]:
        """The static sizes as integers; symbolic ones are left out."""
        return [dim.dim for dim in self if isinstance(dim, StaticDim)]

    @staticmethod
    def is_static(shape: Iterable[DimLike]) -> bool:
        """Tells whether all sizes of a shape are static.

        Args:
            shape: A Shape, or a sequence of ints, names and Dims.

        Returns:
            True if every dim is static and not negative.
        """
        return all(isinstance(d, StaticDim) and d.dim >= 0 for d in map(as_dim, shape))

    @property
    def parameters(self) -> Iterator[SymbolicDim]:
        """Iterates over the symbolic dimensions of all dims, repeats included."""
        for dim in self:
            yield from dim.parameters


class FixedShape(Shape):
    """The shape of a tensor or a type, which an assignment to its items would not change."""

    def _refuse(self, *args: object, **kwargs: object) -> NoReturn:
        raise OperandError(
            "shape: the shape of a tensor or a type cannot be changed in place. Hint: "
            "shape = list(x.shape) is a copy to change, for x.reshape(shape) or "
            "TensorType(x.dtype, shape, x.device)."
        )

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse  # type: ignore[assignment]
    append = extend = insert = pop = remove = clear = reverse = sort = _refuse  # type: ignore[assignment]

    def __reduce__(self) -> tuple[type[Shape], tuple[list[Dim]]]:
        return Shape, (list(self),)


def as_sizes(shape: object, what: str = "shape") -> Sizes:
    """Returns the sizes of a shape-like iterable.

    Raises:
        TypeError: If `shape` is not an iterable of ints, strs and Dims (a bare int, for example).
    """
    if isinstance(shape, (int, str, Dim)) or not isinstance(shape, Iterable):
        hint = f" Hint: [{shape}] is a list of one size." if isinstance(shape, (int, Dim)) else ""
        raise TypeError(f"{what}: expected an iterable of sizes, got {type(shape).__name__}.{hint}")
    return tuple(map(as_size, cast("Iterable[object]", shape)))


def is_static(sizes: Iterable[Size]) -> bool:
    """Returns True if every size is a known integer."""
    return all(isinstance(size, int) for size in sizes)


def product(sizes: Iterable[Size]) -> Size:
    """Returns the product of sizes, 1 for none."""
    total: int | Dim = 1
    for size in sizes:
        total = size * total
    return as_size(total)


def broadcast(*shapes: Sizes, what: str = "broadcast") -> Sizes:
    """Returns the common shape under NumPy's rules, aligned at the trailing axis.

    A symbolic size broadcasts with 1 and with itself only.

    Raises:
        ShapeError: If two sizes on one axis are neither equal nor 1.
    """
    first = shapes[0]
    if all(shape == first for shape in shapes[1:]):
        return first
    rank = max(len(shape) for shape in shapes)
    result: list[Size] = [1] * rank
    for shape in shapes:
        offset = rank - len(shape)
        for axis, size in enumerate(shape):
            have = result[offset + axis]
            if have == 1:
                result[offset + axis] = size
            elif size != 1 and size != have:
                raise ShapeError(
                    f"{what}: sizes {have} and {size} are neither equivalent nor broadcastable "
                    f"(shapes {' and '.join(format_sizes(s) for s in shapes)})."
                )
    return tuple(result)


def format_sizes(sizes: Sequence[Size]) -> str:
    """Returns `[batch,768]`, the short form used in messages and graph text."""
    return "[" + ",".join(str(size) for size in sizes) + "]"
