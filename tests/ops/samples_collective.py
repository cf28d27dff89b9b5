"""Samples of the ops that exchange data with other processes, in a group of one."""

from __future__ import annotations

from ops.samples import Sample, of_shapes

from maxmod.dtype import DType

_SUMMED = (DType.bfloat16, DType.float16, DType.float32, DType.float64, DType.int32, DType.int64)


SAMPLES = {
    "all_reduce": [Sample(of_shapes((3, 4)), lambda x, size: x, {"size": 1}, dtypes=_SUMMED)],
    "all_gather": [Sample(of_shapes((3, 4)), lambda x, size: x[None], {"size": 1})],
    "broadcast_of_first": [Sample(of_shapes((3, 4)), lambda x, size: x, {"size": 1})],
    "reduce_scatter_rows": [
        Sample(of_shapes((3, 4)), lambda x, size: x, {"size": 1}, dtypes=_SUMMED)
    ],
}
