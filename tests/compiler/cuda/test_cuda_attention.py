"""Attention kernels: the CUDA text on the host, and compiled by NVRTC."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from cuda_registers import assert_no_spills
from cuda_template import CudaTemplate, build
from emulated_cuda import emulated_cuda
from helpers import tensor, values, wide
from ops.samples_attention import attention

from maxmod import CPU, DType, TensorType
from maxmod import functional as F
from maxmod.backends.cuda import nvrtc
from maxmod.compiler.codegen.cuda.attention import emit_few, emit_many, emit_mma
from maxmod.dtype import storage_dtype
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF

TOLERANCE = {DType.float32: 3e-6, DType.bfloat16: 1.6e-2, DType.float16: 2e-3}
MISSING = not nvrtc.is_available()


@dataclass(frozen=True)
class Case:
    """Heads of queries and of keys, their size and that of values, and the mask."""

    dtype: DType
    heads: int
    shared: int
    depth: int
    width: int
    mask: str = ""

    @property
    def types(self) -> list[TensorType]:
        """Of queries, keys, values, and of the mask or position that is an argument."""
        shapes = [
            ["b", self.heads, "s", self.depth],
            ["b", self.shared, "t", self.depth],
            ["b", self.shared, "t", self.width],
        ]
        types = [TensorType(self.dtype, shape, CPU_REF) for shape in shapes]
        if self.mask == "padding":
            types.append(TensorType(DType.bool, ["b", 1, 1, "t"], CPU_REF))
        if self.mask == "position":
            types.append(TensorType(DType.int64, [1], CPU_REF))
        return types


def _function(case: Case) -> Callable[..., Any]:
    def plain(q: Any, k: Any, v: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, is_causal=case.mask == "causal")

    def masked(q: Any, k: Any, v: Any, mask: Any) -> Any:
        return F.scaled_dot_product_attention(q, k, v, mask)

    def positioned(q: Any, k: Any, v: Any, start: Any) -> Any:
        steps = F.arange(0, q.shape[-2], dtype=DType.int64, device=q.device)
        row = F.unsqueeze(steps, 1) + start
        column = F.arange(0, k.shape[-2], dtype=DType.int64, device=q.device)
        seen = F.logical_and(row >= column, column > row - 200)
        return F.scaled_dot_product_attention(q, k, v, seen)

    return {"padding": masked, "position": positioned}.get(case.mask, plain)


def _arrays(case: Case, batch: int, queries: int, keys: int) -> list[Any]:
    dims: dict[Any, int] = {"b": batch, "s": queries, "t": keys}
    rng = np.random.default_rng((batch, queries, keys))
    arrays: list[Any] = []
    for type in case.types:
        shape = [size if isinstance(size, int) else dims[str(size)] for size in type.sizes]
        arrays.append(rng.standard_normal(shape).astype(storage_dtype(case.dtype)))
    if case.mask == "padding":
        arrays[3] = rng.integers(0, 2, arrays[3].shape).astype(bool)
        arrays[3][..., -1] = True
    if case.mask == "position":
        arrays[3] = np.array([keys // 2], np.int64)
    return arrays


def _wanted(case: Case, arrays: list[Any]) -> Any:
    q, k, v = (array.astype(np.float64) for array in arrays[:3])
    k, v = (np.repeat(x, case.heads // case.shared, 1) for x in (k, v))
    mask = arrays[3] if case.mask == "padding" else None
    if case.mask == "position":
        i, j = np.ogrid[: q.shape[2], : k.shape[2]]
        i = i + arrays[3][0]
        mask = (i >= j) & (j > i - 200)
    return attention(q, k, v, mask, is_causal=case.mask == "causal")


def _check(kernel: CudaTemplate, case: Case, sizes: tuple[int, int, int], order: int) -> None:
    arrays = _arrays(case, *sizes)
    found = kernel(*arrays, order=order).astype(np.float64)
    np.testing.assert_allclose(found, _wanted(case, arrays), rtol=0, atol=TOLERANCE[case.dtype])


# ---- few queries -------------------------------------------------------------------------------

# Grouped queries, heads that fill no power of two of lanes, several pieces for a lane, one element.
FEW = [
    Case(DType.bfloat16, 8, 2, 128, 128, "position"),
    Case(DType.bfloat16, 8, 1, 80, 80),
    Case(DType.bfloat16, 16, 2, 256, 256),
    Case(DType.bfloat16, 3, 3, 64, 64, "padding"),
    Case(DType.float32, 4, 1, 128, 128, "causal"),
    Case(DType.float32, 3, 3, 16, 32, "causal"),
    Case(DType.float32, 2, 1, 7, 5),
    Case(DType.float16, 12, 12, 64, 64, "position"),
    Case(DType.float32, 2, 2, 300, 300),
]


@functools.cache
def _few() -> dict[Case, CudaTemplate]:
    made = {case: CudaTemplate(_function(case), case.types, emit_few) for case in FEW}
    build(list(made.values()))
    return made


@pytest.mark.parametrize("order", [0, 2, 3, 23])
@pytest.mark.parametrize("case", FEW, ids=str)
def test_few_queries(case: Case, order: int) -> None:
    """One part and several, the last of which is not full."""
    for sizes in ((2, 1, 1), (1, 1, 700), (1, 3, 37), (2, 2, 300)):
        _check(_few()[case], case, sizes, order)


def test_masked_and_special_scores() -> None:
    """A query that sees nothing, infinities and NaN give what softmax gives."""
    case = FEW[3]
    arrays = _arrays(case, 2, 2, 300)
    arrays[3][1] = False
    arrays[0][0, 0, 1] = np.nan
    arrays[0][0, 1, 0, 3] = np.inf
    with np.errstate(all="ignore"):
        wanted = _wanted(case, arrays)
    assert np.isnan(wanted[1]).all()
    found = _few()[case](*arrays).astype(np.float64)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[case.dtype])


def test_the_order_of_blocks_changes_nothing() -> None:
    """The last block to finish adds the parts up in their order."""
    case = FEW[4]
    arrays = _arrays(case, 1, 1, 900)
    first, last = (_few()[case](*arrays, order=order) for order in (0, 3))
    np.testing.assert_array_equal(first, last)


@pytest.mark.skipif(MISSING, reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'")
def test_few_without_spills() -> None:
    # Three blocks of 128 threads on a multiprocessor.
    assert_no_spills([_few()[case].source for case in FEW], registers=168)


# ---- many queries ------------------------------------------------------------------------------

MANY = [
    Case(DType.bfloat16, 4, 2, 128, 128, "position"),
    Case(DType.float32, 2, 2, 64, 64, "causal"),
    Case(DType.float32, 2, 1, 16, 32, "padding"),
    Case(DType.float32, 2, 1, 7, 5),
    Case(DType.float32, 1, 1, 300, 200),
]


# On tensor cores: every number of tiles and of staged keys; heads that are padded, and that no copy
# of eight elements fits; values longer and shorter than keys.
MMA = [
    Case(DType.bfloat16, 4, 2, 128, 128, "causal"),
    Case(DType.float16, 2, 2, 64, 64),
    Case(DType.bfloat16, 2, 1, 64, 64, "position"),
    Case(DType.float16, 1, 1, 96, 96, "position"),
    Case(DType.bfloat16, 2, 1, 16, 40, "padding"),
    Case(DType.float16, 2, 1, 20, 7, "causal"),
    Case(DType.bfloat16, 1, 1, 192, 128, "causal"),
    Case(DType.float16, 1, 1, 256, 256),
]


@functools.cache
def _many() -> dict[Case, CudaTemplate]:
    made = {case: CudaTemplate(_function(case), case.types, emit_many) for case in MANY}
    made |= {case: CudaTemplate(_function(case), case.types, emit_mma) for case in MMA}
    build(list(made.values()))
    return made


@pytest.mark.parametrize("order", [0, 3])
@pytest.mark.parametrize("case", [*MANY, *MMA], ids=str)
def test_many_queries(case: Case, order: int) -> None:
    """Blocks that are not full, of queries, keys and elements."""
    for sizes in ((1, 1, 1), (1, 33, 70), (2, 65, 65)):
        _check(_many()[case], case, sizes, order)


def test_several_blocks_on_tensor_cores() -> None:
    """Some of their keys are masked, some are open, and only the rest is asked key by key."""
    for case in (MMA[0], MMA[2]):
        _check(_many()[case], case, (1, 150, 270), 2)


@pytest.mark.parametrize("order", [2, 3, 23])
def test_a_block_does_several_tasks_on_tensor_cores(order: int) -> None:
    _check(_many()[MMA[4]], MMA[4], (40, 20, 33), order)


def test_special_numbers_on_tensor_cores() -> None:
    """A query that sees nothing, infinities and NaN give what softmax gives."""
    case = MMA[4]
    arrays = _arrays(case, 2, 40, 70)
    arrays[3][1] = False
    arrays[0][0, 0, 1] = np.nan
    arrays[0][0, 1, 0, 3] = np.inf
    arrays[0][0, 0, 5, 3] = -np.inf
    arrays[2][0, 0, 7, 2] = np.inf
    with np.errstate(all="ignore"):
        wanted = _wanted(case, arrays)
    assert np.isnan(wanted[1]).all()
    found = _many()[case](*arrays).astype(np.float64)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE[case.dtype])


def test_large_scores_on_tensor_cores() -> None:
    """Weights that are 0 or 1, and sums that are scaled down again and again."""
    case = MMA[1]
    arrays = _arrays(case, 1, 20, 200)
    arrays[0] *= 30
    arrays[1] *= np.linspace(1, 20, 200, dtype=np.float16)[:, None]
    found = _many()[case](*arrays).astype(np.float64)
    np.testing.assert_allclose(found, _wanted(case, arrays), rtol=0, atol=2e-3)


def _interleaved(q: Any, k: Any, v: Any) -> Any:
    heads = (x.permute([0, 2, 1, 3]) for x in (q, k, v))
    return F.scaled_dot_product_attention(*heads).permute([0, 2, 1, 3])


# Interleaved heads, as projections leave them; transposed keys, so that no copy fits; queries
# that are scaled before, in a kernel that rounds them as it reads them; a mask that is added.
OPERANDS: dict[str, tuple[Callable[..., Any], list[list[Any]]]] = {
    "interleaved heads": (_interleaved, [["b", "s", 2, 64], ["b", "t", 2, 64], ["b", "t", 2, 64]]),
    "transposed": (
        lambda q, k, v: F.softmax(q @ k * 0.125) @ v,
        [["b", 2, "s", 64], ["b", 2, 64, "t"], ["b", 2, "t", 64]],
    ),
    "scaled": (
        lambda q, k, v: F.scaled_dot_product_attention(q * 0.125, k, v, scale=1.0),
        [["b", 2, "s", 64], ["b", 2, "t", 64], ["b", 2, "t", 64]],
    ),
    "added": (
        F.scaled_dot_product_attention,
        [["b", 2, "s", 64], ["b", 2, "t", 64], ["b", 2, "t", 64], ["s", "t"]],
    ),
}


@functools.cache
def _operands() -> dict[str, CudaTemplate]:
    made = {}
    for name, (fn, shapes) in OPERANDS.items():
        types = [TensorType(DType.bfloat16, shape, CPU_REF) for shape in shapes]
        made[name] = CudaTemplate(fn, types, emit_mma)
    build(list(made.values()))
    return made


@pytest.mark.parametrize("name", OPERANDS)
def test_operands_of_tensor_cores(name: str) -> None:
    dims = {"b": 2, "s": 35, "t": 67}
    rng = np.random.default_rng(6)
    shapes = [[dims.get(size, size) for size in shape] for shape in OPERANDS[name][1]]
    arrays = [rng.standard_normal(s).astype(storage_dtype(DType.bfloat16)) for s in shapes]
    kernel = _operands()[name]
    found = kernel(*arrays).astype(np.float64)
    wide = [array.astype(np.float64) for array in arrays]
    if name == "interleaved heads":
        wide, found = [x.swapaxes(1, 2) for x in wide], found.swapaxes(1, 2)
    if name == "transposed":
        wide[1] = wide[1].swapaxes(2, 3)
        assert "MM_KEY_IS_STORED = 0" in kernel.source.code
    else:
        assert "MM_KEY_IS_STORED = 1" in kernel.source.code
    tolerance = TOLERANCE[DType.bfloat16]
    np.testing.assert_allclose(found, attention(*wide), rtol=0, atol=tolerance)


@pytest.mark.skipif(MISSING, reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'")
def test_many_without_spills() -> None:
    assert_no_spills([_many()[case].source for case in MANY], registers=168)
    large = [case for case in MMA if case.depth in (64, 96, 128, 256)]
    assert_no_spills([_many()[case].source for case in large], registers=255)


def test_halves_that_are_widened_are_computed_in_float32() -> None:
    """Tensor cores would round the weights, which neither operands nor results ask for."""
    with emulated_cuda() as (device, _):

        def fn(q: Any, k: Any, v: Any) -> Any:
            q, k, v = (x.cast(DType.float32) for x in (q, k, v))
            return F.softmax(q @ F.transpose(k, 1, 2)) @ v

        types = [TensorType(DType.bfloat16, [2, 40, 32], device)] * 3
        model = compile_function(fn, types, name="f", parameters={})
        rng = np.random.default_rng(0)
        given = [tensor(rng.normal(size=(2, 40, 32)).astype(np.float32) / 2) for _ in range(3)]
        given = [x.cast(DType.bfloat16) for x in given]
        found = model(*[x.to(device) for x in given]).to(CPU()).to_numpy()
        q, k, v = (wide(values(x)) for x in given)
        weights = np.exp(q @ k.transpose(0, 2, 1))
        wanted = weights / weights.sum(-1, keepdims=True) @ v
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
