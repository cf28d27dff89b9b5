"""A fork while other threads work, and memory of the host that comes back at any moment."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from maxmod import DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.host.memory import KEPT_NBYTES, POOLED_NBYTES, HostPool
from maxmod.runtime.compiled import compile_function
from maxmod.system.locks import fork_safe_lock
from maxmod.values.device import CPU_REF

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")

CHILD_S = 60  # a child that takes longer hangs


def in_child(work: Callable[[], bool]) -> None:
    """Runs something in a forked child, which must come to an end and return True."""
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(CHILD_S)
        code = 1
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@contextlib.contextmanager
def held(*locks: Any) -> Iterator[None]:
    """Another thread holds locks."""
    taken, done = threading.Event(), threading.Event()

    def hold() -> None:
        with contextlib.ExitStack() as stack:
            for lock in locks:
                stack.enter_context(lock)
            taken.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    taken.wait()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_a_lock_is_free_in_the_child_alone() -> None:
    lock = fork_safe_lock()
    with held(lock):
        in_child(lambda: lock.acquire(timeout=1) and not lock.acquire(timeout=0.01))
        assert lock.locked()
    with lock:
        pass


def test_a_model_that_runs_elsewhere_runs_in_the_child() -> None:
    """With every lock that a call takes, and a branch, which runs inside of it."""

    def fn(x: Tensor, on: Tensor) -> Tensor:
        (y,) = F.cond(on, [x.type], lambda: x + 1.0, lambda: x * 2.0)
        return F.sum(y * y)

    types = [TensorType(DType.float32, ["n"], CPU_REF), TensorType(DType.bool, [], CPU_REF)]
    model = compile_function(fn, types, name="f", parameters={})
    x, on = Tensor(np.ones(5, np.float32)), Tensor(np.array(True))

    def works() -> bool:
        wider = Tensor(np.ones(70_000, np.float32))  # other sizes, and memory of the pool
        return model(x, on).item() == 20.0 and model(wider, on).item() == 280_000.0

    assert model(x, on).item() == 20.0
    with held(model._lock, model._arena.lock):
        in_child(works)
    assert works()


def test_children_of_a_busy_process_come_to_an_end() -> None:
    """Forks at any moment of calls, of results that end, and of random numbers."""

    def fn(x: Tensor) -> list[Tensor]:
        return [x * 2.0, F.softmax(x)]

    model = compile_function(
        fn, [TensorType(DType.float32, ["n", 64], CPU_REF)], name="f", parameters={}
    )
    x = Tensor(np.ones((600, 64), np.float32))
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            model(x)

    def works() -> bool:
        return bool((model(x)[0].to_numpy() == 2.0).all())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            in_child(works)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_memory_of_ended_results_is_used_again() -> None:
    pool = HostPool()
    first = pool.empty(3 * POOLED_NBYTES)
    where = first.ctypes.data
    assert where % 64 == 0
    view = first[10:20]
    del first
    assert pool.empty(3 * POOLED_NBYTES).ctypes.data != where  # the view still uses it
    del view
    found = [pool.empty(3 * POOLED_NBYTES) for _ in range(3)]
    assert where in [array.ctypes.data for array in found]


def test_more_than_the_pool_keeps_is_freed_at_once() -> None:
    pool = HostPool()
    size = KEPT_NBYTES // 8
    blocks = [pool.empty(size) for _ in range(12)]
    blocks.clear()
    (ended,) = pool._ended.values()
    assert len(ended) * size <= KEPT_NBYTES
    huge = pool.empty(2 * KEPT_NBYTES)
    del huge
    pool.empty(POOLED_NBYTES)
    assert sum(raw.nbytes for kept in pool._free.values() for raw in kept) <= KEPT_NBYTES + 4096


@pytest.mark.skipif(threading.current_thread() is not threading.main_thread(), reason="signals")
def test_an_interrupt_is_not_lost_while_memory_comes_back() -> None:
    """Whatever a signal handler raises reaches the code that runs."""
    pool = HostPool()
    lost: list[Any] = []
    before, hook = signal.getsignal(signal.SIGALRM), sys.unraisablehook

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    sys.unraisablehook = lost.append
    signal.signal(signal.SIGALRM, interrupt)
    try:
        for n in range(200):
            end_s = time.monotonic() + 10
            try:
                signal.setitimer(signal.ITIMER_REAL, 1e-4 + n * 1e-6)
                while time.monotonic() < end_s:
                    pool.empty(POOLED_NBYTES)
                pytest.fail("no interrupt came")
            except KeyboardInterrupt:
                continue
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
        sys.unraisablehook = hook
    assert lost == []
