"""CUDA graphs: work that is recorded once, then started with one call.

Work is captured on a separate stream, which runs nothing meanwhile. Memory that is allocated during
capture comes from a separate pool, which lives as long as the graph: nothing else gets that memory,
and within the graph it is reused in stream order. Capture is in relaxed mode, so that other threads
can continue.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from maxmod import log
from maxmod.values.array import ArrayModule


class CudaGraph:
    """Recorded work; each call queues it on the current stream.

    Args:
        cupy: The module.
        graph: The graph that CuPy captured.
        pool: Where the memory of the graph comes from.
        index: The device.
    """

    def __init__(self, cupy: ArrayModule, graph: Any, pool: Any, index: int) -> None:
        self._graph = graph
        self._pool = pool  # freed after the graph, which waits for the device
        self._device = cupy.cuda.Device(index)

    def __call__(self) -> None:
        with self._device:
            self._graph.launch()


def record(cupy: ArrayModule, work: Callable[[], None], index: int) -> CudaGraph | None:
    """Records what `work` queues; None, with a log message, if that is not possible.

    Args:
        cupy: The module.
        work: Launches kernels and products, and copies arrays, on the current stream; everything
            that it uses is already loaded.
        index: The device.
    """
    cuda = cupy.cuda
    pool = cuda.MemoryPool()
    with cuda.Device(index):
        stream = cuda.Stream(non_blocking=True)  # else the null stream would end capture
        try:
            with stream, cuda.using_allocator(pool.malloc):
                stream.begin_capture()
                try:
                    work()
                except BaseException:
                    with contextlib.suppress(Exception):
                        stream.end_capture()  # the thread may do other things again
                    raise
                graph = stream.end_capture()
        except Exception as error:  # any error of a library; the work can run without a graph
            log.show(log.DEVICES, "no CUDA graph: %s: %s", type(error).__name__, error)
            return None
    return CudaGraph(cupy, graph, pool, index)
