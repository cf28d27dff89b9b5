"""`F.einsum` against NumPy's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maxmod import CPU, DType, Module, Tensor, TensorType
from maxmod import functional as F

X = np.arange(6, dtype=np.float32).reshape(2, 3)
Y = np.arange(12, dtype=np.float32).reshape(3, 4) - 5
SIZES = {"i": 2, "j": 3, "k": 1, "l": 2}


@st.composite
def _cases(draw: Any) -> tuple[str, list[np.ndarray]]:
    """Returns an equation with diagonals, sums, sizes of 1 and `...`, and its operands."""
    texts, operands = [], []
    for _ in range(draw(st.integers(1, 3))):
        letters = draw(st.lists(st.sampled_from(sorted(SIZES)), max_size=4))
        shape = [SIZES[letter] for letter in letters]
        if draw(st.booleans()):
            letters.insert(at := draw(st.integers(0, len(letters))), "...")
            shape[at:at] = draw(st.sampled_from([[], [2], [1], [3, 2], [3, 1]]))
        count = int(np.prod(shape))
        values = draw(st.lists(st.integers(-3, 3), min_size=count, max_size=count))
        texts.append("".join(letters))
        operands.append(np.array(values, np.float32).reshape(shape))
    equation = ",".join(texts)
    if draw(st.booleans()):
        used = sorted({*equation} - {*",."})
        result = draw(st.permutations(used))[: draw(st.integers(0, len(used)))]
        result.insert(draw(st.integers(0, len(result))), "...") if "." in equation else None
        equation += "->" + "".join(result)
    return equation, operands


@settings(max_examples=200)
@given(_cases())
def test_einsum_follows_numpy(case: tuple[str, list[np.ndarray]]) -> None:
    equation, operands = case
    wanted = np.einsum(equation, *(operand.astype(np.float64) for operand in operands))
    found = F.einsum(equation, *map(Tensor, operands))
    assert found.shape == list(wanted.shape)
    np.testing.assert_allclose(found.to_numpy(), wanted, rtol=1e-6)


def test_forms_of_the_call() -> None:
    x, y = Tensor(X), Tensor(Y)
    for found in (
        F.einsum("ij,jk->ik", x, y),
        F.einsum(" i j , j k -> i k", x, y),
        F.einsum("ij,jk", [x, y]),
        F.einsum(x, [0, 1], y, [1, 2]),
        F.einsum(x, [0, 7], y, [7, 2], [0, 2]),
        F.einsum(x, [..., 1], y, [1, 2], [..., 2]),
        F.einsum("Ab,bC->AC", x, y),
    ):
        np.testing.assert_array_equal(found.to_numpy(), X @ Y)
    assert F.einsum("ba", x).shape == [3, 2]


def test_integers_and_promotion() -> None:
    counts = Tensor([[1, 2], [3, 4]], dtype=DType.int32)
    assert F.einsum("ij,kj->ik", counts, counts).to_numpy().tolist() == [[5, 11], [11, 25]]
    assert F.einsum("ij,ij->", Tensor(X), Tensor(X.astype(np.float64))).dtype is DType.float64


def test_einsum_in_a_compiled_function() -> None:
    class Attention(Module[..., Any]):
        def forward(self, q: Tensor, k: Tensor) -> list[Tensor]:
            scores = F.einsum("bhqd,bhkd->bhqk", q, k)
            return [scores, F.einsum("...qq->...q", scores), F.einsum("bhqd,bhqd->b", q, k)]

    type = TensorType(DType.float32, ["b", 2, "s", 4], CPU())
    compiled = Attention().compile(type, type)
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((2, 3, 2, 5, 4)).astype(np.float32)
    scores, diagonal, total = compiled(Tensor(q), Tensor(k))
    wanted = np.einsum("bhqd,bhkd->bhqk", q, k)
    np.testing.assert_allclose(scores.to_numpy(), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        diagonal.to_numpy(), np.einsum("...qq->...q", wanted), rtol=1e-5, atol=1e-5
    )
    np.testing.assert_allclose(
        total.to_numpy(), np.einsum("bhqd,bhqd->b", q, k), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ij,jk->ik", X), "names 2 operands, got 1"),
        (("ij->ii", X), "'i' of the result must occur once there"),
        (("ij->k", X), "'k' of the result must occur once there, and in an operand"),
        (("i1->i", X), "expected letters, ',', '...' and '->', got '1'"),
        (("ij->j->i", X), "got '-'"),
        (("ij,jk", X, X), "'j' has the sizes 3 and 2"),
        (("ii", X), "'i': sizes differ in float32"),
        (("ijk->i", X), r"'ijk' has 3 letters for float32\[2,3\]"),
        (("...i->i", X), r"the result lacks the axes of '...'. Hint: write \.\.\. behind ->"),
        (("ij->i", X > 1), r"bool has no sum. Hint: x.cast\(DType.int64\)"),
        ((X,), r'tensors and lists of numbers in turns. Hint: F.einsum\("ij,jk->ik", x, y\)'),
        ((X, [0, 99]), "expected numbers from 0 to 51"),
    ],
)
def test_refused_equations(arguments: tuple[Any, ...], message: str) -> None:
    given = [Tensor(a) if isinstance(a, np.ndarray) else a for a in arguments]
    with pytest.raises((ValueError, TypeError), match=message):
        F.einsum(*given)


def test_keywords_of_numpy() -> None:
    with pytest.raises(TypeError, match="Hint: operands are combined from left to right"):
        F.einsum("ij", Tensor(X), optimize=True)  # type: ignore[call-arg]
