"""The registry: every op and every public function, registered by a decorator on its definition.

`REGISTRY` is the only list of ops, and `FUNCTIONS` the only list of public functions by name.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from maxmod.errors import did_you_mean
from maxmod.op.affine import Index
from maxmod.op.calling import public_function
from maxmod.op.record import (
    REQUIRED,
    Kind,
    Lowering,
    Meaning,
    Op,
    Operands,
    Signature,
    TypeRule,
)
from maxmod.op.spelling import spelled
from maxmod.values.array import ArrayModule
from maxmod.values.plain import Attrs

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

REGISTRY: dict[str, Op] = {}
FUNCTIONS: dict[str, Callable[..., Any]] = {}
_TENSOR_ANNOTATIONS = ("Tensor", "TensorLike", "Sequence[Tensor]")
_COMPUTES = (Kind.ELEMENTWISE, Kind.REDUCE, Kind.CONTRACT, Kind.COMPOSITE)


class OpFunction(Protocol[P, R_co]):
    """The public function of an op."""

    __name__: str
    op: Op

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co:
        """Calls the op: runs it, or records it in a trace."""
        ...


def op(
    kind: Kind,
    infer: TypeRule,
    *,
    name: str | None = None,
    label: str | None = None,
    operands: Operands = Operands.STRONG,
    mixed_devices: bool = False,
    prepare: Callable[..., Attrs] | None = None,
    upcasts: bool | None = None,
    domain: tuple[float, float] = (-3.0, 3.0),
    is_product: bool = False,
    backend_method: str | None = None,
    expand: Callable[..., Any] | None = None,
    assign: Callable[..., None] | None = None,
    binds: str | None = None,
    fills: str | None = None,
    collective: str | None = None,
    scalar: str | None = None,
    view: Callable[..., Sequence[Index]] | None = None,
    position: Callable[..., Sequence[Index]] | None = None,
    combine: str | None = None,
    identity: float | None = None,
    kernel: str | None = None,
) -> Callable[[Callable[Concatenate[ArrayModule, P], R]], OpFunction[P, R]]:
    """Makes an `Op` from its eager implementation and returns the public function.

    The decorated function takes the array module first, then the tensors (annotated `Tensor`,
    `TensorLike` or `Sequence[Tensor]`, although they arrive as arrays), then static arguments. The
    public function has the same signature without the array module.

    The keywords are fields of `Op`, `Signature`, `Meaning` and `Lowering`, which describe them. By
    default, the name is the function's, the label is the name, and the kinds that compute with
    their operands upcast.
    """

    def decorate(fn: Callable[Concatenate[ArrayModule, P], R]) -> OpFunction[P, R]:
        shown = _shown(fn)
        widens = kind in _COMPUTES if upcasts is None else upcasts
        record = Op(
            name or fn.__name__,
            label or name or fn.__name__,
            kind,
            _signature(shown, operands, mixed_devices, prepare),
            Meaning(
                infer,
                fn,
                widens,
                domain,
                is_product,
                backend_method,
                expand,
                assign,
                binds,
                fills,
                collective,
            ),
            Lowering(scalar, view, position, combine, identity, kernel),
        )
        public = public_function(record, fn, shown)
        assert record.name not in REGISTRY, record.name
        REGISTRY[record.name] = record
        FUNCTIONS[record.name] = public
        return public

    return decorate


def _shown(fn: Callable[..., object]) -> inspect.Signature:
    """Returns the signature of a function without its first parameter.

    It is made of the function's own attributes, which takes a third of the time of
    `inspect.signature`: there are more than a hundred ops, and all of them are made at import.
    """
    assert isinstance(fn, FunctionType)
    code, kinds = fn.__code__, inspect.Parameter
    count = code.co_argcount
    defaults = dict(fn.__kwdefaults__ or {})
    values = fn.__defaults__ or ()
    defaults.update(zip(code.co_varnames[count - len(values) : count], values))
    assert not code.co_flags & (inspect.CO_VARARGS | inspect.CO_VARKEYWORDS), fn
    parameters = [
        kinds(
            name,
            kinds.POSITIONAL_OR_KEYWORD if place < count else kinds.KEYWORD_ONLY,
            default=defaults.get(name, kinds.empty),
            annotation=fn.__annotations__.get(name, kinds.empty),
        )
        for place, name in enumerate(code.co_varnames[: count + code.co_kwonlyargcount])
    ]
    returned = fn.__annotations__.get("return", inspect.Signature.empty)
    return inspect.Signature(parameters[1:], return_annotation=returned)


def _signature(
    shown: inspect.Signature,
    operands: Operands,
    mixed_devices: bool,
    prepare: Callable[..., Attrs] | None,
) -> Signature:
    """Tells tensors from static arguments by their annotations."""
    parameters = shown.parameters.values()
    tensors = tuple(p.name for p in parameters if p.annotation in _TENSOR_ANNOTATIONS)
    defaults = {
        p.name: REQUIRED if p.default is inspect.Parameter.empty else p.default
        for p in parameters
        if p.name not in tensors
    }
    variadic = any(p.annotation == "Sequence[Tensor]" for p in parameters)
    return Signature(tensors, defaults, variadic, operands, mixed_devices, prepare)


def lookup(name: str) -> Op:
    """Returns the op with a name; raises `KeyError` with a suggestion if there is none."""
    if name not in REGISTRY:
        raise KeyError(f"There is no op {name!r}.{did_you_mean(name, REGISTRY)}")
    return REGISTRY[name]


def op_of(public: Callable[..., object]) -> Op:
    """Returns the record of an op from the function that `op` made."""
    return public.op  # type: ignore[attr-defined]


def is_op(record: Op | None, *functions: Callable[..., object]) -> bool:
    """True if a record belongs to one of the given ops: `is_op(node.op, exp, log)`."""
    return any(record is known for known in map(op_of, functions))


def function(fn: Callable[P, R]) -> Callable[P, R]:
    """Registers a public function that is written in terms of ops, so that `call` finds it."""
    assert fn.__name__ not in FUNCTIONS, fn.__name__
    FUNCTIONS[fn.__name__] = public = spelled(fn)
    return public


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Calls a public function by name, for code on floors below the one that defines it."""
    return FUNCTIONS[name](*args, **kwargs)


def call_of(name: str) -> str:
    """Returns the call of a function of `F`, such as `F.exp(x)`, or an empty string."""
    found = FUNCTIONS.get(name)
    if found is None or name not in getattr(sys.modules[found.__module__], "__all__", ()):
        return ""
    parameters = inspect.signature(found).parameters.values()
    needed = [p.name for p in parameters if p.default is p.empty and "VAR" not in p.kind.name]
    return f"F.{name}({', '.join(['x', *needed[1:]])})"


def foreign_hint(name: str, of: str = "") -> str:
    """Returns a sentence about a name of PyTorch or NumPy that an object lacks, or nothing."""
    # Tables of names, which only errors need.
    hints = importlib.import_module("maxmod.op.foreign.hints")
    return hints.hint(name, call_of, of)
