"""Mistakes that a type checker must find: an ignore comment without an error is an error."""

from __future__ import annotations

from maxmod import CPU, DType, Module, Tensor, TensorType
from maxmod import functional as F
from maxmod.nn import Conv2d, Embedding, LayerNorm, Linear


class Pair(Module[[Tensor, int], Tensor]):
    """Takes a tensor and a number."""

    def forward(self, x: Tensor, times: int) -> Tensor:
        return x * times


def mistakes(x: Tensor) -> None:
    """Calls that are wrong."""
    F.softmax(x, axes=0)  # pyright: ignore[reportCallIssue]
    F.relu(x, x)  # pyright: ignore[reportCallIssue]
    F.softmaks(x)  # pyright: ignore
    Linear(2, 3, False)  # pyright: ignore[reportCallIssue]
    Linear(2)  # pyright: ignore[reportCallIssue]
    Embedding(10, dims=2)  # pyright: ignore[reportArgumentType]
    LayerNorm({768})  # pyright: ignore[reportArgumentType]
    Conv2d(3, 4)  # pyright: ignore[reportCallIssue]
    Pair()(x)  # pyright: ignore[reportCallIssue]
    Pair()(x, "2")  # pyright: ignore[reportArgumentType]
    TensorType(DType.float32, ["n"])  # pyright: ignore[reportCallIssue]
    TensorType("float32", ["n"], CPU())  # pyright: ignore[reportArgumentType]
    x.reshape(2.0, 3.0)  # pyright: ignore
    x.to("cpu")  # pyright: ignore[reportArgumentType]
    number: int = x.sum()  # pyright: ignore[reportAssignmentType]
    name: str = x.shape[0].name  # pyright: ignore
    del number, name
