"""Every MAXMOD_* variable: its name, type, default, legal values and meaning, in one table.

Variables are read once, on import. Each can also be set for a block of code:

    with maxmod.configure(verify=True):
        ...
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, fields, replace
from typing import Any

from maxmod.errors import ConfigError, MaxmodWarning, did_you_mean

PREFIX = "MAXMOD_"
_BOOLS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}


@dataclass(frozen=True, slots=True)
class Variable:
    """One MAXMOD_* variable: legal values as text, and one line of documentation."""

    name: str
    type: type
    default: Any
    legal: str
    doc: str

    def parse(self, text: str) -> Any:
        """Converts the text of an environment variable; raises `ConfigError` for an illegal one."""
        if self.type is bool and text.lower() in _BOOLS:
            return _BOOLS[text.lower()]
        if self.type is str:
            return text
        if self.type is int and text.strip().lstrip("-").isdigit():
            return int(text)
        raise ConfigError(f"{self.env_name}: expected {self.legal}, got {text!r}.")

    @property
    def env_name(self) -> str:
        """The name of the environment variable, `MAXMOD_...`."""
        return PREFIX + self.name.upper()


VARIABLES = (
    Variable("debug", int, 0, "0 to 6", "how much to log: 1 devices and cache, 3 graphs, 5 passes"),
    Variable("dump", str, "", "a folder", "write the graph after every pass into this folder"),
    Variable("compile", bool, True, "0 or 1", "0 runs the traced graph op by op, without passes"),
    Variable(
        "noopt", bool, False, "0 or 1", "1 runs only the passes that are needed for correctness"
    ),
    Variable(
        "verify", bool, False, "0 or 1", "1 verifies the graph after every pass and each result"
    ),
    Variable("sync", bool, False, "0 or 1", "1 waits for the device after every step"),
    Variable("progress", bool, True, "0 or 1", "0 switches progress bars off"),
)
_BY_NAME = {variable.name: variable for variable in VARIABLES}


@dataclass(frozen=True, slots=True)
class Config:
    """The values in force."""

    debug: int = 0
    dump: str = ""
    compile: bool = True
    noopt: bool = False
    verify: bool = False
    sync: bool = False
    progress: bool = True


assert [f.name for f in fields(Config)] == [v.name for v in VARIABLES]


def from_environment(environ: dict[str, str] | None = None) -> Config:
    """Reads the configuration; unknown MAXMOD_* names give a warning with a suggestion."""
    environ = dict(os.environ) if environ is None else environ
    values: dict[str, Any] = {}
    for key, text in environ.items():
        if not key.startswith(PREFIX):
            continue
        variable = _BY_NAME.get(key[len(PREFIX) :].lower())
        if variable is None:
            hint = did_you_mean(key, [v.env_name for v in VARIABLES])
            warnings.warn(f"{key} is not a maxmod variable.{hint}", MaxmodWarning, stacklevel=2)
            continue
        values[variable.name] = _checked(variable, variable.parse(text))
    return Config(**values)


def _checked(variable: Variable, value: Any) -> Any:
    wrong_type = not isinstance(value, variable.type) and not (
        variable.type is int and value is True
    )
    if wrong_type or (variable.name == "debug" and not 0 <= value <= 6):
        raise ConfigError(f"{variable.env_name}: expected {variable.legal}, got {value!r}.")
    return value


_DEFAULT = from_environment()
_CURRENT: ContextVar[Config | None] = ContextVar("maxmod_config", default=None)


def current() -> Config:
    """Returns the configuration in force in this context."""
    return _CURRENT.get() or _DEFAULT


@contextlib.contextmanager
def configure(**values: Any) -> Iterator[Config]:
    """Sets variables for a block: ``with maxmod.configure(verify=True): ...``.

    Args:
        **values: Names of `VARIABLES` without the prefix, in lower case.

    Raises:
        ConfigError: For an unknown name (with a suggestion) or an illegal value.
    """
    for name, value in values.items():
        if name not in _BY_NAME:
            raise ConfigError(
                f"configure: unknown variable {name!r}.{did_you_mean(name, _BY_NAME)}"
            )
        _checked(_BY_NAME[name], value)
    token = _CURRENT.set(replace(current(), **values))
    try:
        yield current()
    finally:
        _CURRENT.reset(token)
