"""Compiled functions: `compile_function` traces and compiles, `CompiledModel` runs."""

from __future__ import annotations

import contextlib
import contextvars
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from maxmod import backends, config, log
from maxmod.backends.base import Kernel
from maxmod.backends.refusal import in_short
from maxmod.compiler.dump import dump_text
from maxmod.compiler.memory import MemoryPlan, plan_memory
from maxmod.compiler.steps import RunKernel, RunOp, Schedule
from maxmod.errors import ArgumentError, CompileError, WeightsError
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.op import ir
from maxmod.ops.known_sizes import SizeChecks
from maxmod.ops.shape import rebound_sizes
from maxmod.runtime import plan_cache, tree
from maxmod.runtime.arena import Arena
from maxmod.runtime.binding import bind
from maxmod.runtime.buffers import StoredArguments
from maxmod.runtime.environment import Environment
from maxmod.runtime.program import Program, ProgramCache
from maxmod.runtime.repeating import RepeatedCall
from maxmod.runtime.staging import TENSOR, StagedGraph, trace_function
from maxmod.runtime.stats import Stats
from maxmod.system.locks import fork_safe_lock
from maxmod.tensor import Tensor
from maxmod.tensor.buffer import Buffer
from maxmod.values.array import Array
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import BufferType, TensorType

if TYPE_CHECKING:  # imported when it is asked for
    from maxmod.compiler.report import Explanation, Measurement

# Bound programs kept per compiled model: one for each set of sizes seen lately.
PROGRAM_LIMIT = 16

SHOWN_REFUSALS = 3  # in the warning about kernels that cannot be built; `explain` shows all

_DUMP_WIDTH = 100  # characters of a line in logs and in files of `MAXMOD_DUMP`
_PIPELINE = "maxmod.compiler.pipeline"  # the compiler itself; needed where no plan is stored
_REPORT = "maxmod.compiler.report"  # what explains; needed where it is asked for
_MEASURING = "maxmod.runtime.measuring"


Timed = Callable[[str], contextlib.AbstractContextManager[None]]

# What finishes the models of a block of `built_together`.
_TOGETHER: contextvars.ContextVar[list[Callable[[], None]] | None] = contextvars.ContextVar(
    "together", default=None
)


@contextlib.contextmanager
def built_together() -> Iterator[None]:
    """Lets the kernels of all models that are compiled in a block be built side by side, while
    later ones are traced and planned. The models can be called behind the block.
    """
    started: list[Callable[[], None]] = []
    token = _TOGETHER.set(started)
    try:
        yield
    finally:
        _TOGETHER.reset(token)
        for finish in started:
            finish()


@contextlib.contextmanager
def _built_at_once() -> Iterator[None]:
    """Whatever is compiled in a block can be called there, as what is traced may do."""
    token = _TOGETHER.set(None)
    try:
        yield
    finally:
        _TOGETHER.reset(token)


class CompiledModel:
    """An executable made from a traced function; called with the same arguments as the function.

    It keeps the weights that it was compiled with: changing the module later has no effect. Calls
    are thread-safe and wait for each other: they share the memory of their intermediates.

    Attributes:
        stats: What compiling took, and numbers of calls, bound programs and CUDA graphs.
    """

    def __init__(
        self,
        staged: StagedGraph,
        weights: Mapping[str, Tensor],
        wrapped: object,
        stats: Stats | None = None,
    ) -> None:
        self.staged = staged
        self._size_checks = SizeChecks(staged.graph)
        self.signature = staged.signature
        self.stats = stats or Stats()
        self.__wrapped__ = wrapped
        self.__name__ = staged.graph.name
        self._device = _main_device(staged.graph)
        self._backend = backends.get(self._device)
        self._settings = config.current()
        self._dialect: Dialect | None = None
        self._planned: tuple[ir.Graph, Schedule] | None = None
        self._building: Callable[[], Sequence[Kernel | CompileError]] | None = None
        self._kernels: Sequence[Kernel | CompileError] = ()
        self._lock = fork_safe_lock()
        self._arena = Arena(self._backend, self._device.id)
        self._programs = ProgramCache(self._arena, PROGRAM_LIMIT)
        self._stored = StoredArguments(staged.graph, self.signature.tensor_labels)
        self._start_build()
        kept = {name: weights[name] for name in staged.graph.weights}
        together = _TOGETHER.get()
        if together is None:
            self._finish_build(kept)
        else:
            together.append(partial(self._finish_build, kept))

    def _start_build(self) -> None:
        """Plans, and starts to build."""
        if self._settings.compile and not _is_mixed(self.staged.graph):
            with self.stats.timed("find"):
                self._dialect = self._backend.dialect()
        self._schedule = self._load_or_plan()
        if self._dialect is None:
            return
        try:
            with self.stats.timed("build"):
                kernels = self._schedule.kernels
                self._building = self._backend.start_build(kernels, self._device.id)
        except CompileError as error:
            self._without_kernels(error)

    def _finish_build(self, weights: Mapping[str, Tensor]) -> None:
        """Waits for the kernels. Falls back to running ops one by one: all of them where no kernel
        can be built, else those of the kernels that cannot.
        """
        if self._building is not None:
            try:
                with self.stats.timed("build"):
                    self._kernels = self._building()
            except CompileError as error:
                self._without_kernels(error)
            self._building = None
        self.stats.count_kernels(self._kernels)
        if self.stats.kernels_refused:
            self._schedule, self._kernels = self._without_refused(self._schedule, self._kernels)
        self._bind_weights(weights)

    def _without_kernels(self, error: CompileError) -> None:
        log.logger.warning("%s: running ops one by one, because %s", self.__name__, error)
        self._dialect, self._planned = None, None
        self._schedule = self._load_or_plan()

    def _without_refused(
        self, plan: Schedule, kernels: Sequence[Kernel | CompileError]
    ) -> tuple[Schedule, Sequence[Kernel | CompileError]]:
        """Plans again, with the ops of the kernels that cannot be built."""
        made = {source.plain: kernel for source, kernel in zip(plan.kernels, kernels, strict=True)}
        reasons = {t: in_short(k) for t, k in made.items() if isinstance(k, CompileError)}
        log.logger.warning(
            "%s: %d of %d kernels cannot be built, and their ops run one by one: %s",
            self.__name__,
            len(reasons),
            len(made),
            "; ".join(list(reasons.values())[:SHOWN_REFUSALS]),
        )
        graph, _ = self._plan()
        architecture = self._backend.architecture(self._device.id)
        with self._as_configured():
            schedule = importlib.import_module(_PIPELINE).schedule
            plan = schedule(graph, self._dialect, architecture, reasons)
        self._planned = graph, plan
        return plan, [made[source.plain] for source in plan.kernels]

    def _load_or_plan(self) -> Schedule:
        if not self._settings.compile:
            return self._plan(self.stats.timed)[1]
        with self.stats.timed("lookup"):
            architecture = self._backend.architecture(self._device.id)
            key = plan_cache.PlanKey(self.staged.graph, self._dialect, architecture)
            found = plan_cache.load(key)
        self.stats.plan_cached = found is not None
        if found is None:
            graph, found = self._plan(self.stats.timed)
            with self.stats.timed("store"):
                plan_cache.store(key, graph, found)
        return found

    def _plan(self, timed: Timed = contextlib.nullcontext) -> tuple[ir.Graph, Schedule]:
        """Returns the optimised graph and the schedule with its groups.

        With a loaded schedule they are not needed until requested.
        """
        if self._planned is not None:
            return self._planned
        with timed("import"):
            pipeline = importlib.import_module(_PIPELINE)
        with self._as_configured():
            architecture = self._backend.architecture(self._device.id)
            graph, plan = pipeline.plan_graph(
                self.staged.graph, self._dialect, backends.run, timed, architecture
            )
        self._show(graph, plan)
        self._planned = graph, plan
        return graph, plan

    def _as_configured(self) -> contextlib.AbstractContextManager[object]:
        """Plans as with the settings of the time when the model was compiled."""
        settings = self._settings
        return config.configure(
            compile=settings.compile,
            noopt=settings.noopt,
            nofuse=settings.nofuse,
            fuse_limit=settings.fuse_limit,
        )

    def _show(self, graph: ir.Graph, plan: Schedule) -> None:
        """Logs and writes the plan, where that is switched on."""
        if self._dialect and (config.current().dump or log.wants(log.GRAPHS)):
            report = importlib.import_module(_REPORT)
            explanation = report.Explanation(graph, plan, width=_DUMP_WIDTH)
            dump_text(self.__name__, "explain", str(explanation))
            log.show(log.GRAPHS, "%s\n%s", self.__name__, explanation.steps())
            for number in range(len(plan.kernels)):
                log.show(log.SOURCES, "%s", explanation.kernel(number))

    @property
    def graph(self) -> ir.Graph:
        """The optimised graph."""
        return self._plan()[0]

    @property
    def kernels(self) -> tuple[KernelSource, ...]:
        """The generated kernels with their sources; empty where ops run one by one.

        Lines and numbers of values are those of this model, wherever the kernels were built.
        """
        return self._plan()[1].kernels if self._schedule.kernels else ()

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

    def export_mef(self, path: object) -> None:
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
        fixed: list[Array | None] = [None] * self._schedule.slot_count
        for slot, data in self._schedule.constants.items():
            fixed[slot] = data
        for name, slot in self._schedule.weights.items():
            fixed[slot] = weights[name].data
        for step in self._schedule.all_steps:
            if isinstance(step, RunKernel) or (isinstance(step, RunOp) and step.bodies):
                # Kernels read row-major arrays: copied once, here.
                for slot in step.inputs:
                    array = fixed[slot]
                    if array is not None:
                        fixed[slot] = self._backend.contiguous(array)
        with self._lock:
            self._environment = self._new_environment(fixed)
            self._weights = dict(weights)
            self._stored.set_weights(self._weights)
            self._programs.clear()

    def _new_environment(self, fixed: Sequence[Array | None]) -> Environment:
        """Returns what programs run with, given the arrays of weights and constants by slot."""
        inputs = zip(self._schedule.inputs, self.signature.types, strict=True)
        return Environment(
            backend=self._backend,
            device=self._device,
            kernels=self._kernels,
            sources=self._schedule.kernels,
            stats=self.stats,
            fixed=fixed,
            buffers=[slot for slot, type in inputs if isinstance(type, BufferType)],
            arena=self._arena,
            complete=self._size_checks,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if kwargs or self.signature.keywords:
            args = tuple(self.signature.ordered(args, kwargs))
        outputs = self._execute(self.signature.tensors(args))
        if self.staged.out_tree.kind is None and self.staged.out_leaves[0] is TENSOR:
            return outputs[0]
        leaves = iter(outputs)
        filled = [next(leaves) if leaf is TENSOR else leaf for leaf in self.staged.out_leaves]
        return tree.unflatten(self.staged.out_tree, filled)

    def repeated(self, *args: Any, **kwargs: Any) -> RepeatedCall:
        """Returns a call with these arguments, for callers who repeat it.

        The arguments are checked once. Until the last call, what is in them may change, but not
        which memory they have. The call returns the arrays of the results.
        """
        if kwargs or self.signature.keywords:
            args = tuple(self.signature.ordered(args, kwargs))
        return RepeatedCall(self, self.signature.tensors(args))

    @property
    def version(self) -> object:
        """Another object when other weights are used."""
        return self._environment

    def checked_program(self, tensors: Sequence[Tensor]) -> Program:
        """Returns the program for these arguments; counts a call.

        Raises:
            OperandError: As `StoredArguments.check`.
            ArgumentError: As `StoredArguments.check`.
        """
        program = self._program(tensors)
        self._stored.check(tensors)
        return program

    def execute_raw(self, *buffers: Buffer) -> list[Buffer]:
        """Runs on a flat list of driver buffers and returns a flat list of them."""
        tensors = self.signature.tensors(
            tree.unflatten(self.in_tree, [Tensor.from_dlpack(b) for b in buffers])
        )
        return [tensor.driver_tensor for tensor in self._execute(tensors)]

    def _execute(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        program = self.checked_program(tensors)
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
            if program is None:
                program = self._bind(tensors)
                self.stats.programs += 1
                self._programs.keep(key, program)
            elif len(self._programs) == PROGRAM_LIMIT:  # the one used last is forgotten last
                self._programs.move_to_end(key)
        return program

    def _bind(self, tensors: Sequence[Tensor], *, explained: bool = False) -> Program:
        """Binds a program to the sizes of these arguments.

        Args:
            tensors: The arguments.
            explained: Take the plan with the groups, which may not be the one that was stored.
        """
        explained = explained or config.current().check
        schedule = self._plan()[1] if explained else self._schedule
        environment = self._environment
        dims = environment.complete(self.signature.bind(tensors))
        latest = self._programs.latest
        parts = None if latest is None else latest.parts
        return self._programs.bound(lambda: bind(schedule, dims, environment, parts))

    def memory_plan(self, **dims: int) -> MemoryPlan:
        """Returns where intermediates live and the peak number of bytes, without running.

        Args:
            **dims: The value of each symbolic size.
        """
        nbytes = sum(array.nbytes for array in self._environment.fixed if array is not None)
        sizes = rebound_sizes(self.staged.graph, dims)
        return plan_memory(self._schedule, sizes, nbytes)

    def explain(self, *, width: int | None = None, **dims: int) -> str:
        """Describes the compiled graph as text: summary, graph, steps, memory plan and kernels.

        Each step tells how many bytes it reads and writes and how much it computes; each kernel why
        its ops were put together, or kept out of it. Equal layers are shown once, and the files of
        `kernels/` that a source contains by name; `kernels` has the whole sources.

        Args:
            width: Characters of a line; those of the terminal by default, and 80 where there is
                none. The lines of sources stay as they are. If a symbolic size has the name
                `width`, it is that size.
            **dims: The value of each symbolic size, for numbers instead of expressions.
        """
        return str(self._explanation(dims, width))

    def explain_html(self, *, measure: bool = False, **dims: int) -> str:
        """Describes the compiled graph as a self-contained HTML page.

        It has the contents of `explain`, and charts of the order of the steps, of the memory plan
        over time, and a roofline of the kernels: operations per second over operations per byte.

        Args:
            measure: Run the model a few times, with zeros for arguments, and show the times of its
                steps next to the limits of the device. All sizes must be given.
            **dims: The value of each symbolic size, for numbers instead of expressions.

        Raises:
            ArgumentError: If `measure` is set and a size is missing.
            MissingPackageError: (an ImportError) If jinja2 or pygments is not installed.
        """
        return self._explanation(dims, measure=measure).html()

    def explanation(
        self, *, width: int | None = None, measure: bool = False, **dims: int
    ) -> Explanation:
        """Returns the parts of `explain` and `explain_html`, to be shown one by one.

        Args:
            width: As for `explain`.
            measure: As for `explain_html`.
            **dims: The value of each symbolic size; other names have no effect.
        """
        return self._explanation(dims, width, measure)

    def _explanation(
        self, dims: Mapping[str, int], width: int | None = None, measure: bool = False
    ) -> Explanation:
        names = ir.symbols(self.staged.graph)
        if "width" in names and width is not None:
            dims, width = {**dims, "width": width}, None
        sizes: Mapping[str, int] = {name: dims[name] for name in names if name in dims}
        memory = None
        if len(sizes) == len(names):
            memory = self.memory_plan(**sizes)
            sizes = rebound_sizes(self.staged.graph, sizes)
        elif measure:
            missing = ", ".join(f"{name}=..." for name in names if name not in dims)
            raise ArgumentError(f"explain: to measure, every size must be given: add {missing}.")
        measured = self._measured(sizes) if measure else None
        report = importlib.import_module(_REPORT)
        return report.Explanation(*self._plan(), sizes, memory, measured, width, self.stats.slower)

    def _measured(self, dims: Mapping[str, int]) -> Measurement:
        def bound(tensors: Sequence[Tensor]) -> Callable[[Sequence[Array]], object]:
            with self._lock:
                return self._bind(tensors, explained=True).run

        types = [ir.bind_type(type, dims) for type in self.in_layouts]
        measuring = importlib.import_module(_MEASURING)
        return measuring.measure(self._plan()[0], types, self._device, bound, compile_function)

    def __repr__(self) -> str:
        ins = ", ".join(type.short() for type in self.in_layouts)
        outs = ", ".join(type.short() for type in self.out_layouts)
        return f"CompiledModel({self.__name__}: ({ins}) -> ({outs}))"


def _main_device(graph: ir.Graph) -> DeviceRef:
    """Returns the accelerator if there is one in the graph, else the host.

    A graph without inputs and calls may return constants.
    """
    devices = ir.devices(graph) or [value.type.device for value in graph.constants]
    return next((device for device in devices if device.is_gpu()), devices[0])


def _is_mixed(graph: ir.Graph) -> bool:
    return len(set(ir.devices(graph))) > 1


def compile_function(
    fn: Callable[..., object],
    input_types: Sequence[object],
    *,
    name: str,
    parameters: Mapping[str, Tensor],
    weights: Mapping[str, Tensor] | None = None,
    keyword_types: Mapping[str, object] = MappingProxyType({}),
) -> CompiledModel:
    """Traces and compiles a function or module; see `trace_function`.

    `weights` holds the data of the weights, if it is other than that of `parameters`.
    """
    stats = Stats()
    with stats.timed("trace"), _built_at_once():
        staged = trace_function(
            fn, input_types, name=name, parameters=parameters, keyword_types=keyword_types
        )
    return CompiledModel(staged, parameters if weights is None else weights, fn, stats)
