"""`ModuleList`, `LayerList` and `Sequential`: modules in a list."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from maxmod.errors import OperandError
from maxmod.nn.familiar import Named
from maxmod.nn.module import Module
from maxmod.tensor import Tensor

M = TypeVar("M", bound=Callable[..., object])


class ModuleList(list[M], Module):
    """A list of modules that are children named `0`, `1`, ... by their position.

    It is an ordinary list: it can be changed at any time, `+` and slices give plain lists, equality
    compares items, an empty one is false, and it cannot be hashed. Items that are not modules, such
    as functions, have no parameters.

    Args:
        iterable: The modules.

    Example:
        >>> from maxmod.nn import Linear, ModuleList
        >>> layers = ModuleList(Linear(4, 4, bias=False) for _ in range(2))
        >>> [name for name, _ in layers.parameters]
        ['0.weight', '1.weight']
    """

    @property
    def children(self) -> Named[Module]:
        """Iterates over (position, module) of the items, then over the module's attributes.

        Raises:
            TypeError: If an item is a tensor or a plain container, whose tensors would be lost.
        """
        return Named(self._items())

    def _items(self) -> Iterator[tuple[str, Module]]:
        for position, item in enumerate(self):
            if isinstance(item, Module):
                yield str(position), item
            elif isinstance(item, (Tensor, list, tuple, dict)):
                raise OperandError(
                    f"{type(self).__name__}: item {position}: expected a Module, got "
                    f"{type(item).__name__}.{_splat_hint(self, item)}"
                )
        yield from super().children

    def __rich_repr__(self) -> Iterable[object]:
        for item in self:
            yield (None, item)
        yield from super().children

    __repr__ = Module.__repr__


class LayerList(ModuleList[M]):
    """`ModuleList` under its other name, with its modules as a dict.

    Args:
        layers: The modules.

    Example:
        >>> from maxmod.nn import LayerList, Linear
        >>> list(LayerList([Linear(2, 2), Linear(2, 2)]).sublayers)
        ['0', '1']
    """

    @property
    def sublayers(self) -> dict[str, Module]:
        """The modules by their positions."""
        return dict(self.children)


class Sequential(ModuleList[M]):
    """Applies modules one after the other: `Sequential(a, b)(x)` is `b(a(x))`.

    Args:
        *modules: Modules, or functions, of one argument. Without any, the argument is returned.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import Linear, Sequential
        >>> model = Sequential(Linear(5, 10), Linear(10, 5))
        >>> model(Tensor.ones([5])).shape == [5]
        True
    """

    def __init__(self, *modules: M) -> None:
        super().__init__(modules)

    def forward(self, x: Any) -> Any:
        """Passes x through the items.

        Args:
            x: Input of the first item.

        Returns:
            The result of the last item; x if there are no items.

        Raises:
            TypeError: If an item cannot be called.
        """
        for position, item in enumerate(self):
            if not callable(item):
                raise OperandError(
                    f"Sequential: item {position}: expected a Module, got {type(item).__name__}."
                    f"{_splat_hint(self, item)}"
                )
            x = item(x)
        return x


def _splat_hint(container: ModuleList[Any], item: Any) -> str:
    is_list = isinstance(item, (list, tuple)) and len(container) == 1
    return " Hint: write Sequential(*modules) for a list of modules." if is_list else ""
