"""What explain shows of a CUDA program: both ways of a choice, calls of the library, and times."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from compiler.pages import Page
from emulated_cuda import emulated_cuda

from maxmod import DType, TensorType
from maxmod import functional as F
from maxmod.runtime import measuring
from maxmod.runtime.compiled import CompiledModel, compile_function


@pytest.fixture
def model() -> Iterator[CompiledModel]:
    """A product that few rows and many compute in different ways, and a row kernel.

    Few rows take a kernel, many rows a view and the library.
    """
    with emulated_cuda() as (device, _):
        types = [
            TensorType(DType.float32, sizes, device) for sizes in (["n", 16], [24, 16], ["n", 24])
        ]

        def fn(x: Any, w: Any, y: Any) -> Any:
            return F.softmax(F.gelu(x @ w.T, approximate="tanh")) + y

        yield compile_function(fn, types, name="f", parameters={})


def _idle(page: Page) -> list[str]:
    return [attrs["class"] for attrs in page.all("tr", "idle")]


def test_both_ways_of_a_choice_are_shown(model: CompiledModel) -> None:
    for sizes, idle in (({}, 0), ({"n": 3}, 2), ({"n": 100}, 1)):
        facts = model.explanation(**sizes).facts
        assert {step.condition for step in facts.steps} == {"", "if n <= 8", "if n > 8"}
        assert len([step for step in facts.steps if not step.runs]) == idle
        assert len(_idle(Page(model.explain_html(**sizes)))) == idle
    few, many = (model.explanation(n=n, width=200) for n in (3, 100))
    assert "if n > 8: not with these sizes" in few.steps()
    assert "if n <= 8: not with these sizes" in many.steps()
    assert "2 launches of 2 kernels\n" in few.summary()
    assert "1 launch of 2 kernels, 1 view, 1 call\n" in many.summary()


def test_page_names_the_library_and_highlights_cuda(model: CompiledModel) -> None:
    page = Page(model.explain_html(n=100))
    assert "left to the matrix library" in page.text
    assert "kernels/cuda/gemv.h" in page.text
    assert "__global__" in page.text


def test_times_of_launches_and_of_calls(
    model: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measuring, "COPY_NBYTES", {False: 1 << 12, True: 1 << 12})
    monkeypatch.setattr(measuring, "PRODUCT_SIZES", {False: (16,), True: (16,)})
    monkeypatch.setattr(measuring, "MOST_CALLS", 3)
    found = model.explanation(measure=True, n=20)
    assert all(step.time_s for step in found.facts.running)
    page = Page(found.html())
    assert len(page.all("circle", "kernel")) == 1 and len(page.all("circle", "call")) == 1
