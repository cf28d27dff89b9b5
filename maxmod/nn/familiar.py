"""Names of PyTorch's modules: the same state under other names, and no training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from maxmod.op import foreign_hint
from maxmod.tensor import Tensor

T = TypeVar("T")


class Named(Iterator[tuple[str, T]], Generic[T]):
    """Pairs (name, item), as MAX has them in a property; called as in PyTorch, the items alone."""

    def __init__(self, pairs: Iterable[tuple[str, T]]) -> None:
        self._pairs = iter(pairs)

    def __iter__(self) -> Iterator[tuple[str, T]]:
        return self._pairs

    def __next__(self) -> tuple[str, T]:
        return next(self._pairs)

    def __call__(self, recurse: bool = True) -> Iterator[T]:
        """Iterates over the items without their names, each once.

        Args:
            recurse: Accepted for compatibility; only True.

        Raises:
            TypeError: For `recurse=False`.
        """
        if not recurse:
            raise TypeError("recurse: expected True. Hint: model.local_parameters are its own.")
        return (item for _, item in distinct(self._pairs))


def distinct(pairs: Iterable[tuple[str, T]]) -> Iterator[tuple[str, T]]:
    """Leaves out items that were there before, under another name."""
    seen: set[int] = set()
    for name, item in pairs:
        if id(item) not in seen:
            seen.add(id(item))
            yield name, item


class FamiliarNames:
    """The part of `Module` with the names of PyTorch."""

    training = False  # always: this is inference

    if TYPE_CHECKING:

        @property
        def parameters(self) -> Named[Tensor]: ...
        @property
        def children(self) -> Iterable[tuple[str, FamiliarNames]]: ...
        @property
        def descendants(self) -> Iterable[tuple[str, FamiliarNames]]: ...

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the parameters by qualified name: `dict(model.parameters)`.

        Returns:
            A new dict; the tensors are those of the module.

        Example:
            >>> from maxmod.nn import Linear
            >>> list(Linear(2, 3).state_dict())
            ['weight', 'bias']
        """
        return dict(self.parameters)

    def named_parameters(self) -> Iterator[tuple[str, Tensor]]:
        """Iterates over (qualified name, tensor), a tied tensor once, as in PyTorch.

        Example:
            >>> from maxmod.nn import Linear
            >>> [name for name, _ in Linear(2, 3).named_parameters()]
            ['weight', 'bias']
        """
        return distinct(self.parameters)

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]:
        """Iterates over nothing: every tensor is a parameter here."""
        return iter(())

    def buffers(self) -> Iterator[Tensor]:
        """Iterates over nothing: every tensor is a parameter here."""
        return iter(())

    def named_children(self) -> Iterator[tuple[str, FamiliarNames]]:
        """Iterates over (attribute name, module) of the modules directly on this one."""
        return distinct(self.children)

    def named_modules(self) -> Iterator[tuple[str, FamiliarNames]]:
        """Iterates over (qualified name, module) of this module, named "", and all below it.

        Example:
            >>> from maxmod.nn import Linear, Sequential
            >>> [name for name, _ in Sequential(Linear(2, 3)).named_modules()]
            ['', '0']
        """
        yield from distinct([("", self), *self.descendants])

    def modules(self) -> Iterator[FamiliarNames]:
        """Iterates over this module and all below it."""
        return (module for _, module in self.named_modules())

    def eval(self) -> Self:
        """Changes nothing, since there is no training; returns the module."""
        return self

    def train(self, mode: bool = False) -> Self:
        """Changes nothing; returns the module.

        Args:
            mode: False; there is no training.

        Raises:
            TypeError: If it is true.
        """
        if mode:
            raise TypeError("train: there is no training here. Hint: model.eval() changes nothing.")
        return self

    def requires_grad_(self, requires_grad: bool = False) -> Self:
        """Changes nothing; returns the module.

        Args:
            requires_grad: False; there are no gradients.

        Raises:
            TypeError: If it is true.
        """
        if requires_grad:
            raise TypeError("requires_grad_: there are no gradients here. Hint: leave it out.")
        return self

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> object:
            own = getattr(type(self), name, None)
            if isinstance(own, property):
                return object.__getattribute__(self, name)  # raises what its getter raised
            text = f"{type(self).__name__!r} object has no attribute {name!r}"
            hint = "" if name.startswith("_") else foreign_hint(name, "module")
            raise AttributeError(text + hint, name=name, obj=self)
