"""Samples of the ops that run graphs, and of the one that names a size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from helpers import NUMERIC, numbers
from ops.samples import Sample

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.interpreters.trace import trace
from maxmod.op.ir import Graph
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType


def graph_of(fn: Callable[..., Any], dtype: DType, count: int, *sizes: Any) -> Graph:
    """The graph of a function of `count` tensors of one type."""
    type = TensorType(dtype, sizes, CPU_REF)
    return trace(
        fn,
        lambda tracer: [tracer.argument(type) for _ in range(count)],
        name="body",
        parameters={},
        flatten=lambda value: list(value) if isinstance(value, (list, tuple)) else [value],
    ).graph


def _branch(dtype: DType) -> dict[str, Any]:
    return {
        "then": graph_of(F.add, dtype, 2, "n"),
        "otherwise": graph_of(F.sub, dtype, 2, "n"),
        "sizes": (("n", 3),),
        "types": (TensorType(dtype, [3], CPU_REF),),
    }


def _loop(dtype: DType) -> dict[str, Any]:
    return {
        "condition": graph_of(lambda x, y: F.max(x)[0] < F.max(y)[0], dtype, 2, 3),
        "body": graph_of(lambda x, y: x + F.min(y), dtype, 2, 3),
        "sizes": (),
        "types": (TensorType(dtype, [3], CPU_REF),),
    }


def _rounds(x: Any, y: Any, **attrs: Any) -> Any:
    while x.max() < y.max():
        x = x + y.min()
    return x


SAMPLES = {
    "branch": [
        Sample(
            lambda rng, dtype, flag=flag: [
                np.array(flag),
                *(numbers(rng, dtype, (3,)) for _ in range(2)),
            ],
            (lambda flag, x, y, **attrs: x + y) if flag else (lambda flag, x, y, **attrs: x - y),
            _branch,
            NUMERIC,
            special=False,
            refuses=False,
            portable=False,
        )
        for flag in (True, False)
    ],
    "loop": [
        Sample(
            lambda rng, dtype, start=start: [
                np.array([start, 0, 1]).astype(numbers(rng, dtype, (1,)).dtype),
                np.array([7, 2, 3]).astype(numbers(rng, dtype, (1,)).dtype),
            ],
            _rounds,
            _loop,
            NUMERIC,
            special=False,
            refuses=False,
            portable=False,
        )
        for start in (0, 9)
    ],
    "bind_size": [
        Sample(
            lambda rng, dtype: [np.array(3, np.int64)],
            lambda count, size, reason: count,
            {"size": 3, "reason": "test"},
            (DType.int64,),
            refuses=False,
        )
    ],
}
