"""Kernel text in parts: the generated part, and the included files of the folder `kernels`."""

from __future__ import annotations

import functools
import os
from typing import NamedTuple

from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import KernelSource


class Part(NamedTuple):
    """A part of a kernel.

    Attributes:
        file: The file in `kernels` that it is, such as `host/gemm.h`; empty for generated text.
        text: The text.
    """

    file: str
    text: str

    @property
    def line_count(self) -> int:
        """Its number of lines."""
        return len(self.text.splitlines())


def parts_of(source: KernelSource) -> list[Part]:
    """Returns the parts of a kernel in order; together they are its text, but for empty lines."""
    parts = [Part("", source.code)]
    for file, text in _files().items():
        parts = [piece for part in parts for piece in _split(part, file, text)]
    return [part for part in parts if part.text.strip()]


def _split(part: Part, file: str, text: str) -> list[Part]:
    if part.file or text not in part.text:
        return [part]
    before, after = part.text.split(text, 1)
    return [Part("", before), Part(file, text), *_split(Part("", after), file, text)]


@functools.cache
def _files() -> dict[str, str]:
    """Returns the texts of the kernel folder by name."""
    top = kernel_text.folder()
    found: dict[str, str] = {}
    for folder, _, names in sorted(os.walk(top)):
        for name in sorted(names):
            if name.endswith((".h", ".c")):
                path = os.path.relpath(os.path.join(folder, name), top).replace(os.sep, "/")
                found[path] = kernel_text.read(path).strip("\n")
    return found
