"""`inspect_text`, and the progress bar."""

from __future__ import annotations

import io
import logging
import os
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from weights.weight_files import build, info

from maxmod import Tensor, configure
from maxmod.errors import CheckpointError
from maxmod.weights import inspect_text, open_checkpoint, save_state
from maxmod.weights.mapping import format_nbytes


def test_inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Tensor.wrap(
        np.ones((50, 8), ml_dtypes.bfloat16), Tensor(np.ones((50, 8), ml_dtypes.bfloat16)).type
    )
    state = {
        "wte.weight": table,
        "h.0.w": Tensor(np.ones((8, 8), np.float32)),
        "h.1.w": Tensor(np.ones((8, 8), np.float32)),
        "h.2.w": Tensor(np.ones((8, 4), np.float32)),
        "steps": Tensor(np.ones(3, np.int64)),
        "head.weight": table,
    }
    save_state(state, tmp_path / "model.safetensors")
    monkeypatch.chdir(tmp_path)
    assert inspect_text("model.safetensors").splitlines() == [
        "Checkpoint('model.safetensors': 1 file, 6 tensors, 1.46 kB: "
        "3 float32, 2 bfloat16, 1 int64)",
        "",
        "name         count  dtype     shape                  size",
        "h.*.w            2  float32   [8, 8]                512 B",
        "h.2.w            1  float32   [8, 4]                128 B",
        "steps            1  int64     [3]                    24 B",
        "wte.weight       1  bfloat16  [50, 8]               800 B",
        "head.weight      1  bfloat16  [50, 8]  tied to wte.weight",
        "",
        "dtype     tensors  elements     size",
        "bfloat16        1       400    800 B",
        "float32         3       160    640 B",
        "int64           1         3     24 B",
        "total           5       563  1.46 kB",
        "",
        "memory of the weights when loaded as  float32 2.26 kB, bfloat16 1.14 kB, int8 583 B, "
        "int4 321 B",
        "",
        "metadata  format=pt, head.weight=wte.weight",
    ]
    unfolded = inspect_text("model.safetensors", fold=False)
    assert "h.0.w" in unfolded and "h.*.w" not in unfolded


def test_inspect_does_not_obey_the_file(tmp_path: Path) -> None:
    """Names come from strangers: no escape sequence reaches the terminal."""
    header = {
        "\x1b[31mred\n": info("U8", [1], 0, 1),
        "x" * 3000: info("U8", [1], 1, 2),
        "__metadata__": {"a\x1b": "b\r" * 500},
    }
    path = tmp_path / "m.safetensors"
    path.write_bytes(build(header, bytes(2)))
    text = inspect_text(path)
    assert all(line.isprintable() for line in text.splitlines())
    assert max(map(len, text.splitlines())) < 400


def test_inspect_of_nothing(tmp_path: Path) -> None:
    assert "0 tensors, 0 B" in inspect_text(save_state({}, tmp_path))
    with pytest.raises(CheckpointError):
        inspect_text(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (999_994, "999.99 kB"),
        (999_999, "1.00 MB"),
        (1_500_000, "1.50 MB"),
        (999_999_999, "1.00 GB"),
        (13_476_000_000, "13.48 GB"),
        (5_000_000_000_000, "5000.00 GB"),
    ],
)
def test_format_nbytes(nbytes: int, text: str) -> None:
    assert format_nbytes(nbytes) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("wanted", [True, False])
def test_progress_bar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool, wanted: bool
) -> None:
    monkeypatch.setattr("maxmod.weights.progress._DELAY_S", 0)
    path = save_state({"x": np.ones(1_000_000), "y": np.ones(1_000_000)}, tmp_path)
    stderr = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    with configure(progress=wanted), open_checkpoint(path) as checkpoint:
        assert len(list(checkpoint.items_in_file_order())) == 2
    shown = stderr.getvalue()
    if terminal and wanted:
        assert "load: 100%" in shown and "16.0M/16.0M" in shown and "B/s" in shown
    else:
        assert shown == ""


def test_progress_without_tqdm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    save_state({"x": np.ones(10)}, tmp_path)
    assert stderr.getvalue() == ""


def test_progress_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="maxmod.weights"):
        path = save_state({"x": np.ones(1_000_000)}, tmp_path)
        with open_checkpoint(path) as checkpoint:
            dict(checkpoint.items_in_file_order())
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 2
    assert messages[0].startswith("save: 0.008 GB in ") and "GB/s" in messages[0]
    assert messages[1].startswith("load: 0.008 GB in ")


def test_tied_tensors_are_counted_once_by_progress(tmp_path: Path) -> None:
    tensor = Tensor(np.ones(4))
    path = save_state({"a": tensor, "b": tensor}, tmp_path)
    with open_checkpoint(path) as checkpoint:
        items = dict(checkpoint.items_in_file_order())
    assert items["a"] is items["b"] and os.path.exists(path)
