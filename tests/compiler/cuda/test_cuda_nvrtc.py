"""Every kind of generated kernel compiles to machine code, without warnings and without spills."""

from __future__ import annotations

import functools
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from compiler.gathers import GATHERS
from compiler.stores import STORES
from compiler.test_choose import types as choose_types
from cuda_function import sources_of
from cuda_programs import ROWS, VIEWS, op_cases, op_program, row_types, view_types
from cuda_registers import FIRST, OTHERS, report
from helpers import HALVES
from ptx.compiling import together

from maxmod import functional as F
from maxmod.backends.cuda import nvrtc
from maxmod.dtype import DType
from maxmod.errors import CompileError
from maxmod.kernel.source import KernelSource
from maxmod.ops.choose import choose_tokens
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

pytestmark = pytest.mark.skipif(
    not nvrtc.is_available(), reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
)
BATCH = 40  # kernels compiled together: the prelude is read once for all of them
TIGHT = 12  # kernels that take most registers


def _op_sources(dtype: DType, size: int) -> list[KernelSource]:
    found: list[KernelSource] = []
    for case in op_cases(dtype):
        fn, types = op_program(*case, dtype, size)
        found += sources_of(fn, *types)
    return found


@functools.cache
def _sources() -> list[KernelSource]:
    """Returns kernels of every shape that the emitter knows."""
    found: list[KernelSource] = []
    for dtype in (DType.float32, DType.int32):
        found += _op_sources(dtype, 1003)
    for name, (fn, _, kinds) in ROWS.items():
        for size in (100, 1023, 4096, 16384, 50000, "m"):
            found += sources_of(fn, *row_types(kinds, "n", size, DType.float32))
        if name in ("softmax", "layer_norm", "residual_norm"):
            for size in (3, 768, "m"):
                found += sources_of(fn, *row_types(kinds, "n", size, DType.bfloat16))
    for gather in GATHERS.values():
        for table, positions in ((DType.float32, DType.int64), (DType.bfloat16, DType.int32)):
            found += sources_of(gather.fn, *gather.types(table, positions))
    for store in STORES.values():
        for dtype in (DType.float32, DType.bfloat16):
            found += sources_of(store.fn, *store.types(dtype))
    for sizes in (("n", "m"), (1, 50257)):
        found += sources_of(choose_tokens, *choose_types(*sizes))
    for fn, _, shapes in VIEWS.values():
        for dtype in (DType.float32, DType.bfloat16):
            found += sources_of(fn, *view_types(shapes, dtype))
    return found


def _usages(sources: list[KernelSource], arch: str) -> dict[KernelSource, nvrtc.Usage]:
    """Returns what a batch of kernels occupies."""
    used = nvrtc.usage(report(together(sources), arch))
    assert len(used) == len(sources)
    return {source: used[f"{source.entry}_{n}"] for n, source in enumerate(sources)}


def test_everything_compiles_without_spills() -> None:
    """All for one architecture, and for the others those that take most registers."""
    sources = [*dict.fromkeys(_sources())]
    jobs = [(sources[start : start + BATCH], FIRST) for start in range(0, len(sources), BATCH)]
    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(_usages, *zip(*jobs, strict=True))]
        used = {source: usage for batch in found for source, usage in batch.items()}
        assert len(used) == len(sources)
        tight = sorted(used, key=lambda source: -used[source].registers)[:TIGHT]
        found += pool.map(_usages, [tight] * len(OTHERS), OTHERS)
    wrong = [
        f"{source.name}: {usage}\n{source.code}"
        for batch in found
        for source, usage in batch.items()
        if usage.spill_nbytes or usage.registers > 65536 // source.launch.threads
    ]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("dtype", [*HALVES, DType.float8_e4m3fn], ids=lambda d: d.name)
def test_each_kernel_compiles_alone(dtype: DType) -> None:
    """As the backend compiles it, for one architecture."""
    x = TensorType(dtype, ["n", 768], CPU_REF)
    (source,) = sources_of(lambda x: F.softmax(x.cast(DType.float32)).cast(dtype), x)
    cubin, log = nvrtc.compile_text(source, FIRST)
    assert cubin[:4] == b"\x7fELF"
    assert nvrtc.warnings_of(log) == ""


def test_mistakes_are_refused() -> None:
    """A mistake is refused, with the text of the compiler: the tests above can fail."""
    (source,) = sources_of(lambda x: x + 1, TensorType(DType.float32, [64], CPU_REF))
    broken = replace(source, plain=source.plain.replace("mm_read<V>", "mm_reed<V>"))
    with pytest.raises(CompileError, match="mm_reed"):
        nvrtc.compile_text(broken, "sm_90")
