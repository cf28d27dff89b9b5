"""The cache of what compilers made for tests: one build for each key, also among processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import build_cache
import pytest

from maxmod import configure
from maxmod.backends.host import build as host_build
from maxmod.backends.host import compiler as host_compiler
from maxmod.kernel.source import Dialect, KernelSource


@pytest.fixture(autouse=True)
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of builds."""
    monkeypatch.setenv(build_cache.FOLDER, str(tmp_path / "builds"))
    return tmp_path / "builds"


def test_each_key_is_built_once() -> None:
    calls: list[str] = []

    def build(text: str) -> bytes:
        return build_cache.cached(
            ".txt", [text, "flags"], lambda: calls.append(text) or text.encode()
        ).read_bytes()

    assert [build(text) for text in ("one", "two", "one")] == [b"one", b"two", b"one"]
    assert calls == ["one", "two"]


def test_parts_are_kept_apart() -> None:
    first, second = (
        build_cache.cached(".txt", parts, lambda: b"") for parts in (["ab", "c"], ["a", "bc"])
    )
    assert first != second


def test_a_failed_build_is_not_kept(builds: Path) -> None:
    def fail() -> bytes:
        raise ValueError("refused")

    with pytest.raises(ValueError, match="refused"):
        build_cache.cached(".txt", ["text"], fail)
    assert build_cache.cached(".txt", ["text"], lambda: b"built").read_bytes() == b"built"
    assert not list(builds.glob("*.tmp"))


_RACER = """
import sys, time
import build_cache

def build():
    print("built", flush=True)
    time.sleep(0.2)
    return b"result"

assert build_cache.cached(".txt", ["text"], build).read_bytes() == b"result"
"""


@pytest.mark.skipif(build_cache.fcntl is None, reason="needs POSIX locks")
def test_processes_wait_for_each_other() -> None:
    paths = [str(Path(build_cache.__file__).parent), *sys.path]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", _RACER]
    racers = [
        subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    found = [racer.communicate()[0] for racer in racers]
    assert sorted(found) == ["", "", "built\n"]
    assert [racer.returncode for racer in racers] == [0, 0, 0]


def test_old_entries_are_trimmed() -> None:
    old, new = (build_cache.cached(".txt", [text], text.encode) for text in ("old", "new"))
    month_ago = time.time() - 30 * 86400
    os.utime(old, (month_ago, month_ago))
    build_cache.trim()
    assert (old.exists(), new.exists()) == (False, True)


@pytest.mark.skipif(host_compiler.find() is None, reason="needs a C compiler")
def test_the_kernel_cache_does_not_notice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel cache that is empty stays a miss, though the compiler has nothing to do."""
    source = KernelSource(
        "k", Dialect.HOST, "void k(void *const *b, const int64_t *s) {}", "k", 0, 0
    )
    with configure(cache_dir=str(tmp_path / "first"), nocache=False):
        assert not host_compiler.build(source).cached
        assert host_compiler.build(source).cached

    def refuse(*args: object) -> bytes:
        raise AssertionError("the compiler was run")

    monkeypatch.setattr(build_cache, "_write", refuse)
    with configure(cache_dir=str(tmp_path / "second"), nocache=False):
        assert not host_compiler.build(source).cached
        monkeypatch.setattr(host_build.subprocess, "run", refuse)
        assert host_compiler.build(source).cached
