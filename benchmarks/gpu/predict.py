"""What a token costs on a GPU, predicted without one.

    python benchmarks/gpu/predict.py [--models 8B,1B,GPT-2] [--dtypes bf16,int8,int4] [--json FILE]

Launches and bytes come from the plan of a decoding step (one sequence, 512 rows of cache, sm_90);
sectors of 32 bytes, passes of shared memory and instructions from its PTX, which `tests/ptx` runs
on NumPy, one block of each kernel; registers, spills and loads in flight from its machine code.
What a missing tool would say is null (`pip install nvidia-cuda-nvrtc nvidia-cuda-nvdisasm`).

The time is that of a model of one H200, whose constants are below. It has no cache, and knows
nothing of what a kernel shares with the one before: its figures rank changes, and are not
measurements.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))
sys.path.insert(0, str(Path(__file__).parent))

import machine_code
import numpy as np
import plans
from machine_code import MachineCode

from maxmod.backends.cuda import nvrtc
from maxmod.compiler.steps import RunKernel
from maxmod.dtype import storage_dtype
from maxmod.kernel.source import KernelSource

PROCESSORS = 132
THREADS = PROCESSORS * 2048
CLOCK = 1.75e9  # in a second, as H100 and H200 run under load
BANDWIDTH = 4.3e12  # bytes in a second; a device copy of an H200 reaches it
MEMORY_S = 0.7e-6  # from asking for bytes of DRAM to having them; microbenchmarks of H100
# Between two kernels of a CUDA graph. Hazy Research, "Look Ma, No Bubbles", May 2025, on an H100.
BOUNDARY_S = 1.3e-6
# The start and the end of a product, in which few bytes move: with the boundary it gives the 3.2 us
# that vLLM's 8B takes for each of its 290 nodes above the time of its bytes (5.93 ms on an H100).
RAMP_S = 2.3e-6
# A sum over a row by each block of a product, while it stages that row: two trees of five shuffles
# that wait for each other, at 25 clocks, and a barrier.
ROW_SUM_S = 0.2e-6
SMALL_S = 2.0e-6  # two loads that follow each other, and a store: norms, maps
# A round of attention waits twice for memory, and computes; before and after it are the merge of
# the parts and its atomic operation.
ROUND_S = 2 * MEMORY_S + 0.45e-6
MERGE_S = 3.0e-6
CHOOSE_S = 12e-6  # the largest of 128 k numbers by one block, 2.1 passes of 5 to 6 us
LANES = 128  # instructions of a thread that a multiprocessor starts in a clock
BUSY = 0.9  # of them, at best


@dataclass(frozen=True)
class Cost:
    """What a launch of a kernel costs.

    Attributes:
        name: The kernel.
        nbytes: What it moves at least.
        sector_ratio: Sectors over the fewest possible; None without NVRTC.
        bank_ratio: Passes of shared memory over the fewest possible.
        instructions: Of threads, for each byte of its sectors.
        passes: Of shared memory, for each byte.
        in_flight: Bytes of a thread.
        code: Its machine code; None without NVRTC.
        time_s: Predicted.
    """

    name: str
    nbytes: int
    sector_ratio: float | None = None
    bank_ratio: float | None = None
    instructions: float | None = None
    passes: float | None = None
    code: MachineCode | None = None
    time_s: float = 0.0

    @property
    def in_flight(self) -> int | None:
        """Bytes that a thread has asked for at once."""
        return None if self.code is None else self.code.in_flight


def is_product(name: str) -> bool:
    """True for what reads weights."""
    return "matmul" in name or "quantized_linear" in name


def launch_cost(plan: plans.Plan, step: Any, facts: Any, known: dict[str, Cost]) -> Cost:
    """Returns what a launch costs; equal kernels are looked at once."""
    nbytes = sum(int(str(plan.facts.number(size))) for size in facts.cost[:2])
    source = plan.facts.plan.kernels[step.kernel] if isinstance(step, RunKernel) else None
    key = facts.name if source is None else source.plain
    if key not in known:
        known[key] = _looked_at(plan, step, source, Cost(facts.name, nbytes))
    cost = dataclasses.replace(known[key], nbytes=nbytes)
    return dataclasses.replace(cost, time_s=_time(cost, source, plan))


def _looked_at(plan: plans.Plan, step: Any, source: KernelSource | None, cost: Cost) -> Cost:
    if source is None or not nvrtc.is_available():
        return cost
    cost = dataclasses.replace(cost, code=machine_code.compiled(source, plans.ARCHITECTURE))
    if cost.nbytes > 1 << 29:  # the head is a product like those of the layers, and does not fit
        return cost
    counts = _counts(plan, step, source)
    read = max(counts.sectors * 32, 1)
    passes = sum(a.used for a in counts.accesses.values() if a.space == "shared")
    return dataclasses.replace(
        cost,
        sector_ratio=counts.sector_ratio,
        bank_ratio=counts.pass_ratio,
        instructions=32 * sum(counts.instructions.values()) / read,
        passes=passes / read,
    )


def _counts(plan: plans.Plan, step: RunKernel, source: KernelSource) -> Any:
    """Runs one block of a kernel on zeros; the cache has so many rows in use."""
    from ptx import Buffer, Grid, launch
    from ptx.compiling import kernels_of
    from ptx.memory import Memory

    dims = dict(plan.facts.dims)
    grid = source.launch.grid({name: dims[name] for name in source.symbols}, THREADS)
    args: list[Any] = [_array(plan.types[slot]) for slot in step.inputs]
    for slot, target, type in zip(step.outputs, step.targets, step.types):
        bound = (
            plan.types[target]
            if target >= 0
            else plan.types[slot]
            if slot < len(plan.types)
            else type
        )
        args.append(Buffer(_array(bound)))
    if source.counters != 0:
        args.append(Buffer(np.zeros(4096, np.uint32)))
    args += [np.int64(dims[name]) for name in source.symbols]
    (kernel,) = kernels_of([source])
    shape = Grid(grid.blocks, grid.threads, grid.shared_nbytes)
    with mock.patch.object(Memory, "_watch"):  # races are for tests; looking for them takes longer
        return launch(kernel, shape, args, blocks=[0], lanes=1024)


def _array(type: Any) -> np.ndarray[Any, Any]:
    array = np.zeros(type.sizes, storage_dtype(type.dtype))
    if type.dtype.is_integral() and array.size == 1:  # where in the cache, or in a table
        array[...] = plans.LENGTH - 1
    return array


# ---- time ----------------------------------------------------------------------------------------


def _time(cost: Cost, source: KernelSource | None, plan: plans.Plan) -> float:
    """Returns the seconds of a launch, its boundary included."""
    if cost.name.startswith("choose"):
        return BOUNDARY_S + CHOOSE_S
    if cost.name.startswith("attention"):
        rounds = _rounds(source.code if source else "")
        return BOUNDARY_S + MERGE_S + rounds * ROUND_S
    bound_s = cost.nbytes * (cost.sector_ratio or 1.0) / BANDWIDTH
    if is_product(cost.name):
        start_s = RAMP_S + ROW_SUM_S * _row_sums(source)
        return BOUNDARY_S + start_s + max(bound_s, *_other_bounds(cost, source))
    return BOUNDARY_S + SMALL_S + bound_s


def _other_bounds(cost: Cost, source: KernelSource | None) -> list[float]:
    """Returns the seconds that loads in flight, instructions and shared memory allow at best."""
    found = [0.0]
    if cost.code is not None and cost.code.in_flight and source is not None:
        threads = source.launch.threads
        shared = source.launch.shared_nbytes
        blocks = cost.code.blocks(threads, shared if isinstance(shared, int) else 0)
        blocks = min(blocks, max(2048 // threads // source.launch.inverse_occupancy, 1))
        rate = PROCESSORS * blocks * threads * cost.code.in_flight / MEMORY_S
        found.append(cost.nbytes / rate)
    if cost.instructions is not None and cost.passes is not None:
        found.append(cost.nbytes * cost.instructions / (PROCESSORS * LANES * CLOCK * BUSY))
        found.append(cost.nbytes * cost.passes / (PROCESSORS * CLOCK))
    return found


def _row_sums(source: KernelSource | None) -> int:
    """Returns how often the blocks of a product sum up a row of their left operand."""
    text = "" if source is None else source.plain
    return len(re.findall(r"= mm_block_\w+\(", text)) if "MM_HAS_PROLOGUE\n" in text else 0


def _rounds(text: str) -> int:
    """Returns how often a part of attention waits for keys and values."""

    def number(name: str, default: int) -> int:
        found = re.search(rf"{name} ?=? (\d+)", text)
        return int(found[1]) if found else default

    keys = 128 // number("MM_LANES", 16) * number("MM_AHEAD", 4)
    return math.ceil(min(plans.LENGTH, number("MM_FEWEST_KEYS", 256)) / keys)


# ---- a model -------------------------------------------------------------------------------------


def predicted(model: str, dtype: str, *, is_short: bool = False) -> dict[str, Any]:
    """Returns the figures of a model, with those of each kernel of a layer.

    Args:
        model: A key of `plans.MODELS`.
        dtype: Of `plans.DTYPES`.
        is_short: Look at no machine code and run no PTX.
    """
    known: dict[str, Cost] = {}
    costs: dict[int, list[Cost]] = {}
    layers = plans.MODELS[model][1]
    with plans.planning():
        for count in (2, 3):  # a step with one layer more has the launches of a layer more
            plan = plans.decoding(model, dtype, count)
            costs[count] = []
            for step, facts in plan.launches:
                if is_short:
                    known.setdefault(_key(plan, step, facts), Cost(facts.name, 0))
                costs[count].append(launch_cost(plan, step, facts, known))
    total = {count: sum(cost.time_s for cost in found) for count, found in costs.items()}
    step_s = total[2] + (layers - 2) * (total[3] - total[2])
    of_layer = len(costs[3]) - len(costs[2])
    shown = {(cost.name, cost.nbytes): cost for cost in costs[3]}.values()
    products = [cost for cost in shown if is_product(cost.name)]
    return {
        "model": model,
        "dtype": dtype,
        "launches_per_layer": of_layer,
        "tokens_per_second": round(1 / step_s, 1),
        "worst_sector_ratio": _most(cost.sector_ratio for cost in shown),
        "worst_bank_ratio": _most(cost.bank_ratio for cost in shown),
        "least_bytes_in_flight": _least(cost.in_flight for cost in products),
        "spills": _sum(cost.code.spills if cost.code else None for cost in shown),
        "bytes_per_token": sum(c.nbytes for c in costs[2])
        + (layers - 2) * (sum(c.nbytes for c in costs[3]) - sum(c.nbytes for c in costs[2])),
        "instructions_per_byte": _most(cost.instructions for cost in products),
        "step_us": round(step_s * 1e6, 1),
        "kernels": [_row(cost) for cost in shown],
    }


def _key(plan: plans.Plan, step: Any, facts: Any) -> str:
    is_kernel = isinstance(step, RunKernel)
    return plan.facts.plan.kernels[step.kernel].plain if is_kernel else facts.name


def _row(cost: Cost) -> dict[str, Any]:
    found = dataclasses.asdict(cost)
    found.pop("code")
    code = cost.code
    return found | {
        "in_flight": cost.in_flight,
        "registers": None if code is None else code.registers,
        "spills": None if code is None else code.spills,
        "time_s": cost.time_s,
    }


def _known(values: Any) -> list[Any]:
    return [value for value in values if value is not None]


def _most(values: Any) -> float | None:
    return max((round(value, 3) for value in _known(values)), default=None)


def _least(values: Any) -> int | None:
    return min(_known(values), default=None)


def _sum(values: Any) -> int | None:
    found = _known(values)
    return sum(found) if found else None


# ---- showing it ----------------------------------------------------------------------------------

_COLUMNS = (
    ("model", "model"),
    ("dtype", "dtype"),
    ("launches a layer", "launches_per_layer"),
    ("tok/s", "tokens_per_second"),
    ("sectors / ideal", "worst_sector_ratio"),
    ("passes / ideal", "worst_bank_ratio"),
    ("bytes in flight", "least_bytes_in_flight"),
    ("spills", "spills"),
    ("instructions a byte", "instructions_per_byte"),
)


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the figures as a table of Markdown."""
    lines = [" | ".join(title for title, _ in _COLUMNS), " | ".join("---" for _ in _COLUMNS)]
    for row in rows:
        cells = ["-" if row[key] is None else str(row[key]) for _, key in _COLUMNS]
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table, and writes all figures."""
    made = argparse.ArgumentParser(description="What a token costs on a GPU, predicted.")
    made.add_argument("--models", default=",".join(plans.MODELS))
    made.add_argument("--dtypes", default=",".join(plans.DTYPES))
    made.add_argument("--short", action="store_true", help="look at plans only, not at code")
    made.add_argument("--kernels", action="store_true", help="show each kernel as well")
    made.add_argument("--json", type=Path, metavar="FILE")
    options = made.parse_args(argv)
    rows = []
    for model in options.models.split(","):
        for dtype in options.dtypes.split(","):
            rows.append(predicted(model, dtype, is_short=options.short))
            if options.kernels:
                for kernel in rows[-1]["kernels"]:
                    print(json.dumps(kernel))
    print(table(rows))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
