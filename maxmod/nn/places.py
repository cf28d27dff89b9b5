"""Where the parameters of a module are: for each tensor, every place that holds it.

A place is an attribute, or an entry of a plain container that an attribute holds: of a list, tuple,
named tuple or dict, nested to any depth.
"""

from __future__ import annotations

import collections
import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from maxmod.errors import ArgumentError, MaxmodWarning, user_level
from maxmod.tensor import Tensor

_NESTING = 4  # depth to which other containers are looked into for the warning
_DICTS = (dict, collections.defaultdict, collections.OrderedDict)
_OPAQUE = (list, tuple, dict, set, frozenset, collections.deque)


class Owner:
    """The interface of a module that this file needs; `Module` is the only subclass."""

    @property
    def local_parameters(self) -> Iterable[tuple[str, Tensor]]:
        """Iterates over (attribute name, tensor)."""
        raise NotImplementedError

    @property
    def children(self) -> Iterable[tuple[str, object]]:
        """Iterates over (attribute name, module)."""
        raise NotImplementedError


class Held(NamedTuple):
    """The tensor or module in an attribute, or in a container in it.

    Attributes:
        name: The attribute's name; for an entry, keys follow it with dots.
        attribute: The attribute.
        keys: The path to an entry, outermost container first; empty for the attribute itself.
        item: A tensor or module.
        around: The part of the name before the last key.
    """

    name: str
    attribute: str
    keys: tuple[Any, ...]
    item: Any
    around: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """An attribute, or an entry of a container in it, that holds a parameter.

    Attributes:
        owner: The module.
        attribute: Its attribute.
        name: The qualified name of the parameter.
        keys: As of `Held`.
    """

    owner: Owner
    attribute: str
    name: str
    keys: tuple[Any, ...] = ()

    @property
    def container(self) -> tuple[int, str]:
        """Which attribute of which module."""
        return id(self.owner), self.attribute

    @property
    def tensor(self) -> Tensor:
        """The current tensor."""
        value = getattr(self.owner, self.attribute)
        for key in self.keys:
            value = value[key]
        return value

    def write(self, new: object, *, force: bool = False) -> None:
        """Puts another object there; lists and dicts are changed, tuples are replaced.

        Args:
            new: The object.
            force: Do so even if the class is frozen.
        """
        if self.keys:
            before = getattr(self.owner, self.attribute)
            new = _with_entry(before, self.keys, new)
            if new is before:
                return
        if force:
            vars(self.owner)[self.attribute] = new
        else:
            setattr(self.owner, self.attribute, new)


def _with_entry(container: Any, keys: tuple[Any, ...], new: Any) -> Any:
    """Replaces an entry; returns the same container, or a new tuple."""
    key, *inner = keys
    if inner:
        new = _with_entry(container[key], tuple(inner), new)
        if new is container[key]:
            return container
    if not isinstance(container, tuple):
        container[key] = new
        return container
    items = (*container[:key], new, *container[key + 1 :])
    return container._make(items) if _is_named(container) else items  # type: ignore[attr-defined]


def _is_named(value: tuple[object, ...]) -> bool:
    return hasattr(value, "_fields")


def entries_of(container: Any) -> Sequence[tuple[Any, str, Any]]:
    """Lists (key, name, entry) of entries that may be or hold a tensor or module."""
    kind = type(container)
    if kind in _DICTS:
        wanted = [key for key, item in container.items() if isinstance(item, _WANTED)]
        if kind is not collections.OrderedDict:
            # Keys that cannot be compared stay in the order of the dict.
            with contextlib.suppress(TypeError):
                wanted = sorted(wanted)
        return [(key, str(key), container[key]) for key in wanted]
    if kind is list or kind is tuple:
        found = enumerate(container)
        return [(i, str(i), item) for i, item in found if isinstance(item, _WANTED)]
    if isinstance(container, tuple) and _is_named(container):
        names = container._fields  # type: ignore[attr-defined]
        return [(i, name, item) for i, (name, item) in enumerate(zip(names, container))]
    return ()


_WANTED = (Tensor, Owner, list, tuple, dict)


def _search(found: Held, around: tuple[object, ...]) -> Iterator[Held]:
    """Yields the tensors and modules in a container; cycles are searched once."""
    container = found.item
    around = (*around, container)
    for key, name, item in entries_of(container):
        prefix = f"{found.name}."
        inner = Held(prefix + name, found.attribute, (*found.keys, key), item, prefix)
        if isinstance(item, (Tensor, Owner)):
            yield inner
        elif not any(item is other for other in around):
            yield from _search(inner, around)


def contained(owner: Owner) -> list[Held]:
    """Lists the tensors and modules in plain containers that the attributes of a module hold."""
    return [
        held
        for attribute, value in vars(owner).items()
        if not isinstance(value, (Tensor, Owner))
        for held in _search(Held(attribute, attribute, (), value), ())
    ]


def tensors_in(owner: Owner) -> list[Held]:
    """Lists a module's own tensors, also those in containers, in the order of the attributes."""
    return _in_order(owner, owner.local_parameters, Tensor)


def modules_in(owner: Owner) -> list[Held]:
    """Lists a module's children, and the modules in containers, in the order of the attributes.

    Children that are not attributes, such as the items of a `ModuleList`, come first.
    """
    return _in_order(owner, owner.children, Owner)


def _in_order(owner: Owner, direct: Iterable[tuple[str, object]], kind: type) -> list[Held]:
    found = [Held(name, name, (), item) for name, item in direct]
    inside = [held for held in contained(owner) if isinstance(held.item, kind)]
    if not inside:
        return found
    position = {name: number for number, name in enumerate(vars(owner))}
    return sorted([*found, *inside], key=lambda held: position.get(held.attribute, -1))


@dataclass(slots=True, eq=False)
class Parameter:
    """One tensor and all places that hold it; more than one if it is tied."""

    places: list[Place] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, ...]:
        """The qualified names."""
        return tuple(place.name for place in self.places)

    @property
    def tensor(self) -> Tensor:
        """The tensor that is there now."""
        return self.places[0].tensor

    def replace(self, tensor: Tensor) -> None:
        """Writes another tensor to every place."""
        for place in self.places:
            place.write(tensor)


def descendants_of(
    module: Owner, prefix: str = "", above: tuple[Owner, ...] = (), *, searched: bool = False
) -> Iterator[tuple[str, str, Any]]:
    """Yields (qualified name, prefix of the names inside it, module) for each descendant.

    Names inside a module start with its own, unless its `name_transparent` is true.

    Args:
        module: The outermost module.
        prefix: Prefix of all names.
        above: The enclosing modules.
        searched: Also descend into modules in plain containers; a container that refers to an
            enclosing module does not count as containing it.

    Raises:
        ValueError: If a module contains itself.
    """
    above = (*above, module)
    if searched:
        below = modules_in(module)
    else:
        below = [Held(name, name, (), child) for name, child in module.children]
    for name, _, keys, child, around in below:
        path = prefix + name
        if any(child is other for other in above):
            if keys:
                continue
            raise ArgumentError(
                f"Module: a module must not contain itself: {path!r} is the "
                f"{type(child).__name__} that it is part of."
            )
        inside = prefix + around if getattr(child, "name_transparent", False) else f"{path}."
        yield path, inside, child
        yield from descendants_of(child, inside, above, searched=searched)


def places_of(module: Owner) -> Iterator[Place]:
    """Yields the places of all parameters, the module's own first.

    Raises:
        ValueError: If a module contains itself, or two parameters have one qualified name.
    """
    names: set[str] = set()
    for prefix, owner in _owners(module):
        for held, attribute, keys, *_ in tensors_in(owner):
            name = prefix + held
            if name in names:
                raise ArgumentError(
                    f"Module: two parameters have the qualified name {name!r}. Hint: names of "
                    "attributes must not contain dots, nor be equal in modules with transparent "
                    "names; keys of a dict must differ as strings, unlike 1 and '1'."
                )
            names.add(name)
            yield Place(owner, attribute, name, keys)


def _owners(module: Owner) -> Iterator[tuple[str, Owner]]:
    yield "", module
    for _, prefix, owner in descendants_of(module, searched=True):
        yield prefix, owner


def parameters_of(module: Owner) -> list[Parameter]:
    """Lists the parameters of a module and its descendants in order, each tensor once.

    Raises:
        ValueError: If a module contains itself, or two parameters have one qualified name.
    """
    found: dict[int, Parameter] = {}
    for place in places_of(module):
        found.setdefault(id(place.tensor), Parameter()).places.append(place)
    return list(found.values())


def by_name(parameters: Sequence[Parameter]) -> dict[str, Tensor]:
    """Returns every qualified name with its tensor."""
    return {name: parameter.tensor for parameter in parameters for name in parameter.names}


def replace_all(parameters: Sequence[Parameter], values: Sequence[Tensor]) -> None:
    """Writes all values; if one cannot be written, those before it are put back."""
    written: list[tuple[Place, Tensor]] = []
    try:
        for parameter, value in zip(parameters, values, strict=True):
            old = parameter.tensor
            for place in parameter.places:
                place.write(value)
                written.append((place, old))
    except BaseException:
        for place, old in reversed(written):
            place.write(old)
        raise


def warn_of_containers(module: Owner, action: str) -> None:
    """Warns once of containers with modules or tensors that are not searched: sets, subclasses.

    Args:
        module: The outermost module.
        action: Name of the method, for the message.
    """
    hidden = []
    owners = [("", module)]
    owners += [(f"{path}.", o) for path, _, o in descendants_of(module, searched=True)]
    for prefix, owner in owners:
        for attribute, value in vars(owner).items():
            if not isinstance(value, (Tensor, Owner)) and _hides(value, _NESTING):
                hidden.append(f"{prefix}{attribute} ({type(value).__name__})")
    if hidden:
        warn(
            f"{action}: modules or tensors in a set, or in a subclass of list, tuple or dict, "
            f"are not parameters and are left as they are: {', '.join(hidden)}. Hint: "
            "nn.ModuleList, a list or a dict holds modules."
        )


def _hides(value: object, depth: int, *, opaque: bool = False) -> bool:
    """True if a container that is not searched holds a tensor or module."""
    if not isinstance(value, _OPAQUE):
        return opaque and isinstance(value, (Tensor, Owner))
    if isinstance(value, Owner):  # a ModuleList is a list
        return opaque
    is_named = isinstance(value, tuple) and _is_named(value)
    opaque = opaque or not (type(value) in (*_DICTS, list, tuple) or is_named)
    items = value.values() if isinstance(value, dict) else value
    return depth > 0 and any(_hides(item, depth - 1, opaque=opaque) for item in items)


def warn(message: str) -> None:
    """Shows a warning at the line of the user."""
    warnings.warn(message, MaxmodWarning, stacklevel=user_level())
