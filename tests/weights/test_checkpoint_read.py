"""Reading well-formed files: values bit for bit, laziness, ties, folders and links."""

from __future__ import annotations

import threading
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from weights.weight_files import STORAGE, floats, write, write_index, write_sharded

from maxmod import DType, Tensor
from maxmod.errors import CheckpointError, WeightsError
from maxmod.weights import Weights, open_checkpoint


def raw_bytes(tensor: Tensor) -> bytes:
    return np.ascontiguousarray(tensor.data).reshape(-1).view(np.uint8).tobytes()


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize("shape", [[], [0], [1], [7], [3, 0, 2], [2, 3, 5]])
@pytest.mark.parametrize("code", STORAGE)
def test_every_dtype_and_shape(tmp_path: Path, code: str, shape: list[int], mmap: bool) -> None:
    storage = np.dtype(STORAGE[code])
    count = int(np.prod(shape))
    raw = np.random.default_rng(0).bytes(count * storage.itemsize)
    if code == "BOOL":
        raw = bytes(byte & 1 for byte in raw)
    # One byte in front makes the wider dtypes misaligned in the file.
    path = write(tmp_path / "x.safetensors", {"pad": ("U8", [1], b"x"), "t": (code, shape, raw)})
    with open_checkpoint(path, mmap=mmap) as checkpoint:
        tensor = checkpoint["t"]
        assert tensor.type == checkpoint.tensor_type("t")
    assert tensor.dtype is DType.from_numpy(storage)
    assert tensor.data.dtype == storage and tensor.data.shape == tuple(shape)
    assert tensor.data.flags.c_contiguous and tensor.data.flags.aligned
    assert raw_bytes(tensor) == raw


def test_files_of_the_safetensors_package_are_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    state = {f"layer.{i}.weight": rng.normal(size=(i, 5)).astype(np.float16) for i in range(5)}
    safetensors.numpy.save_file(state, tmp_path / "model.safetensors", {"note": "hello"})
    with open_checkpoint(tmp_path) as checkpoint:
        assert dict(checkpoint.metadata) == {"note": "hello"}
        assert set(checkpoint) == set(state)
        for name, array in state.items():
            np.testing.assert_array_equal(checkpoint[name].to_numpy(), array)


def test_large_tensor_is_aligned_and_whole(tmp_path: Path) -> None:
    """Above some size, several threads read at once."""
    array = np.arange(5_000_011, dtype=np.int32)
    safetensors.numpy.save_file({"x": array}, tmp_path / "model.safetensors")
    with open_checkpoint(tmp_path) as checkpoint:
        data = checkpoint["x"].data
    np.testing.assert_array_equal(data, array)
    assert data.ctypes.data % 64 == 0 and data.flags.writeable


def test_mmap_shares_the_file_and_outlives_the_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"x": floats(1, 2, 3)})
    with open_checkpoint(path, mmap=True) as checkpoint:
        first, second = checkpoint["x"].data, checkpoint["x"].data
        assert np.shares_memory(first, second) and not first.flags.writeable
    assert first.tolist() == [1, 2, 3]
    assert (Tensor.wrap(first, checkpoint.tensor_type("x")) + 1).to_numpy().tolist() == [2, 3, 4]


def test_is_a_lazy_read_only_mapping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = open_checkpoint(write(tmp_path / "m.safetensors", {"b": floats(), "a": floats(1)}))

    def no_read(*args: object) -> None:
        raise AssertionError("data was read")

    with monkeypatch.context() as patch:
        patch.setattr("maxmod.weights.checkpoint.WeightFile.read", no_read)
        assert isinstance(checkpoint, Weights)
        assert list(checkpoint) == list(checkpoint.keys()) == ["b", "a"]  # as in the data
        assert len(checkpoint) == 2 and "a" in checkpoint and "z" not in checkpoint
        assert checkpoint.get("z") is None and checkpoint.get("z", 5) == 5
        assert checkpoint.tensor_type("a").short() == "float32[1]"
        assert checkpoint == checkpoint and checkpoint != dict.fromkeys("ab")
        assert len({checkpoint}) == 1
        assert checkpoint.nbytes() == 4
        repr(checkpoint)
    assert checkpoint("a").item() == 1  # as a lookup
    with pytest.raises(TypeError):
        checkpoint["a"] = Tensor(1.0)  # type: ignore[index]


def test_unknown_name_is_a_key_error_with_a_suggestion(tmp_path: Path) -> None:
    checkpoint = open_checkpoint(write(tmp_path / "m.safetensors", {"layer.weight": floats(1)}))
    for ask in (checkpoint.__getitem__, checkpoint.tensor_type, checkpoint):
        with pytest.raises(KeyError) as caught:
            ask("layer.weights")
        assert isinstance(caught.value, WeightsError)
        assert str(caught.value) == (
            "weights: there is no tensor 'layer.weights'. Did you mean 'layer.weight'?"
        )


def test_repr_and_nbytes(tmp_path: Path) -> None:
    write(
        tmp_path / "model.safetensors",
        {
            "a": ("BF16", [1000, 1000], bytes(2_000_000)),
            "b": ("F32", [3], bytes(12)),
            "c": ("I64", [2], bytes(16)),
            "d": ("BF16", [5], bytes(10)),
        },
    )
    checkpoint = open_checkpoint(tmp_path)
    assert repr(checkpoint) == (
        f"Checkpoint({str(tmp_path)!r}: 1 file, 4 tensors, 2.00 MB: 2 bfloat16, 1 float32, 1 int64)"
    )
    assert checkpoint.nbytes() == 2_000_038
    assert checkpoint.nbytes(DType.float32) == 4_000_000 + 12 + 16 + 20
    assert checkpoint.nbytes(DType.float8_e4m3fn) == 1_000_000 + 3 + 16 + 5


def test_astype_casts_floats_only(tmp_path: Path) -> None:
    values = np.array([1.0, 3.14159, -1e30, np.inf, np.nan], np.float32)
    write(
        tmp_path / "model.safetensors",
        {"f": ("F32", [5], values.tobytes()), "i": ("I32", [2], bytes([1, 0, 0, 0, 2, 0, 0, 0]))},
    )
    checkpoint = open_checkpoint(tmp_path)
    halves = checkpoint.astype(DType.bfloat16)
    assert halves.tensor_type("f").short() == "bfloat16[5]"
    assert halves.nbytes() == 10 + 8
    np.testing.assert_array_equal(
        halves["f"].data.astype(np.float64), values.astype(ml_dtypes.bfloat16).astype(np.float64)
    )
    assert halves["i"].data.tolist() == [1, 2] and halves["i"].dtype is DType.int32
    assert repr(halves) == "View(2 tensors, 18 B: 1 bfloat16, 1 int32)"


def test_aliases_of_save_model_are_tied(tmp_path: Path) -> None:
    """safetensors.torch.save_model notes dropped names as metadata {dropped: kept}."""
    tensors = {"wte.weight": floats(1, 2), "other": floats(1, 2)}
    note = {"format": "pt", "head.weight": "wte.weight", "lost": "not there"}
    write(tmp_path / "model.safetensors", tensors, **note)
    checkpoint = open_checkpoint(tmp_path)
    assert set(checkpoint) == {"wte.weight", "other", "head.weight"}
    kept = checkpoint["wte.weight"]
    assert checkpoint["head.weight"] is kept
    assert checkpoint["other"] is not kept
    assert checkpoint.source_key("head.weight") == checkpoint.source_key("wte.weight")
    assert checkpoint.nbytes() == 16
    halves = checkpoint.astype(DType.float16)
    kept = halves["wte.weight"]
    assert halves["head.weight"] is kept and kept.dtype is DType.float16


def test_format_is_not_an_alias(tmp_path: Path) -> None:
    write(tmp_path / "model.safetensors", {"pt": floats(1)}, format="pt")
    assert list(open_checkpoint(tmp_path)) == ["pt"]


def test_sharded_folder(tmp_path: Path) -> None:
    index = write_sharded(tmp_path)
    for path in (tmp_path, index, str(tmp_path), tmp_path / "model.safetensors"):
        with open_checkpoint(path) as checkpoint:
            assert set(checkpoint) == {"a", "b", "c"}
            assert {n: t.to_numpy().tolist() for n, t in checkpoint.items()} == {
                "a": [1, 2],
                "b": [3],
                "c": [4, 5, 6],
            }
            assert "2 files, 3 tensors, 24 B" in repr(checkpoint)


def test_tensors_that_the_index_does_not_name_are_left_out(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    write_index(tmp_path, {"a": "one.safetensors", "c": "two.safetensors"})
    assert set(open_checkpoint(tmp_path)) == {"a", "c"}


def test_file_order(tmp_path: Path) -> None:
    write_sharded(tmp_path)
    write_index(tmp_path, {"c": "two.safetensors", "b": "one.safetensors", "a": "one.safetensors"})
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.file_order() == ["c", "a", "b"]
    assert checkpoint.file_order(["b", "a"]) == ["a", "b"]
    assert [name for name, _ in checkpoint.items_in_file_order(["b", "c"])] == ["c", "b"]


def test_layout_of_the_download_cache(tmp_path: Path) -> None:
    """A snapshot is a folder of links to blobs with other names, elsewhere."""
    blobs = tmp_path / "models--org--name" / "blobs"
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123abcd"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    real = tmp_path / "real"
    real.mkdir()
    write_sharded(real)
    for number, file in enumerate(sorted(real.iterdir())):
        blob = blobs / f"{number:064x}"
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("../../blobs") / blob.name)
    with open_checkpoint(snapshot) as checkpoint:
        assert checkpoint["c"].to_numpy().tolist() == [4, 5, 6]
    with open_checkpoint(tmp_path / "models--org--name") as checkpoint:  # the only snapshot
        assert checkpoint["c"].to_numpy().tolist() == [4, 5, 6]
    # A blob has no suffix; it is read for what it is.
    link = (snapshot / "two.safetensors").resolve()
    assert list(open_checkpoint(link)) == ["c"]


def test_closed_checkpoint(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"a": floats(1)})
    checkpoint = open_checkpoint(path)
    tensor = checkpoint["a"]
    checkpoint.close()
    checkpoint.close()
    assert tensor.item() == 1 and checkpoint.tensor_type("a").short() == "float32[1]"
    with pytest.raises(CheckpointError, match="is closed"):
        checkpoint["a"]


def test_threads_read_at_once(tmp_path: Path) -> None:
    arrays = {f"t{i}": np.full((1000,), i, np.int64) for i in range(40)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors")
    checkpoint = open_checkpoint(tmp_path)
    wrong: list[str] = []

    def read_all() -> None:
        for name, array in arrays.items():
            if not np.array_equal(checkpoint[name].data, array):
                wrong.append(name)

    threads = [threading.Thread(target=read_all) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_file_cut_short_while_open(tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", {"a": floats(1, 2, 3)})
    checkpoint = open_checkpoint(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 5)
    size = path.stat().st_size
    with pytest.raises(CheckpointError, match=f"changed .*: expected {size + 5} bytes, got {size}"):
        checkpoint["a"]


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("this system does not list the open files of a process")
    write_sharded(tmp_path)
    (tmp_path / "bad.safetensors").write_bytes(b"nonsense")
    before = len(list(descriptors.iterdir()))
    for mmap in (False, True):
        for _ in range(20):
            checkpoint = open_checkpoint(tmp_path, mmap=mmap)
            del checkpoint
            with pytest.raises(CheckpointError):
                open_checkpoint(tmp_path / "bad.safetensors", mmap=mmap)
    assert len(list(descriptors.iterdir())) == before
