"""Compiled functions: `compile_function` traces and compiles, `CompiledModel` runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from maxmod import backends, config, ir, tree
from maxmod.buffer import Buffer
from maxmod.compiler.pipeline import optimize
from maxmod.compiler.schedule import RunOp, bind, schedule
from maxmod.errors import CompileError
from maxmod.op import Op
from maxmod.signature import Signature, argument_names
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType
from maxmod.trace import trace

# Bound programs kept per compiled model: one for each set of sizes seen lately.
PROGRAM_LIMIT = 16


@dataclass(frozen=True, slots=True)
class StagedGraph:
    """A traced function that was not compiled; printing it shows the graph.

    Attributes:
        graph: The graph.
        in_tree: Structure of the arguments.
        out_tree: Structure of the results.
        out_leaves: Leaves of the results: None for a tensor, the value itself for anything else.
        signature: The argument checks.
    """

    graph: ir.Graph
    in_tree: tree.Tree
    out_tree: tree.Tree
    out_leaves: tuple[Any, ...]
    signature: Signature

    @property
    def in_layouts(self) -> list[TensorType]:
        """The types of the tensor arguments."""
        return list(self.signature.types)

    @property
    def out_layouts(self) -> list[TensorType]:
        """The types of the tensor results."""
        return [value.type for value in self.graph.outputs]

    def __str__(self) -> str:
        return str(self.graph)


@dataclass(slots=True)
class Stats:
    """What a compiled model did so far."""

    calls: int = 0
    programs: int = 0


class CompiledModel:
    """An executable made from a traced function; called with the same arguments as the function.

    It keeps the weights that it was compiled with: changing the module later has no effect. Calls
    are thread-safe.

    Attributes:
        graph: The optimised graph.
        stats: Numbers of calls and of bound programs.
    """

    def __init__(self, staged: StagedGraph, weights: Mapping[str, Tensor], wrapped: Any) -> None:
        self.staged = staged
        self.signature = staged.signature
        self.graph = optimize(staged.graph, _run) if config.current().compile else staged.graph
        self.stats = Stats()
        self.__wrapped__ = wrapped
        self.__name__ = staged.graph.name
        self._weights = {name: weights[name] for name in staged.graph.weights}
        self._schedule = schedule(self.graph)
        self._programs: OrderedDict[tuple[int, ...], tuple[RunOp, ...]] = OrderedDict()
        self._lock = threading.Lock()
        self._fixed = [None] * self._schedule.slot_count
        for slot, data in self._schedule.constants.items():
            self._fixed[slot] = data
        self._bind_weights(self._weights)

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights by qualified name; read only."""
        return MappingProxyType(self._weights)

    @property
    def in_layouts(self) -> list[TensorType]:
        """The types of the tensor arguments."""
        return self.staged.in_layouts

    @property
    def out_layouts(self) -> list[TensorType]:
        """The types of the tensor results."""
        return self.staged.out_layouts

    @property
    def in_tree(self) -> tree.Tree:
        """Structure of the arguments."""
        return self.staged.in_tree

    @property
    def out_tree(self) -> tree.Tree:
        """Structure of the results."""
        return self.staged.out_tree

    def load_state(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces all weights, after checking names and types of all of them.

        Raises:
            CompileError: If a name is missing or a type differs; nothing is replaced then.
        """
        for name, value in self.staged.graph.weights.items():
            found = weights[name].type.short() if name in weights else "nothing"
            if name not in weights or weights[name].type != value.type:
                raise CompileError(
                    f"load_state: {name}: expected {value.type.short()}, got {found}."
                )
        self._bind_weights({name: weights[name] for name in self.staged.graph.weights})

    def _bind_weights(self, weights: Mapping[str, Tensor]) -> None:
        fixed = list(self._fixed)
        for name, slot in self._schedule.weights.items():
            fixed[slot] = weights[name].data
        self._fixed = fixed
        self._weights = dict(weights)

    def __call__(self, *args: Any) -> Any:
        outputs = self._execute(self.signature.tensors(args))
        leaves = iter(outputs)
        filled = [next(leaves) if leaf is None else leaf for leaf in self.staged.out_leaves]
        return filled[0] if self.staged.out_tree.kind is None else tree.unflatten(
            self.staged.out_tree, filled
        )

    def execute_raw(self, *buffers: Buffer) -> list[Buffer]:
        """Runs on a flat list of driver buffers and returns a flat list of them."""
        tensors = self.signature.tensors(
            tree.unflatten(self.in_tree, [Tensor.from_dlpack(b) for b in buffers])
        )
        return [tensor.driver_tensor for tensor in self._execute(tensors)]

    def _execute(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        dims = self.signature.bind(tensors)
        program = self._program(dims)
        slots = list(self._fixed)
        for slot, tensor in zip(self._schedule.inputs, tensors):
            slots[slot] = tensor.data
        sync = config.current().sync
        for step in program:
            arrays = [slots[i] for i in step.inputs]
            results = _run(step.op, arrays, step.attrs, step.types)
            for slot, result in zip(step.outputs, results):
                slots[slot] = result
            for slot in step.frees:
                slots[slot] = None
            if sync:
                device = step.types[0].device
                backends.get(device).synchronize(device.id)
        return [
            _fresh(slots[slot], ir.bind_type(value.type, dims), tensors, self._fixed)
            for slot, value in zip(self._schedule.outputs, self.graph.outputs)
        ]

    def _program(self, dims: Mapping[str, int]) -> tuple[RunOp, ...]:
        """Returns the steps for these sizes, from the cache or bound now."""
        key = tuple(dims.values())
        with self._lock:
            self.stats.calls += 1
            program = self._programs.get(key)
            if program is not None:
                self._programs.move_to_end(key)
                return program
        program = bind(self._schedule, dims)
        with self._lock:
            self.stats.programs += 1
            self._programs[key] = program
            if len(self._programs) > PROGRAM_LIMIT:
                self._programs.popitem(last=False)
        return program

    def explain(self) -> str:
        """Returns what was compiled, as text: the optimised graph with the user's lines."""
        return str(self.graph)

    def __repr__(self) -> str:
        ins = ", ".join(type.short() for type in self.in_layouts)
        outs = ", ".join(type.short() for type in self.out_layouts)
        return f"CompiledModel({self.__name__}: ({ins}) -> ({outs}))"


def _run(
    op: Op, arrays: Sequence[Any], attrs: dict[str, Any], types: Sequence[TensorType]
) -> Sequence[Any]:
    return backends.get(types[0].device).run(op, arrays, attrs, types)


def _fresh(data: Any, type: TensorType, tensors: Sequence[Tensor], fixed: Sequence[Any]) -> Tensor:
    """Wraps a result; one that is an argument, weight or constant itself is copied."""
    if any(data is t._data for t in tensors) or any(data is array for array in fixed):
        data = data.copy()
    return Tensor.wrap(data, type)


def trace_function(
    fn: Callable[..., Any],
    input_types: Sequence[Any],
    *,
    name: str,
    parameters: Mapping[str, Tensor],
) -> StagedGraph:
    """Traces a function or module for arguments of the given types, without compiling it.

    Args:
        fn: Called once, with symbolic tensors.
        input_types: A `TensorType` (or a nested list, tuple or dict of them) for each argument.
        name: Name of the graph.
        parameters: Tensors that become weights, by qualified name.
    """
    names = argument_names(fn)
    signature = Signature(input_types, names)
    traced = trace(
        fn,
        lambda tracer: signature.arguments(tracer.argument),
        name=name,
        parameters=parameters,
        flatten=lambda value: tree.flatten(value)[0],
    )
    if config.current().verify:
        ir.verify(traced.graph)
    leaves, out_tree = tree.flatten(traced.results)
    out_leaves = tuple(None if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    return StagedGraph(traced.graph, signature.tree, out_tree, out_leaves, signature)


def compile_function(
    fn: Callable[..., Any],
    input_types: Sequence[Any],
    *,
    name: str,
    parameters: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None = None,
) -> CompiledModel:
    """Traces and compiles a function or module; see `trace_function`.

    Args:
        weights: Data of the weights, if other than that of `parameters`.
    """
    staged = trace_function(fn, input_types, name=name, parameters=parameters)
    return CompiledModel(staged, parameters if weights is None else weights, fn)
