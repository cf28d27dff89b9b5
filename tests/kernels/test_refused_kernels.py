"""A kernel that cannot be built or loaded: its ops run in its place, everything else as ever."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32

from maxmod import CPU, BufferType, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.host import build as host_build
from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel import cache as kernel_cache
from maxmod.models import adder_folder, load_model
from maxmod.runtime.compiled import CompiledModel

NO_COMPILER = host_compiler.unavailable_reason()
pytestmark = [
    pytest.mark.skipif(bool(NO_COMPILER), reason=NO_COMPILER or "-"),
    pytest.mark.usefixtures("cache_folder"),
]
LOG = "kernel.c: In function 'mm_kernel':\nkernel.c:7:3: error: no such builtin\n  7 |  oh"


def _refuse(monkeypatch: pytest.MonkeyPatch, *texts: str) -> None:
    """From now on, the compiler refuses what has a kernel with one of these texts in it."""
    build = host_build._build_unit

    def building(compiler: Any, unit: Any, *more: Any) -> Any:
        plain = [source.plain for source in unit.sources.values()]
        if any(part in text for text in plain for part in texts):
            raise host_build.Refused(LOG)
        return build(compiler, unit, *more)

    monkeypatch.setattr(host_build, "_build_unit", building)


def _cannot_load(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """From now on, libraries with this text are built and cannot be loaded."""
    build, load, bad = host_build._build_unit, host_build._load_saved, set[str]()

    def building(compiler: Any, unit: Any, *more: Any) -> Any:
        key, data = build(compiler, unit, *more)
        if any(text in source.plain for source in unit.sources.values()):
            bad.add(key)
        return key, data

    def loading(key: str, data: bytes, folder: str) -> Any:
        if key in bad:
            raise OSError("undefined symbol: error_of_the_loader")
        return load(key, data, folder)

    monkeypatch.setattr(host_build, "_build_unit", building)
    monkeypatch.setattr(host_build, "_load_saved", loading)


def _forget() -> None:
    """What was built before is not in the cache any more."""
    kernel_cache.clear()


def _all_kinds(
    store: Tensor, x: Tensor, w: Tensor, n: Tensor, codes: Tensor, scales: Tensor
) -> list[Tensor]:
    """A product, attention, a row kernel, a map, look-ups, a store, and those of a loop."""
    q = F.unsqueeze(x, 0)

    def body(y: Tensor, i: Tensor) -> Any:
        return F.softmax(y) * 3.0, i + 1

    zero = n[0] * 0
    F.buffer_store_slice(store, F.exp(-x), [slice(None), slice(None)])
    return [
        F.relu(x @ w.T),
        F.quantized_linear(x, codes, scales),
        F.scaled_dot_product_attention(q, q, q),
        F.layer_norm(x, w[0], w[1], 1e-5),
        F.gelu(x) * 2.0,
        F.gather(x, n, axis=0),
        F.while_loop((x, zero), lambda y, i: i < 2, body)[0],
    ]


@functools.cache
def _weights() -> tuple[Tensor, list[Tensor]]:
    weight = Tensor(np.random.default_rng(1).normal(size=(8, 32)).astype(np.float32), device=CPU())
    return weight, F.quantize_weight(weight, "int8")


def _compiled() -> CompiledModel:
    weight, codes = _weights()
    rows = f32("rows", 32)
    store = BufferType(DType.float32, ["rows", 32], CPU())
    index = TensorType(DType.int64, ["count"], CPU())
    types = [store, rows, weight.type, index, *(code.type for code in codes)]
    return compiled(_all_kinds, *types)


def _results(model: Callable[..., Any]) -> list[np.ndarray]:
    weight, codes = _weights()
    x = Tensor(np.random.default_rng(2).normal(size=(5, 32)).astype(np.float32), device=CPU())
    store = Tensor.zeros([5, 32], device=CPU())
    index = Tensor(np.array([4, 0, -1]), device=CPU())
    found = model(store, x, weight, index, *codes)
    return [tensor.to_numpy() for tensor in (*found, store)]


def test_each_kernel_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whichever it is, results are equal, and only its ops are run one by one."""
    whole = _compiled()
    assert whole.stats.kernels_refused == 0
    wanted = _results(whole)
    caplog.set_level(logging.WARNING)
    for number, source in enumerate(whole.kernels):
        _forget()
        caplog.clear()
        with monkeypatch.context() as patch:
            _refuse(patch, source.plain)
            model = _compiled()
        assert list(model._schedule.refused) == [number], source.name
        assert model.stats.kernels_refused == 1
        assert model.stats.kernels_built == len(model.kernels) - 1
        (record,) = caplog.records
        assert source.name in record.message
        for one, other in zip(_results(model), wanted, strict=True):
            atol = 1e-4 * np.abs(other).max()  # kernels of codes round the rows that they multiply
            np.testing.assert_allclose(one, other, rtol=0, atol=atol, err_msg=source.name)


def test_warning_and_explanation(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fn = lambda x: (F.softmax(x), F.gelu(x @ x.T))  # noqa: E731
    _refuse(monkeypatch, "MM_DEPTH", "mm_sums")
    caplog.set_level(logging.WARNING)
    model = compiled(fn, f32(8, 8))
    compiler = host_compiler.find()
    assert compiler is not None
    (record,) = caplog.records
    assert compiler.path in record.message
    assert compiler.version in record.message
    assert "kernel.c:7:3: error: no such builtin" in record.message
    assert "In function" not in record.message
    text = model.explain(width=200)
    assert "op by op for want of 1 kernel" in text
    assert "its ops run one by one: host_compiler: " in text
    assert "kernel.c:7:3: error: no such builtin" in text
    page = model.explain_html()
    assert "no such builtin" in page


def test_a_library_that_does_not_load(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fn = lambda x, y: (F.softmax(x), F.gelu(y) * y)  # noqa: E731
    types = f32("n", 7), f32("m", 9)
    x, y = (np.linspace(-2, 2, 3 * n, dtype=np.float32).reshape(3, n) for n in (7, 9))
    wanted = [tensor.to_numpy() for tensor in compiled(fn, *types)(Tensor(x), Tensor(y))]
    _forget()
    caplog.set_level(logging.WARNING)
    _cannot_load(monkeypatch, "mm_gelu_none(")
    model = compiled(fn, *types)
    assert model.stats.kernels_refused == 1
    assert model.stats.kernels_built == 1
    (record,) = caplog.records
    assert "cannot load" in record.message
    assert "error_of_the_loader" in record.message
    for one, other in zip(model(Tensor(x), Tensor(y)), wanted, strict=True):
        np.testing.assert_allclose(one.to_numpy(), other, rtol=1e-6, atol=1e-6)


def test_the_next_process_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler may be replaced: nothing of a refusal is kept."""
    fn = lambda x: F.softmax(x * 3.0)  # noqa: E731
    with monkeypatch.context() as patch:
        _refuse(patch, "mm_kernel")
        assert compiled(fn, f32("n", 6)).stats.kernels_refused == 1
    assert compiled(fn, f32("n", 6)).stats.kernels_refused == 0


def test_empty_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of 0, and indices out of range, are handled by the ops."""
    _refuse(monkeypatch, "mm_kernel")
    index = TensorType(DType.int64, ["n"], CPU())
    model = compiled(lambda x, n: F.gather(F.exp(x), n, axis=0), f32("rows", 3), index)
    assert model.stats.kernels_refused == len(model.kernels)
    x = Tensor.zeros([2, 3])
    assert model(x, Tensor(np.zeros(0, np.int64))).shape == [0, 3]
    with pytest.raises(IndexError):
        model(x, Tensor(np.array([2])))


def test_a_whole_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the kernels of rows, a model gives the same logits."""
    model = load_model(adder_folder(), device=CPU())
    tokens = Tensor(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), device=CPU())
    wanted = np.asarray(model.module(tokens).cast(DType.float32).to_numpy())
    _refuse(monkeypatch, "mm_rsqrt(")
    compiled_model = model.module.compile(model.tokens_type)
    stats = compiled_model.stats
    assert stats.kernels_refused > 0
    assert stats.kernels_built > 0
    found = compiled_model(tokens).cast(DType.float32).to_numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-2 * np.abs(wanted).max())


def test_products_of_one_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products with the same left operand are one kernel: all of its results come of ops."""

    def fn(x: Tensor, a: Tensor, b: Tensor) -> Any:
        return x @ a.T, F.silu(x @ b.T) * 2.0

    types = f32("rows", 16), f32(8, 16), f32(8, 16)
    values = [np.random.default_rng(n).normal(size=(8, 16)).astype(np.float32) for n in range(3)]
    tensors = [Tensor(value, device=CPU()) for value in values]
    wanted = [tensor.to_numpy() for tensor in fn(*tensors)]
    _refuse(monkeypatch, "mm_kernel")
    model = compiled(fn, *types)
    assert model.stats.kernels_refused == len(model.kernels) > 0
    for one, other in zip(model(*tensors), wanted, strict=True):
        np.testing.assert_allclose(one.to_numpy(), other, rtol=1e-5, atol=1e-5)
