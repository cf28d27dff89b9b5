"""Eager and lazy execution: the interpreters that run ops at once, or when they are needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

from maxmod import backends
from maxmod.backends.base import Backend
from maxmod.errors import DimError, LazyError
from maxmod.interpreters.operands import operands, plan
from maxmod.op import Kind, Op, interpreter, register_bottom
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Array
from maxmod.values.dim import Dim
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

_VIEW = Kind.VIEW  # looking up a member of an enumeration takes as long as a call


class EagerInterpreter:
    """Runs each op at once on the backend of its operands."""

    def apply(self, op: Op, args: Sequence[TensorLike], attrs: Attrs) -> Tensor | list[Tensor]:
        tensors = operands(op, args)
        attrs, types, runners = plan(op, tensors, attrs)
        if not runners:
            _expect_known(op, attrs, types)
            operand_types = [t._type for t in tensors]
            runners.append(_backend(types).runner(op, operand_types, attrs, types))
        results = runners[0]([t._data if t._data is not None else t.data for t in tensors])
        if len(results) == 1:
            made = Tensor.wrap(results[0], types[0])
            if op.kind is _VIEW and not op.signature.variadic:
                # Some views copy, such as padding, and their operand must not be kept alive.
                xp = _backend(types).xp
                if xp.may_share_memory(results[0], tensors[0].data):
                    made.views(tensors[0])
            return made
        return [Tensor.wrap(data, type) for data, type in zip(results, types)]


def _backend(types: Sequence[TensorType]) -> Backend:
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


class LazyInterpreter:
    """Postpones each op until the data of its result is needed, after the `lazy` block."""

    def __init__(self) -> None:
        self.open = True

    def apply(self, op: Op, args: Sequence[TensorLike], attrs: Attrs) -> Tensor | list[Tensor]:
        tensors = operands(op, args)
        attrs, types, _ = plan(op, tensors, attrs)
        call = _Postponed(self, op, tensors, attrs, types)
        made = [Tensor.deferred(_Output(call, i), type) for i, type in enumerate(types)]
        return made[0] if len(made) == 1 else made


class _Postponed:
    """One op call, run when the first of its results is needed."""

    def __init__(
        self,
        lazy: LazyInterpreter,
        op: Op,
        tensors: Sequence[Tensor],
        attrs: Attrs,
        types: Sequence[TensorType],
    ) -> None:
        self.lazy = lazy
        self.op = op
        self.tensors = tensors
        self.attrs = attrs
        self.types = types
        self.results: list[Array] | None = None

    def run(self) -> list[Array]:
        """Runs the calls that it waits for, and itself; a chain of them may be of any length."""
        stack = [self]
        while self.results is None:
            waiting = stack[-1]._waits_for()
            if waiting:
                stack += waiting
            else:
                stack.pop()._run_now()
        return self.results

    def _waits_for(self) -> list[_Postponed]:
        """Returns the calls that make its operands and did not run yet."""
        thunks = (tensor._thunk for tensor in self.tensors)
        calls = (thunk.call for thunk in thunks if isinstance(thunk, _Output))
        return [] if self.lazy.open else [call for call in calls if call.results is None]

    def _run_now(self) -> None:
        if self.lazy.open:
            raise LazyError(
                "Can't realize tensor before realization context is completed. Hint: leave the "
                "F.lazy() block first."
            )
        if self.results is None:
            arrays = [tensor.data for tensor in self.tensors]
            self.results = _backend(self.types).run(self.op, arrays, self.attrs, self.types)
            self.tensors = ()


class _Output:
    """A thunk for one result of a postponed call."""

    __slots__ = ("call", "index")

    def __init__(self, call: _Postponed, index: int) -> None:
        self.call = call
        self.index = index

    def __call__(self) -> Array:
        return self.call.run()[self.index]


@contextlib.contextmanager
def lazy() -> Iterator[None]:
    """Declares tensors without making their data: ``with F.lazy(): model = Big()``.

    Tensors made inside have a type but no data until it is first needed, after the block; weights
    that are replaced by `load_state_dict` or `compile(weights=...)` are never made at all.

    Returns:
        A context manager.

    Raises:
        TypeError: If data is needed inside the block.

    Example:
        >>> from maxmod import nn
        >>> from maxmod import functional as F
        >>> with F.lazy():
        ...     layer = nn.Linear(50_000, 50_000)  # 10 GB, not allocated
        >>> layer.weight.shape, layer.weight.real
        ([Dim(50000), Dim(50000)], False)
    """
    recorder = LazyInterpreter()
    try:
        with interpreter(recorder):
            yield
    finally:
        recorder.open = False


register_bottom(EagerInterpreter())
