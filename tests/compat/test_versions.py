"""Where versions of MAX disagree: what a script imports, or `--max`, decides."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import maxmod
from maxmod import CPU, DType, Tensor, TensorType, compat
from maxmod.cli import main
from maxmod.nn import Linear, Sequential
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


def test_the_old_rule_names_the_replaced_weights(
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


# ---- modules and names that only some versions have ----------------------------------------------


def test_modules_of_ops_and_of_tests() -> None:
    compat.install()
    from max.experimental.testing import assert_all_close
    from max.graph import ops
    from max.graph.ops import elementwise, reduction
    from max.nn.norm.group_norm import GroupNorm, group_norm

    assert (elementwise.exp, reduction.sum) == (ops.exp, ops.sum)
    for module in (elementwise, reduction):
        assert all(getattr(module, name) is getattr(ops, name) for name in module.__all__)
    x = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    layer = GroupNorm(2, 4)
    found = group_norm(Tensor(x), layer.weight, layer.bias, 2, 1e-5)
    wide = x.astype(float).reshape(1, 2, 4)
    wide = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    assert_all_close(found, wide.reshape(1, 4, 2), rtol=1e-4)
    assert_all_close([Tensor([1.0, np.nan]), Tensor([np.inf, 2.0])], [[1, np.nan], [np.inf, 2]])
    for actual, expected in (([1.0], [1.1]), ([1.0], [[1.0]]), ([np.nan], [1.0])):
        with pytest.raises(AssertionError):
            assert_all_close(Tensor(actual), expected)


def test_names_of_types_and_devices() -> None:
    compat.install()
    from max import driver
    from max.experimental.tensor import NestedArray, Number  # noqa: F401
    from max.graph.value import Numeric

    assert isinstance(1.5, Numeric)
    assert not isinstance("1.5", Numeric)
    assert driver.__version__ == maxmod.__version__
    size = driver.CPU().max_single_alloc_size
    assert 1 << 20 < size <= sys.maxsize


def test_spans_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    compat.install()
    from max.profiler import Tracer, traced

    @traced
    def half(x: float) -> float:
        """Halves."""
        return x / 2

    @traced(message="double", color="red")
    async def double(x: float) -> float:
        return x * 2

    assert (half.__name__, half.__doc__) == ("half", "Halves.")
    with maxmod.configure(debug=2), caplog.at_level("DEBUG", logger="maxmod"):
        assert half(3) == 1.5
        assert asyncio.run(double(3)) == 6
        with Tracer("outer") as tracer:
            tracer.push("first")
            tracer.next("second")
            tracer.mark()
    names = [line.rpartition("  ")[2] for line in caplog.messages]
    half_name = half.__qualname__
    assert names == [half_name, "double", "first", "reached outer", "second", "outer"]


def test_print_hook(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compat.install()
    from max.nn.hooks.print_hook import PrintHook

    net = Sequential(Linear(2, 3), Linear(3, 1))
    with PrintHook(export_path=str(tmp_path), filter=["1", "model"]) as hook:
        hook.name_layers(net)
        y = net(Tensor([1.0, 2.0]))
        hook.step()
        net.trace(TensorType(DType.float32, ["n", 2], CPU()))
    net(Tensor([1.0, 2.0]))
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("=")[0] for line in lines] == [
        f"Tensor {name}" for name in ["1-input-0", "1-output", "model-input-0", "model-output"] * 2
    ]
    assert all("<unrealized>" in line for line in lines[4:])
    saved = {path.name: np.load(path) for path in tmp_path.glob("*/*")}
    assert sorted(saved) == [line.split()[1].rstrip("=") + ".npy" for line in lines[:4]]
    np.testing.assert_array_equal(saved["model-output.npy"], y.to_numpy())
    assert [path.name for path in tmp_path.iterdir()] == ["0"]


def test_the_target_of_to_has_two_names() -> None:
    layer = Linear(2, 1)
    assert layer.to(target=CPU()) is layer.to(device=CPU()) is layer.to(CPU()) is layer
    with pytest.raises(TypeError, match="the target is given twice"):
        layer.to(CPU(), device=CPU())
    with pytest.raises(TypeError, match="expected a Device"):
        layer.to()
