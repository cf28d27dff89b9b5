"""Compiled models on a real GPU: products, memory, streams, threads, 8-bit weights, GPT-2."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from maxmod import CPU, DType, Tensor, TensorType, backends
from maxmod import functional as F
from maxmod.backends.devices import Accelerator
from maxmod.generate import generate
from maxmod.models import load_model
from maxmod.ops.choose import choose_tokens
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import DeviceRef

pytestmark = pytest.mark.gpu

FIXTURES = Path(__file__).parents[1] / "assets" / "gpt2"


def _type(dtype: DType, *sizes: Any) -> TensorType:
    return TensorType(dtype, sizes, Accelerator())


def _compiled(fn: Any, *types: TensorType) -> Any:
    return compile_function(fn, types, name="f", parameters={})


def _gpu(array: Any, dtype: DType = DType.float32) -> Tensor:
    return Tensor(np.asarray(array, np.float32), device=CPU()).cast(dtype).to(Accelerator())


def _host(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.to(CPU()).cast(DType.float32).to_numpy().astype(np.float64)


@pytest.mark.parametrize("dtype", [DType.float32, DType.float16, DType.bfloat16, DType.float64])
def test_products_of_every_layout(dtype: DType) -> None:
    """Small integers, so that every product is exact."""
    rng = np.random.default_rng(0)
    programs: list[tuple[Any, Any, list[tuple[int, ...]]]] = [
        (lambda x, y: x @ y, np.matmul, [(5, 7), (7, 3)]),
        (lambda x, y: x @ y.T, lambda x, y: x @ y.T, [(2, 5, 8), (16, 8)]),
        (lambda x, y: x.T @ y, lambda x, y: x.T @ y, [(64, 5), (64, 8)]),
        (lambda x, y: x @ y, np.matmul, [(2, 3, 5, 8), (2, 3, 8, 4)]),
        (lambda x, y: x @ y, np.matmul, [(2, 1, 5, 8), (2, 3, 8, 4)]),
        (
            lambda x, y: x.permute([0, 2, 1, 3]) @ y.permute([0, 2, 3, 1]),
            lambda x, y: x.transpose(0, 2, 1, 3) @ y.transpose(0, 2, 3, 1),
            [(2, 5, 3, 16), (2, 6, 3, 16)],
        ),
        (lambda x, y: x[:, 1:8] @ y[:, 2:], lambda x, y: x[:, 1:8] @ y[:, 2:], [(5, 20), (7, 9)]),
    ]
    for fn, oracle, shapes in programs:
        arrays = [rng.integers(-4, 5, shape) for shape in shapes]
        compiled = _compiled(fn, *[_type(dtype, *shape) for shape in shapes])
        found = _host(compiled(*[_gpu(array, dtype) for array in arrays]))
        np.testing.assert_array_equal(found, oracle(*arrays))


@pytest.mark.parametrize("name", ["tied", "bfloat16", "untied_gelu"])
def test_gpt2(name: str) -> None:
    model = load_model(FIXTURES / name, device=Accelerator(), dtype=DType.float32)
    compiled = model.module.compile(model.tokens_type)
    with np.load(FIXTURES / name / "golden.npz") as data:
        for number in range(3):
            tokens = Tensor(data[f"input_ids_{number}"], device=CPU()).to(Accelerator())
            logits = compiled(tokens).to(CPU()).to_numpy()
            np.testing.assert_allclose(logits, data[f"logits_{number}"], rtol=0, atol=2e-4)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.2, "top_k": 40, "top_p": 0.9}], ids=str)
def test_generation(options: dict[str, Any]) -> None:
    """The tokens of the host, and one graph for each but the first ones of a text."""
    folder = FIXTURES / "tied"
    prompt, given = [1, 2, 3], {"max_new_tokens": 12, "stop": (), "seed": 5, **options}
    model = load_model(folder, device=Accelerator(), dtype=DType.float32)
    host = load_model(folder, device=CPU(), dtype=DType.float32)
    assert [*generate(model, prompt, **given)] == [*generate(host, prompt, **given)]
    stats = model.step().stats
    assert stats.replays == stats.calls - 1


@pytest.mark.parametrize("size", [33, 1000, 50257, 151936])
def test_tokens_are_chosen_as_on_the_host(size: int) -> None:
    places = (CPU(), Accelerator())
    shapes = [(DType.float32, [4, size]), (DType.float64, [4]), (DType.uint64, [])]
    for temperature, top_k, top_p, min_p in ((0, 0, 1, 0), (1, 0, 1, 0), (0.8, 50, 0.9, 0.01)):
        rng = np.random.default_rng(size)
        arrays = [
            rng.normal(scale=3, size=(4, size)).astype(np.float32),
            np.array([temperature, top_k, top_p, min_p], np.float64),
            np.array(7, np.uint64),
            np.arange(4, dtype=np.uint64),
        ]
        found = []
        for place in places:
            types = [TensorType(d, s, place) for d, s in (*shapes, (DType.uint64, [4]))]
            compiled = _compiled(choose_tokens, *types)
            tokens = compiled(*[Tensor(a, device=CPU()).to(place) for a in arrays])
            found.append(tokens.to(CPU()).to_numpy())
        np.testing.assert_array_equal(*found)


def test_many_calls_do_not_mix_up_memory() -> None:
    """Calls are queued; the arena of one must not be written by the next too early."""
    compiled = _compiled(lambda x: F.softmax(x * 2) @ (x + 1).T, _type(DType.float32, "n", 64))
    rng = np.random.default_rng(1)
    arrays = [rng.standard_normal((n, 64)).astype(np.float32) for n in (5, 300, 5, 64) * 8]
    results = [compiled(_gpu(array)) for array in arrays]
    for array, result in zip(arrays, results, strict=True):
        x = array.astype(np.float64)
        e = np.exp(2 * x - 2 * x.max(-1, keepdims=True))
        expected = e / e.sum(-1, keepdims=True) @ (x + 1).T
        np.testing.assert_allclose(_host(result), expected, rtol=1e-4, atol=1e-4)


def test_threads_without_a_context() -> None:
    compiled = _compiled(lambda x: F.softmax(x), _type(DType.float32, "n", 64))
    x = _gpu(np.zeros((3, 64)))
    found: list[Any] = []
    threads = [threading.Thread(target=lambda: found.append(_host(compiled(x)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    for result in found:
        np.testing.assert_allclose(result, np.full((3, 64), 1 / 64), rtol=1e-6)


def test_another_stream() -> None:
    """Kernels and products go to the stream that is current in CuPy."""
    backend = backends.get(DeviceRef.GPU())
    compiled = _compiled(lambda x: (x + 1) @ (x * 2).T, _type(DType.float32, 256, 256))
    x = _gpu(np.eye(256))
    stream = backend.stream(0, new=True)
    with backend.using(stream, 0):
        y = compiled(x)
    expected = (np.eye(256) + 1) @ (2 * np.eye(256))
    np.testing.assert_allclose(_host(y), expected)


@pytest.mark.parametrize("dtype", [DType.float8_e4m3fn, DType.float8_e5m2], ids=lambda d: d.name)
def test_8_bit_weights(dtype: DType) -> None:
    numbers = np.array([0.25, 0.5, 1, 2, 4, 8, 16], np.float32)
    weight = _gpu(numbers).cast(dtype)
    assert weight.dtype is dtype
    compiled = _compiled(
        lambda x, w: (x * w.cast(DType.float32)).cast(dtype),
        _type(DType.float32, "n", 7),
        _type(dtype, 7),
    )
    found = compiled(_gpu(np.full((2, 7), 2.0)), weight)
    assert found.dtype is dtype
    np.testing.assert_array_equal(_host(found), np.tile(2 * numbers, (2, 1)))


def test_more_elements_than_32_bits_count() -> None:
    """9 GB in and out: positions of 64 bits, the slow way of dividing."""
    free = backends.get(DeviceRef.GPU()).stats(0)["free_memory"]
    if free < 12 << 30:
        pytest.skip(f"needs 12 GB of free GPU memory, and there are {free / 2**30:.0f}")
    rows, columns = (1 << 20) + 1, 4099
    compiled = _compiled(lambda x, y: x + y, _type(DType.int8, "n", "m"), _type(DType.int8, "m"))
    x = Tensor.zeros([rows, columns], dtype=DType.int8, device=Accelerator())
    y = F.arange(0, columns, dtype=DType.int64, device=Accelerator()).cast(DType.int8)
    tail = compiled(x, y)[rows - 2 :].to(CPU()).to_numpy()
    expected = np.tile(np.arange(columns).astype(np.int8), (2, 1))
    np.testing.assert_array_equal(tail, expected)
