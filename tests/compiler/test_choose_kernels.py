"""The tables of `choose_kernels` say what happens: each of their lines is planned and looked at."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, NamedTuple

import pytest
from compiler.graphs import traced
from helpers import run_op

from maxmod import DType, TensorType
from maxmod import functional as F
from maxmod.compiler import choose_kernels
from maxmod.compiler.pipeline import optimize
from maxmod.compiler.schedule import schedule
from maxmod.compiler.steps import RunProduct, Schedule
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect
from maxmod.ops.weight_quantization import quantized_types
from maxmod.values.device import CPU_REF

COLUMNS = 48
DEPTH = 64


def _tables() -> list[list[dict[str, str]]]:
    """Returns the tables of the docstring: their lines, by column."""
    found: list[list[dict[str, str]]] = []
    header: list[str] = []
    for line in (choose_kernels.__doc__ or "").splitlines():
        cells = [cell.strip() for cell in line.strip("| ").split("|")]
        if not line.startswith("|"):
            header = []
        elif not header:
            header = cells
            found.append([])
        elif not line.startswith("|-"):
            found[-1].append(dict(zip(header, cells, strict=True)))
    return found


PRODUCTS, ATTENTIONS = _tables()
FILES = {word for row in (*PRODUCTS, *ATTENTIONS) for cell in row.values() for word in cell.split()}
FILES = {word for word in FILES if word.endswith(".h")}


def _ends(numbers: str, most: int) -> list[Any]:
    """Returns the first and the last number of `1-8`, `9-` or `any`; a name is returned."""
    if numbers == "n":
        return ["n"]
    first, _, last = ("1", "-", "") if numbers == "any" else numbers.partition("-")
    return list(dict.fromkeys((int(first), int(last or most))))


def _planned(
    fn: Callable[..., Any], types: list[TensorType], device: str, gpu: str = ""
) -> Schedule:
    dialect = Dialect(device)
    graph = optimize(traced(fn, *types), run_op, dialect)
    return schedule(graph, dialect, gpu)


def _computed_by(plan: Schedule) -> set[str]:
    """Returns the files of hand-written kernels in a schedule, and `library` if it multiplies."""
    found = {
        name
        for name in FILES
        if any(kernel_text.read(name) in kernel.code for kernel in plan.kernels)
    }
    has_library = any(isinstance(step, RunProduct) for step in plan.all_steps)
    return found | ({"library"} if has_library else set())


# ---- products ----------------------------------------------------------------------------------


class _Product(NamedTuple):
    """A case of one line: `multiply(*operands)` of these types."""

    multiply: Callable[..., Any]
    types: list[TensorType]


def _product(rows: Any, dtype: DType, weight: str) -> _Product:
    def type(*sizes: Any) -> TensorType:
        return TensorType(dtype, sizes, CPU_REF)

    if weight == "2 axes":
        return _Product(F.matmul, [type(rows, DEPTH), type(DEPTH, COLUMNS)])
    if weight == "3 axes":
        return _Product(F.matmul, [type(2, rows, DEPTH), type(2, DEPTH, COLUMNS)])
    group = {"int8": None, "int4": 32}[weight]
    codes, scales = quantized_types(type(COLUMNS, DEPTH), weight, group)
    return _Product(F.quantized_linear, [type(rows, DEPTH), codes, scales])


def _cases(row: dict[str, str]) -> list[_Product]:
    weights = [row["w"]] if "axes" in row["w"] else row["w"].split()
    dtypes = [DType[name] for name in row["dtype of x"].split()]
    return [_product(*case) for case in product(_ends(row["rows"], 64), dtypes, weights)]


def _line(row: dict[str, str]) -> str:
    return " ".join(row.values())


@pytest.mark.parametrize("row", PRODUCTS, ids=_line)
def test_kernels_of_products(row: dict[str, str]) -> None:
    for case in _cases(row):
        plan = _planned(case.multiply, case.types, row["device"])
        assert _computed_by(plan) == set(row["multiplied by"].split()), case.types


def _with_all(case: _Product, *args: Any) -> Any:
    x, vector, other = case.multiply(*args[:-2]), *args[-2:]
    return F.sqrt(F.relu(x + vector)) * other


def _with_vector(case: _Product, *args: Any) -> Any:
    return F.gelu(case.multiply(*args[:-2]) + args[-2], approximate="tanh")


def _with_addend(case: _Product, *args: Any) -> Any:
    return case.multiply(*args[:-2]) + args[-1]


EPILOGUES: dict[str, tuple[Callable[..., Any], ...]] = {
    "none": (),
    "addend": (_with_addend,),
    "of library": (_with_addend, _with_vector),
    "all": (_with_addend, _with_vector, _with_all),
}


@pytest.mark.parametrize("row", PRODUCTS, ids=_line)
def test_epilogues_of_products(row: dict[str, str]) -> None:
    """An epilogue of a line adds no step, every other one adds one."""
    for case in _cases(row):
        bare = _planned(case.multiply, case.types, row["device"])
        out = bare.output_types[0]
        types = [*case.types, TensorType(out.dtype, [COLUMNS], CPU_REF), out]
        for fn in EPILOGUES["all"]:
            if fn is not _with_addend and not out.dtype.is_float():
                continue  # gelu is of floats
            steps = _planned(partial(fn, case), types, row["device"]).steps_for_many
            is_joined = len(steps) == len(bare.steps_for_many)
            assert is_joined == (fn in EPILOGUES[row["epilogue"]]), (fn.__name__, case.types)


# ---- attention ---------------------------------------------------------------------------------


def _scored_in_type_of_q(q: Any, k: Any, v: Any) -> Any:
    return F.softmax(q @ F.permute(k, [0, 2, 1]) * 0.125) @ v


SCORES: dict[str, Callable[..., Any]] = {
    "float32": F.scaled_dot_product_attention,
    "of q": _scored_in_type_of_q,
}


@pytest.mark.parametrize("row", ATTENTIONS, ids=_line)
def test_kernels_of_attention(row: dict[str, str]) -> None:
    dtypes = [DType[name] for name in row["dtype of q, k and v"].split()]
    first, dash, _ = row["GPU"].partition("-")
    gpus = dict.fromkeys((first, "sm_90" if dash else first))
    fns = SCORES.values() if row["scores"] == "any" else [SCORES[row["scores"]]]
    cases = product(dtypes, _ends(row["rows"], 40), _ends(row["head"], 520), fns, gpus)
    for dtype, rows, head, fn, gpu in cases:
        types = [TensorType(dtype, [2, n, head], CPU_REF) for n in (rows, 40, 40)]
        plan = _planned(fn, types, row["device"], gpu)
        found = {name for name in _computed_by(plan) if "attention" in name}
        assert (found or {"ops"}) == {row["attended by"]}, (fn, types, gpu)


def test_heads_that_share_keys_count_as_rows() -> None:
    """Four heads of five queries are more than the sixteen of the kernel for few."""
    types = [TensorType(DType.float32, [1, n, 5, 32], CPU_REF) for n in (4, 1, 1)]
    plan = _planned(F.scaled_dot_product_attention, types, "cuda")
    assert _computed_by(plan) == {choose_kernels.ManyQueries.FLOAT32.value}
    assert _computed_by(_planned(F.scaled_dot_product_attention, types[1:2] * 3, "cuda")) == {
        "cuda/attention_few.h"
    }


def test_a_number_of_queries_known_later_makes_both_kernels() -> None:
    types = [TensorType(DType.float16, [2, "n", 32], CPU_REF)] * 3
    plan = _planned(F.scaled_dot_product_attention, types, "cuda", "sm_90")
    (step,) = plan.steps
    assert step.limit == choose_kernels.FEW_QUERIES
    assert _computed_by(plan) == {"cuda/attention_few.h", "cuda/attention_mma.h"}


def test_rows_up_to_which_the_host_does_not_pack_a_weight() -> None:
    assert "#define MM_FEW_ROWS 8\n" in kernel_text.read("host/gemm_few.h")
