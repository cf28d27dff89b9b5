"""Argument checks of compiled calls: types, nested structure, and the values of named sizes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from maxmod import backends
from maxmod.errors import ArgumentTypeError, DeviceError, DTypeError, ShapeError
from maxmod.runtime import tree
from maxmod.tensor import Tensor
from maxmod.tensor.buffer import Buffer
from maxmod.tensor.exchange import DLPackArray
from maxmod.tensor.literal import is_scalar, literal_array, weak_scalar
from maxmod.values.dim import AlgebraicDim, Size, SymbolicDim, evaluate
from maxmod.values.tensor_type import BufferType, TensorType


class Signature:
    """What a compiled function takes.

    Args:
        input_types: A `TensorType` for each argument, or a list, tuple or dict of them; any other
            leaf is a static Python value.
        names: Names of the parameters in order, as far as they are known.
        keyword_types: The same for arguments that are given by name, which come last.
        defaults: The parameters that may be left out.

    Raises:
        TypeError: If a tensor is given instead of a type.
    """

    def __init__(
        self,
        input_types: Sequence[object],
        names: Sequence[str],
        keyword_types: Mapping[str, object] = MappingProxyType({}),
        defaults: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        count = len(input_types)
        self.keywords = tuple(keyword_types)
        self._parameters, self._defaults = names, defaults
        unknown = [""] * (count - len(names))
        self._argument_names = [*names[:count], *unknown, *self.keywords]
        names = self._argument_names
        self.leaves, self.tree = tree.flatten((*input_types, *keyword_types.values()))
        self.labels = _labels(self.tree, names)
        for label, leaf in zip(self.labels, self.leaves):
            if isinstance(leaf, (Tensor, Buffer)):
                raise ArgumentTypeError(
                    f"compile: {label}: expected a TensorType, got a tensor. Hint: pass x.type."
                )
        self.types = [leaf for leaf in self.leaves if isinstance(leaf, TensorType)]
        pairs = zip(self.labels, self.leaves)
        self.tensor_labels = [label for label, leaf in pairs if isinstance(leaf, TensorType)]
        shown = zip(_names(self.tree, names), self.leaves)
        self.input_names = [name for name, leaf in shown if isinstance(leaf, TensorType)]
        self._plain = all(child.kind is None for child in self.tree.children)
        self._all_tensors = self._plain and len(self.types) == len(self.leaves)

    def arguments(self, make: Callable[[TensorType], Tensor]) -> Sequence[object]:
        """Returns the arguments to trace with: `make(type)` for types, other values as they are."""
        return tree.unflatten(
            self.tree,
            [make(leaf) if isinstance(leaf, TensorType) else leaf for leaf in self.leaves],
        )

    def called(self, fn: Callable[..., object]) -> Callable[..., object]:
        """Returns a function that takes the arguments in order, and passes the last ones by name.

        Args:
            fn: The function to call.
        """
        if not self.keywords:
            return fn
        count = len(self._argument_names) - len(self.keywords)

        def by_name(*args: object) -> object:
            return fn(*args[:count], **dict(zip(self.keywords, args[count:])))

        return by_name

    def ordered(self, args: Sequence[object], kwargs: Mapping[str, object]) -> list[object]:
        """Returns the arguments of a call in the order of the types.

        A parameter that has no type may be given the default that it was compiled with.

        Raises:
            TypeError: If an argument is missing, unknown or given twice.
        """
        places = {name: n for n, name in enumerate(self._argument_names) if name}
        found = dict(enumerate(args[: len(self._argument_names) - len(self.keywords)]))
        more = [*self._parameters[len(found) :]]
        named = [*zip(more, args[len(found) :]), *kwargs.items()]
        if len(found) + len(named) != len(args) + len(kwargs):
            raise TypeError(self._expected(f"{len(args)} in order"))
        for name, value in named:
            place = places.get(name)
            if place in found:
                raise TypeError(self._expected(f"{name} twice"))
            if place is not None:
                found[place] = value
            elif name not in self._defaults:
                raise TypeError(self._expected(f"{name}={type(value).__name__}"))
            elif value is not self._defaults[name]:
                raise ArgumentTypeError(
                    f"compiled call: {name} was not given when this was compiled, and is fixed to "
                    f"its default {self._defaults[name]!r}. Hint: compile it with {name}=, too."
                )
        missing = [self._shown(n) for n in range(len(self._argument_names)) if n not in found]
        if missing:
            raise TypeError(self._expected(f"none for {', '.join(missing)}"))
        return [found[n] for n in range(len(self._argument_names))]

    def _shown(self, place: int) -> str:
        return self._argument_names[place] or f"argument {place}"

    def _expected(self, got: str) -> str:
        count = len(self._argument_names)
        shown = ", ".join(map(self._shown, range(count)))
        return f"compiled call: expected {count} arguments ({shown}), got {got}."

    def tensors(self, args: Sequence[object]) -> Sequence[Tensor]:
        """Converts the arguments of a call to tensors, whose types are not checked yet.

        Raises:
            TypeError: For a wrong number of arguments or an unsupported kind of argument.
            ValueError: For another structure or static value.
        """
        if len(args) != len(self.tree.children):
            raise TypeError(
                f"compiled call: expected {len(self.tree.children)} arguments, got {len(args)}."
            )
        if self._all_tensors and {*map(type, args)} == {Tensor}:
            return args  # type: ignore[return-value]  # tensors, all of them
        leaves: Sequence[object] = args
        if not self._plain:
            leaves, found = tree.flatten(tuple(args))
            if found != self.tree:
                raise ArgumentTypeError(
                    "compiled call: the arguments are nested differently from the input types."
                )
        result: list[Tensor] = []
        for label, expected, leaf in zip(self.labels, self.leaves, leaves):
            if isinstance(expected, TensorType):
                result.append(leaf if type(leaf) is Tensor else _as_tensor(label, expected, leaf))
            elif leaf is not expected and leaf != expected:
                raise ArgumentTypeError(
                    f"compiled call: {label}: the static value differs from the one compiled: "
                    f"expected {expected!r}, got {leaf!r}."
                )
        return result

    def bind(self, tensors: Sequence[Tensor]) -> dict[str, int]:
        """Checks the types of all tensors and returns the value of each named size.

        Raises:
            ValueError: If a dtype, rank, size or device differs, one name has two values, or a
                derived size does not agree.
        """
        dims: dict[str, int] = {}
        owners: dict[str, str] = {}
        derived: list[tuple[str, Size, int]] = []
        for label, expected, tensor in zip(self.tensor_labels, self.types, tensors):
            _check(label, expected, tensor._type)
            for axis, (want, have) in enumerate(zip(expected._sizes, tensor._type._sizes)):
                if isinstance(want, SymbolicDim):
                    if dims.setdefault(want.name, have) != have:  # type: ignore[arg-type]
                        raise ShapeError(
                            f"compiled call: {label}: the size {want.name!r} of axis {axis} is "
                            f"{have}, but {owners[want.name]} has {dims[want.name]}."
                        )
                    owners.setdefault(want.name, f"axis {axis} of {label}")
                elif isinstance(want, AlgebraicDim):
                    derived.append((f"axis {axis} of {label}", want, have))  # type: ignore[arg-type]
        for where, want, have in derived:
            if evaluate(want, dims) != have:
                raise ShapeError(
                    f"compiled call: {where}: expected {want} = {evaluate(want, dims)}, got {have}."
                )
        return dims


def _as_tensor(label: str, expected: TensorType, leaf: object) -> Tensor:
    """Accepts arrays that speak DLPack, and numbers where a tensor is expected."""
    if isinstance(leaf, Tensor):
        return leaf
    if isinstance(expected, BufferType):
        _expect_memory(label, expected, leaf)
    if is_scalar(leaf):
        host = literal_array(weak_scalar(leaf, expected.dtype), expected.dtype)
        data = backends.get(expected.device).from_host(host, expected.device.id)
        return Tensor.wrap(data, TensorType.of(expected.dtype, (), expected.device))
    if isinstance(leaf, (Buffer, DLPackArray)):
        return Tensor.from_dlpack(leaf)
    raise ArgumentTypeError(
        f"{_expected(label, f'a Tensor, Buffer, DLPack array or number ({expected.short()})')}, "
        f"got {type(leaf).__name__}."
    )


def _expected(label: str, what: str) -> str:
    """Returns the first half of a message, which begins as in MAX: `argument 0: expected ...`."""
    place, name, path = re.fullmatch(r"(argument \d+)(?: \((.*?)\))?(.*)", label).groups()  # type: ignore[union-attr]
    return f"compiled call: {place}{path}: expected {what}{f' for {name}' if name else ''}"


def _expect_memory(label: str, expected: TensorType, leaf: object) -> None:
    """Refuses, for a buffer, what a tensor could only be a copy of: stores would be lost."""
    is_fixed = isinstance(leaf, np.ndarray) and not leaf.flags.writeable
    if is_fixed or is_scalar(leaf):
        found = "a read-only array" if is_fixed else f"the number {leaf!r}"
        raise ArgumentTypeError(
            f"{_expected(label, f'a buffer of {expected.short()}')}, got {found}, which cannot be "
            "stored into. Hint: make a Tensor of it and keep that."
        )


def _check(label: str, expected: TensorType, found: TensorType) -> None:
    if _fits(expected, found):
        return
    where = f"{_expected(label, expected.short())}, got {found.short()}"
    if found._dtype is not expected._dtype:
        raise DTypeError(f"{where}. Hint: cast it first; dtypes are not converted implicitly.")
    if found._device != expected._device:
        raise DeviceError(f"{where} on {found.device}. Hint: move it with .to(device) first.")
    if len(found._sizes) != len(expected._sizes):
        raise ShapeError(f"{where}: the ranks differ.")
    for axis, (want, have) in enumerate(zip(expected._sizes, found._sizes)):
        if isinstance(want, int) and want != have:
            raise ShapeError(f"{where}: axis {axis} has {have} elements.")


def _fits(expected: TensorType, found: TensorType) -> bool:
    """True if dtype, device, rank and the known sizes agree."""
    if found._dtype is not expected._dtype or found._device != expected._device:
        return False
    if len(found._sizes) != len(expected._sizes):
        return False
    sizes = zip(expected._sizes, found._sizes)
    return all(not isinstance(want, int) or want == have for want, have in sizes)


def _labels(structure: tree.Tree, names: Sequence[str]) -> list[str]:
    """Returns a readable name for each leaf: `argument 0 (x)`, `argument 1 (cache)['k']`."""
    labels = []
    for index, child in enumerate(structure.children):
        name = f" ({names[index]})" if index < len(names) and names[index] else ""
        labels += [f"argument {index}{name}{path}" for path in _paths(child)]
    return labels


def _names(structure: tree.Tree, names: Sequence[str]) -> list[str]:
    """Returns what a graph calls each leaf: `x`, `cache.0`, and `arg2` where no name is known."""
    found = []
    for index, child in enumerate(structure.children):
        name = (names[index] if index < len(names) else "") or f"arg{index}"
        found += [".".join((name, *path)) for path in _key_paths(child)]
    return found


def _key_paths(structure: tree.Tree) -> list[tuple[str, ...]]:
    """Returns the keys that lead to each leaf, with nothing in them but letters and digits."""
    if structure.kind is None:
        return [()]
    return [
        (re.sub(r"\W", "_", str(key)), *path)
        for key, child in zip(structure.keys, structure.children)
        for path in _key_paths(child)
    ]


def _paths(structure: tree.Tree) -> list[str]:
    if structure.kind is None:
        return [""]
    return [
        f"[{key!r}]{path}"
        for key, child in zip(structure.keys, structure.children)
        for path in _paths(child)
    ]


def argument_names(fn: Callable[..., object]) -> list[str]:
    """Returns the positional parameter names of a function or module, as far as they are known."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p.name for p in _parameters(fn) if p.kind in kinds]


def argument_defaults(fn: Callable[..., object]) -> dict[str, object]:
    """Returns the defaults of the parameters that have one, as far as they are known."""
    return {p.name: p.default for p in _parameters(fn) if p.default is not p.empty}


def _parameters(fn: Callable[..., object]) -> list[inspect.Parameter]:
    target = getattr(fn, "forward", fn) if type(fn).__call__ is _module_call(fn) else fn
    try:
        return [*inspect.signature(target).parameters.values()]
    except (TypeError, ValueError):
        return []


def _module_call(fn: Any) -> Any:
    """Returns the `__call__` that only delegates to `forward`, if the object has such a base."""
    for base in type(fn).__mro__:
        if base.__name__ == "Module" and "__call__" in vars(base):
            return vars(base)["__call__"]
    return None
