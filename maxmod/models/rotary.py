"""Rotary position embeddings at given positions, with the scalings of config.json.

Source: J. Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, arXiv
2104.09864; the scaling `llama3` is that of A. Grattafiori et al., The Llama 3 Herd of Models, arXiv
2407.21783.
"""

from __future__ import annotations

import math

import numpy as np

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.interpreters.trace import scope
from maxmod.nn.places import warn
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.plain import JsonObject

# The fields of each kind of scaling. Any other kind is refused, as its formula is unknown.
FIELDS = {
    "default": (),
    "linear": ("factor",),
    "llama3": (
        "factor",
        "low_freq_factor",
        "high_freq_factor",
        "original_max_position_embeddings",
    ),
}


_MAX_NUMBER = 1e30  # bases are 1e4 to 1e8, factors 1 to 100
_MAX_DIM = 1 << 16  # far above any model; a larger one would be an attack on memory


def rope_frequencies(
    dim: int, theta: float | None, scaling: JsonObject, default: float = 10000.0
) -> HostArray:
    """Radians per position of each pair of elements.

    Args:
        dim: Size of a head.
        theta: The base, if `scaling` has no field `rope_theta`.
        scaling: The field `rope_scaling` or `rope_parameters` of config.json; may be empty.
        default: The base, if neither says it.

    Returns:
        float64 [dim / 2], falling from 1.

    Raises:
        ModelError: If dim is odd, or the scaling is of an unknown kind or malformed.
    """
    if dim % 2 or dim > _MAX_DIM:
        raise ModelError(
            f"rotary embeddings: expected heads of an even size of at most {_MAX_DIM}, got {dim}."
        )
    kind, numbers = _checked(scaling)
    theta = numbers.pop("rope_theta", default if theta is None else theta)
    if not 0 < theta < _MAX_NUMBER:
        raise ModelError(f"rope_theta: expected a number above 0, got {theta}.")
    plain = theta ** (-np.arange(0, dim, 2) / dim)
    if kind == "linear":
        return plain / numbers["factor"]
    if kind == "llama3":
        return _llama3(plain, **numbers)
    return plain


def warn_of_lost_theta(
    scaling: JsonObject | None, parameters: JsonObject | None, theta: float | None
) -> None:
    """Tells that `rope_scaling` replaces `rope_parameters` as a whole, as in transformers."""
    kept = "rope_theta" in (scaling or {}) or theta is not None
    if scaling and "rope_theta" in (parameters or {}) and not kept:
        warn(
            "config.json: rope_scaling replaces rope_parameters and its rope_theta, as in "
            "transformers, so that the base is 10000. Hint: write rope_theta into rope_scaling."
        )


def _checked(scaling: JsonObject) -> tuple[str, dict[str, float]]:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if not isinstance(kind, str) or kind not in FIELDS:
        raise ModelError(
            f"rope_scaling: unknown rope_type: expected one of {', '.join(FIELDS)}, got "
            f"{kind!r:.80}."
        )
    numbers = {k: v for k, v in scaling.items() if k not in ("rope_type", "type")}
    if numbers.get("partial_rotary_factor") == 1:
        del numbers["partial_rotary_factor"]
    unknown = numbers.keys() - {"rope_theta", *FIELDS[kind]}
    missing = FIELDS[kind] - numbers.keys()
    if unknown or missing:
        problem = "unknown" if unknown else "missing"
        raise ModelError(
            f"rope_scaling: {problem} field {min(unknown or missing)!r} of {kind!r}: expected "
            f"{', '.join(FIELDS[kind]) or 'none'}."
        )
    for name, value in numbers.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 < value < _MAX_NUMBER:
            raise ModelError(f"rope_scaling: {name}: expected a number above 0, got {value!r:.80}.")
    return kind, {name: float(value) for name, value in numbers.items()}


def _llama3(
    plain: HostArray,
    factor: float,
    low_freq_factor: float,
    high_freq_factor: float,
    original_max_position_embeddings: float,
) -> HostArray:
    """Divides low frequencies by `factor`: those below `low_freq_factor` turns per original length.

    Frequencies above `high_freq_factor` turns are kept, with a linear ramp between the two.
    """
    if high_freq_factor <= low_freq_factor:
        raise ModelError(
            "rope_scaling: expected high_freq_factor above low_freq_factor, got "
            f"{high_freq_factor} and {low_freq_factor}."
        )
    turns = original_max_position_embeddings * plain / (2 * math.pi)
    ramp = (turns - low_freq_factor) / (high_freq_factor - low_freq_factor)
    kept = np.clip(ramp, 0, 1)
    return kept * plain + (1 - kept) * plain / factor


class RotaryTable:
    """The rotary table (cos and sin) of some positions; computed once for all layers.

    Angles, cosines and sines are computed in float64 and rounded once to float32, so that late
    positions are as accurate as early ones.

    Args:
        positions: int64 [seq] or [batch, seq].
        frequencies: float64 [dim / 2].
    """

    def __init__(self, positions: Tensor, frequencies: HostArray) -> None:
        row = Tensor(frequencies, device=positions.device)
        angles = F.unsqueeze(F.unsqueeze(positions.cast(DType.float64), -1), -3) * row
        # The two elements of a pair lie on their own axis, [..., seq, 2, dim / 2]; swapping them
        # is a gather, which fuses into the kernel.
        signs = F.arange(-1, 3, 2, dtype=DType.float32, device=row.device).reshape([2, 1])
        self._cosine = F.unsqueeze(F.cos(angles).cast(DType.float32), -2)
        self._sine = F.unsqueeze(F.sin(angles).cast(DType.float32), -2) * signs
        self._swapped = 1 - F.arange(0, 2, dtype=DType.int64, device=row.device)

    def apply(self, x: Tensor) -> Tensor:
        """Rotates x [batch, heads, seq, dim]: element k with element k + dim / 2."""
        batch, heads, seq, dim = x.shape
        with scope("rotary"):
            pairs = x.reshape([batch, heads, seq, 2, dim // 2]).cast(DType.float32)
            others = F.gather(pairs, self._swapped, axis=-2)
            rotated = pairs * self._cosine + others * self._sine
            return rotated.reshape([batch, heads, seq, dim]).cast(x.dtype)
