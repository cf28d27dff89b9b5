"""Weight files that others change, and what killed saves leave behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from maxmod.errors import CheckpointError
from maxmod.weights import open_checkpoint, save_state
from maxmod.weights.temporary import new_temporary, remove_abandoned

STATE = {"a": np.array([1, 2], np.float32), "b": np.ones(1000, np.float32)}
posix = pytest.mark.skipif(sys.platform == "win32", reason="the system has no such locks")


def _later(path: Path) -> None:
    """Moves the time of a file on, as a write some time later does."""
    facts = os.stat(path)
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns + 1_000_000))


@pytest.mark.parametrize("mmap", [False, True])
def test_overwritten_files_are_noticed(tmp_path: Path, mmap: bool) -> None:
    path = Path(save_state(STATE, tmp_path))
    with open_checkpoint(path, mmap=mmap) as checkpoint:
        assert checkpoint["a"].to_numpy().tolist() == [1, 2]
        data = path.read_bytes()
        with open(path, "r+b") as file:  # the same bytes: who knows what they were meanwhile
            file.write(data)
        _later(path)
        with pytest.raises(CheckpointError, match=r"model.safetensors: the file was changed after"):
            checkpoint["a"]


@pytest.mark.parametrize("mmap", [False, True])
def test_shortened_files_are_noticed(tmp_path: Path, mmap: bool) -> None:
    path = Path(save_state(STATE, tmp_path))
    size = path.stat().st_size
    with open_checkpoint(path, mmap=mmap) as checkpoint:
        os.truncate(path, 200)
        with pytest.raises(CheckpointError, match=f"expected {size} bytes, got 200. Hint: Open it"):
            checkpoint["b"]  # the process would end by SIGBUS


def test_change_during_the_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(save_state(STATE, tmp_path))
    with open_checkpoint(path) as checkpoint:
        read = checkpoint.file(0).read_part

        def change(entry: object, target: memoryview, start: int) -> None:
            read(entry, target, start)  # type: ignore[arg-type]
            _later(path)

        monkeypatch.setattr(checkpoint.file(0), "read_part", change)
        with pytest.raises(CheckpointError, match="was changed after it was opened"):
            checkpoint["b"]


@pytest.mark.parametrize("mmap", [False, True])
def test_replaced_files_are_read_as_before(tmp_path: Path, mmap: bool) -> None:
    path = save_state(STATE, tmp_path)
    with open_checkpoint(path, mmap=mmap) as checkpoint:
        save_state({name: 2 * array for name, array in STATE.items()}, tmp_path)
        assert checkpoint["a"].to_numpy().tolist() == [1, 2]
    with open_checkpoint(path) as checkpoint:
        assert checkpoint["a"].to_numpy().tolist() == [2, 4]


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="the system has no /proc")
def test_links_to_memory_are_refused(tmp_path: Path) -> None:
    link = tmp_path / "model.safetensors"
    link.symlink_to("/proc/self/mem")
    with pytest.raises(CheckpointError, match="model.safetensors: cannot read the file: "):
        open_checkpoint(tmp_path)


# ---- killed saves --------------------------------------------------------------------------------

KILLED = """
import os, signal, sys
import numpy as np
from maxmod.weights import save, save_state
def die(*args): os.kill(os.getpid(), signal.SIGKILL)
save._write_shard.__globals__["_write"] = die
save_state({"a": np.ones(1000, np.float32)}, sys.argv[1])
"""


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@posix
def test_next_save_removes_the_rest_of_a_killed_one(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = _names(tmp_path)
    assert left.startswith(".model.safetensors.") and left.endswith(".tmp")
    save_state(STATE, tmp_path)
    assert _names(tmp_path) == ["model.safetensors"]


@posix
def test_files_of_living_writers_stay(tmp_path: Path) -> None:
    fd, name = new_temporary(str(tmp_path / "model.safetensors"))
    other = tmp_path / ".model.safetensors.index.json.0123abcd.tmp"
    other.write_bytes(b"x")
    remove_abandoned(str(tmp_path))
    assert _names(tmp_path) == [os.path.basename(name)]
    os.close(fd)
    remove_abandoned(str(tmp_path))
    assert _names(tmp_path) == []


@posix
def test_files_of_other_names_stay(tmp_path: Path) -> None:
    names = ["a.tmp", ".model.safetensors.tmp", "model.safetensors.0123abcd.tmp", ".b.0123abcd.tmp"]
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / ".c.safetensors.0123abcd.tmp").mkdir()
    (tmp_path / ".d.safetensors.0123abcd.tmp").symlink_to(tmp_path / "a.tmp")
    before = _names(tmp_path)
    remove_abandoned(str(tmp_path))
    assert _names(tmp_path) == before


@posix
def test_writer_whose_file_was_removed_before_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maxmod.weights import temporary

    lock, seen = temporary._lock, []

    def remove_first(fd: int) -> bool | None:
        if not seen:
            (path,) = tmp_path.iterdir()
            path.unlink()
        seen.append(fd)
        return lock(fd)

    monkeypatch.setattr(temporary, "_lock", remove_first)
    fd, name = new_temporary(str(tmp_path / "model.safetensors"))
    os.close(fd)
    assert os.path.exists(name) and len(seen) == 2
