"""GPT-2 small reads a prompt: 124 M parameters, 128 tokens, all logits.

Weights are random, so nothing is downloaded; the model is declared without data (`F.lazy`) and
gets them by `load_state_dict`. All contenders use the same weights and compute the logits of every
position. PyTorch is written with its fused functions (`linear`, `layer_norm`,
`scaled_dot_product_attention` with `is_causal`), JAX as one `jit` with weights as [in, out]. The
limit is the matrix products of the model alone, one after the other, through NumPy: 32 GFLOP, of
which the vocabulary takes a third.

With `--dtype bfloat16` weights and activations of maxmod and PyTorch are that; NumPy has no such
products, and stays out. Logits are then compared within the rounding of 12 layers.

    python benchmarks/gpt2_prefill.py [--tokens 128] [--peers torch,torch.compile] [--smoke]
"""

from __future__ import annotations

import argparse
import math
import warnings
from collections.abc import Mapping
from typing import Any

import harness
import numpy as np
import peers
from harness import Call

from maxmod import DeviceRef, DType, Tensor, TensorType, default_dtype
from maxmod import functional as F
from maxmod.models.decoders import gpt2

SMALL = gpt2.Config(vocab_size=50257, n_positions=1024, n_embd=768, n_layer=12, n_head=12)
TINY = gpt2.Config(vocab_size=101, n_positions=32, n_embd=32, n_layer=2, n_head=2)
WEIGHT_SCALE = 0.02  # as GPT-2 is initialised
HALF_TOLERANCE = 0.05  # of the largest logit

Weights = dict[str, np.ndarray[Any, Any]]


def make_weights(model: gpt2.GPT2) -> Weights:
    """Returns random values for the parameters, in the layout of the model."""
    weights: Weights = {}
    for seed, (name, parameter) in enumerate(model.parameters):
        if name == "lm_head.weight":  # tied to wte
            continue
        weights[name] = harness.normal([int(size) for size in parameter.shape], WEIGHT_SCALE, seed)
        if ".ln_" in name or name.startswith("ln_"):
            weights[name] += np.float32(name.endswith("weight"))
    return weights


def make_model(config: gpt2.Config, dtype: DType = DType.float32) -> tuple[gpt2.GPT2, Weights]:
    """Returns the model with random weights, and these in float32."""
    with F.lazy(), default_dtype(dtype):
        model = gpt2.GPT2(config)
    weights = make_weights(model)
    model.load_state_dict(weights, auto_cast=True)
    return model, weights


def token_type(count: int) -> TensorType:
    """Returns the type of a prompt."""
    return TensorType(DType.int64, [1, count], DeviceRef.CPU())


def make_tokens(config: gpt2.Config, count: int) -> np.ndarray[Any, Any]:
    """Returns a random prompt, int64 [1, count]."""
    return np.random.default_rng(1).integers(0, config.vocab_size, (1, count), np.int64)


def maxmod_call(model: gpt2.GPT2, tokens: np.ndarray[Any, Any]) -> tuple[Call, int]:
    """Returns the call of the compiled model, and its number of kernels."""
    compiled = model.compile(token_type(tokens.shape[1]))
    prompt = Tensor.from_dlpack(tokens)
    return lambda: compiled(prompt), len(compiled.kernels)


# ---- the peers: the model in one function, with a few helpers for each library -------------------


def numpy_call(config: gpt2.Config, w: Weights, tokens: np.ndarray[Any, Any]) -> Call:
    """Returns the call of the model in NumPy."""
    width = config.n_embd // config.n_head
    mask = np.where(np.tri(tokens.shape[1], dtype=bool), np.float32(0), -np.float32(np.inf))

    def linear(x: Any, name: str) -> Any:
        return x @ w[name + ".weight"].T + w[name + ".bias"]

    def norm(x: Any, name: str) -> Any:
        x = x - x.mean(-1, keepdims=True)
        x /= np.sqrt((x * x).mean(-1, keepdims=True) + np.float32(config.layer_norm_epsilon))
        return x * w[name + ".weight"] + w[name + ".bias"]

    def attention(x: Any, name: str) -> Any:
        qkv = linear(x, name + ".c_attn").reshape(len(x), 3, config.n_head, width)
        q, k, v = qkv.transpose(1, 2, 0, 3)
        scores = q @ k.transpose(0, 2, 1) / np.float32(math.sqrt(width)) + mask
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True)) @ v
        return linear(mixed.transpose(1, 0, 2).reshape(x.shape), name + ".c_proj")

    def mlp(x: Any, name: str) -> Any:
        hidden = linear(x, name + ".c_fc")
        peers.numpy_gelu(hidden, np.empty_like(hidden))
        return linear(hidden, name + ".c_proj")

    def call() -> Any:
        x = w["wte.weight"][tokens[0]] + w["wpe.weight"][: tokens.shape[1]]
        for layer in range(config.n_layer):
            x = x + attention(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn")
            x = x + mlp(norm(x, f"h.{layer}.ln_2"), f"h.{layer}.mlp")
        return (norm(x, "ln_f") @ w["wte.weight"].T)[None]

    return call


def torch_call(
    config: gpt2.Config,
    weights: Weights,
    tokens: np.ndarray[Any, Any],
    dtype: DType,
    *,
    compiles: bool,
) -> Call:
    """Returns the call of the model in PyTorch, or with torch.compile."""
    import torch
    from torch.nn import functional as nn

    torch.set_grad_enabled(False)
    heads = (1, -1, 3, config.n_head, config.n_embd // config.n_head)

    def forward(w: Mapping[str, Any], prompt: Any) -> Any:
        def linear(x: Any, name: str) -> Any:
            return nn.linear(x, w[name + ".weight"], w[name + ".bias"])

        def norm(x: Any, name: str) -> Any:
            scale, bias = w[name + ".weight"], w[name + ".bias"]
            return nn.layer_norm(x, scale.shape, scale, bias, config.layer_norm_epsilon)

        x = w["wte.weight"][prompt] + w["wpe.weight"][: prompt.shape[1]]
        for layer in range(config.n_layer):
            name = f"h.{layer}"
            qkv = linear(norm(x, name + ".ln_1"), name + ".attn.c_attn").view(heads)
            q, k, v = qkv.permute(2, 0, 3, 1, 4)
            mixed = nn.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + linear(mixed.transpose(1, 2).reshape(x.shape), name + ".attn.c_proj")
            hidden = linear(norm(x, name + ".ln_2"), name + ".mlp.c_fc")
            x = x + linear(nn.gelu(hidden, approximate="tanh"), name + ".mlp.c_proj")
        return nn.linear(norm(x, "ln_f"), w["wte.weight"])

    kind = getattr(torch, dtype.name)
    tensors = {name: torch.from_numpy(array).to(kind) for name, array in weights.items()}
    prompt = torch.from_numpy(tokens)
    function = peers.torch_compiled(forward) if compiles else forward
    return lambda: function(tensors, prompt)


def jax_call(config: gpt2.Config, weights: Weights, tokens: np.ndarray[Any, Any]) -> Call:
    """Returns the call of the model with `jax.jit`."""
    import jax
    import jax.numpy as jnp

    width = config.n_embd // config.n_head

    def forward(w: Mapping[str, Any], prompt: Any) -> Any:
        def linear(x: Any, name: str) -> Any:
            return x @ w[name + ".weight"] + w[name + ".bias"]

        def norm(x: Any, name: str) -> Any:
            mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
            x = (x - mean) * jax.lax.rsqrt(variance + config.layer_norm_epsilon)
            return x * w[name + ".weight"] + w[name + ".bias"]

        length = prompt.shape[1]
        mask = jnp.tri(length, dtype=bool)
        x = w["wte.weight"][prompt[0]] + w["wpe.weight"][:length]
        for layer in range(config.n_layer):
            name = f"h.{layer}"
            qkv = linear(norm(x, name + ".ln_1"), name + ".attn.c_attn")
            q, k, v = qkv.reshape(length, 3, config.n_head, width).transpose(1, 2, 0, 3)
            scores = jnp.einsum("hid,hjd->hij", q, k) / math.sqrt(width)
            mixed = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf), axis=-1) @ v
            x = x + linear(mixed.transpose(1, 0, 2).reshape(x.shape), name + ".attn.c_proj")
            hidden = linear(norm(x, name + ".ln_2"), name + ".mlp.c_fc")
            x = x + linear(jax.nn.gelu(hidden, approximate=True), name + ".mlp.c_proj")
        return (norm(x, "ln_f") @ w["wte.weight"].T)[None]

    def layout(name: str, array: np.ndarray[Any, Any]) -> Any:
        is_layer = array.ndim == 2 and not name.startswith(("wte", "wpe"))
        return jnp.asarray(np.ascontiguousarray(array.T) if is_layer else array)

    arrays = {name: layout(name, array) for name, array in weights.items()}
    prompt = jnp.asarray(tokens.astype(np.int32))
    function = jax.jit(forward)
    return lambda: function(arrays, prompt).block_until_ready()


def peer_call(
    peer: str,
    config: gpt2.Config,
    weights: Weights,
    tokens: np.ndarray[Any, Any],
    dtype: DType = DType.float32,
) -> Call:
    """Returns the call of the model by one of `harness.PEERS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries, about their own future
        if peer == "numpy":
            return numpy_call(config, weights, tokens)
        if peer == "jax":
            return jax_call(config, weights, tokens)
        return torch_call(config, weights, tokens, dtype, compiles=peer == "torch.compile")


def products(weights: Weights, count: int) -> Call:
    """Returns a call of the products with weights alone, through NumPy; wte is the last of them."""
    used = [w for name, w in weights.items() if w.ndim == 2 and not name.startswith("wpe")]
    inputs = {size: harness.normal((count, size)) for size in {w.shape[1] for w in used}}
    outputs = {size: harness.empty((count, size)) for size in {w.shape[0] for w in used}}

    def call() -> None:
        for w in used:
            np.matmul(inputs[w.shape[1]], w.T, out=outputs[w.shape[0]])

    return call


def check(name: str, result: Any, expected: np.ndarray[Any, Any]) -> None:
    """Ends the benchmark if logits in bfloat16 are further off than its rounding explains."""
    wide = result.cast(DType.float32).to_numpy() if isinstance(result, Tensor) else result.float()
    error = float(np.abs(np.asarray(wide) - expected).max() / np.abs(expected).max())
    if not error <= HALF_TOLERANCE:
        raise SystemExit(f"{name}: differs from NumPy by {error:.3g}, more than {HALF_TOLERANCE}")


def contenders(config: gpt2.Config, count: int, chosen: list[str], dtype: DType) -> dict[str, Call]:
    """Returns the calls by name, checked against NumPy; the limit comes first."""
    model, weights = make_model(config, dtype)
    tokens = make_tokens(config, count)
    expected = numpy_call(config, weights, tokens)()
    call, kernels = maxmod_call(model, tokens)
    calls = {harness.maxmod_name(kernels): call}
    for peer in chosen:
        if dtype is DType.float32 or peer.startswith("torch"):
            calls[harness.PEERS[peer]] = peer_call(peer, config, weights, tokens, dtype)
    for name, made in calls.items():
        (harness.check if dtype is DType.float32 else check)(name, made(), expected)
    if dtype is not DType.float32:
        return calls
    return {"limit: products in NumPy": products(weights, count)} | calls


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    parser.add_argument("--tokens", type=int, default=128, help="length of the prompt")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    return parser


def main() -> None:
    args = harness.parse(options())
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    config = TINY if args.smoke else SMALL
    count = min(args.tokens, config.n_positions)
    dtype = DType[args.dtype]
    timings = harness.measure(contenders(config, count, args.peers, dtype), args.rounds)
    harness.print_timings(f"GPT-2, {count} tokens, {args.dtype}", timings)
    rows = [harness.record(t, workload="gpt2", contender=c) for c, t in timings.items()]
    harness.save(args, "gpt2_prefill", facts, rows)


if __name__ == "__main__":
    main()
