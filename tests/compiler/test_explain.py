"""The text of `explain`: numbers that can be checked by hand, folding, and omissions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32

import maxmod
from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.compiler.report.fold import find_folds, layers
from maxmod.compiler.report.names import places, together
from maxmod.compiler.report.sources import Part, parts_of
from maxmod.compiler.units import scaled, seconds
from maxmod.values.device import CPU_REF
from maxmod.values.dim import Dim


def _rows(text: str) -> dict[str, list[str]]:
    """The cells of each step, by its number."""
    cells = [line.split() for line in text.splitlines()[1:] if line[:4].strip()]
    return {row[0]: row for row in cells}


def _words(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def test_bytes_and_operations_of_a_kernel() -> None:
    explanation = compiled(lambda x: F.softmax(x * 2.0), f32(4, 8)).explanation()
    row = _rows(explanation.steps())["0"]
    # 4 x 8 floats in and out; mul, max, sub, exp, sum, div on each of them
    assert row[:9] == ["0", "kernel", "0", "128", "B", "128", "B", "192", "FLOP"]
    assert "1 launch of 1 kernel\n" in explanation.summary()
    assert "reads 128 B, writes 128 B and computes 192 FLOP" in explanation.summary()
    assert "100% kernel 0" in explanation.summary()


def test_products_count_twice() -> None:
    explanation = compiled(lambda x, y: x @ y, f32(3, 5), f32(5, 7)).explanation()
    assert " 210 FLOP" in explanation.steps()  # 2 * 3 * 5 * 7
    assert "reads 200 B, writes 84 B" in explanation.summary()


def test_sizes_give_numbers_and_a_memory_plan() -> None:
    model = compiled(lambda x: F.exp(F.softmax(x).T @ x), f32("n", 8))
    text = model.explain()
    assert "reads 32 B * n, writes 32 B * n" in _words(text)
    assert "known when the sizes are: explain(n=...)" in text
    text = model.explain(n=100)
    assert "3.20 kB" in text and "with n=100" in text
    memory = text.split("== memory\n")[1].split("\n\n")[0]
    assert _words(memory).startswith(str(model.memory_plan(n=100)))
    assert "made in step" in memory and "3.20 kB" in memory


def test_places_in_the_arena() -> None:
    """The result of step 2 reuses the memory of the result of step 0."""

    def fn(x: Any) -> Any:
        for _ in range(4):
            x = F.softmax(x.T)
        return x

    found = compiled(fn, f32(64, 64)).explanation()
    # exp(x - max) and its sums for each of three softmaxes, of which the last divides at once
    assert "would take 49.9 kB" in found.memory_text()
    assert "arena 33.3 kB" in found.memory_text()
    assert found.memory_text().count("; then 1 other") == 2


def test_views_share_a_line_and_move_nothing() -> None:
    def fn(x: Any) -> Any:
        return F.argsort(F.cumsum(x, axis=0).reshape([8, 4]).T.reshape([32])) + 1

    explanation = compiled(fn, f32(32)).explanation()
    rows = _rows(explanation.steps())
    assert list(rows) == ["0", "1-3", "4", "5"]
    assert rows["1-3"][1:] == ["view", "reshape,", "permute"]
    assert "%1 from %0; %2 from %1; %3 from %2" in explanation.steps()
    assert "there is no generated kernel for it" in _words(explanation.steps())
    assert "reads 512 B, writes 640 B" in explanation.summary()  # int64 from argsort on


def test_why_kernels_were_formed() -> None:
    pointwise = compiled(lambda x: F.exp(x) + 1.0, f32(4, 8)).explanation()
    assert "- 2 ops on the same elements: nothing between them goes to memory" in str(pointwise)
    row = compiled(lambda x: F.softmax(F.softmax(x).T), f32(4, 8)).explanation()
    assert "ops on rows of 8: a row is read once and stays in the cache" in str(row)
    assert "stays out: it reduces rows of another shape" in str(row)


def test_reason_of_a_matrix_product_without_epilogue() -> None:
    reasons = {
        "the graph returns its sums": lambda x: x @ x,
        "what reads it is not only elementwise": lambda x: (x @ x).T + 1.0,
        "the kernel that reads it runs over whole rows": lambda x: F.softmax(x @ x + 1.0),
        "several kernels read it": lambda x: _read_twice(x @ x),
    }
    for reason, fn in reasons.items():
        text = _words(str(compiled(fn, f32(8, 8)).explanation()))
        assert f"- a matrix product on its own: {reason}" in text, reason


def _read_twice(product: Tensor) -> tuple[Tensor, Tensor]:
    return product + 1.0, F.softmax((product * 2.0).T)


def test_composite_ops_of_the_user_are_named() -> None:
    """Ops that a composite was written out in are those of the composite."""
    gamma = Tensor.ones([8], dtype=DType.float32, device=CPU_REF)
    model = compiled(lambda x: F.softmax(x * 2.0) + F.layer_norm(x, gamma, gamma, 1e-5), f32(4, 8))
    graph = model.explanation().graph().splitlines()
    of_softmax = [line for line in graph if "# softmax, test_explain.py:" in line]
    assert len(of_softmax) == 5 and sum(" = exp " in line for line in of_softmax) == 1
    assert sum("# layer_norm, test_explain.py:" in line for line in graph) > 8
    text = model.explain(width=200)
    assert "stays in the cache (mul, softmax, layer_norm, add)" in text
    assert "softmax" in model.kernels[0].name
    assert "# softmax, test_explain.py:" in model.explain_html()


def test_equal_layers_are_folded() -> None:
    weights = [Tensor(np.eye(8, dtype=np.float32), device=CPU_REF) for _ in range(6)]
    gamma = Tensor.ones([8], dtype=DType.float32, device=CPU_REF)

    def fn(x: Any) -> Any:
        for weight in weights:
            x = F.layer_norm(x, gamma, gamma, 1e-5) @ weight
        return x

    model = compiled(fn, f32(4, 8), weights={f"w{i}": w for i, w in enumerate(weights)})
    explanation = model.explanation()
    folded = explanation.steps(fold=True)
    assert "... the last 2 steps 5 more times, for w1 to w5 ..." in folded
    assert list(_rows(folded)) == ["0", "1"]
    assert list(_rows(explanation.steps())) == [*map(str, range(12))]
    graph = explanation.graph()
    assert "weight @w{0-5}: float32[8,8]" in graph
    assert "... the last 12 ops 4 more times, for w1 to w4 ..." in graph
    assert graph.count(" = matmul ") == 2  # of the first layer and of the last


@pytest.mark.parametrize(
    ("keys", "shown"),
    [
        ("abcd", "abcd"),
        ("xabababy", "xab.y"),
        ("xabcabcabcaby", "xabc.aby"),
        ("", ""),
        ("xaab", "xaab"),  # one line would be saved, and one added
        ("xaaaab", "xa.b"),
        ("aaaabcdbcdbcdaaaa", "a.bcd.a."),  # on both sides of the longest
        ("aaaabaaaabaaaabaaaab", "a.b."),  # inside the kept run
    ],
)
def test_folding(keys: str, shown: str) -> None:
    hidden = {p: fold.hidden.start for fold in find_folds(keys, 3) for p in fold.hidden}
    text = (("." if hidden[p] == p else "") if p in hidden else k for p, k in enumerate(keys))
    assert "".join(text) == shown


def test_the_layers_of_a_fold() -> None:
    kept = ["%1", "@norm", "@blocks.0.up.weight"]
    first, last = ["%9", "@norm", "@blocks.1.up.weight"], ["%40", "@norm", "@blocks.7.up.weight"]
    assert layers(kept, first, last) == "blocks.1 to blocks.7"
    assert layers(kept, first, first) == "blocks.1"
    assert layers(["%1"], ["%2"], ["%3"]) == ""
    assert layers(["@a.0"], ["@b"], ["@c"]) == ""


def test_names_together() -> None:
    def shown(*found: str) -> list[str]:
        return [name for name, _, _ in together((name, "float32[2]") for name in found)]

    assert shown("@h.0.w", "@h.1.w", "@h.2.w") == ["@h.{0-2}.w"]
    assert shown("@h.0.w1", "@h.0.w2", "@h.1.w1", "@h.1.w2") == ["@h.{0-1}.w{1-2}"]
    assert shown("@h.0.w1", "@h.0.w2", "@h.1.w1") == ["@h.0.w1", "@h.0.w2", "@h.1.w1"]
    assert shown("@a", "@h.7.w", "@b") == ["@a", "@h.7.w", "@b"]
    assert shown("@h.0", "@h.2", "@h.3") == ["@h.{0, 2-3}"]


def test_lines_of_user_code_together() -> None:
    lines = ["gpt2.py:41", "gpt2.py:43", "norm.py:7", "gpt2.py:42", "gpt2.py:9"]
    assert places(lines) == "gpt2.py:9, 41-43, norm.py:7"
    assert places([]) == ""


def test_numbers() -> None:
    assert scaled(0, "B") == "0 B"
    assert scaled(999, "B") == "999 B"
    assert scaled(1500, "B") == "1.50 kB"
    assert scaled(99_960, "B") == "100 kB"
    assert scaled(999_499, "B") == "999 kB"
    assert scaled(999_500, "B") == "1.00 MB"
    assert scaled(33_554_432, "FLOP") == "33.6 MFLOP"
    assert scaled(10**22, "B") == "10000 EB"
    assert scaled(Dim("n") * 4, "B") == "4 B * n"  # type: ignore[arg-type]
    assert scaled(Dim("n") * 2048 + 512, "B") == "2.05 kB * n + 512 B"  # type: ignore[arg-type]
    assert scaled(Dim("n"), "B") == "1 B * n"  # type: ignore[arg-type]


def test_times() -> None:
    assert seconds(2) == "2.00 s"
    assert seconds(0.0123) == "12.3 ms"
    assert seconds(0.000_999_7) == "1.00 ms"
    assert seconds(12.34e-6) == "12.3 µs"
    assert seconds(1e-12) == "0.00 ns"


@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_lines_fit_the_width(width: int) -> None:
    """All but sources, which stay as they are, and names that are longer than a line."""
    gamma = Tensor.ones([8], dtype=DType.float32, device=CPU_REF)
    weight = Tensor(np.eye(8, dtype=np.float32), device=CPU_REF)

    def fn(x: Any, y: Any) -> Any:
        x = F.gelu(F.layer_norm(x, gamma, gamma, 1e-5) @ weight.T + y)
        return F.softmax(F.cumsum(x, axis=0)[:, 0:4].T)

    model = compiled(fn, f32("n", 8), f32("n", 8), weights={"decoder.up.weight": weight})
    for sizes in ({}, {"n": 1000}):
        text = model.explain(width=width, **sizes)
        for section in text.split("== ")[1:]:
            lines = section.split("\n\n")[0].splitlines()
            assert max(map(len, lines)) <= width, section


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    model = compiled(lambda x: F.softmax(x * 0.5 + 1.0), f32(64, 128))
    monkeypatch.setenv("COLUMNS", "132")
    assert model.explain() == model.explain(width=132) != model.explain(width=80)
    monkeypatch.delenv("COLUMNS")
    assert model.explain() == model.explain(width=80)  # pytest has no terminal


def test_a_size_may_be_called_width() -> None:
    model = compiled(lambda x: F.softmax(x), f32("width", 8))
    assert "with width=100" in model.explain(width=100)


def test_files_in_a_source_are_named() -> None:
    """Of a product, the generated part is shown; `kernel` shows all of it."""
    model = compiled(lambda x: F.relu(x @ x), f32(8, 8))
    (source,) = model.kernels
    text = model.explain()
    assert "// kernels/host/gemm.h: " in text and "always the same" in text
    assert len(text.splitlines()) < 200 < len(source.code.splitlines())
    assert source.code in model.explanation().kernel(0)
    assert _rebuilt(parts_of(source)) == source.code.split()


def _rebuilt(parts: list[Part]) -> list[str]:
    return "\n".join(part.text for part in parts).split()


def test_without_kernels() -> None:
    with maxmod.configure(cc="/nonexistent"):
        model = compiled(lambda x: F.softmax(x) + 1.0, f32(4, 8))
        text = model.explain()
    assert "0 launches of 0 kernels, 3 calls" in text
    assert "== kernel" not in text


def test_dtypes_count() -> None:
    type = maxmod.TensorType(DType.bfloat16, [4, 8], CPU_REF)
    assert "reads 64 B" in compiled(lambda x: x + 1, type).explanation().summary()
