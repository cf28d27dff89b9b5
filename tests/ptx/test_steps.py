"""Whole steps of small models as PTX: every kernel against float64, and the token of the host."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from helpers import run_op

from maxmod.backends.cuda import nvrtc
from maxmod.compiler.steps import RunKernel, RunProduct
from ptx.exact import wanted
from ptx.schedules import Kernels, Ran, Run
from ptx.small_models import Case, arguments, planned

pytestmark = pytest.mark.skipif(
    not nvrtc.is_available(), reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
)
TOKENS = [Case(name, kind) for name in ("llama", "gpt2") for kind in ("bfloat16", "int8", "int4")]
PROMPTS = [Case("llama", "bfloat16", True), Case("gpt2", "float32", True)]
USED, LENGTH, PROMPT = 30, 64, 20
# In parts of the largest result. A kernel rounds to bfloat16 several times.
TOLERANCE = {"bfloat16": 2.0**-6, "float32": 2e-5, "float64": 1e-12}


@dataclass(frozen=True)
class Limit:
    """What a kernel may cost, as parts of the ideal.

    Attributes:
        sectors: Of global memory.
        passes: Of shared memory.
    """

    sectors: float = 1.05
    passes: float = 1.0


# Kernels beyond the limits, by a part of their names, as they are today. To be lowered with them.
EXCEPTIONS: dict[str, Limit] = {
    # Halves are stored one by one, though neighbours belong to a thread.
    "update_rows": Limit(sectors=3.85),
    # Few threads read few numbers, each in a sector that others use later.
    "_sin": Limit(sectors=1.25),
    "_cos": Limit(sectors=1.35),
    # Queries are read number by number, the sums of a team are left number by number.
    "attention": Limit(sectors=2.8, passes=1.25),
    # Each lane reads 32 or 64 bytes of the left operand in pieces of 16: lanes meet in their banks.
    "quantized": Limit(sectors=1.1, passes=1.55),
}


@functools.cache
def _kernels() -> Kernels:
    return Kernels([planned(case).plan for case in (*TOKENS, *PROMPTS)])


@functools.cache
def _ran(case: Case) -> tuple[list[Ran], int, int]:
    """Returns the kernels of a step, the token that they chose, and that of the host."""
    step = planned(case)
    given = arguments(case, used=USED, length=LENGTH, prompt=_prompt(case))
    arrays = given.arrays()
    run = Run(step.plan, _kernels(), _dims(case), run_op)
    run(arrays, step.weights)
    (chosen,) = (a for a in arrays[-7:] if a.dtype == np.int64 and a.shape == (1, 1))
    parts = (given.cache, given.sampler, given.prompt)
    step.next_tokens(*[part for part in parts if part is not None])
    return run.ran, int(chosen[0, 0]), int(np.asarray(given.sampler.tokens.data)[0, 0])


def _prompt(case: Case) -> list[int]:
    return list(range(5, 5 + PROMPT)) if case.is_prompt else []


def _dims(case: Case) -> dict[str, int]:
    return {"length": LENGTH, **({"seq": PROMPT} if case.is_prompt else {})}


@pytest.mark.parametrize("case", [*TOKENS, *PROMPTS], ids=str)
def test_the_token_is_that_of_the_host(case: Case) -> None:
    ran, found, on_host = _ran(case)
    assert found == on_host
    launched = planned(case).plan.bound_steps(_dims(case))
    assert len(ran) == sum(isinstance(step, RunKernel) for step in launched)


@pytest.mark.parametrize("case", [*TOKENS, *PROMPTS], ids=str)
def test_each_kernel_agrees_with_float64(case: Case) -> None:
    for one in _ran(case)[0]:
        exact = wanted(one, _dims(case))
        for value, array in zip(one.group.outputs, exact, strict=True):
            _compare(one.source.name, one.made[value], array)


def _compare(name: str, found: Any, exact: Any) -> None:
    if found.dtype.kind in "iub":
        np.testing.assert_array_equal(found, exact, err_msg=name)
        return
    size = np.abs(exact[np.isfinite(exact)]).max(initial=0)
    tolerance = TOLERANCE[found.dtype.name] * max(float(size), 1e-3)
    np.testing.assert_allclose(
        found.astype(np.float64), exact, rtol=0, atol=tolerance, err_msg=name
    )


@pytest.mark.parametrize("case", [*TOKENS, *PROMPTS], ids=str)
def test_accesses_stay_near_the_ideal(case: Case) -> None:
    wrong = []
    for one in _ran(case)[0]:
        name, counts = one.source.name, one.counts
        limit = next((EXCEPTIONS[part] for part in EXCEPTIONS if part in name), Limit())
        if counts.sector_ratio > limit.sectors or counts.pass_ratio > limit.passes:
            worst = [*counts.worst("global")[:2], *counts.worst("shared")[:2]]
            places = [f"{a.ratio:.2f} {a.instruction.text}" for a in worst]
            wrong.append((name, counts.sector_ratio, counts.pass_ratio, places))
    assert not wrong


# ---- launches ------------------------------------------------------------------------------------

# (launches of each layer, all others) of one token; the goals are 6 and 5 of a layer, 2 to start.
LAUNCHES = {
    Case("llama_8b", "bfloat16"): (6, 7),
    Case("llama_8b", "int8"): (6, 7),
    Case("llama_8b", "int4"): (6, 7),
    Case("llama_1b", "bfloat16"): (6, 7),
    Case("gpt2_124m", "float32"): (6, 6),
    Case("gpt2_124m", "bfloat16"): (6, 6),
}


@pytest.mark.parametrize("case", LAUNCHES, ids=str)
def test_launches(case: Case) -> None:
    """A change of the planner that adds or saves one is seen."""
    two, three = (_launches(planned(case, layers=layers)) for layers in (2, 3))
    each = three - two
    assert (each, two - 2 * each) == LAUNCHES[case]


def _launches(step: Any) -> int:
    steps = step.plan.bound_steps({"length": 512})
    return sum(isinstance(one, (RunKernel, RunProduct)) for one in steps)
