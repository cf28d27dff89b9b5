"""Times of a compiled model and of its steps, and what the machine reaches at best."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from maxmod import backends
from maxmod.compiler.report import Measurement
from maxmod.dtype import DType
from maxmod.op import Kind, ir
from maxmod.runtime.checks import StepTimes, collected_times
from maxmod.tensor import Tensor
from maxmod.values.array import Array
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import BufferType, TensorType

LEAST_CALLS = 3
MOST_CALLS = 50
MOST_S = 1.0  # no further call is made after this time
# Each of the two arrays of a copy is larger than the last caches of today, as in
# benchmarks/limits.py. A small product is the faster one where others use the machine, too.
COPY_NBYTES = {False: 1 << 26, True: 1 << 28}  # on the host, on a GPU
PRODUCT_SIZES = {False: (256, 1024), True: (2048, 8192)}

Run = Callable[[Sequence[Array]], object]
Bind = Callable[[Sequence[Tensor]], Run]


class Compile(Protocol):
    """Compiles a function: `compile_function`."""

    def __call__(
        self,
        fn: Callable[..., object],
        input_types: Sequence[object],
        *,
        name: str,
        parameters: Mapping[str, Tensor],
    ) -> Callable[..., Any]: ...


def measure(
    graph: ir.Graph, types: Sequence[TensorType], device: DeviceRef, bind: Bind, compile: Compile
) -> Measurement:
    """Runs a graph with zeros for arguments and times it, as a whole and step by step.

    Args:
        graph: The optimised graph.
        types: The types of the arguments; sizes are known.
        device: Where it runs.
        bind: Returns what runs the graph on arrays of these types; called twice, because steps are
            timed from the start or not at all.
        compile: Compiles a function, to measure what the device can do.
    """
    tensors = [zeros(type) for type in types]
    arrays = [tensor.data for tensor in tensors]
    # A call may change its buffers, such as the position of the next token: each starts with zeros.
    buffers = [a for a, type in zip(arrays, types) if isinstance(type, BufferType)]
    whole = bind(tensors)
    calls_s = _times(lambda: whole(arrays), device, buffers)
    with collected_times() as collected:
        stepwise = bind(tensors)
    _times(lambda: stepwise(arrays), device, buffers)
    dtype = _product_dtype(graph)
    bytes_per_s, flops_per_s = limits(device, dtype, compile)
    return Measurement(
        times_s=_medians(collected),
        call_s=statistics.median(calls_s),
        calls=len(calls_s),
        bytes_per_s=bytes_per_s,
        flops_per_s=flops_per_s,
        dtype=dtype.name,
    )


def zeros(type: TensorType) -> Tensor:
    """Returns a tensor of zeros."""
    return Tensor.zeros(list(type.sizes), dtype=type.dtype, device=type.device)


def limits(device: DeviceRef, dtype: DType, compile: Compile) -> tuple[float, float]:
    """Returns what the device reaches: bytes of a copy and operations of a product, in a second."""
    count = COPY_NBYTES[device.is_gpu()] // DType.float32.size_in_bytes
    vector = TensorType(DType.float32, [count], device)
    copy = compile(lambda x: -x, [vector], name="copy", parameters={})
    x = zeros(vector)
    copy_s = min(_times(lambda: copy(x), device))
    rates = [_product_rate(device, dtype, n, compile) for n in PRODUCT_SIZES[device.is_gpu()]]
    return 2 * x.data.nbytes / copy_s, max(rates)


def _product_rate(device: DeviceRef, dtype: DType, size: int, compile: Compile) -> float:
    """Returns the operations of a product of square matrices in a second."""
    matrix = TensorType(dtype, [size, size], device)
    product = compile(lambda x, y: x @ y, [matrix, matrix], name="product", parameters={})
    a = zeros(matrix)
    return 2 * size**3 / min(_times(lambda: product(a, a), device))


def _times(
    call: Callable[[], object], device: DeviceRef, buffers: Sequence[Array] = ()
) -> list[float]:
    """Returns the seconds of calls, after one that is not counted; before each, buffers are 0."""
    backend = backends.get(device)
    call()
    found: list[float] = []
    start_s = time.perf_counter()
    while len(found) < MOST_CALLS:
        for buffer in buffers:
            buffer[...] = 0
        backend.synchronize(device.id)
        begin_s = time.perf_counter()
        call()
        backend.synchronize(device.id)
        end_s = time.perf_counter()
        found.append(max(end_s - begin_s, 1e-9))
        if len(found) >= LEAST_CALLS and end_s - start_s > MOST_S:
            break
    return found


def _medians(collected: StepTimes) -> dict[int, float]:
    """Returns the time of each step in one call; the first call is not counted."""
    return {slot: statistics.median(times[1:] or times) for slot, times in collected.items()}


def _product_dtype(graph: ir.Graph) -> DType:
    """Returns the dtype in which most products of a graph are computed."""
    found = Counter(node.output.type.dtype for node in graph.nodes if node.op.kind is Kind.CONTRACT)
    floats = [dtype for dtype, _ in found.most_common() if dtype.is_float()]
    return floats[0] if floats else DType.float32
