"""What people read of a kernel: numbers, names and lines of the graph, in the text that runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cuda_shim
import numpy as np
import pytest
from compiler.graphs import compiled, f32, traced
from compiler.test_choose import types as choose_types
from compiler.test_golden import CASES, GENERATED
from helpers import run_op

from maxmod import DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.backends.host import compiler as host_compiler
from maxmod.compiler.codegen.reading import MAX_LENGTH
from maxmod.compiler.pipeline import optimize
from maxmod.compiler.schedule import schedule
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.nn import LayerNorm, Linear, Module, Sequential
from maxmod.op import call, ir
from maxmod.ops.choose import choose_tokens
from maxmod.values.device import CPU_REF

ROWS = f32("rows", 64)
NO_COMPILER = host_compiler.unavailable_reason()
NO_SHIM = cuda_shim.unavailable_reason()


def _planned(
    fn: Callable[..., Any], types: Any, dialect: Dialect, weights: Any = None
) -> tuple[ir.Graph, tuple[KernelSource, ...]]:
    graph = optimize(traced(fn, *types, weights=weights), run_op, dialect)
    return graph, schedule(graph, dialect).kernels


def _scores(x: Tensor) -> Tensor:
    return F.softmax(x * 0.125 + 1)


class Block(Module):
    """A gated MLP behind a norm, as models have them."""

    def __init__(self, width: int) -> None:
        self.norm = LayerNorm(width)
        self.fc1 = Linear(width, 4 * width)
        self.fc2 = Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


DIALECTS = pytest.mark.parametrize("dialect", list(Dialect), ids=lambda dialect: dialect.value)

# ---- what stands there ---------------------------------------------------------------------------

_STATEMENT = re.compile(r"const \w+ (\w+) = (.*);\s+// (%\d+) (\w+)(?: of (\w+))?, (\S+)$", re.M)


@DIALECTS
def test_each_statement_has_the_number_the_op_and_the_line_of_a_value(dialect: Dialect) -> None:
    graph, (source,) = _planned(_scores, [ROWS], dialect)
    nodes = {name: node for node in graph.nodes for name in [ir.value_names(graph)[node.output]]}
    found = _STATEMENT.findall(source.code)
    for variable, _, number, op, scope, place in found:
        node = nodes[number]
        assert variable == f"v{number[1:]}"
        assert op == node.op.label
        assert scope == (node.scope.name if node.scope else "")
        assert place == ir.place(node)
    computed = [name for name, node in nodes.items() if node.inputs]
    assert {number for _, _, number, *_ in found} == {*computed}
    assert place == f"{Path(__file__).name}:{_scores.__code__.co_firstlineno + 1}"


@DIALECTS
def test_numbers_are_written_at_the_place_of_use(dialect: Dialect) -> None:
    _, (source,) = _planned(_scores, [ROWS], dialect)
    texts = dict(found[:2] for found in reversed(_STATEMENT.findall(source.code)))
    assert texts["v1"] == "v_x * 0.125f"
    assert texts["v3"] == "v1 + 1.0f"


@DIALECTS
def test_buffers_have_the_names_of_the_user(dialect: Dialect) -> None:
    model = Block(64)
    _, sources = _planned(model, [ROWS], dialect, dict(model.parameters))
    norm = next(source for source in sources if source.name == "row_layer_norm")
    for name in ("x", "norm_weight", "norm_bias", "out"):
        assert re.search(rf"float \*(const restrict |__restrict__ ){name}\b", norm.code), name
    first = next(source for source in sources if source.name == "matmul_bias_gelu")
    assert (
        "const float *fc1_weight;\n    const float *in12;\n    const float *fc1_bias;" in first.code
    )
    assert "const float v14 = given;               // %14 matmul, test_reading.py:" in first.code


def test_outputs_and_rows_have_the_numbers_of_values() -> None:
    _, (source,) = _planned(lambda x: (x + 1.0, F.softmax(x + 1.0)), [ROWS], Dialect.HOST)
    assert "float *const restrict out6 = mm_buffers[1];" in source.code
    assert "float *const restrict out1 = mm_buffers[2];" in source.code
    assert "row4[x1] = v4;" in source.code
    assert "sum5 += v4;" in source.code


def test_an_overwritten_buffer_keeps_the_name() -> None:
    fn, types = CASES["rope_cache"]
    _, (source,) = _planned(fn, types, Dialect.HOST)
    assert "float *const restrict keys = mm_buffers[4];" in source.code


def test_nested_arguments_are_called_after_keys() -> None:
    def fn(pair: Any, cache: Any) -> Tensor:
        return pair[0] + pair[1] * cache["key states"]

    x = f32("n")
    model = compiled(fn, [x, x], {"key states": x})  # type: ignore[arg-type]
    assert "(%pair.0: float32[n], %pair.1: float32[n], %cache.key_states: float32[n])" in str(
        model.graph
    )
    for name in ("pair_0", "pair_1", "cache_key_states"):
        assert f"float *const restrict {name} = " in model.kernels[0].code


def test_names_that_c_has_already_get_a_number() -> None:
    def fn(double: Tensor, i0: Tensor, out: Tensor, mm_first: Tensor, NAN: Tensor) -> Tensor:  # noqa: N803
        return double + i0 * out - mm_first / NAN

    model = compiled(fn, *(f32("n"),) * 5)
    names = re.findall(r"float \*const restrict (\w+) = ", model.kernels[0].code)
    assert {*names} == {"double_2", "i0_2", "out", "_mm_first", "NAN_2", "out_2"}


def test_names_of_weights_are_clipped() -> None:
    weight = Tensor(np.ones(4, np.float32))
    name = f"h.3.{'long' * 20}.weight"
    _, (source,) = _planned(lambda x: x * weight, [f32("n", 4)], Dialect.HOST, {name: weight})
    (found,) = re.findall(r"restrict (long\w+) = ", source.code)
    assert len(found) == MAX_LENGTH
    assert f"  // @{name}\n" in source.code


@pytest.mark.parametrize("file", ["a\nb.py", "back\\", "日本.py"], ids=repr)
def test_names_of_files_cannot_end_a_remark(file: str) -> None:
    namespace: dict[str, Any] = {}
    exec(compile("def fn(x):\n    return x * 2.0 + 1.0\n", file, "exec"), namespace)
    _, (source,) = _planned(namespace["fn"], [f32("n")], Dialect.HOST)
    remarks = [line.partition("// ")[2] for line in source.code.split("\n") if "// %" in line]
    assert len(remarks) == 3
    assert all("\\" not in remark for remark in remarks)
    assert all(remark.endswith((".py:2", "?:2")) for remark in remarks[1:])


# ---- it is what runs -----------------------------------------------------------------------------

PROGRAMS = {**CASES, **GENERATED}
# The first line of each hand-written file.
_FIRST_LINES = [
    path.read_text("utf-8").split("\n")[0] for path in Path(kernel_text.folder()).glob("*/*.h")
]
_TOKENS = re.compile(r'"(?:[^"\\\n]|\\.)*"|\.?\w+|[^\w\s]')  # members with their dot


def _generated(text: str) -> str:
    """Returns the text before hand-written files, which have variables of their own."""
    starts = [text.find(start) for start in _FIRST_LINES]
    return text[: min((start for start in starts if start >= 0), default=len(text))]


def _tokens(text: str) -> list[str]:
    return _TOKENS.findall(re.sub(r"//.*", "", _generated(text)))


@DIALECTS
@pytest.mark.parametrize("name", PROGRAMS)
def test_names_and_remarks_are_all_that_differs(name: str, dialect: Dialect) -> None:
    fn, types = PROGRAMS[name]
    for source in _planned(fn, types, dialect)[1]:
        plain, shown = source.plain.split("\n"), source.code.split("\n")
        assert len(plain) == len(shown)
        pairs = list(zip(_tokens(source.plain), _tokens(source.code), strict=True))
        there, back = dict(pairs), dict(map(reversed, pairs))  # type: ignore[arg-type]
        assert all(there[a] == b and back[b] == a for a, b in pairs), "a name has two meanings"
        changed = [a for a, b in there.items() if a != b]
        assert all(re.fullmatch(r"\.?(t[a-z]?|[bdefhnoqrsv]|mm_part)\d+", a) for a in changed)


@pytest.mark.skipif(bool(NO_COMPILER), reason=NO_COMPILER or "-")
def test_readable_kernels_compile_on_the_host() -> None:
    sources = [
        source for fn, types in CASES.values() for source in _planned(fn, types, Dialect.HOST)[1]
    ]
    for number, source in enumerate(sources):
        host_compiler.build(
            KernelSource(f"k{number}", Dialect.HOST, source.code, "mm_kernel", 0, 0)
        )


@pytest.mark.skipif(bool(NO_SHIM), reason=NO_SHIM or "-")
def test_readable_kernels_compile_as_cuda() -> None:
    sources = [
        source for fn, types in CASES.values() for source in _planned(fn, types, Dialect.CUDA)[1]
    ]
    codes = [cuda_shim.Code(source.code, "mm_kernel") for source in sources]
    assert len(cuda_shim.Module(codes, kernel_text.prelude(Dialect.CUDA)).kernels) == len(sources)


def test_buffers_of_a_whole_op_keep_numbers() -> None:
    types = choose_types("rows", "size")
    (source,) = _planned(choose_tokens, types, Dialect.HOST)[1]
    assert source.name == "choose_tokens"
    assert source.code == source.plain


def test_hand_written_text_leaves_the_names_of_variables_alone() -> None:
    """Generated names are replaced everywhere: buffers as members, nothing else."""
    for path in Path(kernel_text.folder()).rglob("*.h"):
        text = re.sub(r'"(?:[^"\\\n]|\\.)*"|//.*', "", path.read_text("utf-8"))
        assert not re.findall(r"(?<!g\.)\b(?:b|t[a-z]?)\d+\b", text), path


# ---- one kernel for equal text -------------------------------------------------------------------


def _gelu_here(x: Tensor) -> Tensor:
    return F.gelu(x * 3.0) + 1.0


def _gelu_there(y: Tensor) -> Tensor:
    return F.gelu(y * 3.0) + 1.0


@DIALECTS
def test_lines_and_names_do_not_make_another_kernel(dialect: Dialect) -> None:
    _, (here,) = _planned(_gelu_here, [f32("n")], dialect)
    _, (there,) = _planned(_gelu_there, [f32("n")], dialect)
    assert here.plain == there.plain
    assert here == there
    assert here.code != there.code


def test_layers_share_kernels_which_read_as_the_first_layer() -> None:
    def sources(layers: int) -> tuple[KernelSource, ...]:
        model = Sequential(*(Block(64) for _ in range(layers)))
        return _planned(model, [ROWS], Dialect.HOST, dict(model.parameters))[1]

    two, four = sources(2), sources(4)
    assert [source.name for source in four] == [source.name for source in two]
    assert [source.plain for source in four] == [source.plain for source in two]
    assert "// @0.norm.weight" in four[0].code
    assert "restrict norm_weight = " in four[0].code


HALVES = TensorType(DType.bfloat16, ["batch", 4096], CPU_REF)


def test_values_that_only_one_way_of_a_choice_makes_have_no_number() -> None:
    """Many rows of a quantised product: its weight becomes floats first, which the graph lacks."""
    codes = TensorType(DType.int8, [64, 4096], CPU_REF)
    scales = TensorType(DType.float32, [64, 1], CPU_REF)
    fn = partial(call, "quantized_linear")
    _, sources = _planned(fn, [HALVES, codes, scales], Dialect.CUDA)
    (many,) = (source for source in sources if source.name.startswith("map_"))
    assert "quantized_linear" in many.name
    assert "const float v_scratch" in many.code
    assert not re.search(r"\bv\d+ = ", many.code)
