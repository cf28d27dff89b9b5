"""Hooks: what runs with every call of a module, to see the tensors that go in and out."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from maxmod import functional as F
from maxmod.runtime import tree
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray

CallHook = Callable[[object, Sequence[object], Mapping[str, object], object], None]
ACTIVE: list[CallHook] = []
"""Each is called as `hook(module, args, kwargs, result)` after the `forward` of any module."""


class PrintHook:
    """Prints the tensors that go into and out of modules, until it is removed.

    Modules that define `__call__` themselves, in place of `forward`, are not seen. While a module
    is traced or compiled, the types are printed, once.

    Args:
        export_path: A folder; where it is given, tensors with data are also saved there, as
            `STEP/NAME.npy`, in float32 where NumPy lacks the dtype.
        filter: The names of modules to print: a container, or a function that tells whether a name
            is wanted; all by default.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod.nn import Linear
        >>> from maxmod.nn.hooks import PrintHook
        >>> layer = Linear(2, 1)
        >>> layer.load_state_dict({"weight": Tensor([[1.0, 2.0]]), "bias": Tensor([3.0])})
        >>> with PrintHook():
        ...     y = layer(Tensor([10.0, 20.0]))
        Tensor Linear-input-0= Tensor([10 20], shape=[2], dtype=DType.float32, \
device=Device(type=cpu,id=0))
        Tensor Linear-output= Tensor([53], shape=[1], dtype=DType.float32, \
device=Device(type=cpu,id=0))
    """

    def __init__(
        self,
        export_path: str | None = None,
        filter: Container[str] | Callable[[str], bool] | None = None,
    ) -> None:
        self.export_path = export_path
        self.filter = filter
        self._names: dict[int, tuple[object, str]] = {}  # by id; the module keeps its id its own
        self._step = 0
        ACTIVE.append(self)

    def name_layers(self, model: Any) -> None:
        """Names the modules inside a model by their qualified names, and the model itself `model`.

        Args:
            model: A `Module`; modules that are not named are printed by their class.
        """
        for name, module in (("model", model), *model.descendants):
            self._names[id(module)] = (module, name)

    def step(self) -> None:
        """Counts a step: what follows is saved in the next folder."""
        self._step += 1

    def remove(self) -> None:
        """Ends the printing."""
        if self in ACTIVE:
            ACTIVE.remove(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def __call__(
        self, module: object, args: Sequence[object], kwargs: Mapping[str, object], result: object
    ) -> None:
        """Prints one call of a module."""
        name = self._names.get(id(module), (None, type(module).__name__))[1]
        if not self._wants(name):
            return
        inputs = {**dict(enumerate(args)), **kwargs}
        for key, value in inputs.items():
            self._show(f"{name}-input-{key}", value)
        self._show(f"{name}-output", result)

    def _wants(self, name: str) -> bool:
        if self.filter is None:
            return True
        return self.filter(name) if callable(self.filter) else name in self.filter

    def _show(self, name: str, value: object) -> None:
        for label, tensor in _tensors(name, value):
            F.print(tensor, label)
            if self.export_path is not None and tensor.real:
                folder = Path(self.export_path) / str(self._step)
                folder.mkdir(parents=True, exist_ok=True)
                np.save(folder / f"{label}.npy", _saved(tensor))


def _tensors(name: str, value: object) -> Iterator[tuple[str, Tensor]]:
    leaves, _ = tree.flatten(value)
    for number, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor):
            yield (name if len(leaves) == 1 else f"{name}-{number}"), leaf


def _saved(tensor: Tensor) -> HostArray:
    host = np.asarray(tensor)
    return host if host.dtype.kind in "biuf" else host.astype(np.float32)
