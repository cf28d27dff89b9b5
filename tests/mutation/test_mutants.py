"""The mutation script: which mutants it makes, and that its table is up to date."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutation.mutants import mutants_of
from mutation.targets import AREAS

ROOT = Path(__file__).parents[2]

# A line, and what becomes of it.
PYTHON = {
    "comparison": ("y = a < b", ["y = a <= b"]),
    "chain": ("y = 0 < a in b", ["y = 1 < a in b", "y = 0 <= a in b", "y = 0 < a not in b"]),
    "identity": ("y = a is not None", ["y = a is None"]),
    "arithmetic": ("y = (a + b) * c", ["y = (a - b) * c", "y = (a + b) // c"]),
    "constants": ("y = 2, 0.5, True, 'text'", ["y = 3, 0.5", "y = 2, 1.0", "y = 2, 0.5, False"]),
    "not": ("y = not a", ["y = a"]),
    "and": ("y = a and b", ["y = a or b"]),
    "condition": ("y = a if b else c", ["y = a if not (b) else c"]),
    "arguments": ("f(a, b, k=c)", ["f(b, a, k=c)", "f(a, b, )"]),
    "arguments of other kinds": ("f(a, b.c, *d)", []),
    "equal arguments": ("f(a, a)", []),
    "assertion": ("assert a < b", []),
    "error": ("raise ValueError(1 + 2)", []),
    "annotation": ("y: Literal[1] = a", []),
    "docstring": ('"""1 < 2."""', []),
}
C = {
    "comparison": ("if (a < b)", ["if (a <= b)"]),
    "arithmetic": ("x += y * 4;", ["x -= y * 4;", "x += y + 4;", "x += y * 5;"]),
    "pointer": ("float *const p = &q;", []),
    "names and floats": ("x2 = 1.5f;", []),
    "comment": ("x = y; // 1 + 2", []),
    "directive": ("#include <a - b>", []),
    "constant": ("#define MM_ROWS 6", ["#define MM_ROWS 7"]),
    "limits": ("min(a, b)", ["max(a, b)"]),
}


def _lines(path: str, line: str) -> list[str]:
    return [m.applied(line.encode()).decode() for m in mutants_of(path, line.encode())]


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str) -> None:
    line, expected = PYTHON[name]
    found = _lines("maxmod/x.py", line)
    assert len(found) == len(expected)
    assert all(text.startswith(start) for text, start in zip(found, expected))


@pytest.mark.parametrize("name", C)
def test_c(name: str) -> None:
    line, expected = C[name]
    assert _lines("kernels/x.h", line) == expected


def test_texts_of_code_generators_are_c() -> None:
    line = "y = f'{a + b} < {c};  x = 1'"
    assert _lines("maxmod/x.py", line) == []
    assert _lines("maxmod/codegen/x.py", line) == [
        "y = f'{a + b} <= {c};  x = 1'",
        "y = f'{a + b} < {c};  x = 2'",
    ]


def test_descriptions_show_both_lines() -> None:
    source = b"x = 1\ny = a +\\\n    b\n"
    described = [mutant.described(source) for mutant in mutants_of("x.py", source)]
    assert described == ["1: x = 1  ->  x = 2", "2: y = a +\\  ->  y = a -\\"]


def test_files_and_tests_of_the_table_exist() -> None:
    for area in AREAS.values():
        for path, tests in area.items():
            assert [name for name in (path, *tests) if not (ROOT / name).is_file()] == []
            assert len(mutants_of(path, (ROOT / path).read_bytes())) > 5
