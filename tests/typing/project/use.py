"""What a script does with a model: weights, moves, compiles, operators, generation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

import maxmod
from maxmod import (
    CPU,
    Accelerator,
    Buffer,
    BufferType,
    Device,
    DType,
    Module,
    Tensor,
    TensorType,
    accelerator_count,
    configure,
    default_device,
    default_dtype,
    random,
)
from maxmod import functional as F
from maxmod.engine import InferenceSession
from maxmod.generate import generate_batch, generate_text
from maxmod.graph import DeviceRef, Dim, Graph, Shape, StaticDim, SymbolicDim, ops
from maxmod.models import adder_folder, load_model
from maxmod.weights import open_checkpoint, save_state

from .model import Config, Decoder, Older, token_type


def pick_device() -> Device:
    """The first accelerator, if there is one."""
    return Accelerator() if accelerator_count() else CPU()


def operators(x: Tensor) -> float:
    """Every operator."""
    y = (x + 1) * 2.0 - x / 3 + 2 // x + x % 2 + x**2 + (1 - x) + abs(-x)
    y = y + np.ones(3, np.float32)
    mask = (x > 0) & ~(x >= 2) | (x < 0) ^ (x <= 1)
    same = x == y
    other = x != y
    chosen = F.where(mask, x, y)
    quotient, rest = divmod(x, 2)
    picked = x[0], x[1:], x[..., None], x[-1], x[None]
    for piece in (*picked, quotient, rest, same, other):
        assert piece.rank >= 0
    total = chosen.sum(axis=None) + chosen.max() + chosen.mean().squeeze(-1)
    total = total + chosen.reshape([3, 1]).T.argmax().cast(DType.float32)
    matrix = F.outer(x, x) @ x
    pieces: list[Tensor] = F.split(matrix, [1, 2])
    joined = F.concat(pieces, axis=0) + F.stack([x, y], axis=0)
    values, positions = F.top_k(joined, 1)
    array: npt.NDArray[np.generic] = np.asarray(values)
    count: int = positions.num_elements() + int(array.size) + len(joined.shape)
    if bool(total[0] > 0) and count:
        return float(total.reshape([-1])[0].item())
    return 0.0


def weights(path: Path, model: Module[[Tensor], Tensor]) -> Mapping[str, Tensor]:
    """Saves a model and loads it again."""
    state = dict(model.parameters)
    save_state(state, path)
    with open_checkpoint(path) as checkpoint:
        model.load_state_dict(checkpoint, strict=True, auto_cast=False)
    model.load_state(state.__getitem__)
    model.load_state(lambda name, existing: existing)
    model.apply_to_parameters(lambda name, tensor: tensor)
    halves = model.map_parameters(lambda name, tensor: tensor.cast(DType.bfloat16))
    names: list[str] = [name for name, _ in halves.parameters]
    modules: dict[str, Module[..., object]] = dict(model.descendants)
    assert len(names) == len(state) >= len(modules) - len(modules)
    return state


def compiled(model: Decoder, tokens: Tensor) -> Tensor:
    """Compiles a model and calls it."""
    fast = model.compile(token_type(), name="decoder")
    result: Tensor = fast(tokens)
    text: str = fast.explain()
    staged = model.trace(token_type())
    peak: int = fast.memory_plan(batch=1, length=4).peak_nbytes
    assert text and str(staged) and peak and repr(model.summary(token_type()))
    return result


def graphs() -> list[Buffer]:
    """Builds a graph by hand."""
    rows = TensorType(DType.float32, ["n", 2], DeviceRef.CPU())
    with Graph("sum", input_types=[rows, BufferType(DType.float32, [2], CPU())]) as graph:
        x = graph.inputs[0].tensor
        (y,) = ops.cond(ops.sum(x, axis=0)[0, 0] > 0, [x.type], lambda: x, lambda: -x)
        graph.output(y.rebind(["n", 2]) if isinstance(y, maxmod.graph.TensorValue) else y)
    return InferenceSession(devices=[CPU()]).load(graph)(
        np.ones((3, 2), np.float32), np.zeros(2, np.float32)
    )


def dims() -> list[int]:
    """Sizes and names."""
    n = Dim("n")
    size = n * 2 + 1 - Dim(3) // 2
    shape = Shape([2, "n", size])
    known = [int(d) for d in shape if isinstance(d, StaticDim)]
    named = [d.name for d in shape if isinstance(d, SymbolicDim)]
    return [*known, len(named)]


def scripts(folder: Path) -> str:
    """Runs everything."""
    random.set_seed(3)
    config = Config()
    with default_device(CPU()), default_dtype(DType.float32), configure(verify=True):
        model = Decoder(config)
        older = Older(3)
        state = weights(folder / "model.safetensors", model)
        with F.lazy():
            large = Decoder(config)
        large.load_state_dict(state)
        tokens = Tensor([[1, 2, 3, 4]], dtype=DType.int64)
        same = compiled(large, tokens) - model(tokens)
        x = Tensor([1.0, 2.0, 3.0])
        scores = [operators(x), float(older(x).max().item()), abs(same).max(axis=None).item()]
        total = sum(float(score) for score in scores) + sum(dims()) + len(graphs())
    language = load_model(adder_folder(), device=pick_device())
    pieces: list[str] = list(generate_text(language, "12+34=", temperature=0.0))
    prompts = [language.tokenizer.encode("1+1=")]
    steps = list(generate_batch(language, prompts, max_new_tokens=1))
    return f"{total:.3f} {''.join(pieces)} {len(steps)}"
