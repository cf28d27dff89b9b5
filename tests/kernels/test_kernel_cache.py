"""The kernel cache on disk: what makes a hit, what makes a miss, and that no fault is an error."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import maxmod
from maxmod.errors import MaxmodWarning
from maxmod.kernel import cache as kernel_cache

pytestmark = pytest.mark.usefixtures("cache_folder")

DATA = bytes(range(256)) * 20
KEY = kernel_cache.make_key("code", "options")


def test_round_trip(cache_folder: Path) -> None:
    assert kernel_cache.load(KEY) is None
    path = kernel_cache.store(KEY, DATA, source="text", note='{"name": "k"}')
    assert path == str(cache_folder / f"{KEY}.bin")
    entry = kernel_cache.load(KEY)
    assert entry is not None
    assert (entry.key, entry.data, entry.path) == (KEY, DATA, path)
    assert (cache_folder / f"{KEY}.src").read_text() == "text"
    assert (cache_folder / f"{KEY}.json").read_text() == '{"name": "k"}'


def test_files_are_private(cache_folder: Path) -> None:
    kernel_cache.store(KEY, DATA, source="text")
    assert cache_folder.stat().st_mode & 0o777 == 0o700
    assert (cache_folder / f"{KEY}.bin").stat().st_mode & 0o777 == 0o600


def test_keys_depend_on_every_part() -> None:
    keys = [
        kernel_cache.make_key("ab", "c"),
        kernel_cache.make_key("a", "bc"),
        kernel_cache.make_key("abc"),
        kernel_cache.make_key("ab", "c", ""),
        kernel_cache.make_key("ab", "c", shared="x"),
        kernel_cache.make_key("ab", "c", shared="y"),
        kernel_cache.make_key(b"\xff", "c"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 64 for key in keys)
    assert kernel_cache.make_key("ab", "c") == keys[0]


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty", "append", "rename"])
def test_damage_is_a_miss(cache_folder: Path, damage: str) -> None:
    kernel_cache.store(KEY, DATA)
    file = cache_folder / f"{KEY}.bin"
    content = bytearray(file.read_bytes())
    if damage == "flip":
        content[100] ^= 1
    key = kernel_cache.make_key("other") if damage == "rename" else KEY
    changed = {"truncate": content[:-1], "empty": b"", "append": content + b"x"}
    (cache_folder / f"{key}.bin").write_bytes(changed.get(damage, content))
    assert kernel_cache.load(key) is None
    kernel_cache.store(key, DATA)
    entry = kernel_cache.load(key)
    assert entry is not None and entry.data == DATA


def test_link_to_nowhere_is_a_miss(cache_folder: Path) -> None:
    kernel_cache.store(KEY, DATA)
    file = cache_folder / f"{KEY}.bin"
    file.unlink()
    file.symlink_to(cache_folder / "missing")
    assert kernel_cache.load(KEY) is None


def test_nocache(cache_folder: Path) -> None:
    kernel_cache.store(KEY, DATA)
    with maxmod.configure(nocache=True):
        assert kernel_cache.load(KEY) is None
        assert kernel_cache.store("0" * 64, DATA) is None
        assert kernel_cache.keep_source(KEY, "text") == ""
        assert not kernel_cache.info().usable
    assert not (cache_folder / ("0" * 64 + ".bin")).exists()
    assert kernel_cache.load(KEY) is not None


@pytest.mark.parametrize("target", ["folder", "file"])
def test_entries_that_others_can_write_are_not_used(cache_folder: Path, target: str) -> None:
    kernel_cache.store(KEY, DATA)
    if target == "file":
        (cache_folder / f"{KEY}.bin").chmod(0o666)
        assert kernel_cache.load(KEY) is None
        return
    cache_folder.chmod(0o777)
    with pytest.warns(MaxmodWarning, match="is not used: others own it or can write to it"):
        assert kernel_cache.load(KEY) is None
    assert kernel_cache.store(KEY, DATA) is None  # the warning comes once
    assert not kernel_cache.info().usable


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root can give files away"
)
def test_entries_that_others_own_are_not_used(cache_folder: Path) -> None:
    kernel_cache.store(KEY, DATA)
    os.chown(cache_folder / f"{KEY}.bin", 12345, 12345)
    assert kernel_cache.load(KEY) is None
    os.chown(cache_folder / f"{KEY}.bin", 0, 0)
    assert kernel_cache.load(KEY) is not None
    os.chown(cache_folder, 12345, 12345)
    with pytest.warns(MaxmodWarning, match="others own it"):
        assert kernel_cache.load(KEY) is None


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("in the way")
    with maxmod.configure(cache_dir=str(file)):
        assert kernel_cache.load(KEY) is None
        with pytest.warns(MaxmodWarning, match=r"kernel cache: nothing can be saved in .*file"):
            assert kernel_cache.store(KEY, DATA) is None
        assert kernel_cache.store(KEY, DATA) is None
        assert kernel_cache.keep_source(KEY, "text") == ""
        assert kernel_cache.info().entries == 0


def test_read_only_folder_is_still_read(
    cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel_cache.store(KEY, DATA)

    def refuse(*args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)  # a mode would not stop root
    with pytest.warns(MaxmodWarning, match="Permission denied"):
        assert kernel_cache.store("1" * 64, DATA) is None
    monkeypatch.undo()
    assert kernel_cache.load(KEY) is not None
    assert list(cache_folder.glob("*.tmp")) == []


def test_info_and_clear(cache_folder: Path) -> None:
    empty = kernel_cache.info()
    assert (empty.path, empty.entries, empty.nbytes) == (str(cache_folder), 0, 0)
    assert empty.usable and empty.writable
    assert kernel_cache.clear() == 0
    for number in range(3):
        kernel_cache.store(kernel_cache.make_key(str(number)), DATA, source="text", note="{}")
    kernel_cache.keep_source(kernel_cache.make_key("refused"), "text")
    found = kernel_cache.info()
    assert found.entries == 3
    assert found.nbytes == 3 * (len(DATA) + 32 + 4 + 2) + 4
    assert found.max_bytes == 1 << 30
    assert kernel_cache.clear() == 3
    assert kernel_cache.info().nbytes == 0


def test_trim_removes_the_least_recently_used_entries(cache_folder: Path) -> None:
    keys = [kernel_cache.make_key(str(number)) for number in range(10)]
    for number, key in enumerate(keys):
        kernel_cache.store(key, DATA, source="text")
        for suffix in (".bin", ".src"):
            then = time.time() - 10**6 * (10 - number)
            os.utime(cache_folder / (key + suffix), (then, then))
    assert kernel_cache.load(keys[0]) is not None  # counts as a use
    leftover = cache_folder / "x.bin.1-1-1.tmp"
    leftover.write_bytes(b"12345")
    os.utime(leftover, (0, 0))
    size = len(DATA) + 32 + 4
    with maxmod.configure(cache_max_bytes=8 * size):
        assert kernel_cache.trim() == 4 * size + 5  # down to three quarters of the limit
    assert not leftover.exists()
    left = [key for key in keys if kernel_cache.load(key) is not None]
    assert left == [keys[0], *keys[5:]]
    assert len(list(cache_folder.glob("*.src"))) == 6


def test_storing_trims(cache_folder: Path) -> None:
    with maxmod.configure(cache_max_bytes=20 * len(DATA)):
        for number in range(100):
            kernel_cache.store(kernel_cache.make_key(str(number)), DATA)
        assert kernel_cache.info().nbytes < 30 * len(DATA)
    assert kernel_cache.info().entries > 5


def test_default_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    platformdirs = pytest.importorskip("platformdirs")
    with maxmod.configure(cache_dir=""):
        for value in (str(tmp_path), "", "relative"):
            monkeypatch.setenv("XDG_CACHE_HOME", value)
            if value == "relative":  # not allowed by the standard
                monkeypatch.setenv("HOME", str(tmp_path))
                assert kernel_cache.path() == str(tmp_path / ".cache" / "maxmod" / "kernels")
                continue
            expected = platformdirs.user_cache_dir("maxmod", appauthor=False)
            assert kernel_cache.path() == os.path.join(expected, "kernels")


_RACER = """
import sys
from maxmod.kernel import cache as kernel_cache
for round in range(40):
    key = kernel_cache.make_key(str(round % 8))
    data = (str(round % 8) * 50000).encode()
    entry = kernel_cache.load(key)
    assert entry is None or entry.data == data
    kernel_cache.store(key, data, source="text", note="{}")
    entry = kernel_cache.load(key)
    assert entry is not None and entry.data == data
print("ok")
"""


def test_processes_race(cache_folder: Path) -> None:
    environ = {**os.environ, "MAXMOD_CACHE_DIR": str(cache_folder.parent)}
    racers = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _RACER],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    assert [racer.communicate()[0] for racer in racers] == ["ok\n"] * 4
    assert kernel_cache.info().entries == 8
    assert list(cache_folder.glob("*.tmp")) == []


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")
def test_pipe_in_place_of_an_entry(cache_folder: Path) -> None:
    """It is not waited for, and replaced by the next store."""
    assert kernel_cache.store(KEY, b"data")
    (cache_folder / f"{KEY}.bin").unlink()
    os.mkfifo(cache_folder / f"{KEY}.bin")
    assert kernel_cache.load(KEY) is None
    assert kernel_cache.store(KEY, b"data")
    entry = kernel_cache.load(KEY)
    assert entry is not None and entry.data == b"data"
