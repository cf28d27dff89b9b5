"""CUDA graphs: work that is recorded once, then started with one call.

A recording runs on a stream of its own, which queues nothing meanwhile. Memory that is allocated
while recording comes from a pool of its own, which lives as long as the graph: nobody else is given
that memory, and within the graph it is used again in order. Recording starts in relaxed mode, so
that other threads may go on with whatever they do.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from maxmod import log


class CudaGraph:
    """Recorded work; each call queues it on the current stream.

    Args:
        cupy: The module.
        graph: What CuPy recorded.
        pool: Where the memory of the graph comes from.
        index: The device.
    """

    def __init__(self, cupy: Any, graph: Any, pool: Any, index: int) -> None:
        self._graph = graph
        self._pool = pool  # freed after the graph, which waits for the device
        self._device = cupy.cuda.Device(index)

    def __call__(self) -> None:
        with self._device:
            self._graph.launch()


def record(cupy: Any, work: Callable[[], None], index: int) -> CudaGraph | None:
    """Records what `work` queues; None, and a message in the log, if that cannot be done.

    Args:
        cupy: The module.
        work: Launches kernels and products, and copies arrays, on the current stream; everything
            that it uses was loaded before.
        index: The device.
    """
    cuda = cupy.cuda
    pool = cuda.MemoryPool()
    with cuda.Device(index):
        stream = cuda.Stream(non_blocking=True)  # else work on the null stream would end it
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
        except Exception as error:  # whatever a library says; the work can be done without
            log.show(log.DEVICES, "no CUDA graph: %s: %s", type(error).__name__, error)
            return None
    return CudaGraph(cupy, graph, pool, index)
