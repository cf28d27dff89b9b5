"""How rotary embeddings rotate, by config.json: bases, and scalings for long sequences.

Source: the scaling `llama3` is that of A. Grattafiori et al., The Llama 3 Herd of Models, arXiv
2407.21783; `yarn` of B. Peng et al., YaRN, arXiv 2309.00071; `longrope` of Y. Ding et al.,
LongRoPE, arXiv 2402.13753; with the fields of the transformers library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from maxmod.errors import ModelError
from maxmod.nn.places import warn
from maxmod.values.array import HostArray
from maxmod.values.plain import JsonObject


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a kind of scaling has to say, and what it may say besides."""

    fields: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()


# Any other kind is refused, as its formula is unknown.
_KINDS = {
    "default": _Kind(),
    "linear": _Kind(("factor",)),
    "llama3": _Kind(
        (
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        )
    ),
    "dynamic": _Kind(("factor",), ("original_max_position_embeddings",)),
    "yarn": _Kind(
        optional=(
            "factor",
            "original_max_position_embeddings",
            "attention_factor",
            "beta_fast",
            "beta_slow",
            "mscale",
            "mscale_all_dim",
            "truncate",
        )
    ),
    "longrope": _Kind(
        ("short_factor", "long_factor"),
        ("factor", "original_max_position_embeddings", "attention_factor"),
    ),
}
_SIMPLE = ("default", "linear", "llama3")  # frequencies alone
_OLD_NAMES = {"su": "longrope"}
_MAX_NUMBER = 1e30  # bases are 1e4 to 1e8, factors 1 to 100
_MAX_DIM = 1 << 16  # far above any model; a larger one would be an attack on memory


@dataclass(frozen=True, slots=True)
class Rope:
    """How queries and keys are rotated.

    Attributes:
        frequencies: Radians per position of each pair of elements: float64 [pairs]. Where heads
            have more elements than these pairs, the rest stays as it is.
        factor: Of what is rotated, which makes attention sharper in long sequences.
        interleaved: Whether the elements of a pair are neighbours, rather than half of the rotated
            elements apart.
        growth: How queries grow with their position; 0 for not at all.
        step: After how many positions they do.
    """

    frequencies: HostArray
    factor: float = 1.0
    interleaved: bool = False
    growth: float = 0.0
    step: float = 1.0


@dataclass(frozen=True, slots=True)
class Positions:
    """The lengths that kinds of scaling start from.

    Attributes:
        longest: The longest sequence.
        trained: The longest one before it was stretched, if config.json says it.
    """

    longest: int
    trained: int | None = None


def rope_frequencies(
    dim: int, theta: float | None, scaling: JsonObject, default: float = 10000.0
) -> HostArray:
    """Radians per position of each pair of elements, for kinds that are frequencies alone.

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
    return _rope(dim, theta, scaling, default, _SIMPLE, Positions(1), None).frequencies


def read_rope(
    dim: int,
    theta: float | None,
    scaling: JsonObject,
    positions: Positions,
    default: float = 10000.0,
    *,
    rotated: float | None = None,
    interleaved: bool = False,
) -> Rope:
    """How heads are rotated, for every kind of scaling.

    Args:
        dim: Size of a head.
        theta: As for `rope_frequencies`, like the next.
        scaling: As for `rope_frequencies`; its `partial_rotary_factor` replaces `rotated`.
        positions: Of the model.
        default: As for `rope_frequencies`.
        rotated: The part of each head that is rotated; None for models that rotate all of it.
        interleaved: See `Rope`.

    Raises:
        ModelError: If the size is odd, or the scaling is of an unknown kind or malformed.
    """
    found = _rope(dim, theta, scaling, default, tuple(_KINDS), positions, rotated)
    return replace(found, interleaved=interleaved)


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


def _rope(
    dim: int,
    theta: float | None,
    scaling: JsonObject,
    default: float,
    kinds: tuple[str, ...],
    positions: Positions,
    rotated: float | None,
) -> Rope:
    given = dict(scaling)
    part = given.pop("partial_rotary_factor", None)
    part = _positive("partial_rotary_factor", (rotated or 1) if part is None else part)
    if part > 1 or (part < 1 and rotated is None):
        most = "1" if rotated is None else "at most 1"
        raise ModelError(f"partial_rotary_factor: expected {most}, got {part}.")
    dim = int(dim * part)
    if dim % 2 or not 0 < dim <= _MAX_DIM:
        raise ModelError(
            f"rotary embeddings: expected heads of an even size of at most {_MAX_DIM}, got {dim}."
        )
    kind, numbers = _checked(given, kinds)
    base = numbers.pop("rope_theta", default if theta is None else theta)
    if not 0 < base < _MAX_NUMBER:
        raise ModelError(f"rope_theta: expected a number above 0, got {base}.")
    plain = base ** (-np.arange(0, dim, 2) / dim)
    if kind == "linear":
        return Rope(plain / numbers["factor"])
    if kind == "llama3":
        return Rope(_llama3(plain, **numbers))
    if kind == "yarn":
        return _yarn(plain, base, positions, **numbers)
    if kind == "longrope":
        return _longrope(plain, positions, **numbers)
    return Rope(plain)  # `dynamic` changes what lies beyond the longest sequence, which ends there


def trained_length(scaling: JsonObject, positions: Positions) -> int:
    """Returns up to which length the frequencies of `longrope` are one; for others the longest."""
    kind = scaling.get("rope_type", scaling.get("type"))
    if _OLD_NAMES.get(str(kind), kind) != "longrope":
        return positions.longest
    return min(positions.longest, int(_original(scaling, positions)))


def _checked(scaling: JsonObject, kinds: tuple[str, ...]) -> tuple[str, Any]:
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    kind = _OLD_NAMES.get(kind, kind) if isinstance(kind, str) else kind
    if not isinstance(kind, str) or kind not in kinds:
        raise ModelError(
            f"rope_scaling: unknown rope_type: expected one of {', '.join(kinds)}, got "
            f"{kind!r:.80}."
        )
    fields, optional = _KINDS[kind].fields, _KINDS[kind].optional
    given = {k: v for k, v in scaling.items() if k not in ("rope_type", "type")}
    given = {k: v for k, v in given.items() if v is not None or k in fields}
    unknown = given.keys() - {"rope_theta", *fields, *optional}
    missing = fields - given.keys()
    if unknown or missing:
        problem = "unknown" if unknown else "missing"
        raise ModelError(
            f"rope_scaling: {problem} field {min(unknown or missing)!r} of {kind!r}: expected "
            f"{', '.join((*fields, *optional)) or 'none'}."
        )
    return kind, {name: _field(name, value) for name, value in given.items()}


def _field(name: str, value: object) -> bool | float | HostArray:
    if name == "truncate":
        if not isinstance(value, bool):
            raise ModelError(f"rope_scaling: truncate: expected true or false, got {value!r:.80}.")
        return value
    if name in ("short_factor", "long_factor"):
        if not isinstance(value, list):
            raise ModelError(f"rope_scaling: {name}: expected a list, got {value!r:.80}.")
        return np.array([_positive(name, item) for item in value])
    return _positive(name, value)


def _positive(name: str, value: object) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 < value < _MAX_NUMBER:  # type: ignore[operator]
        raise ModelError(f"rope_scaling: {name}: expected a number above 0, got {value!r:.80}.")
    return float(value)  # type: ignore[arg-type]


def _original(scaling: JsonObject, positions: Positions) -> float:
    given = scaling.get("original_max_position_embeddings")
    if given is not None:
        return _positive("original_max_position_embeddings", given)
    return float(positions.trained or positions.longest)


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


def _yarn(
    plain: HostArray,
    base: float,
    positions: Positions,
    factor: float | None = None,
    original_max_position_embeddings: float | None = None,
    attention_factor: float | None = None,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    mscale: float | None = None,
    mscale_all_dim: float | None = None,
    truncate: bool = True,
) -> Rope:
    """Divides slow frequencies by `factor`, with a ramp between pairs rather than frequencies.

    Pairs that turn `beta_fast` times in the original length are kept, those that turn `beta_slow`
    times are divided.
    """
    given: JsonObject = {"original_max_position_embeddings": original_max_position_embeddings}
    original = _original(given, positions)
    stretch = positions.longest / original if factor is None else factor
    if base == 1:
        raise ModelError("rope_theta: expected another number than 1 for 'yarn'.")

    def pair(turns: float) -> float:  # which one turns so often in the original length
        return len(plain) * math.log(original / (turns * 2 * math.pi)) / math.log(base)

    low, high = pair(beta_fast), pair(beta_slow)
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * len(plain) - 1)
    high += 0.001 if low == high else 0
    slow = np.clip((np.arange(len(plain)) - low) / (high - low), 0, 1)
    frequencies = plain / stretch * slow + plain * (1 - slow)
    if attention_factor is None:
        attention_factor = _sharpness(stretch)
        if mscale and mscale_all_dim:
            attention_factor = _sharpness(stretch, mscale) / _sharpness(stretch, mscale_all_dim)
    return Rope(frequencies, attention_factor)


def _sharpness(stretch: float, scale: float = 1.0) -> float:
    return 1.0 if stretch <= 1 else 0.1 * scale * math.log(stretch) + 1.0


def _longrope(
    plain: HostArray,
    positions: Positions,
    short_factor: HostArray,
    long_factor: HostArray,
    factor: float | None = None,
    original_max_position_embeddings: float | None = None,
    attention_factor: float | None = None,
) -> Rope:
    """Divides each frequency by a number of its own, for sequences of at most the original length.

    Longer sequences have other numbers, for all of their positions, and are not supported here.
    """
    for name, numbers in (("short_factor", short_factor), ("long_factor", long_factor)):
        if len(numbers) != len(plain):
            raise ModelError(
                f"rope_scaling: {name}: expected {len(plain)} numbers, one for each pair, got "
                f"{len(numbers)}."
            )
    given: JsonObject = {"original_max_position_embeddings": original_max_position_embeddings}
    original = _original(given, positions)
    stretch = positions.longest / original if factor is None else factor
    if attention_factor is None:
        attention_factor = 1.0
        if stretch > 1 and original > 1:
            attention_factor = math.sqrt(1 + math.log(stretch) / math.log(original))
    return Rope(plain / short_factor, attention_factor)
