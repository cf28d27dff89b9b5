"""Damaged weight files and indices are read as safetensors reads them, or refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from fuzz.examples import fuzzed, right_or_refused
from fuzz.mutations import changed_bytes, changed_json
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from weights.weight_files import build, info, write

from maxmod.weights import inspect_text, open_checkpoint

DATA = bytes(range(1, 65))
HEADER = {
    "__metadata__": {"format": "pt"},
    "a": info("F32", [2, 3], 0, 24),
    "b.weight": info("BF16", [4], 24, 32),
    "c": info("I64", [], 32, 40),
    "d": info("BOOL", [0, 3], 40, 40),
    "e": info("F8_E4M3", [24], 40, 64),
}
TEXT = json.dumps(HEADER)
WHOLE = build(TEXT.encode() + b" " * (-len(TEXT) % 8), DATA)
NAMES = ("dtype", "shape", "data_offsets", "__metadata__", "f")


def _read(path: Path) -> dict[str, bytes]:
    with open_checkpoint(path) as checkpoint:
        return {name: _bytes(tensor) for name, tensor in checkpoint.items()}


def _bytes(tensor: object) -> bytes:
    return np.ascontiguousarray(tensor.data).tobytes()


def _theirs(path: Path) -> set[str] | None:
    """The names that the library safetensors reads; None if it refuses the file."""
    try:
        with safe_open(path, "numpy") as file:
            return set(file.keys())
    except Exception:
        return None


def _check_file(path: Path, data: bytes) -> None:
    """What is read are bytes of the file, under names that the other library reads as well."""
    path.write_bytes(data)
    theirs = _theirs(path)
    with right_or_refused():
        found = _read(path)
        assert found.keys() == theirs
        assert all(value in data for value in found.values())
        assert inspect_text(path)


@fuzzed(100)
@given(data=st.data())
def test_damaged_files(tmp_path: Path, data: st.DataObject) -> None:
    changed = data.draw(changed_bytes(WHOLE, near=len(WHOLE) - len(DATA)))
    _check_file(tmp_path / "model.safetensors", changed)


@fuzzed(100)
@given(data=st.data())
def test_changed_headers(tmp_path: Path, data: st.DataObject) -> None:
    header = data.draw(changed_json(HEADER, names=NAMES))
    text = json.dumps(header).encode("utf-8", "surrogatepass")
    _check_file(tmp_path / "model.safetensors", build(text, DATA))


@fuzzed(100)
@given(data=st.data())
def test_changed_indices(tmp_path: Path, data: st.DataObject) -> None:
    """All tensors of the index, each from a file of the folder, or an error."""
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    shards = {"one.safetensors": ["a", "b"], "two.safetensors": ["c"]}
    for name, tensors in shards.items():
        write(folder / name, {t: ("U8", [1], t.encode()) for t in tensors})
    places = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    index = {"metadata": {"total_size": 3}, "weight_map": places}
    changed = data.draw(changed_json(index, names=("weight_map", "model.safetensors")))
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps(changed), "utf-8")
    with right_or_refused():
        found = _read(folder)
        assert found == {name: name.encode() for name in changed["weight_map"]}


@fuzzed(60)
@given(data=st.data())
def test_damaged_indices(tmp_path: Path, data: st.DataObject) -> None:
    folder = tmp_path / "model"
    folder.mkdir(exist_ok=True)
    write(folder / "one.safetensors", {"a": ("U8", [1], b"a")})
    whole = json.dumps({"metadata": {}, "weight_map": {"a": "one.safetensors"}}).encode()
    path = folder / "model.safetensors.index.json"
    path.write_bytes(data.draw(changed_bytes(whole)))
    with right_or_refused():
        assert set(_read(folder).values()) == {b"a"}


def test_the_file_that_is_changed_is_right(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(WHOLE)
    assert b"".join(_read(path).values()) == DATA
