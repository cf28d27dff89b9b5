"""Initial values of parameters."""

from __future__ import annotations

from maxmod.dtype import DType
from maxmod.interpreters.eager import EagerInterpreter
from maxmod.interpreters.lazy import lazy
from maxmod.op import innermost
from maxmod.ops.random import normal
from maxmod.tensor import Tensor
from maxmod.values.device import DeviceLike
from maxmod.values.shape import ShapeLike, as_sizes, product

# Parameters above this many elements are drawn when they are first read. Drawing costs 15 to 50 ns
# an element on a CPU, seconds for a language model, and is lost work if weights are loaded next;
# small parameters are drawn at once, so that inspecting them has no surprises.
DRAWN_LATER = 1 << 16


def initial_normal(
    shape: ShapeLike, *, dtype: DType | None = None, device: DeviceLike | None = None
) -> Tensor:
    """Draws a parameter from N(0, 1), in the default dtype on the default device.

    The counter of the random stream is fixed now, so the values do not depend on when, or in which
    order, parameters are read.
    """
    size = product(as_sizes(shape))
    is_large = isinstance(size, int) and size > DRAWN_LATER
    if is_large and isinstance(innermost(), EagerInterpreter):
        with lazy():
            return normal(shape, dtype=dtype, device=device)
    return normal(shape, dtype=dtype, device=device)
