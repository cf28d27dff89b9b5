"""How many examples a fuzzer runs: a few in every run of the tests, N with `pytest --fuzz N`."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import hypothesis
from hypothesis import HealthCheck, settings

from maxmod.errors import GraphError, MaxmodError, MaxmodWarning

_asked: int | None = None


def ask(count: int | None) -> None:
    """Takes what `--fuzz` says; called before the files of fuzzers are imported."""
    global _asked
    _asked = count


def is_long() -> bool:
    """Whether this is a long run, which looks for new inputs."""
    return _asked is not None


def fuzzed(count: int) -> Callable[[Any], Any]:
    """Decorates a test that hypothesis draws inputs for; `count` examples without `--fuzz`."""
    options: dict[str, Any] = {"derandomize": False} if is_long() else {}
    return settings(
        max_examples=_asked or count,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **options,
    )


@contextmanager
def right_or_refused() -> Iterator[None]:
    """What is inside may raise an error of maxmod that has a message, and nothing else.

    Warnings of maxmod are part of being right; any other warning stays an error.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MaxmodWarning)
        try:
            yield
        except GraphError:  # says of itself that it is never the user's fault
            raise
        except MaxmodError as error:
            assert str(error).strip(), f"{type(error).__name__} without a message"
            hypothesis.event(f"refused: {type(error).__name__}")
            return
    hypothesis.event("right")
