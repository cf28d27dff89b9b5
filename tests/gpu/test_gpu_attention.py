"""Attention on a real GPU: few queries and many, with and without tensor cores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ops.samples_attention import attention

from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.devices import Accelerator
from maxmod.dtype import storage_dtype
from maxmod.runtime.compiled import compile_function

pytestmark = pytest.mark.gpu

TOLERANCE = {DType.float32: 1e-5, DType.bfloat16: 1.6e-2, DType.float16: 2e-3}
# Heads of queries and of keys, length of a key and of a value.
HEADS = [(4, 2, 64, 64), (2, 2, 96, 96), (8, 2, 128, 128), (2, 1, 256, 256), (2, 1, 20, 7)]
# Batch, queries, keys: rising and falling on one compiled function.
SIZES = [(1, 1, 1), (2, 1, 700), (1, 3, 37), (1, 33, 70), (2, 300, 517), (1, 1025, 1025)]


def _host(tensor: Tensor) -> Any:
    return tensor.to(CPU()).cast(DType.float32).to_numpy().astype(np.float64)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: dtype.name)
@pytest.mark.parametrize("mask", ["", "causal", "seen", "added"])
@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_attention(heads: tuple[int, int, int, int], mask: str, dtype: DType) -> None:
    own, shared, depth, width = heads
    shapes = [["b", own, "s", depth], ["b", shared, "t", depth], ["b", shared, "t", width]]
    types = [TensorType(dtype, shape, Accelerator()) for shape in shapes]
    if mask in ("seen", "added"):
        kind = DType.bool if mask == "seen" else dtype
        types.append(TensorType(kind, ["b", 1, "s", "t"], Accelerator()))

    def attend(*operands: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(*operands, is_causal=mask == "causal")

    compiled = compile_function(attend, types, name="attend", parameters={})
    assert all("attention" in kernel.name for kernel in compiled.kernels)
    rng = np.random.default_rng(8)
    for batch, queries, keys in SIZES:
        dims = {"b": batch, "s": queries, "t": keys}
        arrays = []
        for type in types:
            array = rng.standard_normal([dims.get(str(size), size) for size in type.sizes])
            arrays.append(array > 0 if type.dtype is DType.bool else array)
        if mask == "seen":
            arrays[3][..., 0] = True
        rounded = [a.astype(storage_dtype(t.dtype)) for a, t in zip(arrays, types, strict=True)]
        found = _host(compiled(*[Tensor(a, device=CPU()).to(Accelerator()) for a in rounded]))
        wide = [a if a.dtype == bool else a.astype(np.float64) for a in rounded]
        wanted = attention(*wide, is_causal=mask == "causal")
        np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[dtype])


def test_special_numbers() -> None:
    """A query that sees nothing, infinities and NaN give what softmax gives."""
    kind = TensorType(DType.bfloat16, [1, 2, 40, 64], Accelerator())
    seen = TensorType(DType.bool, [40, 40], Accelerator())
    attend = F.scaled_dot_product_attention
    compiled = compile_function(attend, [kind, kind, kind, seen], name="attend", parameters={})
    rng = np.random.default_rng(9)
    arrays = [rng.standard_normal((1, 2, 40, 64)).astype(np.float32) for _ in range(3)]
    arrays[0][0, 0, 1] = np.nan
    arrays[0][0, 1, 0, 3] = np.inf
    arrays[2][0, 0, 7, 2] = np.inf
    mask = np.tri(40, dtype=bool)
    mask[5] = False
    operands = [Tensor(a, device=CPU()).cast(DType.bfloat16) for a in arrays]
    moved = [tensor.to(Accelerator()) for tensor in (*operands, Tensor(mask, device=CPU()))]
    with np.errstate(all="ignore"):
        wanted = attention(*map(_host, operands), mask)
    np.testing.assert_allclose(_host(compiled(*moved)), wanted, rtol=0, atol=1.6e-2)
