"""The rooms of maxmod and what they import: tables and a reader, without an import of maxmod.

`test_layering.py` holds the code to the tables, `.docs/draw_rooms.py` draws them.
"""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterable
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "maxmod"

# The rooms, that is the folders and files directly inside maxmod, from the lowest floor to the
# highest. A room imports from lower floors only, so that rooms on one floor never know each other.
FLOORS: tuple[dict[str, str], ...] = (
    {"errors": "every exception class"},
    {
        "config": "every MAXMOD_* variable",
        "dtype": "DType",
        "system": "files of strangers, locks after a fork",
    },
    {"log": "the debug ladder", "values": "dimensions, shapes, devices, types"},
    {"kernel": "kernel sources and their cache", "op": "ops, type rules, the graph"},
    {
        "backends": "what devices do: host and CUDA",
        "custom": "kernels that users bring",
        "distributed": "processes that compute one model",
    },
    {"tensor": "Tensor, buffers, defaults"},
    {
        "interpreters": "an op call runs: eager, lazy or traced",
        "driver": "devices and buffers, as in MAX",
    },
    {"ops": "every op, one file for each family"},
    {
        "functional": "the ops as users call them",
        "random": "random numbers",
        "compiler": "from a graph to fused kernels",
        "weights": "checkpoints: read, save",
    },
    {
        "runtime": "compiled models: bind sizes, run steps",
        "graph": "building graphs by hand, as in MAX",
        "generate": "KV cache, sampling, decoding, text",
        "array_api": "the array API standard",
    },
    {"engine": "sessions, as in MAX", "nn": "Module and the layers"},
    {"models": "architectures, read from a folder", "compat": "scripts written for MAX"},
    {
        "__init__": "what `import maxmod` offers",
        "batch": "rows of data through a model",
    },
    {"cli": "the command"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# The floors inside of a room, its own files under "". Rooms that are not listed have one floor.
INNER_FLOORS: dict[str, tuple[set[str], ...]] = {
    "compiler": (
        {"groups"},
        {"choose_kernels"},
        {"codegen"},
        {"codegen.host", "codegen.cuda"},
        {"fusion"},
        {"passes"},
        {""},
        {"report"},
    ),
}

# Modules that must not import each other although their floors would allow it.
BANNED = {"maxmod.compiler": "maxmod.backends", "maxmod.backends": "maxmod.op.ir"}

# Scripts of the developers, which are not in the wheel.
DEVELOPMENT = {"models/adder/train.py"}


def read_sources() -> dict[str, Path]:
    """Returns the files of the package by module name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if relative.as_posix() in DEVELOPMENT:
            continue
        parts = relative.with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        found[".".join(("maxmod", *parts))] = path
    return found


SOURCES = read_sources()


def room_of(module: str) -> str:
    room = module.split(".")[1] if "." in module else "__init__"
    return "cli" if room == "__main__" else room  # python -m maxmod


def inner_floor_of(module: str) -> int:
    """Returns the floor of a module among those of its own room."""
    inner = module.split(".")[2:]
    floors = INNER_FLOORS.get(room_of(module), ({""},))
    names = {name: number for number, floor in enumerate(floors) for name in floor}
    while inner and ".".join(inner) not in names:
        inner.pop()
    return names[".".join(inner)]


def is_upward(module: str, target: str) -> bool:
    if room_of(module) == room_of(target):
        return inner_floor_of(target) > inner_floor_of(module)
    return FLOOR[room_of(target)] >= FLOOR[room_of(module)]


def is_banned(module: str, target: str) -> bool:
    return any(
        f"{module}.".startswith(f"{above}.") and f"{target}.".startswith(f"{below}.")
        for above, below in BANNED.items()
    )


def _pattern(text: ast.JoinedStr) -> str:
    """Returns a regular expression of the names that an f-string can be."""
    parts = [v.value if isinstance(v, ast.Constant) else None for v in text.values]
    return "".join(r"\w+" if part is None else re.escape(str(part)) for part in parts)


def _named_modules(module: str, nodes: Iterable[ast.AST]) -> list[tuple[int, str]]:
    """Returns (line, module) of what strings name, such as `import_module("maxmod.nn")`.

    The packages around a module are loaded before it, so that their names import nothing.
    """
    found = []
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            pattern = _pattern(node)
            # `maxmod.__getattr__` loads what the package lists under TYPE_CHECKING.
            if pattern.startswith(r"maxmod\.") and pattern != r"maxmod\.\w+":
                found += [(node.lineno, name) for name in SOURCES if re.fullmatch(pattern, name)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            name = node.value.partition(":")[0]
            if name in SOURCES and not module.startswith(f"{name}."):
                found.append((node.lineno, name))
    return found


@functools.cache
def imports_of(module: str, tree: ast.Module) -> list[tuple[int, str]]:
    """Returns (line, module) of everything that a module imports, of maxmod and of others."""
    found, nodes = [], list(ast.walk(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((node.lineno, inner if inner in SOURCES else node.module))
    return found + _named_modules(module, nodes)


@functools.cache
def trees() -> dict[str, ast.Module]:
    return {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}
