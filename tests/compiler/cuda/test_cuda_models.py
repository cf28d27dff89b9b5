"""Whole compiled models on an emulated GPU: the CUDA backend, its kernels, its products."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated_cuda import EmulatedCudaBackend, FakeArray, emulated_cuda
from helpers import wide

import maxmod
from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.cuda import nvrtc
from maxmod.backends.devices import Device
from maxmod.errors import CompileError
from maxmod.kernel.source import Dialect
from maxmod.models import load_model
from maxmod.models.decoders import gpt2
from maxmod.nn import LayerNorm, Linear, Module
from maxmod.runtime.compiled import compile_function

FIXTURES = Path(__file__).parents[2] / "assets" / "gpt2"


@pytest.fixture
def gpu() -> Iterator[tuple[Device, EmulatedCudaBackend]]:
    with emulated_cuda() as found:
        yield found


def _host(tensor: Tensor) -> np.ndarray[Any, Any]:
    return np.asarray(tensor.to(CPU()).cast(DType.float32).to_numpy(), np.float64)


class Block(Module):
    """A transformer block without its projections' names: norm, attention, norm, gelu."""

    def __init__(self, width: int, heads: int) -> None:
        self.heads = heads
        self.norm = LayerNorm(width)
        self.qkv = Linear(width, 3 * width)
        self.out = Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, seq, width = x.shape
        size = int(width) // self.heads
        qkv = self.qkv(self.norm(x)).reshape([batch, seq, 3, self.heads, size])
        q, k, v = (qkv[:, :, i].permute([0, 2, 1, 3]) for i in range(3))
        scores = F.softmax(q @ k.permute([0, 1, 3, 2]) * size**-0.5)
        mixed = (scores @ v).permute([0, 2, 1, 3]).reshape([batch, seq, width])
        return x + F.gelu(self.out(mixed), approximate="tanh")


def _block_oracle(x: Any, w: dict[str, Any], heads: int) -> Any:
    batch, seq, width = x.shape
    size = width // heads
    centred = x - x.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    normed = normed * w["norm.weight"] + w["norm.bias"]
    qkv = (normed @ w["qkv.weight"].T + w["qkv.bias"]).reshape(batch, seq, 3, heads, size)
    q, k, v = qkv.transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(-1, -2) * size**-0.5
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    out = mixed.swapaxes(1, 2).reshape(x.shape) @ w["out.weight"].T + w["out.bias"]
    return x + 0.5 * out * (1 + np.tanh(np.sqrt(2 / np.pi) * (out + 0.044715 * out**3)))


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(DType.float32, 2e-5), (DType.bfloat16, 0.08), (DType.float16, 0.01)],
    ids=["float32", "bfloat16", "float16"],
)
@pytest.mark.parametrize("order", [0, 3])
def test_a_block(gpu: Any, dtype: DType, tolerance: float, order: int) -> None:
    """Sizes rise and fall on one compiled module; results are checked against NumPy."""
    device, backend = gpu
    backend.cuda.order = order
    maxmod.random.set_seed(3)
    with maxmod.default_device(device), maxmod.default_dtype(dtype):
        block = Block(32, 4)
    block.apply_to_parameters(lambda name, tensor: tensor * 0.25)  # no attention to one position
    compiled = block.compile(TensorType(dtype, ["batch", "seq", 32], device))
    assert {kernel.dialect for kernel in compiled.kernels} == {Dialect.CUDA}
    weights = {name: _host(tensor) for name, tensor in block.parameters}
    rng = np.random.default_rng(0)
    for batch, seq in [(2, 5), (1, 1), (8, 33), (2, 5)]:
        x = Tensor(rng.standard_normal((batch, seq, 32)).astype(np.float32), device=CPU())
        x = x.cast(dtype).to(device)
        y = compiled(x)
        assert (y.dtype, y.device, type(y.data)) == (dtype, device, FakeArray)
        expected = _block_oracle(_host(x), weights, 4)
        np.testing.assert_allclose(_host(y), expected, rtol=tolerance, atol=tolerance)
    assert compiled.stats.programs == 4  # the third needs a larger arena than the first


def test_check_compares_kernels_with_graphs(gpu: Any) -> None:
    """`MAXMOD_CHECK=1` compares every launch with the ops run one by one."""
    device, _ = gpu
    with maxmod.default_device(device), maxmod.default_dtype(DType.float32):
        block = Block(16, 2)
    with maxmod.config.configure(check=True):
        compiled = block.compile(TensorType(DType.float32, [2, 6, 16], device))
        x = Tensor(np.ones((2, 6, 16), np.float32), device=device)
        compiled(x)


@pytest.mark.parametrize("name", ["tied", "bfloat16"])
def test_gpt2(gpu: Any, name: str) -> None:
    """Two layers, against the logits that transformers computed."""
    device, backend = gpu
    model = load_model(FIXTURES / name, device=device, dtype=DType.float32)
    compiled = model.module.compile(model.tokens_type)
    assert compiled.kernels
    with np.load(FIXTURES / name / "golden.npz") as data:
        for number in range(3):
            tokens = Tensor(data[f"input_ids_{number}"], device=CPU()).to(device)
            logits = compiled(tokens).to(CPU()).to_numpy()
            np.testing.assert_allclose(logits, data[f"logits_{number}"], rtol=0, atol=1e-4)
    assert backend.cuda.launches


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("gpt2/tied", None),
        ("llama/llama32", None),
        ("llama/mistral", None),
        ("gpt2/tied", "int8"),
        ("gpt2/tied", "int4"),
        ("llama/llama32", "int8"),
    ],
)
def test_decoding_with_a_cache(gpu: Any, name: str, scheme: str | None) -> None:
    """A prompt of many rows, then one token at a time: the kernels for few rows, quantised weights
    as they are.
    """
    device, backend = gpu
    folder = FIXTURES.parent / name
    model = load_model(folder, device=device, dtype=DType.float32, quantize=scheme)
    length = min(model.max_positions, 24)
    tokens = np.random.default_rng(3).integers(0, model.vocab_size, (2, length))
    module = load_model(folder, device=CPU(), dtype=DType.float32, quantize=scheme).module
    whole = np.array(module(Tensor(tokens, dtype=DType.int64, device=CPU())))
    cache = model.empty_cache([0, 0], length)
    prompt = length - 4
    steps = [tokens[:, :prompt], *(tokens[:, i : i + 1] for i in range(prompt, length))]
    for count, step in enumerate(steps, prompt):
        backend.cuda.products.calls.clear()
        found = model.next_logits_cached(step, cache)
        assert bool(backend.cuda.products.calls) == (count == prompt)
        atol = 3e-5 * np.abs(whole).max()
        np.testing.assert_allclose(found, whole[:, count - 1], rtol=0, atol=atol)
    products = [kernel.name for kernel in model.step().kernels if "linear" in kernel.name]
    assert bool(products) == (scheme is not None)


def test_a_prompt_in_bfloat16(gpu: Any) -> None:
    """Two layers of GPT-2 and of Llama with grouped heads: attention runs on tensor cores."""
    device, _ = gpu
    maxmod.random.set_seed(5)
    with maxmod.default_device(CPU()), maxmod.default_dtype(DType.bfloat16):
        small = gpt2.GPT2(gpt2.Config(101, n_positions=48, n_embd=64, n_layer=2, n_head=2))
    small.apply_to_parameters(lambda name, tensor: tensor * 0.25)  # no attention to one position
    llama = load_model(FIXTURES.parent / "llama" / "llama32", device=CPU(), dtype=DType.bfloat16)
    for module, length in ((small, 48), (llama.module, 30)):
        array = np.random.default_rng(length).integers(0, 60, (2, length))
        tokens = Tensor(array, dtype=DType.int64, device=CPU())
        module.apply_to_parameters(lambda name, tensor: tensor.cast(DType.float32))
        wanted = _host(module(tokens))
        module.apply_to_parameters(lambda name, tensor: tensor.cast(DType.bfloat16).to(device))
        compiled = module.compile(TensorType(DType.int64, ["batch", "seq"], device))
        assert sum("mm_multiply" in kernel.code for kernel in compiled.kernels) == 1
        found = _host(compiled(tokens.to(device)))
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0.03 * np.abs(wanted).max())


def test_older_gpus_leave_halves_to_the_library(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    device, backend = gpu
    kind = TensorType(DType.bfloat16, [1, 2, 40, 16], device)

    def attend(x: Tensor) -> Tensor:
        return F.softmax(x @ x.T) @ x

    names = {}
    for architecture in ("sm_75", "sm_80"):
        monkeypatch.setattr(backend, "architecture", lambda index, found=architecture: found)
        names[architecture] = [
            kernel.name
            for kernel in compile_function(attend, [kind], name="f", parameters={}).kernels
        ]
    assert names["sm_80"] == ["attention"]
    assert "attention" not in names["sm_75"]


def test_threads_share_a_compiled_model(gpu: Any) -> None:
    device, _ = gpu
    program = F.functional(lambda x: F.softmax(x * 2))
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    kind = TensorType(DType.float32, ["n", 4], device)

    class Program(Module):
        def forward(self, x: Tensor) -> Tensor:
            return program(x)

    compiled = Program().compile(kind)
    found: list[np.ndarray[Any, Any]] = []

    def work() -> None:
        found.append(compiled(Tensor(x, device=device)).to(CPU()).to_numpy())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    e = np.exp(2 * wide(x) - 2 * wide(x).max(-1, keepdims=True))
    assert len(found) == 6
    for result in found:
        np.testing.assert_allclose(result, e / e.sum(-1, keepdims=True), rtol=1e-6)


class Scale(Module):
    """Reads a weight, casts it, scales the argument."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight.cast(DType.float32)


@pytest.mark.parametrize(
    "dtype", [DType.float8_e4m3fn, DType.float8_e5m2, DType.float8_e8m0fnu], ids=lambda d: d.name
)
def test_8_bit_weights(gpu: Any, dtype: DType) -> None:
    """Kept as bytes, decoded in the kernel; eager ops take the way over the host."""
    device, _ = gpu
    numbers = np.array([0.25, 0.5, 1, 2, 4, 8, 16], np.float32)
    weight = Tensor(numbers, device=CPU()).cast(dtype).to(device)
    assert weight.data.dtype == np.uint8
    assert weight.dtype is dtype
    compiled = Scale(weight).compile(TensorType(DType.float32, ["n", 7], device))
    x = Tensor(np.full((2, 7), 3, np.float32), device=device)
    expected = np.tile(3 * numbers, (2, 1))
    np.testing.assert_array_equal(_host(compiled(x)), expected)
    np.testing.assert_array_equal(_host(x * weight.cast(DType.float32)), expected)
    again = weight.reshape([7, 1])[2:5].cast(DType.float32).cast(dtype)
    assert again.data.dtype == np.uint8
    np.testing.assert_array_equal(_host(again.cast(DType.float32)).ravel(), numbers[2:5])
    back = weight.to(CPU())
    assert back.dtype is dtype
    np.testing.assert_array_equal(_host(back), numbers)


def test_results_of_8_bits(gpu: Any) -> None:
    device, _ = gpu

    class Narrow(Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x + 1).cast(DType.float8_e4m3fn)

    compiled = Narrow().compile(TensorType(DType.float32, [5], device))
    y = compiled(Tensor(np.array([0, 1, 2.1, 300, -1], np.float32), device=device))
    assert (y.dtype, y.data.dtype) == (DType.float8_e4m3fn, np.dtype(np.uint8))
    assert _host(y).tolist() == [1, 2, 3, 288, 0]


def test_arguments_that_are_not_aligned_are_copied(gpu: Any) -> None:
    """Kernels read 16 bytes at a time, wherever an argument starts."""
    device, backend = gpu

    class Add(Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    compiled = Add().compile(TensorType(DType.float32, [16], device))
    block = backend.xp.asarray(np.arange(40, dtype=np.float32))
    for start in (0, 1, 2, 3, 4):
        x = Tensor.wrap(block[start : start + 16], TensorType(DType.float32, [16], device))
        assert _host(compiled(x)).tolist() == list(range(start + 1, start + 17))
    strided = Tensor.wrap(block[::2][:16], TensorType(DType.float32, [16], device))
    assert _host(compiled(strided)).tolist() == list(range(1, 33, 2))


def test_a_size_of_zero_launches_nothing(gpu: Any) -> None:
    device, backend = gpu

    class Add(Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + 1

    compiled = Add().compile(TensorType(DType.float32, ["n", 3], device))
    empty = Tensor(np.zeros((0, 3), np.float32), device=device)
    assert compiled(empty).to(CPU()).to_numpy().shape == (0, 3)
    assert backend.cuda.launches == []


def test_without_a_compiler_ops_run_one_by_one(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    device, _ = gpu

    def refuse(source: Any, arch: str) -> bytes:
        raise CompileError("nvrtc: refused")

    monkeypatch.setattr(nvrtc, "compile_cubin", refuse)
    compiled = Scale(Tensor([2.0], dtype=DType.float32, device=device)).compile(
        TensorType(DType.float32, [4], device)
    )
    assert (compiled.stats.kernels_refused, compiled.stats.kernels_built) == (1, 0)
    assert "refused" in caplog.text
    x = Tensor([1.0, 2, 3, 4], dtype=DType.float32, device=device)
    assert _host(compiled(x)).tolist() == [2, 4, 6, 8]


def test_sources_can_be_pasted(gpu: Any) -> None:
    """Prelude and code make one text without includes; its entry has a plain name."""
    device, _ = gpu
    compiled = Scale(Tensor([2.0], dtype=DType.float32, device=device)).compile(
        TensorType(DType.float32, [4], device)
    )
    (source,) = compiled.kernels
    text = source.full_text()
    assert "#include" not in text
    assert f'extern "C" __global__ void __launch_bounds__(256) {source.entry}(' in text
