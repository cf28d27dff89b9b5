"""Compiles a function with symbolic sizes and compares it with the eager one, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from helpers import tensor, values, wide

from maxmod.dtype import DType
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType


def type_of(*sizes: Any, dtype: DType = DType.float32) -> TensorType:
    """A type on the host."""
    return TensorType(dtype, sizes, CPU_REF)


def sizes_of(fn: Callable[..., Any], *types: TensorType) -> list[Any]:
    """The shapes of the results of a traced function, as text."""
    model = compile_function(fn, types, name="f", parameters={})
    return [t.short().partition("[")[2][:-1] for t in model.out_layouts]


def assert_compiles(
    fn: Callable[..., Any], types: Sequence[TensorType], *calls: Sequence[Any]
) -> CompiledModel:
    """Compiles once and compares each call with the eager function."""
    model = compile_function(fn, types, name="f", parameters={})
    for arrays in calls:
        arguments = [tensor(np.asarray(array)) for array in arrays]
        found, wanted = model(*arguments), fn(*arguments)
        pairs = zip(found, wanted, strict=True) if isinstance(wanted, list) else [(found, wanted)]
        for one, other in pairs:
            assert isinstance(one, Tensor)
            assert one.type == other.type
            np.testing.assert_array_equal(wide(values(one)), wide(values(other)))
    return model
