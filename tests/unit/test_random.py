"""Random tensors: the generator, distributions, ranges and the stream of seeds."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from helpers import FLOATS, INTEGERS, interpreted, tensor, values
from hypothesis import given
from hypothesis import strategies as st

from maxmod import CPU, DType, Tensor, TensorType, random
from maxmod import functional as F
from maxmod.ops.philox import words


@pytest.fixture(autouse=True)
def _seeded():
    random.set_seed(0)


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 50))
def test_words_match_numpy(seed, first, blocks):
    generator = np.random.Philox(key=seed)
    generator.advance(first)
    np.testing.assert_array_equal(words(np, seed, first, blocks), generator.random_raw(4 * blocks))


def test_devices_agree(device):
    for fn in (random.normal, random.uniform):
        random.set_seed(5)
        here = fn([1001], dtype=DType.float32, device=CPU())
        random.set_seed(5)
        there = fn([1001], dtype=DType.float32, device=device)
        assert there.device == device
        np.testing.assert_allclose(there.to(CPU()).to_numpy(), here.to_numpy(), rtol=1e-5)


# ---- the stream of seeds -----------------------------------------------------------------------


def test_each_draw_takes_a_seed():
    random.set_seed(3)
    first, second = random.normal([4]), random.uniform([4])
    random.set_seed(3)
    np.testing.assert_array_equal(random.normal([4]).to_numpy(), first.to_numpy())
    random.set_seed(4)
    np.testing.assert_array_equal(random.uniform([4]).to_numpy(), second.to_numpy())
    assert random.seed().to_numpy().tolist() == [5]
    assert random.seed().dtype is DType.uint64


def test_seeds_of_all_kinds():
    for value in (7, np.int32(7), Tensor(7, dtype=DType.int64), Tensor([7], dtype=DType.uint8)):
        random.set_seed(value)
        assert random.seed().item() == 7
    random.set_seed(-1)
    assert random.seed().item() == 2**64 - 1
    random.normal()
    assert random.seed().item() == 0
    with pytest.raises(ValueError, match="expected an integer scalar"):
        random.set_seed(Tensor([1.0]))
    with pytest.raises(ValueError, match="expected an integer scalar"):
        random.set_seed(Tensor([1, 2], dtype=DType.int64))
    with pytest.raises(TypeError, match="expected an int"):
        random.set_seed("1")


def test_seeds_of_threads_are_not_given_twice():
    threads = [
        threading.Thread(target=lambda: [random.normal([1]) for _ in range(50)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert random.seed().item() == 200


def test_lazy_tensors_keep_the_order_of_declaration():
    eager = [random.normal([3]), random.normal([3])]
    random.set_seed(0)
    with F.lazy():
        lazy = [random.normal([3]), random.normal([3])]
    random.set_seed(99)
    for found, expected in reversed(list(zip(lazy, eager))):
        assert not found.real
        np.testing.assert_array_equal(found.to_numpy(), expected.to_numpy())


def test_a_graph_needs_a_seed():
    types = [TensorType(DType.float32, ["n", 3], CPU())]
    with pytest.raises(RuntimeError, match="No seed set!"):
        interpreted(lambda x: x + random.normal([3]), types, Tensor.zeros([2, 3]))

    def seeded(x):
        random.set_seed(8)
        return [random.normal(x.shape), random.uniform([3], dtype=DType.float32)]

    found = interpreted(seeded, types, Tensor.zeros([2, 3]))
    assert random.seed().item() == 0  # the seed of the process is another one
    random.set_seed(8)
    np.testing.assert_array_equal(found[0].to_numpy(), random.normal([2, 3]).to_numpy())
    np.testing.assert_array_equal(found[1].to_numpy(), random.uniform([3]).to_numpy())


# ---- distributions -----------------------------------------------------------------------------

_COUNT = 200_001


@pytest.mark.parametrize("dtype", [DType.float32, DType.float64, DType.bfloat16])
def test_normal_moments(dtype):
    x = values(random.normal([_COUNT], mean=2.0, std=3.0, dtype=dtype)).astype(np.float64)
    # Five standard errors of each moment.
    assert abs(x.mean() - 2) < 5 * 3 / np.sqrt(_COUNT)
    z = (x - 2) / 3
    assert abs(z.std() - 1) < 5 / np.sqrt(2 * _COUNT)
    assert abs((z**3).mean()) < 5 * np.sqrt(15 / _COUNT)
    assert abs((z**4).mean() - 3) < 5 * np.sqrt(96 / _COUNT)
    assert abs(np.mean(z[:-1] * z[1:])) < 5 / np.sqrt(_COUNT)
    assert np.isfinite(z).all()


def test_uniform_is_flat():
    x = random.uniform([_COUNT], (-1, 3)).to_numpy()
    counts, _ = np.histogram(x, bins=20, range=(-1, 3))
    expected = _COUNT / 20
    assert np.sum((counts - expected) ** 2 / expected) < 60  # chi square, 19 degrees: p < 1e-5


@pytest.mark.parametrize("dtype", FLOATS, ids=lambda d: d.name)
@pytest.mark.parametrize("bounds", [(0, 1), (1, 2), (-0.25, 0.5)])
def test_uniform_is_half_open(dtype, bounds):
    x = values(random.uniform([5000], bounds, dtype=dtype)).astype(np.float64)
    assert x.min() >= bounds[0]
    assert x.max() < bounds[1]


@pytest.mark.parametrize("dtype", INTEGERS, ids=lambda d: d.name)
def test_uniform_integers(dtype):
    low = -3 if dtype.is_signed_integral() else 2
    x = random.uniform([2000], (low, 7), dtype=dtype)
    assert x.dtype is dtype
    found, counts = np.unique(x.to_numpy(), return_counts=True)
    assert found.tolist() == list(range(low, 7))
    assert counts.min() > 100


def test_uniform_over_the_whole_range():
    x = random.uniform([1000], (-(2**63), 2**63 - 1), dtype=DType.int64).to_numpy()
    assert x.min() < -(2**62)
    assert x.max() > 2**62


def test_degenerate_ranges():
    assert set(random.uniform([9], (1, 1)).to_numpy()) == {1.0}
    assert set(random.uniform([9], (3, 3), dtype=DType.int8).to_numpy()) == {3}
    flipped = random.uniform([1000], (2, -1)).to_numpy()
    assert -1 < flipped.min() < flipped.max() <= 2
    random.set_seed(1)
    mirrored = random.normal([9], std=-1.0)
    random.set_seed(1)
    np.testing.assert_array_equal(mirrored.to_numpy(), -random.normal([9]).to_numpy())


def test_normal_integers_are_rounded():
    random.set_seed(1)
    x = random.normal([1000], 0.5, 20, dtype=DType.int32)
    random.set_seed(1)
    expected = np.rint(random.normal([1000], 0.5, 20, dtype=DType.float32).to_numpy())
    np.testing.assert_array_equal(x.to_numpy(), expected)


def test_narrow_floats_are_rounded_float32():
    random.set_seed(1)
    x = random.gaussian([1000], dtype=DType.bfloat16)
    random.set_seed(1)
    wide = random.normal([1000], dtype=DType.float32)
    np.testing.assert_array_equal(values(x), values(wide.cast(DType.bfloat16)))


def test_large_draws_are_the_beginning_of_one_stream():
    random.set_seed(2)
    long = random.normal([40_001]).to_numpy()
    random.set_seed(2)
    np.testing.assert_array_equal(random.normal([1001]).to_numpy()[:1000], long[:1000])


# ---- arguments ---------------------------------------------------------------------------------


def test_shapes():
    assert random.normal().shape == []
    assert random.uniform([0, 3]).shape == [0, 3]
    assert random.uniform((2, 3), dtype=DType.float64).dtype is DType.float64


def test_like():
    x = tensor(np.zeros((2, 3), np.float64))
    for like in (x, x.type):
        for fn in (F.uniform_like, F.normal_like, F.gaussian_like, random.normal_like):
            assert fn(like).type == x.type
    with pytest.raises(TypeError, match="normal_like: expected a Tensor or a TensorType, got list"):
        F.normal_like([1.0, 2.0])


def test_bad_arguments():
    for bounds in ((1,), (1, 2, 3), 5):
        with pytest.raises(ValueError, match=r"uniform: range: expected a pair \(low, high\), got"):
            random.uniform([2], bounds)
    with pytest.raises(ValueError, match="Expected a scalar value"):
        random.uniform([2], ([1, 2], 3))
    with pytest.raises(ValueError, match="Expected a scalar value"):
        random.normal([2], mean=Tensor([1.0, 2.0]))
    with pytest.raises(ValueError, match="It would lose precision"):
        random.uniform([2], (0, 300), dtype=DType.int8)
    with pytest.raises(ValueError, match="python float"):
        random.uniform([2], (0, 1.5), dtype=DType.int8)
    for fn in (random.uniform, random.normal):
        with pytest.raises(ValueError, match="expected a number type"):
            fn([2], dtype=DType.bool)
        with pytest.raises(TypeError, match="iterable of sizes"):
            fn(3)
    assert random.normal([2], mean=Tensor(1.0)).shape == [2]
