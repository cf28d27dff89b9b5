"""The printer behind `repr(module)`: one line if it fits, else one argument a line.

An object tells its arguments through `__rich_repr__`, the protocol of the rich library, and the
layout is that of `rich.pretty.pretty_repr`, which is not needed for it.
"""

from __future__ import annotations

import dataclasses
import reprlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAX_WIDTH = 80  # columns
INDENT = 4  # spaces
_SEPARATOR = ", "
_BRACES = {list: "[]", tuple: "()", dict: "{}", set: "{}"}


@dataclass(slots=True)
class _Node:
    """A value to print: either `text`, or `open`, the children with separators, and `close`."""

    key: str = ""  # printed before the value: "name=" or "key: "
    text: str = ""
    open: str = ""
    close: str = ""
    children: list[_Node] = field(default_factory=list)
    trailing_comma: bool = False  # a tuple of one

    def flat(self) -> str:
        """Returns the form on one line."""
        if not self.children:
            return self.key + self.text
        inner = _SEPARATOR.join(child.flat() for child in self.children)
        comma = "," if self.trailing_comma else ""
        return f"{self.key}{self.open}{inner}{comma}{self.close}"

    def lines(self, indent: int, suffix: str) -> Iterator[str]:
        """Yields the lines of the value; `suffix` separates it from what follows."""
        flat = self.flat()
        # The separator counts with its blank, and also after the last argument, where none is
        # printed, as in rich.
        reserved = len(_SEPARATOR) if indent else 0
        blanks = " " * indent
        if not self.children or indent + len(flat) + reserved <= MAX_WIDTH:
            yield f"{blanks}{flat}{suffix}"
            return
        yield f"{blanks}{self.key}{self.open}"
        for child in self.children:
            is_last = child is self.children[-1] and not self.trailing_comma
            yield from child.lines(indent + INDENT, "" if is_last else ",")
        yield f"{blanks}{self.close}{suffix}"


def pretty_repr(value: object) -> str:
    """Formats a value, at most 80 columns wide where it can be broken."""
    return "\n".join(_node(value, []).lines(0, ""))


def _node(value: Any, parents: list[int]) -> _Node:
    """Makes the node of a value; `parents` holds the ids of the enclosing values."""
    if id(value) in parents:
        return _Node(text="...")
    inside = [*parents, id(value)]
    if hasattr(value, "__rich_repr__") and not isinstance(value, type):
        return _call_node(value, _arguments(value.__rich_repr__()), inside)
    if _is_plain_dataclass(value):
        shown = [f.name for f in dataclasses.fields(value) if f.repr]
        return _call_node(value, [(name, getattr(value, name)) for name in shown], inside)
    for kind, (opening, closing) in _BRACES.items():
        if isinstance(value, kind) and type(value).__repr__ is kind.__repr__ and value:
            node = _Node(open=opening, close=closing, children=_items(value, inside))
            node.trailing_comma = isinstance(value, tuple) and len(value) == 1
            return node
    return _Node(text=repr(value))


def _call_node(value: object, arguments: Iterable[tuple[str, object]], inside: list[int]) -> _Node:
    name = type(value).__name__
    children = []
    for key, argument in arguments:
        child = _node(argument, inside)
        child.key = f"{key}=" if key else ""
        children.append(child)
    return _Node(text=f"{name}()", open=f"{name}(", close=")", children=children)


def _arguments(described: Iterable[object]) -> Iterator[tuple[str, object]]:
    """Yields (name or "", value) for each entry of `__rich_repr__` that is to be shown."""
    for entry in described:
        if not isinstance(entry, tuple):
            yield "", entry
        elif len(entry) == 1:
            yield "", entry[0]
        elif len(entry) == 2 or not _is_default(entry[1], entry[2]):
            yield entry[0] or "", entry[1]


def _is_default(value: object, default: object) -> bool:
    return value is default or bool(default == value)


def _is_plain_dataclass(value: object) -> bool:
    """True for a dataclass whose `__repr__` is the generated one."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return False
    # The generated method is wrapped against recursion, by a function of one of these modules.
    code = getattr(type(value).__repr__, "__code__", None)
    return code is not None and code.co_filename in (dataclasses.__file__, reprlib.__file__)


def _items(value: Any, inside: list[int]) -> list[_Node]:
    if not isinstance(value, dict):
        return [_node(item, inside) for item in value]
    nodes = []
    for key, item in value.items():
        node = _node(item, inside)
        node.key = f"{key!r}: "
        nodes.append(node)
    return nodes
