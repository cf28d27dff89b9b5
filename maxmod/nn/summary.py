"""`Module.summary`: the tree of a model with sizes, and with output types if it is traced."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from maxmod.nn.places import Owner, by_name, descendants_of, entries_of, parameters_of
from maxmod.runtime import tree
from maxmod.runtime.staging import trace_function
from maxmod.tensor import Tensor

_BLANKS = 2  # between columns, and for each level of the tree
_PREFIXES = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Row:
    """One module of a summary, or a plain container that holds some.

    Attributes:
        depth: 0 for the outermost module.
        name: Attribute name; `0-11` for equal neighbours.
        kind: Name of the class.
        repeats: How many equal neighbours this row represents.
        output: Types of the results, empty if the module was not called.
        tensors: Types of its local parameters, with their names.
        parameter_count: Elements of all parameters at and below it, each tied one once.
        nbytes: Their bytes.
    """

    depth: int
    name: str
    kind: str
    repeats: int
    output: str
    tensors: str
    parameter_count: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What `Module.summary` returns; printing it shows a table.

    Attributes:
        rows: The modules in order.
        parameter_count: Elements of all parameters, each tied one once.
        nbytes: Their bytes.
    """

    rows: tuple[Row, ...]
    parameter_count: int
    nbytes: int

    def __str__(self) -> str:
        cells = [("module", "output", "parameters", "bytes", "own tensors")]
        for row in self.rows:
            label = f"{row.name}: {row.kind}" if row.name else row.kind
            if row.repeats > 1:
                label += f" (x{row.repeats})"
            cells.append(
                (
                    " " * (_BLANKS * row.depth) + label,
                    row.output,
                    f"{row.parameter_count:,}" if row.parameter_count else "",
                    format_bytes(row.nbytes) if row.nbytes else "",
                    row.tensors,
                )
            )
        used = [i for i in range(len(cells[0])) if any(line[i] for line in cells[1:])]
        widths = {i: max(len(line[i]) for line in cells) for i in used}
        lines = [
            (" " * _BLANKS).join(_aligned(line[i], widths[i], i in (2, 3)) for i in used).rstrip()
            for line in cells
        ]
        total = f"total: {self.parameter_count:,} parameters, {format_bytes(self.nbytes)}"
        return "\n".join([*lines, total])

    __repr__ = __str__


def _aligned(text: str, width: int, is_number: bool) -> str:
    return text.rjust(width) if is_number else text.ljust(width)


def format_bytes(count: int) -> str:
    """Returns a number of bytes with three digits and a decimal prefix, such as `498 MB`."""
    value = float(count)
    power = 0
    while value >= 999.5 and power < len(_PREFIXES) - 1:
        value /= 1000
        power += 1
    return f"{value:.3g} {_PREFIXES[power]}"


@dataclass(frozen=True, slots=True)
class _Tree:
    """A module and its children, with the fields by which neighbours are compared."""

    name: str
    kind: str
    output: str
    tensors: str
    ids: dict[int, Tensor]  # parameters at and below it
    children: tuple[_Tree, ...]
    is_module: bool  # rather than a plain container

    @property
    def shape(self) -> tuple[object, ...]:
        """Everything that is shown but the name."""
        return (self.kind, self.output, self.tensors, [(c.name, c.shape) for c in self.children])


def summarize(module: Any, input_types: Sequence[Any]) -> Summary:
    """Makes the summary of a module; with types for its arguments, it is traced once.

    The trace runs on a copy that shares the tensors, so that the module is not touched.
    """
    outputs: dict[int, str] = {}
    if input_types:
        module = copy.deepcopy(module)
        below = descendants_of(module, searched=True)
        for part in {id(part): part for part in (module, *(part for _, _, part in below))}.values():
            part.__class__ = _recording(type(part), outputs)
        parameters = by_name(parameters_of(module))
        trace_function(module, input_types, name=type(module).__qualname__, parameters=parameters)
    root = _tree("", module, outputs)
    counts = [tensor.num_elements() for tensor in root.ids.values()]
    sizes = [int(tensor.type.nbytes) for tensor in root.ids.values()]
    return Summary(tuple(_rows([root], 0)), sum(counts), sum(sizes))


def _recording(cls: type, outputs: dict[int, str]) -> type:
    """Makes a subclass that notes the types of its results, of the first call."""

    def __call__(self: Any, *args: object, **kwargs: object) -> object:  # noqa: N807
        result = cls.__call__(self, *args, **kwargs)
        leaves, _ = tree.flatten(result)
        types = [leaf.type.short() for leaf in leaves if isinstance(leaf, Tensor)]
        outputs.setdefault(id(self), ", ".join(types))
        return result

    names = {"__call__": __call__, "__qualname__": cls.__qualname__, "__module__": cls.__module__}
    return type(cls)(cls.__name__, (cls,), names)


def _tree(name: str, module: Any, outputs: dict[int, str], around: tuple[int, ...] = ()) -> _Tree:
    """Makes the tree of a module, or of a plain container."""
    around = (*around, id(module))
    if isinstance(module, Owner):
        tensors = list(module.local_parameters)
        position = {name: number for number, name in enumerate(vars(module))}
        parts = [*module.children, *(e for e in vars(module).items() if entries_of(e[1]))]
        parts.sort(key=lambda part: position.get(part[0], -1))
    else:
        entries = [(key, entry) for _, key, entry in entries_of(module)]
        tensors = [(key, entry) for key, entry in entries if isinstance(entry, Tensor)]
        parts = [(key, entry) for key, entry in entries if not isinstance(entry, Tensor)]
    below = [_tree(key, part, outputs, around) for key, part in parts if id(part) not in around]
    children = tuple(child for child in below if child.is_module or child.ids)
    ids = {id(tensor): tensor for _, tensor in tensors}
    for child in children:
        ids.update(child.ids)
    return _Tree(
        name,
        type(module).__name__,
        outputs.get(id(module), ""),
        ", ".join(f"{key} {tensor.type.short()}" for key, tensor in tensors),
        ids,
        children,
        isinstance(module, Owner),
    )


def _rows(siblings: Sequence[_Tree], depth: int) -> Iterator[Row]:
    start = 0
    while start < len(siblings):
        first = siblings[start]
        stop = start + 1
        while stop < len(siblings) and siblings[stop].shape == first.shape:
            stop += 1
        group = siblings[start:stop]
        ids = {key: tensor for member in group for key, tensor in member.ids.items()}
        yield Row(
            depth,
            first.name if len(group) == 1 else f"{first.name}-{group[-1].name}",
            first.kind,
            len(group),
            first.output,
            first.tensors,
            sum(tensor.num_elements() for tensor in ids.values()),
            sum(int(tensor.type.nbytes) for tensor in ids.values()),
        )
        yield from _rows(first.children, depth + 1)
        start = stop
