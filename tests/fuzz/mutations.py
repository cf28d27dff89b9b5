"""Changes to files that are right: other bytes, and other values in JSON."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

_INTEGERS = [0, 1, -1, 2, 3, 7, 255, 256, 65536, 2**31 - 1, 2**31, 2**53 + 1, 2**63, 10**30]
_FLOATS = [0.0, -0.0, 0.5, 1.0, 1e-30, 1e30, 1e308, float("inf"), -float("inf"), float("nan")]
_TEXTS = ["", " ", "a", "\0", "é", "\U0001f600", "\ud800", "..", "../x", "null", "true", "x" * 300]


def leaves() -> st.SearchStrategy[Any]:
    """Null, booleans, numbers and texts, odd ones above all."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.sampled_from(_INTEGERS),
        st.sampled_from(_FLOATS),
        st.sampled_from(_TEXTS),
        st.text(max_size=8),
    )


def values() -> st.SearchStrategy[Any]:
    """Any JSON, not deep."""
    return st.recursive(
        leaves(),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
        ),
        max_leaves=4,
    )


@st.composite
def changed_json(draw: st.DrawFn, table: Any, *, names: tuple[str, ...] = ()) -> Any:
    """JSON with one to three changes: a value replaced, moved, left out, repeated or added.

    Args:
        draw: Given by hypothesis.
        table: What is changed; it stays as it is.
        names: Fields that may be added, besides those that are somewhere in the table.
    """
    table = copy.deepcopy(table)
    for _ in range(draw(st.integers(1, 3))):
        places = _places(table)
        if not places:
            return draw(values())
        container, key = draw(st.sampled_from(places))
        action = draw(st.sampled_from(["replace", "near", "move", "remove", "add", "wrap"]))
        if action == "remove":
            del container[key]
        elif action == "move":
            other, its = draw(st.sampled_from(places))
            container[key] = copy.deepcopy(other[its])
        elif action == "wrap":
            container[key] = [container[key]] if draw(st.booleans()) else {"a": container[key]}
        elif action == "near":
            container[key] = draw(_near(container[key]))
        elif action == "replace" or isinstance(container, list):
            container[key] = draw(values())
        else:
            known = [*names, *(k for _, k in places if isinstance(k, str))]
            container[draw(st.sampled_from(known))] = draw(values())
    return table


def _near(value: Any) -> st.SearchStrategy[Any]:
    """A value of the same type, or the same value in another one."""
    if isinstance(value, bool):
        return st.sampled_from([not value, int(value), str(value).lower()])
    if isinstance(value, int):
        return st.sampled_from([value + 1, value - 1, value * 2, -value, float(value), str(value)])
    if isinstance(value, float):
        return st.sampled_from([value * 2, -value, 1 / value if value else 1.0, str(value)])
    if isinstance(value, str):
        return st.sampled_from([value + "x", value[1:], value.upper(), value * 2, [value]])
    if isinstance(value, list):
        return st.sampled_from([value * 2, value[1:], value[::-1], []])
    return st.sampled_from([{}, [], None])


def _places(table: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of nested JSON."""
    found: list[tuple[Any, Any]] = []
    waiting = [table]
    while waiting:
        item = waiting.pop()
        if not isinstance(item, (dict, list)):
            continue
        keys = list(item) if isinstance(item, dict) else range(len(item))
        found += [(item, key) for key in keys]
        waiting += [item[key] for key in keys]
    return found


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes, *, near: int | None = None) -> bytes:
    """Bytes with one to four changes: overwritten, cut out, cut off, put in, repeated.

    Args:
        draw: Given by hypothesis.
        data: What is changed.
        near: Most changes are in so many bytes at the start, where headers are.
    """
    for _ in range(draw(st.integers(1, 4))):
        end = len(data) if near is None or draw(st.integers(0, 3)) == 0 else min(near, len(data))
        at = draw(st.integers(0, max(0, end - 1)))
        size = draw(st.integers(1, 8))
        new = draw(st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from(_NUMBERS)))
        action = draw(st.sampled_from(["write", "write", "cut", "end", "put", "repeat"]))
        if action == "write":
            data = data[:at] + new + data[at + len(new) :]
        elif action == "cut":
            data = data[:at] + data[at + size :]
        elif action == "end":
            data = data[:at]
        elif action == "put":
            data = data[:at] + new + data[at:]
        else:
            data = data[: at + size] + data[at:]
    return data


_NUMBERS = [b"\0", b"\xff", b"\0" * 4, b"\xff" * 4, b"\xff" * 8, b"\x7f" + b"\xff" * 3, b"0", b"-"]
_NUMBERS += [b"{", b"}", b"[", b'"', b",", b"9" * 8, b"\xef\xbb\xbf", b"\r\n"]
