"""The structure of the package: who may import whom, how long a file may be, what an import costs.

A room imports from the floors below it, and no two modules import each other, directly or in a
ring. Every import counts: inside functions, under `TYPE_CHECKING`, and of modules named in strings.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import maxmod

PACKAGE = Path(maxmod.__file__).parent

# The rooms, that is the folders and files directly inside maxmod, from the lowest floor to the
# highest. A room imports from lower floors only, so that rooms on one floor never know each other.
FLOORS: tuple[dict[str, str], ...] = (
    {"errors": "every exception class"},
    {"config": "every MAXMOD_* variable", "dtype": "DType"},
    {"log": "the debug ladder", "values": "dimensions, shapes, devices, types, layouts"},
    {"kernel": "kernel sources, hand-written text, the cache", "op": "ops, type rules, the graph"},
    {"backends": "what devices do: the host and CUDA", "custom": "kernels of users"},
    {"tensor": "Tensor, buffers, defaults"},
    {
        "interpreters": "how an op call runs: eager, lazy or traced",
        "driver": "the names of devices and buffers",
    },
    {"ops": "every op, one file for each family"},
    {
        "functional": "the ops as users call them",
        "random": "random numbers",
        "array_api": "the array API standard",
        "compiler": "from a graph to a schedule of kernels",
        "weights": "checkpoints: read, renamed, saved",
    },
    {
        "runtime": "compiled models: binding sizes, running steps",
        "graph": "building graphs by hand, as in MAX",
        "generate": "text generation: KV cache, sampling, decoding",
    },
    {"engine": "sessions, as in MAX", "nn": "Module and the layers"},
    {"models": "architectures, read from a folder", "compat": "scripts written for MAX"},
    {
        "__init__": "the names of `import maxmod`",
        "cli": "the command",
    },
    {"__main__": "python -m maxmod"},
)
FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}

# The floors inside of a room, its own files under "". Rooms that are not listed have one floor.
INNER_FLOORS: dict[str, tuple[set[str], ...]] = {
    "compiler": (
        {"groups"},
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

# Third-party packages that may only be imported inside functions: they are optional or slow.
OPTIONAL = {"PIL", "cupy", "cupyx", "jax", "jinja2", "rich", "tokenizers", "torch", "tqdm"}
OPTIONAL |= {"markupsafe", "pygments", "transformers"}

# Scripts of the developers, which are not in the wheel.
DEVELOPMENT = {"models/adder/train.py"}

MAX_LINES = 600
LONG_FILES: dict[str, str] = {}  # path: reason


def _sources() -> dict[str, Path]:
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


SOURCES = _sources()


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def _inner_floor(module: str) -> int:
    """Returns the floor of a module among those of its own room."""
    inner = module.split(".")[2:]
    floors = INNER_FLOORS.get(_room(module), ({""},))
    names = {name: number for number, floor in enumerate(floors) for name in floor}
    while inner and ".".join(inner) not in names:
        inner.pop()
    return names[".".join(inner)]


def _is_upward(module: str, target: str) -> bool:
    if _room(module) == _room(target):
        return _inner_floor(target) > _inner_floor(module)
    return FLOOR[_room(target)] >= FLOOR[_room(module)]


def _is_banned(module: str, target: str) -> bool:
    return any(
        f"{module}.".startswith(f"{above}.") and f"{target}.".startswith(f"{below}.")
        for above, below in BANNED.items()
    )


def _pattern(text: ast.JoinedStr) -> str:
    """Returns a regular expression of the names that an f-string can be."""
    parts = [v.value if isinstance(v, ast.Constant) else None for v in text.values]
    return "".join(r"\w+" if part is None else re.escape(str(part)) for part in parts)


def _named_modules(module: str, tree: ast.AST) -> list[tuple[int, str]]:
    """Returns (line, module) of what strings name, such as `import_module("maxmod.nn")`.

    The packages around a module are loaded before it, so that their names import nothing.
    """
    found = []
    for node in ast.walk(tree):
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


def _imports(module: str, tree: ast.AST) -> list[tuple[int, str]]:
    """Returns (line, module) of everything that a module imports, of maxmod and of others."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: imports are absolute"
            assert node.module is not None
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.append((node.lineno, inner if inner in SOURCES else node.module))
    return found + _named_modules(module, tree)


def _inside_functions(tree: ast.AST) -> list[ast.stmt]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    outer = [node for node in ast.walk(tree) if isinstance(node, functions)]
    inner = [node for function in outer for node in ast.walk(function)]
    return [node for node in inner if isinstance(node, (ast.Import, ast.ImportFrom))]


@functools.cache
def _trees() -> dict[str, ast.AST]:
    return {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}


def _is_maxmod(name: str) -> bool:
    return name == "maxmod" or name.startswith("maxmod.")


def test_every_room_has_a_floor() -> None:
    found = {_room(name) for name in SOURCES}
    assert found == FLOOR.keys()
    assert sum(len(rooms) for rooms in FLOORS) <= 30
    assert len(FLOORS) <= 14


def test_the_top_of_the_package_is_small() -> None:
    assert len([*PACKAGE.glob("*.py")]) <= 15


def test_imports_go_downwards() -> None:
    wrong = []
    for name, tree in _trees().items():
        for line, target in _imports(name, tree):
            if not _is_maxmod(target):
                continue
            assert target in SOURCES, f"{name}:{line}: there is no module {target}"
            if _is_upward(name, target) or _is_banned(name, target):
                wrong.append(f"{name}:{line} -> {target}")
    assert not wrong, "\n".join(wrong)


def test_no_import_rings() -> None:
    graph = {
        name: {t for _, t in _imports(name, tree) if t in SOURCES and t != name}
        for name, tree in _trees().items()
    }
    try:
        order = list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail("ring: " + " -> ".join(error.args[1]))
    assert len(order) == len(SOURCES)


def test_imports_inside_functions_are_third_party() -> None:
    wrong = []
    for name, tree in _trees().items():
        subcommands = name.startswith("maxmod.cli")  # a command imports only what it needs
        for node in _inside_functions(tree):
            text = ast.unparse(node)
            if "maxmod" in text and not subcommands:
                wrong.append(f"{name}:{node.lineno}: {text}")
    assert not wrong, "\n".join(wrong)


def test_optional_packages_are_imported_inside_functions_only() -> None:
    wrong = []
    for name, tree in _trees().items():
        deferred = {id(node) for node in _inside_functions(tree)}
        for node in ast.walk(tree):
            if not isinstance(node, (ast.Import, ast.ImportFrom)) or id(node) in deferred:
                continue
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            if any(str(n).split(".")[0] in OPTIONAL for n in names):
                wrong.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_annotations_are_postponed() -> None:
    wrong = []
    for name, tree in _trees().items():
        futures = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        if functions and not any(node.module == "__future__" for node in futures):
            wrong.append(name)
    assert not wrong


@pytest.mark.parametrize("name", SOURCES)
def test_file_size(name: str) -> None:
    path = SOURCES[name]
    if path.relative_to(PACKAGE).as_posix() in LONG_FILES:
        return
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= MAX_LINES, f"{name} has {lines} lines: split it, or list it with a reason"


@pytest.mark.parametrize("name", SOURCES)
def test_every_module_has_a_docstring(name: str) -> None:
    assert ast.get_docstring(ast.parse(SOURCES[name].read_text("utf-8")))


_REPORT = """
import sys
import maxmod
from maxmod import Tensor
heavy = ("cupy", "torch", "jax", "tqdm", "rich", "tokenizers", "transformers", "safetensors")
print(sorted(name for name in heavy if name in sys.modules))
Tensor.ones([2]) + 1
print(sorted(name for name in ("cupy", "torch", "jax") if name in sys.modules))
"""


def test_import_is_light() -> None:
    """Neither the import nor an op on the host loads an optional package.

    On a machine with a GPU the second line lists CuPy, because the default device is the GPU.
    """
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", _REPORT],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    first, second = done.stdout.splitlines()
    assert first == "[]"
    assert second == ("['cupy']" if maxmod.accelerator_count() else "[]")
