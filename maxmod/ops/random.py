"""Random tensors: uniform and normal, from a seed that every draw takes and moves on by 1."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, DTypeError, OperandError, RandomError
from maxmod.op import Kind, Op, function, op
from maxmod.op.rules import created
from maxmod.ops.context import active_trace
from maxmod.ops.philox import chunks
from maxmod.system.locks import fork_safe_lock
from maxmod.tensor import Tensor
from maxmod.tensor.constructors import type_like
from maxmod.tensor.default_context import resolve
from maxmod.tensor.literal import is_scalar, rounded, weak_scalar
from maxmod.values.array import Array, ArrayModule
from maxmod.values.device import CPU_REF, DeviceLike, DeviceRef
from maxmod.values.plain import Scalar
from maxmod.values.shape import ShapeLike, Sizes, as_sizes
from maxmod.values.tensor_type import TensorType

__all__ = ["gaussian", "gaussian_like", "normal", "normal_like", "uniform", "uniform_like"]

# ---- the seed ----------------------------------------------------------------------------------

_LOCK = fork_safe_lock()
_seed = 0
_SEEDS = 2**64


def set_seed(seed: object = 0) -> None:
    """Sets the seed of the next draw: of this process, or of the graph that is being traced.

    Args:
        seed: An int (taken modulo 2^64), or an integer tensor with one element.

    Raises:
        ValueError: If a tensor is not of shape [] or [1] or holds no integers.
        TypeError: For anything else.

    Example:
        >>> from maxmod import random
        >>> random.set_seed(1)
        >>> first = random.uniform([3]).to_numpy().tolist()
        >>> random.set_seed(1)
        >>> random.uniform([3]).to_numpy().tolist() == first
        True
    """
    global _seed
    number = _seed_number(seed)
    trace = active_trace()
    if trace is not None:
        trace.seed = number  # type: ignore[attr-defined]
        return
    with _LOCK:
        _seed = number


def _seed_number(seed: object) -> int:
    if isinstance(seed, Tensor):
        if seed.sizes not in ((), (1,)) or not seed.dtype.is_integral():
            raise ArgumentError(f"set_seed: expected an integer scalar, got {seed.type.short()}.")
        seed = seed.item()
    if not isinstance(seed, (int, np.integer)):
        raise OperandError(f"set_seed: expected an int, got {type(seed).__name__}.")
    return int(seed) % _SEEDS


def seed() -> Tensor:
    """The seed that the next draw of this process takes.

    Returns:
        uint64 [1], on the host.

    Example:
        >>> from maxmod import random
        >>> random.set_seed(5)
        >>> x = random.uniform([3])
        >>> random.seed().item()  # every draw moves it on by 1
        6
    """
    with _LOCK:
        return Tensor([_seed], dtype=DType.uint64, device=CPU_REF)


def _take_seed() -> int:
    """Returns the current seed and moves on by 1."""
    global _seed
    trace = active_trace()
    if trace is not None:
        current = getattr(trace, "seed", None)
        if current is None:
            raise RandomError(
                "No seed set! A random op in a compiled function needs a fixed seed. Hint: call "
                "random.set_seed(...) inside the function, or draw outside and pass the tensor in."
            )
        trace.seed = (current + 1) % _SEEDS  # type: ignore[attr-defined]
        return current
    with _LOCK:
        current = _seed
        _seed = (current + 1) % _SEEDS
        return current


# ---- uniform -----------------------------------------------------------------------------------


def _uniform_type(op: Op, *, dtype: DType, **attrs: object) -> TensorType:
    if dtype is DType.bool:
        raise DTypeError("uniform: dtype: expected a number type, got bool.")
    return created(op, dtype=dtype, **attrs)


@op(Kind.SOURCE, _uniform_type, name="random_uniform")
def _uniform(
    xp: ArrayModule,
    *,
    shape: Sizes,
    low: float,
    high: float,
    dtype: DType,
    device: DeviceRef,
    seed: int,
) -> Tensor:
    """Numbers in [low, high); see `uniform`."""
    make = _real_values(xp, low, high, dtype) if dtype.is_float() else _whole_values(xp, low, high)
    result = xp.empty(math.prod(shape), dtype=storage_dtype(dtype))
    for start, words in chunks(xp, seed, result.size):
        values = make(words)
        result[start : start + values.size] = values[: result.size - start].astype(result.dtype)
    return result.reshape(shape)


def _real_values(
    xp: ArrayModule, low: float, high: float, dtype: DType
) -> Callable[[Array], Array]:
    bits, real = _precision(dtype)
    unit, base = real((high - low) * 2.0**-bits), real(low)
    limit = _last_below(low, high, dtype)

    def make(words: Array) -> Array:
        values = (words >> np.uint64(64 - bits)).astype(np.int64).astype(real) * unit + base
        return values if limit is None else xp.minimum(values, real(limit))

    return make


def _whole_values(xp: ArrayModule, low: int, high: int) -> Callable[[Array], Array]:
    span = np.uint64(abs(high - low))
    largest = np.uint64(max(int(span) - 1, 0))
    base = np.uint64(low % 2**64)

    def make(words: Array) -> Array:
        steps = (words >> np.uint64(11)).astype(np.float64) * (float(span) * 2.0**-53)
        steps = xp.minimum(xp.floor(steps).astype(np.uint64), largest)
        return base + steps if high >= low else base - steps  # wraps to signed values

    return make


def _precision(dtype: DType) -> tuple[int, type[np.floating]]:
    """How many bits of a word are used, and the type in which a dtype is drawn."""
    return (53, np.float64) if dtype is DType.float64 else (24, np.float32)


def _last_below(low: float, high: float, dtype: DType) -> float | None:
    """The largest value of a dtype below `high`, which rounding must not reach, if there is one."""
    bounds = rounded([low, high], dtype)
    if not bounds[1] > bounds[0]:
        return None
    return float(np.nextafter(bounds[1], bounds[0]))


@function
def uniform(
    shape: ShapeLike = (),
    range: tuple[float, float] = (0, 1),
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Tensor:
    """Independent numbers, uniform in the half-open interval [low, high).

    Args:
        shape: Sizes of the result.
        range: The pair (low, high).
        dtype: A number type; the default dtype if it is not given. Integers are drawn from low,
            low + 1, ... high - 1.
        device: Where to put it; the numbers are the same everywhere.

    Returns:
        Tensor of the shape `shape`.

    Raises:
        ValueError: If the range is not a pair of numbers that the dtype holds.
        RuntimeError: While tracing, if no seed was set in the traced function.

    Source: J. K. Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC11 (Philox).

    Example:
        >>> from maxmod import DType, random
        >>> random.set_seed(7)
        >>> x = random.uniform([1000], (-1, 1))
        >>> bool(x.min() >= -1), bool(x.max() < 1)
        (True, True)
        >>> dice = random.uniform([1000], (1, 7), dtype=DType.int64)
        >>> dice.min().item(), dice.max().item()
        (1, 6)
    """
    pair = tuple(range) if isinstance(range, Iterable) else ()
    if len(pair) != 2:
        raise ArgumentError(f"uniform: range: expected a pair (low, high), got {range!r}.")
    dtype, ref = resolve(dtype, device)
    bounds = [weak_scalar(_number("uniform", bound), dtype) for bound in pair]
    return _uniform(
        shape=as_sizes(shape, "uniform: shape"),
        low=bounds[0],
        high=bounds[1],
        dtype=dtype,
        device=ref,
        seed=_take_seed(),
    )


def _number(name: str, value: object) -> Scalar:
    if isinstance(value, Tensor) and value.sizes == ():
        value = value.item()
    if not is_scalar(value):
        raise ArgumentError(f"{name}: Expected a scalar value, got {type(value).__name__}.")
    return value


# ---- normal ------------------------------------------------------------------------------------


def _normal_type(op: Op, *, dtype: DType, **attrs: object) -> TensorType:
    if dtype is DType.bool:
        raise DTypeError("normal: dtype: expected a number type, got bool.")
    return created(op, dtype=dtype, **attrs)


@op(Kind.SOURCE, _normal_type, name="random_normal")
def _normal(
    xp: ArrayModule,
    *,
    shape: Sizes,
    mean: float,
    std: float,
    dtype: DType,
    device: DeviceRef,
    seed: int,
) -> Tensor:
    """Normally distributed numbers; see `normal`.

    Source: G. E. P. Box and M. E. Muller, A note on the generation of random normal deviates, Ann.
    Math. Stat. 29 (1958). Two words give two numbers.
    """
    bits, real = _precision(dtype)
    step = real(2.0**-bits)
    result = xp.empty(math.prod(shape), dtype=storage_dtype(dtype))
    for start, words in chunks(xp, seed, result.size):
        steps = (words >> np.uint64(64 - bits)).astype(np.int64).astype(real)
        # The first of a pair is in (0, 1], so that its logarithm is finite.
        radius = xp.sqrt(xp.log((steps[0::2] + real(1)) * step) * real(-2)) * real(std)
        angle = steps[1::2] * real(2 * math.pi * 2.0**-bits)
        values = xp.empty(words.size, dtype=real)
        values[0::2] = radius * xp.cos(angle)
        values[1::2] = radius * xp.sin(angle)
        values += real(mean)
        if not dtype.is_float():
            values = xp.rint(values)
        result[start : start + values.size] = values[: result.size - start].astype(result.dtype)
    return result.reshape(shape)


@function
def normal(
    shape: ShapeLike = (),
    mean: float = 0.0,
    std: float = 1.0,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Tensor:
    """Independent numbers from the normal distribution with a mean and a standard deviation.

    Args:
        shape: Sizes of the result.
        mean: The mean.
        std: The standard deviation.
        dtype: A number type; the default dtype if it is not given. Narrow floats and integers are
            drawn as float32; integers are rounded to nearest, ties to even.
        device: Where to put it; the numbers are the same everywhere, but for rounding.

    Returns:
        Tensor of the shape `shape`.

    Raises:
        ValueError: If mean or std is not a number.
        RuntimeError: While tracing, if no seed was set in the traced function.

    Source: G. E. P. Box and M. E. Muller, A note on the generation of random normal deviates, Ann.
    Math. Stat. 29 (1958), on the words of Philox.

    Example:
        >>> from maxmod import random
        >>> random.set_seed(1)
        >>> x = random.normal([10000], mean=5.0, std=2.0)
        >>> abs(x.mean().item() - 5) < 0.1
        True
    """
    dtype, ref = resolve(dtype, device)
    return _normal(
        shape=as_sizes(shape, "normal: shape"),
        mean=float(_number("normal", mean)),
        std=float(_number("normal", std)),
        dtype=dtype,
        device=ref,
        seed=_take_seed(),
    )


@function
def gaussian(
    shape: ShapeLike = (),
    mean: float = 0.0,
    std: float = 1.0,
    *,
    dtype: DType | None = None,
    device: DeviceLike | None = None,
) -> Tensor:
    """Another name of `normal`.

    Args:
        shape: Sizes of the result.
        mean: The mean.
        std: The standard deviation.
        dtype: A number type; the default dtype if it is not given.
        device: Where to put it.

    Returns:
        Tensor of the shape `shape`.

    Raises:
        ValueError: If mean or std is not a number.
        RuntimeError: While tracing, if no seed was set in the traced function.

    Example:
        >>> from maxmod import random
        >>> random.set_seed(1)
        >>> random.gaussian([2, 3]).shape
        [Dim(2), Dim(3)]
    """
    return normal(shape, mean, std, dtype=dtype, device=device)


# ---- like another tensor -----------------------------------------------------------------------


@function
def uniform_like(like: Tensor | TensorType, range: tuple[float, float] = (0, 1)) -> Tensor:
    """Uniform numbers with the shape, dtype and device of a tensor or type; see `uniform`.

    Args:
        like: Tensor or TensorType.
        range: The pair (low, high), of which high is not included.

    Returns:
        Tensor of the type of `like`.

    Raises:
        ValueError: If the range is not a pair of numbers that the dtype holds.
        RuntimeError: While tracing, if no seed was set in the traced function.

    Example:
        >>> from maxmod import CPU, DType, TensorType, random
        >>> half = TensorType(DType.float16, [2, 3], CPU())
        >>> random.uniform_like(half).type == half
        True
    """
    like = type_like("uniform_like", like)
    return uniform(like.shape, range, dtype=like.dtype, device=like.device)


@function
def normal_like(like: Tensor | TensorType, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Normal numbers with the shape, dtype and device of a tensor or type; see `normal`.

    Args:
        like: Tensor or TensorType.
        mean: The mean.
        std: The standard deviation.

    Returns:
        Tensor of the type of `like`.

    Raises:
        ValueError: If mean or std is not a number.
        RuntimeError: While tracing, if no seed was set in the traced function.

    Example:
        >>> from maxmod import Tensor, random
        >>> x = Tensor([1.0, 2.0])
        >>> noisy = x + random.normal_like(x, std=0.01)
        >>> noisy.type == x.type
        True
    """
    like = type_like("normal_like", like)
    return normal(like.shape, mean, std, dtype=like.dtype, device=like.device)


@function
def gaussian_like(like: Tensor | TensorType, mean: float = 0.0, std: float = 1.0) -> Tensor:
    """Another name of `normal_like`.

    Args:
        like: Tensor or TensorType.
        mean: The mean.
        std: The standard deviation.

    Returns:
        Tensor of the type of `like`.

    Raises:
        ValueError: If mean or std is not a number.
        RuntimeError: While tracing, if no seed was set in the traced function.

    Example:
        >>> from maxmod import Tensor, random
        >>> random.gaussian_like(Tensor([[1.0, 2.0]])).shape
        [Dim(1), Dim(2)]
    """
    return normal_like(like, mean, std)
