"""Host kernels built for other CPUs than this one: older ones, and AVX-512 with VNNI.

Quantised products are built for more of them, and have the same bits on all.

Which text of `kernels/host` is compiled depends on the instruction sets, so that most of it would
otherwise never run on the machine of a developer.
"""

from __future__ import annotations

import ctypes
import platform
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ops.samples_quantized import integers
from quantized_rule import linear

import maxmod
from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host import quantize as host_quantize
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.runtime.compiled import CompiledModel, compile_function

IS_X86 = platform.machine() in ("x86_64", "AMD64")
REASON = host_compiler.unavailable_reason() or ("" if IS_X86 else "flags of x86 CPUs")
if "ziglang" in maxmod.config.current().cc or "ziglang" in (host_compiler.find() or ("",))[0]:
    REASON = "zig ignores options that switch instruction sets off"
pytestmark = [
    pytest.mark.skipif(bool(REASON), reason=REASON or "-"),
    # The text is the subject; what the optimiser makes of it shows in all other tests.
    pytest.mark.usefixtures("unoptimised_host_kernels"),
]

COMPILER = host_compiler.find()
# What was asked for may have options, such as the `cc` of zig.
COMMAND = maxmod.config.current().cc or (COMPILER.path if COMPILER else "")
FEATURES = host_compiler.processor().split()


def _emulated(header: str, options: str) -> str:
    """Options that put a header of this folder in front of kernels.

    Builds are kept by text and options, which therefore tell what the header says.
    """
    path = Path(__file__).with_name(header)
    return f"{options} -include {path} -DHEADER_TEXT={zlib.crc32(path.read_bytes())}"


def _sets() -> dict[str, tuple[str, int]]:
    """Returns options of the compiler, and how many floats a vector has with them.

    Those of this CPU are not among them: all other tests use them. Where it has no VNNI,
    the text for it runs by way of `avx512_vnni.h`, for which AVX2 and GCC are needed.
    """
    sets = {"sse2": ("-mno-sse3", 4)}
    if "avx2" in FEATURES:
        sets["avx"] = ("-mno-avx2 -mno-fma", 8)
    if "avx512f" in FEATURES:
        sets["avx2"] = ("-mno-avx512f", 8)
    if "avx512_vnni" in FEATURES:
        sets["avx512"] = ("-mno-avx512vnni", 16)
    elif "avx2" in FEATURES and COMPILER and COMPILER.version.startswith("GCC"):
        sets["avx512-vnni"] = (_emulated("avx512_vnni.h", "-mno-avx512f"), 16)
    return sets


def _sets_for_quantized() -> dict[str, str]:
    """Returns options of the compiler for every text of quantised products but that of this CPU."""
    sets = {name: options for name, (options, _) in _sets().items()}
    if COMPILER and COMPILER.version.startswith("GCC"):
        sets["neon-dot"] = _emulated("neon_dot.h", "-mno-sse3")
        if "avx2" in FEATURES:
            avx512 = "-mno-avx512f -DWITHOUT_VNNI"
            sets.setdefault("avx512", _emulated("avx512_vnni.h", avx512))
            sets["avx-vnni"] = _emulated("avx_vnni.h", "-mno-avx512f")
    return sets


SETS = _sets()
DEPTH = 96
ODD_DEPTH = 77  # of the int8 weight: whole steps, whole vectors and a part of one
GROUP = 64  # of the int4 weight, which has one
FEW_ROWS = 8  # MM_FEW_ROWS of kernels/host/gemm_few.h
SAME_BITS = (1, 5)  # of the functions: where a row does not depend on the others


@pytest.fixture(params=SETS)
def lanes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Builds kernels for another CPU; gives the floats of a vector."""
    assert COMPILER is not None
    flags, count = SETS[request.param]
    build = host_quantize._kernel.__wrapped__
    monkeypatch.setattr(host_quantize, "_kernel", build)  # forgets nothing, keeps nothing
    with maxmod.configure(cc=f"{COMMAND} {flags}"):
        yield count


def _normal(*shape: int) -> Any:
    return np.random.default_rng(shape).normal(size=shape).astype(np.float32)


def _functions(x: Tensor, w: Tensor, h: Tensor) -> list[Tensor]:
    """One kernel each: products of every kind, attention, a row kernel."""
    q = F.unsqueeze(x, 0)
    return [
        x @ w.T,
        x @ F.reshape(w, [DEPTH, 40]),
        x.cast(DType.bfloat16) @ h.T,
        x.cast(DType.float16) @ w.cast(DType.float16).T,
        F.scaled_dot_product_attention(q, q, q),
        F.softmax(F.gelu(x)),
        q @ F.reshape(w, [4, 10, DEPTH]).T,
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
    assert found.value == lanes

    weight = _normal(40, DEPTH)
    w = Tensor(weight, device=CPU())
    h = w.cast(DType.bfloat16)
    arguments = [w, h]
    rows = TensorType(DType.float32, ["rows", DEPTH], CPU())
    types = [rows, *(tensor.type for tensor in arguments)]
    model = compile_function(_functions, types, name="f", parameters={})
    names = [kernel.name for kernel in model.kernels]
    assert sum("matmul" in name for name in names) == 5, names
    assert "attention" in names
    for count in (1, 2, 3, 4, 9, 33, 131):
        x = Tensor(_normal(count, DEPTH), device=CPU())
        for number, (one, other) in enumerate(
            zip(model(x, *arguments), _functions(x, *arguments), strict=True)
        ):
            got, wanted = (t.cast(DType.float64).to_numpy() for t in (one, other))
            tolerance = {2: 2e-2, 3: 2e-3}.get(number, 1e-5)
            np.testing.assert_allclose(
                got, wanted, rtol=0, atol=tolerance * np.abs(wanted).max(), err_msg=f"{number}"
            )
    _expect_equal_rows(model, arguments)


def _expect_equal_rows(model: CompiledModel, arguments: list[Tensor]) -> None:
    """Checks that a row has the same bits alone and among others, and so do rows of any numbers."""
    x = _normal(FEW_ROWS, DEPTH)

    def results(rows: Any) -> list[Any]:
        made = model(Tensor(rows, device=CPU()), *arguments)
        return [made[number].to_numpy() for number in SAME_BITS]

    alone = [results(x[[row]]) for row in range(FEW_ROWS)]
    for first, end in ((0, 2), (1, 3), (0, 3), (2, 6), (0, 5), (2, FEW_ROWS), (0, FEW_ROWS)):
        for found, *rows in zip(results(x[first:end]), *alone[first:end], strict=True):
            np.testing.assert_array_equal(found, np.concatenate(rows))


@pytest.mark.parametrize("name", _sets_for_quantized())
def test_quantised_products(name: str) -> None:
    """The bits of the rule, for few and many rows, with numbers that are far or not finite."""
    assert COMPILER is not None
    weight = Tensor(_normal(40, DEPTH), device=CPU())
    formats = (
        ("int8", -1, ODD_DEPTH),
        ("int8", 32, DEPTH),
        ("int4", 32, DEPTH),
        ("int4", GROUP, GROUP),
        ("int4_symmetric", 32, DEPTH),
    )
    made = [F.quantize_weight(weight[:, :depth], s, group) for s, group, depth in formats]

    def functions(x: Tensor, *operands: Tensor) -> list[Tensor]:
        return [
            F.quantized_linear(x[:, :depth], *operands[2 * i : 2 * i + 2])
            for i, (_, _, depth) in enumerate(formats)
        ]

    arguments = [tensor for pair in made for tensor in pair]
    rows = TensorType(DType.float32, ["rows", DEPTH], CPU())
    types = [rows, *(tensor.type for tensor in arguments)]
    x = _normal(40, DEPTH)
    x[1, 60], x[2, 60], x[4], x[5, 60], x[6, 2] = 1e9, -1e9, 0, np.inf, np.nan
    x[7], x[8] = x[7] * 1e-37, np.exp(3 * x[8])
    wanted = []
    for (codes, scales), (_, group, depth) in zip(made, formats, strict=True):
        whole = integers(codes.data, scales.data)
        wanted.append(linear(x[:, :depth], whole, scales.data, group))
    with maxmod.configure(cc=f"{COMMAND} {_sets_for_quantized()[name]}"):
        model = compile_function(functions, types, name="f", parameters={})
        assert [kernel.name for kernel in model.kernels] == ["quantized_linear"] * 5
        for count in (1, 2, 3, 7, 21, 40):
            found = model(Tensor(x[:count], device=CPU()), *arguments)
            for one, other in zip(found, wanted, strict=True):
                np.testing.assert_array_equal(one.to_numpy(), other[:count], err_msg=str(count))


def test_rounding_of_weights(lanes: int) -> None:
    weight = Tensor(_normal(1400, DEPTH), device=CPU())
    for scheme, group in (("int8", -1), ("int8", 32), ("int4", 32), ("int4_symmetric", 32)):
        assert host_quantize.codes_and_scales(weight.data, scheme, group) is not None
        found = F.quantize_weight(weight, scheme, group)
        with maxmod.configure(compile=False):
            wanted = F.quantize_weight(weight, scheme, group)
        for one, other in zip(found, wanted, strict=True):
            assert one.data.tobytes() == other.data.tobytes()
