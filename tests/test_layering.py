"""The structure of the package: who may import whom, how long a file may be, what an import costs.

A module imports from its own layer and below, and no two modules import each other, directly or in
a ring. Every import statement counts, also inside functions and under `TYPE_CHECKING`.
"""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

import maxmod

PACKAGE = Path(maxmod.__file__).parent

# The layer of each module or package directly inside maxmod.
LAYERS = {
    "errors": 0,
    "config": 0,
    "dtype": 1,
    "log": 1,
    "values": 2,
    "kernel": 2,
    "op": 3,
    "backends": 4,
    "custom": 4,
    "tensor": 4,
    "interpreters": 5,
    "ops": 6,
    "functional": 7,  # faces of the ops; models write F.gelu(x) as users do
    "random": 7,
    "compiler": 7,
    "runtime": 8,
    "graph": 8,
    "engine": 9,
    "nn": 9,
    "models": 9,
    "weights": 9,
    "generate": 9,
    "__init__": 10,
    "array_api": 10,
    "driver": 10,
    "compat": 10,
    "cli": 10,
    "__main__": 10,
}

# Packages that must not import each other although their layers would allow it.
BANNED = {"compiler": {"backends"}, "backends": {"ir"}}

# Third-party packages that may only be imported inside functions: they are optional or slow.
OPTIONAL = {"PIL", "cupy", "cupyx", "jax", "jinja2", "rich", "tokenizers", "torch", "tqdm"}
OPTIONAL |= {"transformers"}

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


def _layer(module: str) -> int:
    top = module.split(".")[1] if "." in module else "__init__"
    return LAYERS[top]


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
    return found


def _inside_functions(tree: ast.AST) -> list[ast.stmt]:
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    outer = [node for node in ast.walk(tree) if isinstance(node, functions)]
    inner = [node for function in outer for node in ast.walk(function)]
    return [node for node in inner if isinstance(node, (ast.Import, ast.ImportFrom))]


def _trees() -> dict[str, ast.AST]:
    return {name: ast.parse(path.read_text("utf-8")) for name, path in SOURCES.items()}


def _is_maxmod(name: str) -> bool:
    return name == "maxmod" or name.startswith("maxmod.")


def test_every_module_has_a_layer() -> None:
    found = {name.split(".")[1] for name in SOURCES if "." in name}
    assert found <= LAYERS.keys(), f"no layer for {sorted(found - LAYERS.keys())}"


def test_imports_go_downwards() -> None:
    wrong = []
    for name, tree in _trees().items():
        for line, target in _imports(name, tree):
            if not _is_maxmod(target):
                continue
            assert target in SOURCES, f"{name}:{line}: there is no module {target}"
            banned = BANNED.get(name.split(".")[1] if "." in name else "", set())
            if _layer(target) > _layer(name) or target.split(".")[1:2] in [[b] for b in banned]:
                wrong.append(f"{name}:{line} ({_layer(name)}) -> {target} ({_layer(target)})")
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
