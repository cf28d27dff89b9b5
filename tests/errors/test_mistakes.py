"""What people get wrong, and whether the message helps: what, where, expected, got, hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from maxmod import CPU, BufferType, DType, Module, Tensor, TensorType
from maxmod import functional as F
from maxmod.nn import Conv2d, Embedding, LayerNorm, Linear

X = Tensor([[1.0, 2.0, 3.0]])
ROWS = TensorType(DType.float32, ["n", 3], CPU())
WEIGHTS = {"weight": np.zeros((2, 3), np.float32), "bias": np.zeros(2, np.float32)}


class _Foreign:
    """Looks like a tensor of torch."""


_Foreign.__name__, _Foreign.__module__ = "Tensor", "torch"


class Calls(Module[[Tensor], Any]):
    """A module that is one function."""

    def __init__(self, fn: Callable[[Tensor], Any]) -> None:
        self.fn = fn

    def forward(self, x: Tensor) -> Any:
        return self.fn(x)


def traced(fn: Callable[[Tensor], Any]) -> Callable[[], Any]:
    return lambda: Calls(fn).compile(ROWS)


def loaded(**changed: Any) -> Callable[[], Any]:
    return lambda: Linear(3, 2).load_state_dict({**WEIGHTS, **changed})


MISTAKES: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "a layer of another size": (
        lambda: Linear(4, 2)(X),
        ValueError,
        r"Linear\(in_dim=Dim\(4\), out_dim=Dim\(2\)\): expected x \[..., 4\], got float32\[1,3\]",
    ),
    "the same in a trace": (
        traced(Linear(4, 2)),
        ValueError,
        r"got float32\[n,3\].*\n  at test_mistakes.py:\d+ in Calls.forward",
    ),
    "a scalar into a layer": (lambda: Linear(4, 2)(Tensor(1.0)), ValueError, "got float32"),
    "integers into a layer": (
        lambda: Linear(3, 2)(Tensor([1, 2, 3], dtype=DType.int64)),
        ValueError,
        r"matmul: int64\[3\], float32\[3,2\]: .*Hint: use x.cast\(dtype\)",
    ),
    "two dtypes": (
        lambda: X + Tensor([1], dtype=DType.int64),
        ValueError,
        r"add: float32\[1,3\], int64\[1\]: Failed to resolve valid dtype",
    ),
    "floats as tokens": (
        lambda: Embedding(3, dim=2)(Tensor([1.0])),
        ValueError,
        r"expected integers, got float32\[1\]",
    ),
    "tokens as Tensor([1, 2])": (
        lambda: Embedding(3, dim=2)(Tensor([1, 2])),
        ValueError,
        r"got float32\[2\]. Hint: Tensor\(\[1, 2\], dtype=DType.int64\) holds integers",
    ),
    "an array of NumPy in a layer": (
        lambda: Linear(3, 2)(np.zeros(3, np.float32)),  # type: ignore[arg-type]
        TypeError,
        r"Linear: expected a Tensor, got numpy.ndarray. Hint: Tensor\(x\) makes one",
    ),
    "another library's Tensor in a layer": (
        lambda: LayerNorm(3)(_Foreign()),  # type: ignore[arg-type]
        TypeError,
        "LayerNorm: expected a Tensor, got torch.Tensor",
    ),
    "a norm of several axes": (
        lambda: LayerNorm((4, 5)),
        ValueError,
        r"got \[4, 5\]. Hint: F.flatten\(x, -2\) .* LayerNorm\(math.prod\(\[4, 5\]\)\)",
    ),
    "where of two numbers": (
        lambda: F.where(X > 5, 1.0, 0.0),
        TypeError,
        r"where: expected at least one Tensor, got float and float. Hint: Tensor\(1.0\) makes one",
    ),
    "a comparison with None": (
        lambda: X == None,  # noqa: E711
        TypeError,
        "equal: expected a tensor, a number or an array, got NoneType. Hint: .* `x is None`",
    ),
    "a fraction as an integer": (
        lambda: Tensor([1.5], dtype=DType.int32),
        ValueError,
        r"1.5 has a fraction, .*Hint: Tensor\(1.5\).cast\(DType.int32\)",
    ),
    "sizes of a layer as in PyTorch": (
        lambda: Linear(in_features=3, out_features=2),  # type: ignore[call-arg]
        TypeError,
        r"Linear: .*'in_features'; it takes \(in_dim, .*Hint: the size is called in_dim: nn.Linear",
    ),
    "an embedding as in PyTorch": (
        lambda: Embedding(10, 4),  # type: ignore[call-arg]
        TypeError,
        r"Embedding: too many .*Hint: the width is a keyword: nn.Embedding\(10, dim=4\)",
    ),
    "a bias of a convolution": (
        lambda: Conv2d(3, 4, 8, bias=True),  # type: ignore[call-arg]
        TypeError,
        r"Conv2d: .*'bias'.*Hint: it is called has_bias: nn.Conv2d\(3, 4, 8, has_bias=True\)",
    ),
    "a token out of range": (
        lambda: Embedding(3, dim=2)(Tensor([5], dtype=DType.int64)),
        IndexError,
        "position 5 out of range for an axis of size 3",
    ),
    "weights of another precision": (
        loaded(weight=np.zeros((2, 3))),
        ValueError,
        r"dtype=float64\) not .* Hint: maxmod.weights.astype\(state, DType.float32\)",
    ),
    "a transposed weight": (loaded(weight=np.zeros((3, 2), np.float32)), ValueError, "transposed"),
    "item in a trace": (
        traced(lambda x: x * x.sum().item()),
        TypeError,
        r"the value of float32\[n,1\] is not known .* F.cond and .*\n  at test_mistakes.py:\d+ in ",
    ),
    "if in a trace": (traced(lambda x: x if x[0, 0] > 0 else -x), TypeError, "F.where selects"),
    "float in a trace": (traced(lambda x: x * float(x[0, 0])), TypeError, "F.where selects"),
    "a loop over rows": (
        traced(lambda x: [row for row in x]),  # noqa: C416
        TypeError,
        r"iter: float32\[n,3\] has a number of rows that is not known while tracing",
    ),
    "a loop over a scalar": (lambda: list(Tensor(1.0)), ValueError, "a scalar has no rows"),
    "a named size as an index": (
        traced(lambda x: [x for _ in range(x.shape[0])]),
        TypeError,
        r"Dim\('n'\) cannot be used as an index or integer.*Hint: int\(size\)",
    ),
    "a quotient of a named size": (
        traced(lambda x: x * (x.shape[0] / 2)),
        TypeError,
        "/: n is symbolic and has no value while tracing. Hint: // divides sizes",
    ),
    "the length in a trace": (traced(lambda x: x * len(x)), TypeError, "len: float32.n,3. has a n"),
    "the length of a scalar": (lambda: len(Tensor(1.0)), TypeError, "len: a scalar has no rows"),
    "a named size compared": (
        traced(lambda x: x if x.shape[0] > 2 else -x),
        TypeError,
        "n cannot be ordered against 2: symbolic dimensions have no value",
    ),
    "a misspelt keyword": (
        lambda: F.softmax(X, axes=1),  # type: ignore[call-arg]
        TypeError,
        r"softmax: got an unexpected keyword argument 'axes'; it takes \(value, axis\)\. Did you "
        "mean 'axis'",
    ),
    "tensors that are not in a list": (
        lambda: F.concat(X, X),  # type: ignore[arg-type]
        TypeError,
        r"concat: original_vals: expected a list of tensors, got Tensor. Hint: F.concat\(\[x, y\]",
    ),
    "a tensor of tensors": (lambda: Tensor([X, X]), TypeError, "Hint: F.stack joins tensors"),
    "a device by name": (
        lambda: X.to("cuda"),  # type: ignore[arg-type]
        TypeError,
        r"device: expected a Device or DeviceRef, got str 'cuda'. Hint: CPU\(\) is the host",
    ),
    "a dtype by name": (
        lambda: Tensor.zeros([1], dtype="float32"),  # type: ignore[arg-type]
        TypeError,
        r"dtype: expected a DType, got 'float32'. Hint: write DType.float32.",
    ),
    "a type with a dtype by name": (
        lambda: TensorType("f4", [1], CPU()),  # type: ignore[arg-type]
        TypeError,
        "TensorType: dtype: expected a DType, got 'f4'. Hint: DType.from_numpy",
    ),
    "an argument by a wrong name": (
        lambda: Linear(3, 2).compile(ROWS)(y=X),
        TypeError,
        r"compiled call: expected 1 arguments \(x\), got y=Tensor",
    ),
    "a number for a buffer": (
        lambda: Linear(3, 2).compile(BufferType(DType.float32, [1, 3], CPU()))(1.0),
        TypeError,
        r"argument 0: expected a buffer of float32\[1,3\] for x, got the number 1.0, which",
    ),
    "a store of a number by the op": (
        lambda: F.buffer_store_slice(X, 1.0, [0]),  # type: ignore[arg-type]
        TypeError,
        r"buffer_store: source: expected a Tensor, got float. Hint: x\[i\] = value broadcasts",
    ),
    "the truth of many": (
        lambda: bool(X > 1),
        TypeError,
        r"bool: expected one element, got bool\[1,3\]. Hint: an if needs one value",
    ),
    "the number of many": (lambda: float(X), TypeError, "float: expected one element"),
    "a name of NumPy": (lambda: X.astype, AttributeError, r"Hint: x.cast\(DType.float32\)."),
    "a name of PyTorch": (lambda: X.size, AttributeError, r"has no attribute 'size'. Hint: x.sha"),
    "a function as a method": (lambda: X.exp, AttributeError, r"Hint: F.exp\(x\)."),
    "a misspelt method": (lambda: X.summ, AttributeError, "has no attribute 'summ'$"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_message(name: str) -> None:
    run, kind, text = MISTAKES[name]
    with pytest.raises(kind, match=text):
        run()


def test_numbers_of_one_element() -> None:
    assert (float(Tensor([2.5])), int(Tensor([[2.5]])), bool(Tensor(0.0))) == (2.5, 2, False)


WRONG_CALLS = {
    "sum": lambda x: F.sum(x, axis=9),
    "mean": lambda x: F.mean(x > 0),
    "prod": lambda x: F.prod(x > 0),
    "max": lambda x: F.max(x[:0]),
    "min": lambda x: F.min(x[:0]),
    "argmax": lambda x: F.argmax(x[:0]),
    "argmin": lambda x: F.argmin(x[:0]),
    "broadcast_to": lambda x: F.broadcast_to(x, [3]),
    "div": lambda x: x / F.concat([x, x]),
}


@pytest.mark.parametrize("label", WRONG_CALLS)
def test_messages_name_the_function_that_was_called(label):
    with pytest.raises(ValueError, match=f"^{label}: "):
        WRONG_CALLS[label](Tensor([1.0, 2.0]))
