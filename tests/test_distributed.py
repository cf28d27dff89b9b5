"""Groups of processes, and collectives in compiled graphs, with stand-ins for the other processes.

`tests/parallel` has the tests that start several processes.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from emulated_cuda import _current_stream, _do_on, emulated_cuda
from helpers import run_op

import maxmod
from maxmod import CPU, DType, Tensor, TensorType, distributed
from maxmod import functional as F
from maxmod.cli import generate as command
from maxmod.compiler.packing import Packer, Unpacker
from maxmod.compiler.pipeline import plan_graph
from maxmod.compiler.steps import RunCollective
from maxmod.distributed import Group, NcclGroup, enter, group_for, joined, world
from maxmod.errors import ArgumentError, DTypeError, MissingPackageError, ShapeError, TraceError
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.runtime.plan_cache import PlanKey

pytestmark = pytest.mark.usefixtures("unoptimised_host_kernels")
X = Tensor(np.arange(8, dtype=np.float32).reshape(4, 2), device=CPU())


class Twins(Group):
    """A group whose other processes have the data of this one."""

    def __init__(self, rank: int = 0, size: int = 2) -> None:
        super().__init__(rank, size)
        self.calls: list[str] = []
        self.answers: list[int] = []  # of the other processes, to `least`

    def all_reduce(self, array: Any, out: Any) -> None:
        self.calls.append("all_reduce")
        out[...] = array * self.size

    def all_gather(self, array: Any, out: Any) -> None:
        self.calls.append("all_gather")
        out[...] = array

    def reduce_scatter(self, array: Any, out: Any) -> None:
        rows = out.shape[0]
        out[...] = array[self.rank * rows : (self.rank + 1) * rows] * self.size

    def least(self, number: int) -> int:
        return min([number, *self.answers[:1]])


@contextlib.contextmanager
def entered(group: Group) -> Iterator[Group]:
    """A block in a group, which is left afterwards."""
    groups, last = dict(distributed._GROUPS), list(distributed._JOINED)
    enter(group)
    try:
        yield group
    finally:
        distributed._GROUPS.clear()
        distributed._GROUPS.update(groups)
        distributed._JOINED[:] = last


def _host(tensor: Tensor) -> Any:
    return tensor.to(CPU()).to_numpy()


# ---- groups ------------------------------------------------------------------------------------


def test_without_a_launcher_the_world_is_one_process() -> None:
    group = world()
    assert (group.rank, group.size, group.local_rank) == (0, 1, 0)
    out = np.empty((1, 4, 2), np.float32)
    group.all_gather(X.to_numpy(), out)
    assert out[0].tolist() == X.to_numpy().tolist()
    for name in ("all_reduce", "reduce_scatter", "broadcast"):
        out = np.empty((4, 2), np.float32)
        getattr(group, name)(X.to_numpy(), out)
        assert out.tolist() == X.to_numpy().tolist()
    assert (group.least(3), group.share("a"), group.on(np)) == (3, "a", group)
    with pytest.raises(SystemExit):
        group.abort()


def test_a_rank_outside_of_the_group_is_refused() -> None:
    with pytest.raises(ArgumentError, match="rank: expected 0 to 1, got 2"):
        Group(2, 2)


def test_several_processes_need_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "_JOINED", [])
    monkeypatch.setitem(sys.modules, "mpi4py.MPI", None)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(MissingPackageError, match="2 processes .* pip install mpi4py"):
        world()


def test_a_graph_for_more_processes_is_refused_with_the_command() -> None:
    with pytest.raises(ArgumentError, match="for 3 processes .* group of 1.*mpirun -n 3"):
        group_for(3, np)


def test_an_unhandled_exception_ends_all_processes_with_a_message() -> None:
    code = """
from maxmod.distributed import Group, end_together
class Ends(Group):
    def abort(self):
        print("abort", flush=True)
end_together(Ends(1, 2))
raise ValueError("seven")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (1, "abort\n")
    assert "ValueError: seven\nmaxmod: rank 1 of 2 ended, and with it all." in done.stderr


class FakeNccl:
    """Like `NcclCommunicator`: keeps calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.calls.append((name, *given))


def test_nccl_gets_addresses_counts_types_and_the_stream() -> None:
    def array(ptr: int, size: int, dtype: str, itemsize: int) -> Any:
        pointer, kind = SimpleNamespace(ptr=ptr), SimpleNamespace(name=dtype)
        return SimpleNamespace(data=pointer, size=size, dtype=kind, nbytes=size * itemsize)

    fake = FakeNccl()
    types = {"bfloat16": 9, "float32": 7, "uint8": 1}
    group = NcclGroup(Twins(1), fake, types, lambda: 5)
    group.all_reduce(array(64, 6, "bfloat16", 2), array(128, 6, "bfloat16", 2))
    group.all_gather(array(64, 6, "float32", 4), array(128, 12, "float32", 4))
    group.reduce_scatter(array(64, 6, "float32", 4), array(128, 3, "float32", 4))
    group.broadcast(array(64, 6, "bfloat16", 2), array(128, 6, "bfloat16", 2))
    assert fake.calls == [
        ("allReduce", 64, 128, 6, 9, 0, 5),
        ("allGather", 64, 128, 24, 1, 5),
        ("reduceScatter", 64, 128, 3, 7, 0, 5),
        ("broadcast", 64, 128, 12, 1, 0, 5),
    ]
    assert (group.rank, group.size, group.least(4)) == (1, 2, 4)


def test_the_command_refuses_standard_input_in_several_processes() -> None:
    options = argparse.Namespace(prompt="-")
    with pytest.raises(ArgumentError, match="generate: -: launchers of several processes"):
        command._run(options, Twins())


# ---- functions ---------------------------------------------------------------------------------


def test_collectives_of_one_tensor_in_a_group() -> None:
    x = X.to_numpy()
    with entered(Twins(1)):
        assert joined().size == 2
        assert F.allreduce_sum(X).to_numpy().tolist() == (2 * x).tolist()
        for axis in (0, 1, -1):
            expected = np.concatenate([x, x], axis)
            assert F.allgather(X, axis=axis).to_numpy().tolist() == expected.tolist()
            piece = np.split(2 * x, 2, axis)[1]
            assert F.reduce_scatter(X, axis=axis).to_numpy().tolist() == piece.tolist()
        assert F.distributed_broadcast(X).to_numpy().tolist() == x.tolist()
    assert F.allreduce_sum(X) is X


def test_collectives_refuse_dtypes_and_sizes() -> None:
    with entered(Twins()):
        with pytest.raises(DTypeError, match="allreduce_sum: .*int32 or int64, got bool"):
            F.allreduce_sum(X > 0)
        with pytest.raises(ShapeError, match=r"reduce_scatter: .* 2 processes .*\[3,2\]"):
            F.reduce_scatter(X[:3])
        with pytest.raises(ValueError, match="allgather: Invalid axis=2"):
            F.allgather(X, axis=2)


def test_branches_and_loops_refuse_collectives() -> None:
    def branch(x: Tensor) -> Any:
        return F.cond(x[0, 0] > 0, [x.type], lambda: F.allreduce_sum(x), lambda: x)

    def loop(x: Tensor) -> Any:
        return F.while_loop(x, lambda y: y[0, 0] < 9, F.allreduce_sum)

    with entered(Twins()):
        for fn in (branch, loop):
            with pytest.raises(TraceError, match="allreduce_sum exchanges data with other"):
                compile_function(fn, [X.type], name="f", parameters={})


# ---- compiled graphs ---------------------------------------------------------------------------


def _network(x: Tensor) -> Tensor:
    for _ in range(3):
        x = F.tanh(F.allreduce_sum(F.exp(x) + 1) * 0.25) + 1
    return F.allgather(x, axis=1) - 1


def _oracle(x: Any) -> Any:
    for _ in range(3):
        x = np.tanh((np.exp(x) + 1) * 0.5) + 1
    return np.concatenate([x, x], 1) - 1


def _compiled(type: TensorType) -> CompiledModel:
    return compile_function(_network, [type], name="network", parameters={})


def test_collectives_are_steps_with_planned_memory() -> None:
    type = TensorType(DType.float32, ["n", 2], CPU())
    with entered(Twins()):
        compiled = _compiled(type)
        for rows in (4, 2):
            found = compiled(X[:rows]).to_numpy()
            np.testing.assert_allclose(found, _oracle(X.to_numpy()[:rows]), rtol=1e-5)
        steps = [s for s in compiled._schedule.all_steps if isinstance(s, RunCollective)]
        assert [step.name for step in steps] == ["all_reduce"] * 3 + ["all_gather"]
        assert "all_reduce" in str(compiled.explain())
        assert ", of 2 processes" in str(compiled.explain())
        packer = Packer(())
        packed = packer.pack(steps[0])
        assert Unpacker(packer.table(), ()).unpack(packed) == steps[0]


def test_plans_of_all_ranks_are_equal() -> None:
    digests = []
    for group in (Twins(0), Twins(1), Twins(0, 4)):
        with entered(group):
            graph = _compiled(X.type).graph
            with maxmod.configure(verify=False, nocache=False):
                key = PlanKey(graph, None, "")
            digests.append(key.text)
    assert digests[0] == digests[1] != digests[2]


def test_planning_runs_no_collective() -> None:
    """A process whose plan is in the cache would not come to it."""

    def constant(x: Tensor) -> Tensor:
        return x + F.allreduce_sum(F.full([2], 3.0, dtype=DType.float32, device=CPU()))

    with entered(Twins()) as group:
        compiled = compile_function(constant, [X.type], name="f", parameters={})
        plan_graph(compiled.graph, None, run_op, contextlib.nullcontext)
        assert group.calls == []
        assert compiled(X).to_numpy().tolist() == (X.to_numpy() + 6).tolist()


def test_steps_with_collectives_are_one_recording() -> None:
    with emulated_cuda() as (device, _):
        host, fake = Twins(), QueuedNccl()
        group = NcclGroup(host, fake, {"float32": 7, "uint8": 1}, lambda: _current_stream().ptr)
        with entered(group):
            x = X.to(device)
            compiled = _compiled(x.type)
            numbers = []
            # Another process cannot replay in the fifth call, and has to record again in the sixth.
            for answers in ([], [], [], [], [0], [1]):
                host.answers = answers
                np.testing.assert_allclose(_host(compiled(x)), _oracle(X.to_numpy()), rtol=1e-5)
                numbers.append((compiled.stats.recordings, compiled.stats.replays))
            assert numbers == [(0, 0), (1, 1), (1, 2), (1, 3), (1, 3), (2, 4)]
            # The calls that are not replayed, and the recordings, each made the calls of NCCL once.
            assert fake.calls == 4 * (["allReduce"] * 3 + ["allGather"])


class QueuedNccl:
    """Like `NcclCommunicator`, with another process that has the same data."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def allReduce(  # noqa: N802
        self, source: int, target: int, count: int, kind: int, op: int, stream: int
    ) -> None:
        assert (kind, op) == (7, 0)
        self.calls.append("allReduce")
        arrays = [(ctypes.c_float * count).from_address(at) for at in (source, target)]
        given, out = (np.frombuffer(array, np.float32) for array in arrays)
        _do_on(stream, lambda: np.copyto(out, 2 * given))

    def allGather(  # noqa: N802
        self, source: int, target: int, count: int, kind: int, stream: int
    ) -> None:
        assert kind == 1
        self.calls.append("allGather")

        def work() -> None:
            for rank in range(2):
                ctypes.memmove(target + rank * count, source, count)

        _do_on(stream, work)
