"""Files of PyTorch, read by torch where it is installed; without it a stand-in tells what is asked.

With torch (`pytest -m oracle`), files of every kind are written and read.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from maxmod import CPU, DType
from maxmod.errors import CheckpointError
from maxmod.models import load_model
from maxmod.weights import inspect_text, open_checkpoint
from maxmod.weights import pytorch as files

ASSETS = Path(__file__).parents[1] / "assets"
FOLDER = ASSETS / "llama" / "llama2"
TOKENS = [[1, 2, 3]]


class StandIn:
    """A tensor of torch, as far as it is asked for."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array
        self.shape = array.shape

    def __dlpack__(self, **options: object) -> object:
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.array.__dlpack_device__()

    def contiguous(self) -> StandIn:
        return StandIn(np.ascontiguousarray(self.array))

    def detach(self) -> StandIn:
        return self

    def data_ptr(self) -> int:
        return self.array.ctypes.data

    def stride(self) -> tuple[int, ...]:
        return self.array.strides

    def numel(self) -> int:
        return self.array.size


def _stand_in(monkeypatch: pytest.MonkeyPatch, contents: dict[str, Any]) -> list[dict[str, Any]]:
    """Puts a stand-in for torch in place, whose files hold this by their names."""
    asked: list[dict[str, Any]] = []

    def load(path: Path, **options: Any) -> Any:
        asked.append(options)
        if options.get("mmap") and "old" in contents:
            raise RuntimeError("mmap can only be used with files saved with a newer version")
        found = contents[Path(path).name]
        if isinstance(found, Exception):
            raise found
        return found

    module = SimpleNamespace(load=load, is_tensor=lambda value: isinstance(value, StandIn))
    monkeypatch.setitem(sys.modules, "torch", module)  # type: ignore[arg-type]
    monkeypatch.setattr(files.importlib.util, "find_spec", lambda name: module)
    return asked


def _folder(tmp_path: Path, *names: str) -> Path:
    (tmp_path / "config.json").write_bytes((FOLDER / "config.json").read_bytes())
    for name in names:
        (tmp_path / name).write_bytes(b"PK")
    return tmp_path


def _weights() -> dict[str, StandIn]:
    """The weights of a folder, in float32."""
    with open_checkpoint(FOLDER) as checkpoint:
        return {
            name: StandIn(tensor.cast(DType.float32).to_numpy())
            for name, tensor in checkpoint.items()
        }


@pytest.mark.parametrize("old", [False, True], ids=["mapped", "not mapped"])
def test_model_of_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: bool) -> None:
    contents: dict[str, Any] = {"pytorch_model.bin": _weights()} | ({"old": True} if old else {})
    asked = _stand_in(monkeypatch, contents)
    folder = _folder(tmp_path, "pytorch_model.bin")
    found = load_model(folder, device=CPU()).next_logits(TOKENS, eager=True)
    expected = load_model(FOLDER, device=CPU(), dtype=DType.float32)
    np.testing.assert_array_equal(found, expected.next_logits(TOKENS, eager=True))
    safe = {"map_location": "cpu", "weights_only": True}
    assert asked == [safe | {"mmap": True}] + [safe] * old
    assert "lm_head.weight" in inspect_text(folder)


def test_model_of_shards_and_of_a_checkpoint(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = _weights()
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    parts = [dict(list(weights.items())[::2]), {"state_dict": dict(list(weights.items())[1::2])}]
    _stand_in(monkeypatch, dict(zip(names, parts)))
    folder = _folder(tmp_path, *names)
    table = {n: names[place % 2] for place, n in enumerate(weights)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
    load_model(folder, device=CPU())
    (folder / names[1]).unlink()
    with pytest.raises(CheckpointError, match=f"{names[1]}: the shard is missing"):
        load_model(folder, device=CPU())


def test_tied_weights_are_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one = StandIn(np.ones((2, 3), np.float32))
    _stand_in(monkeypatch, {"pytorch_model.bin": {"a": one, "b": one}})
    weights = files.open_pytorch(_folder(tmp_path, "pytorch_model.bin"))
    assert weights is not None
    assert weights["a"] is weights["b"]
    assert weights.nbytes() == 24


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (
            pickle.UnpicklingError("Run it with weights_only=False.\nGLOBAL posix.system was not"),
            r"refuses the file: .* more than tensors \(it asks for posix.system\). Nothing of it",
        ),
        (ValueError("Cut short.\nMore"), r"cannot read the file: Cut short\.\. Hint: the download"),
        ([1], "expected a dict of tensors by their names, got list"),
        ({"epoch": 3}, "'epoch': expected a tensor, got int"),
    ],
)
def test_other_files_are_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, contents: Any, message: str
) -> None:
    _stand_in(monkeypatch, {"pytorch_model.bin": contents})
    with pytest.raises(CheckpointError, match=message):
        files.open_pytorch(_folder(tmp_path, "pytorch_model.bin"))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "expected a file of PyTorch, got an empty one. Hint: The download was interrupted"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a git-lfs pointer. Hint: Fetch"),
        (b"<!DOCTYPE html><html>", "got an HTML page. Hint: The download failed or needs a login"),
    ],
    ids=["empty", "pointer", "page"],
)
def test_failed_downloads_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: bytes, message: str
) -> None:
    asked = _stand_in(monkeypatch, {"pytorch_model.bin": {}})
    folder = _folder(tmp_path, "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(data)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder, device=CPU())
    assert not asked


def test_tensors_without_plain_memory_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Sparse ones, and those of the device meta, raise what torch raises."""

    class Sparse(StandIn):
        def contiguous(self) -> StandIn:
            raise RuntimeError("unsupported memory format")

    _stand_in(monkeypatch, {"pytorch_model.bin": {"a.weight": Sparse(np.ones(2))}})
    weights = files.open_pytorch(_folder(tmp_path, "pytorch_model.bin"))
    assert weights is not None
    with pytest.raises(CheckpointError, match=r"tensor 'a\.weight': expected .* memory format"):
        weights.tensor_type("a.weight")


def test_models_of_the_cache_are_shown_by_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _stand_in(monkeypatch, {"pytorch_model.bin": _weights()})
    root = tmp_path / "models--org--name"
    folder = root / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("abc")
    _folder(folder, "pytorch_model.bin")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    assert "lm_head.weight" in inspect_text("org/name")


def test_safetensors_are_preferred(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = _stand_in(monkeypatch, {})
    folder = _folder(tmp_path, "pytorch_model.bin")
    (folder / "model.safetensors").write_bytes((FOLDER / "model.safetensors").read_bytes())
    load_model(folder, device=CPU())
    assert not asked


@pytest.mark.oracle
def test_files_of_torch(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="needs torch")
    rng = np.random.default_rng(3)
    wide = torch.tensor(rng.normal(size=(4, 6)))
    tensors = {
        str(dtype): wide.to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64)
    }
    tensors |= {"turned": wide.T, "parameter": torch.nn.Parameter(wide), "empty": wide[:0]}
    for place, is_zip in enumerate((True, False)):
        folder = tmp_path / str(place)
        folder.mkdir()
        path = folder / "pytorch_model.bin"
        torch.save(tensors, path, _use_new_zipfile_serialization=is_zip)
        weights = files.open_pytorch(folder)
        assert weights is not None
        for name, tensor in tensors.items():
            expected = tensor.detach().to(torch.float64).numpy()
            np.testing.assert_array_equal(weights[name].cast(DType.float64).to_numpy(), expected)
