"""Quantised weights: accuracy, rejected arguments, and the host kernels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from build_cache import unoptimised_host_kernels
from compiler.graphs import compiled, f32
from helpers import tensor
from ops.samples_quantized import integers, linear4, linear8, linear_with_minimums, unpacked
from quantized_rule import linear

from maxmod import DType, Tensor, TensorType, configure
from maxmod import functional as F
from maxmod.backends.host import quantize as host_quantize
from maxmod.errors import DTypeError
from maxmod.values.device import CPU_REF

SYMMETRIC = [("int8", -1), ("int8", 64), ("int4_symmetric", 32), ("int4_symmetric", 64)]
FORMATS = [
    *(("int8", -1), ("int8", 64), ("int4", 32), ("int4_symmetric", 32), ("int8", 32)),
    *(("int4", 64), ("int4", 128)),
]
ERROR = 1e-4  # rows become integers of 16 bits: the largest error, as a part of the largest result


def _weight(rows: int, depth: int, seed: int = 1) -> Any:
    return np.random.default_rng((seed, rows, depth)).normal(size=(rows, depth)).astype(np.float32)


def _array(scales: Tensor) -> Any:
    """Scales as NumPy has them; of bfloat16 as float32."""
    return (scales.cast(DType.float32) if scales.dtype is DType.bfloat16 else scales).to_numpy()


# ---- rounding ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "group"), SYMMETRIC)
@pytest.mark.parametrize("size", [1e-42, 1e-7, 1e-3, 1.0, 3e4])
def test_no_weight_is_further_than_half_a_scale(scheme: str, group: int, size: float) -> None:
    weight = (_weight(40, 256).astype(np.float64) * size).astype(np.float32)
    weight[7], weight[8, 3] = 0, 0
    codes, scales = F.quantize_weight(tensor(weight), scheme, group)
    found = F.dequantize_weight(codes, scales, DType.float64).to_numpy()
    scale = np.repeat(_array(scales).astype(np.float64), group if group > 0 else 256, axis=1)
    assert (np.abs(found - weight) <= scale * (0.5 + 1e-6)).all()
    assert (found[7] == 0).all()
    assert found[8, 3] == 0
    if size == 1.0:
        largest = (
            np.abs(weight.reshape(-1, group if group > 0 else 256))
            .max(axis=1)
            .reshape(scales.sizes)
        )
        largest = np.repeat(largest, group if group > 0 else 256, axis=1)
        assert (scale <= largest / (127 if scheme == "int8" else 7.5) * 1.008).all()


@pytest.mark.parametrize("group", [32, 96])
@pytest.mark.parametrize("size", [1e-30, 1e-7, 1.0, 3e4, 5e36])
def test_minimums_cost_no_more_than_a_plain_range(group: int, size: float) -> None:
    """The squared errors of each group are at most those of 15 steps from its least to its largest
    weight, but for steps and minimums having 8 bits; also where all weights are on one side of 0.
    """
    weight = (_weight(40, 192).astype(np.float64) * size).astype(np.float32)
    weight[7], weight[8], weight[9] = 0, np.abs(weight[8]), -np.abs(weight[9])
    weight[10, ::group] *= 20
    codes, scales = F.quantize_weight(tensor(weight), "int4", group)
    found = F.dequantize_weight(codes, scales, DType.float64).to_numpy()
    parts = weight.astype(np.float64).reshape(40, -1, group)
    low = np.minimum(parts.min(axis=2, keepdims=True), 0)
    step = np.maximum(parts.max(axis=2, keepdims=True), 0) - low
    step = np.where(step == 0, 1, step) / 15
    plain = np.rint((parts - low) / step) * step + low
    limit = ((plain - parts) ** 2).sum(axis=2)
    largest = np.maximum(step, -low / 8).max(axis=1, keepdims=True)  # of a row: it has 7 bits or 8
    slack = group * (6 * largest / 127) ** 2 + 2 * np.sqrt(limit[..., None] * group) * largest / 21
    error = ((found.reshape(parts.shape) - parts) ** 2).sum(axis=2)
    assert (error <= limit + slack[..., 0] + (group * 1e-43) ** 2).all()
    assert (found[7] == 0).all()


@pytest.mark.parametrize("rows", [2, 5000])  # by NumPy, and by a kernel
def test_the_largest_floats_do_not_overflow(rows: int) -> None:
    """The range of a group may be twice the largest float32."""
    most = float(np.finfo(np.float32).max)
    weight = np.linspace(-most, most, 64, dtype=np.float64)
    weight = weight.astype(np.float32)[None].repeat(rows, 0)
    made = F.quantize_weight(tensor(weight), "int4")
    found = F.dequantize_weight(*made, DType.float64).to_numpy()
    assert np.abs(found - weight).max() <= 0.06 * most


def test_weights_on_a_grid_of_16_values_lose_nothing() -> None:
    """As those of files in formats with a scale and a minimum, such as Q4_1 of GGUF."""
    rng = np.random.default_rng(5)
    scale = rng.integers(20, 120, (30, 6, 1)) / 4096
    scale[:, 0] = 127 / 4096  # the largest of a row, with which its unit is exact
    codes = rng.integers(0, 16, (30, 6, 32))
    codes[..., 0], codes[..., 1] = 0, 15
    weight = ((codes - 8) * scale).astype(np.float32).reshape(30, 192)
    made = F.quantize_weight(tensor(weight), "int4")
    np.testing.assert_array_equal(F.dequantize_weight(*made).to_numpy(), weight)


def test_where_the_codes_of_a_byte_stand() -> None:
    weight = np.arange(64, dtype=np.float32).reshape(1, 64) % 15 - 7
    weight[0, ::32] = -7.5  # so that scales are 1
    codes, scales = F.quantize_weight(tensor(weight), "int4_symmetric", 32)
    assert _array(scales).tolist() == [[1, 1]]
    weight[0, ::32] = -8
    assert unpacked(codes.to_numpy()).tolist() == weight.tolist()


def test_rows_are_done_in_parts() -> None:
    """More than one part at a time, and a part that is not full."""
    weight = _weight(700, 3200)
    for scheme, group in FORMATS[:4]:
        with configure(compile=False):  # by NumPy
            whole = F.quantize_weight(tensor(weight), scheme, group)
            rows = [F.quantize_weight(tensor(weight[[n]]), scheme, group) for n in (0, 400, 699)]
        for one, parts in zip(whole, zip(*rows)):
            for n, part in zip((0, 400, 699), parts):
                np.testing.assert_array_equal(one.data[n : n + 1], part.data)


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16, DType.float16, DType.float64])
def test_large_weights_are_rounded_by_a_kernel(dtype: DType) -> None:
    """It gives the bits that NumPy gives, also of tiny, halfway and zero weights."""
    weight = _weight(432, 384).astype(np.float64)
    weight *= np.array([1, 1e-7, 1e-3, 100, 1e-38, 1e-42, 1e-45, 0.3])[np.arange(432) % 8, None]
    weight[9] = np.linspace(-127, 127, 384)
    weight[10] = np.where(weight[10] < 0, 127, 63.5)
    weight[11], weight[12, :32] = 0, -0.0
    given = Tensor(weight).cast(dtype)
    for scheme, group in (*FORMATS, ("int4", 384), ("int4_symmetric", 384)):
        has_kernel = host_quantize.codes_and_scales(given.data, scheme, group) is not None
        assert has_kernel == (dtype is not DType.float64)
        found = F.quantize_weight(given, scheme, group)
        with configure(compile=False):
            wanted = F.quantize_weight(given, scheme, group)
        for one, other in zip(found, wanted, strict=True):
            assert one.type == other.type
            assert one.data.tobytes() == other.data.tobytes()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_weights_must_be_finite(bad: float) -> None:
    for weight in (_weight(3, 64), _weight(600, 256)):  # by NumPy, and by a kernel
        weight[-1, 5] = bad
        for scheme in ("int8", "int4"):
            with pytest.raises(ValueError, match="expected finite values, got NaN or infinity"):
                F.quantize_weight(tensor(weight), scheme)


def test_bad_operands_are_refused() -> None:
    weight = tensor(_weight(4, 96))
    with pytest.raises(ValueError, match="scheme: expected 'int8' or 'int4' .*, got 'int5'"):
        F.quantize_weight(weight, "int5")
    with pytest.raises(ValueError, match="multiple of 32, or -1 for one scale for each row, got 0"):
        F.quantize_weight(weight, "int8", 0)
    with pytest.raises(ValueError, match="expected a multiple of 32, got 48"):
        F.quantize_weight(weight, "int4", 48)
    with pytest.raises(ValueError, match=r"multiple of group_size=64, got float32\[4,96\].*Hint"):
        F.quantize_weight(weight, "int4", 64)
    with pytest.raises(ValueError, match=r"expected \[out, in\], got float32\[4\]"):
        F.quantize_weight(tensor(np.ones(4, np.float32)))
    for rows in (1, 5000):
        with pytest.raises(ValueError, match="expected magnitudes below 491280"):
            F.quantize_weight(tensor(np.full((rows, 32), 5e5, np.float32)), "int4_symmetric")
    codes, scales = F.quantize_weight(weight, "int4_symmetric")
    x = tensor(np.ones((2, 95), np.float32))
    with pytest.raises(ValueError, match=r"must have the 96 elements of a row of weight, got"):
        F.quantized_linear(x, codes, scales)
    with pytest.raises(ValueError, match=r"do not fit together.*expected \[out, in / group\]"):
        F.dequantize_weight(codes, tensor(np.ones((4, 5), np.float16)))
    with pytest.raises(
        ValueError, match=r"do not fit together.*expected \[out, 1\], or \[out, in / "
    ):
        F.dequantize_weight(tensor(np.ones((4, 96), np.int8)), tensor(np.ones((4, 6), np.float16)))
    with pytest.raises(ValueError, match="expected matrices of codes and scales"):
        F.dequantize_weight(tensor(np.ones(4, np.int8)), scales)
    with pytest.raises(DTypeError, match="expected codes of int8, or of uint8"):
        F.dequantize_weight(weight, scales)
    with pytest.raises(ValueError, match="do not fit together"):  # an even number of bytes
        F.quantized_linear(tensor(np.ones((2, 96), np.float32)), codes, codes)
    with pytest.raises(ValueError, match=r"expected \[out, 2 \* in / group \+ 1\]"):
        F.dequantize_weight(codes, tensor(np.ones((4, 5), np.uint8)))
    with pytest.raises(DTypeError, match="dtype: expected a floating dtype"):
        F.dequantize_weight(codes, scales, DType.int32)


# ---- kernels -----------------------------------------------------------------------------------


def _operands(scheme: str, group: int, rows: int, depth: int) -> tuple[Any, Any, Any]:
    codes, scales = F.quantize_weight(tensor(_weight(rows, depth)), scheme, group)
    oracle = {"int8": linear8, "int4": linear_with_minimums, "int4_symmetric": linear4}[scheme]
    return (
        codes,
        scales,
        lambda x: oracle(
            x.astype(np.float64),
            codes.to_numpy().astype(np.int64),
            _array(scales).astype(np.float64),
        ),
    )


def _by_rule(x: Any, codes: Tensor, scales: Tensor, group: int | None) -> Any:
    """Results as `kernels/host/quantized.h` defines them, bit for bit."""
    whole = integers(codes.to_numpy(), _array(scales))
    return linear(x, whole, _array(scales), group)


@pytest.mark.parametrize(
    ("scheme", "group", "columns", "depth"),
    [
        ("int8", -1, 1, 1),
        ("int8", -1, 5, 7),
        ("int8", -1, 37, 100),
        ("int8", -1, 70, 257),
        ("int8", -1, 45, 128 * 19 + 5),
        ("int8", 32, 39, 32 * 37),
        ("int8", 64, 1, 64 * 2),
        ("int8", 64, 70, 64 * 17),
        ("int8", 96, 6, 192),
        ("int8", 256, 33, 512),
        ("int4_symmetric", 32, 39, 32 * 37),
        ("int4_symmetric", 256, 33, 512),
        ("int4", 32, 1, 32),
        ("int4", 32, 39, 32 * 37),
        ("int4", 64, 70, 64 * 17),
        ("int4", 96, 6, 192),
        ("int4", 256, 33, 512),
    ],
)
def test_kernel(scheme: str, group: int, columns: int, depth: int) -> None:
    """Few and many rows, at sizes around those of vectors, panels and parts of scales."""
    codes, scales, oracle = _operands(scheme, group, columns, depth)
    model = compiled(F.quantized_linear, f32("b", depth), codes.type, scales.type)
    assert [kernel.name for kernel in model.kernels] == ["quantized_linear"]
    x = _weight(50, depth, seed=3)
    exact, wanted = oracle(x), _by_rule(x, codes, scales, group)
    np.testing.assert_allclose(wanted, exact, rtol=0, atol=ERROR * np.abs(exact).max())
    for rows in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 50):
        found = model(Tensor(x[:rows]), codes, scales).to_numpy()
        np.testing.assert_array_equal(found, wanted[:rows], err_msg=str(rows))


@pytest.mark.parametrize(("scheme", "group"), FORMATS[:4])
def test_numbers_of_every_size(scheme: str, group: int) -> None:
    """Rows become integers, but for numbers far above the others or very small."""
    depth = 192
    codes, scales, oracle = _operands(scheme, group, 37, depth)
    model = compiled(F.quantized_linear, f32("b", depth), codes.type, scales.type)
    x = _weight(10, depth, seed=5).astype(np.float64)
    x[1] += 30
    x[2] = np.exp(3 * x[2])
    x[3, 7] = 1e5
    for row, size in enumerate((1e-30, 2e-28, 1e-38, 1e30, 0, 0.25), start=4):
        x[row] *= size
    x = x.astype(np.float32)
    wanted = oracle(x)
    limits = ERROR * np.abs(wanted).max(axis=1, keepdims=True) + 1e-44
    by_rule = _by_rule(x, codes, scales, group)
    for rows in (*([row] for row in range(10)), [0, 7], [1, 2, 3], [2, 8, 9], list(range(8))):
        found = model(Tensor(x[rows]), codes, scales).to_numpy()
        np.testing.assert_array_equal(found, by_rule[rows], err_msg=str(rows))
        assert (np.abs(found - wanted[rows]) <= limits[rows]).all(), rows
    for bad in (np.nan, np.inf, -np.inf):
        given = x[[0, 1, 9]]
        given[1, 5] = bad
        with np.errstate(invalid="ignore"):
            wanted = oracle(given)
        found = model(Tensor(given), codes, scales).to_numpy()
        assert not np.isfinite(wanted[1]).any()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=ERROR * np.nanmax(np.abs(wanted[0])))
        np.testing.assert_array_equal(found, _by_rule(given, codes, scales, group))


def test_one_number_far_above_the_others() -> None:
    """It costs the others no digits, even where its own codes are 0, and neither do several."""
    depth = 768
    codes, scales, _ = _operands("int8", -1, 64, depth)
    array = codes.to_numpy().copy()
    array[:, [5, 9, 10, 11]] = 0
    codes = Tensor(array)
    weight = F.dequantize_weight(codes, scales).to_numpy().astype(np.float64)
    model = compiled(F.quantized_linear, f32("b", depth), codes.type, scales.type)
    x = _weight(8, depth, seed=7)
    x[:, 5] = [0, 1e2, 3e2, 1e3, 1e4, 1e6, 1e10, 1e30]
    x[4:, 9:12] = x[4:, 5:6] * [1, -1e-3, 1e-3]
    wanted = x.astype(np.float64) @ weight.T
    found = model(Tensor(x), codes, scales).to_numpy()
    assert np.abs(found - wanted).max() <= ERROR * np.abs(wanted).max()
    np.testing.assert_array_equal(found, _by_rule(x, codes, scales, None))


def test_a_row_does_not_depend_on_the_others() -> None:
    """Rows of numbers near to each other, of numbers far from each other, zeros, NaN."""
    depth = 200
    codes, scales, _ = _operands("int8", -1, 37, depth)
    model = compiled(F.quantized_linear, f32("b", depth), codes.type, scales.type)
    x = _weight(7, depth, seed=8)
    x[1, 3], x[2], x[4, 0], x[5] = 1e9, 0, np.nan, 1e-36
    alone = [model(Tensor(row[None]), codes, scales).to_numpy() for row in x]
    for rows in ([0, 1], [0, 2, 3], [1, 0, 3, 6], [1, 4], [5, 0, 4, 2, 1, 6], [3, 5, 1, 4, 1, 5]):
        found = model(Tensor(x[rows]), codes, scales).to_numpy()
        np.testing.assert_array_equal(found, np.concatenate([alone[row] for row in rows]))


@pytest.mark.parametrize(("scheme", "group"), FORMATS[:4])
@pytest.mark.parametrize("depth", [64, 77, 1408])
def test_a_row_has_the_same_bits_in_a_batch_of_any_size(
    scheme: str, group: int, depth: int
) -> None:
    """With bias and gelu; one depth is no whole number of steps, one has several slices."""
    if group > 0 and depth % group:
        return
    codes, scales, _ = _operands(scheme, group, 45, depth)
    bias = Tensor(_weight(1, 45, seed=3)[0])

    def fn(x: Tensor, w: Tensor, s: Tensor, b: Tensor) -> Tensor:
        return F.gelu(F.quantized_linear(x, w, s) + b)

    model = compiled(fn, f32("b", depth), codes.type, scales.type, bias.type)
    x = _weight(70, depth, seed=8)
    x[11, 3], x[20], x[40, 0], x[33] = 1e9, 0, np.inf, 1e-36
    alone = np.concatenate([model(Tensor(row[None]), codes, scales, bias).to_numpy() for row in x])
    for count in range(1, 71):
        found = model(Tensor(x[:count]), codes, scales, bias).to_numpy()
        np.testing.assert_array_equal(found, alone[:count], err_msg=str(count))
    wanted = F.dequantize_weight(codes, scales).to_numpy().astype(np.float64)
    wanted = x[:10].astype(np.float64) @ wanted.T + bias.to_numpy()
    wanted = 0.5 * wanted * np.vectorize(math.erfc)(-wanted / math.sqrt(2))
    np.testing.assert_allclose(alone[:10], wanted, rtol=0, atol=ERROR * np.abs(wanted).max())


@pytest.mark.parametrize("depth", [1 << 20, (1 << 20) + 64])
def test_deep_products(depth: int) -> None:
    """The largest sums that fit integers of 32 bits, and a depth at which they would not."""
    codes = np.full((2, depth), 127, np.int8)
    codes[1] = -127
    scales = Tensor(np.ones((2, 1), np.float32))
    types = TensorType(DType.int8, [2, depth], CPU_REF), scales.type
    model = compiled(F.quantized_linear, f32(1, depth), *types)
    for digits in (0x3F7F7F00, -0x3F7F7F00, 0x3F808080):  # the largest of both signs
        x = np.full((1, depth), digits * 2.0**-30, np.float32)
        wanted = np.array([[127, -127]]) * x[0, 0].astype(np.float64) * depth
        found = model(Tensor(x), Tensor(codes), scales).to_numpy()
        np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize(("scheme", "group"), FORMATS[:4])
@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16, DType.float16])
def test_bias_activation_and_residual_are_in_the_kernel(
    scheme: str, group: int, dtype: DType
) -> None:
    """Bias, activation and residual; the operand is read through a view.

    Products are not optimised here: `test_kernel` and the tests of bits look at those that are.
    """
    codes, scales, oracle = _operands(scheme, group, 40, 64)

    def fn(x: Tensor, w: Tensor, s: Tensor, b: Tensor, r: Tensor) -> Tensor:
        return F.relu(F.quantized_linear(x.permute([1, 0, 2]), w, s) + b) + r

    types = [TensorType(dtype, sizes, CPU_REF) for sizes in (["s", "b", 64], [40], ["b", "s", 40])]
    with configure(check=True), unoptimised_host_kernels():
        model = compiled(fn, types[0], codes.type, scales.type, *types[1:])
        assert [kernel.name for kernel in model.kernels] == ["quantized_linear_bias_relu_add"]
        for seq in (1, 9):
            x, b, r = _weight(seq * 2, 64).reshape(seq, 2, 64), _weight(1, 40)[0], _weight(1, 40)
            r = np.broadcast_to(r, (2, seq, 40)).copy()
            given = [Tensor(a).cast(dtype) for a in (x, b, r)]
            x, b, r = (t.cast(DType.float32).to_numpy().astype(np.float64) for t in given)
            wanted = np.maximum(oracle(x.transpose(1, 0, 2)) + b, 0) + r
            found = model(given[0], codes, scales, *given[1:]).cast(DType.float32).to_numpy()
            tolerance = {DType.float32: ERROR, DType.bfloat16: 2e-2, DType.float16: 3e-3}[dtype]
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance * 10)
            if seq == 1:
                one = model(given[0][:, :1], codes, scales, given[1], given[2][:1])
                np.testing.assert_array_equal(one.cast(DType.float32).to_numpy(), found[:1])


def test_operands_without_a_kernel_run_as_an_op() -> None:
    """Sums in float64, scales of a dtype without vectors, codes that are computed."""
    codes, scales, oracle = _operands("int8", -1, 5, 8)
    x = _weight(3, 8).astype(np.float64)
    wide = compiled(
        F.quantized_linear, TensorType(DType.float64, ["b", 8], CPU_REF), codes.type, scales.type
    )
    assert not wide.kernels
    np.testing.assert_allclose(wide(Tensor(x), codes, scales).to_numpy(), oracle(x), rtol=1e-12)
    turned = compiled(
        lambda a, w, s: F.quantized_linear(a, w.T, s),
        f32("b", 8),
        TensorType(DType.int8, [8, 5], CPU_REF),
        scales.type,
    )
    weight = Tensor(np.ascontiguousarray(codes.to_numpy().T))
    found = turned(Tensor(x.astype(np.float32)), weight, scales).to_numpy()
    np.testing.assert_allclose(found, oracle(x), rtol=0, atol=ERROR * 10)


def test_two_products_are_not_taken_for_attention() -> None:
    """A softmax between them is a separate row kernel."""
    codes, scales, oracle = _operands("int8", -1, 8, 8)
    model = compiled(
        lambda x, w, s: F.quantized_linear(F.softmax(F.quantized_linear(x, w, s)), w, s),
        f32("b", 8),
        codes.type,
        scales.type,
    )
    x = _weight(3, 8)
    logits = oracle(x)
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    wanted = oracle(e / e.sum(axis=1, keepdims=True))
    found = model(Tensor(x), codes, scales).to_numpy()
    np.testing.assert_allclose(found, wanted, rtol=0, atol=4 * ERROR * np.abs(wanted).max())
