"""Saving: what other readers see, ties, shards, and the state after a crash at any point."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from weights.weight_files import STORAGE, write_sharded

from maxmod import DType, Tensor, TensorType
from maxmod.errors import ArgumentError, CheckpointError, OperandError
from maxmod.weights import open_checkpoint, save_state


def header_of(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])


def files_in(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def values(path: Path) -> dict[str, Any]:
    with open_checkpoint(path) as checkpoint:
        return {name: tensor.data.tolist() for name, tensor in checkpoint.items()}


def weights(value: float = 1.0) -> dict[str, np.ndarray]:
    """Three tensors of 40 bytes."""
    return {name: np.full(10, value, np.float32) for name in "abc"}


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 0), (3, 4)])
@pytest.mark.parametrize("code", STORAGE)
def test_every_dtype_is_read_back_by_the_package(
    tmp_path: Path, code: str, shape: tuple[int, ...]
) -> None:
    storage = np.dtype(STORAGE[code])
    raw = np.random.default_rng(0).bytes(int(np.prod(shape)) * storage.itemsize)
    if code == "BOOL":
        raw = bytes(byte & 1 for byte in raw)
    array = np.frombuffer(bytearray(raw), storage).reshape(shape)
    path = Path(save_state({"x": array}, tmp_path))
    ((name, found),) = safetensors.deserialize(path.read_bytes())
    assert (name, found["dtype"], found["shape"]) == ("x", code, list(shape))
    assert bytes(found["data"]) == raw
    with open_checkpoint(path) as checkpoint:
        tensor = checkpoint["x"]
    assert tensor.sizes == shape and tensor.data.dtype == storage
    assert np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8).tobytes() == raw


def test_the_package_reads_many(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    state = {
        f"t{i}": rng.normal(size=(i, 3)).astype([np.float16, np.float64][i % 2]) for i in range(9)
    }
    path = save_state(state, tmp_path / "x.safetensors", metadata={"note": "ü"})
    loaded = safetensors.numpy.load_file(path)
    assert loaded.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(loaded[name], array)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert file.metadata() == {"format": "pt", "note": "ü"}


def test_data_is_aligned(tmp_path: Path) -> None:
    """Tensors of a multiple of 64 bytes come first, so that mapping gives aligned arrays."""
    state = {
        "odd": np.ones(3, np.int8),
        "one": np.ones(16, np.float32),
        "half": np.ones(5, np.float16),
        "two": np.ones((4, 32), ml_dtypes.bfloat16),
        "double": np.ones(3),
    }
    path = save_state(state, tmp_path)
    with open_checkpoint(path, mmap=True) as checkpoint:
        assert list(checkpoint) == ["one", "two", "double", "half", "odd"]
        for name in ("one", "two"):
            assert checkpoint[name].data.ctypes.data % 64 == 0
        for name, array in state.items():
            assert checkpoint[name].data.ctypes.data % array.itemsize == 0
            assert not checkpoint[name].data.flags.owndata


def test_tied_tensors_are_stored_once(tmp_path: Path) -> None:
    tensor = Tensor(np.arange(6, dtype=np.float32))
    state = {"wte": tensor, "head": tensor, "same": Tensor(np.arange(6, dtype=np.float32))}
    path = Path(save_state(state, tmp_path))
    header = header_of(path)
    assert header.keys() == {"__metadata__", "wte", "same"}
    assert header["__metadata__"] == {"format": "pt", "head": "wte"}
    with open_checkpoint(path) as checkpoint:
        loaded = dict(checkpoint)
    assert loaded["head"] is loaded["wte"] and loaded["same"] is not loaded["wte"]
    # Ties survive another round, also lazily and through a cast.
    with open_checkpoint(path) as checkpoint:
        again = save_state(checkpoint.astype(DType.float16), tmp_path / "again.safetensors")
    assert header_of(Path(again))["__metadata__"]["head"] == "wte"


def test_kinds_of_state(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_state(iter([("a", Tensor([1.0])), ("b", np.arange(2))]), path)
    assert values(path) == {"a": [1], "b": [0, 1]}
    save_state({}, path)
    assert values(path) == {}
    transposed = Tensor.wrap(
        np.arange(6.0).reshape(2, 3).T, TensorType(DType.float64, [3, 2], Tensor(1.0).device)
    )
    save_state({"t": transposed}, path)
    assert values(path) == {"t": [[0, 3], [1, 4], [2, 5]]}
    for wrong in (5, [1, 2], "ab"):
        with pytest.raises(
            OperandError, match="save_state: expected a mapping of names to tensors"
        ):
            save_state(wrong, path)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="the pairs have a duplicate name"):
        save_state([("a", np.ones(1)), ("a", np.ones(1))], path)
    assert values(path) == {"t": [[0, 3], [1, 4], [2, 5]]}


@pytest.mark.parametrize(
    ("state", "options", "message"),
    [
        ({"__metadata__": np.ones(1)}, {}, "'__metadata__' is not a valid tensor name"),
        ({5: np.ones(1)}, {}, "'5' is not a valid tensor name"),
        ({"n" * 5000: np.ones(1)}, {}, "is not a valid tensor name"),
        ({"\ud800": np.ones(1)}, {}, "a name or the metadata is not valid Unicode"),
        ({"a": np.ones(1)}, {"metadata": {"x": 1}}, "metadata: expected strings"),
        ({"a": np.ones(1)}, {"metadata": {"a": "b"}}, "'a' is a tensor and a key of the metadata"),
        (
            {"a": np.ones(1, ml_dtypes.float4_e2m1fn)},
            {},
            r"safetensors cannot store float4_e2m1fn\[1\]: expected one of bool",
        ),
    ],
)
def test_states_that_cannot_be_stored(
    tmp_path: Path, state: Any, options: dict[str, Any], message: str
) -> None:
    save_state(weights(), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    with pytest.raises(CheckpointError, match=message) as caught:
        save_state(state, tmp_path, **options)
    assert str(caught.value).startswith("save_state: ")
    assert files_in(tmp_path) == ["model.safetensors"]
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "a" / "b"
    assert save_state(weights(), deep) == str(deep / "model.safetensors")
    named = tmp_path / "c" / "w.safetensors"
    assert save_state(weights(), str(named)) == str(named)
    monkeypatch.chdir(tmp_path)
    assert save_state(weights(), "w.safetensors") == os.path.join(".", "w.safetensors")
    (tmp_path / "file.bin").write_bytes(b"x")
    with pytest.raises(ArgumentError, match="expected a folder or a name that ends in .safetens"):
        save_state(weights(), tmp_path / "file.bin")


# ---- shards --------------------------------------------------------------------------------------


def test_shards(tmp_path: Path) -> None:
    state = {**weights(), "big": np.ones(100, np.float32), "d": np.ones(10, np.float32)}
    state["tied"] = state["a"]
    index = Path(save_state(state, tmp_path, max_shard_bytes=80))
    assert index == tmp_path / "model.safetensors.index.json"
    names = [f"model-{i:05d}-of-00004.safetensors" for i in (1, 2, 3, 4)]
    assert files_in(tmp_path) == [*names, "model.safetensors.index.json"]
    table = json.loads(index.read_text())
    assert table["metadata"] == {"total_size": 560}
    first, second, third, fourth = names
    assert table["weight_map"] == {
        "a": first,
        "b": first,
        "c": second,
        "big": third,
        "d": fourth,
    }
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.nbytes() == 560
        a = checkpoint["a"]
        assert checkpoint["tied"] is a
        for name, array in state.items():
            np.testing.assert_array_equal(checkpoint[name].data, array)
    for name in names:  # each is a separate file for every reader
        safetensors.numpy.load_file(tmp_path / name)


def test_shard_limit(tmp_path: Path) -> None:
    assert save_state(weights(), tmp_path, max_shard_bytes=120).endswith("model.safetensors")
    assert save_state(weights(), tmp_path, max_shard_bytes=119).endswith(".index.json")
    assert (
        len(
            set(
                json.loads((tmp_path / "model.safetensors.index.json").read_text())[
                    "weight_map"
                ].values()
            )
        )
        == 2
    )
    for limit in (0, -1):
        with pytest.raises(ArgumentError, match="max_shard_bytes: expected a size, got"):
            save_state(weights(), tmp_path, max_shard_bytes=limit)


def test_single_and_sharded_replace_each_other(tmp_path: Path) -> None:
    save_state(weights(1), tmp_path)
    save_state(weights(2), tmp_path, max_shard_bytes=40)
    assert values(tmp_path)["a"] == [2] * 10
    assert len(files_in(tmp_path)) == 4  # three shards and the index; the single file is gone
    save_state(weights(3), tmp_path, max_shard_bytes=40)
    assert values(tmp_path)["c"] == [3] * 10
    names = [f"model-v2-{i:05d}-of-00003.safetensors" for i in (1, 2, 3)]
    assert files_in(tmp_path) == [*names, "model.safetensors.index.json"]
    save_state(weights(4), tmp_path)
    assert values(tmp_path)["b"] == [4] * 10
    assert files_in(tmp_path) == ["model.safetensors"]


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    write_sharded(tmp_path)  # its shards have names that save_state does not give
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model-00001-of-00009.safetensors").write_bytes(b"unrelated")
    save_state(weights(), tmp_path)
    assert files_in(tmp_path) == [
        "config.json",
        "model-00001-of-00009.safetensors",
        "model.safetensors",
        "one.safetensors",
        "two.safetensors",
    ]


# ---- saving over open files --------------------------------------------------------------


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("limits", [(None, None), (40, 40), (None, 40), (40, None)])
def test_over_the_open_checkpoint(
    tmp_path: Path, mmap: bool, limits: tuple[int | None, int | None]
) -> None:
    save_state(weights(3), tmp_path, max_shard_bytes=limits[0])
    with open_checkpoint(tmp_path, mmap=mmap) as checkpoint:
        early = checkpoint["a"]
        save_state(checkpoint.astype(DType.float64), tmp_path, max_shard_bytes=limits[1])
        assert early.data.tolist() == [3] * 10
        assert checkpoint["b"].data.tolist() == [3] * 10  # still the old file
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.tensor_type("a").short() == "float64[10]"
    assert values(tmp_path) == {name: [3] * 10 for name in "abc"}


def test_over_a_link(tmp_path: Path) -> None:
    """The link is replaced, not the blob that other snapshots may share."""
    blob = tmp_path / "blob"
    save_state(weights(1), tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").rename(blob)
    (tmp_path / "x.safetensors").symlink_to(blob)
    before = blob.read_bytes()
    save_state(weights(2), tmp_path / "x.safetensors")
    assert blob.read_bytes() == before and values(tmp_path / "x.safetensors")["a"] == [2] * 10


# ---- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [None, 40])
def test_error_while_reading_the_state(tmp_path: Path, limit: int | None) -> None:
    save_state(weights(1), tmp_path, max_shard_bytes=limit)
    before = files_in(tmp_path)
    with open_checkpoint(tmp_path) as checkpoint:
        other = tmp_path / "other.safetensors"
        save_state(weights(2), other)
        broken = open_checkpoint(other)
        with other.open("r+b") as file:
            file.truncate(other.stat().st_size - 1)
        with pytest.raises(CheckpointError, match="changed after it was opened"):
            save_state(broken, tmp_path, max_shard_bytes=limit)
        other.unlink()
        assert files_in(tmp_path) == before
        assert checkpoint["a"].data.tolist() == [1] * 10
    assert values(tmp_path)["a"] == [1] * 10


def run(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Runs code in a child process; `state` and `save_state` are there."""
    prelude = (
        "import os, sys, signal, resource\n"
        "import numpy as np\n"
        "from maxmod.weights import save_state\n"
        "state = {name: np.full(10, 2, np.float32) for name in 'abc'}\n"
    )
    return subprocess.run(
        [sys.executable, "-c", prelude + code, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_full_disk(tmp_path: Path) -> None:
    """A limit on the size of files fails writes half-way, as a full disk does."""
    pytest.importorskip("resource", reason="this system cannot limit the size of files")
    save_state(weights(1), tmp_path)
    done = run(
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))\n"
        "try:\n"
        "    save_state(state, sys.argv[1])\n"
        "except OSError as error:\n"
        "    print('OSError', error.errno)\n",
        tmp_path,
    )
    assert done.stdout.startswith("OSError"), done.stderr
    assert files_in(tmp_path) == ["model.safetensors"]
    assert values(tmp_path)["a"] == [1] * 10


# Saves again and again, each time in a separate process, which ends at the n-th call of one of
# these functions, as in a power cut; prints how each process ended.
KILL = """
folder, before, after = sys.argv[1], *map(eval, sys.argv[2:])
count = 0
def dying(real, stop):
    def call(*args, **kwargs):
        global count
        count += 1
        if count == stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    return call
for stop in range(1, 100):
    path = os.path.join(folder, str(stop))
    save_state({name: array / 2 for name, array in state.items()}, path, max_shard_bytes=before)
    process = os.fork()
    if not process:
        for name in ("write", "fsync", "replace", "unlink"):
            setattr(os, name, dying(getattr(os, name), stop))
        save_state(state, path, max_shard_bytes=after)
        os._exit(0)
    ended = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    print(ended, flush=True)
    if ended == 0:
        break
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a POSIX system")
@pytest.mark.parametrize("limits", [(None, None), (40, 40), (None, 40), (40, None)])
def test_killed_at_any_point(tmp_path: Path, limits: tuple[int | None, int | None]) -> None:
    """After a kill, the folder holds the whole old model or the whole new one."""
    done = run(KILL, tmp_path, *limits)
    assert done.returncode == 0, done.stderr
    *killed, last = map(int, done.stdout.split())
    assert last == 0
    assert killed == [-9] * len(killed), done.stderr
    seen = []
    for stop in range(1, len(killed) + 2):
        found = values(tmp_path / str(stop))
        assert found in [{name: [v] * 10 for name in "abc"} for v in (1.0, 2.0)], (stop, found)
        seen.append(found["a"][0])
    assert seen[0] == 1.0 and seen[-1] == 2.0
    assert seen == sorted(seen)  # never back to the old one
    # What a killed save leaves behind does not disturb the next one.
    save_state(weights(5), tmp_path / "3", max_shard_bytes=limits[1])
    assert values(tmp_path / "3")["a"] == [5] * 10


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_interrupt_cleans_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    save_state(weights(1), tmp_path)

    def interrupted(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, name, interrupted)
        with pytest.raises(KeyboardInterrupt):
            save_state(weights(2), tmp_path)
        with pytest.raises(KeyboardInterrupt):
            save_state(weights(2), tmp_path, max_shard_bytes=40)
    assert files_in(tmp_path) == ["model.safetensors"]
    assert values(tmp_path)["a"] == [1] * 10


def test_files_are_synced_before_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def noted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*args: Any) -> Any:
            calls.append(name)
            return real(*args)

        return call

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, noted(name))
    save_state(weights(), tmp_path, max_shard_bytes=80)
    # Two shards, their folder, the index, its folder.
    assert calls == ["fsync", "replace"] * 2 + ["fsync"] + ["fsync", "replace"] + ["fsync"]
