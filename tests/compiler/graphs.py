"""Helpers of the compiler tests: trace a function of named float32 arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from maxmod import DType, Tensor, TensorType
from maxmod.op import ir
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.runtime.staging import trace_function
from maxmod.values.device import CPU_REF


def f32(*sizes: Any) -> TensorType:
    """A float32 type on the host."""
    return TensorType(DType.float32, sizes, CPU_REF)


def traced(
    fn: Callable[..., Any], *types: TensorType, weights: Mapping[str, Tensor] | None = None
) -> ir.Graph:
    """The graph of a function."""
    return trace_function(fn, types, name="f", parameters=weights or {}).graph


def compiled(
    fn: Callable[..., Any], *types: TensorType, weights: Mapping[str, Tensor] | None = None
) -> CompiledModel:
    """A compiled function."""
    return compile_function(fn, types, name="f", parameters=weights or {})


def op_names(graph: ir.Graph) -> list[str]:
    """The ops of a graph in order."""
    return [node.op.name for node in graph.nodes]
