"""Text that precedes generated code: the preludes and hand-written kernels.

The folder `kernels/` lies next to the package in a checkout and inside it, as `maxmod/_kernels`,
when installed.
"""

from __future__ import annotations

import enum
import functools
import os

from maxmod.config import PACKAGE
from maxmod.errors import CompileError


class Dialect(enum.Enum):
    """A kernel language; its prelude is `kernels/prelude/<value>.h`."""

    HOST = "host"
    CUDA = "cuda"


@functools.cache
def folder() -> str:
    """Returns the path of the folder with kernel text.

    Raises:
        CompileError: If the installation is incomplete.
    """
    installed = os.path.join(PACKAGE, "_kernels")
    checkout = os.path.join(os.path.dirname(PACKAGE), "kernels")
    for path in (installed, checkout):
        if os.path.isfile(os.path.join(path, "prelude", "host.h")):
            return path
    raise CompileError(
        f"kernel_text: the kernel folder is missing: expected {installed} or {checkout}. "
        "Hint: install maxmod again."
    )


@functools.cache
def read(name: str) -> str:
    """Returns the text of a file of the kernel folder, such as `"host/gemm.h"`."""
    with open(os.path.join(folder(), *name.split("/")), encoding="utf-8") as file:
        return file.read()


def prelude(dialect: Dialect) -> str:
    """Returns the text in front of every kernel of a dialect: the `mm_` functions."""
    return read(f"prelude/{dialect.value}.h")
