"""Rotary embeddings, against complex numbers of NumPy."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from maxmod import CPU, DType, Tensor, TensorType, default_dtype
from maxmod.nn import RotaryEmbedding, TransposedRotaryEmbedding, rope

RNG = np.random.default_rng(11)


@pytest.fixture(autouse=True)
def _on_the_host(no_accelerator):
    """The defaults of a machine without an accelerator: float32 on the host."""


def angles_of(length, dim, base):
    frequencies = base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)
    return np.outer(np.arange(length), frequencies)


def turned(x, angles, start, is_split):
    """Multiplies pairs as complex numbers, in float64."""
    x = x.astype(np.float64)
    half = x.shape[-1] // 2
    if is_split:
        pairs = x[..., :half] + 1j * x[..., half:]
    else:
        pairs = x[..., 0::2] + 1j * x[..., 1::2]
    pairs = pairs * np.exp(1j * angles[start : start + x.shape[1]])[:, None, :]
    if is_split:
        return np.concatenate([pairs.real, pairs.imag], -1)
    return np.stack([pairs.real, pairs.imag], -1).reshape(x.shape)


class TestTables:
    @pytest.mark.parametrize("dim", [2, 6, 64])
    def test_theta(self, dim):
        found = rope.theta(dim, 10000.0)
        assert found.dtype is DType.float32
        expected = [10000.0 ** (-i / dim) for i in range(0, dim, 2)]
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-6)

    def test_theta_of_an_odd_size(self):
        with pytest.raises(ValueError, match="expected an even number, got 5"):
            rope.theta(5, 10000.0)

    @pytest.mark.parametrize("length", [0, 1, 5])
    def test_embed(self, length):
        frequencies = RNG.uniform(0, 1, 3).astype(np.float32)
        found = rope.embed(Tensor(frequencies), length)
        angles = np.outer(np.arange(length), frequencies.astype(np.float64))
        assert found.shape == [length, 3, 2]
        assert found.dtype is DType.float32
        expected = np.stack([np.cos(angles), np.sin(angles)], -1)
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-6, atol=1e-7)

    def test_late_positions_are_exact(self):
        found = rope.positional_embedding(8, 500000.0, 100_001)[100_000].to_numpy()
        angles = angles_of(100_001, 8, 500000.0)[100_000]
        expected = np.stack([np.cos(angles), np.sin(angles)], -1)
        np.testing.assert_allclose(found, expected, atol=1e-7)

    def test_the_default_dtype(self):
        with default_dtype(DType.bfloat16):
            assert rope.theta(4, 10.0).dtype is DType.bfloat16
            assert rope.positional_embedding(4, 10.0, 3).dtype is DType.bfloat16

    def test_on_an_accelerator(self, emulated_accelerator):
        found = rope.positional_embedding(4, 10.0, 3)
        assert found.device == emulated_accelerator


@pytest.mark.parametrize(
    ("kind", "is_split"), [(RotaryEmbedding, False), (TransposedRotaryEmbedding, True)]
)
class TestRotary:
    def make(self, kind, dim=8, length=16):
        return kind(rope.positional_embedding(dim, 100.0, length))

    @pytest.mark.parametrize("shape", [(1, 1, 1, 8), (2, 5, 3, 8), (2, 0, 3, 8)])
    @pytest.mark.parametrize("start", [0, 3, 11])
    def test_values(self, kind, is_split, shape, start):
        x = RNG.standard_normal(shape).astype(np.float32)
        found = self.make(kind)(Tensor(x), start)
        expected = turned(x, angles_of(16, 8, 100.0), start, is_split)
        assert found.shape == list(shape)
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_compiled_for_any_length(self, kind, is_split):
        m = self.make(kind)
        types = TensorType(DType.float32, ["batch", "seq", 3, 8], CPU()), 2
        compiled = m.compile(*types)
        for batch, seq in ((1, 4), (2, 14)):
            x = RNG.standard_normal((batch, seq, 3, 8)).astype(np.float32)
            expected = turned(x, angles_of(16, 8, 100.0), 2, is_split)
            found = compiled(Tensor(x), 2)
            np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_the_table_ends(self, kind, is_split):
        m = self.make(kind)
        with pytest.raises(ValueError, match="out of range"):
            m(Tensor.ones([1, 5, 1, 8]), 12)

    def test_shapes_that_do_not_fit(self, kind, is_split):
        m = self.make(kind)
        for shape in ([1, 5, 1, 6], [5, 1, 8]):
            with pytest.raises(ValueError, match=r"expected x \[batch, sequence, heads, 8\]"):
                m(Tensor.ones(shape))

    def test_attributes(self, kind, is_split):
        m = self.make(kind, 128, 2048)
        assert type(m.dim) is type(m.max_sequence_length) is int
        assert repr(m) == f"{kind.__name__}(dim=128, max_sequence_length=2048)"
        assert [name for name, _ in m.parameters] == ["weight"]

    def test_a_table_in_float32_widens_half_precision(self, kind, is_split):
        x = RNG.standard_normal((1, 2, 1, 8)).astype(ml_dtypes.bfloat16)
        assert self.make(kind)(Tensor(x)).dtype is DType.float32


class TestYarn:
    def expected(self, dim, base, length, original, alpha, beta):
        scale = length / original
        kept = base ** (-np.arange(0, dim, 2, dtype=np.float64) / dim)

        def index_of(turns):
            return dim / 2 * np.log(original / (2 * np.pi * turns)) / np.log(base)

        low = max(0, np.floor(index_of(alpha)))
        high = min(dim - 1, np.ceil(index_of(beta)))
        mask = np.clip((np.arange(dim // 2) - low) / (high - low), 0, 1)
        angles = np.outer(np.arange(length), (1 - mask) * kept + mask * kept / scale)
        factor = 0.1 * np.log(scale) + 1
        return np.stack([np.cos(angles), np.sin(angles)], -1) * factor

    @pytest.mark.parametrize("original", [32, 64, 128])
    def test_table(self, original):
        arguments = (64, 10000.0, 128, original, 32.0, 1.0)
        found = rope.yarn.positional_embedding(*arguments).to_numpy()
        np.testing.assert_allclose(found, self.expected(*arguments), rtol=1e-5, atol=1e-6)

    def test_parts(self):
        mask = rope.yarn.linear_ramp_mask(1, 3, 5)
        assert mask.to_numpy().tolist() == [0, 0, 0.5, 1, 1]
        mixed = rope.yarn.linear_interpolation(Tensor([1.0, 1.0]), Tensor([5.0, 5.0]), mask[1:3])
        assert mixed.to_numpy().tolist() == [1, 3]
        assert rope.yarn.length_scaling() == 1
        assert rope.yarn.length_scaling(np.e) == pytest.approx(1.1)

    @pytest.mark.parametrize("end", [3, 2])
    def test_an_empty_ramp(self, end):
        with pytest.raises(ValueError, match="expected start_idx below end_idx"):
            rope.yarn.linear_ramp_mask(3, end, 5)
