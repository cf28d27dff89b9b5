"""Activations as modules, named as in PyTorch, and layers that change nothing."""

from __future__ import annotations

from collections.abc import Iterable

from maxmod import functional as F
from maxmod.nn.module import Module
from maxmod.tensor import Tensor


class GELU(Module[[Tensor], Tensor]):
    """Gaussian error linear unit; see `functional.gelu`.

    Args:
        approximate: "none", "tanh" or "quick".

    Example:
        >>> from maxmod import Tensor, nn
        >>> round(nn.GELU()(Tensor([2.0])).item(), 4)
        1.9545
    """

    def __init__(self, approximate: str = "none") -> None:
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        """Returns gelu(x), in the dtype and shape of x."""
        return F.gelu(x, self.approximate)

    def __rich_repr__(self) -> Iterable[object]:
        yield "approximate", self.approximate, "none"


class ReLU(Module[[Tensor], Tensor]):
    """y = max(x, 0); see `functional.relu`.

    Args:
        inplace: Accepted for compatibility: the result is a new tensor.

    Example:
        >>> from maxmod import Tensor, nn
        >>> nn.ReLU()(Tensor([0.0])).item()
        0.0
    """

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Returns relu(x), in the dtype and shape of x."""
        return F.relu(x)


class SiLU(Module[[Tensor], Tensor]):
    """y = x * sigmoid(x); see `functional.silu`.

    Args:
        inplace: Accepted for compatibility: the result is a new tensor.

    Example:
        >>> from maxmod import Tensor, nn
        >>> nn.SiLU()(Tensor([0.0])).item()
        0.0
    """

    def __init__(self, inplace: bool = False) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Returns silu(x), in the dtype and shape of x."""
        return F.silu(x)


class Sigmoid(Module[[Tensor], Tensor]):
    """y = 1 / (1 + exp(-x)); see `functional.sigmoid`.

    Example:
        >>> from maxmod import Tensor, nn
        >>> nn.Sigmoid()(Tensor([0.0])).item()
        0.5
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns sigmoid(x), in the dtype and shape of x."""
        return F.sigmoid(x)


class Tanh(Module[[Tensor], Tensor]):
    """y = tanh(x); see `functional.tanh`.

    Example:
        >>> from maxmod import Tensor, nn
        >>> nn.Tanh()(Tensor([0.0])).item()
        0.0
    """

    def forward(self, x: Tensor) -> Tensor:
        """Returns tanh(x), in the dtype and shape of x."""
        return F.tanh(x)


class Softmax(Module[[Tensor], Tensor]):
    """Softmax along an axis; see `functional.softmax`.

    Args:
        dim: The axis.

    Example:
        >>> from maxmod import Tensor, nn
        >>> nn.Softmax(dim=-1)(Tensor([[1.0]])).item()
        1.0
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Returns softmax(x), in the dtype and shape of x."""
        return F.softmax(x, self.dim)

    def __rich_repr__(self) -> Iterable[object]:
        yield "dim", self.dim


class LogSoftmax(Module[[Tensor], Tensor]):
    """Logarithm of softmax along an axis; see `functional.logsoftmax`.

    Args:
        dim: The axis.

    Example:
        >>> from maxmod import Tensor, nn
        >>> nn.LogSoftmax(dim=-1)(Tensor([[1.0]])).item()
        0.0
    """

    def __init__(self, dim: int = -1) -> None:
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Returns logsoftmax(x), in the dtype and shape of x."""
        return F.logsoftmax(x, self.dim)

    def __rich_repr__(self) -> Iterable[object]:
        yield "dim", self.dim


class Identity(Module[[Tensor], Tensor]):
    """y = x.

    Args:
        *args: Accepted and ignored, as in PyTorch.
        **kwargs: The same.

    Example:
        >>> from maxmod import Tensor, nn
        >>> nn.Identity()(Tensor([3.0])).item()
        3.0
    """

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def forward(self, x: Tensor) -> Tensor:
        """Returns x."""
        return x


class Dropout(Module[[Tensor], Tensor]):
    """y = x: nothing is dropped at inference.

    Args:
        p: Kept for printing; no effect.
        inplace: No effect.

    Example:
        >>> from maxmod import Tensor, nn
        >>> nn.Dropout(0.1)(Tensor([3.0])).item()
        3.0
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Returns x."""
        return x

    def __rich_repr__(self) -> Iterable[object]:
        yield "p", self.p
