"""Functions of the namespace inside a compiled `Module`, and on an accelerator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from array_api.both import numbers, numpy_of, ours

from maxmod import array_api as xp
from maxmod.dtype import DType
from maxmod.runtime.compiled import compile_function
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

X = numbers("float32", (3, 4))


def _sort_rows(x: xp.Array) -> xp.Array:
    order = xp.argsort(x, axis=1, descending=True)
    return xp.take_along_axis(x, order, axis=1)


def _store(x: xp.Array) -> xp.Array:
    x = xp.asarray(x, copy=True)
    x[:, ::-2] = 7
    x[0, 0] = x[1, 1] * 2
    x += 1
    return x


PROGRAMS: dict[str, Callable[[xp.Array], xp.Array]] = {
    "softmax": lambda x: xp.exp(x - xp.max(x, axis=1, keepdims=True)) / xp.sum(xp.exp(x)),
    "statistics": lambda x: xp.mean(x, axis=0) + xp.std(x, axis=0, correction=1),
    "slices": lambda x: x[::-1, 1:9:2] - x[-1, ::-2],
    "stores": _store,
    "masks": lambda x: xp.where(x > 0, xp.sqrt(xp.abs(x)), xp.sign(x)),
    "order": _sort_rows,
    "searching": lambda x: xp.searchsorted(xp.linspace(-4, 4, 9), x),
    "angles": lambda x: xp.atan2(xp.tan(x), xp.cosh(x)) + xp.hypot(x, 2.0) + xp.log2(xp.abs(x) + 1),
    "rounding": lambda x: xp.floor_divide(x, 0.7) + xp.remainder(x, 0.7) + xp.round(x),
    "logaddexp": lambda x: xp.logaddexp(x, xp.flip(x, axis=0)),
    "bits": lambda x: (xp.astype(xp.round(x), xp.int32) << 2) ^ 5,
    "joining": lambda x: xp.concat([xp.roll(x, 1, axis=1), xp.tile(x, (2, 1))], axis=0),
    "triangles": lambda x: xp.tril(x) + xp.triu(x, k=1) - xp.eye(3, 4),
    "cumulative": lambda x: xp.cumulative_prod(x, axis=1) + xp.cumulative_sum(x, axis=0),
    "differences": lambda x: xp.diff(x, axis=0, n=2),
    "products": lambda x: xp.tensordot(x, x.mT, axes=1) + xp.vecdot(x, x),
    "norms": lambda x: xp.linalg.vector_norm(x, axis=1, ord=3) + xp.linalg.matrix_norm(x, ord=1),
    "cross": lambda x: xp.linalg.cross(x[:, :3], x[:, 1:]),
    "traces": lambda x: xp.linalg.trace(x) * xp.linalg.diagonal(x),
    "filled": lambda x: xp.full((2, 3), xp.max(x)) + xp.full_like(x[:2, :3], x[0, 0]),
    "sequences": lambda x: xp.asarray([[x[0, 0], 2.0], [xp.max(x), x[1, 1]]]),
    "truth": lambda x: xp.all(x < 9) | xp.any(xp.isnan(x), axis=0),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled(name: str) -> None:
    """Compiled, on the host: the same as eager."""
    fn = PROGRAMS[name]
    model = compile_function(
        lambda x: fn(xp.asarray(x)).tensor,
        [TensorType(DType.float32, [3, 4], CPU_REF)],
        name=name,
        parameters={},
    )
    wanted = fn(ours(X))
    found = model(ours(X).tensor)
    assert isinstance(found, Tensor)
    assert found.type == wanted.tensor.type
    np.testing.assert_allclose(found.to_numpy(), numpy_of(wanted), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n not in ("traces", "cross")])
def test_on_an_accelerator(name: str, emulated_accelerator: Any) -> None:
    """Results stay where the operands are; new arrays go there by default."""
    fn = PROGRAMS[name]
    found = fn(ours(X).to_device(emulated_accelerator))
    assert found.device == emulated_accelerator
    np.testing.assert_array_equal(
        numpy_of(found.to_device(CPU_REF)), numpy_of(_on_host(fn)), err_msg=name
    )


def _on_host(fn: Callable[[xp.Array], xp.Array]) -> xp.Array:
    from maxmod import default_device

    with default_device(CPU_REF):
        return fn(ours(X))


def test_named_sizes() -> None:
    def fn(x: Tensor) -> Tensor:
        array = xp.asarray(x)
        assert array.shape == (None, 4) and array.size is None
        return (xp.var(array, axis=0) + xp.sum(array[:, 0])).tensor

    model = compile_function(
        fn, [TensorType(DType.float32, ["n", 4], CPU_REF)], name="fn", parameters={}
    )
    for rows in (1, 3):
        x = X[:rows]
        found = model(ours(x).tensor)
        wanted = x.var(axis=0) + x[:, 0].sum()
        np.testing.assert_allclose(found.to_numpy(), wanted, rtol=1e-5, atol=1e-6)


NEEDS_DATA = {
    "a mask as a key": lambda x: x[x > 0],
    "nonzero": lambda x: xp.nonzero(x)[0],
    "unique_values": lambda x: xp.unique_values(x),
    "inv": lambda x: xp.linalg.inv(x[:, :3]),
    "a Python condition": lambda x: x if x[0, 0] > 0 else -x,
}


@pytest.mark.parametrize("name", NEEDS_DATA)
def test_functions_that_need_data_are_refused_while_tracing(name: str) -> None:
    with pytest.raises(TypeError):
        compile_function(
            lambda x: NEEDS_DATA[name](xp.asarray(x)).tensor,
            [TensorType(DType.float32, [3, 4], CPU_REF)],
            name="fn",
            parameters={},
        )
