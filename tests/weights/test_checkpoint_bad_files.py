"""Malformed and hostile files: one `CheckpointError` each, with the file and the reason."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from weights.weight_files import build, floats, info, write, write_index, write_sharded

from maxmod.errors import CheckpointError
from maxmod.weights import open_checkpoint

GOOD = {"a": info("F32", [2], 0, 8), "b": info("F32", [1], 8, 12)}
LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
)

# Name: (bytes of the file, pattern of the message behind the path)
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "the file is empty. Hint: The download was interrupted"),
    "short": (b"\x10\0\0", "too short: expected at least 8 bytes, got 3"),
    "huge header": (
        (2**63 - 1).to_bytes(8, "little") + b"{}",
        "header is too large: expected at most 100000000 bytes, got 9223372036854775807",
    ),
    "header above the cap": (
        (100_000_001).to_bytes(8, "little") + b"{}",
        "header is too large: expected at most 100000000 bytes, got 100000001",
    ),
    "header above the file": (
        (1000).to_bytes(8, "little") + b"{}",
        "truncated: expected a header of 1000 bytes, got 2",
    ),
    "no JSON": (build(b'{"a": nonsense}'), "the header is not valid JSON"),
    "no brace": (build(b" {}"), "the header: expected JSON that starts with '{'"),
    "no UTF-8": (build(b'{"\xff\xfe": 1}'), "the header is not valid JSON"),
    "deep JSON": (build(b'{"a":' + b"[" * 200_000), "the header is not valid JSON"),
    "long number": (build(b'{"a":' + b"9" * 10_000 + b"}"), "the header is not valid JSON"),
    "array": (build(b"[]"), "expected JSON that starts with '{'"),
    "truncated data": (build(GOOD, bytes(7)), "truncated: expected .* bytes, got"),
    "trailing bytes": (build(GOOD, bytes(13)), "bytes after the last tensor"),
    "overlap": (
        build({"a": info("F32", [2], 0, 8), "b": info("F32", [1], 4, 8)}, bytes(8)),
        "tensor 'b' overlaps the previous tensor: expected its data at byte 8, got 4",
    ),
    "hole": (
        build({"a": info("F32", [2], 0, 8), "b": info("F32", [1], 12, 16)}, bytes(16)),
        "tensor 'b' leaves a gap: expected its data at byte 8, got 12",
    ),
    "late start": (
        build({"a": info("F32", [1], 4, 8)}, bytes(8)),
        "tensor 'a' leaves a gap: expected its data at byte 0, got 4",
    ),
    "overflow": (
        build({"a": info("F32", [2**32, 2**32], 0, 0)}),
        r"tensor 'a': the shape \[4294967296, 4294967296\] overflows 63 bits",
    ),
    "overflow next to a zero": (
        build({"a": info("F32", [0, 2**62, 2**62], 0, 0)}),
        "overflows 63 bits",
    ),
    "size above 63 bits": (
        build({"a": info("F32", [2**64], 0, 0)}),
        r"tensor 'a': shape: expected a list of sizes, got \[18446744073709551616\]",
    ),
    "negative size": (build({"a": info("F32", [-1], 0, 4)}, bytes(4)), "expected a list of sizes"),
    "boolean size": (build({"a": info("F32", [True], 0, 4)}, bytes(4)), "expected a list of sizes"),
    "fractional size": (build({"a": info("F32", [1.0], 0, 4)}, bytes(4)), "a list of sizes"),
    "shape is not a list": (build({"a": {**GOOD["a"], "shape": 2}}, bytes(8)), "a list of sizes"),
    "one offset": (
        build({"a": {**GOOD["a"], "data_offsets": [0]}}, bytes(8)),
        r"data_offsets: expected \[begin, end\], got \[0\]",
    ),
    "offsets reversed": (
        build({"a": info("F32", [2], 8, 0)}, bytes(8)),
        r"data_offsets: expected \[begin, end\], got \[8, 0\]",
    ),
    "size does not fit": (
        build({"a": info("F32", [3], 0, 8)}, bytes(8)),
        r"tensor 'a': data_offsets do not fit its type: expected 12 bytes for F32\[3\], got 8",
    ),
    "unknown dtype": (
        build({"a": info("F31", [2], 0, 8)}, bytes(8)),
        "tensor 'a': unknown dtype: expected one of BOOL, .*F64, got 'F31'",
    ),
    "packed dtype": (build({"a": info("F4", [4], 0, 2)}, bytes(2)), "unknown dtype: .*got 'F4'"),
    "dtype is not a string": (build({"a": info(5, [2], 0, 8)}, bytes(8)), "unknown dtype"),  # type: ignore[arg-type]
    "rank": (
        build({"a": info("U8", [1] * 65, 0, 1)}, bytes(1)),
        "expected at most 64 axes, got 65",
    ),
    "entry not an object": (build({"a": [1]}), "expected an object with dtype, shape and data_off"),
    "entry lacks a key": (build({"a": {"dtype": "F32"}}), "expected an object with dtype"),
    "metadata is not an object": (build({"__metadata__": 1}), "__metadata__: expected an object"),
    "metadata is not a string": (
        build({"__metadata__": {"a": 1}}),
        "__metadata__: expected an object",
    ),
    "duplicate tensor": (
        build(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"I8","shape":[1],"data_offsets":[0,1]}}',
            bytes(1),
        ),
        "the header: duplicate key 'a'",
    ),
    "duplicate key inside": (
        build(b'{"a":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}}', bytes(1)),
        "duplicate key 'dtype'",
    ),
    "duplicate by escape": (
        build(b'{"a":{}, "\\u0061":{}}'),
        "duplicate key 'a'",
    ),
    "long name": (
        build({"n" * 5000: info("U8", [1], 0, 1)}, bytes(1)),
        "expected at most 4096 characters, got 5000",
    ),
    "lone surrogate": (
        build(b'{"\\ud800":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', bytes(1)),
        "safetensors rejects the file",
    ),
    "git-lfs pointer": (LFS, "got a git-lfs pointer. Hint: Fetch the files with `git lfs pull`"),
    "HTML page": (b"<!DOCTYPE html>\n<html><body>Not found", "got an HTML page. Hint: The downl"),
    "HTML page with space": (b"\n  <html lang=en>" + bytes(100), "got an HTML page"),
    "zip": (b"PK\x03\x04" + bytes(range(200)), "got a zip archive .a PyTorch file"),
    "pickle": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(100), "got a pickle"),
    "GGUF": (b"GGUF\x03\0\0\0" + bytes(100), "got a GGUF file. Hint: load_model reads"),
    "gzip": (b"\x1f\x8b\x08\0" + bytes(range(100, 200)), "got a gzip archive"),
    "HDF5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "got an HDF5 file"),
}


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("case", BAD)
def test_bad_file(tmp_path: Path, case: str, mmap: bool) -> None:
    content, pattern = BAD[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=pattern) as caught:
        open_checkpoint(path, mmap=mmap)
    message = str(caught.value)
    assert message.startswith(f"open_checkpoint: {path}: ")
    assert len(message) < 1000
    message.encode()  # can be printed


def test_magic_numbers_are_legal_lengths(tmp_path: Path) -> None:
    """A header of 0x0280 bytes starts the file like a pickle."""
    text = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    for length in (0x0280, 0x8B1F):
        content = build(text.ljust(length), bytes(1))
        assert content[:2] in (b"\x80\x02", b"\x1f\x8b")
        (tmp_path / "model.safetensors").write_bytes(content)
        assert list(open_checkpoint(tmp_path)) == ["a"]


def test_invalid_bool(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"mask": ("BOOL", [3], b"\x00\x01\x02")})
    checkpoint = open_checkpoint(path)
    with pytest.raises(CheckpointError, match="'mask': expected bytes 0 or 1 for BOOL"):
        checkpoint["mask"]


def test_no_huge_allocation(tmp_path: Path) -> None:
    """A file may claim much, but allocations are bounded by its size."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(build({"a": info("F64", [2**57], 0, 2**60)}, bytes(64)))
    with pytest.raises(CheckpointError, match="truncated: expected 1152921504606847"):
        open_checkpoint(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "empty folder", "NUL"])
def test_no_such_file(tmp_path: Path, kind: str) -> None:
    path: Any = tmp_path / "x.safetensors"
    pattern = "expected a file, got a (folder|pipe or device)"
    if kind == "missing":
        pattern = "cannot read the file: No such file"
    elif kind == "NUL":
        path, pattern = "a\0b", "null"
    elif kind == "pipe":
        os.mkfifo(path)  # opening it would wait for a writer for ever
    else:
        path.mkdir()
        pattern = "no weights: expected model.safetensors, an index, or one"
    if kind == "folder":
        (path / "model.safetensors").mkdir()
        pattern = "expected a file, got a (folder|pipe or device)"
    with pytest.raises(CheckpointError, match=pattern):
        open_checkpoint(path)


def test_folder_with_other_formats_only(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    for name in ("pytorch_model.bin", "training_args.bin", "expected.npz"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(CheckpointError, match="'pytorch_model.bin' is a file of PyTorch") as caught:
        open_checkpoint(tmp_path)
    lines = str(caught.value).split("\n")[1:3]
    compile("\n".join(line.strip() for line in lines), "hint", "exec")
    assert repr(str(tmp_path / "pytorch_model.bin")) in lines[1]
    assert repr(str(tmp_path / "model.safetensors")) in lines[1]
    (tmp_path / "pytorch_model.bin").rename(tmp_path / "model.gguf")
    with pytest.raises(CheckpointError, match="'model.gguf' is in another format, which is not"):
        open_checkpoint(tmp_path)


def test_folder_with_several_files_of_pytorch(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / f"pytorch_model-0000{number}-of-00002.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="'pytorch_model-00001-of-00002.bin' is a ") as caught:
        open_checkpoint(tmp_path)
    assert repr(str(tmp_path / "*.bin")) in str(caught.value)


def test_folder_with_an_adapter_only(tmp_path: Path) -> None:
    write(tmp_path / "adapter_model.safetensors", {"x": floats(1)})
    with pytest.raises(CheckpointError, match="holds a LoRA adapter only.*merge_and_unload"):
        open_checkpoint(tmp_path)


def test_folder_with_several_files(tmp_path: Path) -> None:
    for name in ("a.safetensors", "b.safetensors"):
        write(tmp_path / name, {"x": floats(1)})
    with pytest.raises(CheckpointError, match=r"ambiguous folder: 'a.safetensors', 'b.safeten"):
        open_checkpoint(tmp_path)
    write(tmp_path / "model.safetensors", {"y": floats(1)})
    assert list(open_checkpoint(tmp_path)) == ["y"]


def test_folder_with_one_shard_of_several(tmp_path: Path) -> None:
    write(tmp_path / "model-00001-of-00003.safetensors", {"x": floats(1)})
    index = r"\('model.safetensors.index.json'\), nor the shards 2, 3"
    message = f"one of 3 shards, but there is no index {index}.*incomplete"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)
    for number in (2, 3):
        write(tmp_path / f"model-0000{number}-of-00003.safetensors", {"x": floats(1)})
    message = r"'model-00001-of-00003.safetensors' is one of 3 shards, .*index.json'\). Hint: The"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tmp_path)


# ---- index files -------------------------------------------------------------------------------

OUTSIDE = [
    "../two.safetensors",
    "/etc/two.safetensors",
    "sub/two.safetensors",
    "..\\two.safetensors",
    "C:two.safetensors",
    "C:\\two.safetensors",
    "\\\\host\\two.safetensors",
    "..",
    ".",
    "",
    "two.safetensors\0",
    "two\n.safetensors",
    "two.safetensors:stream",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_shard_outside_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    write_sharded(folder)
    for place in (tmp_path, folder / "sub"):
        write(place / "two.safetensors", {"c": floats(9)})
    write_index(folder, {"a": "one.safetensors", "b": "one.safetensors", "c": name})
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(folder)
    assert "tensor 'c' points outside the folder: expected a plain file name, got" in str(
        caught.value
    )


INDEXES: dict[str, tuple[str, str]] = {
    "no JSON": ("nonsense", "the index is not valid JSON"),
    "array": ("[]", "expected an object 'weight_map'"),
    "no map": ("{}", "expected an object 'weight_map'"),
    "empty map": ('{"weight_map": {}}', "expected an object 'weight_map'"),
    "map is a list": ('{"weight_map": ["a"]}', "expected an object 'weight_map'"),
    "name is a number": ('{"weight_map": {"a": 5}}', "points outside the folder: .*got '5'"),
    "pickle": ('{"weight_map": {"a": "model.bin"}}', "expected the name of a .safetensors file"),
    "duplicate": (
        '{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}',
        "the index: duplicate key 'a'",
    ),
    "missing shard": (
        '{"weight_map": {"a": "one.safetensors", "z": "three.safetensors"}}',
        "the shard 'three.safetensors' is missing from the folder. Hint: The download is incompl",
    ),
    "absent from its shard": (
        '{"weight_map": {"a": "one.safetensors", "z": "two.safetensors"}}',
        "tensor 'z' is not in its shard 'two.safetensors'",
    ),
    "in the other shard": (
        '{"weight_map": {"a": "two.safetensors", "b": "one.safetensors"}}',
        "tensor 'a' is not in its shard 'two.safetensors'",
    ),
    "git-lfs pointer": (LFS.decode(), "expected an index, got a git-lfs pointer"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_bad_index(tmp_path: Path, case: str) -> None:
    text, pattern = INDEXES[case]
    index = write_sharded(tmp_path)
    index.write_text(text)
    with pytest.raises(CheckpointError, match=pattern) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value).startswith(f"open_checkpoint: {index}: ")


def test_tensor_in_two_shards(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    write(tmp_path / "two.safetensors", {"c": floats(4), "a": floats(7)})
    with pytest.raises(
        CheckpointError,
        match="tensor 'a' is in two shards, 'one.safetensors' and 'two.safetensors'",
    ):
        open_checkpoint(tmp_path)


def test_bad_shard_is_named(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    (tmp_path / "two.safetensors").write_bytes(LFS)
    with pytest.raises(CheckpointError, match=r"two\.safetensors: expected a .* git-lfs pointer"):
        open_checkpoint(tmp_path)


# ---- damage at random --------------------------------------------------------------------------

_HEADER = {
    "__metadata__": {"format": "pt"},
    "mask": info("BOOL", [4], 0, 4),
    "x": info("F32", [2, 3], 4, 28),
    "y": info("BF16", [5], 28, 38),
}
_CONTENT = build(_HEADER, bytes([0, 1, 1, 0]) + bytes(range(34)))


def _read_all(path: Path, mmap: bool) -> None:
    """Opens and reads; only `CheckpointError` is allowed, and types are kept."""
    try:
        with open_checkpoint(path, mmap=mmap) as checkpoint:
            for name in checkpoint:
                tensor = checkpoint[name]
                assert tensor.type == checkpoint.tensor_type(name)
                assert tensor.data.nbytes <= len(_CONTENT)
                assert tensor.dtype.name != "bool" or tensor.data.view(np.uint8).max(initial=0) <= 1
    except CheckpointError as error:
        assert re.match("open_checkpoint: .*: .*", str(error), re.DOTALL)
        str(error).encode()


@settings(max_examples=400)
@given(
    flips=st.lists(
        st.tuples(st.integers(0, len(_CONTENT) - 1), st.integers(1, 255)), min_size=1, max_size=4
    ),
    mmap=st.booleans(),
)
@example(flips=[(7, 0x80)], mmap=False)  # the sign bit of the length
def test_flipped_bytes(tmp_path: Path, flips: list[tuple[int, int]], mmap: bool) -> None:
    content = bytearray(_CONTENT)
    for position, mask in flips:
        content[position] ^= mask
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    _read_all(path, mmap)


@settings(max_examples=200)
@given(cut=st.integers(0, len(_CONTENT) - 1))
def test_every_cut_is_noticed(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(_CONTENT[:cut])
    with pytest.raises(CheckpointError):
        open_checkpoint(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)
_ENTRY = st.fixed_dictionaries(
    {"dtype": st.sampled_from(["F32", "U8", "BOOL", "x"]) | _JSON},
    optional={
        "shape": st.lists(st.integers(-1, 4), max_size=3) | _JSON,
        "data_offsets": st.lists(st.integers(-1, 16), min_size=2, max_size=2) | _JSON,
    },
)


@settings(max_examples=300)
@given(
    header=st.dictionaries(st.text(max_size=5), _ENTRY | _JSON, max_size=4), size=st.integers(0, 20)
)
def test_random_headers(tmp_path: Path, header: dict[str, Any], size: int) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(build(header, bytes(size)))
    _read_all(path, False)


@settings(max_examples=200)
@given(weight_map=_JSON | st.dictionaries(st.sampled_from("abcd"), st.text(max_size=12) | _JSON))
def test_random_indexes(tmp_path: Path, weight_map: Any) -> None:
    write_sharded(tmp_path)
    index = write_index(tmp_path, weight_map)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(index)
    str(caught.value).encode()
