"""CUDA kernels need a C++ compiler to run on the host."""

from __future__ import annotations

from typing import Any

import cuda_shim
import pytest


def pytest_collection_modifyitems(items: list[Any]) -> None:
    reason = cuda_shim.unavailable_reason()
    for item in items:
        if reason and "cuda" in item.path.parts:
            item.add_marker(pytest.mark.skip(reason=f"running CUDA kernels on the host {reason}"))
