"""Will it fit? Asked before anything is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from emulated import EmulatedBackend

from maxmod import CPU, Accelerator, DType, backends
from maxmod.backends.host import limits as host_limits
from maxmod.errors import OutOfMemoryError
from maxmod.models import adder_folder, load_encoder, load_model, load_vision_model
from maxmod.models.registry import describe
from maxmod.weights import expect_room, open_checkpoint, save_state
from maxmod.weights.fit import rounded_nbytes

ASSETS = Path(__file__).parents[1] / "assets"
FREE = "MemTotal:       8000 kB\nMemFree:         10 kB\nMemAvailable:    {} kB\n"


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of a host with 4 MB of free memory and no container."""
    (tmp_path / "meminfo").write_text(FREE.format(4000))
    monkeypatch.setattr(host_limits, "_MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(host_limits, "_GROUP", tmp_path / "group")
    return tmp_path


def _limit(host: Path, maximum: str, used: int, cached: int) -> None:
    group = host / "group"
    group.mkdir(exist_ok=True)
    (group / "memory.max").write_text(f"{maximum}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\n")


def test_memory_of_the_host(host: Path) -> None:
    assert CPU().stats == {"free_memory": 4_096_000, "total_memory": 8_192_000}
    _limit(host, "max", 10, 0)
    assert CPU().stats["free_memory"] == 4_096_000
    _limit(host, "1000000", 900_000, 50_000)
    assert CPU().stats == {"free_memory": 150_000, "total_memory": 1_000_000}
    (host / "meminfo").write_text("MemTotal: ?\n")
    assert CPU().stats == {}


def test_free_memory_of_the_host_is_below_the_total() -> None:
    stats = host_limits.memory()
    if not Path("/proc/meminfo").exists():
        assert stats == {}
        return
    assert 0 < stats["free_memory"] <= stats["total_memory"]


def test_weights_that_do_not_fit_are_refused(host: Path) -> None:
    path = save_state({"w": np.zeros((1000, 1500), np.float32), "n": np.zeros(3, np.int64)}, host)
    with open_checkpoint(path) as checkpoint:
        with pytest.raises(OutOfMemoryError) as caught:
            expect_room(checkpoint, CPU())
        assert str(caught.value) == (
            "expect_room: the weights need 6.00 MB, but only 4.10 MB of the 8.19 MB of cpu:0 are "
            "free. Nothing was allocated. Hint: As bfloat16 they need 3.00 MB: "
            "dtype=DType.bfloat16 (in a command --dtype bfloat16)."
        )
        assert isinstance(caught.value, MemoryError)
        expect_room(checkpoint.astype(DType.bfloat16), CPU())
        (host / "meminfo").write_text(FREE.format(100))
        with pytest.raises(OutOfMemoryError, match="Hint: End other programs, or use a smaller"):
            expect_room(checkpoint, CPU())


def test_accelerators() -> None:
    class Small(EmulatedBackend):
        def stats(self, index: int) -> dict[str, int]:
            return {"free_memory": 100, "total_memory": 2000, "pool_cached": 30}

    previous = backends.replace(backends.DeviceKind.GPU, Small(count=1))
    try:
        with open_checkpoint(adder_folder()) as checkpoint:
            with pytest.raises(MemoryError, match=r"130 B of the 2\.00 kB of gpu:0 .*on the host"):
                expect_room(checkpoint, Accelerator())
            with pytest.raises(MemoryError, match="130 B"):
                expect_room(checkpoint)
    finally:
        backends.replace(backends.DeviceKind.GPU, previous)


@pytest.mark.parametrize(("free_kb", "hint"), [(180, "bfloat16"), (100, "int8"), (72, "int4")])
def test_hint_names_the_widest_form_that_fits(host: Path, free_kb: int, hint: str) -> None:
    """80,000 weights of layers and 1,000 others: 324 kB, 162 kB, 82.1 kB and 47 kB."""
    folder = host / "m"
    layers = {f"h.{n}.weight": np.zeros((200, 200), np.float32) for n in range(2)}
    path = save_state({**layers, "bias": np.zeros(1000, np.float32)}, folder)
    (host / "meminfo").write_text(FREE.format(free_kb))
    with open_checkpoint(path) as checkpoint, pytest.raises(OutOfMemoryError) as caught:
        expect_room(checkpoint, CPU(), action="load_model: a folder")
    option = "dtype=DType.bfloat16" if hint == "bfloat16" else f"quantize='{hint}'"
    command = "--dtype bfloat16" if hint == "bfloat16" else f"--quantize {hint}"
    assert option in str(caught.value) and f"(in a command {command})" in str(caught.value)


def test_heads_and_sensitive_layers_count_8_bits(tmp_path: Path) -> None:
    names = ("lm_head.weight", "layer.0.attention.self.value.weight", "h.0.weight", "wte.weight")
    path = save_state({name: np.zeros((320, 320), np.float32) for name in names}, tmp_path / "m")
    with open_checkpoint(path) as checkpoint:
        bits = rounded_nbytes(checkpoint, "int4") * 8 / 320**2
        assert bits == pytest.approx(2 * 8.25 + 4.5 + 16)
        assert rounded_nbytes(checkpoint, "int8") * 8 / 320**2 == pytest.approx(3 * 8.25 + 16)


@pytest.mark.parametrize(
    ("load", "folder"),
    [
        (load_model, adder_folder()),
        (load_encoder, ASSETS / "bert" / "sentences"),
        (load_vision_model, ASSETS / "vit" / "encoder"),
    ],
)
def test_models_are_not_read(
    host: Path, load: object, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (host / "meminfo").write_text(FREE.format(4))
    monkeypatch.setattr("os.preadv", None)  # reading the data would fail
    with pytest.raises(OutOfMemoryError) as caught:
        load(folder, device=CPU())  # type: ignore[operator]
    assert str(caught.value).startswith(f"{load.__name__}: {folder}: the weights need ")  # type: ignore[attr-defined]


def test_descriptions(tmp_path: Path) -> None:
    assert describe(adder_folder()) == "gpt2, read by load_model"
    assert describe(ASSETS / "llama" / "qwen3") == "qwen3, read by load_model"
    assert describe(ASSETS / "bert" / "sentences") == "bert, read by load_encoder"
    assert describe(ASSETS / "vit" / "encoder") == "vit, read by load_vision_model"
    assert "there is no config.json. Hint: expected a folder as" in describe(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5"}')
    expected = "model_type 't5' is not supported in this version: load_model reads 'gpt2', "
    assert expected in describe(tmp_path)
