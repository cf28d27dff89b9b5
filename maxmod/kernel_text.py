"""Text that stands in front of generated code: the preludes and hand-written kernels.

The folder `kernels/` lies next to the package in a checkout and inside it, as `maxmod/_kernels`,
when installed.
"""

from __future__ import annotations

import functools
import os

from maxmod.errors import CompileError
from maxmod.kernel import Dialect, KernelSource

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_SUFFIX = {Dialect.HOST: "c", Dialect.CUDA: "cu"}


@functools.cache
def folder() -> str:
    """Returns the path of the folder with kernel text.

    Raises:
        CompileError: If the installation is incomplete.
    """
    installed = os.path.join(_PACKAGE, "_kernels")
    checkout = os.path.join(os.path.dirname(_PACKAGE), "kernels")
    for path in (installed, checkout):
        if os.path.isfile(os.path.join(path, "prelude", "host.h")):
            return path
    raise CompileError(
        f"kernel_text: the kernel folder is missing: expected {installed} or {checkout}. "
        "Hint: install maxmod again."
    )


@functools.cache
def read(name: str) -> str:
    """Returns the text of a file of the kernel folder, such as `"host/gemv.c"`."""
    with open(os.path.join(folder(), *name.split("/")), encoding="utf-8") as file:
        return file.read()


def prelude(dialect: Dialect) -> str:
    """Returns the text in front of every kernel of a dialect: the `mm_` functions."""
    return read(f"prelude/{dialect.value}.h")


def full_text(source: KernelSource) -> str:
    """Returns what a compiler gets: the prelude, then the code, with its own line numbers."""
    return f'{prelude(source.dialect)}\n#line 1 "kernel.{_SUFFIX[source.dialect]}"\n{source.code}'
