"""How each contender runs the workloads: NumPy, PyTorch, torch.compile, JAX and maxmod.

A contender is prepared once with the arrays of a workload and gives a call without arguments. Each
gets what its users would write:

- NumPy writes into arrays made beforehand (`out=`), and its order of operations saves passes.
- PyTorch runs without gradients; attention is `scaled_dot_product_attention`. torch.compile gets
  the same functions, in its default mode.
- JAX gets weights as [in, out], which is how its layers keep them; a call waits for its result.
- maxmod compiles a function. Its results come from a pool, as those of every compiled model do.

`gelu` is the tanh form everywhere: NumPy has no erf.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from harness import Call, empty

from maxmod import DeviceRef, Module, Tensor, TensorType
from maxmod import functional as F

GELU_SCALE = math.sqrt(2 / math.pi)
GELU_CUBIC = 0.044715
EPSILON = 1e-5

Arrays = Mapping[str, np.ndarray[Any, Any]]


# ---- NumPy: a function of the arrays that makes scratch once and returns the call ----------------


def numpy_gelu(x: Any, scratch: Any) -> None:
    """x = gelu(x), in place."""
    np.multiply(x, x, out=scratch)
    np.multiply(scratch, np.float32(GELU_CUBIC * GELU_SCALE), out=scratch)
    np.add(scratch, np.float32(GELU_SCALE), out=scratch)
    np.multiply(scratch, x, out=scratch)
    np.tanh(scratch, out=scratch)
    np.add(scratch, np.float32(1), out=scratch)
    np.multiply(x, np.float32(0.5), out=x)
    np.multiply(x, scratch, out=x)


def _numpy_gelu_chain(x: Any, b: Any, r: Any) -> Call:
    out, scratch = empty(x.shape), empty(x.shape)

    def call() -> Any:
        np.multiply(x, np.float32(1.5), out=out)
        np.add(out, b, out=out)
        numpy_gelu(out, scratch)
        return np.add(out, r, out=out)

    return call


def _numpy_softmax_rows(x: Any, out: Any) -> Any:
    np.subtract(x, x.max(axis=-1, keepdims=True), out=out)
    np.exp(out, out=out)
    return np.divide(out, out.sum(axis=-1, keepdims=True), out=out)


def _numpy_softmax(x: Any) -> Call:
    out = empty(x.shape)
    return lambda: _numpy_softmax_rows(x, out)


def _numpy_layer_norm(x: Any, gamma: Any, beta: Any) -> Call:
    out, scratch = empty(x.shape), empty(x.shape)

    def call() -> Any:
        np.subtract(x, x.mean(axis=-1, keepdims=True), out=out)
        np.multiply(out, out, out=scratch)
        variance = scratch.mean(axis=-1, keepdims=True)
        np.divide(out, np.sqrt(variance + np.float32(EPSILON)), out=out)
        np.multiply(out, gamma, out=out)
        return np.add(out, beta, out=out)

    return call


def _numpy_mlp(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Call:
    hidden, scratch = empty((len(x), len(w1))), empty((len(x), len(w1)))
    out = empty((len(x), len(w2)))

    def call() -> Any:
        np.matmul(x, w1.T, out=hidden)
        np.add(hidden, b1, out=hidden)
        numpy_gelu(hidden, scratch)
        np.matmul(hidden, w2.T, out=out)
        return np.add(out, b2, out=out)

    return call


def _numpy_attention(q: Any, k: Any, v: Any) -> Call:
    heads, length, width = q.shape
    scores, out = empty((heads, length, length)), empty(q.shape)
    scale = np.float32(1 / math.sqrt(width))

    def call() -> Any:
        np.matmul(q, k.transpose(0, 2, 1), out=scores)
        np.multiply(scores, scale, out=scores)
        _numpy_softmax_rows(scores, scores)
        return np.matmul(scores, v, out=out)

    return call


def _numpy_linear(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Call:
    return lambda: (x @ w1.T + b1) @ w2.T + b2


NUMPY: dict[str, Callable[..., Call]] = {
    "gelu_chain": _numpy_gelu_chain,
    "softmax": _numpy_softmax,
    "layer_norm": _numpy_layer_norm,
    "mlp": _numpy_mlp,
    "attention": _numpy_attention,
    "linear": _numpy_linear,
}


def numpy_call(kind: str, arrays: Arrays) -> Call:
    """Returns the call of a workload in NumPy; its result is written over by the next call."""
    return NUMPY[kind](*arrays.values())


# ---- PyTorch -------------------------------------------------------------------------------------


def torch_functions() -> dict[str, Callable[..., Any]]:
    """Returns the workloads as functions of tensors."""
    import torch
    from torch.nn import functional as nn

    torch.set_grad_enabled(False)

    def gelu_chain(x: Any, b: Any, r: Any) -> Any:
        return nn.gelu(x * 1.5 + b, approximate="tanh") + r

    def softmax(x: Any) -> Any:
        return nn.softmax(x, dim=-1)

    def layer_norm(x: Any, gamma: Any, beta: Any) -> Any:
        return nn.layer_norm(x, gamma.shape, gamma, beta, EPSILON)

    def mlp(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return nn.linear(nn.gelu(nn.linear(x, w1, b1), approximate="tanh"), w2, b2)

    def attention(q: Any, k: Any, v: Any) -> Any:
        return nn.scaled_dot_product_attention(q, k, v)

    def linear(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return nn.linear(nn.linear(x, w1, b1), w2, b2)

    return {f.__name__: f for f in (gelu_chain, softmax, layer_norm, mlp, attention, linear)}


def torch_call(kind: str, arrays: Arrays, *, compiles: bool) -> Call:
    """Returns the call of a workload in PyTorch, or with torch.compile."""
    import torch

    function = torch_functions()[kind]
    tensors = [torch.from_numpy(array) for array in arrays.values()]
    if compiles:
        function = torch_compiled(function)
    return lambda: function(*tensors)


def torch_compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns torch.compile of a function, for the sizes that it is called with first."""
    import torch

    torch._dynamo.reset()  # one function at a time, or sizes of the last one become symbolic
    return torch.compile(function, dynamic=False)


# ---- JAX -----------------------------------------------------------------------------------------


def jax_functions() -> dict[str, Callable[..., Any]]:
    """Returns the workloads as functions of arrays."""
    import jax
    import jax.numpy as jnp

    def gelu_chain(x: Any, b: Any, r: Any) -> Any:
        return jax.nn.gelu(x * 1.5 + b, approximate=True) + r

    def softmax(x: Any) -> Any:
        return jax.nn.softmax(x, axis=-1)

    def layer_norm(x: Any, gamma: Any, beta: Any) -> Any:
        mean = x.mean(axis=-1, keepdims=True)
        variance = x.var(axis=-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(variance + EPSILON) * gamma + beta

    def mlp(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return jax.nn.gelu(x @ w1 + b1, approximate=True) @ w2 + b2

    def attention(q: Any, k: Any, v: Any) -> Any:
        scores = jnp.einsum("hid,hjd->hij", q, k) / math.sqrt(q.shape[-1])
        return jax.nn.softmax(scores, axis=-1) @ v

    def linear(x: Any, w1: Any, b1: Any, w2: Any, b2: Any) -> Any:
        return (x @ w1 + b1) @ w2 + b2

    return {f.__name__: f for f in (gelu_chain, softmax, layer_norm, mlp, attention, linear)}


def jax_array(name: str, array: np.ndarray[Any, Any]) -> Any:
    """Returns a JAX array; weights, whose names start with w, as [in, out]."""
    import jax.numpy as jnp

    return jnp.asarray(np.ascontiguousarray(array.T) if name.startswith("w") else array)


def jax_call(kind: str, arrays: Arrays) -> Call:
    """Returns the call of a workload with `jax.jit`."""
    import jax

    function = jax.jit(jax_functions()[kind])
    operands = [jax_array(name, array) for name, array in arrays.items()]
    return lambda: function(*operands).block_until_ready()


# ---- maxmod --------------------------------------------------------------------------------------


def _gelu_chain(x: Tensor, b: Tensor, r: Tensor) -> Tensor:
    return F.gelu(x * 1.5 + b, approximate="tanh") + r


def _softmax(x: Tensor) -> Tensor:
    return F.softmax(x)


def _layer_norm(x: Tensor, gamma: Tensor, beta: Tensor) -> Tensor:
    return F.layer_norm(x, gamma, beta, EPSILON)


def _mlp(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return F.gelu(x @ w1.T + b1, approximate="tanh") @ w2.T + b2


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.softmax(q @ k.T * (1 / math.sqrt(int(q.shape[-1])))) @ v


def _linear(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    return (x @ w1.T + b1) @ w2.T + b2


MAXMOD: dict[str, Callable[..., Tensor]] = {
    "gelu_chain": _gelu_chain,
    "softmax": _softmax,
    "layer_norm": _layer_norm,
    "mlp": _mlp,
    "attention": _attention,
    "linear": _linear,
}
# Which operands are weights of the module; the others are arguments of its call.
_WEIGHTS = ("w1", "b1", "w2", "b2", "gamma", "beta")


class Workload(Module[..., Tensor]):
    """A workload as a module: its weights are parameters, the other operands are arguments."""

    def __init__(self, kind: str, arrays: Arrays) -> None:
        self.kind = kind
        self.arguments = [name for name in arrays if name not in _WEIGHTS]
        for name in arrays:
            if name in _WEIGHTS:
                setattr(self, name, Tensor.from_dlpack(arrays[name]))
        self.order = list(arrays)

    def forward(self, *arguments: Tensor) -> Tensor:
        """Takes the operands that are not weights, in order."""
        given = dict(zip(self.arguments, arguments, strict=True))
        operands = [given[name] if name in given else getattr(self, name) for name in self.order]
        return MAXMOD[self.kind](*operands)


def maxmod_model(kind: str, arrays: Arrays) -> tuple[Workload, list[TensorType], list[Tensor]]:
    """Returns a workload as a module, with the types and the values of its arguments."""
    module = Workload(kind, arrays)
    tensors = [Tensor.from_dlpack(arrays[name]) for name in module.arguments]
    types = [TensorType(t.dtype, t.shape, DeviceRef.CPU()) for t in tensors]
    return module, types, tensors


def maxmod_call(kind: str, arrays: Arrays) -> tuple[Call, int]:
    """Returns the call of a compiled workload, and its number of generated kernels."""
    module, types, tensors = maxmod_model(kind, arrays)
    compiled = module.compile(*types)
    return lambda: compiled(*tensors), len(compiled.kernels)


# ---- all of them ---------------------------------------------------------------------------------


def peer_call(peer: str, kind: str, arrays: Arrays) -> Call:
    """Returns the call of a workload by one of `harness.PEERS`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries, about their own future
        if peer == "numpy":
            return numpy_call(kind, arrays)
        if peer == "jax":
            return jax_call(kind, arrays)
        return torch_call(kind, arrays, compiles=peer == "torch.compile")
