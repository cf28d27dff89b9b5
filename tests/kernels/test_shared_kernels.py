"""A kernel is built once, whatever line of whatever function it comes from."""

from __future__ import annotations

from typing import Any

import pytest
from compiler.graphs import compiled, f32

import maxmod
from maxmod import Tensor
from maxmod import functional as F
from maxmod.backends.host import compiler as host_compiler
from maxmod.runtime.compiled import CompiledModel

NO_COMPILER = host_compiler.unavailable_reason()
pytestmark = [
    pytest.mark.usefixtures("cache_folder"),
    pytest.mark.skipif(bool(NO_COMPILER), reason=NO_COMPILER or "-"),
]


def _gelu_here(x: Tensor) -> Tensor:
    return F.gelu(x * 3.0) + 1.0


def test_a_kernel_of_another_line_and_number_is_not_built_again() -> None:
    def later(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        product = x @ y
        return product, F.gelu(x * 3.0) + 1.0

    square = f32(8, 8)
    first = compiled(_gelu_here, square)
    second = compiled(later, square, square)
    assert first.stats.kernels_built == 1
    found = {source.plain for source in second.kernels}
    assert first.kernels[0].plain in found
    assert second.stats.kernels_cached == 1


def _from_line(line: int) -> CompiledModel:
    """Compiles the same function as if it stood in another line."""
    namespace: dict[str, Any] = {}
    text = "\n" * (line - 2) + "def fn(x):\n    return F.exp(x) * 2.0\n"
    exec(compile(text, "model.py", "exec"), {"F": F}, namespace)
    return compiled(namespace["fn"], f32("n"))


def test_a_stored_plan_shows_the_lines_of_today() -> None:
    with maxmod.configure(verify=False):  # else nothing is stored
        assert "// %0 exp, model.py:41" in _from_line(41).kernels[0].code
        moved = _from_line(50)
    assert moved.stats.plan_cached
    assert moved.stats.kernels_built == 0
    assert "// %0 exp, model.py:50" in moved.kernels[0].code
    assert "// %0 exp, model.py:50" in moved.explain()
