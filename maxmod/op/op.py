"""Ops: one record per op, made by a decorator on its eager implementation, and how a call travels.

An `Op` says everything about one operation: the eager body on storage arrays, the type rule, the
scalar C text, the definition in other ops. `REGISTRY` is the only list of ops. Calling an op goes
to the innermost interpreter: tracers are pushed with `interpreter`, and eager execution, registered
by `maxmod.interpreters.eager`, is at the bottom, so that a new thread always starts eager.
"""

from __future__ import annotations

import contextlib
import enum
import inspect
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from maxmod.errors import OperandError, did_you_mean
from maxmod.values.dim import Dim, as_size
from maxmod.values.tensor_type import TensorType

P = ParamSpec("P")
R = TypeVar("R")


class Kind(enum.Enum):
    """What an op does to its operands; compiler passes look at this and never at names."""

    SOURCE = "source"  # no operands: full, arange, random numbers
    ELEMENTWISE = "elementwise"  # one output element from the elements at its position
    REDUCE = "reduce"  # one axis becomes 1 by combining its elements
    VIEW = "view"  # index arithmetic only: reshape, permute, slice, broadcast
    INDEX = "index"  # positions read from a tensor: gather, scatter
    CONTRACT = "contract"  # products: matmul, quantized_linear
    COMPOSITE = "composite"  # has a definition in other ops: softmax, layer_norm
    OPAQUE = "opaque"  # everything else


class Operands(enum.Enum):
    """Which operands an op takes, and whether they are brought to one dtype first."""

    STRONG = "tensors only, dtypes as they are"
    PROMOTED = "tensors and Python or NumPy values, promoted to one dtype"
    STRONG_PROMOTED = "tensors only, promoted to one dtype"


TypeRule = Callable[..., "TensorType | tuple[TensorType, ...]"]


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One operation.

    Attributes:
        name: Unique name; also the public name of the function in `maxmod.functional`.
        kind: What it does, for the compiler.
        eager: `eager(xp, *arrays, **attrs)`, on NumPy or CuPy arrays. Narrow floats arrive as
            float32 for the kinds that compute (`upcasts`), and the result is rounded once.
        infer: `infer(op, *types, **attrs)` gives the output type, or a tuple of types.
        operands: How arguments become operands.
        prepare: `prepare(op, *types, **attrs)` gives canonical static arguments, or raises.
        scalar: C expression of one element; `{0}`, `{1}` are the operands, `{name}` attributes,
            `{index}` (SOURCE only) the row-major position of the element.
        view: For VIEW, `view(indices, x_type, out_type, **attrs)`: the position in the operand
            of the element at `indices` (see `maxmod.op.affine`); None if data must move.
        position: For INDEX, `position(indices, read, *types, **attrs)`: where the element at
            `indices` of the result stands in the first operand; with `assign`, where the element at
            `indices` of the second operand goes. `read(number, indices, size)` gives an element of
            an operand, as a position on an axis of that size; negative ones count from the end, but
            for `assign`. None if a kernel cannot follow it.
        combine: For REDUCE, the elementwise op that joins two partial results.
        identity: For REDUCE, the value of an empty reduction, None if there is none.
        expand: For COMPOSITE, `expand(*tensors, **attrs)`: its definition in other ops. For
            CONTRACT: what a GPU does for many rows, where its kernels are for a few.
        domain: Interval of operand values that generated tests use.
        tensor_names: Names of the tensor parameters in order.
        attr_defaults: Static parameters in order, with defaults (`REQUIRED` for none).
        variadic: The one tensor parameter is a sequence of tensors.
        assign: `assign(x, *others, **attrs)` overwrites the first operand with the result, for
            graphs that update a buffer in place.
        library: Name of a backend method that replaces the eager body, if the backend has it.
        kernel: For OPAQUE, the name of the hand-written text that computes it row by row:
            `kernels/shared/NAME.h` and, behind it, `NAME.h` of the dialect.
        binds: Name of the static argument that is a size known only when the graph runs: from then
            on, its name stands for the value of the operand, an integer scalar.
        label: What messages call it: the public function that people call.
        mixed: True if operands and results may live on several devices.
    """

    name: str
    kind: Kind
    eager: Callable[..., Any]
    infer: TypeRule
    operands: Operands
    prepare: Callable[..., dict[str, Any]] | None
    scalar: str | None
    view: Callable[..., Any] | None
    position: Callable[..., Any] | None
    combine: str | None
    identity: float | None
    expand: Callable[..., Any] | None
    domain: tuple[float, float]
    tensor_names: tuple[str, ...]
    attr_defaults: dict[str, Any]
    variadic: bool
    assign: Callable[..., None] | None
    library: str | None
    upcasts: bool
    binds: str | None = None
    kernel: str | None = None
    label: str = ""
    mixed: bool = False

    @property
    def is_product(self) -> bool:
        """True for the product of two tensors, which the backend's `contract` computes."""
        return self.kind is Kind.CONTRACT and self.library == "matmul"

    def __repr__(self) -> str:
        return f"Op({self.name})"


REQUIRED = object()
REGISTRY: dict[str, Op] = {}
FUNCTIONS: dict[str, Callable[..., Any]] = {}
_TENSOR_ANNOTATIONS = ("Tensor", "TensorLike", "Sequence[Tensor]")
_COMPUTES = (Kind.ELEMENTWISE, Kind.REDUCE, Kind.CONTRACT, Kind.COMPOSITE)


def op(
    kind: Kind,
    infer: TypeRule,
    *,
    operands: Operands = Operands.STRONG,
    prepare: Callable[..., dict[str, Any]] | None = None,
    scalar: str | None = None,
    view: Callable[..., Any] | None = None,
    position: Callable[..., Any] | None = None,
    combine: str | None = None,
    identity: float | None = None,
    expand: Callable[..., Any] | None = None,
    domain: tuple[float, float] = (-3.0, 3.0),
    assign: Callable[..., None] | None = None,
    library: str | None = None,
    upcasts: bool | None = None,
    binds: str | None = None,
    kernel: str | None = None,
    mixed: bool = False,
    name: str | None = None,
    label: str | None = None,
) -> Callable[[Callable[Concatenate[Any, P], R]], Callable[P, R]]:
    """Makes an `Op` from its eager implementation and returns the public function.

    The decorated function takes the array module first, then the tensors (annotated `Tensor`,
    `TensorLike` or `Sequence[Tensor]`, although they arrive as arrays), then static arguments. The
    public function has the same signature without the array module.
    """

    def decorate(fn: Callable[Concatenate[Any, P], R]) -> Callable[P, R]:
        signature = inspect.signature(fn)
        parameters = list(signature.parameters.values())[1:]
        tensors = tuple(p.name for p in parameters if p.annotation in _TENSOR_ANNOTATIONS)
        defaults = {
            p.name: REQUIRED if p.default is inspect.Parameter.empty else p.default
            for p in parameters
            if p.name not in tensors
        }
        record = Op(
            name=name or fn.__name__,
            kind=kind,
            eager=fn,
            infer=infer,
            operands=operands,
            prepare=prepare,
            scalar=scalar,
            view=view,
            position=position,
            combine=combine,
            identity=identity,
            expand=expand,
            domain=domain,
            tensor_names=tensors,
            attr_defaults=defaults,
            variadic=any(p.annotation == "Sequence[Tensor]" for p in parameters),
            assign=assign,
            library=library,
            upcasts=kind in _COMPUTES if upcasts is None else upcasts,
            binds=binds,
            kernel=kernel,
            label=label or name or fn.__name__,
            mixed=mixed,
        )
        assert record.name not in REGISTRY, record.name
        REGISTRY[record.name] = record
        public = _public(record, fn, signature.replace(parameters=parameters))
        FUNCTIONS[record.name] = public
        return public

    return decorate


def _public(record: Op, fn: Callable[..., Any], signature: inspect.Signature) -> Any:
    count = -1 if record.variadic else len(record.tensor_names)
    defaults = record.attr_defaults
    needed = frozenset(name for name, value in defaults.items() if value is REQUIRED)

    def public(*args: Any, **kwargs: Any) -> Any:
        if len(args) == count:  # the common case, where the general way is ten times as slow
            if not kwargs and not needed:
                return bind(record, args, defaults.copy())
            if kwargs.keys() <= defaults.keys() and kwargs.keys() >= needed:
                return bind(record, args, {**defaults, **kwargs})
        try:
            bound = signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise OperandError(_misuse(record, signature, kwargs, error)) from None
        tensors = [bound.pop(name) for name in record.tensor_names]
        if record.variadic and not isinstance(tensors[0], (list, tuple)):
            tensors = [_listed(record, tensors[0])]
        operands = tuple(tensors[0]) if record.variadic else tuple(tensors)
        return bind(record, operands, {**defaults, **bound})

    public.__name__ = public.__qualname__ = fn.__name__
    public.__doc__ = fn.__doc__
    public.__module__ = fn.__module__
    public.__signature__ = signature  # type: ignore[attr-defined]
    public.op = record  # type: ignore[attr-defined]
    return public


def _misuse(
    record: Op, signature: inspect.Signature, kwargs: dict[str, Any], error: TypeError
) -> str:
    """Returns what is wrong with the arguments of a call."""
    known = list(signature.parameters)
    unknown = [name for name in kwargs if name not in known]
    near = did_you_mean(unknown[0], known) if unknown else ""
    return f"{record.name}: {error}; it takes ({', '.join(known)}).{near}"


def _listed(record: Op, values: Any) -> list[Any]:
    """Lists the operands of an op that takes several; one tensor alone is a mistake."""
    if hasattr(values, "sizes") or not isinstance(values, Iterable):
        raise OperandError(
            f"{record.name}: {record.tensor_names[0]}: expected a list of tensors, got "
            f"{type(values).__name__}. Hint: F.{record.name}([x, y])."
        )
    return list(values)


class Interpreter(Protocol):
    """Gives a call its meaning: run it, record it, postpone it."""

    def apply(self, op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
        """Returns the result tensor, or a list of them."""
        ...


_INNERMOST: ContextVar[Interpreter | None] = ContextVar("maxmod_interpreter", default=None)
_bottom: Interpreter | None = None


def register_bottom(interpreter: Interpreter) -> None:
    """Sets the interpreter that is used outside every `interpreter` block (eager execution)."""
    global _bottom
    _bottom = interpreter


def innermost() -> Interpreter:
    """Returns the interpreter that the next call goes to."""
    current = _INNERMOST.get()
    if current is not None:
        return current
    assert _bottom is not None, (
        "maxmod.interpreters.eager registers eager execution when it is imported"
    )
    return _bottom


@contextlib.contextmanager
def interpreter(inner: Interpreter) -> Iterator[None]:
    """Sends every op call of this context to `inner`."""
    token = _INNERMOST.set(inner)
    try:
        yield
    finally:
        _INNERMOST.reset(token)


def bind(op: Op, args: Sequence[Any], attrs: dict[str, Any]) -> Any:
    """The one door that every op call goes through."""
    return (_INNERMOST.get() or _bottom).apply(op, args, attrs)  # type: ignore[union-attr]


def lookup(name: str) -> Op:
    """Returns the op of a name; `KeyError` with a suggestion if there is none."""
    if name not in REGISTRY:
        raise KeyError(f"There is no op {name!r}.{did_you_mean(name, REGISTRY)}")
    return REGISTRY[name]


def op_of(public: Callable[..., Any]) -> Op:
    """Returns the record of an op from the function that `op` made."""
    return public.op  # type: ignore[attr-defined]


def is_op(record: Op | None, *functions: Callable[..., Any]) -> bool:
    """True if a record is that of one of some ops: `is_op(node.op, exp, log)`."""
    return any(record is known for known in map(op_of, functions))


def function(fn: Callable[P, R]) -> Callable[P, R]:
    """Registers a public function that is written in terms of ops, so that `call` finds it."""
    assert fn.__name__ not in FUNCTIONS, fn.__name__
    FUNCTIONS[fn.__name__] = fn
    return fn


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a public function by name (for code that sits below the file that defines it)."""
    return FUNCTIONS[name](*args, **kwargs)


def freeze(value: Any) -> Any:
    """Makes a static argument hashable: lists become tuples, static Dims become ints."""
    if isinstance(value, (list, tuple)):
        return tuple(freeze(item) for item in value)
    return as_size(value) if isinstance(value, Dim) else value
