"""Which attention becomes one kernel, and which is left to the matrix library."""

from __future__ import annotations

from typing import Any

import pytest
from compiler.graphs import traced
from helpers import run_op

from maxmod import DType, TensorType
from maxmod import functional as F
from maxmod.compiler.fusion.plan import plan_groups
from maxmod.compiler.groups.group import Attention
from maxmod.compiler.pipeline import optimize
from maxmod.kernel.source import Dialect
from maxmod.values.device import CPU_REF

F32, BF16 = DType.float32, DType.bfloat16
OLD, NEW = "sm_70", "sm_80"  # before and with tensor cores for bfloat16

# The dtype, query heads that share a key head, queries, head size, GPU, and if it is a kernel.
CASES: dict[str, tuple[DType, int, Any, int, str, bool]] = {
    "few queries": (BF16, 1, 16, 64, OLD, True),
    "many queries without tensor cores": (BF16, 1, 17, 64, OLD, False),
    "few queries of shared keys": (BF16, 4, 4, 64, OLD, True),
    "many queries of shared keys": (BF16, 4, 5, 64, OLD, False),
    "many queries on tensor cores": (BF16, 1, 17, 64, NEW, True),
    "the longest heads of tensor cores": (BF16, 1, 17, 256, NEW, True),
    "heads too long for tensor cores": (BF16, 1, 17, 264, NEW, False),
    "an unknown GPU": (BF16, 1, 17, 64, "", True),
    "many queries of float32": (F32, 1, 17, 64, OLD, True),
    "a symbolic number of queries": (BF16, 1, "s", 64, OLD, True),
}


def attention(q: Any, k: Any, v: Any) -> Any:
    """Multiplies in the dtype of the operands, as `F.scaled_dot_product_attention` does not."""
    return F.softmax(q @ k.permute([0, 1, 3, 2]) * 0.125) @ v


@pytest.mark.parametrize("name", CASES)
def test_kernels_of_a_gpu(name: str) -> None:
    dtype, sharing, queries, depth, architecture, is_kernel = CASES[name]
    shapes = [["b", sharing, queries, depth], *[["b", 1, "t", depth]] * 2]
    types = [TensorType(dtype, shape, CPU_REF) for shape in shapes]
    graph = optimize(traced(attention, *types), run_op, Dialect.CUDA)
    groups = plan_groups(graph, template_dialect=Dialect.CUDA, architecture=architecture)
    assert any(isinstance(group.template, Attention) for group in groups) is is_kernel
