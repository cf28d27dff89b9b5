"""Reads the fields of config.json that a model uses, and judges the others.

A field is used, or known to change nothing, or known to change results and refused. What is beyond
these is told in one warning, and is an error where the caller is strict.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias, TypeVar, get_args, get_type_hints

from maxmod.errors import ModelError
from maxmod.models.config_fields import KnownFields
from maxmod.nn.places import warn
from maxmod.values.plain import JsonObject

ModelConfig: TypeAlias = Any  # the fields of config.json that a family uses: a dataclass of its own

T = TypeVar("T")

_MAX_INTEGER = 2**63 - 1


def from_table(
    cls: type[T],
    table: Mapping[str, object],
    where: str,
    *,
    known: KnownFields,
    strict: bool = False,
) -> T:
    """Makes a dataclass from the fields that it declares.

    Args:
        cls: A dataclass whose fields are `int`, `float`, `bool`, `str`, `list` or `dict`, or one of
            them or None.
        table: Names to values.
        where: The file, for messages.
        known: What is known about other fields.
        strict: Refuse fields that nobody here knows, in place of a warning.

    Raises:
        ModelError: If a field without a default is missing, one is of another type, the model would
            have to compute something else, or it is strict and a field is unknown.
    """
    hints = get_type_hints(cls)
    used = {field.name for field in dataclasses.fields(cls)} - known.unused  # type: ignore[arg-type]
    table = _with_aliases(table, known.aliases, where)
    _refuse_changing(table, used, known, where)
    _refuse_code(table, known, where)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in used & table.keys():
            values[field.name] = _checked(field.name, table[field.name], hints[field.name], where)
        elif field.default is dataclasses.MISSING:
            raise ModelError(f"{where}: the field {field.name!r} is missing.")
    try:
        made = cls(**values)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None
    except (ArithmeticError, ValueError) as error:  # numbers that no model has
        raise ModelError(f"{where}: the numbers cannot be computed with: {error}.") from None
    _report(_unknown(table, used, known), where, strict)
    return made


def judge_fields(
    table: Mapping[str, object],
    used: Iterable[str],
    where: str,
    *,
    known: KnownFields,
    strict: bool = False,
) -> None:
    """Judges the fields of a file that its reader does not use; see `from_table`.

    Raises:
        ModelError: If one changes results, or it is strict and one is unknown.
    """
    _refuse_changing(table, used, known, where)
    _report(_unknown(table, used, known), where, strict)


def _with_aliases(
    table: Mapping[str, object], aliases: Mapping[str, str], where: str
) -> JsonObject:
    result = {name: value for name, value in table.items() if name not in aliases}
    for alias, name in aliases.items():
        if alias in table and result.setdefault(name, table[alias]) != table[alias]:
            raise ModelError(
                f"{where}: {alias!r} and {name!r} are two names of one field: expected one value, "
                f"got {_shown(table[alias])} and {_shown(result[name])}."
            )
    return result


def _refuse_changing(
    table: Mapping[str, object], used: Iterable[str], known: KnownFields, where: str
) -> None:
    for name in sorted(known.changing.keys() & table.keys() - set(used) - known.neutral):
        if table[name] not in known.changing[name]:
            raise ModelError(
                f"{where}: {name!r}: models with this field are not supported: expected "
                f"{' or '.join(map(json.dumps, known.changing[name]))}, got {_shown(table[name])}."
            )


def _refuse_code(table: Mapping[str, object], known: KnownFields, where: str) -> None:
    """Refuses a model that is defined by code in its folder, which is not run, or by a head."""
    if not known.classes:
        return
    classes = _checked("architectures", table.get("architectures"), list | None, where)
    for name in classes or ():
        if isinstance(name, str) and name in known.headed:
            raise ModelError(
                f"{where}: 'architectures': {name} has a head in place of that of the language "
                "model, which is not supported in this version."
            )
    names = table.get("auto_map")
    for name, code in names.items() if isinstance(names, dict) else ():
        is_model = name == "AutoConfig" or name.startswith("AutoModel")
        if is_model and not _is_known_code(code, known):
            raise ModelError(
                f"{where}: 'auto_map': the model is defined by code of its own, {_shown(code)}, "
                "which is neither run nor known here. Hint: if you know that it computes what "
                f"{_shown(table.get('model_type'))} does, use a copy of the folder without this "
                "field."
            )


def _is_known_code(code: object, known: KnownFields) -> bool:
    """Whether a class of code, such as `org/name--file.Class`, computes what is read here."""
    return (
        known.code is not None
        and isinstance(code, str)
        and (code.rpartition(".")[2].startswith(known.code))
    )


def _unknown(table: Mapping[str, object], used: Iterable[str], known: KnownFields) -> list[str]:
    """Returns what nobody here knows: fields, and classes of transformers."""
    ours = known.neutral | known.changing.keys() | set(used)
    ours |= {"architectures", "auto_map"} if known.classes else set()
    found = [f"the field {_quoted(name)}" for name in table if name not in ours]
    classes = table.get("architectures")
    lower = {name.lower() for name in known.classes}  # older files say LLaMAForCausalLM
    for name in classes if isinstance(classes, list) and known.classes else ():
        if not isinstance(name, str) or name.lower() not in lower:
            found.append(f"the architecture {_shown(name)}")
    return found


def _report(unknown: list[str], where: str, strict: bool) -> None:
    if not unknown:
        return
    listed = ", ".join(unknown[:10]) + (f" and {len(unknown) - 10} more" if unknown[10:] else "")
    text = (
        f"{where}: nobody here knows {listed}: whether that changes what is computed is not known"
    )
    if strict:
        raise ModelError(f"{text}. Hint: without strict_config (--strict) it is ignored.")
    warn(f"{text}, and it is ignored. Hint: strict_config=True (--strict) refuses it.")


def _checked(name: str, value: object, hint: Any, where: str) -> Any:
    allowed = get_args(hint) or (hint,)
    if float in allowed and type(value) is int and abs(value) <= _MAX_INTEGER:
        value = float(value)
    is_finite = not isinstance(value, float) or math.isfinite(value)
    is_small = not isinstance(value, int) or abs(value) <= _MAX_INTEGER
    if type(value) in allowed and is_finite and is_small:  # exactly: True is not an int here
        return value
    expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
    raise ModelError(f"{where}: {name!r}: expected {expected}, got {_shown(value)}.")


def _shown(value: object) -> str:
    """A value of a file for a message, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:80] + "..."


def _quoted(name: str) -> str:
    return repr(name) if len(name) <= 60 else repr(name[:60]) + "..."
