"""What a call costs beyond its work: compiled calls and eager ops on eight floats.

    python benchmarks/call_overhead.py [--peers numpy,torch,jax] [--smoke]

- `x + 1` on 8 float32: eager maxmod, NumPy, PyTorch and JAX; compiled by maxmod, torch.compile and
  `jax.jit`.
- Linear 10-20-5 on a batch of 5, two matrix products and two additions: compiled by maxmod, against
  the bare NumPy expression and the peers.

All of it is Python and dispatch: the arithmetic takes well under a microsecond. Of an eager call, a
`with np.errstate` was a sixth; a separate context in which NumPy is silent costs a tenth of that.
Members of an enumeration are looked up as slowly as a function is called. Each timed call goes
through a lambda, which costs 0.05 us everywhere. JAX is waited for in each call; without that, its
eager calls would look faster than they are.
"""

from __future__ import annotations

import warnings
from typing import Any

import harness
import numpy as np
import peers
import workloads
from harness import Call, Timing

from maxmod import DeviceRef, DType, Module, Tensor, TensorType

SIZE = 8


class AddOne(Module[[Tensor], Tensor]):
    """x + 1"""

    def forward(self, x: Tensor) -> Tensor:
        """Adds 1."""
        return x + 1


def add_one_calls(chosen: list[str]) -> dict[str, Call]:
    """Returns the calls of x + 1 by name, checked."""
    array = harness.normal((SIZE,))
    x = Tensor.from_dlpack(array)
    compiled = AddOne().compile(TensorType(DType.float32, [SIZE], DeviceRef.CPU()))
    calls: dict[str, Call] = {
        "NumPy": lambda: array + 1,
        "maxmod, eager": lambda: x + 1,
        f"{harness.maxmod_name(len(compiled.kernels))}": lambda: compiled(x),
    }
    if "torch" in chosen:
        calls["PyTorch, eager"] = _torch_add_one(array, compiles=False)
    if "torch.compile" in chosen:
        calls["torch.compile"] = _torch_add_one(array, compiles=True)
    if "jax" in chosen:
        calls |= _jax_add_one(array)
    for name, call in calls.items():
        harness.check(f"x + 1, {name}", call(), array + 1)
    return calls


def _torch_add_one(array: np.ndarray[Any, Any], *, compiles: bool) -> Call:
    import torch

    torch.set_grad_enabled(False)
    x = torch.from_numpy(array)
    if not compiles:
        return lambda: x + 1
    function = peers.torch_compiled(lambda value: value + 1)
    return lambda: function(x)


def _jax_add_one(array: np.ndarray[Any, Any]) -> dict[str, Call]:
    import jax
    import jax.numpy as jnp

    x = jnp.asarray(array)
    function = jax.jit(lambda value: value + 1)
    return {
        "JAX, eager": lambda: (x + 1).block_until_ready(),
        "JAX, jit": lambda: function(x).block_until_ready(),
    }


def linear_calls(chosen: list[str], smoke: bool) -> dict[str, Call]:
    """Returns the calls of Linear 10-20-5 by name, checked."""
    calls = workloads.contenders(workloads.BY_NAME["linear"], ["numpy", *_others(chosen)], smoke)
    return {"NumPy": calls.pop("NumPy"), **calls}


def _others(chosen: list[str]) -> list[str]:
    return [peer for peer in chosen if peer != "numpy"]


def print_overhead(title: str, timings: dict[str, Timing]) -> None:
    """Prints times and their ratios to NumPy, which comes first."""
    base = timings["NumPy"]
    rows = [
        (
            name,
            harness.duration(timing.median_s),
            harness.duration(timing.best_s),
            harness.ratio(timing.median_s, base.median_s),
        )
        for name, timing in timings.items()
    ]
    harness.print_table((title, "median", "best", "x NumPy"), rows)


def main() -> None:
    args = harness.parse(harness.parser(__doc__))
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    records = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other libraries, about their own future
        groups = {
            f"x + 1, {SIZE} floats": add_one_calls(args.peers),
            "Linear 10-20-5, batch 5": linear_calls(args.peers, args.smoke),
        }
    for title, calls in groups.items():
        timings = harness.measure(calls, args.rounds)
        print_overhead(title, timings)
        records += [harness.record(t, workload=title, contender=c) for c, t in timings.items()]
    harness.save(args, "call_overhead", facts, records)


if __name__ == "__main__":
    main()
