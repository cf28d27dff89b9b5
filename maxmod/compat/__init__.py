"""Scripts written for MAX: `install()` makes `import max...` find maxmod.

MAX has moved its modules between versions; every path of `PATHS` works, and a class is the same
object under all of them. A module under such a path is a `Facade` that provides the names of one
module of maxmod. A missing name is an error that suggests the nearest one.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from maxmod.errors import NoSuchModuleError, did_you_mean
from maxmod.tensor import era

# The layers, under each of their paths.
_LAYERS = {
    "": "maxmod.nn",
    ".conv": "maxmod.nn.conv",
    ".embedding": "maxmod.nn.embedding",
    ".attention": "maxmod.compat.transformer:MHAMaskVariant",
    ".hooks": "maxmod.nn.hooks:PrintHook",
    ".hooks.print_hook": "maxmod.nn.hooks:PrintHook",
    ".hyper_connection": "maxmod.nn.hyper_connection",
    ".kv_cache": "maxmod.compat.kv_cache",
    ".linear": "maxmod.nn.linear",
    ".lora": "maxmod.nn.lora",
    ".module": "maxmod.nn.module",
    ".norm": "maxmod.nn.norm",
    ".norm.group_norm": "maxmod.compat.group_norm",
    ".norm.layer_norm": "maxmod.nn.norm",
    ".norm.rms_norm": "maxmod.nn.norm",
    ".rope": "maxmod.nn.rope",
    ".rope.rope": "maxmod.nn.rope.rope",
    ".rope.yarn": "maxmod.nn.rope.yarn",
    ".sequential": "maxmod.nn.container",
    ".transformer": "maxmod.compat.transformer",
}
_COMMON_LAYERS = (
    ".activation",
    ".attention",
    ".embedding",
    ".kv_cache",
    ".linear",
    ".mlp",
    ".moe",
    ".rotary_embedding",
)
# What each path maps to: a module of maxmod, one name of a module (`module:name`), or nothing
# but the modules below it.
PATHS = {
    "max": "",
    "max.driver": "maxmod.driver",
    "max.dtype": "maxmod.dtype",
    "max.engine": "maxmod.engine",
    "max.experimental": "maxmod.tensor:Tensor",
    "max.experimental.compilation": "maxmod.compat.compilation",
    "max.experimental.functional": "maxmod.functional",
    "max.experimental.random": "maxmod.random",
    "max.experimental.sharding": "maxmod.values.sharding",
    "max.experimental.tensor": "maxmod.tensor",
    "max.experimental.testing": "maxmod.compat.testing",
    "max.functional": "maxmod.functional",
    "max.graph": "maxmod.graph",
    "max.graph.dim": "maxmod.graph.dim",
    "max.graph.graph": "maxmod.graph.builder",
    "max.graph.ops": "maxmod.graph.ops",
    "max.graph.ops.allreduce": "maxmod.graph.ops.allreduce",
    "max.graph.ops.elementwise": "maxmod.graph.ops.elementwise",
    "max.graph.ops.random": "maxmod.graph.ops.random",
    "max.graph.ops.reduction": "maxmod.graph.ops.reduction",
    "max.graph.type": "maxmod.graph.type",
    "max.graph.value": "maxmod.graph.values",
    "max.graph.weight": "maxmod.graph.values",
    "max.graph.weights": "maxmod.compat.graph_weights",
    "max.profiler": "maxmod.compat.profiler",
    "max.random": "maxmod.random",
    "max.tensor": "maxmod.tensor",
    **{
        f"{package}{suffix}": module
        for package in ("max.nn", "max.nn.module_v3", "max.experimental.nn")
        for suffix, module in _LAYERS.items()
    },
    **{
        f"{package}.common_layers{suffix}": f"maxmod.compat.common_layers{suffix}"
        for package in ("max.nn", "max.experimental.nn")
        for suffix in ("", *_COMMON_LAYERS)
    },
}
_PAGED = "there is no attention over pages; maxmod.models and maxmod.generate.KVCache decode"
# Parts of MAX that are left out, with what to use.
_ABSENT = {
    **{f"{path}.attention.AttentionWithRope": _PAGED for path in ("max.nn", "max.experimental.nn")},
    "max.experimental.nn.common_layers.attention.AttentionWithRope": _PAGED,
    "max.nn.transformer.Transformer": "maxmod.models has whole models",
    "max.nn.legacy": "the older layers, which build graphs, are not implemented; use max.nn",
    "max.experimental.functional.call_on_mesh": "tensors live on one device",
    "max.functional.call_on_mesh": "tensors live on one device",
    "max.driver.DeviceMesh": "it is in max.experimental.sharding",
    "max.experimental.realization_context": "tensors run eagerly, or in a block of F.lazy()",
    "max.experimental.tensor.realization_context": "tensors run eagerly, or inside of F.lazy()",
    "max.tensor.realization_context": "tensors run eagerly, or in a block of F.lazy()",
    "max.tree": "compiled functions take and return nested values as they are",
    "max.graph.KernelLibrary": "maxmod.functional.custom takes kernels",
    "max.graph.ShardingStrategy": "tensors live on one device",
    "max.pipelines": "maxmod.models and maxmod.generate run language models",
    "max.entrypoints": "maxmod.models and maxmod.generate run language models",
    "max.serve": "there is no server",
    "max.graph.weights.GGUFWeights": "GGUF files are not supported; use safetensors files",
    "max.torch": "maxmod.functional.custom takes kernels",
}
_MISSING = object()


class Facade(ModuleType):
    """A module of MAX with the names of a module of maxmod, looked up on first use.

    Args:
        name: Its path, such as `max.nn`.

    Raises:
        AttributeError: For a name that does not exist; suggests the nearest one.
    """

    def __getattr__(self, name: str) -> Any:
        path = self.__name__
        if name == "__all__":
            return _names(path)
        if name.startswith("__") and name != "__version__":
            raise AttributeError(f"module {path!r} has no attribute {name!r}")
        value = _find(path, name)
        inner = f"{path}.{name}"
        if inner in PATHS and (value is _MISSING or isinstance(value, ModuleType)):
            return importlib.import_module(inner)
        if value is _MISSING:
            raise AttributeError(_explain(path, name))
        setattr(self, name, value)
        return value

    def __setattr__(self, name: str, value: object) -> None:
        # Importing a module sets it on its parent, where a function may have the same name.
        if isinstance(value, ModuleType):
            found = _find(self.__name__, name)
            if found is not _MISSING and not isinstance(found, ModuleType):
                value = found
        super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *_names(self.__name__)})


class _Finder(MetaPathFinder, Loader):
    """Finds `max` and everything below it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        if fullname in PATHS:
            return ModuleSpec(fullname, self, is_package=True)
        parent, _, name = fullname.rpartition(".")
        if parent not in PATHS:
            return None
        # Without `name`, so that `from max.nn import missing` passes it on unchanged.
        raise NoSuchModuleError(_explain(parent, name))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return Facade(spec.name, f"An alias of {PATHS[spec.name] or 'the package of MAX'}.")

    def exec_module(self, module: ModuleType) -> None:
        """Notes what is imported, which tells the version; names are looked up when used."""
        era.note_import(module.__name__)


_FINDER = _Finder()


def install(force: bool = False, version: str | None = None) -> bool:
    """Makes `import max` and its modules find maxmod, unless MAX itself is installed.

    Where versions of MAX disagree, the rules of one are followed: in 25.7 and 26.1,
    `load_state_dict` replaces parameters by values of other shapes and dtypes, which is logged.

    Args:
        force: Do so even if it is; its imported modules are removed from `sys.modules`.
        version: `"25.7"`, `"26.1"` or `"26.7"`. If it is not given, modules that only one of them
            has tell: `max.nn.module_v3`, `max.tensor` or `max.experimental.nn`, for example; until
            then, maxmod's own rules hold, which are those of 26.7.

    Returns:
        True if `max` is maxmod from now on, False if it is the installed package of that name.

    Raises:
        ValueError: If the version is another one.

    Example:
        >>> from maxmod import compat
        >>> if compat.install():
        ...     from max.nn.module_v3 import Linear
        ...     print(Linear(2, 3))
        ...     compat.uninstall()
        Linear(in_dim=Dim(2), out_dim=Dim(3))
    """
    is_installed = _FINDER in sys.meta_path
    if not is_installed and not force and installed_path() is not None:
        return False
    era.follow(version)
    if is_installed:
        return True
    _forget(_modules_of_max())
    sys.meta_path.insert(0, _FINDER)
    return True


def uninstall() -> None:
    """Undoes `install`; modules and names that were already imported stay usable."""
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
        era.forget()
        _forget(_modules_of_max())


def installed_path() -> str | None:
    """Returns the path of an installed package or module `max` that is not maxmod.

    Returns:
        A path, None if there is none.
    """
    loaded = sys.modules.get("max")
    if loaded is not None and not isinstance(loaded, Facade):
        return str(getattr(loaded, "__file__", None) or list(getattr(loaded, "__path__", [])))
    spec = PathFinder.find_spec("max")
    if spec is None:
        return None
    if spec.origin is not None:
        return spec.origin
    # A folder without code: MAX if it has its modules, otherwise any folder of that name.
    found = PathFinder.find_spec("max.driver", spec.submodule_search_locations)
    return None if found is None else str(found.origin)


def _modules_of_max() -> list[str]:
    return [name for name in sys.modules if name == "max" or name.startswith("max.")]


def _forget(names: Iterable[str]) -> None:
    for name in names:
        del sys.modules[name]


def _names(path: str) -> list[str]:
    """Returns the public names under a path, including its submodules."""
    inner = {name.rpartition(".")[2] for name in PATHS if name.rpartition(".")[0] == path}
    module, _, only = PATHS[path].partition(":")
    if only:
        return sorted({*inner, only})
    return sorted({*inner, *(_public(importlib.import_module(module)) if module else ())})


def _public(module: ModuleType) -> list[str]:
    """Returns the public names of a module: `__all__`, or the ones that it defines."""
    if hasattr(module, "__all__"):
        return list(module.__all__)
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and getattr(value, "__module__", module.__name__).startswith("maxmod")
    ]


def _find(path: str, name: str) -> object:
    """Returns the object of a name under a path, `_MISSING` if there is none."""
    module, _, only = PATHS[path].partition(":")
    if not module or (only and name != only):
        return _MISSING
    found = importlib.import_module(module)
    return getattr(found, name) if name in _public(found) else _MISSING


def _explain(path: str, name: str) -> str:
    """Returns the message for a missing name: the reason, and the nearest name that exists."""
    text = f"cannot import {name!r} from {path!r}: maxmod does not have {path}.{name}."
    reason = _ABSENT.get(f"{path}.{name}")
    if reason is not None:
        return f"{text} Hint: {reason}."
    near = did_you_mean(name, _names(path))
    if near:
        return text + near
    for other in PATHS:
        if name in _names(other):
            return f"{text} There is {other}.{name}."
    names = {f"{other}.{known}": known for other in PATHS for known in _names(other)}
    close = did_you_mean(name, names.values())
    for full, known in names.items():
        if f"{known!r}" in close:
            return f"{text} The nearest is {full}."
    return f"{text} It has {', '.join(_names(path))}."


__all__ = ["PATHS", "Facade", "install", "installed_path", "uninstall"]
