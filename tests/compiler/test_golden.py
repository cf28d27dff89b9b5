"""Generated sources, kept as files: a change that should change no kernel changes no byte.

`pytest tests/compiler/test_golden.py --update-golden` rewrites them; read the difference.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.graphs import f32, traced

from maxmod import BufferType, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.compiler.passes.eliminate_dead import eliminate_dead
from maxmod.compiler.passes.expand_composites import expand_composites
from maxmod.compiler.passes.merge_common import merge_common
from maxmod.compiler.schedule import schedule
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect
from maxmod.values.device import CPU_REF

FOLDER = Path(__file__).parents[1] / "golden" / "kernels"
W = Tensor(np.ones(768, np.float32))
HALF = TensorType(DType.bfloat16, ["rows", 256], CPU_REF)


def _causal(scores: Tensor) -> Tensor:
    seq = scores.shape[-1]
    at = F.arange(0, seq, dtype=DType.int64, device=CPU_REF)
    mask = at.reshape([seq, 1]) >= at
    return F.softmax(F.where(mask, scores * 0.125, float("-inf")))


def _rope_into_cache(keys: Tensor, x: Tensor, cosine: Tensor, sine: Tensor, used: Tensor) -> None:
    """Keys of one token are turned, and stored in row `used` of the cache."""
    pairs = x.reshape([1, 1, 8, 2, 32]).permute([0, 2, 1, 3, 4])
    others = F.gather(pairs, 1 - F.arange(0, 2, dtype=DType.int64, device=CPU_REF), axis=-2)
    turned = (pairs * cosine + others * sine).reshape([1, 8, 1, 64])
    F.buffer_store_slice(keys, turned, [slice(None), slice(None), (slice(used, None), 1)])


CASES: dict[str, tuple[Callable[..., Any], tuple[TensorType, ...]]] = {
    "gelu_chain": (lambda x, r: F.gelu(x * 1.5 + W) + r, (f32(512, 768), f32(512, 768))),
    "residual_norm": (
        lambda x, y: (x + y, F.layer_norm(x + y, W, W, 1e-5)),
        (f32("batch", "seq", 768),) * 2,
    ),
    "causal_softmax": (_causal, (f32("batch", 12, "seq", "seq"),)),
    # Two values are kept across three loops: they must not share memory.
    "kept_rows": (lambda x: F.softmax(F.exp(x)) + F.exp(x), (f32("rows", "size"),)),
    "half_rms_norm": (lambda x: F.rms_norm(x, x[0], 1e-6), (HALF,)),
    "embedding": (
        lambda tokens, table: F.gather(table, tokens, axis=0) * 2.0,
        (TensorType(DType.int32, ["batch", "seq"], CPU_REF), f32("vocab", 768)),
    ),
    "embedding_norm": (
        lambda tokens, table: F.rms_norm(F.gather(table, tokens, axis=0), W, 1e-6),
        (TensorType(DType.int64, [1, "seq"], CPU_REF), f32(32000, 768)),
    ),
    "rope_cache": (
        _rope_into_cache,
        (
            BufferType(DType.float32, [1, 8, "length", 64], CPU_REF),
            f32(1, 1, 512),
            f32(1, 32),
            f32(2, 32),
            TensorType(DType.int64, [], CPU_REF),
        ),
    ),
    "heads": (
        lambda x: (x * 2.0).reshape([4, 16, 12, 64]).permute([0, 2, 1, 3]) + 1.0,
        (f32(4, 16, 768),),
    ),
}


def _without_lines(text: str) -> str:
    """Leaves out the lines of test files, which move when these are changed."""
    return re.sub(r", \w+\.py:\d+$", "", text, flags=re.M)


@pytest.mark.parametrize("dialect", list(Dialect), ids=lambda d: d.value)
@pytest.mark.parametrize("name", CASES)
def test_sources(name: str, dialect: Dialect, request: pytest.FixtureRequest) -> None:
    fn, types = CASES[name]
    graph = eliminate_dead(merge_common(expand_composites(traced(fn, *types))))
    sources = schedule(graph, dialect).kernels
    text = _without_lines("\n".join(f"// {source.name}\n{source.code}" for source in sources))
    path = FOLDER / f"{name}.{'c' if dialect is Dialect.HOST else 'cu'}"
    if request.config.getoption("--update-golden"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text("utf-8"), "run with --update-golden if the change is wanted"


HALVES = TensorType(DType.bfloat16, ["batch", 4096], CPU_REF)
WEIGHT = TensorType(DType.bfloat16, [4096, 4096], CPU_REF)
QUERIES = TensorType(DType.bfloat16, ["batch", 32, 1, 128], CPU_REF)
CACHE = TensorType(DType.bfloat16, ["batch", 8, "length", 128], CPU_REF)
GENERATED: dict[str, tuple[Callable[..., Any], tuple[TensorType, ...]]] = {
    "few_rows": (lambda x, w, r: r + F.gelu(x @ w.T), (HALVES, WEIGHT, HALVES)),
    "few_queries": (F.scaled_dot_product_attention, (QUERIES, CACHE, CACHE)),
    "many_queries": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        (TensorType(DType.bfloat16, ["batch", 32, 512, 128], CPU_REF), CACHE, CACHE),
    ),
}


@pytest.mark.parametrize("name", GENERATED)
def test_text_before_hand_written_cuda(name: str, request: pytest.FixtureRequest) -> None:
    """Only the generated text, and the names of the included files."""
    fn, types = GENERATED[name]
    graph = eliminate_dead(merge_common(expand_composites(traced(fn, *types))))
    text = _without_lines(schedule(graph, Dialect.CUDA).kernels[0].code)
    for file in Path(kernel_text.folder(), "cuda").iterdir():
        text = text.replace(file.read_text("utf-8"), f"// kernels/cuda/{file.name}\n")
    path = FOLDER / f"{name}.cu"
    if request.config.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text("utf-8"), "run with --update-golden if the change is wanted"
