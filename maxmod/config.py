"""Every MAXMOD_* variable: its name, type, default, legal values and meaning, in `Config`.

Variables are read once, on import; a new thread starts with these values. Each can also be set for
a block of code:

    with maxmod.configure(verify=True):
        ...
"""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from typing import Any

from maxmod.errors import ConfigError, MaxmodWarning, did_you_mean

__version__ = "0.1.0"

PREFIX = "MAXMOD_"
# The folder of the package; the innermost stack frame outside it is the user's line.
PACKAGE = os.path.dirname(os.path.abspath(__file__))
_BOOLS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


def _flag(default: bool, doc: str) -> bool:
    return field(default=default, metadata={"legal": "0 or 1", "doc": doc})


def _number(default: int, limits: tuple[int, int], legal: str, doc: str) -> int:
    return field(default=default, metadata={"legal": legal, "doc": doc, "limits": limits})


def _text(legal: str, doc: str) -> str:
    return field(default="", metadata={"legal": legal, "doc": doc})


@dataclass(frozen=True, slots=True)
class Config:
    """The values in force. A field `name` is the variable `MAXMOD_NAME`."""

    debug: int = _number(
        0,
        (0, 6),
        "0 to 6",
        "what to log: 1 devices, 2 times, 3 graphs, 4 sources, 5 passes, 6 assembly",
    )
    dump: str = _text("a folder", "write the graph after every pass into this folder")
    compile: bool = _flag(True, "0 runs the traced graph op by op, without passes")
    noopt: bool = _flag(False, "1 runs only the passes that are needed for correctness")
    nofuse: bool = _flag(False, "1 makes one kernel for each op")
    fuse_limit: int = _number(
        -1,
        (-1, 1 << 31),
        "-1 or more",
        "make only the first n kernels, to find a wrong one; -1 makes all",
    )
    verify: bool = _flag(False, "1 verifies the graph after every pass and each result")
    check: bool = _flag(False, "1 compares every kernel with its ops run one by one")
    sync: bool = _flag(False, "1 waits for the device after every step")
    cuda_graphs: bool = _flag(True, "0 starts every kernel of a GPU on its own")
    progress: bool = _flag(True, "0 switches progress bars off")
    threads: int = _number(
        0,
        (0, 256),
        "0 or more",
        "threads of host kernels, read once; 0 takes OMP_NUM_THREADS or all CPUs",
    )
    cc: str = _text("a command or path", "the C compiler; else CC, cc, gcc or clang")
    cache_dir: str = _text("a folder", "where built kernels are kept")
    nocache: bool = _flag(False, "1 neither reads nor writes the kernel cache")
    cache_max_bytes: int = _number(
        1 << 30, (0, 1 << 62), "0 or more", "size at which the kernel cache is trimmed"
    )


@dataclass(frozen=True, slots=True)
class Variable:
    """One MAXMOD_* variable, as the fields of `Config` define it.

    Attributes:
        name: Its name as an option of `configure`.
        type: bool, int or str.
        default: The value where nothing is set.
        legal: The legal values, in words.
        doc: One line of documentation.
        limits: For an int, the smallest and largest legal value.
    """

    name: str
    type: type
    default: object
    legal: str
    doc: str
    limits: tuple[int, int] | None = None

    def parse(self, text: str) -> Any:
        """Parses the value of an environment variable; raises `ConfigError` if it is illegal."""
        value: Any = text
        if self.type is bool:
            value = _BOOLS.get(text.strip().lower(), text)
        elif self.type is int:
            with contextlib.suppress(ValueError):
                value = int(text)
        return self.check(value)

    def check(self, value: Any) -> Any:
        """Returns the value; raises `ConfigError` if it is illegal."""
        low, high = self.limits or (value, value)
        if not isinstance(value, self.type) or not low <= value <= high:
            raise ConfigError(f"{self.env_name}: expected {self.legal}, got {value!r}.")
        return value

    @property
    def env_name(self) -> str:
        """The name of the environment variable, `MAXMOD_...`."""
        return PREFIX + self.name.upper()


VARIABLES = tuple(
    Variable(f.name, type(f.default), f.default, **f.metadata) for f in fields(Config)
)
_BY_NAME = {variable.name: variable for variable in VARIABLES}


def from_environment(environ: dict[str, str] | None = None) -> Config:
    """Reads the configuration; empty variables count as not set.

    Unknown MAXMOD_* names give a warning with a suggestion.
    """
    environ = dict(os.environ) if environ is None else environ
    values: dict[str, Any] = {}
    for key, text in environ.items():
        if not key.startswith(PREFIX) or not text:
            continue
        variable = _BY_NAME.get(key[len(PREFIX) :].lower())
        if variable is None:
            hint = did_you_mean(key, [v.env_name for v in VARIABLES])
            warnings.warn(f"{key} is not a maxmod variable.{hint}", MaxmodWarning, stacklevel=2)
            continue
        values[variable.name] = variable.parse(text)
    return Config(**values)


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

    Returns:
        A context manager, which gives the settings of the block.

    Raises:
        ConfigError: (a ValueError) For an unknown name (with a suggestion) or an illegal value.

    Example:
        >>> import maxmod
        >>> with maxmod.configure(verify=True, progress=False) as settings:
        ...     settings.verify
        True
    """
    for name, value in values.items():
        if name not in _BY_NAME:
            raise ConfigError(
                f"configure: unknown variable {name!r}.{did_you_mean(name, _BY_NAME)}"
            )
        _BY_NAME[name].check(value)
    token = _CURRENT.set(replace(current(), **values))
    try:
        yield current()
    finally:
        _CURRENT.reset(token)
