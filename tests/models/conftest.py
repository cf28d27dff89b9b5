"""Kernels of models are not optimised here; `tests/README.md` says where optimised ones run."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _unoptimised(unoptimised_host_kernels: None) -> None:
    """For every file of the folder."""
