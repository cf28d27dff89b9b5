"""Chooses the kernels of matrix products and attention; every rule is in this file.

`tests/compiler/test_choose_kernels.py` checks the tables: it plans a graph for each line.
Names such as `cuda/gemv.h` are files of `kernels/`. "library" is the matrix library of the device:
cuBLASLt, or NumPy on the host. "ops" means that the ops are planned one by one: products by the
library, the softmax as a row kernel.

Products, `x [..., k] @ w [k, n]`. Rows are those of x; `n` is a symbolic number of rows: both
kernels are built then, and each call runs the one for its rows.

| device | rows | dtype of x               | w         | multiplied by                | epilogue  |
|--------|------|--------------------------|-----------|------------------------------|-----------|
| host   | any  | float32 float16 bfloat16 | 2 axes    | host/gemm.h                  | all       |
| host   | any  | float32 float16 bfloat16 | int8 int4 | host/quantized.h             | all       |
| host   | any  | float32 float16 bfloat16 | 3 axes    | host/gemm.h                  | all       |
| host   | any  | float64 int32            | 2 axes    | library                      | none      |
| cuda   | 1-8  | float32 float16 bfloat16 | 2 axes    | cuda/gemv.h                  | all       |
| cuda   | 1-8  | float32 float16 bfloat16 | int8 int4 | cuda/gemv.h cuda/quantized.h | all       |
| cuda   | 9-   | float32 float16 bfloat16 | 2 axes    | library                      | of library|
| cuda   | 9-   | float32 float16 bfloat16 | int8 int4 | library                      | of library|
| cuda   | n    | float32 float16 bfloat16 | 2 axes    | cuda/gemv.h library          | of library|
| cuda   | any  | float32 float16 bfloat16 | 3 axes    | library                      | of library|
| cuda   | any  | float64 int32            | 2 axes    | library                      | addend    |

The epilogue is applied to the sums before they are stored: all elementwise ops; those of the
library, which are adding a vector and then relu, gelu by tanh, or an addend of the type of the
result; only such an addend; or none. Where w is quantised and the library multiplies, a kernel
dequantises it first.

On the host, the rows of a call decide how w is read: up to 8, as it is (`host/gemm_few.h`; floats
up to 16 with AVX-512 where w is [k, n], or up to 32 with AVX where w is [n, k] and not deep); for
more it is packed, as a whole where it stays in the L2 cache (`host/gemm_narrow.h`), else in blocks
(`host/gemm_many.h`). `host/quantized_few.h` and `host/quantized_many.h` have other limits. NumPy
multiplies no floats for which there is a kernel, since no shape is known that it multiplies faster.
Speed of the kernels, without Python's part of a call, as multiples of NumPy's (OpenBLAS), and for
batches of the faster one of it and PyTorch (MKL), on 2 cores of an AMD EPYC (Zen 3, AVX2), December
2026: one row 0.87 to 1.8, 9 to 16 rows 1.05 to 1.34, 33 to 128 rows 0.96 to 1.17, small matrices
1.0 to 1.15, batches 1.05 to 1.9. Calls lose in Python, 7 us each, which NumPy's would add to.

Products of our own kernels with the same x are one kernel, if their w are stored alike as [n, k]:
see `fusion/siblings.py`. On CUDA, rows that a reduction makes for a product alone, such as those of
a norm, are computed in its kernel: see `fusion/prologues.py`.

Attention, `softmax(f(q @ k^T)) @ v`. Rows are the queries that attend to the same keys, of all
heads that share them. The head size is that of keys or values, whichever is larger. Scores have the
dtype of `q @ k^T`: float32 where halves are converted first, as attention ops do, or that of q.

| device | GPU    | rows | dtype of q, k and v      | scores  | head    | attended by           |
|--------|--------|------|--------------------------|---------|---------|-----------------------|
| host   |        | any  | float32 float16 bfloat16 | any     | 1-512   | host/attention.h      |
| host   |        | any  | float32 float16 bfloat16 | any     | 513-    | ops                   |
| host   |        | any  | float64                  | any     | 1-512   | ops                   |
| cuda   | sm_75- | 1-16 | float32 float16 bfloat16 | any     | 1-512   | cuda/attention_few.h  |
| cuda   | sm_80- | 17-  | float16 bfloat16         | any     | 1-256   | cuda/attention_mma.h  |
| cuda   | sm_80- | 17-  | float16 bfloat16         | float32 | 257-512 | cuda/attention_many.h |
| cuda   | sm_80- | 17-  | float16 bfloat16         | of q    | 257-512 | ops                   |
| cuda   | sm_75  | 17-  | float16 bfloat16         | float32 | 1-512   | cuda/attention_many.h |
| cuda   | sm_75  | 17-  | float16 bfloat16         | of q    | 1-512   | ops                   |
| cuda   | sm_75- | 17-  | float32                  | any     | 1-512   | cuda/attention_many.h |
| cuda   | sm_75- | any  | float32 float16 bfloat16 | any     | 513-    | ops                   |
| cuda   | sm_75- | any  | float64                  | any     | 1-512   | ops                   |
"""

from __future__ import annotations

import enum

from maxmod.compiler.groups.group import Attention, FusionGroup
from maxmod.dtype import DType, compute_dtype
from maxmod.kernel.source import ACTIVATIONS, Dialect
from maxmod.op import ir, is_op, lookup
from maxmod.ops.elementwise import cast_elements
from maxmod.values.dim import Size
from maxmod.values.shape import product as sizes_product

# ---- products ----------------------------------------------------------------------------------

# Dtypes that our kernels multiply, accumulating in float32, and to which the library adds a vector.
FLOATS = (DType.float32, DType.bfloat16, DType.float16)
# Up to this many rows, scalar multiplications keep up with memory: with 8 rows of half floats a
# Hopper SM issues 54 instructions in the 55 cycles in which their weights arrive (counted, not
# measured). More rows are for tensor cores, and so for cuBLAS.
MOST_GEMV_ROWS = 8
_ACTIVATIONS = {lookup(name): name for name in ACTIVATIONS}


def has_kernel(product: ir.Node) -> bool:
    """True if there are kernels for products of these types."""
    left, right = (value.type for value in product.inputs[:2])
    floats = product.inputs[-1].type.dtype  # scales, if the right operand is quantised
    if not product.op.meaning.is_product and floats is DType.uint8:  # scales with minimums
        floats = left.dtype
    is_summed = compute_dtype(product.output.type.dtype) is DType.float32
    return right.rank == 2 and left.rank > 0 and is_summed and floats in FLOATS


def has_batched_kernel(product: ir.Node) -> bool:
    """True if the host has a kernel for products of these types, each with a matrix of its own."""
    if not product.op.meaning.is_product:
        return False
    left, right = (value.type for value in product.inputs)
    is_summed = compute_dtype(product.output.type.dtype) is DType.float32
    return right.rank > 2 and left.rank > 1 and is_summed and right.dtype in FLOATS


def is_for_library(product: ir.Node, dialect: Dialect | None) -> bool:
    """True if our own kernels cannot do a product, or are known to be slower.

    Args:
        product: The product.
        dialect: The language of our kernels; None for none.
    """
    if dialect is Dialect.HOST and has_batched_kernel(product):
        return False
    if dialect is None or not has_kernel(product):
        return True
    rows = sizes_product(product.output.type.sizes[:-1])
    return dialect is Dialect.CUDA and is_known_above(rows, MOST_GEMV_ROWS)


def is_known_above(rows: Size, limit: int) -> bool:
    """True if the number of rows is above a limit for certain; False if it is symbolic."""
    return isinstance(rows, int) and rows > limit


# ---- epilogues of the library ------------------------------------------------------------------


def library_activation(node: ir.Node) -> str:
    """Returns the key of `ACTIVATIONS` that the library applies as a node does; '' for none."""
    name = _ACTIVATIONS.get(node.op, "")
    return name if name and node.kwargs == ACTIVATIONS[name] else ""


def library_adds_vectors(dtype: DType) -> bool:
    """True for types of products to which the library adds a vector, and applies activations."""
    return dtype in FLOATS


def library_adds_tensors(dtype: DType) -> bool:
    """True for types of products to which the library adds a tensor of that type.

    Sums of narrower types are rounded by ops.
    """
    return dtype.size_in_bits >= 16


# ---- attention ---------------------------------------------------------------------------------

# A block of longer keys or values would exceed an L2 cache.
LONGEST_HEAD = 512
# With longer ones, the sums of a tile do not fit in registers, see `codegen/cuda/attention.py`.
LONGEST_MMA_HEAD = 256
# Up to this many queries per key, reading the keys takes most of the time.
FEW_QUERIES = 16
TENSOR_CORES = 80  # the first architecture with the instructions of kernels/cuda/mma.h


class ManyQueries(enum.Enum):
    """Kernels of attention for more than `FEW_QUERIES` rows on a GPU."""

    FLOAT32 = "cuda/attention_many.h"
    TENSOR_CORES = "cuda/attention_mma.h"


def kernel_for_many(
    group: FusionGroup, attention: Attention, architecture: str
) -> ManyQueries | None:
    """Returns the kernel for many queries on a GPU; None if the ops are better on their own.

    Halves go to tensor cores. Where those are missing, or the heads are too long, products of half
    types are left to the matrix library. In float32 the library multiplies no faster, and our
    kernel needs no memory for the scores and skips masked blocks.

    Args:
        group: The group.
        attention: What it computes.
        architecture: Of the GPU, such as `sm_90`; an unknown one is treated as new.
    """
    number = "".join(filter(str.isdigit, architecture))
    has_tensor_cores = not number or int(number) >= TENSOR_CORES
    lengths = (v.type.sizes[-1] for v in (attention.scores.inputs[0], attention.mixed.inputs[1]))
    fits = not any(is_known_above(length, LONGEST_MMA_HEAD) for length in lengths)
    if has_tensor_cores and fits and half_type(group, attention) is not None:
        return ManyQueries.TENSOR_CORES
    is_float32 = all(v.type.dtype is DType.float32 for v in attention.scores.inputs)
    return ManyQueries.FLOAT32 if is_float32 else None


def is_for_ops(group: FusionGroup, attention: Attention, rows: Size, architecture: str) -> bool:
    """True if, on a GPU, the ops of attention are known to be better on their own.

    Args:
        group: The group.
        attention: What it computes.
        rows: How many queries attend to the same keys.
        architecture: Of the GPU.
    """
    is_many = is_known_above(rows, FEW_QUERIES)
    return is_many and kernel_for_many(group, attention, architecture) is None


def half_type(group: FusionGroup, attention: Attention) -> DType | None:
    """Returns the half type that queries, keys and values have, wherever they are converted.

    None if neither weights nor results have it: rounding weights to it would then change results.
    """
    producer = {value: node for node in group.nodes for value in node.outputs}
    found: set[DType] = set()
    for value in (*attention.scores.inputs, attention.mixed.inputs[1]):
        node = producer.get(value)
        while node is not None and value.type.dtype is DType.float32:
            if node.op.lowering.view is None and not is_op(node.op, cast_elements):
                break
            value = node.inputs[0]
            node = producer.get(value)
        found.add(value.type.dtype)
    dtype = found.pop()
    rounded = {value.type.dtype for value in (attention.mixed.inputs[0], *group.outputs)}
    is_half = not found and dtype in (DType.float16, DType.bfloat16) and dtype in rounded
    return dtype if is_half else None
