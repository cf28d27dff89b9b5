"""Every MAXMOD_* variable: its name, type, default, legal values and meaning, in one table.

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
from dataclasses import dataclass, fields, replace
from typing import Any

from maxmod.errors import ConfigError, MaxmodWarning, did_you_mean

__version__ = "0.1.0"

PREFIX = "MAXMOD_"
# The folder of the package; the first frame of a stack outside of it is the user's line.
PACKAGE = os.path.dirname(os.path.abspath(__file__))
_BOOLS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class Variable:
    """One MAXMOD_* variable.

    Attributes:
        name: Its name as an option of `configure`.
        type: bool, int or str.
        default: The value where nothing is set.
        legal: The legal values, for people.
        doc: One line of documentation.
        limits: For an int, the smallest and largest legal value.
    """

    name: str
    type: type
    default: Any
    legal: str
    doc: str
    limits: tuple[int, int] | None = None

    def parse(self, text: str) -> Any:
        """Converts the text of an environment variable; raises `ConfigError` for an illegal one."""
        value: Any = text
        if self.type is bool:
            value = _BOOLS.get(text.strip().lower(), text)
        elif self.type is int:
            with contextlib.suppress(ValueError):
                value = int(text)
        return self.check(value)

    def check(self, value: Any) -> Any:
        """Returns the value; raises `ConfigError` for an illegal one."""
        low, high = self.limits or (value, value)
        if not isinstance(value, self.type) or not low <= value <= high:
            raise ConfigError(f"{self.env_name}: expected {self.legal}, got {value!r}.")
        return value

    @property
    def env_name(self) -> str:
        """The name of the environment variable, `MAXMOD_...`."""
        return PREFIX + self.name.upper()


_FLAG = "0 or 1"
VARIABLES = (
    Variable(
        "debug",
        int,
        0,
        "0 to 6",
        "what to log: 1 devices, 2 times, 3 graphs, 4 sources, 5 passes, 6 assembly",
        limits=(0, 6),
    ),
    Variable("dump", str, "", "a folder", "write the graph after every pass into this folder"),
    Variable("compile", bool, True, _FLAG, "0 runs the traced graph op by op, without passes"),
    Variable("noopt", bool, False, _FLAG, "1 runs only the passes that are needed for correctness"),
    Variable("nofuse", bool, False, _FLAG, "1 makes one kernel for each op"),
    Variable(
        "fuse_limit",
        int,
        -1,
        "-1 or more",
        "make only the first so many kernels, to find a wrong one; -1 makes all",
        limits=(-1, 1 << 31),
    ),
    Variable("verify", bool, False, _FLAG, "1 verifies the graph after every pass and each result"),
    Variable("check", bool, False, _FLAG, "1 compares every kernel with its ops run one by one"),
    Variable("sync", bool, False, _FLAG, "1 waits for the device after every step"),
    Variable("cuda_graphs", bool, True, _FLAG, "0 starts every kernel of a GPU on its own"),
    Variable("progress", bool, True, _FLAG, "0 switches progress bars off"),
    Variable(
        "threads",
        int,
        0,
        "0 or more",
        "threads of host kernels, read once; 0 takes OMP_NUM_THREADS or all processors",
        limits=(0, 256),
    ),
    Variable("cc", str, "", "a command or path", "the C compiler; else CC, cc, gcc or clang"),
    Variable("cache_dir", str, "", "a folder", "where built kernels are kept"),
    Variable("nocache", bool, False, _FLAG, "1 neither reads nor writes the kernel cache"),
    Variable(
        "cache_max_bytes",
        int,
        1 << 30,
        "0 or more",
        "size at which the kernel cache is trimmed",
        limits=(0, 1 << 62),
    ),
)
_BY_NAME = {variable.name: variable for variable in VARIABLES}


@dataclass(frozen=True, slots=True)
class Config:
    """The values in force."""

    debug: int = 0
    dump: str = ""
    compile: bool = True
    noopt: bool = False
    nofuse: bool = False
    fuse_limit: int = -1
    verify: bool = False
    check: bool = False
    sync: bool = False
    cuda_graphs: bool = True
    progress: bool = True
    threads: int = 0
    cc: str = ""
    cache_dir: str = ""
    nocache: bool = False
    cache_max_bytes: int = 1 << 30


assert [f.name for f in fields(Config)] == [v.name for v in VARIABLES]


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
