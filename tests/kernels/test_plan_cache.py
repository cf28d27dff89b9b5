"""Whole compiled graphs on disk: what makes a hit and a miss, and that a hit changes nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from compiler.graphs import f32
from fuzz.random_programs import Program, programs
from helpers import values, wide
from hypothesis import given, settings

import maxmod
from maxmod import BufferType, DType, Module, Tensor, TensorType, custom, log
from maxmod import functional as F
from maxmod.backends.devices import CPU
from maxmod.errors import MaxmodWarning
from maxmod.kernel import cache as kernel_cache
from maxmod.models import load_model
from maxmod.nn import LayerNorm, Linear
from maxmod.op import ir
from maxmod.runtime.compiled import CompiledModel, compile_function
from maxmod.runtime.plan_cache import DIGESTED_NBYTES
from maxmod.values.device import CPU_REF

GPT2 = Path(__file__).parents[1] / "assets" / "gpt2" / "tied"


@pytest.fixture(autouse=True)
def plans(cache_folder: Path) -> Iterator[Path]:
    """Switches on what the verification of graphs switches off; returns the folder."""
    with maxmod.configure(verify=False):
        yield cache_folder


def compiled(fn: Callable[..., Any], *types: Any, name: str = "f", **weights: Any) -> CompiledModel:
    """Compiles a function; keywords are weights."""
    return compile_function(fn, types or (f32("n", 8),), name=name, parameters=weights)


def is_hit(fn: Callable[..., Any], *types: Any, **options: Any) -> bool:
    return compiled(fn, *types, **options).stats.plan_cached


def entry_of(folder: Path) -> Path:
    """The only stored plan."""
    (note,) = [path for path in folder.glob("*.json") if "steps" in json.loads(path.read_text())]
    return note.with_suffix(".bin")


def softmax(x: Any) -> Any:
    return F.softmax(x * 2.0) + 1.0


class Block(Module[[Tensor], Tensor]):
    def __init__(self) -> None:
        self.norm = LayerNorm(8)
        self.up = Linear(8, 32)
        self.down = Linear(32, 8)
        for number, (_, tensor) in enumerate(list(self.parameters)):
            rng = np.random.default_rng(number)
            tensor[...] = Tensor(rng.normal(size=tensor.sizes).astype(np.float32), device=CPU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


def numbers(*sizes: int) -> Tensor:
    rng = np.random.default_rng(1)
    return Tensor(rng.normal(size=sizes).astype(np.float32), device=CPU())


# ---- a hit changes nothing -----------------------------------------------------------------------


def assert_equal_models(cold: CompiledModel, warm: CompiledModel) -> None:
    assert (cold.stats.plan_cached, warm.stats.plan_cached) == (False, True)
    assert warm.kernels == cold.kernels
    assert warm.stats.kernels_built == 0
    assert warm.stats.kernels_cached == len(cold._kernels)
    assert str(warm.graph) == str(cold.graph)
    assert warm.explain() == cold.explain()
    assert warm._schedule.steps == cold._schedule.steps == warm._plan()[1].steps


def test_module() -> None:
    block = Block()
    cold, warm = (block.compile(f32("n", 8)) for _ in range(2))
    assert_equal_models(cold, warm)
    x = numbers(5, 8)
    assert np.array_equal(warm(x).to_numpy(), cold(x).to_numpy())
    np.testing.assert_allclose(warm(x).to_numpy(), block(x).to_numpy(), rtol=1e-5, atol=1e-5)
    assert list(warm.stats.times_s) == ["trace", "find", "lookup", "build"]
    assert warm.stats.compile_s == sum(warm.stats.times_s.values())
    assert {"import", "passes", "plan", "store"} < cold.stats.times_s.keys()
    assert str(warm.memory_plan(n=5)) == str(cold.memory_plan(n=5))


def test_language_model_with_a_cache() -> None:
    """Buffers that are changed in place, attention, masks of positions, symbolic sizes."""
    tokens = np.array([[3, 1, 4, 1, 5]])
    found = []
    for _ in range(2):
        model = load_model(GPT2, device=CPU(), dtype=DType.float32)
        cache = model.empty_cache([0], 64)
        first = model.next_logits_cached(tokens, cache)
        found.append((model, first, model.next_logits_cached(tokens[:, :1], cache)))
    (cold, *expected), (warm, *results) = found
    assert np.array_equal(expected, results)
    for seq in (5, 1):
        for logits in (True, False):
            assert_equal_models(*(m.step(seq=seq, logits=logits) for m in (cold, warm)))


@settings(max_examples=25, deadline=None)
@given(program=programs())
def test_random_programs(program: Program) -> None:
    kernel_cache.clear()
    types = program.types(names=False)
    cold, warm = (compile_function(program, types, name="p", parameters={}) for _ in range(2))
    assert (cold.stats.plan_cached, warm.stats.plan_cached) == (False, True)
    for one, other in zip(cold(*program.arguments()), warm(*program.arguments()), strict=True):
        assert one.to_numpy().tobytes() == other.to_numpy().tobytes()


def test_constants() -> None:
    """Captured ones are those of this trace; folded ones are read from the entry."""
    table = numbers(64, 8)
    half = Tensor([1.5, -2.0], dtype=DType.bfloat16, device=CPU())

    def fn(x: Any) -> Any:
        return x + F.gather(table, x[:, 0].cast(DType.int64), axis=0), F.sqrt(F.abs(half)) * 2

    cold, warm = compiled(fn), compiled(fn)
    assert (cold.stats.plan_cached, warm.stats.plan_cached) == (False, True)
    x = numbers(4, 8)
    for one, other, eager in zip(cold(x), warm(x), fn(x), strict=True):
        assert np.array_equal(wide(values(one)), wide(values(other)))
        assert np.array_equal(wide(values(one)), wide(values(eager)))
    assert any(array is table.data for array in warm._schedule.constants.values())


def test_source_lines_come_from_this_trace() -> None:
    def one(x: Any) -> Any:
        return F.exp(x)

    def other(x: Any) -> Any:
        return F.exp(x)

    cold, warm = compiled(one), compiled(other, name="other")
    assert warm.stats.plan_cached
    line = one.__code__.co_firstlineno + 1
    assert f"test_plan_cache.py:{line}" in cold.explain()
    assert f"test_plan_cache.py:{line + 3}" in warm.explain()
    assert "graph other" in warm.explain()


def test_check_needs_no_cold_start(monkeypatch: pytest.MonkeyPatch) -> None:
    x = numbers(3, 8)
    expected = compiled(softmax)(x).to_numpy()
    interpreted = []
    whole = ir.interpret
    monkeypatch.setattr(ir, "interpret", lambda *a: interpreted.append(a) or whole(*a))
    with maxmod.configure(check=True):
        warm = compiled(softmax)
        assert warm.stats.plan_cached
        assert np.array_equal(warm(x).to_numpy(), expected)
    assert interpreted


def test_without_a_kernel_compiler() -> None:
    with maxmod.configure(cc="/nonexistent"):
        assert not is_hit(softmax)
        warm = compiled(softmax)
        assert warm.stats.plan_cached
        assert warm.kernels == ()
        x = numbers(3, 8)
        np.testing.assert_allclose(warm(x).to_numpy(), softmax(x).to_numpy(), rtol=1e-6)


def test_missing_kernels_are_built_without_planning(plans: Path) -> None:
    expected = compiled(softmax)(numbers(3, 8)).to_numpy()
    plan = entry_of(plans)
    for path in plans.glob("*.bin"):
        if path != plan:
            path.unlink()
    warm = compiled(softmax)
    assert warm.stats.plan_cached
    assert warm.stats.kernels_built == len(warm.kernels)
    assert np.array_equal(warm(numbers(3, 8)).to_numpy(), expected)


# ---- the key -------------------------------------------------------------------------------------

SCALE = Tensor(np.full(8, 2.0, np.float32), device=CPU())


def _weighted(name: str, dtype: DType = DType.float32) -> CompiledModel:
    weight = Tensor.ones([8], dtype=dtype, device=CPU())
    return compiled(lambda x: x.cast(dtype) * weight, **{name: weight})


def _stored(stores: bool) -> CompiledModel:
    def fn(buffer: Any, x: Any) -> Any:
        if stores:
            F.buffer_store(buffer, x + 1)
        return x + 1

    buffer = BufferType(DType.float32, ["n", 8], CPU_REF)
    return compiled(fn, buffer, f32("n", 8))


def _with_custom(text: str) -> CompiledModel:
    space: dict[str, Any] = {}
    exec(f"def fn(x): return {text}", space)
    custom.register("test.plan", numpy=space["fn"])
    return compiled(lambda x: F.custom("test.plan", x.device, [x], [x.type])[0])


def _branching(add: float) -> CompiledModel:
    return compiled(
        lambda x: F.cond(x[0, 0] > 0, [x.type], lambda: x + add, lambda: x)[0], f32(2, 8)
    )


def _with_settings(**values: Any) -> CompiledModel:
    with maxmod.configure(**values):
        return compiled(softmax)


# Pairs that must not share an entry.
DIFFERENT: dict[str, tuple[Callable[[], CompiledModel], Callable[[], CompiledModel]]] = {
    "op": (lambda: compiled(F.exp), lambda: compiled(F.sqrt)),
    "attribute": (lambda: compiled(lambda x: x + 1.0), lambda: compiled(lambda x: x + 2.0)),
    "sign of zero": (lambda: compiled(lambda x: x * 0.0), lambda: compiled(lambda x: x * -0.0)),
    "order": (
        lambda: compiled(lambda x, y: x - y, f32(3), f32(3)),
        lambda: compiled(lambda x, y: y - x, f32(3), f32(3)),
    ),
    "dtype": (
        lambda: compiled(F.exp, f32(3)),
        lambda: compiled(F.exp, TensorType(DType.float64, [3], CPU_REF)),
    ),
    "size": (lambda: compiled(F.exp, f32(3)), lambda: compiled(F.exp, f32(4))),
    "name of a size": (lambda: compiled(F.exp, f32("n")), lambda: compiled(F.exp, f32("m"))),
    "equal sizes": (
        lambda: compiled(lambda x, y: (x, y + 1), f32("n"), f32("n")),
        lambda: compiled(lambda x, y: (x, y + 1), f32("n"), f32("m")),
    ),
    "name of a weight": (lambda: _weighted("a"), lambda: _weighted("b")),
    "type of a weight": (lambda: _weighted("a"), lambda: _weighted("a", DType.float64)),
    "value of a constant": (
        lambda: compiled(lambda x: x + F.exp(Tensor([1.0], device=CPU()))),
        lambda: compiled(lambda x: x + F.exp(Tensor([2.0], device=CPU()))),
    ),
    "results": (lambda: compiled(lambda x: (x + 1, x + 2)), lambda: compiled(lambda x: x + 2)),
    "order of results": (
        lambda: compiled(lambda x: (x + 1, x + 2)),
        lambda: compiled(lambda x: (x + 2, x + 1)[::1]),
    ),
    "store": (lambda: _stored(True), lambda: _stored(False)),
    "kernel of a user": (lambda: _with_custom("x + 1"), lambda: _with_custom("x + 2")),
    "inner graph": (lambda: _branching(1.0), lambda: _branching(2.0)),
    "noopt": (lambda: _with_settings(), lambda: _with_settings(noopt=True)),
    "nofuse": (lambda: _with_settings(), lambda: _with_settings(nofuse=True)),
    "fuse_limit": (lambda: _with_settings(), lambda: _with_settings(fuse_limit=0)),
    "kernel compiler": (lambda: _with_settings(), lambda: _with_settings(cc="/nonexistent")),
}


@pytest.mark.parametrize("what", DIFFERENT)
def test_the_key_depends_on(what: str) -> None:
    first, second = DIFFERENT[what]
    assert not first().stats.plan_cached
    assert not second().stats.plan_cached
    if what == "kernel of a user":
        x = numbers(2, 8)
        assert np.array_equal(second()(x).to_numpy(), x.to_numpy() + 2)
        return
    assert first().stats.plan_cached
    assert second().stats.plan_cached


def test_the_key_depends_on_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    from maxmod.backends.host.backend import CpuBackend

    assert [is_hit(softmax), is_hit(softmax)] == [False, True]
    monkeypatch.setattr(CpuBackend, "architecture", lambda self, index: "other")
    assert not is_hit(softmax)


@pytest.mark.parametrize(
    "place", ["op/record.py", "compiler/fusion/conditions.py", "ops/norm.py", "kernels"]
)
def test_the_key_depends_on_the_sources(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: str
) -> None:
    """A file of maxmod that was changed after the plan was stored."""
    from maxmod.kernel import text as kernel_text
    from maxmod.runtime import plan_cache

    package = Path(maxmod.__file__).parent
    path = Path(kernel_text.folder()) / "host" / "gemm.h" if place == "kernels" else package / place
    before = plan_cache._state_of_sources.__wrapped__()
    assert before == plan_cache._state_of_sources.__wrapped__()
    facts = path.stat()
    whole = os.scandir

    class Changed:
        def __init__(self, entry: Any) -> None:
            self.name, self.path = entry.name, entry.path

        def stat(self) -> Any:
            found = os.stat(self.path)
            return os.stat_result((*found[:6], found.st_size + 1, *found[7:]))

    def scan(folder: str) -> Any:
        return [Changed(e) if os.path.samefile(e.path, path) else e for e in whole(folder)]

    monkeypatch.setattr(os, "scandir", scan)
    assert plan_cache._state_of_sources.__wrapped__() != before
    assert path.stat().st_mtime_ns == facts.st_mtime_ns


def test_cached_plans_call_the_custom_kernel_of_this_trace() -> None:
    """Equal source, another closure: the plan is the same, the function is not."""

    def make(add: float) -> CompiledModel:
        custom.register("test.closure", numpy=lambda x: x + add)
        one = Tensor.ones([8], device=CPU())

        def fn(x: Any) -> Any:
            return x * F.custom("test.closure", x.device, [one], [one.type])[0]

        return compiled(fn)

    x = numbers(2, 8)
    for add in (1.0, 2.0):
        model = make(add)
        assert np.array_equal(model(x).to_numpy(), x.to_numpy() * (1 + np.float32(add)))
    assert model.stats.plan_cached


def test_large_constants_are_not_digested() -> None:
    table = Tensor.zeros([DIGESTED_NBYTES // 4 + 1], dtype=DType.float32, device=CPU())
    assert not is_hit(lambda x: x + table[0])
    assert not is_hit(lambda x: x + table[0])


@pytest.mark.parametrize(
    "switch", [{"verify": True}, {"nocache": True}, {"debug": log.GRAPHS}, {"compile": False}]
)
def test_switches_that_need_the_compiler(switch: dict[str, Any]) -> None:
    assert [is_hit(softmax), is_hit(softmax)] == [False, True]
    with maxmod.configure(**switch):
        assert not is_hit(softmax)
    assert is_hit(softmax)


def test_dump_shows_every_pass(tmp_path: Path) -> None:
    assert [is_hit(softmax), is_hit(softmax)] == [False, True]
    with maxmod.configure(dump=str(tmp_path / "dump")):
        assert not is_hit(softmax)
    names = [path.name for path in (tmp_path / "dump").iterdir()]
    assert any("merge_common" in name for name in names)
    assert any("explain" in name for name in names)


# ---- faults --------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "link"])
def test_damage_is_a_miss(plans: Path, damage: str) -> None:
    assert not is_hit(softmax)
    file = entry_of(plans)
    content = bytearray(file.read_bytes())
    content[50] ^= 1
    if damage == "link":
        file.unlink()
        file.symlink_to(plans / "nothing")
    else:
        changed = {"truncate": content[:-1], "empty": b"", "flip": content}
        file.write_bytes(changed[damage])
    again = compiled(softmax)
    assert not again.stats.plan_cached
    x = numbers(3, 8)
    np.testing.assert_allclose(again(x).to_numpy(), softmax(x).to_numpy(), rtol=1e-6)
    assert is_hit(softmax)


@pytest.mark.parametrize("data", [b"x", b"{}\n", b"[]\n", b'{"types": [], "schedule": 1}\n', b"\n"])
def test_sealed_nonsense_is_a_miss(plans: Path, data: bytes) -> None:
    assert not is_hit(softmax)
    kernel_cache.store(entry_of(plans).stem, data)
    assert not is_hit(softmax)
    assert is_hit(softmax)


def test_plans_that_others_can_write_are_not_used(plans: Path) -> None:
    assert not is_hit(softmax)
    entry_of(plans).chmod(0o666)
    assert not is_hit(softmax)


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)
def test_plans_that_others_own_are_not_used(plans: Path) -> None:
    assert not is_hit(softmax)
    os.chown(entry_of(plans), 12345, 12345)
    assert not is_hit(softmax)


def test_read_only_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached plans are used, missing ones are planned each time."""
    assert not is_hit(softmax)

    opened = os.open

    def refuse(path: str, flags: int, *args: int) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied")
        return opened(path, flags, *args)

    monkeypatch.setattr(os, "open", refuse)  # a mode would not stop root
    assert is_hit(softmax)
    with maxmod.configure(fuse_limit=0):  # no kernel, so no compiler is run
        with pytest.warns(MaxmodWarning, match="Permission denied"):
            assert not is_hit(softmax)
        assert not is_hit(softmax)


# ---- processes -----------------------------------------------------------------------------------

_PROCESS = """
import sys
from maxmod import CPU, DType, Tensor, TensorType
from maxmod import functional as F
from maxmod.nn import LayerNorm, Sequential

model = Sequential(LayerNorm(8), F.softmax).to(CPU())
compiled = model.compile(TensorType(DType.float32, ["n", 8], CPU()))
result = compiled(Tensor([[1.0, 2, 3, 4, 5, 6, 7, 9]], dtype=DType.float32, device=CPU()))
banned = ("maxmod.compiler.codegen", "maxmod.compiler.fusion", "maxmod.compiler.passes",
          "maxmod.compiler.schedule", "maxmod.backends.host.build", "subprocess")
loaded = sorted(name for name in sys.modules if name.startswith(banned))
print(compiled.stats.plan_cached, compiled.stats.kernels_built, len(loaded))
print(result.to_numpy().tobytes().hex())
print(compiled.explain())
"""


@pytest.fixture(scope="module")
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the processes keep compiled Python source, also if that is switched off."""
    return tmp_path_factory.mktemp("bytecode")


def _start(folder: Path, bytecode: Path) -> subprocess.Popen[str]:
    environ = {key: v for key, v in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environ |= {"MAXMOD_CACHE_DIR": str(folder.parent), "MAXMOD_VERIFY": "0"}
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _PROCESS],
        env={**environ, "PYTHONPYCACHEPREFIX": str(bytecode)},
        cwd=Path(maxmod.__file__).parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_a_warm_start_imports_no_compiler(plans: Path, bytecode: Path) -> None:
    (cold, *first), (warm, *second) = (
        _start(plans, bytecode).communicate()[0].splitlines() for _ in range(2)
    )
    assert cold.startswith("False 1 ") and not cold.endswith(" 0")
    assert warm == "True 0 0"
    assert first == second  # the results, and the text of explain


def test_processes_race(plans: Path, bytecode: Path) -> None:
    racers = [_start(plans, bytecode) for _ in range(4)]
    found = [racer.communicate()[0].splitlines()[1:] for racer in racers]
    assert len(found[0]) > 20
    assert all(lines == found[0] for lines in found)
    assert list(plans.glob("*.tmp")) == []
    assert _start(plans, bytecode).communicate()[0].startswith("True 0 0")
