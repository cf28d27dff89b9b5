"""Ops that hand-written code computes row by row, from operands in memory."""

from __future__ import annotations

from dataclasses import replace

from maxmod.compiler.codegen.element import Text, symbol_names, template_source
from maxmod.compiler.groups.group import FusionGroup, WholeOp
from maxmod.kernel.source import Dialect, KernelSource, Launch
from maxmod.values.shape import product

THREADS = 1024  # of a block, which has a row
# Loops are marked where vectors pay; more than that takes GCC 12 0.1 s longer and gains nothing.
HOST_OPTIONS = ("-O2",)


def emit_whole_op(
    group: FusionGroup, template: WholeOp, name: str, dialect: Dialect
) -> KernelSource:
    """Returns the kernel of an op that has one.

    The text gets its operands in order and the result, and `mm_rows` and `mm_size` of the first
    operand. For a float for each of its elements there is one more buffer on a GPU; the host takes
    memory for a row at a time.
    """
    node = template.node
    assert node.op.lowering.kernel is not None
    assert group.inputs == node.inputs, "each operand is another value"
    *outer, size = node.inputs[0].type.sizes
    is_cuda = dialect is Dialect.CUDA
    text = Text(group, [], symbol_names([*outer, size]), dialect, ("float",) if is_cuda else ())
    text.count("mm_rows", outer)
    text.count("mm_size", [size])
    files = (f"shared/{node.op.lowering.kernel}.h", f"{dialect.value}/{node.op.lowering.kernel}.h")
    launch = Launch(product(outer), 1, THREADS, row=size)
    source = template_source(text, group, name, files, launch)
    if is_cuda:
        return replace(source, scratch_floats=product([*outer, size]))
    return replace(source, options=HOST_OPTIONS)
