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


# What follows the prelude in kernels that call certain functions, and is too long for all others.
_MORE = {
    Dialect.HOST: {
        "host/angles.h": ("mm_sin(", "mm_cos("),
        "host/blocks.h": ("mm_prefetch(", "mm_widen_", "mm_narrow_", "mm_turn_", "mm_over("),
    }
}


def prelude(dialect: Dialect, code: str = "") -> str:
    """Returns the text in front of a kernel: the `mm_` functions of its dialect.

    Args:
        dialect: The language of the kernel.
        code: Its own text, which decides what is needed.
    """
    more = _MORE.get(dialect, {}).items()
    needed = [file for file, names in more if any(name in code for name in names)]
    return "".join(read(file) for file in (f"prelude/{dialect.value}.h", *needed))
