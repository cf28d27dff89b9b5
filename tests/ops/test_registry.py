"""Every op of the registry that is not elementwise against its samples."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import ALL, HALVES, WIDE_FLOATS, assert_close, strided, tensor, wide
from ops.samples import SAMPLES as CORE
from ops.samples import Sample
from together import by_first

import maxmod.ops  # noqa: F401  (fills the registry)
from maxmod.backends.devices import CPU, Device
from maxmod.dtype import DType
from maxmod.errors import DTypeError
from maxmod.op import FUNCTIONS, REGISTRY, Kind, Operands
from maxmod.tensor import Tensor

_OTHER_FILES = sorted(Path(__file__).parent.glob("samples_*.py"))
SAMPLES: dict[str, list[Sample]] = dict(CORE)
for _file in _OTHER_FILES:
    SAMPLES.update(importlib.import_module(f"ops.{_file.stem}").SAMPLES)


def test_every_op_has_samples() -> None:
    expected = {name for name, op in REGISTRY.items() if op.kind is not Kind.ELEMENTWISE}
    assert expected == SAMPLES.keys()


def _cases(accepted: bool) -> list[tuple[str, int, DType]]:
    return [
        (name, index, dtype)
        for name, samples in SAMPLES.items()
        for index, sample in enumerate(samples)
        for dtype in ALL
        if (dtype in sample.dtypes) is accepted and (accepted or sample.refuses)
    ]


def _attrs(sample: Sample, dtype: DType) -> dict[str, Any]:
    return sample.attrs(dtype) if callable(sample.attrs) else sample.attrs


def _listed(result: Any) -> list[Tensor]:
    return result if isinstance(result, list) else [result]


def _check(name: str, sample: Sample, arrays: list[Any], attrs: dict[str, Any], fn: Any) -> None:
    op = REGISTRY[name]
    tensors = [tensor(array) for array in arrays]
    results = _listed(fn(*([tensors] if op.signature.variadic else tensors), **attrs))
    types = [t.type for t in tensors]
    canonical = op.prepared(*types, **attrs)
    assert [r.type for r in results] == list(op.result_types(*types, **canonical))
    with np.errstate(all="ignore"):
        expected = sample.oracle(*[wide(array) for array in arrays], **attrs)
    listed = expected if isinstance(expected, list) else [expected]
    for result, wanted in zip(results, listed, strict=True):
        assert_close(result, wanted, length=sample.length, ulps=sample.ulps)


def _accepts_special(name: str, index: int, dtype: DType) -> bool:
    return SAMPLES[name][index].special and dtype in (*WIDE_FLOATS, *HALVES)


@by_first("name", "index", "dtype", cases=_cases(accepted=True))
def test_values(name: str, index: int, dtype: DType) -> None:
    sample = SAMPLES[name][index]
    arrays = list(sample.make(np.random.default_rng(3), dtype))
    _check(name, sample, arrays, _attrs(sample, dtype), FUNCTIONS[name])
    if arrays:
        arrays = [strided(array) for array in arrays]
        _check(name, sample, arrays, _attrs(sample, dtype), FUNCTIONS[name])


@by_first(
    *("name", "index", "dtype"),
    cases=[case for case in _cases(accepted=True) if _accepts_special(*case)],
)
def test_special_values(name: str, index: int, dtype: DType) -> None:
    """NaN and infinities in the first operand."""
    sample = SAMPLES[name][index]
    arrays = list(sample.make(np.random.default_rng(5), dtype))
    for specials in ([np.nan], [np.inf], [-np.inf], [np.inf, -np.inf], [-np.inf] * 1000):
        if arrays and arrays[0].size:
            first = arrays[0].copy()
            count = min(len(specials), first.size)
            first.reshape(-1)[-count:] = specials[:count]
            _check(name, sample, [first, *arrays[1:]], _attrs(sample, dtype), FUNCTIONS[name])


@by_first("name", "index", "dtype", cases=_cases(accepted=False))
def test_refused_dtypes(name: str, index: int, dtype: DType) -> None:
    sample = SAMPLES[name][index]
    arrays = sample.make(np.random.default_rng(3), dtype)
    tensors = [tensor(array) for array in arrays]
    operands = [tensors] if REGISTRY[name].signature.variadic else tensors
    with pytest.raises(DTypeError):
        FUNCTIONS[name](*operands, **_attrs(sample, dtype))


@by_first(
    *("name", "index", "dtype"),
    cases=[case for case in _cases(accepted=True) if REGISTRY[case[0]].kind is Kind.COMPOSITE],
)
def test_definitions_in_other_ops(name: str, index: int, dtype: DType) -> None:
    """What the compiler puts in the place of a composite op gives the same result."""
    op, sample = REGISTRY[name], SAMPLES[name][index]
    arrays = list(sample.make(np.random.default_rng(3), dtype))
    attrs = _attrs(sample, dtype)

    def expanded(*tensors: Tensor, **attrs: Any) -> Any:
        assert op.meaning.expand is not None
        canonical = op.prepared(*[t.type for t in tensors], **attrs)
        return op.meaning.expand(*tensors, **canonical)

    _check(name, sample, arrays, attrs, expanded)


@pytest.mark.parametrize("name", SAMPLES)
def test_other_devices(name: str, device: Device) -> None:
    """The eager bodies use the array module of the device only."""
    for sample in SAMPLES[name]:
        if not sample.portable and device != CPU():
            continue
        dtype = DType.float32 if DType.float32 in sample.dtypes else sample.dtypes[0]
        arrays = sample.make(np.random.default_rng(3), dtype)
        attrs = dict(_attrs(sample, dtype))
        if not arrays:
            attrs["device"] = device.ref
        tensors = [tensor(array).to(device) for array in arrays]
        operands = [tensors] if REGISTRY[name].signature.variadic else tensors
        results = _listed(FUNCTIONS[name](*operands, **attrs))
        with np.errstate(all="ignore"):
            expected = sample.oracle(*[wide(array) for array in arrays], **attrs)
        listed = expected if isinstance(expected, list) else [expected]
        for result, wanted in zip(results, listed, strict=True):
            assert name == "transfer_to" or result.device == device
            assert_close(result.to(CPU()), wanted, length=sample.length, ulps=sample.ulps)


@pytest.mark.parametrize("name", SAMPLES)
def test_operands_are_tensors(name: str) -> None:
    sample = SAMPLES[name][0]
    arrays = sample.make(np.random.default_rng(3), sample.dtypes[0])
    if not arrays or REGISTRY[name].signature.operands is Operands.PROMOTED:
        return
    operands = [arrays] if REGISTRY[name].signature.variadic else arrays
    with pytest.raises(TypeError, match=": expected a Tensor, got"):
        FUNCTIONS[name](*operands, **_attrs(sample, sample.dtypes[0]))
