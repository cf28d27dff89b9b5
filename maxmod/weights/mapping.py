"""`Weights`: a lazy, read-only mapping of names to tensors; and `View`, one derived from others.

A tensor is read when it is asked for and not kept, so that a load needs the memory of the model
and of the largest tensor. Its type is known without reading.
"""

from __future__ import annotations

import abc
import collections
import itertools
import math
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from maxmod import backends
from maxmod.dtype import DType
from maxmod.errors import WeightsError, did_you_mean
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.values.array import HostArray, StorageDType
from maxmod.values.shape import Sizes
from maxmod.values.tensor_type import TensorType
from maxmod.weights.parallel import copy_array
from maxmod.weights.progress import progress

ALIGNMENT = 64  # bytes; a cache line, and the widest vector registers
_SUGGEST_LIMIT = 2000  # names; looking for close ones among more takes too long

_SERIAL = itertools.count()


class Cut(NamedTuple):
    """A part of a tensor.

    Attributes:
        axis: The axis that is cut.
        ranges: (start, stop) of the pieces of it, which are joined.
        padding: How many zeros follow them.
    """

    axis: int
    ranges: tuple[tuple[int, int], ...]
    padding: int = 0

    @property
    def size(self) -> int:
        """The size of the axis in the part."""
        return sum(stop - start for start, stop in self.ranges) + self.padding


def with_cut(type: TensorType, cut: Cut) -> TensorType:
    """Returns the type of a part of a tensor."""
    return type.with_sizes((*type.sizes[: cut.axis], cut.size, *type.sizes[cut.axis + 1 :]))


def _cut_of(tensor: Tensor, cut: Cut) -> Tensor:
    """Returns a part of a tensor that was read, in memory of its own."""
    type = with_cut(tensor.type, cut)
    made = backends.get(type.device).empty(type)
    _fill(made, tensor.data, cut)
    return Tensor.wrap(made, type)


def _fill(target: Any, whole: Any, cut: Cut) -> None:
    """Writes a part of an array into another one."""
    at, before = 0, (slice(None),) * cut.axis
    for start, stop in cut.ranges:
        target[(*before, slice(at, at + stop - start))] = whole[(*before, slice(start, stop))]
        at += stop - start
    target[(*before, slice(at, None))] = 0


class Weights(Mapping[str, Tensor]):
    """A lazy, read-only mapping of names to tensors on the host.

    It can be passed to `Module.load_state_dict`, and called like a function as the lookup of
    `Module.load_state`. Each access reads again; nothing is kept. The exception is tied tensors:
    two names of the same data give the same `Tensor` while it is alive.

    `open_checkpoint` and the functions of `maxmod.weights` make them.

    Args:
        plan: Data of a subclass for each name.

    Raises:
        WeightsError: (a KeyError and ValueError) On access to a missing name; suggests a close one.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import merge
        >>> weights = merge({"a": np.ones((2, 3), np.float32)}, {"b": np.zeros(4, np.int8)})
        >>> weights
        View(2 tensors, 28 B: 1 float32, 1 int8)
        >>> "a" in weights, weights["a"].shape
        (True, [Dim(2), Dim(3)])
    """

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self._plan = plan
        self._tied: weakref.WeakValueDictionary[Hashable, Tensor] = weakref.WeakValueDictionary()
        self._tied_keys: frozenset[Hashable] | None = None
        self._serial = next(_SERIAL)

    @abc.abstractmethod
    def _load(self, name: str) -> Tensor:
        """Reads an existing tensor."""

    @abc.abstractmethod
    def _type_of(self, name: str) -> TensorType:
        """Returns the type of an existing tensor."""

    @abc.abstractmethod
    def source_key(self, name: str) -> tuple[Hashable, ...]:
        """Returns where a tensor comes from: equal for tied names, ordered as on disk.

        Args:
            name: The name; it must exist.

        Returns:
            A tuple that can be compared with those of other names of the mapping.
        """

    def _check(self, name: str) -> None:
        if name not in self._plan:
            known = self._plan if len(self._plan) <= _SUGGEST_LIMIT else ()
            hint = did_you_mean(name, known) if isinstance(name, str) else ""
            raise WeightsError(f"weights: there is no tensor {name!r}.{hint}")

    def __getitem__(self, name: str) -> Tensor:
        self._check(name)
        if self._tied_keys is None:
            counts = collections.Counter(map(self.source_key, self._plan))
            self._tied_keys = frozenset(key for key, count in counts.items() if count > 1)
        key = self.source_key(name) if self._tied_keys else None
        if key not in self._tied_keys:
            return self._load(name)
        tensor = self._tied.get(key)
        if tensor is None:
            tensor = self._tied[key] = self._load(name)
        return tensor

    def __call__(self, name: str) -> Tensor:
        """The same as indexing: the lookup of `Module.load_state`."""
        return self[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Returns the tensor, or `default` if there is none.

        Args:
            name: The name.
            default: The value to return instead.

        Returns:
            A Tensor, or `default`.
        """
        return self[name] if name in self._plan else default

    def __iter__(self) -> Iterator[str]:
        return iter(self._plan)

    def __len__(self) -> int:
        return len(self._plan)

    def __contains__(self, name: object) -> bool:
        return name in self._plan

    # Comparing or hashing contents would read every tensor.
    __eq__ = object.__eq__
    __ne__ = object.__ne__
    __hash__ = object.__hash__  # type: ignore[assignment]

    def tensor_type(self, name: str) -> TensorType:
        """Returns the type of a tensor; reads no data.

        Args:
            name: The name.

        Returns:
            Its dtype, shape and device.

        Raises:
            WeightsError: (a KeyError) If there is no such tensor.

        Example:
            >>> import numpy as np
            >>> from maxmod.weights import merge
            >>> merge({"a": np.ones((2, 3), np.float32)}).tensor_type("a")
            TensorType(dtype=float32, shape=[Dim(2), Dim(3)], device=cpu:0)
        """
        self._check(name)
        return self._type_of(name)

    def part(self, name: str, cut: Cut) -> Tensor:
        """Reads a part of a tensor, where possible without the rest.

        Args:
            name: The name.
            cut: The part.

        Returns:
            The part, in memory of its own.

        Raises:
            WeightsError: (a KeyError) If there is no such tensor.
        """
        self._check(name)
        return self._load_part(name, cut)

    def _load_part(self, name: str, cut: Cut) -> Tensor:
        """Reads a part of an existing tensor."""
        return _cut_of(self[name], cut)

    def nbytes(self, dtype: DType | None = None) -> int:
        """Returns the bytes of all tensors, tied ones counted once.

        Args:
            dtype: If given, as if every floating tensor had this dtype.

        Returns:
            A number of bytes; nothing is read.

        Example:
            >>> import numpy as np
            >>> from maxmod import DType
            >>> from maxmod.weights import merge
            >>> weights = merge({"a": np.ones((2, 3), np.float32)})
            >>> weights.nbytes(), weights.nbytes(DType.bfloat16)
            (24, 12)
        """
        unique = {self.source_key(name): self._type_of(name) for name in self}
        return sum(
            _nbytes(type if dtype is None else _cast_type(type, dtype)) for type in unique.values()
        )

    def file_order(self, names: Iterable[str] | None = None) -> list[str]:
        """Returns names in the order of their data, so that disks are read front to back.

        Args:
            names: The names; all by default.

        Returns:
            A list of them.
        """
        return sorted(self if names is None else names, key=self.source_key)

    def items_in_file_order(
        self, names: Iterable[str] | None = None
    ) -> Iterator[tuple[str, Tensor]]:
        """Reads tensors in the order of their data, with a progress bar on a terminal.

        Args:
            names: The names; all by default.

        Returns:
            An iterator of (name, tensor).
        """
        ordered = self.file_order(names)
        total = sum(_nbytes(self.tensor_type(name)) for name in ordered)
        with progress("load", total) as advance:
            for name in ordered:
                tensor = self[name]
                yield name, tensor
                advance(_nbytes(tensor.type))

    def astype(self, dtype: DType) -> Weights:
        """Returns a view in which every floating tensor is cast when it is read.

        Args:
            dtype: The dtype; tensors that are not floats keep theirs.

        Returns:
            The view.

        Example:
            >>> import numpy as np
            >>> from maxmod import DType
            >>> from maxmod.weights import merge
            >>> merge({"a": np.ones(2, np.float32)}).astype(DType.bfloat16)["a"].dtype
            bfloat16
        """
        step = Cast(dtype)
        return View(
            {
                name: Recipe(
                    (self, name), step=step if _casts(self._type_of(name), dtype) else None
                )
                for name in self
            }
        )

    def _summary(self) -> str:
        counts = collections.Counter(self._type_of(name).dtype.name for name in self)
        dtypes = ", ".join(f"{count} {dtype}" for dtype, count in counts.most_common())
        tensors = "1 tensor" if len(self) == 1 else f"{len(self)} tensors"
        return f"{tensors}, {format_nbytes(self.nbytes())}" + (f": {dtypes}" if dtypes else "")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._summary()})"


def format_nbytes(nbytes: int) -> str:
    """Returns bytes for people: `512 B`, `1.50 MB`, `13.48 GB`, in powers of ten."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        # Half a cent below the unit it would be printed as 1000.00 of the smaller one.
        if nbytes >= size * 0.999995:
            return f"{nbytes / size:.2f} {unit}"
    return f"{nbytes} B"


def _nbytes(type: TensorType) -> int:
    return int(type.nbytes)


def _casts(type: TensorType, dtype: DType) -> bool:
    return type.dtype.is_float() and type.dtype is not dtype


def _cast_type(type: TensorType, dtype: DType) -> TensorType:
    return type.cast(dtype) if _casts(type, dtype) else type


def static_sizes(sizes: Sizes) -> tuple[int, ...]:
    """Returns the sizes of stored data, which are never symbolic."""
    return tuple(int(size) for size in sizes)


def aligned_empty(sizes: Sizes, dtype: StorageDType) -> HostArray:
    """Returns an uninitialised array whose data starts at a multiple of `ALIGNMENT` bytes."""
    shape = static_sizes(sizes)
    nbytes = math.prod(shape) * dtype.itemsize
    raw = np.empty(nbytes + ALIGNMENT - 1, dtype=np.uint8)
    skip = -raw.ctypes.data % ALIGNMENT
    return raw[skip : skip + nbytes].view(dtype).reshape(shape)


def compact(tensor: Tensor) -> Tensor:
    """Returns the tensor in separate row-major memory, so that no larger one is kept alive.

    On an accelerator, pieces of a tensor share its memory: together they cover all of it.
    """
    if not tensor.type.device.is_cpu():
        whole = backends.get(tensor.type.device).contiguous(tensor.data)
        return Tensor.wrap(whole, tensor.type)
    data = tensor._host()
    if data.flags.c_contiguous and data.base is None:
        return tensor
    fresh = aligned_empty(data.shape, data.dtype)
    copy_array(fresh, data)
    return Tensor.wrap(fresh, tensor.type)


class InMemory(Weights):
    """The tensors of an ordinary mapping: of `Tensor`, NumPy, torch or other DLPack arrays."""

    def __init__(self, state: StateLike) -> None:
        self._state = state
        if isinstance(state, dict):
            first: dict[int, int] = {}
            order = {n: first.setdefault(id(v), i) for i, (n, v) in enumerate(state.items())}
        else:  # reading the values could be expensive
            order = {name: i for i, name in enumerate(state)}
        super().__init__(order)

    def _load(self, name: str) -> Tensor:
        return Tensor.from_dlpack(self._state[name])

    def _type_of(self, name: str) -> TensorType:
        return self._load(name).type

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        return (self._serial, self._plan[name])


def as_weights(state: StateLike) -> Weights:
    """Returns the mapping as `Weights`: itself if it is one already."""
    return state if isinstance(state, Weights) else InMemory(state)


class Step(abc.ABC):
    """A transformation of the tensors that a `View` reads. Steps with equal text are equal."""

    text: str

    @abc.abstractmethod
    def type(self, name: str, types: list[TensorType]) -> TensorType:
        """Returns the type of the result; `name` is for messages."""

    @abc.abstractmethod
    def apply(self, tensors: list[Tensor]) -> Tensor:
        """Returns the result."""

    def pulled(
        self, name: str, type: TensorType, cut: Cut
    ) -> tuple[Cut, Callable[[Tensor], Tensor]] | None:
        """Returns the part of the only source that a part of the result needs.

        Args:
            name: For messages.
            type: The type of the source.
            cut: The part of the result.

        Returns:
            The part of the source, and what makes the part of the result of it; None if the whole
            source is needed.
        """
        return None


class Cast(Step):
    """Rounds to a dtype."""

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype
        self.text = f"cast {dtype!r}"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        return types[0].cast(self.dtype)

    def apply(self, tensors: list[Tensor]) -> Tensor:
        return tensors[0].cast(self.dtype)

    def pulled(
        self, name: str, type: TensorType, cut: Cut
    ) -> tuple[Cut, Callable[[Tensor], Tensor]] | None:
        return cut, lambda tensor: tensor.cast(self.dtype)


@dataclass(frozen=True, slots=True, eq=False)
class Recipe:
    """How a `View` makes one tensor: from the first source, or from several, by a step."""

    source: tuple[Weights, str]
    others: tuple[tuple[Weights, str], ...] = ()
    step: Step | None = None

    def sources(self) -> tuple[tuple[Weights, str], ...]:
        """All sources in order."""
        return (self.source, *self.others)


@dataclass(slots=True)
class _Held:
    """The source of several pieces, kept until the last piece is made."""

    source: tuple[Weights, str]
    tensor: Tensor
    missing: set[str] = field(default_factory=set)


class View(Weights):
    """Tensors made from the tensors of other mappings on access."""

    _plan: Mapping[str, Recipe]

    def __init__(self, plan: Mapping[str, Recipe]) -> None:
        super().__init__(plan)
        users: dict[tuple[Weights, str], set[str]] = {}
        for name, recipe in plan.items():
            if recipe.step is not None:
                for source in recipe.sources():
                    users.setdefault(source, set()).add(name)
        self._users = {source: names for source, names in users.items() if len(names) > 1}
        self._held: _Held | None = None

    def _read(self, source: tuple[Weights, str], name: str) -> Tensor:
        """Reads a source; one that is split into several pieces is read once for all of them."""
        users = self._users.get(source)
        if users is None:
            return source[0][source[1]]
        held = self._held
        if held is None or held.source != source or name not in held.missing:
            held = _Held(source, source[0][source[1]], set(users))
        held.missing.discard(name)
        self._held = held if held.missing else None
        return held.tensor

    def _load(self, name: str) -> Tensor:
        recipe = self._plan[name]
        if recipe.step is None:
            weights, source = recipe.source
            return weights[source]
        tensors = [self._read(source, name) for source in recipe.sources()]
        return recipe.step.apply(tensors)

    def _load_part(self, name: str, cut: Cut) -> Tensor:
        recipe = self._plan[name]
        weights, source = recipe.source
        if recipe.step is None:
            return weights.part(source, cut)
        pulled = None
        if not recipe.others:
            pulled = recipe.step.pulled(name, weights.tensor_type(source), cut)
        if pulled is None:
            return super()._load_part(name, cut)
        return pulled[1](weights.part(source, pulled[0]))

    def _type_of(self, name: str) -> TensorType:
        recipe = self._plan[name]
        types = [weights.tensor_type(source) for weights, source in recipe.sources()]
        return types[0] if recipe.step is None else recipe.step.type(name, types)

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        recipe = self._plan[name]
        keys = [weights.source_key(source) for weights, source in recipe.sources()]
        if recipe.step is None:
            return keys[0]
        return (*keys[0], f"{recipe.step.text} {keys[1:] or ''}")
