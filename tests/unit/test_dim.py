"""Dims: construction, algebra, evaluation; shapes; types."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maxmod import CPU, Dim, DType, Shape, TensorType
from maxmod.errors import DimError, ShapeError
from maxmod.values.dim import AlgebraicDim, StaticDim, SymbolicDim, as_size, evaluate
from maxmod.values.shape import broadcast, product

N, M = Dim("n"), Dim("m")


def test_dispatch():
    assert isinstance(Dim(3), StaticDim)
    assert isinstance(Dim("n"), SymbolicDim)
    assert isinstance(N + 1, AlgebraicDim)
    assert Dim(N) is N
    assert Dim(True) == 1
    assert Dim(np.int32(4)) == 4
    for value in (1.0, None, [1]):
        with pytest.raises(TypeError):
            Dim(value)


@pytest.mark.parametrize("name", ["", "2x", "a-b", "a b", "a\n"])
def test_malformed_names(name):
    with pytest.raises(ValueError, match="Invalid name for symbolic dimension"):
        Dim(name)


def test_limits():
    assert int(Dim(-(2**63))) == -(2**63)
    assert Dim(-1) == -1
    for value in (2**63, -(2**63) - 1):
        with pytest.raises(ValueError, match="outside int64"):
            Dim(value)


def test_wrong_arguments_of_the_classes():
    with pytest.raises(TypeError):
        StaticDim("5")
    with pytest.raises(TypeError):
        SymbolicDim(5)


def test_equality_and_hash():
    assert Dim(3) == 3 == Dim(3)
    assert Dim(3) != 4
    assert N == "n"
    assert N != "m"
    assert N != 3
    assert N + 1 == 1 + N
    assert len({Dim(3), 3, N, Dim("n"), N + 1, 1 + N}) == 3
    assert Dim(2) < 3 <= Dim(3)
    assert Dim(4) > Dim(3) >= 3


def test_conversions():
    assert int(Dim(3)) == 3
    assert float(Dim(3)) == 3.0
    with pytest.raises(TypeError, match="only supported for static dims"):
        int(N)
    for use in (lambda: [1, 2, 3][N], lambda: range(N + 1), lambda: N / 2, lambda: 4 % N):
        with pytest.raises(TypeError, match="symbolic|cannot be used as an index"):
            use()


def test_known_sizes_are_numbers():
    assert [*range(Dim(3))] == [0, 1, 2]
    assert [1, 2, 3][Dim(1)] == 2
    assert np.zeros((Dim(2), Dim(3))).shape == (2, 3)
    assert (Dim(3) / 2, 3 / Dim(2), Dim(3) / Dim(2), Dim(3) / 1.5) == (1.5, 1.5, 1.5, 2.0)
    assert (Dim(7) % 4, 7 % Dim(4), Dim(7) % Dim(4), np.int64(7) % Dim(4)) == (3, 3, 3, 3)
    with pytest.raises(TypeError):
        Dim(3) / [2]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (N + 0, N),
        (N * 1, N),
        (N // 1, N),
        (N * 0, Dim(0)),
        (N - N, Dim(0)),
        (N + 1 + 1, N + 2),
        (N + M, M + N),
        (N * 2 * 3, N * 6),
        (-N - 4, -(N + 4)),
        ((N + 1) * (N - 1), N * N - 1),
        ((N * 4) // 2, N * 2),
        (N * M // N, M),
        (N + "m", N + M),
        ("m" + N, N + M),
        (10 - N, Dim(10) - N),
        (10 // N, Dim(10) // N),
        (Dim(3) * 4, Dim(12)),
        (Dim(-7) // 2, Dim(-3)),
    ],
)
def test_algebra(found, expected):
    assert found == expected
    assert hash(found) == hash(expected)
    assert type(found) is type(expected)


def test_division_by_zero():
    for dim in (N, Dim(3)):
        for zero in (0, Dim(0)):
            with pytest.raises(ZeroDivisionError):
                dim // zero


def test_unsupported_operators():
    for operation in (lambda: N / 2, lambda: N % 2, lambda: N**2, lambda: N + 1.5):
        with pytest.raises(TypeError):
            operation()


def test_text():
    assert (str(Dim(3)), repr(Dim(3))) == ("3", "Dim(3)")
    assert (str(N), repr(N)) == ("n", "Dim('n')")
    assert str(N - 1) == "n + -1"
    assert str(N * M + 2) == "(m * n) + 2"
    assert str((N + 1) // 2) == "((n + 1) // 2)"


def test_dims_are_frozen():
    with pytest.raises(AttributeError):
        N.name = "x"
    with pytest.raises(AttributeError):
        del N.name
    for dim in (Dim(3), N, N * M + 1, (N + 1) // 2):
        assert pickle.loads(pickle.dumps(dim)) == dim
        assert copy.deepcopy(dim) is dim


def test_parameters_and_substitution():
    dim = N * M + N + 2
    assert sorted(s.name for s in dim.parameters) == ["m", "n", "n"]
    assert dim.substitute({"n": 3}) == M * 3 + 5
    assert dim.substitute({N: M, M: N}) == N * M + M + 2
    assert dim.substitute({"n": 3, "m": 2}) == 11
    assert ((N + 1) // 2).substitute({"n": 5}) == 3


_NAMES = ["a", "b", "c"]
_LEAF = st.one_of(st.integers(-4, 4), st.sampled_from(_NAMES))
_TREE = st.recursive(_LEAF, lambda sub: st.tuples(st.sampled_from("+-*/"), sub, sub), max_leaves=8)


def _as_dim(tree):
    if not isinstance(tree, tuple):
        return Dim(tree)
    left, right = _as_dim(tree[1]), _as_dim(tree[2])
    if tree[0] == "/":
        return left // right
    return left + right if tree[0] == "+" else left - right if tree[0] == "-" else left * right


def _as_int(tree, values):
    if not isinstance(tree, tuple):
        return values.get(tree, tree)
    left, right = _as_int(tree[1], values), _as_int(tree[2], values)
    if tree[0] == "/":
        quotient = abs(left) // abs(right)  # truncated, not floored
        return quotient if (left < 0) == (right < 0) else -quotient
    return left + right if tree[0] == "+" else left - right if tree[0] == "-" else left * right


@given(_TREE, st.tuples(*[st.integers(1, 9)] * 3))
def test_evaluating_algebra_is_python_arithmetic(tree, numbers):
    values = dict(zip(_NAMES, numbers))
    try:
        dim = _as_dim(tree)
        expected = _as_int(tree, values)
    except ZeroDivisionError:
        return  # Python may divide by zero where the algebra cancels, and the other way round
    assert evaluate(dim, values) == expected
    assert dim.substitute(values) == expected


@given(_TREE, _TREE, st.tuples(*[st.integers(1, 9)] * 3))
def test_equal_dims_have_equal_values(first, second, numbers):
    values = dict(zip(_NAMES, numbers))
    try:
        a, b = _as_dim(first), _as_dim(second)
        if a == b:
            assert evaluate(a, values) == evaluate(b, values)
        assert a - a == 0
        assert a + b == b + a
        assert a * b == b * a
        assert (a + b) - b == a
    except ZeroDivisionError:
        return


def test_evaluate_needs_every_name():
    assert evaluate(7, {}) == 7
    with pytest.raises(DimError, match="no value for m"):
        evaluate(N * M, {"n": 2})


# ---- shapes and types --------------------------------------------------------------------------


def test_shape():
    shape = Shape([2, "n", N + 1])
    assert shape == [2, "n", N + 1]
    assert shape != (2, "n", N + 1)
    assert shape.rank == 3
    assert shape.static_dims == [2]
    assert [s.name for s in shape.parameters] == ["n", "n"]
    assert repr(Shape([2, "n"])) == "[Dim(2), Dim('n')]"
    assert Shape.is_static([1, 2])
    assert not Shape.is_static([1, "n"])
    assert not Shape.is_static([-1])
    assert type(shape[:2]) is list
    with pytest.raises(TypeError):
        hash(shape)


def test_sizes():
    assert as_size(Dim(3)) == 3
    assert type(as_size(Dim(3))) is int
    assert product([2, N, 3]) == N * 6
    assert product([]) == 1


def test_broadcast():
    assert broadcast((3, 1), (N, 1, 4)) == (N, 3, 4)
    assert broadcast((N,), (1,), (N,)) == (N,)
    for other in ((M,), (2,), (N + 1,)):
        with pytest.raises(ShapeError, match="neither equivalent nor broadcastable"):
            broadcast((N,), other)


def test_tensor_type():
    type_ = TensorType(DType.float32, [2, "batch"], CPU())
    assert repr(type_) == "TensorType(dtype=float32, shape=[Dim(2), Dim('batch')], device=cpu:0)"
    assert type_.rank == 2
    assert [d.name for d in type_.parameters] == ["batch"]
    assert type_ == TensorType(DType.float32, (2, Dim("batch")), CPU())
    assert type_ != type_.as_buffer()
    assert type_.as_buffer().as_tensor() == type_
    assert type_.cast(DType.int8).dtype is DType.int8
    assert TensorType(DType.bool, [], CPU()).num_elements() == 1
    with pytest.raises(RuntimeError, match="symbolic"):
        type_.num_elements()
    with pytest.raises(TypeError, match="must not be negative"):
        TensorType(DType.float32, [-1], CPU())
    with pytest.raises(TypeError, match="iterable of sizes"):
        TensorType(DType.float32, 3, CPU())
    with pytest.raises(TypeError):
        TensorType(DType.float32, [3])
