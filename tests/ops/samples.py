"""One or more samples for each op that is not elementwise: operands, attributes, oracle.

An op of the registry without a sample fails `test_registry.py`. Families that have a file of their
own for tests put their samples into `samples_<family>.py`, in a dictionary `SAMPLES` like this one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from helpers import ALL, FLOATS, NUMERIC, narrow, numbers

from maxmod.dtype import DType, compute_dtype
from maxmod.values.device import CPU_REF

Make = Callable[[np.random.Generator, DType], Sequence[np.ndarray[Any, Any]]]


@dataclass(frozen=True)
class Sample:
    """How to test one op.

    Attributes:
        make: `make(rng, dtype)` gives the operands.
        oracle: `oracle(*operands, **attrs)` on wide arrays gives the expected result, or a list.
        attrs: Static arguments; a function of the dtype for ops without operands.
        dtypes: The dtypes that the op accepts for its first operand; all others must be refused.
        length: Number of terms in the longest sum behind one element.
        special: Whether NaN and infinities in the first operand are compared too.
        refuses: Whether dtypes that are not listed must be refused.
        ulps: How much more than once the result is rounded.
        portable: Whether the static arguments fit every device.
    """

    make: Make
    oracle: Callable[..., Any]
    attrs: Any = field(default_factory=dict)
    dtypes: tuple[DType, ...] = ALL
    length: int = 1
    special: bool = True
    refuses: bool = True
    ulps: int = 1
    portable: bool = True


def of_shapes(*shapes: tuple[int, ...]) -> Make:
    """Operands of these shapes, all of the dtype that is tested."""
    return lambda rng, dtype: [numbers(rng, dtype, shape) for shape in shapes]


def with_indices(shape: tuple[int, ...], *indices: Any, dtype: Any = np.int64) -> Make:
    """One operand of a shape, and fixed integer operands."""
    return lambda rng, kind: [
        numbers(rng, kind, shape),
        *[np.array(array, dtype=dtype) for array in indices],
    ]


# ---- reductions --------------------------------------------------------------------------------


def _reduction(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, axis: fn(x, axis=axis, keepdims=True)


def _sum(x: Any, axis: int, **kwargs: Any) -> Any:
    return np.sum(x, axis=axis, dtype=x.dtype, **kwargs)


def _mean(x: Any, axis: int) -> Any:
    if x.dtype.kind == "f":
        return np.mean(x, axis=axis, keepdims=True) if x.shape[axis] else np.sum(x, axis) + np.nan
    total = x.astype(object).sum(axis=axis, keepdims=True)
    divide = np.vectorize(lambda t: int(math.copysign(abs(t) // x.shape[axis], t)), otypes=[object])
    return divide(total).astype(x.dtype)


def _cumsum(x: Any, axis: int, exclusive: bool = False, reverse: bool = False) -> Any:
    moved = np.moveaxis(x, axis, 0)
    moved = moved[::-1] if reverse else moved
    rows = []
    running = np.zeros_like(moved[:1].sum(axis=0))
    for row in moved:
        rows.append(running if exclusive else running + row)
        running = running + row
    result = np.stack(rows) if rows else moved
    return np.moveaxis(result[::-1] if reverse else result, 0, axis)


def _axes(fn: Any, dtypes: tuple[DType, ...], length: int = 1) -> list[Sample]:
    return [
        Sample(of_shapes((7,)), fn, {"axis": 0}, dtypes, length * 7),
        Sample(of_shapes((3, 4, 5)), fn, {"axis": -2}, dtypes, length * 4),
        Sample(of_shapes((2, 131)), fn, {"axis": 1}, dtypes, length * 131),
        Sample(of_shapes((0, 3)), fn, {"axis": 1}, dtypes),
    ]


_REDUCTIONS = {
    "reduce_sum": [
        *_axes(_reduction(_sum), NUMERIC),
        Sample(of_shapes((3, 0)), _reduction(_sum), {"axis": 1}, NUMERIC),
    ],
    "reduce_prod": [
        Sample(of_shapes((3, 4)), _reduction(np.prod), {"axis": 0}, NUMERIC, 3),
        Sample(of_shapes((3, 0)), _reduction(np.prod), {"axis": 1}, NUMERIC),
    ],
    "reduce_max": _axes(_reduction(np.max), ALL),
    "reduce_min": _axes(_reduction(np.min), ALL),
    "reduce_mean": _axes(_mean, NUMERIC),
    "reduce_argmax": _axes(_reduction(np.argmax), ALL),
    "reduce_argmin": _axes(_reduction(np.argmin), ALL),
    "cumprod": [
        Sample(of_shapes((3, 5)), np.cumprod, {"axis": axis}, NUMERIC, 5) for axis in (0, -1)
    ],
    "cumsum": [
        Sample(
            of_shapes((3, 5)),
            _cumsum,
            {"axis": axis, "exclusive": exclusive, "reverse": reverse},
            NUMERIC,
            5,
        )
        for axis in (0, -1)
        for exclusive in (False, True)
        for reverse in (False, True)
    ],
}

# ---- shapes ------------------------------------------------------------------------------------


def _slice(x: Any, starts: Any, stops: Any, steps: Any) -> Any:
    return x[tuple(slice(*bounds) for bounds in zip(starts, stops, steps))]


def _pad(x: Any, before: Any, after: Any, value: Any) -> Any:
    return np.pad(x, list(zip(before, after)), constant_values=value)


_SHAPES = {
    "reshape": [
        Sample(of_shapes((2, 3, 4)), np.reshape, {"shape": (4, -1)}),
        Sample(of_shapes((0, 3)), np.reshape, {"shape": (3, 5, 0)}),
        Sample(of_shapes(()), np.reshape, {"shape": (1, 1)}),
    ],
    "permute": [
        Sample(of_shapes((2, 3, 4)), lambda x, dims: np.transpose(x, dims), {"dims": (2, 0, -2)}),
        Sample(of_shapes(()), lambda x, dims: x, {"dims": ()}),
    ],
    "broadcast": [
        Sample(of_shapes((3, 1)), np.broadcast_to, {"shape": (2, 3, 4)}),
        Sample(of_shapes(()), np.broadcast_to, {"shape": (2, 0)}),
    ],
    "slice": [
        Sample(of_shapes((7, 5)), _slice, {"starts": (1, 0), "stops": (6, 5), "steps": (2, 1)}),
        Sample(of_shapes((3,)), _slice, {"starts": (3,), "stops": (3,), "steps": (1,)}),
    ],
    "flip": [
        Sample(of_shapes((2, 3, 4)), np.flip, {"axis": (0, -1)}),
        Sample(of_shapes((5,)), np.flip, {"axis": None}),
        Sample(of_shapes((3, 0)), np.flip, {"axis": 0}),
        Sample(of_shapes(()), np.flip, {"axis": ()}),
    ],
    "concat": [
        Sample(
            of_shapes((2, 3), (2, 1), (2, 0)),
            lambda *xs, axis: np.concatenate(xs, axis),
            {"axis": -1},
        ),
    ],
    "rebind": [
        Sample(of_shapes((2, 3)), lambda x, shape, message: x, {"shape": (2, 3), "message": ""})
    ],
    "transfer_to": [Sample(of_shapes((2, 3)), lambda x, device: x, {"device": CPU_REF})],
    "pad_constant": [
        Sample(of_shapes((2, 3)), _pad, {"before": (0, 2), "after": (1, 0), "value": 1}),
        Sample(of_shapes((0,)), _pad, {"before": (1,), "after": (1,), "value": 0}),
    ],
}

# ---- creation ----------------------------------------------------------------------------------


def _created(**attrs: Any) -> Callable[[DType], dict[str, Any]]:
    return lambda dtype: {"dtype": dtype, "device": CPU_REF, **attrs}


def _no_operands(rng: np.random.Generator, dtype: DType) -> list[Any]:
    return []


def _normal(shape: Any, mean: float, std: float, dtype: DType, seed: int, device: Any) -> Any:
    count = math.prod(shape)
    words = np.random.Philox(key=seed).random_raw(count + count % 2)
    bits = 53 if dtype is DType.float64 else 24
    steps = (words >> np.uint64(64 - bits)).astype(np.float64)
    radius = np.sqrt(-2 * np.log((steps[::2] + 1) * 2.0**-bits))
    angle = 2 * np.pi * steps[1::2] * 2.0**-bits
    pairs = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    values = (mean + std * pairs.reshape(-1)[:count]).reshape(shape)
    return values if dtype.is_float() else np.rint(values)


def _uniform(shape: Any, low: Any, high: Any, dtype: DType, seed: int, device: Any) -> Any:
    words = np.random.Philox(key=seed).random_raw(math.prod(shape))
    bits = 53 if dtype is DType.float64 or not dtype.is_float() else 24
    values = (words >> np.uint64(64 - bits)).astype(np.float64) * 2.0**-bits * (high - low) + low
    if not dtype.is_float():
        return np.floor(values).reshape(shape)
    rounded = narrow(values, compute_dtype(dtype))
    below = np.nextafter(narrow(high, dtype), narrow(low, dtype)).astype(np.float64)
    return np.minimum(rounded.astype(np.float64), below).reshape(shape)


_SOURCES = {
    "full": [
        Sample(
            _no_operands,
            lambda shape, value, dtype, device: np.full(shape, value),
            _created(shape=shape, value=1),
            refuses=False,
        )
        for shape in ((), (2, 0), (3, 5))
    ],
    "iota": [
        Sample(
            _no_operands,
            lambda count, dtype, device: np.arange(count),
            _created(count=count),
            NUMERIC,
        )
        for count in (0, 1, 13)
    ],
    "random_normal": [
        Sample(
            _no_operands,
            _normal,
            _created(shape=shape, mean=10.0, std=2.0, seed=seed),
            NUMERIC,
            # Sine and cosine are exact to the size of the radius only.
            length=3,
        )
        for shape, seed in (((), 0), ((3, 5), 2**63 + 1), ((0,), 1))
    ],
    "random_uniform": [
        Sample(
            _no_operands,
            _uniform,
            _created(shape=shape, low=low, high=high, seed=seed),
            NUMERIC,
            length=2,
        )
        for shape, low, high, seed in (((), 0, 1, 0), ((3, 5), 2, 7, 9), ((0,), 0, 1, 1))
    ],
}

# ---- indices -----------------------------------------------------------------------------------


def _gather_nd(x: Any, indices: Any, batch_dims: int = 0) -> Any:
    result = np.empty((*indices.shape[:-1], *x.shape[batch_dims + indices.shape[-1] :]), x.dtype)
    for place in np.ndindex(*indices.shape[:-1]):
        result[place] = x[(*place[:batch_dims], *indices[place])]
    return result


def _update(x: Any, source: Any, **bounds: Any) -> Any:
    result = x.copy()
    _slice(result, **bounds)[...] = source
    return result


def _with_position(shape: Any, rows: Any, position: int) -> Make:
    return lambda rng, dtype: [*of_shapes(shape, rows)(rng, dtype), np.array(position, np.int64)]


def _update_rows(x: Any, source: Any, position: Any, axis: int) -> Any:
    kept = np.delete(x, np.s_[int(position) : int(position) + source.shape[axis]], axis)
    return np.insert(kept, [int(position)] * source.shape[axis], source, axis)


_INDICES = {
    "gather": [
        Sample(
            with_indices((5, 3), [[0, -1], [4, 2]], dtype=kind),
            lambda x, i, axis: np.take(x, i.astype(np.int64), axis),
            {"axis": 0},
        )
        for kind in (np.int64, np.int32)
    ]
    + [
        Sample(with_indices((5, 3), 2), np.take, {"axis": -1}),
        Sample(with_indices((5, 3), []), np.take, {"axis": 1}),
    ],
    "gather_nd": [
        Sample(with_indices((4, 3, 2), [[0, 1], [-1, 2], [3, -3]]), _gather_nd, {"batch_dims": 0}),
        Sample(with_indices((2, 4, 3), [[[0], [3]], [[-1], [1]]]), _gather_nd, {"batch_dims": 1}),
        Sample(with_indices((2, 3), np.zeros((2, 0))), _gather_nd, {"batch_dims": 0}),
    ],
    "update_slice": [
        Sample(
            of_shapes((5, 4), (2, 4)),
            _update,
            {"starts": (1, 0), "stops": (5, 4), "steps": (2, 1)},
        ),
        Sample(of_shapes((3,), (0,)), _update, {"starts": (3,), "stops": (3,), "steps": (1,)}),
    ],
    "update_rows": [
        Sample(_with_position((5, 4), (2, 4), 3), _update_rows, {"axis": 0}),
        Sample(_with_position((2, 1, 5, 3), (2, 1, 1, 3), 0), _update_rows, {"axis": -2}),
        Sample(_with_position((3,), (0,), 3), _update_rows, {"axis": 0}),
    ],
    "argwhere": [
        Sample(
            lambda rng, dtype: [narrow([[1, 0, 2], [0, 0, 1]], dtype)],
            lambda x, out_dim: np.argwhere(x),
            {"out_dim": 3},
            special=False,
        )
    ],
    "repeated_positions": [
        Sample(
            lambda rng, dtype: [narrow([2, 0, 3, 1], dtype)],
            lambda x, out_dim: np.repeat(np.arange(4), x),
            {"out_dim": 6},
            (DType.int64,),
            refuses=False,
        )
    ],
}

# ---- contractions and normalisations -----------------------------------------------------------


def _softmax(x: Any, axis: int) -> Any:
    e = np.exp(x - np.max(x, axis=axis, keepdims=True))
    return e / np.sum(e, axis=axis, keepdims=True)


def _logsoftmax(x: Any, axis: int) -> Any:
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def _layer_norm(x: Any, gamma: Any, beta: Any, epsilon: float) -> Any:
    centered = x - np.mean(x, axis=-1, keepdims=True)
    return centered / np.sqrt(np.mean(centered**2, -1, keepdims=True) + epsilon) * gamma + beta


def _rms_norm(
    x: Any, weight: Any, epsilon: float, weight_offset: float, multiply_before_cast: bool
) -> Any:
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + epsilon) * (weight + weight_offset)


_MATRIX_SHAPES = [
    ((3, 4), (4, 5)),
    ((4,), (4, 5)),
    ((3, 4), (4,)),
    ((4,), (4,)),
    ((2, 1, 3, 4), (5, 4, 2)),
    ((0, 4), (4, 3)),
    ((3, 0), (0, 2)),
]
_CONTRACTIONS = {
    "matmul": [
        Sample(of_shapes(lhs, rhs), np.matmul, dtypes=NUMERIC, length=9, special=False)
        for lhs, rhs in _MATRIX_SHAPES
    ],
    "softmax": [
        Sample(of_shapes((3, 7)), _softmax, {"axis": axis}, FLOATS, 7) for axis in (0, 1, -1)
    ],
    "logsoftmax": [
        Sample(of_shapes((3, 7)), _logsoftmax, {"axis": axis}, FLOATS, 7) for axis in (0, 1)
    ],
    "layer_norm": [
        Sample(of_shapes((2, 3, n), (n,), (n,)), _layer_norm, {"epsilon": 1e-3}, FLOATS, n)
        for n in (1, 64)
    ],
    "rms_norm": [
        Sample(
            of_shapes((2, 3, 33), (33,)),
            _rms_norm,
            {"epsilon": 1e-3, "weight_offset": offset, "multiply_before_cast": early},
            FLOATS,
            33,
            ulps=1 if early else 2,
        )
        for offset in (0.0, 1.0)
        for early in (False, True)
    ],
}

SAMPLES: dict[str, list[Sample]] = {
    **_REDUCTIONS,
    **_SHAPES,
    **_SOURCES,
    **_INDICES,
    **_CONTRACTIONS,
}
