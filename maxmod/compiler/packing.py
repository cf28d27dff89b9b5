"""Schedules as JSON and back: equal values, of the few types that schedules consist of.

Numbers, strings, booleans and None are stored as themselves, a tuple as a list, and everything else
as an object with one entry, `{tag: content}`. Tensor types are in a separate table, since most
values share theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from typing import Any, cast

from maxmod.compiler.steps import (
    Choice,
    RunCollective,
    RunKernel,
    RunOp,
    RunProduct,
    Schedule,
)
from maxmod.custom import CustomKernel
from maxmod.dtype import DType
from maxmod.kernel.source import Dialect, KernelSource, Launch
from maxmod.op import Op, ir, lookup
from maxmod.values.device import DeviceRef
from maxmod.values.dim import AlgebraicDim, Dim, StaticDim, SymbolicDim
from maxmod.values.plain import Json
from maxmod.values.tensor_type import TensorType

LiveObject = CustomKernel | ir.Graph


def live_objects(graph: ir.Graph) -> list[LiveObject]:
    """Lists kernels of users, and graphs that are arguments of ops, in order of first use.

    Each graph is followed by the kernels and graphs in it.
    """
    found: list[LiveObject] = []
    for n in graph.nodes:
        for _, value in n.attrs:
            if isinstance(value, LiveObject):
                found += [value, *(live_objects(value) if isinstance(value, ir.Graph) else ())]
    return list(dict.fromkeys(found))


class UnpackableError(Exception):
    """A value of a type that cannot be packed."""


class Packer:
    """Turns values into JSON values.

    Args:
        objects: Kernels and graphs in attributes of the traced graph, from `live_objects`; they
            are written as their index.

    Attributes:
        types: The table of types, by number.
    """

    def __init__(self, objects: Sequence[LiveObject]) -> None:
        self.types: dict[TensorType, int] = {}
        self._objects = {id(item): number for number, item in enumerate(objects)}

    def pack(self, value: object) -> Json:
        """Returns the JSON form of a value; raises `UnpackableError` if it has none."""
        kind = type(value)
        if kind in _PLAIN:
            return cast("Json", value)
        if kind is tuple:
            return [self.pack(item) for item in cast("tuple[object, ...]", value)]
        if kind is TensorType:
            return {"type": self.types.setdefault(cast("TensorType", value), len(self.types))}
        if id(value) in self._objects:
            return {"object": self._objects[id(value)]}
        tag = _TAGS.get(kind)
        if tag is None:
            raise UnpackableError(f"{kind.__name__} {value!r}")
        return {tag: self.pack(_FORMS[tag][1](value))}

    def table(self) -> list[Json]:
        """Returns the table of types, to be written after everything else was packed."""
        return [self.pack((t.dtype, t.sizes, t.device)) for t in self.types]


class Unpacker:
    """Turns the output of a `Packer` back into values.

    Args:
        table: The table of types.
        objects: Those of the traced graph, in the same order.
    """

    def __init__(self, table: Sequence[Json], objects: Sequence[LiveObject]) -> None:
        self._objects = objects
        self._types: list[TensorType] = []
        self._types += [TensorType.of(*self.unpack(entry)) for entry in table]

    def unpack(self, packed: Any) -> Any:
        """Returns the value; raises LookupError, TypeError or ValueError for malformed data."""
        if type(packed) is list:
            items = cast("list[Json]", packed)
            return tuple([v if type(v) in _PLAIN else self.unpack(v) for v in items])
        if type(packed) is not dict:
            return cast("Json", packed)
        ((tag, content),) = cast("dict[str, Any]", packed).items()
        if tag == "type":
            return self._types[cast("int", content)]
        if tag == "object":
            return self._objects[cast("int", content)]
        return _FORMS[tag][2](self.unpack(content))


_PLAIN = frozenset((int, float, str, bool, type(None)))

# Type, writer and reader, by tag.
_Form = tuple[type, Callable[[Any], Any], Callable[[Any], Any]]


def _fields_of(kind: Any) -> _Form:
    """The form of a dataclass: the fields that count for equality."""
    names = [field.name for field in fields(kind) if field.compare]
    return (
        kind,
        lambda value: tuple(getattr(value, name) for name in names),
        lambda parts: kind(**dict(zip(names, parts, strict=True))),
    )


def _terms(dim: AlgebraicDim) -> tuple[Any, ...]:
    """Returns the sum of products; an atom is a name, or a quotient of two dims."""
    return tuple(
        (
            factor,
            tuple(
                atom if isinstance(atom, SymbolicDim) else (atom.numerator, atom.denominator)
                for atom in monomial
            ),
        )
        for monomial, factor in dim.terms
    )


def _sum_of_terms(terms: tuple[Any, ...]) -> Dim:
    total: Dim = StaticDim(0)
    for factor, atoms in terms:
        product: Dim = StaticDim(factor)
        for atom in atoms:
            product = product * (atom if isinstance(atom, Dim) else atom[0] // atom[1])
        total = total + product
    return total


_FORMS: Mapping[str, _Form] = {
    "op": (Op, lambda op: op.name, lookup),
    "dtype": (DType, lambda dtype: dtype.name, DType.__getitem__),
    "device": (DeviceRef, lambda d: (d.device_type.value, d.id), lambda parts: DeviceRef(*parts)),
    "dialect": (Dialect, lambda dialect: dialect.value, Dialect),
    "int": (StaticDim, int, StaticDim),
    "name": (SymbolicDim, str, SymbolicDim),
    "sum": (AlgebraicDim, _terms, _sum_of_terms),
    "map": (dict, lambda table: tuple(table.items()), dict),
    "set": (frozenset, lambda items: tuple(sorted(items)), frozenset),
    **{kind.__name__: _fields_of(kind) for kind in (Schedule, RunOp, RunKernel, RunProduct)},
    **{kind.__name__: _fields_of(kind) for kind in (RunCollective, Choice, KernelSource, Launch)},
}
_TAGS = {form[0]: tag for tag, form in _FORMS.items()}
