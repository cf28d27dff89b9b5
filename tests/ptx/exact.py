"""What a fusion group computes, in float64: nothing is rounded but where it says so."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from helpers import run_op
from ops.samples_quantized import linear4, linear8, linear_with_minimums

from maxmod.dtype import DType, storage_dtype
from maxmod.op import Op, ir
from maxmod.values.tensor_type import TensorType
from ptx.schedules import Ran


def wanted(ran: Ran, dims: dict[str, int]) -> list[Any]:
    """Returns what a kernel should have written, for what it read."""
    graph = ran.group.as_graph("group")
    given = [_wide(ran.given[value]) for value in graph.inputs]
    return ir.interpret(graph, _run, given, {}, dims)


def _run(op: Op, arrays: Sequence[Any], attrs: dict[str, Any], types: Sequence[TensorType]) -> Any:
    arrays = [_wide(array) for array in arrays]
    if op.name == "cast" and types[0].dtype.is_float():
        rounded = arrays[0].astype(storage_dtype(types[0].dtype))
        return [rounded.astype(np.float64)]
    if op.name in ("sin", "cos"):
        return [getattr(np, op.name)(arrays[0])]
    if op.name == "quantized_linear":
        x, codes, scales = arrays
        of_bytes = linear_with_minimums if scales.dtype == np.uint8 else linear4
        oracle = linear8 if codes.dtype == np.int8 else of_bytes
        return [oracle(x, codes, scales)]
    attrs = {
        name: DType.float64 if isinstance(value, DType) and value.is_float() else value
        for name, value in attrs.items()
    }
    return run_op(op, arrays, attrs, [_wide_type(type) for type in types])


def _wide_type(type: TensorType) -> TensorType:
    if not type.dtype.is_float():
        return type
    return TensorType.of(DType.float64, type.sizes, type.device)


def _wide(array: Any) -> Any:
    """Floats of any kind as float64; codes and positions as they are."""
    is_float = array.dtype.kind == "f" or array.dtype.name == "bfloat16"
    return array.astype(np.float64) if is_float else array
