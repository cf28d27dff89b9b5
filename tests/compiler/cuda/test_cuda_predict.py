"""The predictions of `benchmarks/gpu/predict.py`: figures of real plans, and null where a tool is
missing.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from maxmod.backends.cuda import nvrtc

FOLDER = Path(__file__).parents[3] / "benchmarks"
KEYS = {
    *("model", "dtype", "launches_per_layer", "tokens_per_second", "worst_sector_ratio"),
    *("worst_bank_ratio", "least_bytes_in_flight", "spills"),
}


@pytest.fixture
def predict(monkeypatch: pytest.MonkeyPatch) -> Any:
    for folder in (FOLDER / "gpu", FOLDER):
        monkeypatch.syspath_prepend(str(folder))
    return importlib.import_module("predict")


def test_launches_of_a_layer(predict: Any, tmp_path: Path, capsys: Any) -> None:
    """Whoever adds a launch to a layer sees it here; without tools, what they say is null."""
    file = tmp_path / "figures.json"
    predict.main(["--short", "--json", str(file)])
    rows = json.loads(file.read_text("utf-8"))
    found = {(row["model"], row["dtype"]): row["launches_per_layer"] for row in rows}
    assert found == {
        **{(model, dtype): 6 for model in ("8B", "1B") for dtype in ("bf16", "int8", "int4")},
        **{("GPT-2", dtype): 6 for dtype in ("bf16", "int8", "int4")},
    }
    for row in rows:
        assert row.keys() >= KEYS
        assert row["worst_sector_ratio"] is row["least_bytes_in_flight"] is row["spills"] is None
        assert 100 < row["tokens_per_second"] < 4.3e12 / row["bytes_per_token"]
    weights = {(row["model"], row["dtype"]): row["bytes_per_token"] / 1e9 for row in rows}
    assert weights["8B", "bf16"] == pytest.approx(15.01, rel=0.01)
    assert weights["1B", "bf16"] == pytest.approx(2.47, rel=0.01)
    assert weights["8B", "int8"] == pytest.approx(7.82, rel=0.01)  # with scales
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 2 + len(rows)
    assert table[2].startswith("| 8B | bf16 | 6 |")


SASS = """
.L_x_0:
        /*0010*/                   LDG.E.128.CONSTANT R4, desc[UR4][R2.64] ;
        /*0020*/              @!P0 LDG.E.64 R8, desc[UR4][R2.64+0x10] ;
        /*0030*/                   LDG.E.U16 R12, desc[UR4][R2.64+0x20] ;
        /*0040*/                   FFMA R20, R4, R21, R22 ;
        /*0050*/                   LDG.E R13, desc[UR4][R2.64+0x30] ;
        /*0060*/                   FADD R20, R13, R12 ;
.L_x_1:
        /*0070*/                   LDG.E.128 R4, desc[UR4][R2.64] ;
        /*0080*/                   EXIT ;
"""


def test_bytes_in_flight_end_at_the_first_use(predict: Any) -> None:
    module = importlib.import_module("machine_code")
    assert [module._most_waiting(piece) for piece in module._blocks(SASS)] == [0, 26, 16]


@pytest.mark.skipif(
    not nvrtc.is_available(), reason="needs NVRTC: pip install 'cuda-toolkit[nvrtc]'"
)
def test_figures_of_ptx_and_machine_code(predict: Any, monkeypatch: Any) -> None:
    """Of a small model, whose kernels have the form of the large ones."""
    plans = importlib.import_module("plans")
    small = {"vocab_size": 96, "n_positions": 1024, "n_embd": 128, "n_head": 2}
    monkeypatch.setitem(plans.MODELS, "GPT-2", (small, 4))
    row = predict.predicted("GPT-2", "bf16")
    assert 1 <= row["worst_sector_ratio"] < 9
    assert 1 <= row["worst_bank_ratio"] < 4
    assert row["spills"] == 0
    assert row["instructions_per_byte"] > 0
    in_flight = row["least_bytes_in_flight"]
    assert (in_flight is None) == (importlib.import_module("machine_code").nvdisasm() is None)
