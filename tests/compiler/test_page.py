"""The page of `explain_html`: well formed, complete, self-contained, and safe from its names."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from compiler.pages import Page

from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.compiler.report.roofline import points
from maxmod.errors import ArgumentError
from maxmod.runtime import measuring
from maxmod.runtime.compiled import CompiledModel
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import BufferType


def _weights(names: list[str]) -> dict[str, Tensor]:
    return {name: Tensor(np.eye(8, dtype=np.float32), device=CPU_REF) for name in names}


def _layers(size: Any = 4) -> CompiledModel:
    """Six equal layers of a row kernel and a product."""
    weights = _weights([f"blocks.{n}.weight" for n in range(6)])
    gamma = Tensor.ones([8], dtype=DType.float32, device=CPU_REF)

    def fn(x: Any) -> Any:
        for weight in weights.values():
            x = F.layer_norm(x, gamma, gamma, 1e-5) @ weight
        return x

    return compiled(fn, f32(size, 8), weights=weights)


def _loop() -> CompiledModel:
    def fn(x: Any) -> Any:
        return F.while_loop(x, lambda y: F.sum(F.flatten(y))[0] < 9.0, lambda y: F.exp(y) * 2.0)

    return compiled(fn, f32(4, 8))


def _views() -> CompiledModel:
    return compiled(
        lambda x: F.argsort(F.cumsum(x, axis=0).reshape([8, 4]).T.reshape([32])) + 1, f32(32)
    )


MODELS: dict[str, Callable[[], CompiledModel]] = {
    "softmax": lambda: compiled(lambda x: F.softmax(x * 2.0), f32(4, 8)),
    "layers": _layers,
    "symbolic layers": lambda: _layers("n"),
    "loop": _loop,
    "views": _views,
    "nothing": lambda: compiled(lambda x: x, f32(4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_page_is_well_formed_and_needs_no_other_file(name: str) -> None:
    source = MODELS[name]().explain_html()
    page = Page(source)
    assert source.startswith("<!DOCTYPE html>")
    assert {name for name, _ in page.elements}.isdisjoint({"script", "link", "img", "iframe"})
    ids = {attrs["id"] for _, attrs in page.elements if "id" in attrs}
    assert len(ids) == sum("id" in attrs for _, attrs in page.elements)
    for _, attrs in page.elements:
        assert "src" not in attrs
        if "href" in attrs:
            assert attrs["href"].removeprefix("#") in ids
        assert re.findall(r"url\((?!#to\))", " ".join(attrs.values())) == []
    style = source.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style


@pytest.mark.parametrize("name", MODELS)
def test_page_has_every_step_and_kernel(name: str) -> None:
    model = MODELS[name]()
    page, facts = Page(model.explain_html()), model.explanation().facts
    for step in facts.steps:
        assert step.detail in page.text
        for _, body in step.bodies:
            assert all(inner.detail in page.text for inner in body.steps)
    for number, kernel in enumerate(model.kernels):
        assert f"kernel {number} {kernel.name}" in page.text
    for node in facts.graph.nodes:
        assert node.op.name in page.text


def test_page_shows_hidden_layers_in_the_table() -> None:
    page = Page(_layers().explain_html())
    numbers = [row[0].strip() for row in page.rows if len(row) > 1 and row[0].strip().isdigit()]
    assert [*map(str, range(12))] == numbers[:12]
    assert "the last 2 steps 5 more times, for blocks.1 to blocks.5" in page.text


def test_page_has_the_numbers_of_the_text() -> None:
    model = _layers("n")
    page, text = Page(model.explain_html(n=100)), model.explanation(n=100).steps()
    cells = {row[0].strip(): row for row in page.rows if len(row) > 6}
    for line in text.splitlines():
        found = re.match(r" +(\d+)  kernel \d+ +(\S+ \S+) +(\S+ \S+) +(\S+ \S+)  ", line)
        if found:
            number, *costs = found.groups()
            assert cells[number][3:6] == costs
    assert "n=100" in page.text


def test_memory_is_drawn_as_planned() -> None:
    model = _layers("n")
    plan = model.memory_plan(n=100)
    page = Page(model.explain_html(n=100))
    assert str(plan) in page.text
    blocks = page.all("rect", "block")
    assert len(blocks) == len(plan.offsets)
    # heights are in proportion to bytes: every intermediate is 3,200 bytes, the arena twice that
    heights = {float(block["height"]) for block in blocks}
    tops = {float(block["y"]) for block in blocks}
    assert len(heights) == 1 and len(tops) == plan.arena_nbytes // 3200 == 2
    assert max(tops) - min(tops) == pytest.approx(heights.pop(), rel=1e-4)
    offsets = re.findall(r"3\.20 kB at (\d+), made in step (\d+)", page.text)
    assert sorted(map(int, dict(offsets))) == sorted(set(plan.offsets.values()))


def test_unknown_sizes_are_asked_for() -> None:
    page = Page(_layers("n").explain_html())
    assert page.text.count("values for n") == 3  # steps, memory, roofline
    assert "32 B * n" in page.text
    assert page.all("rect", "block") == [] and page.all("circle") == []


def test_names_cannot_become_elements() -> None:
    bad = "<script>alert('x')</script>&amp;\"<!--"
    weights = _weights([bad])
    model = compiled(lambda x: x @ weights[bad], f32(4, 8), weights=weights)
    source = model.explain_html()
    assert "<script" not in source
    assert source.count("<!--") == 0
    assert f"@{bad}" in Page(source).text


def test_sources_are_highlighted_and_files_shown_once() -> None:
    model = compiled(lambda x: F.relu((x @ x).T @ x), f32(8, 8))
    source = model.explain_html()
    page = Page(source)
    assert len(model.kernels) == 2
    assert page.all("span", "kt")  # type names of C
    assert source.count('id="host/gemm.h"') == 1
    assert page.text.count("then kernels/host/gemm.h") == 2
    assert "static void mm_many_rows(" in page.text


def test_without_times_the_roofline_says_so() -> None:
    page = Page(_layers().explain_html())
    assert "Not measured" in page.text and page.all("path", "roof") == []
    assert len(page.all("circle")) == 2  # a product and a normalisation


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Limits of small arrays, and few calls."""
    monkeypatch.setattr(measuring, "COPY_NBYTES", {False: 1 << 16, True: 1 << 16})
    monkeypatch.setattr(measuring, "PRODUCT_SIZES", {False: (32,), True: (32,)})
    monkeypatch.setattr(measuring, "MOST_CALLS", 4)


@pytest.mark.usefixtures("quick")
def test_times_of_steps() -> None:
    model = _layers("n")
    found = model.explanation(measure=True, n=50)
    facts = found.facts
    assert facts.measured is not None
    assert facts.measured.calls == 4 and facts.measured.call_s > 0
    assert all(step.time_s is not None and step.time_s > 0 for step in facts.running)
    assert "time" in found.steps().splitlines()[0]
    assert "a call takes" in found.summary()
    for point in points(facts):
        of_kernel = [step for step in facts.running if step.kernel == point.kernel]
        assert point.uses == len(of_kernel) == 6
        assert point.time_s == pytest.approx(sum(step.time_s or 0 for step in of_kernel))
    page = Page(found.html())
    assert "Measured here: a copy moves" in page.text and len(page.all("path", "roof")) == 1
    assert "time of a call" in page.text


@pytest.mark.usefixtures("quick")
def test_measuring_changes_nothing_about_later_calls() -> None:
    model = _layers("n")
    x = Tensor(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32), device=CPU_REF)
    before = model(x).to_numpy()
    model.explanation(measure=True, n=5000)  # the arena grows
    np.testing.assert_array_equal(model(x).to_numpy(), before)
    assert model.stats.programs == 2  # rebound to the larger arena, without times


@pytest.mark.usefixtures("quick")
def test_buffers_start_with_zeros_in_every_measured_call() -> None:
    """A position that every call moves on would soon be out of range."""

    def fn(x: Any, at: Any) -> Any:
        y = F.gather(x, at, axis=0)
        at[...] = at + 1
        return y

    position = BufferType(DType.int64, [1], CPU_REF)
    model = compiled(fn, f32(2, 8), position)
    assert model.explanation(measure=True).facts.measured is not None


@pytest.mark.usefixtures("quick")
def test_a_loop_is_one_time() -> None:
    facts = _loop().explanation(measure=True).facts
    (loop,) = [step for step in facts.running if step.bodies]
    assert loop.time_s is not None
    assert all(inner.time_s is None for _, body in loop.bodies for inner in body.steps)


def test_measuring_needs_all_sizes() -> None:
    with pytest.raises(ArgumentError, match="every size must be given: add n=..."):
        _layers("n").explain_html(measure=True)


@pytest.mark.parametrize("package", ["jinja2", "pygments"])
def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match="Hint: pip install jinja2 pygments"):
        compiled(lambda x: x + 1.0, f32(4)).explain_html()
