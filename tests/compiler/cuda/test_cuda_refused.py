"""A CUDA kernel that NVRTC or the driver refuses: its ops run in its place, on the device."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from emulated_cuda import emulated_cuda

from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.cuda import launch, nvrtc
from maxmod.errors import CompileError
from maxmod.runtime.compiled import compile_function


def _softmaxes(x: Tensor) -> Tensor:
    """A row kernel, and a map that reads it."""
    y = F.softmax(x)
    return F.exp(F.sum(y * 2.0, axis=0) - 1.0)


@pytest.mark.parametrize("stage", ["compile", "load"])
def test_one_refused_kernel(
    stage: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    x = np.linspace(-3, 3, 32, dtype=np.float32).reshape(4, 8)
    error = CompileError("nvrtc: row_softmax: refused", log="kernel.cu(3): error: no such name")
    caplog.set_level(logging.WARNING)
    with emulated_cuda() as (device, _):
        compile_cubin, kernel = nvrtc.compile_cubin, launch.CudaKernel

        def compiling(source: Any, arch: str) -> bytes:
            if "softmax" in source.name:
                raise error
            return compile_cubin(source, arch)

        def loading(cupy: Any, source: Any, *args: Any, **more: Any) -> Any:
            if "softmax" in source.name:
                raise error
            return kernel(cupy, source, *args, **more)

        if stage == "compile":
            monkeypatch.setattr(nvrtc, "compile_cubin", compiling)
        else:
            monkeypatch.setattr(launch, "CudaKernel", loading)
        types = [TensorType(DType.float32, ["n", 8], device)]
        model = compile_function(_softmaxes, types, name="f", parameters={})
        assert model.stats.kernels_refused == 1
        assert model.stats.kernels_built == len(model.kernels) - 1 > 0
        (record,) = caplog.records
        assert "row_softmax" in record.message
        assert "kernel.cu(3): error: no such name" in record.message
        for _ in range(3):  # a call, a recording, a replay
            found = model(Tensor(x, device=CPU()).to(device)).to(CPU()).to_numpy()
            wanted = _softmaxes(Tensor(x, device=CPU())).to_numpy()
            np.testing.assert_allclose(found, wanted, rtol=1e-5)
        assert "its ops run one by one: nvrtc: row_softmax" in model.explain(width=200)
