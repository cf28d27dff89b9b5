"""Kernels of models are not optimised here; `tests/README.md` says where optimised ones run."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def _unoptimised(request: pytest.FixtureRequest) -> None:
    """For every file of the folder that does not say `OPTIMISED`."""
    if not getattr(request.module, "OPTIMISED", False):
        request.getfixturevalue("unoptimised_host_kernels")
