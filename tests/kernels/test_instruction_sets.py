"""Host kernels built for older processors than this one: fewer lanes, no fused multiply-add.

Which text of `kernels/host` is compiled depends on the instruction sets, so that most of it would
otherwise never run on the machine of a developer.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import maxmod
from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host import quantize as host_quantize
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.runtime.compiled import compile_function

IS_X86 = platform.machine() in ("x86_64", "AMD64")
REASON = host_compiler.unavailable_reason() or ("" if IS_X86 else "flags of x86 processors")
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON or "-")

# What is switched off, and how many floats a vector has then.
SETS = {
    "avx512": ("-mno-avx512vnni", 16),
    "avx2": ("-mno-avx512f", 8),
    "avx": ("-mno-avx2 -mno-fma", 8),
    "sse2": ("-mno-sse3", 4),
}
DEPTH = 96


@pytest.fixture(params=SETS)
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Builds kernels with less than the processor has; gives the floats of a vector."""
    compiler = host_compiler.find()
    assert compiler is not None
    flags, count = SETS[request.param]
    build = host_quantize._kernel.__wrapped__
    monkeypatch.setattr(host_quantize, "_kernel", build)  # forgets nothing, keeps nothing
    with maxmod.configure(cc=f"{compiler.path} {flags}"):
        yield count


def _normal(*shape: int) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def _functions(
    x: Tensor, w: Tensor, h: Tensor, codes: Tensor, scales: Tensor, packed: Tensor, fine: Tensor
) -> list[Tensor]:
    """One kernel each: products of every kind, attention, a row kernel."""
    q = F.unsqueeze(x, 0)
    return [
        F.quantized_linear(x, codes, scales),
        F.quantized_linear(x, packed, fine),
        x @ w.T,
        x @ F.reshape(w, [DEPTH, 40]),
        x.cast(DType.bfloat16) @ h.T,
        x.cast(DType.float16) @ w.cast(DType.float16).T,
        F.scaled_dot_product_attention(q, q, q),
        F.softmax(F.gelu(x)),
    ]


def test_kernels(lanes: int) -> None:
    width = (
        "void mm_kernel(void *const *buffers, const int64_t *scalars)\n"
        "{\n    *(int *)buffers[0] = MM_LANES;\n}\n"
    )
    code = kernel_text.read("host/tile.h") + width
    kernel = host_compiler.build(KernelSource("w", Dialect.HOST, code, "mm_kernel", 1, 0))
    found = ctypes.c_int()
    kernel((ctypes.c_void_p * 1)(ctypes.addressof(found)), None)
    assert found.value <= lanes

    weight = _normal(40, DEPTH)
    w = Tensor(weight, device=CPU())
    h = w.cast(DType.bfloat16)
    arguments = [w, h, *F.quantize_weight(w, "int8"), *F.quantize_weight(w, "int4")]
    rows = TensorType(DType.float32, ["rows", DEPTH], CPU())
    types = [rows, *(tensor.type for tensor in arguments)]
    model = compile_function(_functions, types, name="f", parameters={})
    names = [kernel.name for kernel in model.kernels]
    assert sum("matmul" in name for name in names) == 4, names
    assert names.count("quantized_linear") == 2, names
    assert "attention" in names
    for count in (1, 2, 3, 4, 9, 33):
        x = Tensor(_normal(count, DEPTH), device=CPU())
        for number, (one, other) in enumerate(
            zip(model(x, *arguments), _functions(x, *arguments), strict=True)
        ):
            got, wanted = (t.cast(DType.float64).to_numpy() for t in (one, other))
            tolerance = {4: 2e-2, 5: 2e-3}.get(number, 1e-5)
            np.testing.assert_allclose(
                got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=f"{number}"
            )


def test_rounding_of_weights(lanes: int) -> None:
    weight = Tensor(_normal(1400, DEPTH), device=CPU())
    for scheme, group in (("int8", None), ("int4", 32)):
        assert host_quantize.codes_and_scales(weight.data, group) is not None
        found = F.quantize_weight(weight, scheme, group)
        with maxmod.configure(compile=False):
            wanted = F.quantize_weight(weight, scheme, group)
        for one, other in zip(found, wanted, strict=True):
            np.testing.assert_array_equal(one.to_numpy(), other.to_numpy())
