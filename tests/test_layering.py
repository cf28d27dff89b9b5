"""The structure of the package: who may import whom, how long a file may be, what an import costs.

A room imports from the floors below it, and no two modules import each other, directly or in a
ring. Every import counts: inside functions, under `TYPE_CHECKING`, and of modules named in strings.
"""

from __future__ import annotations

import ast
import functools
import graphlib
import subprocess
import sys

import pytest
from rooms import FLOOR, FLOORS, PACKAGE, SOURCES, imports_of, is_banned, is_upward, room_of, trees

import maxmod

# Third-party packages that may only be imported inside functions: they are optional or slow.
OPTIONAL = {"PIL", "cupy", "cupyx", "jax", "jinja2", "rich", "tokenizers", "torch", "tqdm"}
OPTIONAL |= {"markupsafe", "pygments", "transformers"}

MAX_LINES = 600
LONG_FILES: dict[str, str] = {}  # path: reason


@functools.cache
def _nodes(module: str) -> list[ast.AST]:
    """Returns every node of a module."""
    return list(ast.walk(trees()[module]))


@functools.cache
def _inside_functions(module: str) -> list[ast.stmt]:
    """Returns the imports inside of functions."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    outermost, todo = [], [trees()[module]]
    while todo:
        for node in ast.iter_child_nodes(todo.pop()):
            (outermost if isinstance(node, functions) else todo).append(node)
    inner = [node for function in outermost for node in ast.walk(function)]
    return [node for node in inner if isinstance(node, (ast.Import, ast.ImportFrom))]


def _is_maxmod(name: str) -> bool:
    return name == "maxmod" or name.startswith("maxmod.")


def test_every_room_has_a_floor() -> None:
    found = {room_of(name) for name in SOURCES}
    assert found == FLOOR.keys()
    assert sum(len(rooms) for rooms in FLOORS) <= 30
    assert len(FLOORS) <= 14


def test_the_top_of_the_package_is_small() -> None:
    assert len([*PACKAGE.glob("*.py")]) <= 15


def test_imports_go_downwards() -> None:
    wrong = []
    for name, tree in trees().items():
        for line, target in imports_of(name, tree):
            if not _is_maxmod(target):
                continue
            assert target in SOURCES, f"{name}:{line}: there is no module {target}"
            if is_upward(name, target) or is_banned(name, target):
                wrong.append(f"{name}:{line} -> {target}")
    assert not wrong, "\n".join(wrong)


def test_only_rooms_below_ops_call_ops_by_name() -> None:
    """Above, a function is clickable and typed, and a misspelt one fails at once."""
    wrong = []
    for name, tree in trees().items():
        if FLOOR[room_of(name)] < FLOOR["ops"]:
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("maxmod.op"):
                names = {alias.name for alias in node.names} & {"call", "FUNCTIONS"}
                wrong += [f"{name}:{node.lineno}: imports {found}" for found in names]
    assert not wrong, "\n".join(wrong)


def test_no_import_rings() -> None:
    graph = {
        name: {t for _, t in imports_of(name, tree) if t in SOURCES and t != name}
        for name, tree in trees().items()
    }
    try:
        order = list(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail("ring: " + " -> ".join(error.args[1]))
    assert len(order) == len(SOURCES)


def _is_op_name(node: ast.AST) -> bool:
    """True for `op.name` and `node.op.name`."""
    if not isinstance(node, ast.Attribute) or node.attr != "name":
        return False
    return isinstance(node.value, (ast.Attribute, ast.Name)) and "op" in (
        getattr(node.value, "attr", ""),
        getattr(node.value, "id", ""),
    )


def _decides_by_name(node: ast.AST) -> bool:
    """True where the name of an op is compared, or is the key of a table, or names a record."""
    if isinstance(node, ast.Compare):
        return any(map(_is_op_name, (node.left, *node.comparators)))
    if isinstance(node, ast.Subscript):
        return _is_op_name(node.slice)
    if not isinstance(node, ast.Call):
        return False
    if isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        return any(map(_is_op_name, node.args))
    is_lookup = isinstance(node.func, ast.Name) and node.func.id == "lookup"
    return is_lookup and any(isinstance(argument, ast.Constant) for argument in node.args)


@pytest.mark.parametrize(
    "text",
    [
        'n.op.name == "exp"',
        'op.name in ("exp",)',
        "RULES.get(n.op.name)",
        "RULES[n.op.name]",
        'lookup("exp")',
    ],
)
def test_decisions_by_name_are_found(text: str) -> None:
    assert any(map(_decides_by_name, ast.walk(ast.parse(text))))
    assert not any(map(_decides_by_name, ast.walk(ast.parse("print(n.op.name, lookup(name))"))))


def test_the_compiler_compares_ops_and_never_names() -> None:
    """A misspelt name is never equal; a misspelt function is an error when it is imported."""
    wrong = [
        f"{name}:{node.lineno}"
        for name in SOURCES
        if name.startswith("maxmod.compiler.")
        for node in _nodes(name)
        if isinstance(node, (ast.Compare, ast.Subscript, ast.Call)) and _decides_by_name(node)
    ]
    assert not wrong, "\n".join(wrong)


def test_imports_inside_functions_are_third_party() -> None:
    wrong = []
    for name in SOURCES:
        subcommands = name.startswith("maxmod.cli")  # a command imports only what it needs
        for node in _inside_functions(name):
            text = ast.unparse(node)
            if "maxmod" in text and not subcommands:
                wrong.append(f"{name}:{node.lineno}: {text}")
    assert not wrong, "\n".join(wrong)


def test_optional_packages_are_imported_inside_functions_only() -> None:
    wrong = []
    for name in SOURCES:
        deferred = {id(node) for node in _inside_functions(name)}
        for node in _nodes(name):
            if not isinstance(node, (ast.Import, ast.ImportFrom)) or id(node) in deferred:
                continue
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
            if any(str(n).split(".")[0] in OPTIONAL for n in names):
                wrong.append(f"{name}:{node.lineno}: {ast.unparse(node)}")
    assert not wrong, "\n".join(wrong)


def test_annotations_are_postponed() -> None:
    wrong = []
    for name in SOURCES:
        futures = [n for n in _nodes(name) if isinstance(n, ast.ImportFrom)]
        functions = [n for n in _nodes(name) if isinstance(n, ast.FunctionDef)]
        if functions and not any(node.module == "__future__" for node in futures):
            wrong.append(name)
    assert not wrong


def test_file_sizes() -> None:
    """A file that is longer is split, or listed with a reason."""
    lines = {
        path.relative_to(PACKAGE).as_posix(): len(path.read_text("utf-8").splitlines())
        for path in SOURCES.values()
    }
    long = {path: count for path, count in lines.items() if count > MAX_LINES}
    assert long.keys() <= LONG_FILES.keys(), long


def test_every_module_has_a_docstring() -> None:
    assert not [name for name, tree in trees().items() if not ast.get_docstring(tree)]


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
