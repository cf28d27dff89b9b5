"""Samples of scatter, sorting, and choosing boxes; the oracles go element by element."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from helpers import ALL, FLOATS, NUMERIC, narrow, numbers, wide
from ops.samples import Sample, of_shapes

from maxmod.dtype import DType


def _last(old: Any, new: Any) -> Any:
    return new


def scattered(join: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def oracle(x: Any, updates: Any, indices: Any, axis: int) -> Any:
        result = x.copy()
        for place in np.ndindex(*indices.shape):
            target = list(place)
            target[axis] = indices[place]
            result[tuple(target)] = join(result[tuple(target)], updates[place])
        return result

    return oracle


def scattered_nd(join: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    def oracle(x: Any, updates: Any, indices: Any) -> Any:
        result = x.copy()
        for place in np.ndindex(*indices.shape[:-1]):
            target = tuple(indices[place])
            result[target] = join(result[target], updates[place])
        return result

    return oracle


def _operands(shape: Any, updates: Any, indices: Any, kind: Any = np.int64) -> Any:
    return lambda rng, dtype: [
        numbers(rng, dtype, shape),
        numbers(rng, dtype, updates),
        np.array(indices, dtype=kind),
    ]


_DISTINCT = [
    (_operands((5, 3), (2, 3), [[0, -1, 2], [4, 1, 0]]), {"axis": 0}),
    (_operands((2, 4), (2, 2), [[3, 0], [1, -4]], np.int32), {"axis": -1}),
    (_operands((3, 4), (2, 1), [[3], [0]]), {"axis": 1}),  # fewer rows than the input
    (_operands((4,), (0,), []), {"axis": 0}),
    (_operands((2, 3, 2), (2, 1, 2), [[[2, 0]], [[1, 1]]]), {"axis": 1}),
]
_EQUAL = [
    (_operands((3,), (7,), [0, 2, 0, -3, 2, 0, 0]), {"axis": 0}),
    (_operands((4, 2), (5, 2), [[1, 0], [1, 0], [1, 3], [0, 0], [1, 0]]), {"axis": 0}),
]
_DISTINCT_ND = [
    _operands((4, 3), (2, 3), [[2], [-4]]),
    _operands((4, 3), (2, 2), [[[0, 1], [-1, 2]], [[3, -3], [1, 1]]], np.int32),
    _operands((2, 3), (0, 3), np.zeros((0, 1))),
    _operands((2, 3), (2, 3), np.zeros((0,))),  # no axis is named: all of the input is replaced
]
_EQUAL_ND = [
    _operands((3, 2), (4, 2), [[1], [1], [-2], [0]]),
    _operands((3, 2), (5,), [[1, 0], [1, 0], [2, 1], [1, 0], [1, 0]]),
]


def _family(join: Any, dtypes: tuple[DType, ...], length: int = 1) -> dict[str, list[Sample]]:
    replaces = join is _last
    along = _DISTINCT if replaces else _DISTINCT + _EQUAL
    slices = _DISTINCT_ND if replaces else _DISTINCT_ND + _EQUAL_ND
    return {
        "": [Sample(make, scattered(join), attrs, dtypes, length) for make, attrs in along],
        "nd": [Sample(make, scattered_nd(join), {}, dtypes, length) for make in slices],
    }


def _scatters() -> dict[str, list[Sample]]:
    found: dict[str, list[Sample]] = {}
    kinds = {
        "": (_last, ALL, 1),
        "_add": (np.add, NUMERIC, 9),
        "_max": (np.maximum, ALL, 1),
        "_min": (np.minimum, ALL, 1),
        "_mul": (np.multiply, NUMERIC, 9),
    }
    for suffix, (join, dtypes, length) in kinds.items():
        samples = _family(join, dtypes, length)
        found[f"scatter{suffix}"] = samples[""]
        found[f"scatter_nd{suffix}"] = samples["nd"]
    return found


# ---- order -------------------------------------------------------------------------------------


def _row_order(row: Any, descending: bool) -> list[int]:
    """By insertion: larger first or smaller first, NaN is the largest, ties in order."""

    def key(i: int) -> Any:
        value = row[i]
        is_nan = bool(value != value)
        # uint64 does not become negative, so the order is made of a rank.
        return (is_nan, 0 if is_nan else value)

    ranks = sorted({key(i) for i in range(len(row))})
    sign = -1 if descending else 1
    return sorted(range(len(row)), key=lambda i: (sign * ranks.index(key(i)), i))


def argsorted(x: Any, ascending: bool) -> Any:
    return np.array(_row_order(x, not ascending), dtype=np.int64)


def chosen(descending: bool) -> Callable[..., Any]:
    def oracle(x: Any, k: int, axis: int) -> list[Any]:
        rows = np.moveaxis(x, axis, -1)
        positions = np.zeros((*rows.shape[:-1], k), dtype=np.int64)
        for place in np.ndindex(*rows.shape[:-1]):
            positions[place] = _row_order(rows[place], descending)[:k]
        values = np.take_along_axis(rows, positions, -1)
        return [np.moveaxis(values, -1, axis), np.moveaxis(positions, -1, axis)]

    return oracle


_CHOICES = [
    ((7,), {"k": 3, "axis": 0}),
    ((3, 4), {"k": 4, "axis": -1}),
    ((3, 4, 2), {"k": 2, "axis": 1}),
    ((2, 3), {"k": 0, "axis": -1}),
    ((0, 3), {"k": 2, "axis": 1}),
    ((2, 131), {"k": 3, "axis": -1}),  # long enough to leave most elements unsorted
    ((1, 64), {"k": 5, "axis": 1}),
]

# ---- boxes -------------------------------------------------------------------------------------


def suppressed(
    boxes: Any, scores: Any, most: Any, overlap: Any, least: Any, **attrs: Any
) -> np.ndarray[Any, Any]:
    """Pairwise, with corners put in order first."""

    def area(y1: float, x1: float, y2: float, x2: float) -> float:
        return max(y2 - y1, 0.0) * max(x2 - x1, 0.0)

    def ordered(box: Any) -> tuple[float, float, float, float]:
        y1, x1, y2, x2 = box
        return min(y1, y2), min(x1, x2), max(y1, y2), max(x1, x2)

    def ratio(a: Any, b: Any) -> float:
        a, b = ordered(a), ordered(b)
        common = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
        union = area(*a) + area(*b) - common
        return common / union if union > 0 else 0.0

    rows = []
    for batch, group in np.ndindex(*scores.shape[:2]):
        score = scores[batch, group]
        kept: list[int] = []
        for i in sorted(range(len(score)), key=lambda i: (-score[i], i)):
            if len(kept) == int(most) or not score[i] > float(least):
                break
            if all(ratio(boxes[batch, i], boxes[batch, j]) <= float(overlap) for j in kept):
                kept.append(i)
        rows += [(batch, group, i) for i in kept]
    return np.array(rows, dtype=np.int64).reshape(-1, 3)


def _boxes(rng: np.random.Generator, dtype: DType) -> list[Any]:
    corners = rng.uniform(0, 3, (2, 9, 4))
    scores = rng.uniform(0, 1, (2, 3, 9))
    limits = [np.array(3), np.array(0.3, np.float32), np.array(0.2, np.float32)]
    return [narrow(corners, dtype), narrow(scores, dtype), *limits]


def _number_kept(dtype: DType) -> dict[str, Any]:
    arrays = [np.asarray(a, np.float64) for a in _boxes(np.random.default_rng(3), dtype)]
    return {"out_dim": len(suppressed(*arrays))}


def _sorted_and_values(rng: np.random.Generator, dtype: DType) -> list[Any]:
    line = numbers(rng, dtype, (9,))
    return [line[np.argsort(wide(line), kind="stable")], numbers(rng, dtype, (2, 5))]


def _placed(x: Any, values: Any, right: bool) -> Any:
    below = x <= values[..., None] if right else x < values[..., None]
    return below.sum(axis=-1)


SAMPLES = {
    **_scatters(),
    "argsort": [
        Sample(of_shapes((n,)), argsorted, {"ascending": ascending})
        for n in (0, 1, 13)
        for ascending in (True, False)
    ],
    "top_k": [Sample(of_shapes(shape), chosen(True), attrs) for shape, attrs in _CHOICES],
    "bottom_k": [Sample(of_shapes(shape), chosen(False), attrs) for shape, attrs in _CHOICES],
    "count_boxes": [
        Sample(
            _boxes,
            lambda *arrays: np.array(len(suppressed(*arrays))),
            dtypes=FLOATS,
            special=False,
        )
    ],
    "searchsorted": [
        Sample(_sorted_and_values, _placed, {"right": right}, special=False)
        for right in (False, True)
    ],
    "select_boxes": [Sample(_boxes, suppressed, _number_kept, FLOATS, special=False)],
}
