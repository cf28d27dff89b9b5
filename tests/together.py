"""Many small cases as one test for each subject: pytest spends 2 ms of a processor on each test.

    @by_first("name", "dtype", cases=[("add", DType.int8), ("add", DType.int16), ...])
    def test_values(name: str, dtype: DType) -> None: ...

is `test_values[add]` and so on. All cases of a test run, and a failure names each case that failed.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from readable_ids import readable_id


def by_first(
    *names: str, cases: Sequence[tuple[Any, ...]]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Parametrises a test by the first of its arguments; the cases of each run in one test.

    Args:
        names: The arguments of the test.
        cases: Their values. The first of them is a text.
    """
    groups: dict[str, list[tuple[Any, ...]]] = {}
    for case in cases:
        assert len(case) == len(names), case
        groups.setdefault(case[0], []).append(case)

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def all_cases(**first: str) -> None:
            errors = []
            (subject,) = first.values()
            for case in groups[subject]:
                try:
                    test(*case)
                except pytest.skip.Exception as error:  # it would hide the cases after it
                    raise AssertionError(f"a case of a group cannot skip: {error}") from None
                except Exception as error:
                    error.add_note(f"in the case {', '.join(map(_text, case))}")
                    errors.append(error)
            if errors:
                count = len(groups[subject])
                raise ExceptionGroup(f"{len(errors)} of {count} cases of {subject} failed", errors)

        parameter = inspect.Parameter(names[0], inspect.Parameter.KEYWORD_ONLY)
        all_cases.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
        return pytest.mark.parametrize(names[0], groups)(all_cases)

    return decorate


def _text(value: Any) -> str:
    return readable_id(value) or str(value)
