"""Compiled functions: `compile_function` traces and compiles, `CompiledModel` runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

from maxmod import backends, config, ir, log, tree
from maxmod.backends.base import Kernel
from maxmod.buffer import Buffer
from maxmod.compiler.dump import dump_text
from maxmod.compiler.explain import explain, explain_steps
from maxmod.compiler.memory import MemoryPlan, plan_memory
from maxmod.compiler.pipeline import optimize
from maxmod.compiler.schedule import RunKernel, Schedule, schedule
from maxmod.device import DeviceRef
from maxmod.errors import CompileError, WeightsError
from maxmod.kernel import KernelSource
from maxmod.op import Op
from maxmod.ops.shape import rebound_sizes
from maxmod.program import Program
from maxmod.signature import Signature, argument_names
from maxmod.tensor import Tensor
from maxmod.tensor_type import TensorType
from maxmod.trace import trace

# Bound programs kept per compiled model: one for each set of sizes seen lately.
PROGRAM_LIMIT = 16


# Stands for a tensor among the leaves of a result; None can be a result itself.
TENSOR = object()


@dataclass(frozen=True, slots=True)
class StagedGraph:
    """A traced function that was not compiled; printing it shows the graph.

    Attributes:
        graph: The graph.
        in_tree: Structure of the arguments.
        out_tree: Structure of the results.
        out_leaves: Leaves of the results: `TENSOR` for a tensor, anything else as it is.
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
    are thread-safe; those with equal sizes wait for each other.

    Attributes:
        graph: The optimised graph.
        kernels: The generated kernels; empty where ops run one by one.
        stats: Numbers of calls and of bound programs.
    """

    def __init__(self, staged: StagedGraph, weights: Mapping[str, Tensor], wrapped: Any) -> None:
        self.staged = staged
        self.signature = staged.signature
        self.stats = Stats()
        self.__wrapped__ = wrapped
        self.__name__ = staged.graph.name
        self._device = _main_device(staged.graph)
        self._backend = backends.get(self._device)
        self.graph, self._schedule, self._kernels = self._build()
        self._programs: OrderedDict[tuple[TensorType, ...], Program] = OrderedDict()
        self._lock = threading.Lock()
        self._bind_weights({name: weights[name] for name in staged.graph.weights})

    def _build(self) -> tuple[ir.Graph, Schedule, list[Kernel]]:
        """Optimises, plans and builds; falls back to running ops one by one."""
        if not config.current().compile:
            return self.staged.graph, schedule(self.staged.graph, None), []
        dialect = None if _is_mixed(self.staged.graph) else self._backend.dialect()
        if dialect is not None:
            graph = optimize(self.staged.graph, _run, generates_code=True)
            plan = schedule(graph, dialect)
            self._show(graph, plan)
            try:
                return graph, plan, self._backend.build(plan.kernels, self._device.id)
            except CompileError as error:
                log.logger.warning("%s: running ops one by one, because %s", self.__name__, error)
        graph = optimize(self.staged.graph, _run, generates_code=False)
        return graph, schedule(graph, None), []

    def _show(self, graph: ir.Graph, plan: Schedule) -> None:
        """Logs and writes what is about to be built, as far as it is asked for."""
        if config.current().dump or log.wants(log.GRAPHS):
            dump_text(self.__name__, "explain", explain(graph, plan))
            log.show(log.GRAPHS, "%s\n%s", self.__name__, explain_steps(graph, plan))
            for source in plan.kernels:
                log.show(log.SOURCES, "kernel %s\n%s", source.name, source.code)

    @property
    def kernels(self) -> tuple[KernelSource, ...]:
        """The generated kernels with their sources."""
        return self._schedule.kernels

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

    @property
    def engine_model(self) -> CompiledModel:
        """What runs: the model itself."""
        return self

    @property
    def signal_buffers(self) -> tuple[()]:
        """Buffers with which devices signal each other: none, as there is one device."""
        return ()

    def export_mef(self, path: Any) -> None:
        """Raises `NotImplementedError`: built kernels are kept in the kernel cache instead."""
        raise NotImplementedError(
            "export_mef: compiled models have no file format. Hint: built kernels are kept in the "
            "kernel cache (maxmod cache), and weights are saved by maxmod.weights.save_state."
        )

    def load_state(self, weights: Mapping[str, Tensor]) -> None:
        """Replaces all weights, after checking names and types of all of them.

        Raises:
            WeightsError: (a ValueError and KeyError) If a name is missing or a type differs;
                nothing is replaced then.
        """
        for name, value in self.staged.graph.weights.items():
            found = weights[name].type.short() if name in weights else "nothing"
            if name not in weights or weights[name].type != value.type:
                raise WeightsError(
                    f"load_state: {name}: expected {value.type.short()}, got {found}."
                )
        self._bind_weights({name: weights[name] for name in self.staged.graph.weights})

    def _bind_weights(self, weights: Mapping[str, Tensor]) -> None:
        fixed: list[Any] = [None] * self._schedule.slot_count
        for slot, data in self._schedule.constants.items():
            fixed[slot] = data
        for name, slot in self._schedule.weights.items():
            fixed[slot] = weights[name].data
        for step in self._schedule.steps:
            if isinstance(step, RunKernel):  # kernels read row-major arrays: copied once, here
                for slot in step.inputs:
                    if fixed[slot] is not None:
                        fixed[slot] = self._backend.contiguous(fixed[slot])
        with self._lock:
            self._fixed = fixed
            self._weights = dict(weights)
            self._programs.clear()

    def __call__(self, *args: Any) -> Any:
        outputs = self._execute(self.signature.tensors(args))
        if self.staged.out_tree.kind is None and self.staged.out_leaves[0] is TENSOR:
            return outputs[0]
        leaves = iter(outputs)
        filled = [next(leaves) if leaf is TENSOR else leaf for leaf in self.staged.out_leaves]
        return tree.unflatten(self.staged.out_tree, filled)

    def execute_raw(self, *buffers: Buffer) -> list[Buffer]:
        """Runs on a flat list of driver buffers and returns a flat list of them."""
        tensors = self.signature.tensors(
            tree.unflatten(self.in_tree, [Tensor.from_dlpack(b) for b in buffers])
        )
        return [tensor.driver_tensor for tensor in self._execute(tensors)]

    def _execute(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        program = self._program(tensors)
        results = program.run([tensor.data for tensor in tensors])
        types = program.types
        if types is None:
            layouts = zip(self._schedule.output_types, results)
            types = [type.with_sizes(tuple(array.shape)) for type, array in layouts]
        return [Tensor.wrap(data, type) for data, type in zip(results, types)]

    def _program(self, tensors: Sequence[Tensor]) -> Program:
        """Returns the program for these arguments, from the cache or bound now.

        Types that were seen before need no check.
        """
        key = tuple([tensor._type for tensor in tensors])
        with self._lock:
            self.stats.calls += 1
            program = self._programs.get(key)
            if program is not None:
                if len(self._programs) == PROGRAM_LIMIT:
                    self._programs.move_to_end(key)
                return program
            complete = partial(rebound_sizes, self.staged.graph)
            program = Program(
                self._schedule,
                complete(self.signature.bind(tensors)),
                self._backend,
                self._device,
                self._kernels,
                self._fixed,
                complete,
            )
            self.stats.programs += 1
            self._programs[key] = program
            if len(self._programs) > PROGRAM_LIMIT:
                self._programs.popitem(last=False)
        return program

    def memory_plan(self, **dims: int) -> MemoryPlan:
        """Returns where intermediates live and the peak number of bytes, without running.

        Args:
            **dims: The value of each symbolic size.
        """
        nbytes = sum(array.nbytes for array in self._fixed if array is not None)
        sizes = rebound_sizes(self.staged.graph, dims)
        return plan_memory(self._schedule, sizes, nbytes)

    def explain(self) -> str:
        """Returns what was compiled, as text: the graph, the kernels and why they were formed."""
        return explain(self.graph, self._schedule)

    def __repr__(self) -> str:
        ins = ", ".join(type.short() for type in self.in_layouts)
        outs = ", ".join(type.short() for type in self.out_layouts)
        return f"CompiledModel({self.__name__}: ({ins}) -> ({outs}))"


def _run(
    op: Op, arrays: Sequence[Any], attrs: dict[str, Any], types: Sequence[TensorType]
) -> Sequence[Any]:
    return backends.get(types[0].device).run(op, arrays, attrs, types)


def _devices(graph: ir.Graph) -> list[DeviceRef]:
    values = [*graph.inputs, *graph.weights.values()]
    values += [value for node in graph.nodes for value in node.outputs]
    return [value.type.device for value in values]


def _main_device(graph: ir.Graph) -> DeviceRef:
    """Returns the accelerator if there is one in the graph, else the host."""
    devices = _devices(graph)
    return next((device for device in devices if device.is_gpu()), devices[0])


def _is_mixed(graph: ir.Graph) -> bool:
    return len(set(_devices(graph))) > 1


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
    out_leaves = tuple(TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves)
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
