"""Eager execution: the interpreter that runs ops at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from maxmod import backends
from maxmod.backends.base import Backend
from maxmod.errors import DimError
from maxmod.interpreters.operands import operands, plan
from maxmod.op import Kind, Op, register_bottom
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Array
from maxmod.values.dim import Dim
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

_VIEW = Kind.VIEW  # looking up a member of an enumeration takes as long as a call


class EagerInterpreter:
    """Runs each op at once on the backend of its operands."""

    def later(self, make: Callable[[], Array]) -> None:
        """Nothing is postponed: data is made at once."""

    def apply(self, op: Op, args: Sequence[TensorLike], attrs: Attrs) -> Tensor | list[Tensor]:
        tensors = operands(op, args)
        attrs, types, runners = plan(op, tensors, attrs)
        if not runners:
            _expect_known(op, attrs, types)
            operand_types = [t._type for t in tensors]
            runners.append(backend_of(types).runner(op, operand_types, attrs, types))
        results = runners[0]([t._data if t._data is not None else t.data for t in tensors])
        if len(results) == 1:
            made = Tensor.wrap(results[0], types[0])
            if op.kind is _VIEW and not op.signature.variadic:
                # Some views copy, such as padding, and their operand must not be kept alive.
                xp = backend_of(types).xp
                if xp.may_share_memory(results[0], tensors[0].data):
                    made.views(tensors[0])
            return made
        return [Tensor.wrap(data, type) for data, type in zip(results, types)]


def backend_of(types: Sequence[TensorType]) -> Backend:
    """Returns the backend on whose device the results of a call are."""
    return backends.get(types[0].device)


def _expect_known(op: Op, attrs: Mapping[str, object], types: Sequence[TensorType]) -> None:
    """Rejects symbolic dimensions, which have a value only in a graph."""
    sizes = [size for type in types for size in type.sizes]
    for size in (*sizes, *(attrs.values() if op.kind is Kind.SOURCE else ())):
        if isinstance(size, Dim):
            raise DimError(
                f"{op.name}: the size {str(size)!r} is not known outside of a trace. Hint: "
                "symbolic dimensions belong in types; a tensor with data needs static sizes."
            )


register_bottom(EagerInterpreter())
