"""Rounding weights to codes with `kernels/host/quantize.c`: it takes a tenth of NumPy's time."""

from __future__ import annotations

import functools

import numpy as np

from maxmod import config
from maxmod.backends.host import compiler as host_compiler
from maxmod.dtype import DType, storage_dtype
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.values.array import HostArray, StorageDType

MIN_WEIGHTS = 1 << 17  # below, NumPy is done in a millisecond, and nothing needs to be built

# How weights are stored, and how C makes floats of them.
_STORED = {
    storage_dtype(DType.float32): ("float", ""),
    storage_dtype(DType.bfloat16): ("uint16_t", "mm_load_bfloat16"),
    storage_dtype(DType.float16): ("uint16_t", "mm_load_float16"),
}


def codes_and_scales(
    weight: HostArray, scheme: str, group_size: int | None
) -> list[HostArray] | None:
    """Rounds a weight [out, in] as `quantize_weight` does, bit for bit.

    Args:
        weight: Floats, with its elements in row-major order.
        scheme: As for `quantize_weight`.
        group_size: How many weights share a scale; -1 for one scale of each row.

    Returns:
        Codes and scales; None where that is left to NumPy: the weight is small, not finite or of a
        dtype without a kernel, there is no C compiler, or kernels are switched off.
    """
    if weight.size < MIN_WEIGHTS or weight.dtype not in _STORED or not weight.flags.c_contiguous:
        return None
    if not config.current().compile or host_compiler.find() is None:
        return None
    rows, depth = weight.shape
    assert group_size is not None
    if scheme == "int8":
        sizes, kept = ((rows, 1), np.dtype(np.float32))
        if group_size > 0:
            sizes, kept = ((rows, depth // group_size), storage_dtype(DType.bfloat16))
        codes, scales = np.empty((rows, depth), np.int8), np.empty(sizes, kept)
    else:
        codes, groups = np.empty((rows, depth // 2), np.uint8), depth // group_size
        sizes, dtype = ((rows, groups), np.float16)
        if scheme == "int4":
            sizes, dtype = ((rows, 2 * groups + 1), np.uint8)
        scales = np.empty(sizes, dtype)
    is_bad = np.zeros(1, np.int32)
    arrays = (weight, codes, scales, is_bad)
    buffers = np.array([array.ctypes.data for array in arrays], np.uintp)
    kind = ("int8", "int4_symmetric", "int4").index(scheme)
    scalars = np.array([rows, depth, max(group_size, 0), kind], np.int64)
    _kernel(weight.dtype)(buffers.ctypes.data, scalars.ctypes.data)
    return None if is_bad[0] else [codes, scales]


@functools.cache
def _kernel(dtype: StorageDType) -> host_compiler.HostKernel:
    stored, load = _STORED[dtype]
    front = f"#define MM_STORED {stored}\n#define MM_LOAD(code) {load}(code)\n\n"
    code = front + kernel_text.read("host/quantize.c")
    return host_compiler.build(
        KernelSource("quantize_weight", Dialect.HOST, code, "mm_quantize", 4, 4)
    )
