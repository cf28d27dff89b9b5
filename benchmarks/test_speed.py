"""The workloads under pytest-benchmark: `python -m pytest benchmarks`.

The plugin prints a table for each workload and can save and compare runs (`--benchmark-autosave`,
`--benchmark-compare`). It times one contender after the other; for ratios between contenders on a
machine that others use, run the scripts, which let them take turns.
"""

from __future__ import annotations

from typing import Any

import gpt2_prefill
import harness
import limits
import peers
import pytest
import workloads

pytestmark = pytest.mark.filterwarnings("default")  # other libraries warn about their own future

CONTENDERS = ["maxmod", *(peer for peer in harness.PEERS if harness.is_installed(peer))]


@pytest.mark.parametrize("contender", ["limit", *CONTENDERS])
@pytest.mark.parametrize("name", workloads.BY_NAME)
def test_workload(benchmark: Any, name: str, contender: str) -> None:
    """One small graph by one contender."""
    benchmark.group = name
    case = workloads.BY_NAME[name]
    arrays = workloads.inputs(case)
    if contender == "limit":
        found = workloads.limit(case, arrays)
        if found is None:
            pytest.skip(f"{name} has no limit: it is all overhead, or there is no C compiler")
        benchmark.extra_info["limit"] = found[0]
        benchmark(found[1])
        return
    expected = peers.numpy_call(case.kind, arrays)().copy()
    if contender == "maxmod":
        call, benchmark.extra_info["kernels"] = peers.maxmod_call(case.kind, arrays)
    else:
        call = peers.peer_call(contender, case.kind, arrays)
    harness.check(contender, call(), expected)
    benchmark(call)


@pytest.mark.parametrize("contender", CONTENDERS)
def test_gpt2_prefill(benchmark: Any, contender: str) -> None:
    """GPT-2 small, 128 tokens."""
    benchmark.group = "gpt2_prefill"
    model, weights = gpt2_prefill.make_model(gpt2_prefill.SMALL)
    tokens = gpt2_prefill.make_tokens(gpt2_prefill.SMALL, 128)
    if contender == "maxmod":
        call, benchmark.extra_info["kernels"] = gpt2_prefill.maxmod_call(model, tokens)
    else:
        call = gpt2_prefill.peer_call(contender, gpt2_prefill.SMALL, weights, tokens)
    expected = gpt2_prefill.numpy_call(gpt2_prefill.SMALL, weights, tokens)()
    harness.check(contender, call(), expected)
    benchmark(call)


@pytest.mark.parametrize("name", limits.probes(1 << 20, 64))
def test_limit(benchmark: Any, name: str) -> None:
    """One limit of the machine; `extra_info` has the work of a call."""
    benchmark.group = "limits"
    call, work, unit = limits.probes(limits.COPY_NBYTES, limits.GEMM_SIZE)[name]
    benchmark.extra_info[unit.removesuffix("/s")] = work
    benchmark(call)
