"""Tests of the preludes run in both dialects; tests of the cache get one of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prelude_runner import RUNNERS, Runner, unavailable_reason

import maxmod


@pytest.fixture
def cache_folder(tmp_path: Path) -> Iterator[Path]:
    """An empty kernel cache; returns the folder that holds its entries."""
    with maxmod.configure(cache_dir=str(tmp_path / "cache"), nocache=False):
        yield tmp_path / "cache" / "kernels"


@pytest.fixture(params=sorted(RUNNERS))
def dialect(request: pytest.FixtureRequest) -> str:
    """Each kernel dialect that can run here."""
    reason = unavailable_reason(request.param)
    if reason:
        pytest.skip(reason)
    return request.param


@pytest.fixture
def runner(dialect: str) -> Runner:
    """Runs statements in a dialect."""
    return RUNNERS[dialect]
