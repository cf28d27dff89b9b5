"""Groups that a hand-written kernel computes: generated text, then constant text of `kernels/`."""

from __future__ import annotations

from maxmod.compiler.codegen.attention import emit_attention
from maxmod.compiler.fusion.group import Attention, FusionGroup
from maxmod.kernel import KernelSource


def emit_template(group: FusionGroup) -> KernelSource:
    """Returns the host kernel of a group that has a template.

    Its `symbols` are the names of its integer arguments.
    """
    template = group.template
    assert isinstance(template, Attention)
    return emit_attention(group, template, "attention")
