"""Choosing tokens by their logits: the most likely one, or one drawn at random."""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import DTypeError, ShapeError
from maxmod.op import Kind, Op, op
from maxmod.ops.philox import words
from maxmod.tensor import Tensor
from maxmod.values.array import Array, ArrayModule
from maxmod.values.tensor_type import TensorType

OPTIONS = 4  # temperature, top-k, top-p, min-p
_LARGEST_TEMPERATURE = float(np.finfo(np.float32).max)


def _tokens(
    op: Op, logits: TensorType, options: TensorType, seed: TensorType, counters: TensorType
) -> TensorType:
    if logits.rank != 2 or logits.sizes[1] == 0:
        raise ShapeError(f"{op.name}: logits: expected [batch, vocab], got {logits.short()}.")
    expected = (
        ("logits", logits, DType.float32, logits.sizes),
        ("options", options, DType.float64, (OPTIONS,)),
        ("seed", seed, DType.uint64, ()),
        ("counters", counters, DType.uint64, logits.sizes[:1]),
    )
    for name, found, dtype, sizes in expected:
        wanted = TensorType.of(dtype, sizes, logits.device)
        if found.dtype is not dtype:
            raise DTypeError(f"{op.name}: {name}: expected {wanted.short()}, got {found.short()}.")
        if found.sizes != sizes:
            raise ShapeError(f"{op.name}: {name}: expected {wanted.short()}, got {found.short()}.")
    return TensorType.of(DType.int64, logits.sizes[:1], logits.device)


@op(Kind.OPAQUE, _tokens, kernel="choose")
def choose_tokens(
    xp: ArrayModule, logits: Tensor, options: Tensor, seed: Tensor, counters: Tensor
) -> Tensor:
    """A token for each row of logits: the most likely one, or one drawn at random.

    With a temperature of 0 (or below the smallest float32) the first of the largest logits is
    taken. Otherwise tokens have the probabilities softmax(logits / temperature), of which are left,
    one after another: the top-k largest and those equal to the last of them; the fewest largest
    that add up to top-p of all that is left, of equal ones the first; those at least min-p times as
    large as the largest. One of them is taken with a uniform number u in [0, 1): the first at which
    the running sum, in the order of the vocabulary, is above u times the whole.

    Args:
        logits: float32 [batch, vocab].
        options: float64 [4]: temperature, a finite float32, 0 or more; top-k, 0 for all; top-p, 0
            to 1, 1 for all; min-p, 0 to 1, 0 for all.
        seed: uint64 scalar: of the random numbers.
        counters: uint64 [batch]: which random word of the seed each row takes. Its upper 53 bits
            make u, equal on every device; sums are rounded in other ways on other devices.

    Returns:
        int64 [batch]; -1 for a row in which a logit is NaN, and for all rows if an option is NaN or
        outside of its range.

    Raises:
        ValueError: If a dtype or shape is another one.
    """
    temperature, top_k, top_p, min_p = map(float, options.tolist())
    is_in_range = 0 <= temperature <= _LARGEST_TEMPERATURE and top_k >= 0
    is_in_range = is_in_range and 0 <= top_p <= 1 and 0 <= min_p <= 1
    tokens = []
    for row, counter in zip(logits, counters.tolist()):
        if not is_in_range or bool(xp.isnan(row).any()):
            tokens.append(-1)
        elif np.float32(temperature) == 0:
            tokens.append(int(row.argmax()))
        else:
            found, weights = candidates(xp, row, temperature, top_k, top_p, min_p)
            reached = xp.cumsum(weights)
            word = int(words(xp, int(seed), counter // 4, 1)[counter % 4])
            drawn = reached[-1:] * ((word >> 11) * 2.0**-53)
            tokens.append(int(found[xp.searchsorted(reached, drawn, side="right")][0]))
    return xp.asarray(np.array(tokens, np.int64))


def candidates(
    xp: ArrayModule, logits: Array, temperature: float, top_k: float, top_p: float, min_p: float
) -> tuple[Array, Array]:
    """Returns the tokens that can be drawn, in increasing order, and their probabilities.

    Args:
        xp: The array module.
        logits: Float [vocab], without NaN.
        temperature: Above 0.
        top_k: See `choose_tokens`, as for the next two.
        top_p: See there.
        min_p: See there.

    Returns:
        int64 [n] and float64 [n]; the probabilities add up to 1.
    """
    wide = logits.astype(np.float64)
    largest = wide.max()
    # The largest may be infinite, and no number is its distance from itself then.
    weights = xp.exp(xp.where(wide == largest, 0.0, (wide - largest) / temperature))
    tokens = xp.arange(len(wide))
    if 0 < top_k < len(wide):
        least = xp.partition(wide, -int(top_k))[-int(top_k)]
        tokens = xp.flatnonzero(wide >= least)
    weights = weights[tokens] / weights[tokens].sum()
    if top_p < 1:
        kept = _nucleus(xp, weights, top_p)
        tokens, weights = tokens[kept], weights[kept]
    if min_p > 0:
        kept = xp.flatnonzero(weights >= min_p * weights.max())
        tokens, weights = tokens[kept], weights[kept]
    return tokens, weights / weights.sum()


def _nucleus(xp: ArrayModule, weights: Array, top_p: float) -> Array:
    """Returns the positions of the fewest largest weights whose sum reaches `top_p`, sorted."""
    # Weights below this add up to less than 1 - top_p, so that they need not be sorted.
    likely = xp.flatnonzero(weights >= (1 - top_p) / len(weights))
    ordered = likely[xp.argsort(-weights[likely], kind="stable")]
    reached = xp.cumsum(weights[ordered])
    count = int((reached < top_p).sum()) + 1
    return xp.sort(ordered[:count])
