"""Branches and loops of compiled graphs: their graphs are planned and run as kernels, too."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.graphs import compiled, f32
from emulated_cuda import emulated_cuda
from fuzz.random_programs import Program, programs
from fuzz.test_programs import assert_same
from hypothesis import given, settings

from maxmod import CPU, DType, Tensor, TensorType, configure, custom
from maxmod import functional as F
from maxmod.backends.devices import Device
from maxmod.errors import ShapeError
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import BufferType

RNG = np.random.default_rng(0)
W = RNG.normal(size=(8, 8)).astype(np.float32)


def zero(x: Tensor) -> Tensor:
    return Tensor(0, dtype=DType.int64, device=x.device)


def branches(x: Tensor) -> Any:
    """A row kernel and a product, with names of sizes."""
    w = Tensor(W, device=x.device)
    return F.cond(
        F.sum(F.flatten(x))[0] > 0,
        [x.type],
        lambda: F.softmax(x * 2.0) + x,
        lambda: F.relu(x @ w + 1.0) @ w - x,
    )


def nested(x: Tensor) -> Any:
    """A branch in a loop in a branch; values pass through unchanged, twice, and exchanged."""

    def body(x: Tensor, y: Tensor, i: Tensor) -> Any:
        (z,) = F.cond(
            F.max(F.flatten(x))[0] > 10, [x.type], lambda: F.tanh(x) / 2.0, lambda: x * 3.0 + y
        )
        return y, z, i + 1

    def rounds() -> Any:
        return F.while_loop((x, F.abs(x) + 1.0, zero(x)), lambda x, y, i: i < 7, body)[:2]

    found = F.cond(F.sum(F.flatten(x))[0] > 0, [x.type] * 2, rounds, lambda: (x, x))
    return [found[0] + found[1], *found]


def newton(x: Tensor) -> Any:
    """A condition that computes; captured values do not change."""
    limit = F.max(F.abs(F.flatten(x)))[0] * 1e-3

    def wrong(y: Tensor) -> Tensor:
        return F.max(F.abs(F.flatten(y * y - F.abs(x))))[0] > limit

    return F.while_loop(F.abs(x) + 1.0, wrong, lambda y: (y + F.abs(x) / y) / 2.0)


def views(x: Tensor) -> Any:
    """Results that are views of operands and of intermediates."""
    return F.while_loop(
        (x, F.transpose(x, 0, 1) @ x * 2.0 + x[:1], zero(x)),
        lambda x, y, i: i < 3,
        lambda x, y, i: (F.concat([x[:, 1:], x[:, :1]], axis=1), F.transpose(y, 0, 1), i + 1),
    )[:2]


def never(x: Tensor) -> Any:
    """No round at all, and folded constants."""
    table = [1.5, 2.5, 3.5]

    def body(x: Tensor) -> Tensor:
        numbers = Tensor(table, device=x.device)
        return x * F.sum(F.exp(numbers) * numbers)[0]

    return F.while_loop(x, lambda x: F.sum(F.flatten(x))[0] > 1e6, body)


PROGRAMS: dict[str, Callable[[Tensor], Any]] = {
    fn.__name__: fn for fn in (branches, nested, newton, views, never)
}
SWITCHES = [{}, {"noopt": True}, {"nofuse": True}, {"check": True}, {"compile": False}]


def assert_near(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def compiled_on(fn: Callable[..., Any], *types: TensorType) -> CompiledModel:
    return compile_function(fn, types, name="f", parameters={})


def on(device: Device, *sizes: Any) -> TensorType:
    return TensorType(DType.float32, sizes, device)


def inputs() -> Iterator[np.ndarray[Any, Any]]:
    for rows in (4, 1, 5, 4):
        x = RNG.normal(size=(rows, 8)).astype(np.float32)
        yield x
        yield abs(x)
        yield -abs(x)


@pytest.mark.parametrize("switch", SWITCHES, ids=str)
@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_is_eager(name: str, switch: dict[str, Any]) -> None:
    fn = PROGRAMS[name]
    with configure(**switch):
        model = compiled(fn, f32("n", 8))
        for x in inputs():
            argument = Tensor(x.copy())
            found = model(argument)
            for one, wanted in zip(found, fn(Tensor(x)), strict=True):
                assert_near(one.to_numpy(), wanted.to_numpy())
            for one in found:  # every result is the caller's
                one[...] = Tensor.zeros_like(one)
            assert np.array_equal(argument.to_numpy(), x)
            for one in found:
                assert not one.to_numpy().any()


@pytest.mark.parametrize("name", PROGRAMS)
def test_compiled_on_an_emulated_gpu(name: str) -> None:
    fn = PROGRAMS[name]
    with emulated_cuda() as (device, _):
        model = compiled_on(fn, on(device, "n", 8))
        assert all(kernel.dialect.value == "cuda" for kernel in model.kernels)
        for x in inputs():
            found = model(Tensor(x, device=device))
            for one, wanted in zip(found, fn(Tensor(x, device=CPU())), strict=True):
                assert one.device == device
                assert_near(one.to(CPU()).to_numpy(), wanted.to_numpy())


def test_newton_against_numpy() -> None:
    x = RNG.normal(size=(4, 8)).astype(np.float32)
    (found,) = compiled(newton, f32("n", 8))(Tensor(x))
    np.testing.assert_allclose(found.to_numpy() ** 2, abs(x.astype(np.float64)), atol=5e-3)


# ---- how they run --------------------------------------------------------------------------------


def test_no_op_runs_by_itself(host_ops: list[str]) -> None:
    model = compiled(nested, f32("n", 8))
    host_ops.clear()  # tracing may have run some
    model(Tensor(np.ones([3, 8], np.float32)))
    assert set(host_ops) == {"branch", "loop", "reshape"}  # reshape is a view


def test_kernels_of_bodies_are_listed_and_explained() -> None:
    model = compiled(branches, f32("n", 8))
    names = [kernel.name for kernel in model.kernels]
    assert {"matmul_add_relu", "matmul_sub", "map_greater"} <= {*names}
    text = model.explain(width=100)
    assert ", 1 branch\n" in text
    found = model.explanation()
    assert all(k.code in found.kernel(n) for n, k in enumerate(model.kernels))
    for body in ("then", "otherwise"):
        assert f"\n    {body}:\n        step  runs" in text
        assert f", {body} 0\n" in text  # where a kernel is used
    assert "there is no generated kernel" not in text.partition("== kernel")[0]


def test_bodies_and_the_graph_around_share_equal_kernels() -> None:
    def fn(x: Tensor) -> Any:
        y = F.exp(x) + 1.0
        twice = F.while_loop(y, lambda y: F.max(y)[0] < 50, lambda y: F.exp(y) + 1.0)
        return F.cond(F.max(y)[0] > 0, [x.type], lambda: F.exp(twice[0] / 50) + 1.0, lambda: y)

    names = [kernel.name for kernel in compiled(fn, f32("n")).kernels]
    assert names.count("map_exp_add") == 1


def test_memory_of_bodies_is_counted() -> None:
    model = compiled(branches, f32("n", 8))
    few, many = model.memory_plan(n=4), model.memory_plan(n=4000)
    assert few.body_nbytes > 0
    assert many.body_nbytes >= 900 * few.body_nbytes
    assert many.peak_nbytes >= many.body_nbytes + many.arena_nbytes
    assert "branches and loops" in str(many)


def test_weights_reach_kernels_of_bodies() -> None:
    weight = Tensor(W).T  # not in the order of rows
    assert not weight.to_numpy().flags.c_contiguous

    def fn(x: Tensor) -> Any:
        return F.while_loop(x, lambda x: F.max(F.flatten(x))[0] < 3, lambda x: x + weight[:1])

    model = compiled(fn, f32("n", 8), weights={"w": weight})
    assert list(model.weights) == ["w"]
    x = np.zeros([2, 8], np.float32)
    np.testing.assert_allclose(
        model(Tensor(x))[0].to_numpy(), fn(Tensor(x))[0].to_numpy(), rtol=1e-6
    )


def test_a_loop_between_stores() -> None:
    def fn(buffer: Tensor, x: Tensor) -> Any:
        F.buffer_store(buffer, buffer + x)
        (y,) = F.while_loop(buffer * 1.0, lambda y: F.max(y)[0] < 10, lambda y: y + buffer)
        F.buffer_store_slice(buffer, y[:1], [slice(0, 1)])
        return y

    model = compile_function(
        fn, [BufferType(DType.float32, ["n"], CPU_REF), f32("n")], name="f", parameters={}
    )
    buffer = Tensor([1.0, 2.0])
    assert model(buffer, Tensor([1.0, 1.0])).to_numpy().tolist() == [8, 12]
    assert buffer.to_numpy().tolist() == [8, 3]


def test_many_calls_and_sizes_share_memory() -> None:
    model = compiled(nested, f32("n", 8))
    for rows in (2, 3000, 1, 5000, 3000):
        x = np.ones([rows, 8], np.float32)
        for one, wanted in zip(model(Tensor(x)), nested(Tensor(x)), strict=True):
            assert_near(one.to_numpy(), wanted.to_numpy())


def test_kernels_of_users_in_a_body() -> None:
    custom.register("test.bodies", numpy=lambda x: x * 7)

    def fn(x: Tensor) -> Any:
        def then() -> Tensor:
            return F.custom("test.bodies", x.device, [x], [x.type])[0] + 1

        return F.cond(F.sum(x)[0] > 0, [x.type], then, lambda: x)

    assert compiled(fn, f32("n"))(Tensor([1.0]))[0].item() == 8


# ---- sizes ---------------------------------------------------------------------------------------


def test_rebind_in_a_body() -> None:
    def fn(x: Tensor, y: Tensor) -> Any:
        return F.cond(
            F.sum(x)[0] > 0,
            [f32(1)],
            lambda: F.sum(F.rebind(x, ["q"]) * F.rebind(y, ["q"], "x and y need one length")),
            lambda: F.sum(x),
        )

    for switch in ({}, {"compile": False}):
        with configure(**switch):
            model = compiled(fn, f32("n"), f32("m"))
            assert model(Tensor([1.0, 2.0]), Tensor([3.0, 4.0]))[0].item() == 11
            assert model(Tensor([-1.0, -2.0]), Tensor([3.0]))[0].item() == -3
            with pytest.raises(ShapeError, match="x and y need one length"):
                model(Tensor([1.0, 2.0]), Tensor([3.0]))
            assert model(Tensor([1.0]), Tensor([3.0]))[0].item() == 3


def test_body_reads_symbolic_sizes_of_the_graph_around() -> None:
    def fn(x: Tensor, y: Tensor) -> Any:
        n = x.shape[0]
        return F.while_loop(
            F.sum(y), lambda z: F.max(z)[0] < 10, lambda z: z + F.sum(F.broadcast_to(z, [n]))
        )

    model = compiled(fn, f32("n"), f32("m"))
    assert model(Tensor.ones([3]), Tensor([1.0]))[0].item() == 16
    assert model(Tensor.ones([1]), Tensor([1.0]))[0].item() == 16
    assert model(Tensor.ones([0]), Tensor([11.0]))[0].item() == 11


def test_body_uses_a_size_that_is_known_at_run_time() -> None:
    def fn(x: Tensor) -> Any:
        kept = F.gather(x, F.flatten(F.nonzero(x, "k")), 0)
        (y,) = F.while_loop(kept, lambda y: F.sum(y)[0] < 100, lambda y: y * y + 1.0)
        return F.sum(y)

    model = compiled(fn, f32("n"))
    for x in ([0.0, 2.0, 3.0], [0.0, 0.0, 4.0], [1.0, 2.0, 3.0]):
        assert model(Tensor(x)).item() == fn(Tensor(x)).item()


def test_sizes_known_late_in_a_loop() -> None:
    def fn(x: Tensor) -> Any:
        def body(x: Tensor, i: Tensor) -> Any:
            rows = F.flatten(F.nonzero(x > 0, "k"))
            return x - F.sum(F.gather(x, rows, 0)) / 4.0, i + 1

        return F.while_loop((x, zero(x)), lambda x, i: i < 4, body)

    model = compiled(fn, f32("n"))
    x = np.array([1, -2, 3, 0.5], np.float32)
    for one, wanted in zip(model(Tensor(x)), fn(Tensor(x)), strict=True):
        np.testing.assert_allclose(one.to_numpy(), wanted.to_numpy(), rtol=1e-6)


def test_no_elements() -> None:
    def fn(x: Tensor) -> Any:
        return F.while_loop(
            (x, zero(x)), lambda x, i: i < 2, lambda x, i: (F.softmax(x) * 2.0, i + 1)
        )

    found, _ = compiled(fn, f32("n", 8))(Tensor.zeros([0, 8]))
    assert found.shape == [0, 8]


# ---- whole graphs on disk ------------------------------------------------------------------------


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_warm_start_plans_no_body(name: str, tmp_path: Path) -> None:
    with configure(verify=False, cache_dir=str(tmp_path), nocache=False):
        first = compiled(PROGRAMS[name], f32("n", 8))
        again = compiled(PROGRAMS[name], f32("n", 8))
    assert (first.stats.plan_cached, again.stats.plan_cached) == (False, True)
    assert again.kernels == first.kernels
    assert (again.stats.kernels_built, again.stats.kernels_cached) == (0, len(first.kernels))
    for x in inputs():
        for one, wanted in zip(again(Tensor(x)), first(Tensor(x)), strict=True):
            assert np.array_equal(one.to_numpy(), wanted.to_numpy())
    assert again.explain(n=4) == first.explain(n=4)


def test_a_warm_start_checks_sizes_in_a_body(tmp_path: Path) -> None:
    def fn(x: Tensor, y: Tensor) -> Any:
        return F.cond(F.sum(x)[0] > 0, [x.type], lambda: x + F.rebind(y, x.shape), lambda: x)

    with configure(verify=False, cache_dir=str(tmp_path), nocache=False):
        for is_stored in (False, True):
            model = compiled(fn, f32("n"), f32("m"))
            assert model.stats.plan_cached == is_stored
            with pytest.raises(ShapeError, match="rebind: expected n = 2, got m = 1"):
                model(Tensor([1.0, 2.0]), Tensor([3.0]))


# ---- random programs -----------------------------------------------------------------------------


@settings(max_examples=15)
@given(program=programs())
def test_random_programs_in_bodies(program: Program) -> None:
    args = program.arguments()
    wanted = program(*args)
    types = [tensor.type for tensor in wanted]

    def fn(flag: Tensor, *args: Tensor) -> Any:
        found = F.cond(flag, types, lambda: program(*args), lambda: [t * 1 for t in zeros])
        done = Tensor(False, dtype=DType.bool)
        rounds = F.while_loop(
            [flag, *found],
            lambda flag, *found: flag,
            lambda flag, *found: [F.logical_and(flag, done), *program(*args)],
        )
        return [*found, *rounds[1:]]

    zeros = [Tensor.zeros_like(tensor) for tensor in wanted]
    flag = Tensor(True, dtype=DType.bool)
    model = compile_function(fn, [flag.type, *(arg.type for arg in args)], name="p", parameters={})
    for one, other in zip(model(flag, *args), [*wanted, *wanted], strict=True):
        assert_same(one.to_numpy(), other.to_numpy(), program)


def test_a_body_on_two_devices_runs_op_by_op(tmp_path: Path) -> None:
    with (
        emulated_cuda() as (device, _),
        configure(verify=False, cache_dir=str(tmp_path), nocache=False),
    ):

        def fn(x: Tensor) -> Any:
            def there_and_back() -> Tensor:
                return F.exp(x.to(CPU()) * 2.0).to(device) + 1.0

            (y,) = F.cond(F.sum(x)[0] > 0, [x.type], there_and_back, lambda: x)
            return F.cond(F.sum(x)[0] > 0, [x.type], lambda: F.exp(y - 1.0), lambda: y + 2.0)

        for is_stored in (False, True):
            model = compiled_on(fn, on(device, "n"))
            assert model.stats.plan_cached == is_stored
            assert "map_add" in {kernel.name for kernel in model.kernels}
            for x in (np.float32([0.5, 1.0]), np.float32([-1.0])):
                (found,) = model(Tensor(x, device=device))
                assert_near(
                    found.to(CPU()).to_numpy(), np.exp(np.exp(2 * x)) if x.sum() > 0 else x + 2
                )
