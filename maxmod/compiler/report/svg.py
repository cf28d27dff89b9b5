"""Elements of SVG as text. Colours are classes, which the page defines for light and dark."""

from __future__ import annotations

import html
from collections.abc import Iterable


def element(name: str, *children: str, text: str = "", **attributes: object) -> str:
    """Returns an element.

    Args:
        name: Its name.
        *children: Elements inside of it.
        text: Text inside of it, before them.
        **attributes: `class_` and `text_anchor` become `class` and `text-anchor`.
    """
    shown = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_value(value))}"'
        for key, value in attributes.items()
    )
    return f"<{name}{shown}>{html.escape(text)}{''.join(children)}</{name}>"


def drawing(width: float, height: float, parts: Iterable[str], title: str) -> str:
    """Returns a whole drawing.

    Args:
        width: Its width in units, which are pixels unless it is scaled down.
        height: Its height.
        parts: Its elements.
        title: What it shows, for those who cannot see it.
    """
    return element(
        "svg",
        element("title", text=title),
        *parts,
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        style=f"max-width:{_value(width)}px",
        role="img",
    )


def _value(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
