"""Random programs: a list of op calls over tensors, made by hypothesis, run in several ways."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import strategies as st

from maxmod.dtype import DType
from maxmod.op import FUNCTIONS
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

UNARY = ("abs", "negate", "exp", "tanh", "sigmoid", "silu", "relu", "sin", "floor", "erf", "gelu")
BINARY = ("add", "sub", "mul", "maximum", "minimum")
REDUCE = ("sum", "mean", "max", "min")
ROW = ("softmax", "logsoftmax")


@dataclass(frozen=True)
class Step:
    """One call: the name of the operation, positions of the operands, and a static argument."""

    what: str
    operands: tuple[int, ...]
    static: Any = None


@dataclass(frozen=True)
class Program:
    """Calls over one or two arguments; the results are the last value and maybe an earlier one."""

    shapes: tuple[tuple[int, ...], ...]
    steps: tuple[Step, ...]
    results: tuple[int, ...]
    seed: int

    def arguments(self, dtype: DType = DType.float32) -> list[Tensor]:
        """Returns reproducible argument tensors."""
        rng = np.random.default_rng(self.seed)
        made = [rng.normal(size=shape).astype(np.float32) for shape in self.shapes]
        return [Tensor(array, device=CPU_REF.to_device()).cast(dtype) for array in made]

    def types(self, names: bool, dtype: DType = DType.float32) -> list[TensorType]:
        """Returns the argument types; with `names`, first axes above 1 are symbolic."""
        result = []
        for shape in self.shapes:
            sizes: list[Any] = list(shape)
            if names and sizes and sizes[0] > 1:
                sizes[0] = f"n{sizes[0]}"
            result.append(TensorType(dtype, sizes, CPU_REF))
        return result

    def __call__(self, *args: Tensor) -> tuple[Tensor, ...]:
        values = list(args)
        for step in self.steps:
            operands = [values[position] for position in step.operands]
            values.append(ACTIONS[step.what](operands, step.static))
        return tuple(values[position] for position in self.results)


def _squash(x: Tensor) -> Tensor:
    """Keeps values in a range where rounding stays comparable."""
    return FUNCTIONS["tanh"](x) * 2.0


def _call(name: str) -> Callable[[Sequence[Tensor], Any], Tensor]:
    return lambda operands, static: FUNCTIONS[name](*operands)


def _gather(operands: Sequence[Tensor], static: Any) -> Tensor:
    """Reads an axis at positions that a kernel computes, on either side of 0, or only counts."""
    axis, size, shape, (step, start, back) = static
    x = operands[0]
    places = FUNCTIONS["arange"](0, int(np.prod(shape)), dtype=DType.int64, device=x.device)
    if step:
        places = (places * step + start) % size - back * size
    return FUNCTIONS["gather"](x, places.reshape(shape), axis=axis)


ACTIONS: dict[str, Callable[[Sequence[Tensor], Any], Tensor]] = {
    **{name: _call(name) for name in (*UNARY, *BINARY)},
    "exp": lambda operands, static: FUNCTIONS["exp"](_squash(operands[0])),
    "scalar": lambda operands, static: operands[0] * static + 0.5,
    "where": lambda operands, static: FUNCTIONS["where"](
        operands[0] > operands[1], operands[0], operands[1]
    ),
    **{
        name: (lambda operands, axis, name=name: FUNCTIONS[name](operands[0], axis=axis))
        for name in (*REDUCE, *ROW)
    },
    "permute": lambda operands, axes: operands[0].permute(axes),
    "reshape": lambda operands, shape: operands[0].reshape(shape),
    "broadcast": lambda operands, shape: operands[0].broadcast_to(shape),
    "slice": lambda operands, bounds: operands[0][bounds],
    "flip": lambda operands, axes: FUNCTIONS["flip"](operands[0], axes),
    "gather": _gather,
    "matmul": lambda operands, static: operands[0] @ operands[1],
    "half": lambda operands, static: operands[0].cast(DType.bfloat16).cast(DType.float32),
}


@st.composite
def programs(draw: st.DrawFn, max_steps: int = 10) -> Program:
    """Draws a program whose calls all fit their operands."""
    sizes = st.sampled_from([1, 2, 3, 5, 7, 8, 17, 33])
    first = tuple(draw(st.lists(sizes, min_size=1, max_size=3)))
    second = draw(st.sampled_from([first, first[-1:], (*first[:-1], 1), (1,)]))
    shapes = [first, second]
    known = [tuple(shape) for shape in shapes]
    steps: list[Step] = []
    for _ in range(draw(st.integers(1, max_steps))):
        step, shape = draw(_steps(known))
        steps.append(step)
        known.append(shape)
    extra = draw(st.integers(0, len(known) - 1))
    results = (len(known) - 1,) if draw(st.booleans()) else (len(known) - 1, extra)
    return Program(tuple(shapes), tuple(steps), results, draw(st.integers(0, 2**16)))


@st.composite
def _steps(draw: st.DrawFn, known: list[tuple[int, ...]]) -> tuple[Step, tuple[int, ...]]:
    position = draw(st.integers(max(0, len(known) - 4), len(known) - 1))
    shape = known[position]
    kinds = ["unary", "scalar", "binary", "where", "half"]
    if shape:
        kinds += ["reduce", "reduce", "row", "permute", "reshape", "slice", "matmul", "gather"]
        kinds += ["flip"]
    kind = draw(st.sampled_from(kinds))
    if kind in ("binary", "where"):
        fitting = [n for n, other in enumerate(known) if _broadcast(shape, other) is not None]
        other = draw(st.sampled_from(fitting))
        what = draw(st.sampled_from(BINARY)) if kind == "binary" else "where"
        result = _broadcast(shape, known[other])
        assert result is not None
        return Step(what, (position, other)), result
    if kind == "reduce":
        axis = draw(st.integers(-len(shape), len(shape) - 1))
        at = axis % len(shape)
        name = draw(st.sampled_from(REDUCE))
        return Step(name, (position,), axis), (*shape[:at], 1, *shape[at + 1 :])
    if kind == "row":
        return Step(draw(st.sampled_from(ROW)), (position,), -1), shape
    if kind == "permute":
        axes = tuple(draw(st.permutations(range(len(shape)))))
        return Step("permute", (position,), axes), tuple(shape[axis] for axis in axes)
    if kind == "reshape":
        target = draw(st.sampled_from(_reshapes(shape)))
        return Step("reshape", (position,), target), target
    if kind == "flip":
        axes = tuple(axis for axis in range(len(shape)) if draw(st.booleans()))
        return Step("flip", (position,), axes), shape
    if kind == "slice":
        start = draw(st.integers(0, shape[0] - 1))
        stop = draw(st.integers(start + 1, shape[0]))
        step = draw(st.sampled_from([1, 2, -1, -2]))
        size = -(-(stop - start) // abs(step))
        bounds = slice(start, stop, step)
        if step < 0:  # the same elements, or their neighbours, from the end
            bounds = slice(stop - 1, start - 1 if start else None, step)
        return Step("slice", (position,), bounds), (size, *shape[1:])
    if kind == "gather":
        axis = draw(st.integers(0, len(shape) - 1))
        places = draw(st.sampled_from([(), (1,), (3,), (2, 3), (16,)]))
        counts = int(np.prod(places)) <= shape[axis] and draw(st.booleans())
        rule = (0, 0, 0) if counts else draw(st.tuples(*[st.integers(1, 9)] * 2, st.integers(0, 1)))
        static = (axis, shape[axis], places, rule)
        return Step("gather", (position,), static), (*shape[:axis], *places, *shape[axis + 1 :])
    if kind == "matmul":
        fitting = [n for n, o in enumerate(known) if len(o) == 2 and o[0] == shape[-1]]
        if len(shape) >= 2 and fitting:
            other = draw(st.sampled_from(fitting))
            return Step("matmul", (position, other)), (*shape[:-1], known[other][1])
    if kind == "half":
        return Step("half", (position,)), shape
    if kind == "scalar":
        return Step("scalar", (position,), draw(st.sampled_from([-1.5, 0.25, 2.0]))), shape
    return Step(draw(st.sampled_from(UNARY)), (position,)), shape


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...] | None:
    try:
        return np.broadcast_shapes(a, b)
    except ValueError:
        return None


def _reshapes(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    count = int(np.prod(shape))
    found = [(count,), (1, *shape), (*shape, 1), shape]
    found += [(d, count // d) for d in (2, 3, 4, 5, 7) if count % d == 0]
    return found
