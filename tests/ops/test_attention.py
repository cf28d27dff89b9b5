"""`F.scaled_dot_product_attention`: defaults, masks, shared heads and refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from helpers import assert_close, interpreted, numbers, tensor
from ops.samples_attention import attention

from maxmod import DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.errors import ArgumentError, DTypeError, ShapeError
from maxmod.values.device import CPU_REF


def _operands(*shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(11)
    return [numbers(rng, DType.float32, shape) for shape in shapes]


def test_defaults_and_keywords() -> None:
    q, k, v = _operands((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4))
    tensors = [tensor(x) for x in (q, k, v)]
    assert_close(F.scaled_dot_product_attention(*tensors), attention(q, k, v), length=16)
    scaled = F.scaled_dot_product_attention(*tensors, scale=0.1, is_causal=True)
    assert_close(scaled, attention(q, k, v, None, 0.1, True), length=16)
    mask = np.tri(5, 7, dtype=bool)
    assert_close(
        F.scaled_dot_product_attention(*tensors, mask=tensor(mask)),
        attention(q, k, v, mask),
        length=16,
    )


def test_query_heads_share_key_heads() -> None:
    q, k, v = _operands((6, 5, 8), (2, 7, 8), (2, 7, 8))
    found = F.scaled_dot_product_attention(*(tensor(x) for x in (q, k, v)))
    repeated = attention(q, np.repeat(k, 3, 0), np.repeat(v, 3, 0))
    assert_close(found, repeated, length=16)


def test_a_query_without_keys_gives_nan() -> None:
    q, k, v = _operands((2, 3, 4), (2, 3, 4), (2, 3, 4))
    mask = np.ones((3, 3), bool)
    mask[1] = False
    found = F.scaled_dot_product_attention(*(tensor(x) for x in (q, k, v)), mask=tensor(mask))
    assert np.isnan(found.to_numpy()[:, 1]).all()
    assert not np.isnan(found.to_numpy()[:, 0]).any()


def test_named_sizes() -> None:
    t = TensorType(DType.float32, ["b", 4, "s", 8], CPU_REF)
    arrays = _operands((2, 4, 5, 8), (2, 4, 5, 8), (2, 4, 5, 8))
    (found,) = interpreted(
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        [t] * 3,
        *(tensor(x) for x in arrays),
    )
    assert_close(found, attention(*arrays, is_causal=True), length=16)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (((8,), (3, 8), (3, 8)), r"query: expected \[..., heads, positions, width\]"),
        (((2, 8), (3, 7), (3, 8)), "queries and keys differ in width"),
        (((2, 8), (3, 8), (4, 8)), "one value for each key"),
        (((4, 2, 8), (3, 3, 8), (3, 3, 8)), "Hint: the number of key and value heads"),
        (((4, 2, 8), (2, 3, 8), (4, 3, 8)), "as many value heads as key heads"),
    ],
)
def test_shapes_that_do_not_fit(shapes: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        F.scaled_dot_product_attention(*(Tensor.ones(shape) for shape in shapes))


def test_refusals() -> None:
    q = Tensor.ones([2, 3, 4])
    with pytest.raises(ShapeError, match=r"mask: expected a shape that broadcasts to \[2,3,3\]"):
        F.scaled_dot_product_attention(q, q, q, mask=Tensor.ones([4, 3]))
    with pytest.raises(DTypeError, match="mask: expected bool or floats"):
        F.scaled_dot_product_attention(q, q, q, mask=Tensor.ones([3, 3], dtype=DType.int32))
    with pytest.raises(DTypeError, match="expected floating point"):
        whole = Tensor.ones([2, 3, 4], dtype=DType.int32)
        F.scaled_dot_product_attention(whole, whole, whole)
    named = TensorType(DType.float32, [2, 3, "width"], CPU_REF)
    with pytest.raises(ArgumentError, match="scale: must be given"):
        interpreted(lambda q: F.scaled_dot_product_attention(q, q, q), [named], q)


@pytest.mark.oracle
@pytest.mark.parametrize("is_causal", [False, True])
def test_same_as_torch(is_causal: bool) -> None:
    import torch

    arrays = _operands((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 4))
    found = F.scaled_dot_product_attention(*(tensor(x) for x in arrays), is_causal=is_causal)
    wanted = torch.nn.functional.scaled_dot_product_attention(
        *(torch.from_numpy(x) for x in arrays), is_causal=is_causal
    )
    np.testing.assert_allclose(found.to_numpy(), wanted.numpy(), rtol=2e-5, atol=2e-6)
