"""Branches and loops that depend on data, other streams, and printing.

Run at once, they are branches and loops of Python. In a trace, where a condition is not known, they
are ops that run graphs (see `bodies`).
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterable, Sequence

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DTypeError, OperandError, ShapeError, TraceError
from maxmod.interpreters.operands import strong
from maxmod.interpreters.trace import Tracer, current_tracer
from maxmod.op import function
from maxmod.ops.context import active_trace
from maxmod.ops.control_flow.bodies import Bodies, branch, listed_results, loop
from maxmod.tensor import Tensor
from maxmod.values.array import Array
from maxmod.values.dim import Size
from maxmod.values.tensor_type import TensorType

__all__ = ["cond", "print", "side_stream", "while_loop"]


def _condition(name: str, what: str, value: object) -> bool | Tensor:
    """Returns the value of a condition; the tensor itself where it is not known."""
    if isinstance(value, bool):
        return value
    value = strong(name, value)
    if value.dtype is not DType.bool:
        raise DTypeError(f"{name}: {what}: expected bool, got {value.type.short()}.")
    if value.rank != 0:
        raise ShapeError(
            f"{name}: {what}: expected a scalar, got {value.type.short()}. Hint: reductions keep "
            "their axis with size 1; x[0] drops it."
        )
    return value if value._value is not None else value.item()


def _listed_types(out_types: Iterable[TensorType] | None) -> list[TensorType]:
    if out_types is None:
        return []
    return [out_types] if isinstance(out_types, TensorType) else list(out_types)


def _expect_types(name: str, found: Sequence[Tensor], types: Sequence[TensorType]) -> None:
    if len(found) != len(types):
        raise ArgumentError(f"{name}: expected {len(types)} results, got {len(found)}.")
    known: dict[str, Size] = {}
    for index, (tensor, type) in enumerate(zip(found, types, strict=True)):
        same = tensor.dtype is type.dtype and tensor.type.device == type.device
        if not same or not _fits(tensor, type, known):
            raise ShapeError(
                f"{name}: result {index} has another type: expected {type.short()}, got "
                f"{tensor.type.short()}."
            )


def _fits(tensor: Tensor, type: TensorType, known: dict[str, Size]) -> bool:
    """True if the shapes agree; a symbolic dimension matches any size, but always the same one."""
    if tensor.rank != type.rank:
        return False
    for have, want in zip(tensor.sizes, type.sizes, strict=True):
        expected = want if isinstance(want, int) else known.setdefault(str(want), have)
        if have not in (want, expected):
            return False
    return True


@function
def cond(
    pred: Tensor,
    out_types: Iterable[TensorType] | None,
    then_fn: Callable[[], object],
    else_fn: Callable[[], object],
) -> list[Tensor]:
    """Calls one of two functions, depending on a value.

    Args:
        pred: bool scalar.
        out_types: The type of each result, or None if the functions return nothing; names stand
            for any size.
        then_fn: Called without arguments if `pred` is true.
        else_fn: Called without arguments if it is false.

    Returns:
        A list of what the function returned.

    Raises:
        ValueError: If `pred` is not a bool scalar, or the results do not have the types.
        TypeError: If `pred` is not a tensor, or, in a trace, a function changes a buffer.

    In a trace both functions are called once, and their results must have the same types. Names of
    sizes that one of them introduces end with it. Values may be on several devices; in a compiled
    function both become kernels unless they are.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0, -2.0])
        >>> (y,) = F.cond(x.sum(axis=None)[0] > 0, [x.type], lambda: x, lambda: -x)
        >>> y.to_numpy().tolist()
        [-1.0, 2.0]
    """
    known = _condition("cond", "pred", pred)
    types = _listed_types(out_types)
    if isinstance(known, Tensor):
        return _traced_cond(known, types, then_fn, else_fn)
    found = listed_results("cond", (then_fn if known else else_fn)())
    _expect_types("cond", found, types)
    return found


def _traced_cond(
    pred: Tensor,
    types: Sequence[TensorType],
    then_fn: Callable[[], object],
    else_fn: Callable[[], object],
) -> list[Tensor]:
    bodies = Bodies("cond", _tracer("cond"))
    first = bodies.trace("then", then_fn)
    second = bodies.trace("otherwise", else_fn)
    for found in (first, second):
        _expect_types("cond", found, types)
    for index, (a, b) in enumerate(zip(first, second, strict=True)):
        if a.type != b.type:
            raise ShapeError(
                f"cond: result {index} depends on the branch: {a.type.short()} or "
                f"{b.type.short()}. Hint: in a graph both must have one type; F.rebind names sizes."
            )
    if not first:
        return []
    then, otherwise = bodies.graphs()
    made = branch(
        [pred, *bodies.operands()],
        then=then,
        otherwise=otherwise,
        sizes=bodies.sizes(),
        types=tuple(tensor.type for tensor in first),
    )
    return made if isinstance(made, list) else [made]


def _tracer(name: str) -> Tracer:
    tracer = current_tracer()
    if tracer is None:
        raise TraceError(f"{name}: a value of a graph can only be used while it is traced.")
    return tracer


@function
def while_loop(
    initial_values: Tensor | Sequence[Tensor],
    predicate: Callable[..., object],
    body: Callable[..., object],
) -> list[Tensor]:
    """Repeats a function on its own results as long as a condition holds.

    Args:
        initial_values: A tensor, or a sequence of tensors.
        predicate: Takes the values and returns a bool scalar.
        body: Takes the values and returns as many, of the same types.

    Returns:
        A list of the final values.

    Raises:
        ValueError: If there are no values, the condition is not a bool scalar, or `body` returns
            another number of values or other types.
        TypeError: In a trace, if a function changes a buffer.

    In a trace a loop whose condition is known is unrolled; otherwise both functions are called
    once and become graphs, which the compiled function runs until the condition is false. Values
    may be on several devices; in a compiled function both become kernels unless they are. The
    condition is read on the host: on a GPU each round waits for it.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> (x,) = F.while_loop(Tensor(1.0), lambda x: x < 100, lambda x: x * 2)
        >>> x.item()
        128.0
    """
    values = listed_results("while_loop", initial_values)
    if not values:
        raise ArgumentError("while_loop: expected at least one initial value, got none.")
    types = [value.type for value in values]
    while True:
        known = _condition("while_loop", "the condition", predicate(*values))
        if isinstance(known, Tensor):
            return _traced_loop(values, predicate, body)
        if not known:
            return values
        values = listed_results("while_loop", body(*values))
        _expect_types("while_loop", values, types)


def _traced_loop(
    values: Sequence[Tensor], predicate: Callable[..., object], body: Callable[..., object]
) -> list[Tensor]:
    types = [value.type for value in values]
    bodies = Bodies("while_loop", _tracer("while_loop"), types)
    _condition("while_loop", "the condition", bodies.trace("condition", predicate)[0])
    found = bodies.trace("body", body)
    _expect_types("while_loop", found, types)
    for index, (tensor, type) in enumerate(zip(found, types, strict=True)):
        if tensor.type != type:
            raise ShapeError(
                f"while_loop: result {index} has another type: expected {type.short()}, got "
                f"{tensor.type.short()}. Hint: F.rebind names sizes."
            )
    condition, rounds = bodies.graphs()
    made = loop(
        [*values, *bodies.operands()],
        condition=condition,
        body=rounds,
        sizes=bodies.sizes(),
        types=tuple(types),
    )
    return made if isinstance(made, list) else [made]


@function
def side_stream(
    inputs: Sequence[Array],
    body_fn: Callable[..., object],
    *,
    result_types: Iterable[TensorType] | None = None,
    stream_id: int = 1,
) -> list[Tensor]:
    """Calls a function in parallel with other work in MAX; here it is called in order.

    Args:
        inputs: A tensor, or a sequence of tensors.
        body_fn: Takes them and returns tensors.
        result_types: The expected type of each result, to be checked.
        stream_id: Number of the stream, from 1.

    Returns:
        A list of what the function returned.

    Raises:
        ValueError: If the results do not have the types, or the number of the stream is below 1.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([1.0, 2.0])
        >>> (y,) = F.side_stream(x, lambda x: x * 2, result_types=[x.type])
        >>> y.to_numpy().tolist()
        [2.0, 4.0]
    """
    if stream_id < 1:
        raise ArgumentError(f"side_stream: stream_id: expected at least 1, got {stream_id}.")
    found = listed_results("side_stream", body_fn(*listed_results("side_stream", inputs)))
    if result_types is not None:
        _expect_types("side_stream", found, _listed_types(result_types))
    return found


@function
def print(value: object, name: str = "value", *, label: str | None = None) -> None:
    """Prints ``Tensor <name>= <repr>``; a str is printed as it is.

    While tracing, the type is printed once; the value is known only when the graph runs.

    Args:
        value: Tensor or str.
        name: What to call it.
        label: Another name of `name`, as `graph.ops.print` has it in MAX.

    Returns:
        None.

    Raises:
        TypeError: If the value is neither.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> F.print(Tensor([2.5]), "scores")
        Tensor scores= Tensor([2.5], shape=[1], dtype=DType.float32, device=Device(type=cpu,id=0))
    """
    if isinstance(value, str):
        builtins.print(value)
        return
    if not isinstance(value, Tensor):
        raise OperandError(f"print: expected a Tensor or a str, got {type(value).__name__}.")
    if active_trace() is None:
        value.materialize()
    builtins.print(f"Tensor {name if label is None else label}= {value!r}")
