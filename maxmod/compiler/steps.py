"""Steps: what runs when a compiled model is called, in order, over numbered slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from maxmod.kernel.source import KernelSource
from maxmod.op import Kind, Op
from maxmod.values.array import Array
from maxmod.values.dim import Size, evaluate
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType

if TYPE_CHECKING:  # schedules are also loaded, without the planner
    from maxmod.compiler.groups.group import FusionGroup
    from maxmod.op import ir


@dataclass(frozen=True, slots=True)
class RunOp:
    """Runs one op on the arrays in `inputs` and puts the results in `outputs`.

    Attributes:
        op: The op.
        inputs: Slots of the operands.
        attrs: Static arguments; symbols are replaced when a program is bound.
        types: Types of the results.
        outputs: Slots of the results.
        frees: Slots that nothing reads after this step.
        in_place: True if the first operand may be overwritten with the result.
        bodies: Schedules of the graphs among the static arguments, by their names. Numbers
            of kernels there are those of the outermost schedule. `attrs` has the traced graphs.
        node: The call in the graph; None in a schedule that was stored.
    """

    op: Op
    inputs: tuple[int, ...]
    attrs: Attrs
    types: tuple[TensorType, ...]
    outputs: tuple[int, ...]
    frees: tuple[int, ...] = ()
    in_place: bool = False
    bodies: tuple[tuple[str, Schedule], ...] = ()
    node: ir.Node | None = field(default=None, compare=False)

    @property
    def is_view(self) -> bool:
        """True if the result shares the memory of the operand."""
        return self.in_place or (self.op.kind is Kind.VIEW and self.op.lowering.view is not None)


@dataclass(frozen=True, slots=True)
class RunKernel:
    """Launches a kernel on the buffers in `inputs` and `outputs`.

    Attributes:
        kernel: Number of the kernel in `Schedule.kernels`.
        symbols: Names of the sizes that are its integer arguments.
        inputs: Slots that it reads.
        outputs: Slots that it writes.
        targets: For each output the slot of the buffer that it overwrites in place, -1 for none.
        types: Types of the results.
        nonempty: Sizes above 0; where one is not, `ops` run instead.
        ops: The ops that it computes, where it may have to be replaced by them; else empty.
        frees: Slots that nothing reads after this step.
        group: What it computes; None in a schedule that was stored.
    """

    kernel: int
    symbols: tuple[str, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    targets: tuple[int, ...]
    types: tuple[TensorType, ...]
    nonempty: tuple[Size, ...] = ()
    ops: tuple[RunOp, ...] = ()
    frees: tuple[int, ...] = ()
    group: FusionGroup | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RunProduct:
    """Calls the matrix library of the backend: activation(lhs @ rhs + bias + addend).

    Attributes:
        inputs: Slots of the two operands, then of the bias and of the addend, if any.
        outputs: Slot of the result.
        types: Its type.
        has_bias: True if a vector is added to each row.
        has_addend: True if a tensor of the type of the result is added.
        activation: A key of `maxmod.kernel.source.ACTIVATIONS`, or nothing.
        frees: Slots that nothing reads after this step.
        group: What it computes; None in a schedule that was stored.
    """

    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    types: tuple[TensorType, ...]
    has_bias: bool = False
    has_addend: bool = False
    activation: str = ""
    frees: tuple[int, ...] = ()
    group: FusionGroup | None = field(default=None, compare=False)

    @property
    def has_epilogue(self) -> bool:
        """True if the product has an epilogue."""
        return self.has_bias or self.has_addend or self.activation != ""

    @property
    def name(self) -> str:
        """What it does, such as `matmul_bias_gelu`."""
        names = ("bias" if self.has_bias else "", "add" if self.has_addend else "", self.activation)
        return "_".join(filter(None, ("matmul", *names)))


@dataclass(frozen=True, slots=True)
class RunCollective:
    """Exchanges data with the other processes of a group, each of which runs the same step.

    Attributes:
        op: The op; its `collective` is the method of `maxmod.distributed.Group` that is called.
        size: The number of processes. A schedule never has the rank of one.
        inputs: Slot of the operand.
        outputs: Slot of the result.
        types: Its type.
        frees: Slots that nothing reads after this step.
        node: The call in the graph; None in a schedule that was stored.
    """

    op: Op
    size: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    types: tuple[TensorType, ...]
    frees: tuple[int, ...] = ()
    node: ir.Node | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """What it does, such as `all_reduce`."""
        assert self.op.meaning.collective is not None
        return self.op.meaning.collective


Step = RunOp | RunKernel | RunProduct | RunCollective


@dataclass(frozen=True, slots=True)
class Choice:
    """Two implementations of one computation; the number of rows selects one at binding.

    Attributes:
        rows: The number of rows.
        limit: Up to this many rows, `few` runs, else `many`.
        few: Steps for few rows.
        many: Steps for many rows.
    """

    rows: Size
    limit: int
    few: tuple[Step, ...]
    many: tuple[Step, ...]

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of both ways."""
        return (*self.few, *self.many)

    @property
    def inputs(self) -> tuple[int, ...]:
        """Slots that a step of either way reads."""
        return tuple(slot for step in self.steps for slot in step.inputs)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Slots that a step of either way writes."""
        return tuple(slot for step in self.steps for slot in step.outputs)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Steps in order.

    Attributes:
        slot_count: Number of slots.
        inputs: Slots of the arguments.
        weights: Slot of each weight.
        constants: Data of the slots that hold constants.
        outputs: Slots of the results.
        output_types: Types of the results.
        borrowed: Positions of results that share memory with an argument, weight or constant.
        updates: (slot of an argument, slot of its new contents) for each changed buffer.
        steps: What to run; sizes may be symbolic.
        kernels: The distinct kernels, in order of first use.
        refused: For the number of each kernel that cannot be built, the reason; its steps have
            `ops`, which run instead. Never stored: another compiler may accept it.
    """

    slot_count: int
    inputs: tuple[int, ...]
    weights: Mapping[str, int]
    constants: Mapping[int, Array]
    outputs: tuple[int, ...]
    output_types: tuple[TensorType, ...]
    borrowed: frozenset[int]
    updates: tuple[tuple[int, int], ...]
    steps: tuple[Step | Choice, ...]
    kernels: tuple[KernelSource, ...]
    refused: Mapping[int, str] = field(default_factory=dict[int, str], compare=False)

    @property
    def all_steps(self) -> tuple[Step, ...]:
        """Every step, both ways of a choice included."""
        parts = (s.steps if isinstance(s, Choice) else (s,) for s in self.steps)
        return tuple(step for part in parts for step in part)

    @property
    def steps_for_many(self) -> tuple[Step, ...]:
        """The steps, with those for many rows for each choice."""
        parts = (s.many if isinstance(s, Choice) else (s,) for s in self.steps)
        return tuple(step for part in parts for step in part)

    def bound_steps(self, dims: Mapping[str, int]) -> tuple[Step, ...]:
        """Returns the steps for known sizes.

        Args:
            dims: The value of each symbol.
        """
        steps: list[Step] = []
        for step in self.steps:
            if isinstance(step, Choice):
                steps += step.few if evaluate(step.rows, dims) <= step.limit else step.many
            else:
                steps.append(step)
        return tuple(steps)
