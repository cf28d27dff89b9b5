"""Staging: a function becomes a graph, with the types of its arguments and results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from maxmod import config
from maxmod.interpreters.trace import trace
from maxmod.op import ir
from maxmod.runtime import tree
from maxmod.runtime.signature import Signature, argument_defaults, argument_names
from maxmod.tensor import Tensor
from maxmod.values.tensor_type import TensorType

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


def trace_function(
    fn: Callable[..., object],
    input_types: Sequence[object],
    *,
    name: str,
    parameters: Mapping[str, Tensor],
    keyword_types: Mapping[str, object] = MappingProxyType({}),
) -> StagedGraph:
    """Traces a function or module for arguments of the given types, without compiling it.

    Args:
        fn: Called once, with symbolic tensors.
        input_types: A `TensorType` (or a nested list, tuple or dict of them) for each argument.
        name: Name of the graph.
        parameters: Tensors that become weights, by qualified name.
        keyword_types: The same for arguments that are passed by name.
    """
    signature = Signature(input_types, argument_names(fn), keyword_types, argument_defaults(fn))
    traced = trace(
        signature.called(fn),
        lambda tracer: signature.arguments(tracer.argument),
        name=name,
        parameters=parameters,
        flatten=lambda value: tree.flatten(value)[0],
        input_names=signature.input_names,
    )
    if config.current().verify:
        ir.verify(traced.graph)
    leaves, out_tree = tree.flatten(traced.results)
    out_leaves = tuple(TENSOR if isinstance(leaf, Tensor) else leaf for leaf in leaves)
    return StagedGraph(traced.graph, signature.tree, out_tree, out_leaves, signature)
