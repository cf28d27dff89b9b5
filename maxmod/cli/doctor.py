"""`maxmod doctor`: what maxmod finds on this machine, for bug reports."""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import sys

from maxmod import backends
from maxmod.backends.devices import Accelerator
from maxmod.backends.host import compiler as host_compiler
from maxmod.config import __version__
from maxmod.kernel import cache as kernel_cache
from maxmod.values.device import DeviceRef

_PACKAGES = ("numpy", "ml_dtypes", "safetensors", "tokenizers", "tqdm")
_CUPY = ("cupy-cuda13x", "cupy-cuda12x", "cupy")  # names of its builds


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds nothing: the subcommand has no arguments."""


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    rows = [
        ("maxmod", __version__),
        ("python", f"{platform.python_version()} ({sys.executable})"),
        ("system", f"{platform.platform()}, {os.cpu_count()} cores"),
        *((name, _version(name) or "not installed") for name in _PACKAGES),
        ("cupy", _cupy()),
        *_devices(),
        ("C compiler", _compiler()),
        ("cache", _cache()),
    ]
    width = max(len(name) for name, _ in rows)
    for name, text in rows:
        print(f"{name.ljust(width)}  {text}")
    return 0


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cupy() -> str:
    found = [f"{_version(name)} ({name})" for name in _CUPY if _version(name)]
    return ", ".join(found) or "not installed"


def _devices() -> list[tuple[str, str]]:
    backend = backends.get(DeviceRef.GPU())
    count = backend.device_count()
    if count == 0:
        return [("gpu", f"none: {backend.unavailable_reason()}")]
    rows = []
    for index in range(count):
        device = Accelerator(index)
        total = device.stats.get("total_memory", 0)
        rows.append((f"gpu:{index}", f"{device.architecture_name}, {total / 1e9:.1f} GB"))
    return rows


def _compiler() -> str:
    found = host_compiler.find()
    if found is None:
        return f"none: {host_compiler.unavailable_reason()}"
    return f"{found.path}: {found.version}"


def _cache() -> str:
    info = kernel_cache.info()
    state = "" if info.writable else ", not writable"
    return f"{info.path}: {info.entries} kernels, {info.nbytes / 1e6:.1f} MB{state}"
