"""A GPT-2 in the style of the public tutorials for MAX: eager, then compiled for any sizes."""

import math
import sys
from dataclasses import dataclass

import numpy as np
from max.driver import CPU, Device
from max.dtype import DType
from max.experimental import functional as F
from max.experimental.tensor import Tensor, TensorType, default_dtype, defaults
from max.graph import DeviceRef, Dim, DimLike
from max.nn.module_v3 import Embedding, Linear, Module, Sequential


@dataclass
class Sizes:
    vocab_size: int = 29
    n_positions: int = 16
    n_embd: int = 12
    n_layer: int = 2
    n_head: int = 3
    layer_norm_epsilon: float = 1e-5


@F.functional
def causal_mask(
    sequence_length: DimLike, num_cached: DimLike, *, dtype: DType, device: Device
) -> Tensor:
    width = Dim(sequence_length) + num_cached
    mask = Tensor.constant(float("-inf"), dtype=dtype, device=device)
    mask = F.broadcast_to(mask, shape=(sequence_length, width))
    return F.band_part(mask, num_lower=None, num_upper=0, exclude=True)


class LayerNorm(Module):
    def __init__(self, dim: DimLike, *, eps: float = 1e-5) -> None:
        self.eps = eps
        self.weight = Tensor.ones([dim])
        self.bias = Tensor.zeros([dim])

    def __call__(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, gamma=self.weight, beta=self.bias, epsilon=self.eps)


class MLP(Module):
    def __init__(self, sizes: Sizes) -> None:
        self.c_fc = Linear(sizes.n_embd, 4 * sizes.n_embd)
        self.c_proj = Linear(4 * sizes.n_embd, sizes.n_embd)

    def __call__(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Attention(Module):
    def __init__(self, sizes: Sizes) -> None:
        self.dim = sizes.n_embd
        self.num_heads = sizes.n_head
        self.head_dim = self.dim // self.num_heads
        self.c_attn = Linear(self.dim, 3 * self.dim)
        self.c_proj = Linear(self.dim, self.dim)

    def split_heads(self, x: Tensor) -> Tensor:
        x = x.reshape(x.shape[:-1] + [self.num_heads, self.head_dim])  # noqa: RUF005
        return x.transpose(-3, -2)

    def merge_heads(self, x: Tensor) -> Tensor:
        x = x.transpose(-3, -2)
        return x.reshape(x.shape[:-2] + [self.dim])  # noqa: RUF005

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        scores = query @ key.transpose(-1, -2)
        scores = scores / math.sqrt(int(value.shape[-1]))
        scores = scores + causal_mask(query.shape[-2], 0, dtype=query.dtype, device=query.device)
        return F.softmax(scores) @ value

    def __call__(self, x: Tensor) -> Tensor:
        query, key, value = F.split(self.c_attn(x), [self.dim, self.dim, self.dim], axis=2)
        heads = self.attend(*map(self.split_heads, (query, key, value)))
        return self.c_proj(self.merge_heads(heads))


class Block(Module):
    def __init__(self, sizes: Sizes) -> None:
        self.ln_1 = LayerNorm(sizes.n_embd, eps=sizes.layer_norm_epsilon)
        self.attn = Attention(sizes)
        self.ln_2 = LayerNorm(sizes.n_embd, eps=sizes.layer_norm_epsilon)
        self.mlp = MLP(sizes)

    def __call__(self, x: Tensor) -> Tensor:
        x = self.attn(self.ln_1(x)) + x
        return self.mlp(self.ln_2(x)) + x


class Transformer(Module):
    def __init__(self, sizes: Sizes) -> None:
        self.wte = Embedding(sizes.vocab_size, dim=sizes.n_embd)
        self.wpe = Embedding(sizes.n_positions, dim=sizes.n_embd)
        self.h = Sequential(*(Block(sizes) for _ in range(sizes.n_layer)))
        self.ln_f = LayerNorm(sizes.n_embd, eps=sizes.layer_norm_epsilon)

    def __call__(self, tokens: Tensor) -> Tensor:
        _, seq_length = tokens.shape
        positions = Tensor.arange(seq_length, dtype=tokens.dtype, device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        return self.ln_f(self.h(x))


class LanguageModel(Module):
    def __init__(self, sizes: Sizes) -> None:
        self.transformer = Transformer(sizes)
        self.lm_head = Linear(sizes.n_embd, sizes.vocab_size, bias=False)

    def __call__(self, tokens: Tensor) -> Tensor:
        return self.lm_head(self.transformer(tokens))


def make_state(model: Module, seed: int) -> dict[str, np.ndarray]:
    """Stands for a checkpoint: float32 arrays by qualified name."""
    rng = np.random.default_rng(seed)
    return {
        name: rng.normal(0, 0.3, [int(d) for d in tensor.shape]).astype(np.float32)
        for name, tensor in model.parameters
    }


def generate(model, prompt: list[int], count: int, temperature: float, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    _, device = defaults()
    tokens = Tensor.constant([prompt], dtype=DType.int64, device=device)
    for _ in range(count):
        logits = model(tokens)[0, -1, :]
        if temperature > 0:
            scale = Tensor.constant(temperature, dtype=logits.dtype, device=logits.device)
            odds = np.from_dlpack(F.softmax(logits / scale).to(CPU())).astype(np.float64)
            choice = rng.choice(len(odds), p=odds / odds.sum())
            token = Tensor.constant(int(choice), dtype=DType.int64, device=tokens.device)
        else:
            token = F.argmax(logits)
        tokens = F.concat([tokens, token.reshape([1, -1])], axis=1)
    return [int(tokens[0, i].item()) for i in range(int(tokens.shape[1]))]


def main(arguments: list[str]) -> None:
    dtype, device = defaults()
    model = LanguageModel(Sizes())
    model.load_state_dict(make_state(model, seed=0))
    for _, child in model.descendants:
        if isinstance(child, Linear):
            child.weight = child.weight.cast(dtype)
    model.to(device)
    print(model)
    token_type = TensorType(DType.int64, ("batch", "seqlen"), device=DeviceRef.from_device(device))
    compiled = model.compile(token_type)
    prompt = [int(text) for text in arguments]
    for temperature in (0.0, 0.8):
        eager_tokens = generate(model, prompt, 5, temperature, seed=1)
        compiled_tokens = generate(compiled, prompt, 5, temperature, seed=1)
        assert eager_tokens == compiled_tokens
        print(*compiled_tokens)


if __name__ == "__main__":
    with default_dtype(DType.float32):
        main(sys.argv[1:])
