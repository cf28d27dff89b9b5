"""Where the parameters of a module are: for each tensor, every attribute that holds it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from maxmod.errors import ArgumentError, MaxmodWarning
from maxmod.tensor import Tensor

_PACKAGE = str(Path(__file__).parents[1])
_NESTING = 4  # depth to which plain containers are looked into for the warning


class Owner(Protocol):
    """What is needed of a module here."""

    @property
    def local_parameters(self) -> Any: ...

    @property
    def children(self) -> Any: ...


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """An attribute that holds a parameter, and its qualified name."""

    owner: Owner
    attribute: str
    name: str


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
        place = self.places[0]
        return getattr(place.owner, place.attribute)

    def replace(self, tensor: Tensor) -> None:
        """Writes another tensor to every place."""
        for place in self.places:
            setattr(place.owner, place.attribute, tensor)


def descendants_of(
    module: Any, prefix: str = "", above: tuple[Any, ...] = ()
) -> Iterator[tuple[str, str, Any]]:
    """Yields (qualified name, what stands before names inside it, module) for each descendant.

    Names inside a module start with its own, unless its `name_transparent` is true.

    Raises:
        ValueError: If a module contains itself.
    """
    above = (*above, module)
    for name, child in module.children:
        path = prefix + name
        if any(child is other for other in above):
            raise ArgumentError(
                f"Module: a module must not contain itself: {path!r} is the "
                f"{type(child).__name__} that it is part of."
            )
        inside = prefix if getattr(child, "name_transparent", False) else f"{path}."
        yield path, inside, child
        yield from descendants_of(child, inside, above)


def named_tensors(module: Owner) -> Iterator[tuple[str, Owner, str]]:
    """Yields (qualified name, owner, attribute) of each parameter, the module's own first."""
    for attribute, _ in module.local_parameters:
        yield attribute, module, attribute
    for _, prefix, owner in descendants_of(module):
        for attribute, _ in owner.local_parameters:
            yield prefix + attribute, owner, attribute


def parameters_of(module: Owner) -> list[Parameter]:
    """Lists the parameters of a module and its descendants in order, each tensor once.

    Raises:
        ValueError: If a module contains itself, or two parameters have one qualified name.
    """
    found: dict[int, Parameter] = {}
    names: set[str] = set()
    for name, owner, attribute in named_tensors(module):
        if name in names:
            raise ArgumentError(
                f"Module: two parameters have the qualified name {name!r}. Hint: names of "
                "attributes must not contain dots, nor be equal in modules with transparent names."
            )
        names.add(name)
        key = id(getattr(owner, attribute))
        found.setdefault(key, Parameter()).places.append(Place(owner, attribute, name))
    return list(found.values())


def by_name(parameters: Sequence[Parameter]) -> dict[str, Tensor]:
    """Returns every qualified name with its tensor."""
    return {name: parameter.tensor for parameter in parameters for name in parameter.names}


def replace_all(parameters: Sequence[Parameter], values: Sequence[Tensor]) -> None:
    """Writes all values; if one cannot be written, those before it are put back."""
    before: list[tuple[Parameter, Tensor]] = []
    try:
        for parameter, value in zip(parameters, values, strict=True):
            before.append((parameter, parameter.tensor))
            parameter.replace(value)
    except BaseException:
        for parameter, old in before[:-1]:
            parameter.replace(old)
        raise


def warn_of_containers(module: Owner, action: str, kinds: tuple[type, ...]) -> None:
    """Warns once of plain containers that hold modules or tensors, which are not searched.

    Args:
        module: The outermost module.
        action: Name of the method, for the message.
        kinds: The classes of modules and tensors.
    """
    hidden = []
    owners = [("", module), *((f"{path}.", owner) for path, _, owner in descendants_of(module))]
    for prefix, owner in owners:
        for attribute, value in vars(owner).items():
            if not isinstance(value, kinds) and _holds(value, kinds, _NESTING):
                hidden.append(f"{prefix}{attribute} ({type(value).__name__})")
    if hidden:
        warnings.warn(
            f"{action}: modules or tensors in a plain list, tuple or dict are no parameters and "
            f"are left as they are: {', '.join(hidden)}. Hint: nn.ModuleList holds modules; "
            "tensors can be attributes of their own.",
            MaxmodWarning,
            stacklevel=_user_level(),
        )


def _holds(value: Any, kinds: tuple[type, ...], depth: int) -> bool:
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, (list, tuple)):
        return False
    return any(
        isinstance(item, kinds) or (depth > 1 and _holds(item, kinds, depth - 1)) for item in value
    )


def _user_level() -> int:
    """Returns the `stacklevel` of the innermost caller outside this package."""
    level = 1
    frame: Any = sys._getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.f_back
        level += 1
    return level
