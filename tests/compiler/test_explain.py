"""The text of `explain`: numbers that can be checked by hand, folding, and what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
from compiler.graphs import compiled, f32

import maxmod
from maxmod import DType, Tensor
from maxmod import functional as F
from maxmod.compiler.explain import _folded, _scaled
from maxmod.values.device import CPU_REF
from maxmod.values.dim import Dim


def _rows(text: str) -> dict[str, list[str]]:
    """The cells of each step, by its number."""
    cells = [line.split() for line in text.splitlines()[1:]]
    return {row[0]: row for row in cells}


def test_bytes_and_operations_of_a_kernel() -> None:
    explanation = compiled(lambda x: F.softmax(x * 2.0), f32(4, 8)).explanation()
    row = _rows(explanation.steps())["0"]
    # 4 x 8 floats in and out; mul, max, sub, exp, sum, div on each of them
    assert row[:9] == ["0", "kernel", "0", "128", "B", "128", "B", "192", "FLOP"]
    assert "1 launches of 1 kernels" in explanation.summary()
    assert "reads 128 B, writes 128 B and computes 192 FLOP" in explanation.summary()
    assert "100% kernel 0" in explanation.summary()


def test_products_count_twice() -> None:
    explanation = compiled(lambda x, y: x @ y, f32(3, 5), f32(5, 7)).explanation()
    assert " 210 FLOP" in explanation.steps()  # 2 * 3 * 5 * 7
    assert "reads 200 B, writes 84 B" in explanation.summary()


def test_sizes_give_numbers_and_a_memory_plan() -> None:
    model = compiled(lambda x: F.exp(F.softmax(x).T @ x), f32("n", 8))
    text = model.explain()
    assert "n * 32" in text
    assert "known when the sizes are: explain(n=...)" in text
    text = model.explain(n=100)
    assert "3.2 kB" in text and "with n=100" in text
    memory = text.split("== memory\n")[1].split("\n\n")[0]
    assert memory.startswith(str(model.memory_plan(n=100)))
    assert "made in step" in memory and "3.2 kB" in memory


def test_views_share_a_line_and_move_nothing() -> None:
    def fn(x: Any) -> Any:
        return F.argsort(F.cumsum(x, axis=0).reshape([8, 4]).T.reshape([32])) + 1

    explanation = compiled(fn, f32(32)).explanation()
    rows = _rows(explanation.steps())
    assert list(rows) == ["0", "1-3", "4", "5"]
    assert rows["1-3"][1:4] == ["view", "%1", "="]
    assert "there is no generated kernel for it" in explanation.steps()
    assert "reads 512 B, writes 640 B" in explanation.summary()  # int64 from argsort on


def test_why_kernels_were_formed() -> None:
    pointwise = compiled(lambda x: F.exp(x) + 1.0, f32(4, 8)).explanation()
    assert "- 2 ops on the same elements: nothing between them goes to memory" in str(pointwise)
    row = compiled(lambda x: F.softmax(F.softmax(x).T), f32(4, 8)).explanation()
    assert "ops on rows of 8: a row is read once and stays in the cache" in str(row)
    assert "stays out: it reduces rows of another shape" in str(row)
    product = compiled(lambda x: x @ x, f32(8, 8)).explanation()
    assert "- a matrix product" in str(product)


def test_equal_layers_are_folded() -> None:
    weights = [Tensor(np.eye(8, dtype=np.float32), device=CPU_REF) for _ in range(6)]
    gamma = Tensor.ones([8], dtype=DType.float32, device=CPU_REF)

    def fn(x: Any) -> Any:
        for weight in weights:
            x = F.layer_norm(x, gamma, gamma, 1e-5) @ weight
        return x

    model = compiled(fn, f32(4, 8), weights={f"w{i}": w for i, w in enumerate(weights)})
    explanation = model.explanation()
    folded = explanation.steps(fold=True).splitlines()
    assert folded[-1] == "... the last 2 lines 5 more times, for other weights ..."
    assert len(folded) == 4
    assert len(explanation.steps().splitlines()) == 13


def test_folding() -> None:
    def folded(keys: str) -> str:
        return "".join(line[:1] for line in _folded(["h", *keys], [None, *keys]))

    assert folded("abcd") == "habcd"
    assert folded("xabababy") == "hxab.y"
    assert folded("xabcabcabcaby") == "hxabc.aby"
    assert folded("") == "h"
    assert folded("xaab") == "hxaab"  # one line would be saved, and one added
    assert folded("xaaaab") == "hxa.b"


def test_numbers() -> None:
    assert _scaled(0, "B") == "0 B"
    assert _scaled(999, "B") == "999 B"
    assert _scaled(1500, "B") == "1.5 kB"
    assert _scaled(33_554_432, "FLOP") == "33.55 MFLOP"
    assert _scaled(10**16, "B") == "1e+04 TB"
    assert _scaled(Dim("n") * 4, "B") == "n * 4 B"  # type: ignore[arg-type]


def test_without_kernels() -> None:
    with maxmod.configure(cc="/nonexistent"):
        model = compiled(lambda x: F.softmax(x) + 1.0, f32(4, 8))
        text = model.explain()
    assert "0 launches of 0 kernels, 3 calls" in text
    assert "== kernel" not in text


def test_dtypes_count() -> None:
    type = maxmod.TensorType(DType.bfloat16, [4, 8], CPU_REF)
    assert "reads 64 B" in compiled(lambda x: x + 1, type).explanation().summary()
