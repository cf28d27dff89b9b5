"""The threads of host kernels: every item once, from any thread, in any process."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host import library as host_library
from maxmod.kernel.source import Dialect, KernelSource

pytestmark = pytest.mark.skipif(
    bool(host_compiler.unavailable_reason()), reason="there is no C compiler"
)

# Adds 1 to each of `scalars[0]` items in portions of `scalars[1]`, by way of the memory of the
# thread, which holds its own mark while it works on a portion.
CODE = """
static void items(void *const *buffers, const int64_t *scalars, void *shared, char *room,
                  int64_t first, int64_t end)
{
    int64_t *const counts = buffers[0], *const marks = (int64_t *)room;
    const int64_t wide = scalars[2];
    if ((uintptr_t)room % 64)
        counts[first] += 1000;
    for (int64_t n = first; n < end; n++) {
        for (int64_t k = 0; k < wide; k++)
            marks[k] = n;
        int64_t sum = 0;
        for (volatile int64_t k = 0; k < wide; k++)
            sum += marks[k] == n;
        counts[n] += sum == wide;
    }
    if (end - first > scalars[1] && end - first != scalars[0])
        counts[first] += 10000;
}

void mm_kernel(void *const *buffers, const int64_t *scalars)
{
    mm_parallel(items, buffers, scalars, NULL, scalars[0], scalars[1], (size_t)scalars[2] * 8);
}
"""
SOURCE = KernelSource("items", Dialect.HOST, CODE, "mm_kernel", 1, 3)


def run(count: int, step: int, room: int = 16) -> np.ndarray:
    """Returns how often each item was worked on; more than 1000 for a broken promise."""
    kernel = host_compiler.build(SOURCE)
    counts = np.zeros(max(count, 1), np.int64)
    buffers = (ctypes.c_void_p * 1)(counts.ctypes.data)
    kernel(buffers, (ctypes.c_int64 * 3)(count, step, room))
    return counts[:count]


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 64, 1009])
@pytest.mark.parametrize("step", [1, 2, 5, 1009])
def test_every_item_once(count: int, step: int) -> None:
    for room in (0, 1, 1000):
        assert (run(count, step, room) == 1).all()


def test_after_sleep_and_in_a_row() -> None:
    """Threads that sleep are woken; calls that follow each other at once do not mix."""
    import time

    for pause in (0.0, 0.0, 0.01, 0.0):
        time.sleep(pause)
        for _ in range(200):
            assert (run(97, 1) == 1).all()


def test_many_callers() -> None:
    """Only one caller has the threads; the others do their work alone."""
    wrong: list[object] = []

    def work() -> None:
        for _ in range(100):
            if not (run(203, 3) == 1).all():
                wrong.append(1)

    callers = [threading.Thread(target=work) for _ in range(6)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


_CHILD = """
import os, sys
sys.path.insert(0, {tests!r})
from kernels.test_threads import run
assert (run(500, 1) == 1).all()
before = len(os.listdir("/proc/self/task"))
if {fork}:
    child = os.fork()
    if child == 0:
        good = (run(500, 1) == 1).all() and len(os.listdir("/proc/self/task")) == before
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
print(before)
"""


def _child(fork: bool, **environ: str) -> int:
    """Runs a kernel in a new process; returns its number of threads."""
    code = _CHILD.format(tests=str(Path(__file__).parents[1]), fork=fork)
    command = [sys.executable, "-W", "ignore", "-c", code]
    blas = {"OPENBLAS_NUM_THREADS": "1"}  # NumPy's threads would be counted too
    done = subprocess.run(
        command,
        env={**os.environ, **blas, **environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted on Linux")
def test_number_of_threads() -> None:
    one = _child(False, MAXMOD_THREADS="1")
    assert _child(False, MAXMOD_THREADS="5") == one + 4
    assert _child(False, OMP_NUM_THREADS="3,2") == one + 2


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="threads are counted on Linux")
def test_fork() -> None:
    """A child process has none of its parent's threads and starts its own."""
    _child(True, MAXMOD_THREADS="3")


def test_thread_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert host_library.thread_count(0) == 7
    assert host_library.thread_count(3) == 3
    for text in ("", "many", "0", "-1"):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert 1 <= host_library.thread_count(0) <= (os.cpu_count() or 1)
    monkeypatch.setattr(host_library, "_quota", lambda: 1)
    assert host_library.thread_count(0) == 1
