"""Loading weights into parameters: everything is checked, then everything is written.

The functions return a new tensor for each parameter, in order; the module writes them.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from maxmod import backends
from maxmod.dtype import DType, can_hold
from maxmod.errors import ArgumentError, DTypeError, OperandError, WeightsError, did_you_mean
from maxmod.interpreters.lazy import lazy
from maxmod.nn.places import Parameter, warn
from maxmod.tensor import Tensor, era
from maxmod.tensor.exchange import DLPackArray
from maxmod.tensor.like import StateLike
from maxmod.values.device import DeviceRef
from maxmod.values.shape import format_sizes
from maxmod.values.tensor_type import TensorType

_log = logging.getLogger(__name__)

LISTED_NAMES = 20  # names that an error lists for each kind of mistake
_SUGGEST_LIMIT = 2000  # names; looking for close ones among more takes seconds
# Source: MAX 26.7 converts between float32 and bfloat16; float16 is added for the many checkpoints
# that use it.
_CASTABLE = (DType.float32, DType.bfloat16, DType.float16)


T = TypeVar("T")


@dataclass(slots=True)
class _Report:
    """The mismatches between a set of weights and a module."""

    action: str
    missing: list[Parameter] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)  # one line each

    def add(self, problem: str) -> None:
        """Adds a mismatch; an empty string adds nothing."""
        if problem:
            self.wrong.append(problem)

    def is_clean(self) -> bool:
        """True if nothing is wrong."""
        return not (self.missing or self.unused or self.wrong)

    def error(self, given: Sequence[str]) -> WeightsError:
        """Makes the error; `given` are the names of the weights that no parameter took."""
        counts = (
            (len(self.missing), "missing"),
            (len(self.unused), "unused"),
            (len(self.wrong), "mismatched"),
        )
        summary = ", ".join(f"{count} {what}" for count, what in counts if count)
        lines = [
            f"{self.action}: the weights do not fit the module: {summary}. Nothing was changed."
        ]
        wanted = [name for parameter in self.missing for name in parameter.names]
        wanted = wanted if len(wanted) <= _SUGGEST_LIMIT else []
        near = given if len(given) <= _SUGGEST_LIMIT else ()
        lines += _section("Missing", self.missing, lambda p: _missing_line(p, near))
        lines += _section(
            f"Unused ({self.action} did not use some weights)",
            self.unused,
            lambda name: f"{name!r}.{did_you_mean(name, wanted)}",
        )
        lines += _section("Mismatched", self.wrong, str)
        hint = _prefix_hint(self.missing, given)
        return WeightsError("\n".join([*lines, hint] if hint else lines))


def _section(title: str, entries: Sequence[T], line: Callable[[T], str]) -> list[str]:
    """Returns the lines of one kind of mistake, none if there are no entries."""
    if not entries:
        return []
    lines = [f"{title}:", *(f"  {line(entry)}" for entry in entries[:LISTED_NAMES])]
    more = len(entries) - LISTED_NAMES
    return [*lines, f"  ... and {more} more"] if more > 0 else lines


def _missing_line(parameter: Parameter, given: Sequence[str]) -> str:
    name, *others = parameter.names
    tied = f" It is tied to {', '.join(map(repr, others))}." if others else ""
    guess = did_you_mean(name, given)
    return f"Weight {name!r} is missing from the provided weights mapping.{tied}{guess}"


def _prefix_hint(missing: Sequence[Parameter], given: Sequence[str]) -> str:
    """Recognises weights that were saved with, or without, one module name in front."""
    if not missing or not given:
        return ""
    have = set(given)
    wanted = {name for parameter in missing for name in parameter.names}
    first = missing[0].names[0]
    for name in given:
        if name.endswith(f".{first}"):
            prefix = name.removesuffix(first)
            if sum(prefix + want in have for want in wanted) * 2 > len(wanted):
                return (
                    f"Hint: the weights have the prefix {prefix!r} that the parameters do not have."
                )
    prefix = first.partition(".")[0] + "."
    stripped = [name.removeprefix(prefix) for name in wanted]
    if all(name.startswith(prefix) for name in wanted) and have.intersection(stripped):
        return f"Hint: the parameters have the prefix {prefix!r} that the weights do not have."
    return ""


def values_of_mapping(
    parameters: Sequence[Parameter],
    state: StateLike,
    *,
    action: str,
    strict: bool,
    auto_cast: bool,
    checked: bool = True,
) -> list[Tensor]:
    """Returns a value for each parameter out of a mapping of names to arrays.

    Values are read one at a time. Where the mapping has a method `tensor_type(name)`, as a
    checkpoint has, all types are checked before the first value is read.

    Args:
        parameters: The parameters.
        state: Qualified names to arrays that support DLPack.
        action: Name of the method, for messages.
        strict: Reject names that no parameter has.
        auto_cast: Convert between float32, bfloat16 and float16.
        checked: Reject values of another shape or dtype. Otherwise they are taken as they are.

    Raises:
        WeightsError: (a ValueError and a KeyError) Listing all names that are missing, unused, or
            of a different shape or dtype.
        OperandError: (a TypeError) If it is not a mapping of names to arrays.
    """
    if not isinstance(state, Mapping):
        raise OperandError(
            f"{action}: expected a mapping of names to arrays, got {type(state).__name__}. Hint: "
            "maxmod.weights.open_checkpoint reads a file or folder."
        )
    report = _Report(action)
    known = {name for parameter in parameters for name in parameter.names}
    given = list(state)  # `in` may read the value: that is how `Mapping` defines it
    for name in given:
        if not isinstance(name, str):
            got = type(name).__name__
            raise OperandError(f"{action}: expected names of weights as keys, got {got}.")
    unused = [name for name in given if name not in known]
    if strict:
        report.unused = unused
    elif unused:
        _log.info("%s: %d weights that the module does not have: ignored", action, len(unused))
    here = set(given)
    owners = {
        name: parameter for parameter in parameters for name in parameter.names if name in here
    }
    report.missing = [p for p in parameters if here.isdisjoint(p.names)]
    report.missing, left = _without_tables(report.missing, owners.values())
    type_of = getattr(state, "tensor_type", None) if checked else None
    if type_of is not None:
        for name, parameter in owners.items():
            report.add(_mismatch(name, type_of(name), parameter.tensor.type, auto_cast))
        if not report.is_clean():
            raise report.error(unused)
    values = _read_all(report, owners, state, auto_cast, checked)
    if not report.is_clean():
        raise report.error(unused)
    _warn_of_tables(action, left)
    values.update((id(parameter), parameter.tensor) for parameter in left)
    return [values[id(parameter)] for parameter in parameters]


def _without_tables(
    missing: Sequence[Parameter], found: Iterable[Parameter]
) -> tuple[list[Parameter], list[Parameter]]:
    """Separates missing tensors of containers that the weights do not cover: caches and tables.

    MAX 25.7 did not search containers, so scripts written for it keep such tensors there.
    """
    filled = {place.container for parameter in found for place in parameter.places}
    left = [
        parameter
        for parameter in missing
        if all(place.keys and place.container not in filled for place in parameter.places)
    ]
    ids = set(map(id, left))
    return [parameter for parameter in missing if id(parameter) not in ids], left


def _warn_of_tables(action: str, left: Sequence[Parameter]) -> None:
    if left:
        names = [parameter.names[0] for parameter in left]
        shown = ", ".join(names[:LISTED_NAMES])
        more = f" and {len(names) - LISTED_NAMES} more" if len(names) > LISTED_NAMES else ""
        warn(
            f"{action}: the weights have no tensors for these containers, which are unchanged: "
            f"{shown}{more}."
        )


def _read_all(
    report: _Report,
    owners: Mapping[str, Parameter],
    state: StateLike,
    auto_cast: bool,
    checked: bool,
) -> dict[int, Tensor]:
    """Reads, checks and converts the values; returns them by the id of their parameter.

    After the first mismatch, the rest is only checked.
    """
    values: dict[int, Tensor] = {}
    originals: dict[int, tuple[str, Tensor]] = {}  # of tied parameters that have several values
    casts: Counter[tuple[DType, DType]] = Counter()
    others: list[str] = []  # that replace parameters of another type
    for name, given in _items(state, list(owners)):
        parameter = owners[name]
        key = id(parameter)
        try:
            value = _tensor_of(report.action, name, given)
        except (ArgumentError, DTypeError) as error:  # not contiguous, or of an unknown dtype
            report.add(f"{name!r}: {error}")
            continue
        target = parameter.tensor.type
        problem = _mismatch(name, value.type, target, auto_cast)
        if problem and not checked:
            others.append(problem)
            target, problem = TensorType.of(value.dtype, value.sizes, target.device), ""
        if not problem and len(parameter.names) > 1:
            first_name, first = originals.setdefault(key, (name, value))
            problem = "" if has_same_bytes(first, value) else _untied(target, first_name, name)
        report.add(problem)
        if not report.is_clean():
            values.clear()
        elif key not in values:
            values[key] = converted(value, target)
            if value.dtype is not target.dtype:
                casts[value.dtype, target.dtype] += 1
    if report.is_clean():
        _log_casts(casts)
        _log_replaced(report.action, others)
    return values


def _tensor_of(action: str, name: str, given: Any) -> Tensor:
    try:
        return Tensor.from_dlpack(given)
    except OperandError as error:
        raise OperandError(f"{action}: {name!r}: {error}") from None


def _items(state: StateLike, names: Sequence[str]) -> Iterable[tuple[str, DLPackArray]]:
    """Yields names and values, one at a time; from a checkpoint in the order of its files."""
    in_file_order = getattr(state, "items_in_file_order", None)
    if in_file_order is not None:
        return in_file_order(names)
    return ((name, state[name]) for name in names)


def _mismatch(name: str, loaded: TensorType, parameter: TensorType, auto_cast: bool) -> str:
    """Returns the mismatch between two types as a line, or an empty string."""
    hint = ""
    if loaded.sizes == parameter.sizes:
        if loaded.dtype is parameter.dtype:
            return ""
        if loaded.dtype in _CASTABLE and parameter.dtype in _CASTABLE:
            if auto_cast:
                return ""
            hint = " Hint: auto_cast=True converts it."
        elif loaded.dtype.is_float() and parameter.dtype.is_float():
            hint = f" Hint: maxmod.weights.astype(state, {parameter.dtype}) converts what it reads."
    elif loaded.rank == 2 and loaded.sizes == parameter.sizes[::-1]:
        hint = " Hint: it is transposed; Linear stores its weight as [out, in]."
    return (
        f"{name!r}: Loaded tensor {_described(loaded)} not assignable to parameter "
        f"{_described(parameter)}.{hint}"
    )


def _described(type: TensorType) -> str:
    return f"(shape={format_sizes(type.sizes)}, dtype={type.dtype!r})"


def _untied(type: TensorType, first: str, second: str) -> str:
    return (
        f"{second!r}: the value differs from that of {first!r}, but the two are one tied "
        f"parameter {type.short()}. Hint: assign a second Tensor to untie them."
    )


def values_of_lookup(
    parameters: Sequence[Parameter], lookup: Callable[..., DLPackArray], *, action: str
) -> list[Tensor]:
    """Returns a value for each parameter out of a function; shapes and dtypes may change.

    Raises:
        WeightsError: (a KeyError) Listing every name for which the function raised `KeyError`, or
            tied names with different values. Other errors of the function are passed on.
    """
    ask = _asking(lookup)
    report = _Report(action)
    cause: KeyError | None = None
    values: dict[int, Tensor] = {}
    for parameter in parameters:
        first: Tensor | None = None
        is_kept = False
        for name in parameter.names:
            try:
                given = ask(name, parameter.tensor)
            except KeyError as error:
                cause = cause or error
                continue
            if given is parameter.tensor:  # as from dict.get(name, existing) for missing names
                is_kept = True
                continue
            value = _tensor_of(action, name, given)
            if first is None:
                first = value
            elif not has_same_bytes(first, value):
                report.add(_untied(parameter.tensor.type, parameter.names[0], name))
        if first is not None:
            values[id(parameter)] = first
        elif is_kept:
            values[id(parameter)] = parameter.tensor
        else:
            report.missing.append(parameter)
    found = [parameter for parameter in parameters if id(parameter) in values]
    report.missing, left = _without_tables(report.missing, found)
    if not report.is_clean():
        raise report.error(()) from cause
    _warn_of_tables(action, left)
    values.update((id(parameter), parameter.tensor) for parameter in left)
    return [values[id(parameter)] for parameter in parameters]


def _asking(lookup: Callable[..., DLPackArray]) -> Callable[[str, Tensor], DLPackArray]:
    """Adapts `lookup(name)` and `lookup(name, existing)` to one form.

    A second parameter with a default other than None was bound by the user (`lambda name,
    prefix="model.": ...`), so it is left alone.
    """
    try:
        parameters = list(inspect.signature(lookup).parameters.values())
    except (TypeError, ValueError):  # some built-in functions have no signature
        return lambda name, existing: lookup(name)
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(positional) > 1 and positional[1].default in (inspect.Parameter.empty, None):
        return lookup
    return lambda name, existing: lookup(name)


def has_same_bytes(first: Tensor, second: Tensor) -> bool:
    """Returns True if two tensors have the same dtype, shape and bits."""
    if first is second:
        return True
    if first.dtype is not second.dtype or first.sizes != second.sizes:
        return False
    left, right = (backends.get(t.type.device).to_host(t.data) for t in (first, second))
    if left is right:
        return True
    left, right = (np.ascontiguousarray(a).reshape(-1).view(np.uint8) for a in (left, right))
    return bool(np.array_equal(left, right))


def converted(value: Tensor, target: TensorType) -> Tensor:
    """Returns a value with the dtype and on the device of a parameter."""
    narrows = value.dtype.size_in_bits > target.dtype.size_in_bits
    if narrows:  # transfer the smaller form
        return moved(value.cast(target.dtype), target.device)
    return moved(value, target.device).cast(target.dtype)


def moved(tensor: Tensor, device: DeviceRef) -> Tensor:
    """Returns a tensor on a device; one without data is moved when its data is made."""
    if tensor.type.device == device:
        return tensor
    if tensor.real or tensor._value is not None:
        return tensor.to(device)
    with lazy():
        return tensor.to(device)


def _log_replaced(action: str, others: Sequence[str]) -> None:
    if others:
        _log.warning(
            "%s: %d parameter(s) were replaced by tensors of another shape or dtype, as in MAX %s; "
            "the first: %s",
            action,
            len(others),
            era.current(),
            others[0],
        )


def _log_casts(casts: Counter[tuple[DType, DType]]) -> None:
    for (source, target), count in casts.items():
        loss = "" if can_hold(target, source) else " (precision loss)"
        _log.warning("auto_cast: %d parameter(s) from %r to %r%s", count, source, target, loss)
