"""Dimensions: static sizes, symbolic dimensions, and integer algebra over them.

Public code sees `Dim` objects. Inside maxmod a size is an ``int`` when it is known and a
`SymbolicDim` or `AlgebraicDim` when it is not (`Size`); `as_size` converts. The algebra is a
canonical polynomial over symbols and opaque quotients: equal forms are equal dims, and undecidable
comparisons are errors, not guesses. `maxmod.values.shape` has shapes and functions of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError
from typing import TypeAlias

import numpy as np

from maxmod.errors import DimError

_NAME = re.compile(r"[A-Za-z_]\w*\Z")


class Dim:
    """One size of a shape. `Dim(3)` is static, `Dim("batch")` symbolic; arithmetic gives algebra.

    Args:
        value: An int, the name of a symbolic dimension, or a Dim, which is returned unchanged.

    Raises:
        TypeError: For anything but an integer, a string or a `Dim`; also by `int()` of a symbolic
            size and comparisons of it with `<`.
        ValueError: For a malformed name, or an integer outside int64.

    Example:
        >>> from maxmod import Dim
        >>> n = Dim("n")
        >>> n * 2 + 1, (n + 1) * 2 == 2 * n + 2, Dim(3) == 3
        ((Dim('n') * Dim(2)) + Dim(1), True, True)
    """

    __slots__ = ()

    def __new__(cls, value: object) -> Dim:
        if isinstance(value, Dim):
            return value
        if isinstance(value, (int, np.integer)):
            return StaticDim(int(value))  # pyright: ignore[reportUnknownArgumentType]  # of any width
        if isinstance(value, str):
            return SymbolicDim(value)
        raise TypeError(f"Dim: expected an int, a str or a Dim, got {type(value).__name__}.")

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> None:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __copy__(self) -> Dim:
        return self

    def __deepcopy__(self, memo: object) -> Dim:
        return self

    def __int__(self) -> int:
        raise TypeError(
            f"int(): {self} is symbolic; Int conversions only supported for static dims."
        )

    def __index__(self) -> int:
        raise TypeError(
            f"{self!r} cannot be used as an index or integer. Hint: int(size) converts a static "
            "size; a symbolic dimension has no value while tracing."
        )

    def _unordered(self, other: object) -> bool:
        raise TypeError(
            f"{self} cannot be ordered against {other}: symbolic dimensions have no value while "
            "tracing. Hint: make the size static in the type, or compare with == for equal symbols."
        )

    __lt__ = __le__ = __gt__ = __ge__ = _unordered

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        raise NotImplementedError

    @property
    def parameters(self) -> Iterator[SymbolicDim]:
        """Iterates over the symbolic dimensions in this one, repeats included."""
        return iter(())

    def substitute(self, mapping: Mapping[str, DimLike] | Mapping[SymbolicDim, DimLike]) -> Dim:
        """Replaces symbols by dims, all at once.

        Args:
            mapping: Names or `SymbolicDim`s to dims.

        Returns:
            The dim that results.

        Example:
            >>> from maxmod import Dim
            >>> (Dim("n") * 2 + 1).substitute({"n": 5})
            Dim(11)
        """
        values = {str(key): Dim(value) for key, value in mapping.items()}
        return as_dim(_evaluate(self, values))

    def __add__(self, other: object) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else _from_poly(_sum(_poly(self), _poly(right)))

    def __radd__(self, other: object) -> Dim:
        left = _operand(other)
        return NotImplemented if left is None else left + self

    def __sub__(self, other: object) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else self + right * -1

    def __rsub__(self, other: object) -> Dim:
        left = _operand(other)
        return NotImplemented if left is None else left - self

    def __mul__(self, other: object) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else _from_poly(_product(_poly(self), _poly(right)))

    def __rmul__(self, other: object) -> Dim:
        left = _operand(other)
        return NotImplemented if left is None else left * self

    def __floordiv__(self, other: object) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else _quotient(self, right)

    def __rfloordiv__(self, other: object) -> Dim:
        left = _operand(other)
        return NotImplemented if left is None else _quotient(left, self)

    def __neg__(self) -> Dim:
        return self * -1

    def __truediv__(self, other: object) -> float:
        return NotImplemented if _operand(other) is None else self._without_value("/")

    def __rtruediv__(self, other: object) -> float:
        return NotImplemented if _operand(other) is None else self._without_value("/")

    def __mod__(self, other: object) -> int:
        return NotImplemented if _operand(other) is None else self._without_value("%")

    def __rmod__(self, other: object) -> int:
        return NotImplemented if _operand(other) is None else self._without_value("%")

    def _without_value(self, operator: str) -> int:
        raise TypeError(
            f"{operator}: {self} is symbolic and has no value while tracing. Hint: // divides "
            "sizes, and F.shape_to_tensor(x.shape) holds them as numbers of the graph."
        )


class StaticDim(Dim):
    """A static size. Compares equal to the integer and hashes like it.

    Args:
        dim: An int.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is outside int64.
    """

    __slots__ = ("dim",)
    dim: int

    def __new__(cls, dim: object) -> StaticDim:
        if isinstance(dim, StaticDim):
            return dim
        if not isinstance(dim, (int, np.integer)):
            raise TypeError(f"StaticDim: expected an int, got {type(dim).__name__}.")
        if not -(2**63) <= dim < 2**63:
            raise DimError(f"StaticDim: {dim} is outside int64.")
        self = object.__new__(cls)
        object.__setattr__(self, "dim", int(dim))  # pyright: ignore[reportUnknownArgumentType]  # of any width
        return self

    def __int__(self) -> int:
        return self.dim

    def __float__(self) -> float:
        return float(self.dim)

    def __index__(self) -> int:
        return self.dim

    def __truediv__(self, other: object) -> float:
        number = _number(other)
        return super().__truediv__(other) if number is None else self.dim / number

    def __rtruediv__(self, other: object) -> float:
        number = _number(other)
        return super().__rtruediv__(other) if number is None else number / self.dim

    def __mod__(self, other: object) -> int:
        number = _number(other)
        return super().__mod__(other) if number is None else self.dim % number

    def __rmod__(self, other: object) -> int:
        number = _number(other)
        return super().__rmod__(other) if number is None else number % self.dim

    def __str__(self) -> str:
        return str(self.dim)

    def __repr__(self) -> str:
        return f"Dim({self.dim})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StaticDim):
            return self.dim == other.dim
        return isinstance(other, (int, float, np.integer)) and bool(self.dim == other)

    def __hash__(self) -> int:
        return hash(self.dim)

    def __reduce__(self) -> tuple[type[StaticDim], tuple[int]]:
        return (StaticDim, (self.dim,))

    def __lt__(self, other: object) -> bool:
        return self.dim < int(other) if isinstance(other, (int, StaticDim)) else NotImplemented

    def __le__(self, other: object) -> bool:
        return self.dim <= int(other) if isinstance(other, (int, StaticDim)) else NotImplemented

    def __gt__(self, other: object) -> bool:
        return self.dim > int(other) if isinstance(other, (int, StaticDim)) else NotImplemented

    def __ge__(self, other: object) -> bool:
        return self.dim >= int(other) if isinstance(other, (int, StaticDim)) else NotImplemented


class SymbolicDim(Dim):
    """A symbolic dimension: a size with a name. Within a graph, equal names mean equal sizes.

    Args:
        name: A letter or underscore, then letters, digits and underscores.

    Raises:
        TypeError: If it is not a str.
        ValueError: If it is malformed.
    """

    __slots__ = ("name",)
    name: str

    def __new__(cls, name: object) -> SymbolicDim:
        if isinstance(name, SymbolicDim):
            return name
        if not isinstance(name, str):
            raise TypeError(f"SymbolicDim: expected a str, got {type(name).__name__}.")
        if not _NAME.match(name):
            raise DimError(
                f"Invalid name for symbolic dimension: {name!r}. Hint: a letter or underscore, "
                "then letters, digits and underscores."
            )
        self = object.__new__(cls)
        object.__setattr__(self, "name", name)
        return self

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"Dim({self.name!r})"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, SymbolicDim):
            return self.name == other.name
        return isinstance(other, str) and self.name == other

    def __hash__(self) -> int:
        return hash(("SymbolicDim", self.name))

    def __reduce__(self) -> tuple[type[SymbolicDim], tuple[str]]:
        return (SymbolicDim, (self.name,))

    @property
    def parameters(self) -> Iterator[SymbolicDim]:
        return iter((self,))


class AlgebraicDim(Dim):
    """A sum of products of symbols, integers and quotients, in canonical form.

    `terms` maps monomials (sorted tuples of atoms) to integer factors, sorted; an atom is a
    `SymbolicDim` or a `_Quotient`. Made by arithmetic only.
    """

    __slots__ = ("terms",)
    terms: _Terms

    def __new__(cls, terms: AlgebraicDim | _Terms) -> AlgebraicDim:
        if isinstance(terms, AlgebraicDim):
            return terms
        self = object.__new__(cls)
        object.__setattr__(self, "terms", terms)
        return self

    def __str__(self) -> str:
        return _render(self, str)

    def __repr__(self) -> str:
        return _render(self, repr)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AlgebraicDim) and self.terms == other.terms

    def __hash__(self) -> int:
        return hash(("AlgebraicDim", self.terms))

    def __reduce__(self) -> tuple[type[AlgebraicDim], tuple[_Terms]]:
        return (AlgebraicDim, (self.terms,))

    @property
    def parameters(self) -> Iterator[SymbolicDim]:
        for monomial, _ in self.terms:
            for atom in monomial:
                yield from atom.parameters


class _Quotient:
    """The atom ``numerator // denominator`` of a quotient that is not known to be exact."""

    __slots__ = ("denominator", "numerator")

    def __init__(self, numerator: Dim, denominator: Dim) -> None:
        self.numerator = numerator
        self.denominator = denominator

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, _Quotient)
            and self.numerator == other.numerator
            and self.denominator == other.denominator
        )

    def __hash__(self) -> int:
        return hash((self.numerator, self.denominator))

    @property
    def parameters(self) -> Iterator[SymbolicDim]:
        yield from self.numerator.parameters
        yield from self.denominator.parameters


DimLike: TypeAlias = int | str | Dim | np.integer
Size: TypeAlias = int | SymbolicDim | AlgebraicDim
_Atom: TypeAlias = SymbolicDim | _Quotient
_Terms: TypeAlias = tuple[tuple[tuple[_Atom, ...], int], ...]
_Poly: TypeAlias = dict[tuple[_Atom, ...], int]


def _number(value: object) -> int | None:
    """Returns the Python number of a number or a known size, None for anything else."""
    if isinstance(value, StaticDim):
        return value.dim
    if isinstance(value, np.integer):
        return int(value)  # pyright: ignore[reportUnknownArgumentType]  # of any width
    is_number = isinstance(value, (int, float))
    return value if is_number else None  # type: ignore[return-value]  # a float counts as an int


def _operand(value: object) -> Dim | None:
    if isinstance(value, Dim):
        return value
    is_size = isinstance(value, (int, str, np.integer))
    return Dim(value) if is_size else None  # pyright: ignore[reportUnknownArgumentType]


def _poly(dim: Dim) -> _Poly:
    if isinstance(dim, StaticDim):
        return {(): dim.dim} if dim.dim else {}
    if isinstance(dim, SymbolicDim):
        return {(dim,): 1}
    assert isinstance(dim, AlgebraicDim)
    return dict(dim.terms)


def _sum(left: _Poly, right: _Poly) -> _Poly:
    total = dict(left)
    for monomial, factor in right.items():
        total[monomial] = total.get(monomial, 0) + factor
    return total


def _product(left: _Poly, right: _Poly) -> _Poly:
    total: _Poly = {}
    for mono_l, factor_l in left.items():
        for mono_r, factor_r in right.items():
            monomial = tuple(sorted(mono_l + mono_r, key=_atom_key))
            total[monomial] = total.get(monomial, 0) + factor_l * factor_r
    return total


def _atom_key(atom: _Atom) -> str:
    if isinstance(atom, SymbolicDim):
        return atom.name
    return f"~{atom.numerator!r}//{atom.denominator!r}"  # quotients sort after symbols


def _from_poly(poly: _Poly) -> Dim:
    poly = {monomial: factor for monomial, factor in poly.items() if factor}
    if not poly:
        return StaticDim(0)
    if set(poly) == {()}:
        return StaticDim(poly[()])
    if len(poly) == 1:
        ((monomial, factor),) = poly.items()
        if factor == 1 and len(monomial) == 1 and isinstance(monomial[0], SymbolicDim):
            return monomial[0]
    # Symbols first, then the constant, as printed.
    order = sorted(poly, key=lambda monomial: (not monomial, [_atom_key(a) for a in monomial]))
    return AlgebraicDim(tuple((monomial, poly[monomial]) for monomial in order))


def _quotient(left: Dim, right: Dim) -> Dim:
    if isinstance(right, StaticDim) and right.dim == 0:
        raise ZeroDivisionError(f"Dim: {left} // 0")
    if isinstance(left, StaticDim) and isinstance(right, StaticDim):
        return StaticDim(_truncated(left.dim, right.dim))
    if isinstance(left, StaticDim) and left.dim == 0:
        return left
    exact = _divide_exactly(_poly(left), _poly(right))
    if exact is not None:
        return _from_poly(exact)
    return _from_poly({(_Quotient(left, right),): 1})


def _truncated(numerator: int, denominator: int) -> int:
    quotient = abs(numerator) // abs(denominator)
    return quotient if (numerator < 0) == (denominator < 0) else -quotient


def _divide_exactly(left: _Poly, right: _Poly) -> _Poly | None:
    """Divides by a single term where every term of `left` is a multiple of it, else None."""
    if len(right) != 1:
        return None
    ((atoms, divisor),) = right.items()
    result: _Poly = {}
    for monomial, factor in left.items():
        rest = list(monomial)
        for atom in atoms:
            if atom not in rest:
                return None
            rest.remove(atom)
        if factor % divisor:
            return None
        result[tuple(rest)] = factor // divisor
    return result


def _render(dim: AlgebraicDim, show: Callable[[Dim], str]) -> str:
    parts: list[str] = []
    for monomial, factor in dim.terms:
        names = [_render_atom(atom, show) for atom in monomial]
        if factor != 1 or not names:
            names.append(show(StaticDim(factor)))
        text = " * ".join(names)
        parts.append(f"({text})" if len(names) > 1 and len(dim.terms) > 1 else text)
    return " + ".join(parts)


def _render_atom(atom: _Atom, show: Callable[[Dim], str]) -> str:
    if isinstance(atom, SymbolicDim):
        return show(atom)
    sides = [
        f"({show(side)})" if isinstance(side, AlgebraicDim) else show(side)
        for side in (atom.numerator, atom.denominator)
    ]
    return f"({sides[0]} // {sides[1]})"


def _evaluate(dim: Size | Dim, values: Mapping[str, int | Dim]) -> int | Dim:
    if isinstance(dim, int):
        return dim
    if isinstance(dim, StaticDim):
        return dim.dim
    if isinstance(dim, SymbolicDim):
        return values.get(dim.name, dim)
    assert isinstance(dim, AlgebraicDim)
    total: int | Dim = 0
    for monomial, factor in dim.terms:
        product: int | Dim = factor
        for atom in monomial:
            product = product * _evaluate_atom(atom, values)
        total = total + product
    return total


def _evaluate_atom(atom: _Atom, values: Mapping[str, int | Dim]) -> int | Dim:
    if isinstance(atom, SymbolicDim):
        return values.get(atom.name, atom)
    numerator = _evaluate(atom.numerator, values)
    denominator = _evaluate(atom.denominator, values)
    if isinstance(numerator, int) and isinstance(denominator, int):
        return _truncated(numerator, denominator)
    return as_dim(numerator) // as_dim(denominator)


def evaluate(dim: Size | Dim, bindings: Mapping[str, int]) -> int:
    """Returns the integer value of a size, given the values of its symbols.

    Raises:
        DimError: If a symbol has no value.
    """
    value = _evaluate(dim, bindings)
    if isinstance(value, int):
        return value
    names = sorted({symbol.name for symbol in as_dim(dim).parameters} - set(bindings))
    raise DimError(f"Dim: cannot evaluate the size {dim}: no value for {', '.join(names)}.")


def as_dim(size: object) -> Dim:
    """Returns the `Dim` object of a size, name or Dim."""
    return size if isinstance(size, Dim) else Dim(size)


def as_size(value: object) -> Size:
    """Returns an ``int`` for a known size and a symbolic Dim otherwise.

    Raises:
        TypeError: If `value` is not an int, str or Dim.
    """
    if type(value) is int:
        return value
    dim = Dim(value)
    return dim.dim if isinstance(dim, StaticDim) else dim  # type: ignore[return-value]
