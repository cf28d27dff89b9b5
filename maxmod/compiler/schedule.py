"""From a graph to steps over numbered slots, with each value dropped after its last use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from maxmod import ir
from maxmod.op import Op
from maxmod.tensor_type import TensorType


@dataclass(frozen=True, slots=True)
class RunOp:
    """Runs one op on the arrays in `inputs`, puts results in `outputs`, then empties `frees`."""

    op: Op
    inputs: tuple[int, ...]
    attrs: dict[str, Any]
    types: tuple[TensorType, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order.

    Attributes:
        slot_count: Number of slots.
        inputs: Slots of the arguments.
        weights: Slot of each weight.
        constants: Data of the slots that hold constants.
        outputs: Slots of the results.
        steps: What to run; sizes may be symbolic until `bind`.
    """

    slot_count: int
    inputs: tuple[int, ...]
    weights: Mapping[str, int]
    constants: Mapping[int, Any]
    outputs: tuple[int, ...]
    steps: tuple[RunOp, ...]


def schedule(graph: ir.Graph) -> Schedule:
    """Numbers the values of a graph and finds the last use of each intermediate."""
    slots: dict[ir.Value, int] = {}
    for value in (*graph.inputs, *graph.weights.values(), *graph.constants):
        slots[value] = len(slots)
    kept = len(slots)
    for node in graph.nodes:
        for value in node.outputs:
            slots[value] = len(slots)
    last_use: dict[int, int] = {}
    for index, node in enumerate(graph.nodes):
        for value in (*node.inputs, *node.outputs):
            last_use[slots[value]] = index
    outputs = tuple(slots[value] for value in graph.outputs)
    frees: dict[int, list[int]] = {}
    for slot, index in last_use.items():
        if slot >= kept and slot not in outputs:
            frees.setdefault(index, []).append(slot)
    steps = tuple(
        RunOp(
            node.op,
            tuple(slots[value] for value in node.inputs),
            node.kwargs,
            tuple(value.type for value in node.outputs),
            tuple(slots[value] for value in node.outputs),
            tuple(frees.get(index, ())),
        )
        for index, node in enumerate(graph.nodes)
    )
    return Schedule(
        slot_count=len(slots),
        inputs=tuple(slots[value] for value in graph.inputs),
        weights={name: slots[value] for name, value in graph.weights.items()},
        constants={slots[value]: data for value, data in graph.constants.items()},
        outputs=outputs,
        steps=steps,
    )


def bind(plan: Schedule, dims: Mapping[str, int]) -> tuple[RunOp, ...]:
    """Returns the steps for known sizes."""
    return tuple(
        RunOp(
            step.op,
            step.inputs,
            ir.bind_attrs(step.attrs, dims),
            tuple(ir.bind_type(type, dims) for type in step.types),
            step.outputs,
            step.frees,
        )
        for step in plan.steps
    )
