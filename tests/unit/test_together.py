"""Cases that run as one test: all of them run, and a failure names those that failed."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from together import by_first

from maxmod.dtype import DType


def test_all_cases_of_a_subject_run() -> None:
    seen: list[Any] = []

    @by_first("name", "number", cases=[("a", 1), ("b", 2), ("a", 3)])
    def subject(name: str, number: int) -> None:
        seen.append((name, number))

    assert list(inspect.signature(subject).parameters) == ["name"]
    subject(name="a")
    assert seen == [("a", 1), ("a", 3)]


def test_a_failure_names_the_cases() -> None:
    @by_first("name", "dtype", cases=[("a", DType.int8), ("a", DType.bool), ("a", DType.int16)])
    def subject(name: str, dtype: DType) -> None:
        assert dtype is DType.bool

    with pytest.raises(ExceptionGroup, match="2 of 3 cases of a failed") as caught:
        subject(name="a")
    notes = [error.__notes__ for error in caught.value.exceptions]
    assert notes == [["in the case a, int8"], ["in the case a, int16"]]
