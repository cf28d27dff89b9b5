"""Linear, Embedding and the norms, against NumPy in float64."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from maxmod import CPU, DType, Tensor, TensorType, default_dtype
from maxmod.errors import ShapeError
from maxmod.nn import Embedding, GemmaRMSNorm, GroupNorm, LayerNorm, Linear, RMSNorm
from maxmod.nn.norm import rms_norm
from maxmod.ops.random import set_seed
from maxmod.values.dim import StaticDim

RNG = np.random.default_rng(7)


def normal(*shape, dtype=np.float32):
    return RNG.standard_normal(shape).astype(dtype)


def wide(tensor):
    return tensor.cast(DType.float64).to_numpy()


@pytest.fixture(autouse=True)
def _on_the_host(no_accelerator):
    """The defaults of a machine without an accelerator: float32 on the host."""


class TestLinear:
    @pytest.mark.parametrize("batch", [(), (1,), (0,), (7,), (2, 3)])
    @pytest.mark.parametrize("bias", [True, False])
    def test_values(self, batch, bias):
        m = Linear(5, 3, bias=bias)
        weight, offset, x = normal(3, 5), normal(3), normal(*batch, 5)
        m.load_state_dict({"weight": weight, "bias": offset}, strict=bias)
        expected = x.astype(np.float64) @ weight.T.astype(np.float64) + (offset if bias else 0)
        found = m(Tensor(x))
        assert found.shape == [*batch, 3]
        assert found.dtype is DType.float32
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_parameters(self):
        m = Linear(5, 10)
        assert dict(m.parameters) == {"weight": m.weight, "bias": m.bias}
        assert m.weight.shape == [10, 5]
        assert m.bias.shape == [10]
        assert [n for n, _ in Linear(5, 10, bias=False).parameters] == ["weight"]
        assert Linear(5, 10, bias=False).bias == 0

    def test_dims_follow_the_weight(self):
        m = Linear(5, 10)
        assert (m.in_dim, m.out_dim) == (5, 10)
        assert type(m.in_dim) is type(m.out_dim) is StaticDim
        m.weight = Tensor.ones([4, 2])
        assert (m.in_dim, m.out_dim) == (2, 4)
        assert Linear(m.out_dim, m.in_dim).weight.shape == [2, 4]

    def test_values_are_standard_normal_and_dtypes_default(self):
        m = Linear(64, 1024)
        values = m.weight.to_numpy()
        assert abs(values.mean()) < 0.02
        assert abs(values.std() - 1) < 0.02
        with default_dtype(DType.bfloat16):
            assert {t.dtype for _, t in Linear(2, 2).parameters} == {DType.bfloat16}

    def test_defaults_on_an_accelerator(self, emulated_accelerator):
        m = Linear(2, 2)
        assert m.weight.device == m.bias.device == emulated_accelerator
        assert m.weight.dtype is DType.bfloat16

    def test_equal_seeds_give_equal_layers(self):
        def layers():
            set_seed(3)
            made = [Linear(2, 3), Linear(300, 300), Linear(2, 3)]  # the second is drawn later
            return [tensor for m in made for _, tensor in m.parameters]

        first, second = layers(), layers()
        for a, b in reversed(list(zip(first, second, strict=True))):
            np.testing.assert_array_equal(a.to_numpy(), b.to_numpy())
        assert (first[0].to_numpy() != first[4].to_numpy()).all()

    def test_large_weights_are_drawn_on_first_use(self):
        m = Linear(1024, 1024)
        assert not m.weight.real
        assert m.bias.real
        assert m(Tensor.ones([1024])).shape == [1024]
        assert m.weight.real

    @pytest.mark.parametrize(
        ("dtype", "result"),
        [(np.int8, DType.float32), (np.float64, DType.float64), (np.float16, DType.float32)],
    )
    def test_dtypes_that_promote(self, dtype, result):
        assert Linear(2, 1)(Tensor(np.ones([2], dtype))).dtype is result

    def test_errors(self):
        with pytest.raises(ValueError, match=r"expected x \[..., 5\], got float32\[2,4\]"):
            Linear(5, 3)(Tensor.ones([2, 4]))
        with pytest.raises(ValueError, match="Unsafe cast"):
            Linear(2, 1)(Tensor(np.ones([2], np.int32)))
        with pytest.raises(TypeError):
            Linear(2, 1, False)
        with pytest.raises(NotImplementedError, match="quant_config"):
            Linear(2, 1, quant_config="fp8")
        with pytest.raises(TypeError):
            Linear(2, 1)([1.0, 2.0])

    def test_devices_are_not_mixed(self, emulated_accelerator):
        with pytest.raises(ValueError, match="same device"):
            Linear(2, 1)(Tensor.ones([2], device=CPU(), dtype=DType.bfloat16))


class TestEmbedding:
    @pytest.mark.parametrize("dtype", [np.uint64, np.int64, np.int32, np.uint8])
    @pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3)])
    def test_values(self, dtype, shape):
        m = Embedding(9, dims=[2, 3])
        table = normal(9, 2, 3)
        m.load_state_dict({"weight": table})
        indices = RNG.integers(0, 9, shape).astype(dtype)
        found = m(Tensor(indices))
        assert found.shape == [*shape, 2, 3]
        np.testing.assert_array_equal(found.to_numpy(), table[indices.astype(np.int64)])

    def test_one_dimension(self):
        m = Embedding(vocab_size=1000, dim=128)
        assert m(Tensor.ones([10], dtype=DType.uint64)).shape == [10, 128]
        assert (m.vocab_size, m.dim) == (1000, 128)
        assert m.dims == [128]
        assert type(m.dims) is list

    @pytest.mark.parametrize("dims", [[], [2, 3]])
    def test_other_ranks(self, dims):
        m = Embedding(10, dims=dims)
        assert m.dims == dims
        assert m(Tensor([1, 2], dtype=DType.int64)).shape == [2, *dims]
        with pytest.raises(TypeError, match="Multi-dimensional embeddings must use `dims`"):
            _ = m.dim

    @pytest.mark.parametrize("given", [{}, {"dim": 2, "dims": [2]}])
    def test_exactly_one_of_both(self, given):
        with pytest.raises(TypeError, match="Must specify exactly one of `dim` or `dims`"):
            Embedding(10, **given)

    def test_indices(self):
        m = Embedding(4, dim=1)
        last = m(Tensor([3], dtype=DType.int64)).item()
        assert m(Tensor([-1], dtype=DType.int64)).item() == last
        for outside in (4, -5):
            with pytest.raises(IndexError):
                m(Tensor([outside], dtype=DType.int64))
        with pytest.raises(ValueError, match="expected integers"):
            m(Tensor([1.0]))
        for weak in ([1], np.array([1]), 1):
            with pytest.raises(TypeError, match="Embedding: indices: expected a Tensor"):
                m(weak)


def layer_norm_oracle(x, weight, bias, eps=1e-5):
    x = x.astype(np.float64)
    centered = x - x.mean(-1, keepdims=True)
    return centered / np.sqrt((centered**2).mean(-1, keepdims=True) + eps) * weight + bias


def rms_norm_oracle(x, weight, eps=1e-6):
    x = x.astype(np.float64)
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + eps) * weight


class TestLayerNorm:
    @pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 0, 8), (2, 5, 8)])
    def test_values(self, shape):
        m = LayerNorm(8, eps=1e-3)
        weight, bias, x = normal(8), normal(8), normal(*shape)
        m.load_state_dict({"weight": weight, "bias": bias})
        found = m(Tensor(x))
        assert found.shape == list(shape)
        expected = layer_norm_oracle(x, weight, bias, 1e-3)
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_initial_values(self):
        m = LayerNorm(3)
        assert [name for name, _ in m.parameters] == ["weight", "bias"]
        assert m.weight.to_numpy().tolist() == [1, 1, 1]
        assert m.bias.to_numpy().tolist() == [0, 0, 0]
        assert type(m.dim) is int

    def test_absent_parameters(self):
        x = normal(4, 6)
        for m, names in [
            (LayerNorm(6, use_bias=False), ["weight"]),
            (LayerNorm(6, elementwise_affine=False), []),
        ]:
            assert [name for name, _ in m.parameters] == names
            assert m.bias is None
            expected = layer_norm_oracle(x, 1, 0)
            np.testing.assert_allclose(m(Tensor(x)).to_numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_dtypes(self):
        half = Tensor(normal(2, 4, dtype=ml_dtypes.bfloat16))
        assert LayerNorm(4)(half).dtype is DType.float32
        assert LayerNorm(4, elementwise_affine=False)(half).dtype is DType.bfloat16
        with default_dtype(DType.bfloat16):
            m = LayerNorm(4, keep_dtype=False)
        assert m(half).dtype is DType.bfloat16
        assert m(Tensor(normal(2, 4))).dtype is DType.float32

    def test_half_precision_is_computed_in_float32(self):
        x = (normal(3, 64) + 50).astype(ml_dtypes.bfloat16)
        with default_dtype(DType.bfloat16):
            found = LayerNorm(64, keep_dtype=False)(Tensor(x))
        expected = layer_norm_oracle(x.astype(np.float64), 1, 0)
        np.testing.assert_allclose(wide(found), expected, rtol=2**-8, atol=2**-8)

    def test_errors(self):
        with pytest.raises(ShapeError, match=r"expected a last axis of size 4, got float32\[2,5\]"):
            LayerNorm(4)(Tensor.ones([2, 5]))
        with pytest.raises(ValueError, match="epsilon: expected a positive number"):
            LayerNorm(4, eps=0)(Tensor.ones([2, 4]))

    def test_compiled(self):
        m, x = LayerNorm(4, elementwise_affine=False), normal(3, 4)
        compiled = m.compile(TensorType(DType.float32, ["n", 4], CPU()))
        expected = layer_norm_oracle(x, 1, 0)
        np.testing.assert_allclose(compiled(Tensor(x)).to_numpy(), expected, rtol=1e-5, atol=1e-5)


class TestRMSNorm:
    @pytest.mark.parametrize("shape", [(8,), (3, 8), (2, 0, 8)])
    @pytest.mark.parametrize(("kind", "offset"), [(RMSNorm, 0), (GemmaRMSNorm, 1)])
    def test_values(self, shape, kind, offset):
        m = kind(8, eps=1e-3)
        weight, x = normal(8), normal(*shape)
        m.load_state_dict({"weight": weight})
        found = m(Tensor(x))
        expected = rms_norm_oracle(x, weight.astype(np.float64) + offset, 1e-3)
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_attributes(self):
        m = RMSNorm(64)
        assert m.dim == 64
        assert m.eps == 1e-6
        assert [name for name, _ in GemmaRMSNorm(3).parameters] == ["weight"]
        assert m.weight.to_numpy().tolist() == [1] * 64

    @pytest.mark.parametrize("kind", [RMSNorm, GemmaRMSNorm])
    @pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
    def test_the_result_has_the_dtype_of_x(self, kind, dtype):
        m, x = kind(16), normal(4, 16).astype(dtype)
        found = m(Tensor(x))
        assert found.dtype is DType.from_numpy(dtype)
        expected = rms_norm_oracle(x.astype(np.float64), 2 if kind is GemmaRMSNorm else 1)
        np.testing.assert_allclose(wide(found), expected, rtol=2**-7)

    def test_when_the_quotient_is_rounded(self):
        x = normal(64, 32).astype(ml_dtypes.bfloat16)
        weight = normal(32).astype(ml_dtypes.bfloat16)
        quotient = rms_norm_oracle(x.astype(np.float64), 1)
        rounded = quotient.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
        late = (quotient * weight.astype(np.float64)).astype(np.float32)
        early = (rounded * weight.astype(np.float64)).astype(np.float32)
        given = Tensor(x), Tensor(weight), 1e-6
        llama = wide(rms_norm(*given))
        gemma = wide(rms_norm(*given, multiply_before_cast=True))
        assert (llama == early.astype(ml_dtypes.bfloat16).astype(np.float64)).mean() > 0.99
        assert (gemma == late.astype(ml_dtypes.bfloat16).astype(np.float64)).mean() > 0.99
        assert (llama != gemma).any()

    def test_a_wider_weight_is_not_rounded_first(self):
        x = normal(64, 32).astype(ml_dtypes.bfloat16)
        weight = normal(32)
        found = rms_norm(Tensor(x), Tensor(weight), 1e-6, 1.0, True)
        expected = rms_norm_oracle(x.astype(np.float64), 1 + weight.astype(np.float64))
        expected = expected.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float64)
        assert found.dtype is DType.bfloat16
        assert (wide(found) == expected).mean() > 0.99

    def test_weights_must_fit(self):
        message = "RMSNorm: Could not apply weight shape .*4.* to input shape .*5"
        with pytest.raises(ValueError, match=message):
            RMSNorm(4)(Tensor.ones([2, 5]))
        with pytest.raises(ValueError, match="RMSNorm"):
            RMSNorm(1)(Tensor.ones([]))


class TestGroupNorm:
    @pytest.mark.parametrize("shape", [(2, 6), (2, 6, 5), (1, 6, 3, 4)])
    @pytest.mark.parametrize("groups", [1, 2, 6])
    def test_values(self, shape, groups):
        m = GroupNorm(groups, 6, eps=1e-3)
        weight, bias, x = normal(6), normal(6), normal(*shape)
        m.load_state_dict({"weight": weight, "bias": bias})
        rows = layer_norm_oracle(x.reshape(shape[0], groups, -1), 1, 0, 1e-3).reshape(shape)
        channels = (6, *(1 for _ in shape[2:]))
        expected = rows * weight.reshape(channels) + bias.reshape(channels)
        found = m(Tensor(x))
        assert found.shape == list(shape)
        np.testing.assert_allclose(found.to_numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_without_parameters(self):
        m = GroupNorm(2, 4, affine=False)
        assert list(m.parameters) == []
        x = normal(3, 4, 5)
        expected = layer_norm_oracle(x.reshape(3, 2, -1), 1, 0).reshape(x.shape)
        np.testing.assert_allclose(m(Tensor(x)).to_numpy(), expected, rtol=1e-5, atol=1e-5)

    def test_repr(self):
        assert repr(GroupNorm(4, 16)) == "GroupNorm(num_groups=4, num_channels=16)"
        shown = "GroupNorm(num_groups=4, num_channels=16, eps=0.1, affine=False)"
        assert repr(GroupNorm(4, 16, eps=0.1, affine=False)) == shown

    def test_errors(self):
        message = r"num_channels\(6\) should be divisible by num_groups\(4\)"
        with pytest.raises(ValueError, match=message):
            GroupNorm(4, 6)
        for shape in ([4], [2, 3], [2, 3, 4]):
            with pytest.raises(ValueError, match=r"GroupNorm: expected \[batch, 4, \.\.\.\]"):
                GroupNorm(2, 4)(Tensor.ones(shape))
