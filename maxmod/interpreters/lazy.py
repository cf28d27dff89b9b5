"""Lazy execution: ops, literals and stores that wait until data is needed.

A store changes what later readers of a tensor see. Calls that were postponed before it read the
content of that time: they run first.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence

from maxmod.errors import LazyError
from maxmod.interpreters.eager import backend_of
from maxmod.interpreters.operands import operands, plan
from maxmod.op import Kind, Op, interpreter
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.array import Array
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

_LOCK = threading.Lock()


class LazyInterpreter:
    """Postpones each op until the data of its result is needed, after the `lazy` block."""

    def __init__(self) -> None:
        self.open = True

    def apply(self, op: Op, args: Sequence[TensorLike], attrs: Attrs) -> Tensor | list[Tensor]:
        tensors = operands(op, args)
        attrs, types, _ = plan(op, tensors, attrs)
        call = _Call(self, tensors, op, attrs, types)
        made = [Tensor.deferred(_Output(call, i), type) for i, type in enumerate(types)]
        call.outputs = [weakref.ref(tensor) for tensor in made]
        return made[0] if len(made) == 1 else made

    def later(self, make: Callable[[], Array]) -> Callable[[], Array]:
        """Returns a function that makes the data of a literal after the block."""

        def made() -> Array:
            self.expect_closed()
            return make()

        return made

    def store(
        self, destination: Tensor, sources: Sequence[Tensor], assign: Callable[..., None]
    ) -> None:
        """Postpones `assign(memory of the destination, *arrays of the sources)`.

        Until then, the destination has no data; its memory, which arrays from outside may share, is
        changed when it is needed.
        """
        before = _content_of(destination)
        for reader in readers_of(destination):
            reader.replace(destination, before)
        inputs = [before if source is destination else source for source in sources]
        destination._data = None
        destination._thunk = _Store(self, before, inputs, assign)

    def expect_closed(self) -> None:
        """Raises `LazyError` inside the block."""
        if self.open:
            raise LazyError(
                "Can't realize tensor before realization context is completed. Hint: leave the "
                "F.lazy() block first."
            )


class _Postponed:
    """What runs later, and the tensors that it reads."""

    def __init__(self, lazy: LazyInterpreter, tensors: Sequence[Tensor]) -> None:
        self.lazy = lazy
        self.tensors: Sequence[Tensor] = tensors
        if tensors:
            with _LOCK:
                _PENDING.add(self)

    def replace(self, old: Tensor, new: Tensor) -> None:
        """Reads another tensor in place of one."""
        self.tensors = [new if tensor is old else tensor for tensor in self.tensors]

    def finish(self) -> None:
        """Runs, if it did not yet."""
        raise NotImplementedError

    def _done(self) -> None:
        self.tensors = []
        with _LOCK:
            _PENDING.discard(self)


_PENDING: weakref.WeakSet[_Postponed] = weakref.WeakSet()


def readers_of(tensor: Tensor) -> list[_Postponed]:
    """Returns what was postponed and reads a tensor."""
    with _LOCK:
        pending = list(_PENDING)
    return [one for one in pending if any(read is tensor for read in one.tensors)]


def before_change(tensor: Tensor) -> None:
    """Runs what reads a tensor and was postponed, before its memory changes.

    Raises:
        LazyError: In the block in which it was postponed.
    """
    for reader in readers_of(tensor):
        reader.finish()


class _Call(_Postponed):
    """One op call, run when the first of its results is needed."""

    def __init__(
        self,
        lazy: LazyInterpreter,
        tensors: Sequence[Tensor],
        op: Op,
        attrs: Attrs,
        types: Sequence[TensorType],
    ) -> None:
        super().__init__(lazy, tensors)
        self.op = op
        self.attrs = attrs
        self.types = types
        self.outputs: list[weakref.ref[Tensor]] = []
        self.results: list[Array] | None = None

    def finish(self) -> None:
        self.run()

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

    def _waits_for(self) -> list[_Call]:
        """Returns the calls that make its operands and did not run yet."""
        thunks = (tensor._thunk for tensor in self.tensors)
        calls = (thunk.call for thunk in thunks if isinstance(thunk, _Output))
        return [] if self.lazy.open else [call for call in calls if call.results is None]

    def _run_now(self) -> None:
        self.lazy.expect_closed()
        if self.results is None:
            arrays = [tensor.data for tensor in self.tensors]
            self.results = backend_of(self.types).run(self.op, arrays, self.attrs, self.types)
            self._hand_out()
            self._done()

    def _hand_out(self) -> None:
        """Gives the results to their tensors; a view remembers whose memory it shares."""
        assert self.results is not None
        is_view = self.op.kind is Kind.VIEW and not self.op.signature.variadic
        for reference, data in zip(self.outputs, self.results, strict=True):
            tensor = reference()
            if tensor is None:
                continue
            tensor._data, tensor._thunk = data, None
            if is_view and backend_of(self.types).xp.may_share_memory(data, self.tensors[0].data):
                tensor.views(self.tensors[0])


class _Output:
    """A thunk for one result of a postponed call."""

    __slots__ = ("call", "index")

    def __init__(self, call: _Call, index: int) -> None:
        self.call = call
        self.index = index

    def __call__(self) -> Array:
        return self.call.run()[self.index]


class _Store(_Postponed):
    """A postponed store: the thunk of the tensor that it changes."""

    def __init__(
        self,
        lazy: LazyInterpreter,
        before: Tensor,
        sources: Sequence[Tensor],
        assign: Callable[..., None],
    ) -> None:
        super().__init__(lazy, [before, *sources])
        self.assign = assign
        self.memory: Array | None = None

    def finish(self) -> None:
        self()

    def __call__(self) -> Array:
        if self.memory is None:
            self.lazy.expect_closed()
            before, *sources = self.tensors
            arrays = [source.data for source in sources]
            for reader in readers_of(before):
                if reader is not self:
                    reader.finish()
            before.own()
            self.assign(before.data, *arrays)
            self.memory = before.data
            self._done()
        return self.memory


def _content_of(tensor: Tensor) -> Tensor:
    """Returns a tensor of what another one holds now, which is about to change."""
    thunk = tensor._thunk
    if thunk is None:
        tensor.own()
        return Tensor.wrap(tensor.data, tensor._type)
    before = Tensor.deferred(thunk, tensor._type)
    if isinstance(thunk, _Output):
        thunk.call.outputs[thunk.index] = weakref.ref(before)
    return before


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
