"""Too little memory for a kernel or an op is an error with numbers; afterwards all is as before."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from maxmod.backends.host import compiler as host_compiler

resource = pytest.importorskip("resource", reason="the system has no limits of a process")

# The child has its own limit of address space: what it may still map, in MiB, is `room`.
_CHILD = """
import contextlib, resource, sys
import numpy as np
import maxmod
from maxmod import DType, Tensor, functional as F
from maxmod.errors import OutOfMemoryError
from maxmod.runtime.compiled import compile_function
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[0]) * resource.getpagesize()

@contextlib.contextmanager
def room(mebibytes):
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used() + (mebibytes << 20), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)

def refused(mebibytes, call):
    with room(mebibytes):
        try:
            call()
        except OutOfMemoryError as error:
            return str(error)
    raise SystemExit("nothing was refused")
"""
_KERNEL = """
types = [TensorType(DType.bfloat16, shape, CPU_REF) for shape in (["n", 32768], [32768, 16])]
model = compile_function(lambda x, y: F.relu(x @ y), types, name="f", parameters={})
y = F.full([32768, 16], 0.5, dtype=DType.bfloat16, device=CPU_REF)
small, large = (F.full([n, 32768], 0.25, dtype=DType.bfloat16, device=CPU_REF) for n in (2, 64))
model(small, y)
message = refused(3, lambda: model(large, y))
assert "cpu: out of memory in the kernel matmul_relu, which needs " in message, message
assert "total_memory" in message and "Hint: " in message, message
for x in (small, large):
    assert (np.asarray(model(x, y).cast(DType.float32)) == 4096).all()
print("kernel ok")
"""
_EAGER = """
x = Tensor(np.ones((1024, 4096), np.float32))
for call in (lambda: x + x, lambda: F.softmax(x), lambda: F.concat([x, x]), lambda: x @ x.T,
             lambda: Tensor.zeros([4096, 4096], dtype=DType.float64, device=CPU_REF)):
    message = refused(3, call)
    assert "cpu: out of memory in " in message and "Hint: " in message, message
    assert "MiB" in message, message
assert (x + x).to_numpy().sum() == 2 * x.shape[0] * 4096
print("eager ok")
"""


def _run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _CHILD + code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        # Heaps of other threads, which glibc falls back on, have address space in advance.
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},
    )
    return f"{done.stdout}{done.returncode}"


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
@pytest.mark.skipif(
    bool(host_compiler.unavailable_reason()), reason=host_compiler.unavailable_reason()
)
def test_kernel() -> None:
    assert _run(_KERNEL) == "kernel ok\n0"


@pytest.mark.skipif(sys.platform != "linux", reason="limits address space as Linux does")
def test_ops() -> None:
    assert _run(_EAGER) == "eager ok\n0"
