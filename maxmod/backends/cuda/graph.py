"""CUDA graphs: work that is recorded once, then started with one call.

Work is captured on a separate stream, which runs nothing meanwhile. Memory that is allocated during
capture comes from a separate pool, which lives as long as the graph: nothing else gets that memory,
and within the graph it is reused in stream order. Capture is in relaxed mode, so that other threads
can continue.

CuPy's pools give nothing back when they end: a free chunk and the arena that holds it keep each
other alive. So a pool is emptied before it is dropped. Giving memory back waits for the device, and
so for a graph that still runs; destroying a graph does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from maxmod import log
from maxmod.backends.base import NotRecorded
from maxmod.errors import GraphError
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
        self._graph: Any = graph
        self._pool = pool
        self._device = cupy.cuda.Device(index)

    def __call__(self) -> None:
        with self._device:
            self._graph.launch()

    def __del__(self) -> None:
        """Gives the memory back; arrays in it must have ended before."""
        with contextlib.suppress(Exception), self._device:  # the interpreter may be ending
            self._graph = None
            self._pool.free_all_blocks()


# Errors of what can be captured never: CuPy's cuBLAS, a view that needs a copy.
_FINAL = (NotImplementedError, GraphError)


def record(cupy: ArrayModule, work: Callable[[], None], index: int) -> CudaGraph | NotRecorded:
    """Records what `work` queues.

    Args:
        cupy: The module.
        work: Launches kernels and products, and copies arrays, on the current stream; everything
            that it uses is already loaded. If it raises, it leaves no array behind.
        index: The device.

    Returns:
        The graph; if that is not possible, why, which is logged as well.
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
            refusal = NotRecorded(f"{type(error).__name__}: {error}", isinstance(error, _FINAL))
            log.show(log.DEVICES, "no CUDA graph: %s", refusal.reason)
        else:
            return CudaGraph(cupy, graph, pool, index)
        pool.free_all_blocks()  # the error has ended, and with it the arrays of its frames
        return refusal
