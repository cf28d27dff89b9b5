"""How numbers of bytes, operations and seconds are written."""

from __future__ import annotations

from typing import Any

from maxmod.values.dim import AlgebraicDim, Size

_PREFIXES = ("", "k", "M", "G", "T", "P", "E")  # powers of 1000
_SMALL = ("", "m", "µ", "n")  # powers of 1/1000
_ROUNDED = 999.5  # from here on, three digits round to the next power


def scaled(number: Size | float, unit: str) -> str:
    """Returns a number with three digits and a prefix: `2.05 kB`.

    Symbolic sizes keep their names: `1.54 kB * n + 512 B`.
    """
    if isinstance(number, AlgebraicDim):
        return " + ".join(_term(atoms, factor, unit) for atoms, factor in number.terms)
    if not isinstance(number, (int, float)):
        return f"1 {unit} * {number}"
    power, value = 0, float(number)
    while abs(value) >= _ROUNDED and power < len(_PREFIXES) - 1:
        value, power = value / 1000, power + 1
    if power == 0 and isinstance(number, int):
        return f"{number} {unit}"
    return f"{_three_digits(value)} {_PREFIXES[power]}{unit}"


def seconds(time_s: float) -> str:
    """Returns a time with three digits: `12.3 µs`."""
    power, value = 0, time_s
    while value < 0.9995 and power < len(_SMALL) - 1:
        value, power = value * 1000, power + 1
    return f"{_three_digits(value)} {_SMALL[power]}s"


def plural(count: int, noun: str) -> str:
    """Returns a number of things: `1 launch`, `2 launches`."""
    return f"{count} {noun}{'' if count == 1 else 'es' if noun.endswith('ch') else 's'}"


def _term(atoms: tuple[Any, ...], factor: int, unit: str) -> str:
    text = scaled(factor, unit)
    return f"{text} * {AlgebraicDim(((atoms, 1),))}" if atoms else text


def _three_digits(value: float) -> str:
    decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
    return f"{value:.{decimals}f}"
