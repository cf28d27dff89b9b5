"""The emulated accelerator refuses what a real one refuses, and runs what a real one runs."""

from __future__ import annotations

import numpy as np
import pytest
from emulated import EmulatedArray, EmulatedBackend

from maxmod import DType, Tensor
from maxmod.backends.devices import CPU, Accelerator


@pytest.fixture
def backend() -> EmulatedBackend:
    return EmulatedBackend(count=2)


def test_arrays_never_become_host_arrays(backend: EmulatedBackend) -> None:
    x = backend.from_host(np.arange(3.0), 0)
    for misuse in (np.asarray, np.array, lambda a: np.concatenate([a, np.ones(2)])):
        with pytest.raises(TypeError):
            misuse(x)


def test_mixtures_are_refused(backend: EmulatedBackend) -> None:
    host = np.arange(3.0)
    x, other = backend.from_host(host, 0), backend.from_host(host, 1)
    for misuse in (
        lambda: x + host,
        lambda: host + x,
        lambda: backend.xp.add(x, host),
        lambda: backend.xp.where(x > 0, host, 1.0),
        lambda: x[host.astype(int)],
    ):
        with pytest.raises(TypeError, match="mixed"):
            misuse()
    with pytest.raises(ValueError, match="devices 0 and 1 were mixed"):
        x + other


def test_functions_that_cupy_lacks_are_refused(backend: EmulatedBackend) -> None:
    with pytest.raises(AttributeError, match="CuPy has no function 'geomspace'"):
        backend.xp.geomspace(1, 10)


def test_memory_is_not_shared_with_the_host(backend: EmulatedBackend) -> None:
    host = np.arange(3.0)
    x = backend.from_host(host, 0)
    host[0] = 7
    backend.to_host(x)[1] = 7
    backend.xp.asarray(host)[2] = 9
    assert backend.to_host(x).tolist() == [0, 1, 2]
    assert host.tolist() == [7, 1, 2]


def test_functions_return_arrays_of_the_device(backend: EmulatedBackend) -> None:
    xp = backend.xp
    x = backend.from_host(np.arange(6.0).reshape(2, 3), 1)
    for result in (xp.sqrt(x), x.sum(), x.T, x[0, 0], xp.linalg.norm(x), xp.full((2,), 1)):
        assert isinstance(result, EmulatedArray)
    assert xp.sqrt(x).index == 1
    assert xp.full((2,), 1).index == 0
    assert float(x.sum()) == 15.0
    assert all(isinstance(part, EmulatedArray) for part in xp.split(x, 3, axis=1))


def test_tensors_run_on_the_emulated_device(emulated_accelerator: Accelerator) -> None:
    x = Tensor([[1.0, 2.0, 3.0]])
    assert x.device == emulated_accelerator
    assert x.dtype is DType.bfloat16
    y = (x @ x.T + 1).cast(DType.float32)
    assert isinstance(y.data, EmulatedArray)
    assert y.item() == 15.0
    moved = y.to(Accelerator(1))
    assert moved.data.index == 1
    assert moved.to(CPU()).to_numpy().tolist() == [[15.0]]
    with pytest.raises(ValueError, match="same device"):
        moved + y
