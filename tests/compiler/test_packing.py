"""Schedules written as JSON come back equal, for every op and every kernel language."""

from __future__ import annotations

import contextlib
import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from compiler.graphs import f32, traced
from helpers import run_op, tensor
from ops.test_registry import SAMPLES

from maxmod import custom
from maxmod import functional as F
from maxmod.compiler.packing import Packer, UnpackableError, Unpacker, live_objects
from maxmod.compiler.pipeline import plan_graph
from maxmod.compiler.steps import Choice, RunCollective, RunKernel, RunOp, Schedule
from maxmod.dtype import DType
from maxmod.kernel.source import Dialect
from maxmod.op import FUNCTIONS, ir
from maxmod.values.device import DeviceRef
from maxmod.values.dim import Dim

DIALECTS = (None, *Dialect)


def repacked(value: Any, kernels: Any = ()) -> Any:
    """Writes a value and reads it back."""
    packer = Packer(kernels)
    text = json.dumps(packer.pack(value))
    table = json.loads(json.dumps(packer.table()))
    return Unpacker(table, kernels).unpack(json.loads(text))


def without_groups(plan: Schedule) -> Schedule:
    """Returns a schedule as it is stored."""

    def stored(step: Any) -> Any:
        if isinstance(step, Choice):
            few, many = (tuple(map(stored, way)) for way in (step.few, step.many))
            return replace(step, few=few, many=many)
        if isinstance(step, RunOp):
            bodies = [(name, without_groups(body)) for name, body in step.bodies]
            return replace(step, bodies=tuple(bodies), node=None)
        if isinstance(step, RunCollective):
            return replace(step, node=None)
        if isinstance(step, RunKernel):
            step = replace(step, ops=tuple(map(stored, step.ops)))
        return replace(step, group=None)

    return replace(plan, steps=tuple(map(stored, plan.steps)))


def assert_comes_back(graph: ir.Graph) -> None:
    kernels = live_objects(graph)
    for dialect in DIALECTS:
        plan = plan_graph(graph, dialect, run_op, contextlib.nullcontext)[1]
        plan = without_groups(replace(plan, constants={}))
        assert repacked(plan, kernels) == plan
        assert repr(repacked(plan, kernels)) == repr(plan)  # keeps 1, 1.0 and True apart


@pytest.mark.parametrize("name", SAMPLES)
def test_every_op(name: str) -> None:
    function: Any = FUNCTIONS[name]
    for sample in SAMPLES[name]:
        dtype = sample.dtypes[0]
        attrs = sample.attrs(dtype) if callable(sample.attrs) else sample.attrs
        arrays = sample.make(np.random.default_rng(0), dtype)

        def fn(*args: Any, attrs: Any = attrs) -> Any:
            return function(*([args] if function.op.signature.variadic else args), **attrs)

        assert_comes_back(traced(fn, *[tensor(array).type for array in arrays]))


def test_symbolic_sizes() -> None:
    def fn(x: Any) -> Any:
        a, b = x.shape
        y = F.concat([x.reshape([a * b]), x.reshape([b * a])])
        halves = F.rebind(y, [Dim("rows") * 2], message="even")
        return halves.reshape([2, Dim("rows")]), F.softmax(x), x[:-1]

    assert_comes_back(traced(fn, f32("a", "b")))


@pytest.mark.parametrize(
    "value",
    [
        (1, 1.0, True, None, "text", -0.0, math.inf, 1e300, -(2**63)),
        ((), ((),), (0.1,)),
        Dim("n"),
        Dim("n") * Dim("m") + 3 * Dim("n") - 7,
        (Dim("n") + 1) // 2 + Dim("m") // Dim("n") * 5,
        DeviceRef.GPU(3),
        DType.float8_e4m3fn,
        frozenset({3, 1}),
        {"a": 1, "b": ({"c": Dim("x")},)},
    ],
)
def test_values(value: Any) -> None:
    again = repacked(value)
    assert again == value
    assert type(again) is type(value)
    assert repr(again) == repr(value)


def test_nan() -> None:
    assert math.isnan(repacked(math.nan))


def test_kernels_of_users_are_written_by_number() -> None:
    kernels = [custom.register(f"test.packed{n}", numpy=lambda x: x) for n in range(2)]

    def fn(x: Any) -> Any:
        return F.custom("test.packed1", x.device, [x], [x.type])[0]

    assert_comes_back(traced(fn, f32(3)))
    assert repacked(kernels[1], kernels) is kernels[1]


@pytest.mark.parametrize("value", [np.float32(1), np.zeros(2), object(), 1j, [1], {1, 2}])
def test_values_of_other_types_are_refused(value: Any) -> None:
    with pytest.raises(UnpackableError, match=type(value).__name__):
        Packer(()).pack((value,))


@pytest.mark.parametrize(
    "packed", [{"op": "nothing"}, {"what": 1}, {"dtype": "x"}, {"type": 7}, {}, {"RunOp": [1]}]
)
def test_malformed_values_are_refused(packed: Any) -> None:
    with pytest.raises((LookupError, TypeError, ValueError)):
        Unpacker([], ()).unpack(packed)
