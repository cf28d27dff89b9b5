"""CUDA graphs, cuBLASLt and CuPy kernels on a real GPU; tests/compiler/cuda has the emulation."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maxmod
from maxmod import CPU, BufferType, DType, Tensor, TensorType, backends
from maxmod import functional as F
from maxmod.backends.cuda.backend import CudaBackend
from maxmod.backends.devices import Accelerator
from maxmod.generate import generate
from maxmod.models import load_model
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.values.device import DeviceRef

pytestmark = pytest.mark.gpu

FIXTURES = Path(__file__).parents[1] / "assets" / "gpt2"
WIDTH = 64


def _gpu(array: Any, dtype: DType = DType.float32) -> Tensor:
    return Tensor(np.asarray(array, np.float32), device=CPU()).cast(dtype).to(Accelerator())


def _host(tensor: Tensor) -> np.ndarray[Any, Any]:
    return tensor.to(CPU()).cast(DType.float32).to_numpy().astype(np.float64)


def _backend() -> CudaBackend:
    found = backends.get(DeviceRef.GPU())
    assert isinstance(found, CudaBackend)
    return found


WEIGHTS = np.random.default_rng(5).standard_normal((3, WIDTH, WIDTH)).astype(np.float32) / 8


def _network(x: Tensor, weights: Tensor) -> Tensor:
    for number in range(3):
        x = F.tanh(x @ weights[number].T + 0.5)
    return x


def _expected(x: Any) -> Any:
    for weight in WEIGHTS.astype(np.float64):
        x = np.tanh(x @ weight.T + 0.5)
    return x


def _compiled() -> CompiledModel:
    device = Accelerator()
    kinds = [
        TensorType(DType.float32, ["n", WIDTH], device),
        TensorType(DType.float32, WEIGHTS.shape, device),
    ]
    return compile_function(_network, kinds, name="network", parameters={})


def test_steps_are_recorded_and_replayed() -> None:
    compiled, weights = _compiled(), _gpu(WEIGHTS)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((n, WIDTH)) for n in (5, 5, 300, 5, 300, 300, 5) * 4]
    results = [compiled(_gpu(x), weights) for x in arrays]  # none of them waited for
    for x, result in zip(arrays, results, strict=True):
        np.testing.assert_allclose(_host(result), _expected(x), rtol=1e-4, atol=1e-4)
    assert compiled.stats.recordings >= 2, "MAXMOD_DEBUG=1 says why nothing was recorded"
    assert compiled.stats.replays >= 20


def test_buffers() -> None:
    device = Accelerator()
    kinds = [
        BufferType(DType.float32, [4, WIDTH], device),
        TensorType(DType.float32, [4, WIDTH], device),
        TensorType(DType.float32, WEIGHTS.shape, device),
    ]

    def step(total: Tensor, x: Tensor, weights: Tensor) -> Tensor:
        F.buffer_store(total, total + _network(x, weights))
        return total * 2

    compiled = compile_function(step, kinds, name="step", parameters={})
    weights, rng = _gpu(WEIGHTS), np.random.default_rng(2)
    totals = [np.zeros((4, WIDTH)), np.ones((4, WIDTH))]
    buffers = [_gpu(total) for total in totals]
    for which in [0, 0, 0, 1, 0, 1, 1, *[0] * 9, 1, 1, 1, 0, 1]:
        x = rng.standard_normal((4, WIDTH))
        totals[which] = totals[which] + _expected(x)
        twice = compiled(buffers[which], _gpu(x), weights)
        np.testing.assert_allclose(_host(twice), 2 * totals[which], rtol=1e-4, atol=1e-3)
    for buffer, total in zip(buffers, totals):
        np.testing.assert_allclose(_host(buffer), total, rtol=1e-4, atol=1e-3)
    assert compiled.stats.recordings == 2


def test_threads_and_streams() -> None:
    """Calls on different streams share an arena and a graph."""
    compiled, weights = _compiled(), _gpu(WEIGHTS)
    errors: list[BaseException] = []

    def work(seed: int) -> None:
        backend, rng = _backend(), np.random.default_rng(seed)
        try:
            stream = backend.stream(0, new=True)
            for _ in range(20):
                x = rng.standard_normal((50 + 200 * (seed % 2), WIDTH))
                with backend.using(stream, 0):
                    result = compiled(_gpu(x), weights)
                np.testing.assert_allclose(_host(result), _expected(x), rtol=1e-4, atol=1e-4)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


def test_generation_does_not_depend_on_graphs() -> None:
    model = load_model(FIXTURES / "tied", device=Accelerator(), dtype=DType.float32)
    with_graphs = [*generate(model, [1, 2, 3], max_new_tokens=20, stop=())]
    model = load_model(FIXTURES / "tied", device=Accelerator(), dtype=DType.float32)
    with maxmod.configure(cuda_graphs=False):
        assert [*generate(model, [1, 2, 3], max_new_tokens=20, stop=())] == with_graphs


def test_cublaslt_is_used() -> None:
    assert _backend()._multiplier(0)._products is not None, "MAXMOD_DEBUG=1 says why not"


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


@pytest.mark.parametrize("dtype", [DType.float32, DType.float16, DType.bfloat16])
@pytest.mark.parametrize(
    "parts", ["bias", "addend", "bias addend", "relu", "bias relu", "gelu", "bias gelu"]
)
def test_epilogues(parts: str, dtype: DType) -> None:
    """The GELU of the library is the one with tanh; that with erf differs by up to 5e-4."""
    backend, rng = _backend(), np.random.default_rng(0)
    shapes = (2, 32, 64), (128, 64), (128,), (2, 32, 128)
    x, w, b, c = (rng.integers(-8, 9, shape) / 8 for shape in shapes)
    total = x @ w.T / 4 + (b if "bias" in parts else 0) + (c if "addend" in parts else 0)
    activation = {"relu": "relu", "gelu": "gelu"}.get(parts.split()[-1], "")
    wanted = {"": total, "relu": np.maximum(total, 0), "gelu": _gelu(total)}[activation]
    lhs, rhs, bias, addend = (_gpu(array, dtype).data for array in (x, w / 4, b, c))
    out = backend.empty(TensorType(dtype, (2, 32, 128), Accelerator()))
    more = bias if "bias" in parts else None, addend if "addend" in parts else None
    assert backend._multiplier(0)(lhs, rhs.T, out, *more, activation)
    found = _host(Tensor.wrap(out, TensorType(dtype, (2, 32, 128), Accelerator())))
    tolerance = 4 * float(DType.finfo(dtype).eps)
    limit = 5e-5 if dtype is DType.float32 else tolerance
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=limit)


@pytest.mark.parametrize("activation", ["", "relu", "gelu"])
def test_epilogues_keep_nan(activation: str) -> None:
    """As the ops do, which the planner gives to the library."""
    backend = _backend()
    x = np.ones((16, 64))
    x[3, 5] = np.nan
    lhs, rhs, bias = (_gpu(array).data for array in (x, np.ones((64, 32)), np.ones(32)))
    kind = TensorType(DType.float32, (16, 32), Accelerator())
    out = backend.empty(kind)
    assert backend._multiplier(0)(lhs, rhs, out, bias, None, activation)
    found = _host(Tensor.wrap(out, kind))
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(np.delete(found, 3, axis=0), 65)


def test_kernels_as_objects_of_cupy() -> None:
    kind = TensorType(DType.float32, ["n", 256], Accelerator())
    fn = lambda x: F.gelu(x * 2, approximate="tanh") + 1  # noqa: E731
    x = _gpu(np.random.default_rng(0).standard_normal((100, 256)))
    compiled = compile_function(fn, [kind], name="f", parameters={})
    found = compiled.kernels[0].to_cupy()(x.data)
    np.testing.assert_allclose(_backend().to_host(found), _host(compiled(x)), rtol=1e-5, atol=1e-6)
    compiled = compile_function(lambda x: F.softmax(x), [kind], name="f", parameters={})
    (source,) = compiled.kernels
    out = _backend().empty(TensorType(DType.float32, (100, 256), Accelerator()))
    grid = source.launch.grid({"n": 100}, resident_threads=1 << 17)
    sizes = [np.int64({"n": 100}[name]) for name in source.symbols]
    source.to_cupy()(
        (grid.blocks,), (grid.threads,), (x.data, out, *sizes), shared_mem=grid.shared_nbytes
    )
    np.testing.assert_allclose(_backend().to_host(out), _host(compiled(x)), rtol=1e-5, atol=1e-6)
