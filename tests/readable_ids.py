"""Ids of parametrised tests: containers, arrays and tensors written out.

pytest names such a value by its argument and number (`shape3`), so that a failing test does not say
which case it was. A function has no text to show: a test that takes lambdas names them with
`pytest.param(..., id=...)` or takes the keys of a dictionary.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath
from types import EllipsisType
from typing import Any

import numpy as np

from maxmod import Tensor, TensorType
from maxmod.values.dim import Dim

LONGEST = 60  # characters of one value in an id
_PLAIN = (str, bool, int, float, complex, type(None))  # pytest shows these well itself
_PRINTED = (*_PLAIN, bytes, np.generic, Dim, PurePath, range, EllipsisType)
_BRACKETS = {tuple: "()", list: "[]"}


def readable_id(value: Any) -> str | None:
    """Returns the id of a value, or None to leave it to pytest."""
    if isinstance(value, _PLAIN):
        return None
    text = _text(value)
    if text is None:
        return None
    # Workers send ids as UTF-8, which has no single surrogates.
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def is_unreadable(part: str, arguments: Iterable[str]) -> bool:
    """True if a part of an id is a lambda, or an argument's name and number as pytest makes it."""
    return part.startswith("<lambda>") or any(
        re.fullmatch(rf"{re.escape(name)}\d+", part) for name in arguments
    )


def _text(value: Any) -> str | None:
    if isinstance(value, _PRINTED):
        return str(value)
    if isinstance(value, np.ndarray):
        return f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, Tensor):
        return _text(value.type)
    if isinstance(value, TensorType):
        return f"{value.dtype.name}{_item(list(value.sizes))}"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}={_item(item)}" for key, item in value.items()) + "}"
    if isinstance(value, slice):
        return ":".join("" if end is None else _item(end) for end in _ends(value))
    if isinstance(value, set):
        return "{" + ",".join(sorted(map(_item, value))) + "}"  # the same in every process
    for kind, (left, right) in _BRACKETS.items():
        if isinstance(value, kind):
            return left + ",".join(map(_item, value)) + right
    name = getattr(value, "name", None) or getattr(value, "__name__", type(value).__name__)
    return None if name == "<lambda>" else name


def _ends(value: slice) -> tuple[Any, ...]:
    ends = (value.start, value.stop, value.step)
    return ends if value.step is not None else ends[:2]


def _item(value: Any) -> str:
    return _text(value) or "lambda"
