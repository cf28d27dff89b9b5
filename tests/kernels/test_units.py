"""Kernels that one run of the compiler builds together: their text, their places in the cache."""

from __future__ import annotations

import ctypes
import json
import logging
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import build_cache
import numpy as np
import pytest

import maxmod
from maxmod import CPU, DType, Tensor, TensorType, nn
from maxmod import functional as F
from maxmod.backends.host import build as host_build
from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host import progress as host_progress
from maxmod.backends.host import units as host_units
from maxmod.backends.host.units import Unit, cost_s, units
from maxmod.cli.progress import shown_progress
from maxmod.errors import CompileError
from maxmod.kernel.source import OWN, Dialect, KernelSource
from maxmod.models import adder_folder, load_model
from maxmod.runtime.compiled import built_together, compile_function

pytestmark = [
    pytest.mark.skipif(bool(host_compiler.unavailable_reason()), reason="there is no C compiler"),
    pytest.mark.usefixtures("cache_folder"),
]


def source(number: int, size: int = 0, **changes: object) -> KernelSource:
    """Returns a kernel that adds a number, with names and a macro that all of them have."""
    code = (
        f"#define MM_NUMBER_OF_IT {number}\n"
        "typedef struct {\n    float *x;\n} mm_args;\n\n"
        "MM_INLINE float mm_more(float x)\n{\n    return x + MM_NUMBER_OF_IT;\n}\n\n"
        "void mm_kernel(void *const *buffers, const int64_t *scalars)\n"
        "{\n"
        "    const mm_args g = {buffers[0]};\n"
        "    for (int64_t i = 0; i < scalars[0]; i++)\n"
        "        g.x[i] = mm_min(mm_more(g.x[i]), 100.0f);\n"
        "}\n"
    )
    values = {"name": f"add_{number}", "plain": code + "//" + "x" * size + "\n"}
    fixed = {"dialect": Dialect.HOST, "entry": "mm_kernel", "buffers": 1, "scalars": 1}
    return KernelSource(**{**values, **fixed, **changes})  # type: ignore[arg-type]


def result(kernel: host_compiler.HostKernel) -> float:
    """Returns what a kernel makes of 0."""
    x = np.zeros(1, np.float32)
    kernel((ctypes.c_void_p * 1)(x.ctypes.data), (ctypes.c_int64 * 1)(1))
    return float(x[0])


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The texts that the compiler gets."""
    texts: list[str] = []
    compile = host_build._compile

    def counted(path: str, flags: list[str], text: str, folder: str) -> bytes:
        texts.append(text)
        return compile(path, flags, text, folder)

    host_compiler.build(source(99))  # the library of threads is there
    monkeypatch.setattr(host_build, "_compile", counted)
    yield texts


def test_small_kernels_are_built_at_once_and_found_one_by_one(
    compiled: list[str], cache_folder: Path
) -> None:
    kernels = host_compiler.build_all([source(n) for n in range(1, 6)])
    assert [result(kernel) for kernel in kernels] == [1, 2, 3, 4, 5]
    assert len(compiled) == 1
    again = host_compiler.build_all([source(3), source(7)])
    assert [kernel.cached for kernel in again] == [True, False]
    assert [result(kernel) for kernel in again] == [3, 7]
    note = json.loads((cache_folder / f"{again[0].key}.json").read_text())
    assert note["name"] == "add_3"
    assert (cache_folder / f"{note['unit']}.bin").exists()
    assert (cache_folder / f"{again[0].key}.src").read_text() == source(3).full_text()


def test_only_the_refused_kernel_of_a_unit_fails(compiled: list[str]) -> None:
    bad = source(2, plain="void mm_kernel(void *const *b, const int64_t *s)\n{\n    1 +;\n}\n")
    with pytest.raises(CompileError, match="add_2: .* refused the kernel\\b(?! \\()") as caught:
        host_compiler.build_all([source(1), bad, source(3)])
    assert "kernel.c:3" in caught.value.log
    assert len(compiled) == 4  # together, and each alone
    assert all(host_compiler.build(source(n)).cached for n in (1, 3))


def test_kernels_that_clash_are_built_alone(compiled: list[str]) -> None:
    """A name without a prefix at file scope is no error, only slower."""
    text = "static int other;\nstatic int other_too = 1;\n"
    clash = [
        source(n, plain=text.replace("1", str(n)) + source(n).plain, name=f"k{n}") for n in (1, 2)
    ]
    assert [result(kernel) for kernel in host_compiler.build_all(clash)] == [1, 2]
    assert len(compiled) == 3


def test_a_lost_unit_is_built_again(cache_folder: Path) -> None:
    first = host_compiler.build_all([source(1), source(2)])[0]
    unit = json.loads((cache_folder / f"{first.key}.json").read_text())["unit"]
    (cache_folder / f"{unit}.bin").unlink()
    again = host_compiler.build(source(1))
    assert not again.cached
    assert result(again) == 1
    assert host_compiler.build(source(1)).cached


def test_a_damaged_place_is_built_again(cache_folder: Path) -> None:
    for data in (b"in unit ", b"in unit 12 mm_kernel", b"in unit \xff"):
        first, _ = host_compiler.build_all([source(1), source(2)])
        host_compiler.kernel_cache.store(first.key, data)
        again = host_compiler.build(source(1))
        assert (again.cached, result(again)) == (False, 1)


def test_without_cache_units_are_loaded_all_the_same(cache_folder: Path) -> None:
    with maxmod.configure(nocache=True):
        kernels = host_compiler.build_all([source(1), source(2)])
    assert [result(kernel) for kernel in kernels] == [1, 2]


# ---- what kernels share --------------------------------------------------------------------------

SHARED = """
#ifdef MM_SHARED_ELSEWHERE
void (*mm_run_shared)(void *const *buffers, const int64_t *scalars);
#else
static void mm_run_shared(void *const *buffers, const int64_t *scalars)
{
    ((float *)buffers[0])[0] += (float)(scalars[0] * mm_threads->count() / mm_threads->count());
}
#endif
"""


def sharing(number: int, shared: str = SHARED) -> KernelSource:
    """Returns a kernel that lets what it shares add a number."""
    own = (
        "void mm_kernel(void *const *buffers, const int64_t *scalars)\n{\n"
        f"    const int64_t number = {number} + 0 * scalars[0];\n"
        "    mm_run_shared(buffers, &number);\n}\n"
    )
    return source(number, plain=f"{shared}\n{OWN}\n{own}")


def test_the_shared_part_of_kernels_is_built_once(compiled: list[str]) -> None:
    first = host_compiler.build_all([sharing(1), sharing(2)])
    assert len(compiled) == 2  # the two, and what they share
    second = host_compiler.build_all([sharing(3)])
    assert len(compiled) == 3
    assert [result(kernel) for kernel in (*first, *second)] == [1, 2, 3]
    warm = host_compiler.build_all([sharing(3), sharing(1), source(7)])
    assert [kernel.cached for kernel in warm] == [True, True, False]
    assert [result(kernel) for kernel in warm] == [3, 1, 7]


def test_kernels_of_two_kinds_are_one_unit(compiled: list[str]) -> None:
    other = SHARED.replace("+=", "-=")
    kernels = host_compiler.build_all([sharing(1), sharing(2, other), sharing(3), source(4)])
    assert [result(kernel) for kernel in kernels] == [1, -2, 3, 4]
    assert len(compiled) == 3


def test_a_lost_shared_library_is_built_again(compiled: list[str], cache_folder: Path) -> None:
    host_compiler.build(sharing(1))
    for note in cache_folder.glob("*.json"):
        if json.loads(note.read_text()).get("name") == "shared":
            note.with_suffix(".bin").unlink()
    again = host_compiler.build(sharing(1))
    assert (again.cached, result(again)) == (False, 1)
    assert host_compiler.build(sharing(1)).cached


def test_where_the_shared_part_is_refused_each_kernel_says_so(compiled: list[str]) -> None:
    with pytest.raises(CompileError, match="add_1: .* refused the kernel") as caught:
        host_compiler.build_all([sharing(1, SHARED.replace("float *", "flout *")), source(2)])
    assert "flout" in caught.value.log
    assert host_compiler.build(source(2)).cached


def test_a_kernel_inseparable_from_the_shared_part_contains_a_copy(
    compiled: list[str],
) -> None:
    together = SHARED.replace("#ifdef MM_SHARED_ELSEWHERE", "#ifdef MM_SHARED_ELSEWHERE\n1 +;")
    assert result(host_compiler.build(sharing(5, together))) == 5
    assert host_compiler.build(sharing(5, together)).cached
    alone = SHARED.replace("static void mm_run_shared", "#error inside\nvoid mm_run_other")
    with pytest.raises(CompileError):
        host_compiler.build(sharing(6, alone))


def test_without_cache_shared_parts_are_linked_all_the_same() -> None:
    with maxmod.configure(nocache=True):
        assert [result(k) for k in host_compiler.build_all([sharing(1), sharing(2)])] == [1, 2]


# ---- several models at a time --------------------------------------------------------------------


def test_models_that_are_built_together_share_kernels_and_compilers(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_build, "_usable_cpus", lambda: 1)
    row = TensorType(DType.float32, (4, 8), CPU())
    with built_together():
        first = compile_function(F.exp, [row], name="first", parameters={})
        second = compile_function(_exp_and_double, [row], name="second", parameters={})
        assert first.stats.kernels_built == 0  # nobody waited for it
    assert len(compiled) == 2
    assert sum("mm_exp(" in text.split("kernel.c")[-1] for text in compiled) == 1
    built = [(model.stats.kernels_built, model.stats.kernels_cached) for model in (first, second)]
    assert built == [(1, 0), (1, 1)]
    x = np.ones((4, 8), np.float32)
    for found, want in zip(second(Tensor.from_dlpack(x)), (np.exp(x), x.T * 2), strict=True):
        np.testing.assert_allclose(found.to_numpy(), want, rtol=1e-6)
    np.testing.assert_allclose(first(Tensor.from_dlpack(x)).to_numpy(), np.exp(x), rtol=1e-6)


def _exp_and_double(x: Tensor) -> tuple[Tensor, Tensor]:
    return F.exp(x), F.permute(x, [1, 0]) * 2


def test_a_refused_kernel_of_one_model_does_not_touch_the_other_model(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = host_build._build_unit

    def building(compiler: Any, unit: Unit, *more: Any) -> Any:
        if any("mm_log(" in source.plain for source in unit.sources.values()):
            raise host_build.Refused("no logarithm")
        return build(compiler, unit, *more)

    monkeypatch.setattr(host_build, "_build_unit", building)
    row = TensorType(DType.float32, (4,), CPU())
    with built_together():
        made = [
            compile_function(fn, [row], name="f", parameters={}) for fn in (F.exp, F.log, F.exp)
        ]
    assert [model.stats.kernels_refused for model in made] == [0, 1, 0]
    x = np.full(4, 2, np.float32)
    for model, fn in zip(made, (np.exp, np.log, np.exp), strict=True):
        np.testing.assert_allclose(model(Tensor.from_dlpack(x)).to_numpy(), fn(x), rtol=1e-6)


def test_the_first_run_of_a_language_model_starts_few_compilers(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both steps are built together, and what their products share once."""
    monkeypatch.setattr(host_build, "_usable_cpus", lambda: 2)
    model = load_model(adder_folder())
    with build_cache.unoptimised_host_kernels():
        assert model.generate("123+456=") == "579"
    assert len(compiled) <= 7
    assert len(set(compiled)) == len(compiled)
    assert sum("void mm_shared(" in text for text in compiled) == 1


# ---- distribution --------------------------------------------------------------------------------


def parts(sizes: list[int], cpus: int) -> list[list[int]]:
    """Returns the sizes of the kernels of each unit."""
    made = {str(n): source(n, size) for n, size in enumerate(sizes)}
    return [[sizes[int(key)] for key in unit.sources] for unit in units(made, cpus)]


def test_few_small_kernels_are_one_unit() -> None:
    assert parts([0] * 5, cpus=64) == [[0] * 5]


def test_large_kernels_are_shared_among_cpus_and_the_longest_unit_is_first() -> None:
    assert parts([30_000, 21_000, 10_000, 0], cpus=2) == [[21_000, 10_000], [30_000, 0]]


def test_much_work_is_more_units_than_cpus() -> None:
    found = parts([30_000] * 20, cpus=1)
    assert sorted(map(len, found)) == [1] * 2 + [2] * 9 or max(map(len, found)) <= 2
    assert sum(map(len, found)) == 20


def test_kernels_with_angles_are_in_one_unit() -> None:
    """What sine and cosine need is longer than most kernels."""
    text = source(1, 20_000).plain
    angles = [text.replace("mm_more", f"mm_{name}") for name in ("sin", "cos", "sin")]
    made = {str(n): source(n, plain=code) for n, code in enumerate([*angles, text, text])}
    assert sorted("".join(sorted(unit.sources)) for unit in units(made, 2)) == ["012", "34"]


def test_other_options_or_entries_are_other_units() -> None:
    text = source(1).plain.replace("mm_kernel", "mm_other")
    made = {
        "a": source(1),
        "b": source(2, options=("-O1",)),
        "c": source(3, plain=text, entry="mm_other"),
        "d": source(4),
    }
    assert sorted("".join(unit.sources) for unit in units(made, 1)) == ["ad", "b", "c"]
    assert Unit({"c": made["c"]}).entry("c") == "mm_other"
    assert cost_s(source(1, 1000)) > cost_s(source(1))


# ---- the kernels of maxmod -----------------------------------------------------------------------


class Everything(nn.Module):
    """Two kernels, or more, of every hand-written text, and a few others."""

    def __init__(self) -> None:
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16)
        self.norm = nn.LayerNorm(16)
        self.bytes = nn.QuantizedLinear.of(nn.Linear(16, 32), "int8")
        self.nibbles = nn.QuantizedLinear.of(nn.Linear(32, 16), "int4")

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        y = self.down(F.gelu(self.up(self.norm(x))))
        z = F.sin(x) + F.cos(y)
        q, k = y.reshape((-1, 2, 8)).permute([1, 0, 2]), z.reshape((-1, 2, 8)).permute([1, 0, 2])
        seen = F.scaled_dot_product_attention(q, k, k)
        kept = F.scaled_dot_product_attention(q, k, k, is_causal=True)
        narrow = F.cast(x, DType.bfloat16)
        wide = self.bytes(x), F.relu(self.bytes(y))
        codes = (*wide, *map(self.nibbles, wide), F.relu(self.nibbles(wide[0])))
        return y @ z.T, z.T @ y, seen, kept, F.cast(narrow @ narrow.T, x.dtype), *codes


class Products(nn.Module):
    """Products with weights of three kinds, two layers of each."""

    def __init__(self) -> None:
        self.layers = [nn.Linear(64, 8 * number) for number in range(1, 7)]
        self.layers[2:4] = [nn.QuantizedLinear.of(layer, "int8") for layer in self.layers[2:4]]
        self.layers[4:] = [nn.QuantizedLinear.of(layer, "int4", 32) for layer in self.layers[4:]]

    def forward(self, x: Tensor) -> list[Tensor]:
        return [F.relu(layer(x)) + number for number, layer in enumerate(self.layers)]


def test_products_with_one_kind_of_weight_share_a_library(
    compiled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other sizes, left operands and epilogues are a few lines each."""
    monkeypatch.setattr(host_build, "_usable_cpus", lambda: 1)
    model = Products()
    compiled.clear()  # the one that rounds weights
    row = TensorType(DType.float32, ("n", 64), CPU())
    x = Tensor.from_dlpack(np.linspace(-1, 1, 5 * 64, dtype=np.float32).reshape(5, 64))
    with build_cache.unoptimised_host_kernels():
        found = model.compile(row)(x)
        cores = [text for text in compiled if "void mm_shared(" in text]
        assert (len(cores), len(compiled)) == (3, 4)
        host_compiler.build_all(with_other_numbers(model.compile(row).kernels))
    assert len(compiled) == 5
    for got, want in zip(found, model(x), strict=True):
        np.testing.assert_allclose(got.to_numpy(), want.to_numpy(), rtol=0, atol=1e-3)


def with_other_numbers(kernels: Sequence[KernelSource]) -> list[KernelSource]:
    """Returns kernels that differ in an epilogue, and in nothing that they share."""
    return [replace(kernel, plain=f"{kernel.plain}// another\n") for kernel in kernels]


def test_the_kernels_of_a_model_can_be_built_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file of `kernels/` has a name at file scope that others cannot have, too."""
    model = Everything()
    row = TensorType(DType.float32, ("n", 16), CPU())
    texts: list[str] = []
    compile = host_build._compile
    monkeypatch.setattr(
        host_build,
        "_compile",
        lambda path, flags, text, folder: texts.append(text) or compile(path, flags, text, folder),
    )
    monkeypatch.setattr(host_build, "_usable_cpus", lambda: 1)
    monkeypatch.setattr(host_units, "_LARGEST_S", 1e9)
    x = np.linspace(-1, 1, 5 * 16, dtype=np.float32).reshape(5, 16)
    with build_cache.unoptimised_host_kernels():
        compiled = model.compile(row)
        found = compiled(Tensor.from_dlpack(x))
    assert compiled.stats.kernels_built > 10
    assert not {kernel.full_text() for kernel in compiled.kernels}.intersection(texts)
    for got, want in zip(found, model(Tensor.from_dlpack(x)), strict=True):
        limit = 2e-2 + 2e-4 * np.abs(want.to_numpy()).max()  # rows of x are rounded
        np.testing.assert_allclose(got.to_numpy(), want.to_numpy(), rtol=0, atol=limit)


# ---- progress ------------------------------------------------------------------------------------


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Compiling takes longer than what goes without a word."""
    monkeypatch.setattr(host_progress, "INTERVAL_S", 0.01)
    compile, event = host_build._compile, threading.Event()

    def slowly(path: str, flags: list[str], text: str, folder: str) -> bytes:
        event.wait(0.1)
        return compile(path, flags, text, folder)

    monkeypatch.setattr(host_build, "_compile", slowly)
    with maxmod.configure(progress=True):
        yield


@pytest.mark.usefixtures("slow")
def test_progress_is_logged_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="maxmod.compile"):
        host_compiler.build_all([source(1), source(2)])
        texts = [record.getMessage() for record in caplog.records]
        assert "compiling: 0 of" in texts[0]
        numbers = caplog.records[-1].__dict__
        assert numbers["done"] == numbers["total"] > 0
        caplog.clear()
        host_compiler.build_all([source(1), source(2)])  # nothing to do
        with maxmod.configure(progress=False):
            host_compiler.build(source(3))
        assert not caplog.records


@pytest.mark.usefixtures("slow")
def test_a_library_prints_no_progress_and_the_command_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    host_compiler.build(source(1))
    assert capsys.readouterr() == ("", "")
    with shown_progress():
        host_compiler.build_all([source(2), source(3)])
    out, err = capsys.readouterr()
    assert (out, err) == ("", "maxmod: compiling: 0 of 2 kernels are built\n")


@pytest.mark.usefixtures("slow")
def test_a_terminal_shows_one_line_that_is_gone_at_the_end(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    host_compiler.build(source(1))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with shown_progress():
        host_compiler.build_all([source(2), source(3)])
    err = capsys.readouterr().err
    assert err.startswith("\r\x1b[Kmaxmod: compiling: 0 of 2 kernels are built")
    assert err.endswith("\r\x1b[K")
    assert "\n" not in err
