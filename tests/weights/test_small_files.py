"""Reading small files of folders of strangers: right, or one clear error, and never a wait."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from maxmod.errors import ModelError
from maxmod.system import files
from maxmod.system.files import open_regular, read_regular
from maxmod.weights.json_files import read_json, read_json_list
from maxmod.weights.text_files import read_bytes, read_text

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes")


def test_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'{"a": [1, 2.5, "\xc3\xa9"]}')
    assert read_json(path) == {"a": [1, 2.5, "é"]}
    path.write_bytes(b"[1]")
    assert read_json_list(str(path)) == [1]
    assert read_bytes(path) == b"[1]"


def test_byte_order_mark_is_dropped(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(path) == {"a": 1}
    assert read_text(path) == '{"a": 1}'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (LFS, "got a git-lfs pointer in place of the file. Hint: Fetch the files with `git lfs"),
        (b"<!DOCTYPE html>\n<html>", "got an HTML page in place of the file. Hint: The download"),
        (b"\n <HTML lang=en>", "got an HTML page"),
        (b'<?xml version="1.0"?><Error>', "got an XML page"),
        (b"Entry not found", "The file starts with 'Entry not found'"),
        (b"", "expected JSON, got an empty file. Hint: the download was interrupted"),
        (b" \n", "expected JSON, got an empty file"),
        ('{"a": 1}'.encode("utf-16"), "expected text in UTF-8, got the byte 0xff at position 0"),
        (b'{"a": ' + b"1" * 5000 + b"}", "expected JSON: .*5000 digits"),
        (b'{"a": 1', "expected JSON: "),
        (b"[" * 100_000, "expected JSON: "),
        (b"[1]", "expected a JSON object, got list"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as caught:
        read_json(path)
    assert str(caught.value).startswith(str(path))


@needs_pipes
def test_pipes_are_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    os.mkfifo(path)
    with pytest.raises(ModelError, match="expected a file, got a pipe or device"):
        read_json(path)


@needs_pipes
def test_pipe_that_appears_after_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "config.json"
    os.mkfifo(path)
    facts = os.stat(__file__)
    monkeypatch.setattr(files.os, "stat", lambda path: facts)
    with pytest.raises(OSError, match="expected a file, got a pipe or device"):
        open_regular(path)


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="the system has no /dev/zero")
def test_links_to_devices_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.symlink_to("/dev/zero")
    with pytest.raises(ModelError, match="expected a file, got a pipe or device"):
        read_json(path)


@pytest.mark.skipif(not os.path.exists("/proc/self/mem"), reason="the system has no /proc")
def test_links_to_files_of_the_system_are_empty(tmp_path: Path) -> None:
    for name in ("mem", "environ"):
        path = tmp_path / f"{name}.json"
        path.symlink_to(f"/proc/self/{name}")
        with pytest.raises(ModelError, match="got an empty file"):
            read_json(path)


def test_folders_missing_files_and_odd_names(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a file, got a folder"):
        read_json(tmp_path)
    with pytest.raises(ModelError, match="No such file"):
        read_json(tmp_path / "a.json")
    with pytest.raises(ModelError, match="null"):
        read_json(tmp_path / "a\0.json")


def test_size_is_checked_before_reading(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with open(path, "wb") as file:
        file.truncate(1 << 40)  # takes no room
    with pytest.raises(ModelError, match=f"expected at most {64 << 20} bytes, got {1 << 40}"):
        read_json(path)


def test_change_during_the_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"one")
    read_at = files.read_at

    def change(fd: int, length: int, offset: int) -> bytes:
        data = read_at(fd, length, offset)
        path.write_bytes(b"two and more")
        return data

    monkeypatch.setattr(files, "read_at", change)
    with pytest.raises(OSError, match="changed while it was read"):
        read_regular(path, 100)
