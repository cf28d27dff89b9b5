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
    def descendants(self) -> Any: ...


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
        return vars(place.owner)[place.attribute]

    def replace(self, tensor: Tensor) -> None:
        """Writes another tensor to every place."""
        for place in self.places:
            setattr(place.owner, place.attribute, tensor)


def parameters_of(module: Owner) -> list[Parameter]:
    """Lists the parameters of a module and its descendants in order, each tensor once.

    Raises:
        ValueError: If a module contains itself, or two parameters have one qualified name.
    """
    found: dict[int, Parameter] = {}
    names: set[str] = set()
    for prefix, owner in _owners(module):
        for attribute, tensor in owner.local_parameters:
            name = prefix + attribute
            if name in names:
                raise ArgumentError(
                    f"Module: two parameters have the qualified name {name!r}. Hint: names of "
                    "attributes must not contain dots."
                )
            names.add(name)
            found.setdefault(id(tensor), Parameter()).places.append(Place(owner, attribute, name))
    return list(found.values())


def _owners(module: Owner) -> Iterator[tuple[str, Owner]]:
    """Yields the module and its descendants, with what stands before names of their tensors."""
    yield "", module
    for path, descendant in module.descendants:
        yield f"{path}.", descendant


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
    for prefix, owner in _owners(module):
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
