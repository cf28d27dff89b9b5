"""The record of an op: how it is called, what it means, and how it is lowered to kernels.

Everything that maxmod knows about one operation is in its `Op`, so that interpreters, compiler
passes and backends look at fields, and never at a list of names. `maxmod.op.registry` makes the
records.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from maxmod.op.affine import Index
from maxmod.values.array import Array, ArrayModule
from maxmod.values.plain import Attrs
from maxmod.values.tensor_type import TensorType


class Kind(enum.Enum):
    """What an op does to its operands; compiler passes look at this, never at names."""

    SOURCE = "source"  # no operands: full, arange, random numbers
    ELEMENTWISE = "elementwise"  # one output element from the elements at its position
    REDUCE = "reduce"  # one axis becomes 1 by combining its elements
    VIEW = "view"  # index arithmetic only: reshape, permute, slice, broadcast
    INDEX = "index"  # positions read from a tensor: gather, scatter
    CONTRACT = "contract"  # products: matmul, quantized_linear
    COMPOSITE = "composite"  # has a definition in other ops: softmax, layer_norm
    OPAQUE = "opaque"  # everything else


class Operands(enum.Enum):
    """Which operands an op takes, and whether they are promoted to one dtype first."""

    STRONG = "tensors only, dtypes unchanged"
    PROMOTED = "tensors and Python or NumPy values, promoted to one dtype"
    STRONG_PROMOTED = "tensors only, promoted to one dtype"


REQUIRED = object()  # the default of a static argument that has none

TypeRule = Callable[..., "TensorType | tuple[TensorType, ...]"]


@dataclass(frozen=True, slots=True, eq=False)
class Signature:
    """How an op is called.

    Attributes:
        tensor_names: Names of the tensor parameters in order.
        defaults: Static parameters in order, with defaults (`REQUIRED` if there is none).
        variadic: The one tensor parameter is a sequence of tensors.
        operands: How arguments become operands.
        mixed_devices: True if operands and results may live on several devices.
        prepare: `prepare(op, *types, **attrs)` gives canonical static arguments, or raises.
    """

    tensor_names: tuple[str, ...]
    defaults: Attrs
    variadic: bool = False
    operands: Operands = Operands.STRONG
    mixed_devices: bool = False
    prepare: Callable[..., Attrs] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Meaning:
    """What an op computes: on types, on arrays, and in terms of other ops.

    Attributes:
        infer: `infer(op, *types, **attrs)` gives the result type, or a tuple of types.
        eager: `eager(xp, *arrays, **attrs)`, on NumPy or CuPy arrays.
        upcasts: Narrow floats arrive as float32, and the result is rounded once.
        domain: Interval of operand values that generated tests use.
        is_product: True for the product of two tensors, which `Backend.contract` can compute too.
        backend_method: Name of the method of `Backend` that is called in place of the eager body.
        expand: For COMPOSITE, `expand(*tensors, **attrs)`: its definition in other ops. For
            CONTRACT: what a GPU runs for many rows, as its kernels handle only a few.
        assign: `assign(x, *others, **attrs)` overwrites the first operand with the result, for
            graphs that update a buffer in place.
        binds: Name of the static argument that is a data-dependent size: from this op on, the
            symbolic dimension has the value of the operand, an integer scalar.
        fills: Name of the static argument whose number is in the result besides the elements of
            the operands.
        collective: Name of the method of `maxmod.distributed.Group` that makes the result, which
            depends on other processes: all of them run the op, as often and in the same order.
    """

    infer: TypeRule
    eager: Callable[..., Any]
    upcasts: bool = False
    domain: tuple[float, float] = (-3.0, 3.0)
    is_product: bool = False
    backend_method: str | None = None
    expand: Callable[..., Any] | None = None
    assign: Callable[..., None] | None = None
    binds: str | None = None
    fills: str | None = None
    collective: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Lowering:
    """How the compiler makes kernels of an op; with all fields None, it runs eagerly.

    Attributes:
        scalar: C expression of one element; `{0}`, `{1}` are the operands, `{name}` attributes,
            `{index}` (SOURCE only) the row-major position of the element.
        view: For VIEW, `view(indices, x_type, out_type, **attrs)`: the position in the operand
            of the element at `indices` (see `maxmod.op.affine`); None if data must move.
        position: For INDEX, `position(indices, read, *types, **attrs)`: the index in the first
            operand of the element at `indices` of the result; with `assign`, the index that the
            element at `indices` of the second operand is stored to. `read(number, indices, size)`
            reads an element of operand `number` as an index on an axis of that size; negative ones
            count from the end, except for `assign`. None if a kernel cannot compute it.
        combine: For REDUCE, the elementwise op that joins two partial results.
        identity: For REDUCE, the value of an empty reduction, None if there is none.
        kernel: For OPAQUE, the name of the hand-written kernel that computes it row by row:
            `kernels/shared/NAME.h`, followed by `NAME.h` of the dialect.
    """

    scalar: str | None = None
    view: Callable[..., Sequence[Index]] | None = None
    position: Callable[..., Sequence[Index]] | None = None
    combine: str | None = None
    identity: float | None = None
    kernel: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One operation.

    Attributes:
        name: Unique name; also the public name of the function in `maxmod.functional`.
        label: Its name in messages: the public function that users call.
        kind: What it does, for the compiler.
        signature: How it is called.
        meaning: What it computes.
        lowering: How it becomes kernels.
    """

    name: str
    label: str
    kind: Kind
    signature: Signature
    meaning: Meaning
    lowering: Lowering

    def prepared(self, /, *types: TensorType, **attrs: Any) -> Attrs:
        """Returns the static arguments in canonical form; passes on the errors of `prepare`."""
        prepare = self.signature.prepare
        return attrs if prepare is None else prepare(self, *types, **attrs)

    def result_types(self, /, *types: TensorType, **attrs: object) -> tuple[TensorType, ...]:
        """Runs the type rule, for operands of these types and canonical static arguments."""
        found = self.meaning.infer(self, *types, **attrs)
        return found if isinstance(found, tuple) else (found,)

    def run(self, xp: ArrayModule, arrays: Sequence[Array], /, **attrs: object) -> Sequence[Array]:
        """Runs the eager body on arrays of the module `xp`; always returns a sequence."""
        operands = (arrays,) if self.signature.variadic else arrays
        result = self.meaning.eager(xp, *operands, **attrs)
        several = isinstance(result, (list, tuple))
        return cast("Sequence[Array]", result) if several else (result,)

    def __repr__(self) -> str:
        return f"Op({self.name})"
