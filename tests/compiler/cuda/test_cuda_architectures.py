"""Every hand-written kernel, and one of each kind of generated ones, for every architecture."""

from __future__ import annotations

import ctypes
import functools

import pytest
from compiler.cuda import test_cuda_attention, test_cuda_gemv, test_cuda_quantized
from compiler.test_choose import types as choose_types
from cuda_function import sources_of
from cuda_programs import ROWS, VIEWS, row_types, view_types
from cuda_registers import report
from cuda_template import CudaTemplate
from ptx.compiling import together

from maxmod.backends.cuda import nvrtc
from maxmod.compiler.codegen.cuda.attention import emit_few, emit_many, emit_mma
from maxmod.dtype import DType
from maxmod.kernel.source import KernelSource
from maxmod.ops.choose import choose_tokens

# What CUDA 13 supports and people have: Turing (T4), A100, RTX 30, RTX 40, H100, B200, RTX 50.
ARCHITECTURES = ("sm_75", "sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")
REGISTERS = 65536  # of a multiprocessor

pytestmark = pytest.mark.skipif(
    not nvrtc.is_available(), reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
)


@functools.cache
def _known() -> frozenset[int]:
    """Returns the architectures of this NVRTC."""
    lib, count = nvrtc.load().handle, ctypes.c_int()
    lib.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    lib.nvrtcGetSupportedArchs(found)
    return frozenset(found)


@functools.cache
def _sources() -> dict[str, KernelSource]:
    """Returns a kernel for each file below kernels/cuda and each way through it."""
    gemv = [
        test_cuda_gemv.Case(DType.bfloat16, True, 1024, 4096, 1),
        test_cuda_gemv.Case(DType.float16, False, 2304, 768, 1),
        test_cuda_gemv.Case(DType.float32, True, 2304, 768, 1),
    ]
    codes = [
        test_cuda_quantized.Case(DType.bfloat16, None, 1024, 4096, 1, "int8"),
        test_cuda_quantized.Case(DType.bfloat16, 32, 1024, 4096, 1),
    ]
    attention = test_cuda_attention.Case(DType.bfloat16, 8, 2, 128, 128, "position")
    plain = test_cuda_attention.Case(DType.float32, 2, 2, 64, 64, "causal")
    softmax, heads = ROWS["softmax"], VIEWS["heads"]
    found = {f"gemv {case}": test_cuda_gemv._template(case).source for case in gemv}
    found |= {f"quantized {case}": test_cuda_quantized._source(case)[0] for case in codes}
    for emit, case in ((emit_few, attention), (emit_many, plain), (emit_mma, attention)):
        fn = test_cuda_attention._function(case)
        found[emit.__name__] = CudaTemplate(fn, case.types, emit).source
    (found["choose"],) = sources_of(choose_tokens, *choose_types(1, 50257))
    (found["rows"],) = sources_of(softmax[0], *row_types(softmax[2], "n", 4096, DType.bfloat16))
    (found["maps"],) = sources_of(heads[0], *view_types(heads[2], DType.bfloat16))
    return found


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_kernels_compile_without_spills(arch: str) -> None:
    number = int(arch.removeprefix("sm_"))
    if number not in _known():
        pytest.skip(f"this NVRTC does not know {arch}")
    sources = dict(_sources())
    if number < 80:  # the planner gives such a GPU no tensor cores (choose_kernels.py)
        del sources["emit_mma"]
    used = nvrtc.usage(report(together([*sources.values()]), arch))
    wrong = {
        name: used[f"{source.entry}_{place}"]
        for place, (name, source) in enumerate(sources.items())
        if used[f"{source.entry}_{place}"].spill_nbytes
        or used[f"{source.entry}_{place}"].registers > REGISTERS // source.launch.threads
    }
    assert not wrong
