"""Host kernels are translated by other compilers, and for other processors and systems."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Sequence

import build_cache
import cross_compile
import pytest

from maxmod.kernel.source import KernelSource

ZIG = cross_compile.zig()
needs_zig = pytest.mark.skipif(ZIG is None, reason="needs ziglang, which has clang for all systems")
SYSTEM = [name for name in ("gcc", "clang") if shutil.which(name)]

sources = functools.cache(cross_compile.representative)


def _refusal(command: Sequence[str], program: str, source: KernelSource) -> str:
    """What a compiler says, kept for the next run."""
    parts = [build_cache.identity(program), *command, *cross_compile.options(), source.full_text()]
    build = functools.partial(cross_compile.refusal, command, source)
    return build_cache.cached(".log", parts, lambda: build().encode()).read_text("utf-8")


def _refusals(command: Sequence[str], program: str) -> dict[str, str]:
    said = {source.name: _refusal(command, program, source) for source in sources()}
    return {name: text for name, text in said.items() if text}


@needs_zig
@pytest.mark.parametrize("target", cross_compile.QUICK)
def test_every_system(target: str) -> None:
    assert ZIG is not None
    assert _refusals([*ZIG, *cross_compile.TARGETS[target]], ZIG[0]) == {}


@pytest.mark.parametrize("options", [(), ("-march=native",)])
@pytest.mark.parametrize("compiler", SYSTEM)
def test_compilers_of_this_machine(compiler: str, options: tuple[str, ...]) -> None:
    assert _refusals([compiler, *options], shutil.which(compiler) or compiler) == {}


def test_a_compiler_that_lacks_a_builtin_is_noticed() -> None:
    if not SYSTEM:
        pytest.skip("needs a C compiler")
    (source,) = sources()[:1]
    code = source.plain + "\nint f(int x) { return __builtin_of_another_compiler(x); }\n"
    bad = KernelSource("bad", source.dialect, code, source.entry, 0, 0)
    assert "__builtin_of_another_compiler" in cross_compile.refusal([SYSTEM[0]], bad)
    assert cross_compile.refusals([SYSTEM[0]], [bad]).keys() == {"bad"}
