"""The paths of MAX: one object under all of them, and a reason where there is none."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from api.names import FUNCTIONS

import maxmod
from maxmod import compat, nn
from maxmod.errors import MaxmodError


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    assert compat.install()
    yield
    compat.uninstall()
    for name in ("max", "max.driver"):  # of a package that a test made
        sys.modules.pop(name, None)


def test_every_path_can_be_imported() -> None:
    for path in compat.PATHS:
        module = importlib.import_module(path)
        assert module.__name__ == path
        assert sys.modules[path] is module
        assert all(getattr(module, name) is not None for name in dir(module))


# Names by version, from the public documentation of each.
LAYERS = {"Embedding", "Linear", "Module", "ModuleList", "Sequential", "module_dataclass"}
LATER_LAYERS = LAYERS | {"GemmaRMSNorm", "RMSNorm", "RotaryEmbedding", "TransposedRotaryEmbedding"}
LAST_LAYERS = LATER_LAYERS | {
    *("Conv2d", "GroupNorm", "HyperConnection", "LayerNorm", "LoRA", "PinnedDeviceTensor"),
    "TransparentModule",
    *("as_subgraph", "lora_layers", "lora_parameters"),
}
NAMES = {
    "max.driver": "CPU Accelerator Tensor Buffer Device DeviceSpec DeviceStream DLPackArray "
    "accelerator_count accelerator_api scan_available_devices load_devices devices_exist",
    "max.dtype": "DType",
    "max.engine": "InferenceSession Model TensorSpec",
    "max.experimental": "Tensor functional nn random tensor",
    "max.experimental.nn": LAST_LAYERS,
    "max.experimental.nn.norm": "LayerNorm RMSNorm GemmaRMSNorm GroupNorm rms_norm",
    "max.experimental.nn.rope": "theta embed positional_embedding yarn",
    "max.experimental.random": "gaussian normal seed set_seed uniform",
    "max.experimental.tensor": "Tensor TensorType defaults default_device default_dtype "
    "defaults_like",
    "max.functional": "add arange functional lazy softmax",
    "max.graph": "Graph TensorType BufferType TensorValue BufferValue Value Dim StaticDim "
    "SymbolicDim AlgebraicDim Shape DeviceRef DeviceKind DimLike ShapeLike Type Weight ops "
    "TensorValueLike BufferValueLike StrongTensorValueLike type",
    "max.graph.dim": "AlgebraicDim Dim DimError DimLike Shape ShapeError ShapeLike StaticDim "
    "SymbolicDim as_dim as_size as_sizes broadcast evaluate format_sizes is_static product",
    "max.graph.ops": "constant rebind shape_to_tensor buffer_load buffer_create cond while_loop "
    "transfer_to InterpolationMode call random acos resize allgather allreduce inplace_custom "
    "print",
    "max.graph.ops.allreduce": "sum",
    "max.graph.type": "ConvInputLayout FilterLayout TensorType DType",
    "max.nn": LATER_LAYERS,
    "max.nn.module_v3": LAYERS,
    "max.random": "gaussian normal seed set_seed uniform",
    "max.tensor": "Tensor TensorType defaults default_device default_dtype defaults_like",
}


@pytest.mark.parametrize("path", NAMES)
def test_names(path: str) -> None:
    module = importlib.import_module(path)
    names = NAMES[path]
    wanted = names.split() if isinstance(names, str) else names
    assert [name for name in wanted if not hasattr(module, name)] == []


def test_functional_has_the_names_of_every_version() -> None:
    """The single-device names of 25.7, 26.1 and 26.7."""
    wanted = FUNCTIONS.split()
    for path in ("max.functional", "max.experimental.functional", "max.graph.ops"):
        module = importlib.import_module(path)
        assert [name for name in wanted if not hasattr(module, name)] == []


def test_classes_are_the_same_under_every_path() -> None:
    found: dict[str, Any] = {}
    for path in compat.PATHS:
        for name, value in inspect.getmembers(importlib.import_module(path), inspect.isclass):
            # As in MAX: driver.Tensor is memory, the other Tensor is eager; the rotary embedding of
            # the common layers makes its own table.
            apart = (path, name) == ("max.driver", "Tensor") or path.endswith("rotary_embedding")
            # Theirs have the parameters of one device, ours wrap the part of each process.
            apart = apart or ("common_layers" in path and "Parallel" in name)
            key = f"{path.rpartition('.')[2]}.{name}" if apart else name
            assert found.setdefault(key, value) is value, f"{path}.{name}"
    assert found["Tensor"] is maxmod.Tensor
    assert found["driver.Tensor"] is maxmod.Buffer
    assert found["Linear"] is nn.Linear


def test_forms_of_import() -> None:
    import max.driver
    import max.experimental.functional as F
    import max.nn.module_v3.linear
    from max import functional, random, tensor
    from max.experimental import Tensor
    from max.experimental import functional as experimental_functional
    from max.nn.module_v3 import sequential
    from max.nn.module_v3.sequential import ModuleList

    assert max.driver.CPU is maxmod.CPU
    assert max.nn.module_v3.linear.Linear is nn.Linear
    assert F.relu is functional.relu is experimental_functional.relu is maxmod.functional.relu
    assert random.normal is maxmod.random.normal
    assert tensor.Tensor is Tensor is maxmod.Tensor
    assert sequential.ModuleList is ModuleList is nn.ModuleList
    assert max.experimental.nn.rope.yarn.length_scaling() == 1.0  # imported when it is named


def test_star_import() -> None:
    names: dict[str, Any] = {}
    exec("from max.nn.module_v3 import *", names)
    assert names["Linear"] is nn.Linear
    assert "Any" not in names


@pytest.mark.parametrize("package", ["max.nn", "max.nn.module_v3", "max.experimental.nn"])
def test_a_function_hides_the_module_of_the_same_name(package: str) -> None:
    submodule = importlib.import_module(f"{package}.norm.rms_norm")
    norm = importlib.import_module(f"{package}.norm")
    assert isinstance(submodule, ModuleType)
    assert submodule.RMSNorm is norm.RMSNorm
    assert inspect.isfunction(norm.rms_norm)


def test_no_name_of_maxmod_changes() -> None:
    before = {name: module.__spec__ for name, module in sys.modules.items() if "maxmod" in name}
    for path in compat.PATHS:
        importlib.import_module(path)
    assert {name: sys.modules[name].__spec__ for name in before} == before
    assert not hasattr(nn, "module_v3")
    assert not hasattr(nn, "sequential")


# ---- what does not exist -------------------------------------------------------------------------

MISSING = [
    ("from max.nn.module_v3 import Lineer", "Did you mean 'Linear'?"),
    ("from max.experimental.functional import soft_max", "Did you mean 'softmax'?"),
    ("from max.driver import Linear", "There is max.nn.Linear."),
    ("from max.graph import Model", "There is max.engine.Model."),
    ("import max.graph.opps", "Did you mean 'ops'?"),
    ("import max.nn.legacy", "Hint: the older layers"),
    ("from max.nn.legacy import Linear", "Hint: the older layers"),
    ("from max import pipelines", "Hint: maxmod.models"),
    ("import max.pipelines.architectures", "Hint: maxmod.models"),
    ("from max.graph import ShardingStrategy", "Hint: tensors live on one device."),
    ("from max.graph.weights import GGUFWeights", "Hint: GGUF files are not supported"),
    ("from max.experimental.functional import call_on_mesh", "Hint: tensors live on one device."),
    ("from max.tensor import realization_context", "Hint: tensors run eagerly"),
    ("import max.tree", "Hint: compiled functions take"),
    ("from max.dtype import Lineer", "The nearest is max.nn.Linear."),
    ("from max.dtype import zzzzzzzz", "It has DType, "),
]


@pytest.mark.parametrize(("statement", "hint"), MISSING)
def test_a_missing_name_suggests_the_nearest_one(statement: str, hint: str) -> None:
    with pytest.raises(ImportError) as caught:
        exec(statement, {})
    assert isinstance(caught.value, MaxmodError)
    assert hint in str(caught.value)
    assert "maxmod does not have max." in str(caught.value)


def test_a_missing_attribute_suggests_the_nearest_one() -> None:
    module = importlib.import_module("max.experimental.functional")
    with pytest.raises(AttributeError, match="Did you mean 'relu'"):
        _ = module.relu_
    assert not hasattr(module, "linear")
    assert getattr(module, "linear", None) is None


def test_modules_of_others_are_found_as_ever() -> None:
    with pytest.raises(ModuleNotFoundError, match="No module named 'maxi'") as caught:
        importlib.import_module("maxi")
    assert not isinstance(caught.value, MaxmodError)
    assert importlib.util.find_spec("json") is not None


# ---- installing ----------------------------------------------------------------------------------


def _package(folder: Path, with_init: bool = True) -> Path:
    package = folder / "max"
    package.mkdir()
    if with_init:
        (package / "__init__.py").write_text("", "utf-8")
    (package / "driver.py").write_text("CPU = 'the real one'\n", "utf-8")
    return package


def test_install_twice_and_uninstall() -> None:
    count = len(sys.meta_path)
    assert compat.install()
    assert len(sys.meta_path) == count
    importlib.import_module("max.nn.module_v3")
    compat.uninstall()
    assert len(sys.meta_path) == count - 1
    assert not any(name == "max" or name.startswith("max.") for name in sys.modules)
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("max")
    compat.uninstall()
    assert len(sys.meta_path) == count - 1


@pytest.mark.parametrize("with_init", [True, False], ids=["package", "namespace"])
def test_an_installed_max_is_not_hidden(
    with_init: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compat.uninstall()
    package = _package(tmp_path, with_init)
    monkeypatch.syspath_prepend(tmp_path)
    assert compat.installed_path() in {str(package / n) for n in ("__init__.py", "driver.py")}
    assert not compat.install()
    driver = importlib.import_module("max.driver")
    assert driver.CPU == "the real one"
    assert not compat.install()  # now it is loaded, too
    assert compat.install(force=True)
    assert importlib.import_module("max.driver").CPU is maxmod.CPU
    compat.uninstall()
    assert importlib.import_module("max.driver").CPU == "the real one"


def test_a_folder_called_max_is_not_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compat.uninstall()
    (tmp_path / "max").mkdir()
    (tmp_path / "max" / "results.txt").write_text("", "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    assert compat.installed_path() is None
    assert compat.install()
