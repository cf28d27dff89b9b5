"""`max.experimental.compilation`: functions and modules traced or compiled without a method."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maxmod.nn.module import Module
from maxmod.nn.subgraph import as_subgraph
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.runtime.staging import StagedGraph, trace_function

CompiledCallable = CompiledModel


def compile(
    fn: Callable[..., object], *input_types: object, name: str | None = None, **options: Any
) -> CompiledModel:
    """Compiles a function or module for arguments of the given types.

    Args:
        fn: A `Module`, or a function of tensors.
        *input_types: As for `Module.compile`.
        name: Name of the graph; that of the function by default.
        **options: Types of arguments that are passed by name; for a module, also the further
            arguments of `Module.compile`.

    Returns:
        A function of the same positional arguments and with the same structure of results.

    Raises:
        TypeError: If the types do not fit the call.

    Example:
        >>> from maxmod import CPU, DType, Tensor, TensorType
        >>> from maxmod.compat.compilation import compile
        >>> row = TensorType(DType.float32, ["n"], CPU())
        >>> compile(lambda x: x + x, row)(Tensor([1.0, 2.0])).to_numpy().tolist()
        [2.0, 4.0]
    """
    if isinstance(fn, Module):
        return fn.compile(*input_types, name=name, **options)
    return compile_function(
        fn, input_types, name=name or _name(fn), parameters={}, keyword_types=options
    )


def stage(
    fn: Callable[..., object], *input_types: object, name: str | None = None, **options: Any
) -> StagedGraph:
    """Traces a function or module as `compile` does, without compiling it.

    Args:
        fn: A `Module`, or a function of tensors.
        *input_types: As for `Module.compile`.
        name: Name of the graph; that of the function by default.
        **options: As for `compile`.

    Returns:
        The graph, with the types of its inputs, outputs and weights.

    Raises:
        TypeError: As for `compile`.
    """
    if isinstance(fn, Module):
        return fn.trace(*input_types, name=name, **options)
    return trace_function(
        fn, input_types, name=name or _name(fn), parameters={}, keyword_types=options
    )


def _name(fn: Callable[..., object]) -> str:
    return getattr(fn, "__name__", type(fn).__name__)


__all__ = ["CompiledCallable", "StagedGraph", "as_subgraph", "compile", "stage"]
