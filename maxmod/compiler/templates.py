"""Groups that a hand-written kernel computes: generated text, then constant text of `kernels/`."""

from __future__ import annotations

from maxmod.compiler.codegen.attention import emit_attention
from maxmod.compiler.codegen.contraction import emit_contraction
from maxmod.compiler.fusion.group import Attention, FusionGroup
from maxmod.kernel import KernelSource
from maxmod.op import Kind


def emit_template(group: FusionGroup) -> KernelSource:
    """Returns the host kernel of a group that has a template.

    Its `symbols` are the names of its integer arguments.
    """
    template = group.template
    assert template is not None
    if isinstance(template, Attention):
        return emit_attention(group, template, "attention")
    names = [n.op.name for n in group.ordered if n.op.kind is Kind.ELEMENTWISE]
    return emit_contraction(group, template, "_".join([template.product.op.name, *names]))
