"""Docstrings and signatures as users see them."""

from __future__ import annotations

import re
from typing import Any

import griffe


class PublicView(griffe.Extension):
    """Ops without the array module, which their decorator adds; examples as examples."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Calls the section of examples by the name that the parser of Google's style knows."""
        if obj.docstring is not None:
            obj.docstring.value = re.sub(
                r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE
            )

    def on_function(self, *, func: griffe.Function, **kwargs: Any) -> None:
        """Drops the first parameter of functions that `maxmod.op.op` decorates."""
        decorators = [str(decorator.value) for decorator in func.decorators]
        if any(text == "op" or text.startswith("op(") for text in decorators):
            if [parameter.name for parameter in func.parameters][:1] == ["xp"]:
                del func.parameters["xp"]
            func.decorators.clear()
