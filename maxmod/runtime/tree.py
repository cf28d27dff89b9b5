"""Nested arguments and results: lists, tuples, dicts, named tuples and dataclasses of leaves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Tree:
    """The structure of a nested value.

    Attributes:
        kind: The container class, or None for a leaf.
        keys: Dict keys (sorted as given), field names, or positions.
        children: The structure of each entry.
    """

    kind: type | None
    keys: tuple[Any, ...] = ()
    children: tuple[Tree, ...] = ()

    @property
    def leaf_count(self) -> int:
        """Number of leaves below this node."""
        return 1 if self.kind is None else sum(child.leaf_count for child in self.children)


LEAF = Tree(None)


def _entries(value: Any) -> tuple[tuple[Any, ...], list[Any]] | None:
    """Returns keys and entries of a container, or None for a leaf."""
    if isinstance(value, dict):
        keys = list(value)
        if all(isinstance(key, str) for key in keys):
            keys.sort()
        return tuple(keys), [value[key] for key in keys]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return tuple(value._fields), list(value)  # type: ignore[attr-defined]
    if type(value) in (list, tuple):
        return tuple(range(len(value))), list(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = tuple(f.name for f in dataclasses.fields(value) if f.init)
        return names, [getattr(value, name) for name in names]
    return None


def flatten(value: object) -> tuple[list[Any], Tree]:
    """Returns the leaves in order, and the structure to rebuild the value."""
    entries = _entries(value)
    if entries is None:
        return [value], LEAF
    leaves: list[Any] = []
    children = []
    for entry in entries[1]:
        below, child = flatten(entry)
        leaves += below
        children.append(child)
    return leaves, Tree(type(value), entries[0], tuple(children))


def unflatten(tree: Tree, leaves: Sequence[Any]) -> Any:
    """Rebuilds a value from its structure and leaves."""
    remaining = iter(leaves)
    return _build(tree, remaining)


def _build(tree: Tree, leaves: Iterator[Any]) -> Any:
    if tree.kind is None:
        return next(leaves)
    entries = [_build(child, leaves) for child in tree.children]
    if issubclass(tree.kind, dict):
        return tree.kind(zip(tree.keys, entries))
    if issubclass(tree.kind, tuple) and hasattr(tree.kind, "_fields"):
        return tree.kind(*entries)
    if tree.kind in (list, tuple):
        return tree.kind(entries)
    return tree.kind(**dict(zip(tree.keys, entries)))
