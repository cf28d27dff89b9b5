"""Whole compiled graphs on disk: a traced graph that was planned before needs no compiler.

The key is a digest of the traced graph (without the lines of user code), of everything else that
the plan depends on, and of the state of maxmod's own files. An entry holds the schedule with the
text of its kernels as JSON, and the raw data of folded constants; it is in the kernel cache under
the same rules. Built kernels are separate entries.
"""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from maxmod import backends, config, log
from maxmod.compiler.packing import Packer, UnpackableError, Unpacker, live_objects
from maxmod.compiler.steps import Schedule
from maxmod.dtype import storage_dtype
from maxmod.kernel import cache as kernel_cache
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect
from maxmod.op import ir
from maxmod.values.array import Array
from maxmod.values.tensor_type import TensorType

# Folding depends on captured constants, so their data are in the key. With more data than this,
# digesting takes as long as planning.
DIGESTED_NBYTES = 4 << 20

# Rooms of the package that the plan depends on.
_ROOMS = (
    "values", "kernel", "op", "backends", "tensor", "interpreters", "ops", "compiler", "runtime",
)  # fmt: skip


class PlanKey:
    """The key of one traced graph; false if the graph cannot be looked up.

    Args:
        graph: The traced graph.
        dialect: The kernel language, or None if ops are run one by one.
        architecture: What kernels are made for.
    """

    def __init__(self, graph: ir.Graph, dialect: Dialect | None, architecture: str) -> None:
        self.graph = graph
        self.objects = live_objects(graph)
        self.digest = ""
        self.text = ""
        if not _is_wanted() or not _is_known(graph):
            return
        settings = config.current()
        self.text = "\n".join(
            (
                f"{dialect} {architecture}, python {sys.version}, numpy {np.__version__}",
                f"noopt {settings.noopt}, nofuse {settings.nofuse}, limit {settings.fuse_limit}",
                *_lines(graph),
                "",
            )
        )
        self.digest = kernel_cache.make_key("plan", _state_of_sources(), self.text)

    def __bool__(self) -> bool:
        return bool(self.digest)


def _is_wanted() -> bool:
    """False if the work of the compiler is to be shown or verified."""
    settings = config.current()
    return not (settings.nocache or settings.verify or settings.dump or log.wants(log.GRAPHS))


def _is_known(graph: ir.Graph) -> bool:
    """True if all ops are maxmod's own and the captured constants are small."""
    ops = {node.op for node in graph.nodes}
    constants = sum(array.nbytes for array in graph.constants.values())
    inner = [item for item in live_objects(graph) if isinstance(item, ir.Graph)]
    ops.update(node.op for body in inner for node in body.nodes)
    return constants <= DIGESTED_NBYTES and all(
        op.meaning.eager.__module__.startswith("maxmod.") for op in ops
    )


def _lines(graph: ir.Graph) -> Iterator[str]:
    """Yields a line for each part of a graph; equal lines mean equal graphs."""
    objects = live_objects(graph)
    places = {id(item): number for number, item in enumerate(objects)}
    for item in objects:
        if isinstance(item, ir.Graph):
            yield "inner graph"
            yield from _lines_of_one(item, places)
        else:
            yield f"kernel {item.digest}"
    yield from _lines_of_one(graph, places)


def _lines_of_one(graph: ir.Graph, places: Mapping[int, int]) -> Iterator[str]:
    """Yields the lines of a graph without those of graphs in it, which have numbers."""
    numbers: dict[ir.Value, int] = {}
    shorts: dict[TensorType, str] = {}

    def bound(value: ir.Value) -> str:
        numbers[value] = len(numbers)
        type = value.type
        if type not in shorts:
            shorts[type] = type.short()
        return shorts[type]

    for value in graph.inputs:
        yield f"input {bound(value)}"
    for name, value in graph.weights.items():
        yield f"weight {name!r} {bound(value)}"
    for value, array in graph.constants.items():
        data = np.ascontiguousarray(backends.get(value.type.device).to_host(array))
        yield f"constant {bound(value)} {kernel_cache.sha256(data.tobytes()).hexdigest()}"
    for n in graph.nodes:
        inputs = [numbers[value] for value in n.inputs]
        attrs = [(name, places.get(id(value), value)) for name, value in n.attrs]
        yield f"{n.op.name} {inputs} {attrs} {[bound(value) for value in n.outputs]}"
    yield f"outputs {[numbers[value] for value in graph.outputs]}"
    yield f"updates {[(position, numbers[value]) for position, value in graph.updates]}"


@functools.cache
def _state_of_sources() -> str:
    """Names, sizes and times of the files that the plan depends on.

    The version would not be enough: a checkout changes without a new one.
    """
    states = list(_states(config.PACKAGE, deep=False))
    rooms = (os.path.join(config.PACKAGE, room) for room in _ROOMS)
    for folder in (*rooms, kernel_text.folder()):
        states += _states(folder, deep=True)
    return "\n".join(sorted(states))


def _states(folder: str, *, deep: bool) -> Iterator[str]:
    for entry in os.scandir(folder):
        if entry.name.endswith((".py", ".h", ".cu", ".c")):
            facts = entry.stat()
            yield f"{entry.path} {facts.st_size} {facts.st_mtime_ns}"
        elif deep and "." not in entry.name and not entry.name.startswith("__"):
            yield from _states(entry.path, deep=True)


def load(key: PlanKey) -> Schedule | None:
    """Returns the schedule of a traced graph, or None if it was not stored or is damaged."""
    entry = kernel_cache.load(key.digest) if key else None
    if entry is None:
        return None
    try:
        head, _, data = entry.data.partition(b"\n")
        packed = json.loads(head)
        unpacker = Unpacker(packed["types"], key.objects)
        schedule: Schedule = unpacker.unpack(packed["schedule"])
        traced = list(key.graph.constants.values())
        constants = {}
        for slot, number, type, start, stop in unpacker.unpack(packed["constants"]):
            constants[slot] = traced[number] if type is None else _array(data[start:stop], type)
        return replace(schedule, constants=constants)
    except (LookupError, TypeError, ValueError):
        return None


def store(key: PlanKey, graph: ir.Graph, schedule: Schedule) -> None:
    """Saves a schedule; one that cannot be written is left out.

    Args:
        key: The key of the traced graph.
        graph: The optimised graph.
        schedule: Its schedule.
    """
    if not key:
        return
    packer = Packer(key.objects)
    numbers = {value: number for number, value in enumerate(key.graph.constants)}
    data = b""
    constants = []
    for value, (slot, array) in zip(graph.constants, schedule.constants.items(), strict=True):
        if value in numbers:
            constants.append((slot, numbers[value], None, 0, 0))
            continue
        added = np.ascontiguousarray(backends.get(value.type.device).to_host(array)).tobytes()
        constants.append((slot, 0, value.type, len(data), len(data) + len(added)))
        data += added
    try:
        packed = {
            "schedule": packer.pack(replace(schedule, constants={})),
            "constants": packer.pack(tuple(constants)),
            "types": packer.table(),
        }
    except UnpackableError as error:
        log.show(log.DEVICES, "plan cache: %s is not kept: it has %s", graph.name, error)
        return
    note = {
        "name": graph.name,
        "steps": len(schedule.steps),
        "kernels": [source.name for source in schedule.kernels],
    }
    head = json.dumps(packed, separators=(",", ":")).encode()
    text = json.dumps(note, indent=1) + "\n"
    kernel_cache.store(key.digest, head + b"\n" + data, source=key.text, note=text)


def _array(data: bytes, type: TensorType) -> Array:
    sizes = tuple(map(int, type.sizes))
    host = np.frombuffer(data, storage_dtype(type.dtype)).reshape(sizes).copy()
    return backends.get(type.device).from_host(host, type.device.id)
