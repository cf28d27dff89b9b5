"""Names known from other libraries, with their equivalents on a `Tensor`."""

from __future__ import annotations

from typing import Any

from maxmod.op import foreign_hint


class ForeignNames:
    """Says what to write where an attribute does not exist."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        text = f"'{type(self).__name__}' object has no attribute {name!r}{foreign_hint(name)}"
        raise AttributeError(text, name=name, obj=self)
