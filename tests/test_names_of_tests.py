"""Names and ids of tests: a red line says what failed, and which case."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest
from readable_ids import LONGEST, is_unreadable, readable_id

from maxmod import DType, TensorType
from maxmod.values.device import CPU_REF
from maxmod.values.dim import Dim

# Words for a subject that the name does not say; and "is no X": English has "is not an X".
UNCLEAR = re.compile(
    r"test_(it|they|that|this|these|those|what)_"
    r"|_(it|its|they|them|their|what|those)(_|$)"
    r"|_(is|are)_no_"
)


def test_names_have_a_subject() -> None:
    unclear = []
    for path in sorted(Path(__file__).parent.rglob("test_*.py")):
        nodes = ast.walk(ast.parse(path.read_text("utf-8")))
        names = [node.name for node in nodes if isinstance(node, ast.FunctionDef)]
        tests = [name for name in names if name.startswith("test_")]
        unclear += [f"{path.name}: {name}" for name in tests if UNCLEAR.search(name)]
    assert unclear == []


def test_ids_of_collected_tests_are_readable(request: pytest.FixtureRequest) -> None:
    """Looks at the tests of this run; a lambda needs `pytest.param(..., id=...)`."""
    wrong = []
    for item in request.session.items:
        call = getattr(item, "callspec", None)
        parts = call.id.split("-") if call is not None else []
        if any(is_unreadable(part, call.params) for part in parts):
            wrong.append(item.nodeid)
    assert wrong == []


@pytest.mark.parametrize(
    ("value", "text"),
    [
        pytest.param((2, 3), "(2,3)", id="tuple"),
        pytest.param(["\ud800"], "[\\ud800]", id="surrogate"),
        pytest.param([[1.5], "a"], "[[1.5],a]", id="list"),
        pytest.param({"b", "a"}, "{a,b}", id="set"),
        pytest.param({"a": None, "b": (1,)}, "{a=None,b=(1)}", id="dict"),
        pytest.param((slice(1, None), ..., slice(None, None, -1)), "(1:,Ellipsis,::-1)", id="key"),
        pytest.param(np.zeros((2, 1), np.int8), "int8[2,1]", id="array"),
        pytest.param(Dim("n") * 2, "n * 2", id="dim"),
        pytest.param(TensorType(DType.bool, [3], CPU_REF), "bool[3]", id="type"),
        pytest.param(DType.int8, "int8", id="dtype"),
        pytest.param(np.sum, "sum", id="function"),
        pytest.param(object(), "object", id="object"),
        pytest.param(lambda: 0, None, id="lambda"),
        pytest.param("text", None, id="str"),
    ],
)
def test_values_are_written_out(value: object, text: str | None) -> None:
    assert readable_id(value) == text


def test_long_values_are_cut() -> None:
    text = readable_id(list(range(100)))
    assert text == ("[" + ",".join(map(str, range(100))))[: LONGEST - 3] + "..."


@pytest.mark.parametrize(
    ("part", "expected"),
    [("<lambda>", True), ("<lambda>3", True), ("shape12", True), ("shape", False), ("2x3", False)],
    ids=["lambda", "numbered lambda", "numbered argument", "argument", "text"],
)
def test_unreadable_parts_are_found(part: str, expected: bool) -> None:
    assert is_unreadable(part, ["shape", "x"]) is expected
