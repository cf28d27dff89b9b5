"""8-bit floats, which NumPy and CuPy do not compute with: ops on an accelerator, numbers beside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from emulated_cuda import emulated_cuda
from helpers import FLOATS8, assert_close, narrow, tensor, wide
from ops.samples import Sample
from ops.test_registry import SAMPLES

from maxmod import functional as F
from maxmod.backends.devices import CPU, Device
from maxmod.dtype import DType
from maxmod.errors import DTypeError
from maxmod.op import FUNCTIONS, REGISTRY
from maxmod.tensor import Tensor

EVERY = pytest.mark.parametrize("dtype", FLOATS8, ids=lambda dtype: dtype.name)


@pytest.fixture(scope="module")
def gpu() -> Iterator[Device]:
    """An emulated GPU, whose array library knows no 8-bit floats."""
    with emulated_cuda() as (device, _):
        yield device


def _samples(dtype: DType) -> list[tuple[str, Sample]]:
    return [
        (name, sample)
        for name, samples in SAMPLES.items()
        for sample in samples
        if dtype in sample.dtypes and sample.portable and not REGISTRY[name].signature.mixed_devices
    ]


@EVERY
def test_every_op_on_an_accelerator(gpu: Device, dtype: DType) -> None:
    wrong = []
    for name, sample in _samples(dtype):
        arrays = list(sample.make(np.random.default_rng(3), dtype))
        attrs = dict(sample.attrs(dtype) if callable(sample.attrs) else sample.attrs)
        if not arrays:
            attrs["device"] = gpu.ref
        operands = [tensor(array).to(gpu) for array in arrays]
        results = FUNCTIONS[name](
            *([operands] if REGISTRY[name].signature.variadic else operands), **attrs
        )
        with np.errstate(all="ignore"):
            expected = sample.oracle(*[wide(array) for array in arrays], **attrs)
        results = results if isinstance(results, list) else [results]
        expected = expected if isinstance(expected, list) else [expected]
        for result, wanted in zip(results, expected, strict=True):
            try:
                assert_close(result.to(CPU()), wanted, length=sample.length, ulps=sample.ulps)
            except AssertionError as error:
                wrong.append(f"{name} {attrs}: {error}")
    assert not wrong, "\n\n".join(wrong)


def _floats(x: Tensor) -> list[Any]:
    return x.to(CPU()).cast(DType.float32).to_numpy().tolist()


@EVERY
@pytest.mark.parametrize("value", [0, 1, 2, True, -1, 1.5, -0.5, 16])
def test_borders_hold_the_number(gpu: Device, dtype: DType, value: float) -> None:
    for device in (CPU(), gpu):
        x = Tensor([2.0, 4.0]).cast(dtype).to(device)
        assert _floats(F.pad(x, [1, 2], value=value)) == [value, 2, 4, value, value]
        assert _floats(F.where(x > 3, x, value)) == [value, 4]
        assert _floats(F.full_like(x, value)) == [value, value]
        there = Tensor([True, False], dtype=DType.bool, device=device)
        assert _floats(F.masked_scatter(x, there, F.full_like(x[:1], value), "k")) == [value, 4]


@EVERY
def test_order_and_nan_on_an_accelerator(gpu: Device, dtype: DType) -> None:
    numbers = [1.0, 1.5, -2.0, np.nan, 0.0, -1.0, 3.0, -0.5]
    x = tensor(narrow(numbers, dtype)).to(gpu)
    assert _floats(F.argsort(x)) == [2, 5, 7, 4, 0, 1, 6, 3]
    values, positions = F.top_k(x, 3)
    assert _floats(positions) == [3, 6, 1]
    assert np.array_equal(_floats(values), [np.nan, 3, 1.5], equal_nan=True)


@EVERY
def test_intermediate_results_are_not_rounded(gpu: Device, dtype: DType) -> None:
    x = np.array([0.0, -1.0, 3.0, -0.5])
    e = np.exp(x - 3)
    assert_close(F.softmax(tensor(narrow(x, dtype)).to(gpu)).to(CPU()), e / e.sum())


@pytest.mark.parametrize(
    ("dtype", "held", "lost"),
    [
        (DType.float8_e4m3fn, (16, -448, 240, 104), (17, 449, 100, -100, 10**400)),
        (DType.float8_e4m3fnuz, (16, -240, 104), (17, 241, 100)),
        (DType.float8_e5m2, (8, 10, -57344, 96), (9, 100, -100, 60000, 72089)),
        (DType.float8_e5m2fnuz, (8, 10, 57344, 96), (9, 100, 57343)),
        (DType.float8_e8m0fnu, (1, 2, 64, 2**100), (0, -1, 3, 2**100 + 1)),
    ],
    ids=lambda value: value.name if isinstance(value, DType) else "",
)
def test_whole_numbers_are_held_or_refused(
    dtype: DType, held: tuple[int, ...], lost: tuple[int, ...]
) -> None:
    x = Tensor([1.0]).cast(dtype)
    for number in held:
        assert _floats(F.where(x < x, x, number)) == [number]
        assert _floats(F.pad(x, [0, 1], value=number)) == [1, number]
    for number in lost:
        with pytest.raises(DTypeError, match="would lose precision. Hint: write it as a float"):
            F.where(x < x, x, number)
        with pytest.raises(DTypeError, match="would lose precision"):
            F.pad(x, [0, 1], value=number)
    assert _floats(F.where(x < x, x, np.array([held[0]]))) == [held[0]]
    if max(lost) < 2**62:
        with pytest.raises(DTypeError, match="with precision loss"):
            F.where(x < x, x, np.array(lost))
    if dtype is not DType.float8_e8m0fnu:
        assert _floats(F.clamp(x, -100.0, 100.0)) == [1]


def test_numpy_gets_no_8_bit_floats() -> None:
    for dtype in FLOATS8:
        with pytest.raises(ValueError, match=f"NumPy has no dtype for {dtype.name}"):
            Tensor([1.0]).cast(dtype).to_numpy()
