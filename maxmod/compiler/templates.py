"""Groups that a hand-written kernel computes: generated text, then constant text of `kernels/`."""

from __future__ import annotations

from typing import NamedTuple

from maxmod.compiler import choose_kernels
from maxmod.compiler.choose_kernels import FEW_QUERIES, MOST_GEMV_ROWS, ManyQueries
from maxmod.compiler.codegen.attention import emit_attention
from maxmod.compiler.codegen.cuda.attention import emit_few, emit_many, emit_mma, query_rows
from maxmod.compiler.codegen.cuda.contraction import emit_gemv
from maxmod.compiler.codegen.cuda.together import emit_together
from maxmod.compiler.codegen.host.contraction import emit_contraction
from maxmod.compiler.codegen.whole_op import emit_whole_op
from maxmod.compiler.groups.group import Attention, Contraction, FusionGroup, Together, WholeOp
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.values.dim import Size
from maxmod.values.shape import product

_FOR_MANY = {ManyQueries.FLOAT32: emit_many, ManyQueries.TENSOR_CORES: emit_mma}


class Template(NamedTuple):
    """The kernels of a group.

    Attributes:
        few: The kernel, or the one for up to `limit` rows.
        rows: The number of rows, where there is a choice that depends on it.
        limit: The largest number of rows for `few`.
        many: The kernel for more rows; None if the ops of the group are better on their own.
        nonempty: Sizes, known later, that must be above 0.
    """

    few: KernelSource
    rows: Size = 0
    limit: int = 0
    many: KernelSource | None = None
    nonempty: tuple[Size, ...] = ()


def emit_template(
    group: FusionGroup, dialect: Dialect, name: str, architecture: str = ""
) -> Template:
    """Returns the kernels of a group that has a template.

    Their `symbols` are the names of their integer arguments.

    Args:
        group: The group.
        dialect: The kernel language.
        name: Readable name of the kernels.
        architecture: The architecture to build for; an unknown one is treated as new.
    """
    template = group.template
    assert template is not None
    if isinstance(template, WholeOp):
        return Template(emit_whole_op(group, template, name, dialect))
    if isinstance(template, Together):
        source, nonempty = emit_together(group, template, name)
        return Template(source, nonempty=nonempty)
    if isinstance(template, Attention):
        if dialect is Dialect.HOST:
            return Template(emit_attention(group, template, name))
        return _attention(group, template, name, architecture)
    assert isinstance(template, Contraction)
    if dialect is Dialect.HOST:
        return Template(emit_contraction(group, template, name))
    return _contraction(group, template, name)


def _contraction(group: FusionGroup, template: Contraction, name: str) -> Template:
    rows = product(template.product.output.type.sizes[:-1])
    return Template(emit_gemv(group, template, name), rows, MOST_GEMV_ROWS)


def _attention(group: FusionGroup, template: Attention, name: str, architecture: str) -> Template:
    rows = query_rows(group, template)
    if isinstance(rows, int) and rows <= FEW_QUERIES:
        return Template(emit_few(group, template, name))
    kernel = choose_kernels.kernel_for_many(group, template, architecture)
    many = None if kernel is None else _FOR_MANY[kernel](group, template, name)
    if many is not None and isinstance(rows, int):
        return Template(many)
    return Template(emit_few(group, template, name), rows, FEW_QUERIES, many)
