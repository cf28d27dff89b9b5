"""Loading libraries of host kernels, and how their threads wait."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os


def open_library(path: str) -> ctypes.CDLL:
    """Loads a library of kernels."""
    _load_openmp()
    return ctypes.CDLL(path)


# How long idle threads of OpenMP spin before they sleep. By default they spin for milliseconds and
# take the cores away from the BLAS call that follows a kernel: GPT-2 small, 128 tokens, took 0.76 s
# that way and 0.22 s with these settings (2 cores of an AMD EPYC, 2026-11-23). A user's own
# settings win.
_SPINNING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
_USER_SPINNING = ("OMP_WAIT_POLICY", *_SPINNING)


@functools.cache
def _load_openmp() -> None:
    """Loads the OpenMP libraries, which read their settings once, when they are loaded."""
    if any(name in os.environ for name in _USER_SPINNING):
        return
    os.environ.update(_SPINNING)
    try:
        for name in ("libgomp.so.1", "libomp.so.5"):
            with contextlib.suppress(OSError):
                ctypes.CDLL(name)
    finally:
        for name in _SPINNING:
            del os.environ[name]
