"""Where versions of MAX disagree: what a script imports, or `--max`, decides."""

from __future__ import annotations

import importlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from maxmod import DType, Tensor, compat
from maxmod.cli import main
from maxmod.nn import Linear
from maxmod.tensor import era

# As in public scripts of that time: loads what the library stores as [in, out], then transposes.
SCRIPT = """
import numpy as np
{imports}

layer = Linear(2, 3)
state = dict(weight=np.arange(6, dtype=np.float32).reshape(2, 3), bias=np.zeros(3, np.float32))
layer.load_state_dict(state)
layer.weight = layer.weight.T
print(layer(Tensor.ones([1, 2])).to_numpy().tolist())
"""
IMPORTS = {
    "25.7": "from max.experimental.tensor import Tensor\nfrom max.nn.module_v3 import Linear",
    "26.1": "from max.tensor import Tensor\nfrom max.nn import Linear",
    "26.7": "from max.experimental.tensor import Tensor\nfrom max.experimental.nn import Linear",
}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    compat.uninstall()


@pytest.fixture
def state() -> dict[str, np.ndarray]:
    return {"weight": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float16)}


@pytest.mark.parametrize("version", IMPORTS)
@pytest.mark.parametrize("asked", [None, *IMPORTS])
def test_scripts_that_load_and_then_transpose(
    version: str, asked: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "script.py"
    path.write_text(SCRIPT.format(imports=IMPORTS[version]), "utf-8")
    options = ["--max", asked] if asked else []
    code = main(["run", *options, str(path)])
    out, err = capsys.readouterr()
    if (asked or version) == "26.7":
        assert code == 1
        assert "'weight': Loaded tensor (shape=[2,3], dtype=float32) not assignable" in err
    else:
        assert (code, out) == (0, "[[3.0, 5.0, 7.0]]\n")


def test_an_unknown_version_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--max", "24.6", "script.py"])
    assert "invalid choice: '24.6'" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"max: expected one of 25.7, 26.1, 26.7, got '24.6'"):
        compat.install(version="24.6")


def test_the_old_rule_says_what_it_replaced(
    state: dict[str, np.ndarray], caplog: pytest.LogCaptureFixture
) -> None:
    compat.install(version="26.1")
    layer = Linear(2, 3)
    with caplog.at_level(logging.WARNING, logger="maxmod"):
        layer.load_state_dict(state)
    assert (layer.weight.shape, layer.bias.dtype) == ([2, 3], DType.float16)
    (line,) = caplog.messages
    assert "2 parameter(s) were replaced by tensors of another shape or dtype, as in MAX 26.1" in (
        line
    )
    assert "'weight': Loaded tensor (shape=[2,3]" in line
    # Missing and unknown names are refused as ever, before anything is written.
    for wrong in ({"weight": state["weight"]}, {**state, "scale": state["bias"]}):
        with pytest.raises(ValueError, match="Nothing was changed"):
            layer.load_state_dict({**wrong, "weight": np.zeros((7, 7), np.float32)})
    assert layer.weight.shape == [2, 3]


def test_the_strict_rule_holds_otherwise(state: dict[str, np.ndarray]) -> None:
    def refuses() -> None:
        with pytest.raises(ValueError, match="not assignable"):
            Linear(2, 3).load_state_dict(state)

    refuses()
    compat.install()
    importlib.import_module("max.experimental.tensor")  # every version but 26.1 has it
    assert era.current() is None
    refuses()
    importlib.import_module("max.nn.module_v3")
    assert era.current() == "25.7"
    Linear(2, 3).load_state_dict(state)
    importlib.import_module("max.experimental.nn")
    refuses()
    compat.uninstall()
    assert era.current() is None
    refuses()


def test_constant_is_deprecated_in_the_last_version_only() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for version in (None, "25.7", "26.1"):
            compat.install(version=version)
            assert Tensor.constant(1.0).item() == 1
    compat.install(version="26.7")
    with pytest.warns(DeprecationWarning, match="Tensor.constant is deprecated") as caught:
        assert Tensor.constant(1.0).item() == 1
    assert [Path(one.filename).name for one in caught] == [Path(__file__).name]
