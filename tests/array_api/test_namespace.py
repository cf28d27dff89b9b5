"""The names of the standard, their signatures, and what the namespace says of itself."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import array_api_strict as strict
import pytest
from array_api.both import ALL, FLOATS, INTEGERS, ours

import maxmod
from maxmod import array_api as xp
from maxmod.backends.devices import CPU
from maxmod.dtype import DType

# Not of version 2024.12, or of the oracle's own.
LATER = {"broadcast_shapes", "isin"}
OWN = {"ArrayAPIStrictFlags", "Device", "ModuleType"}
OWN |= {f"{verb}_array_api_strict_flags" for verb in ("get", "set", "reset")}
COMPLEX = {"complex64", "complex128", "fft"}  # there is no complex dtype
NAMES = {name for name in strict.__all__ if not name.startswith("_")} - LATER - OWN - COMPLEX
FUNCTIONS = sorted(name for name in NAMES if inspect.isfunction(getattr(strict, name)))
EXTENSION = sorted(strict.linalg.__all__)


def test_names() -> None:
    assert set(xp.__all__) >= NAMES
    own = {"Array", "__array_api_version__", "__array_namespace_info__"}
    assert set(xp.__all__) - NAMES == own
    assert set(xp.linalg.__all__) == set(EXTENSION)
    assert len(FUNCTIONS) > 120
    missing = [name for name in xp.__all__ if not hasattr(xp, name)]
    assert not missing


def _parameters(function: Any) -> list[tuple[str, Any]]:
    return [(p.name, p.kind) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", [*FUNCTIONS, *[f"linalg.{name}" for name in EXTENSION]])
def test_signature(name: str) -> None:
    """Names, kinds and order of parameters, and defaults."""
    mine: Any = xp
    other: Any = strict
    for part in name.split("."):
        mine, other = getattr(mine, part), getattr(other, part)
    if name == "isdtype":  # the standard has both positional or by name
        assert [p for p, _ in _parameters(mine)] == ["dtype", "kind"]
        return
    assert _parameters(mine) == _parameters(other)
    for parameter in inspect.signature(other).parameters.values():
        default = inspect.signature(mine).parameters[parameter.name].default
        if "UNDEF" in str(parameter.default):  # marks None as not given
            assert default is None
        else:
            assert default == parameter.default


@pytest.mark.parametrize("name", [*FUNCTIONS, *[f"linalg.{name}" for name in EXTENSION]])
def test_has_docstring(name: str) -> None:
    value: Any = xp
    for part in name.split("."):
        value = getattr(value, part)
    assert inspect.getdoc(value)


def test_constants() -> None:
    assert xp.pi == strict.pi and xp.e == strict.e
    assert xp.inf == float("inf") and xp.nan != xp.nan
    assert xp.newaxis is None


def test_version() -> None:
    assert xp.__array_api_version__ == "2024.12"
    x = xp.asarray([1])
    assert x.__array_namespace__() is xp
    assert x.__array_namespace__(api_version="2024.12") is xp
    with pytest.raises(ValueError, match="no version"):
        x.__array_namespace__(api_version="2011.01")


def test_info() -> None:
    info = xp.__array_namespace_info__()
    assert set(info.dtypes()) == set(ALL)
    assert info.dtypes(kind="bool") == {"bool": xp.bool}
    assert set(info.dtypes(kind=("signed integer", "real floating"))) == {*INTEGERS[:4], *FLOATS}
    assert info.dtypes(kind="complex floating") == {}
    assert info.default_dtypes() == {
        "real floating": xp.float32,
        "integral": xp.int64,
        "indexing": xp.int64,
    }
    assert CPU() in info.devices()
    assert info.default_device() in info.devices()
    assert info.capabilities()["boolean indexing"] is True
    with pytest.raises(ValueError, match="kind"):
        info.dtypes(kind="decimal")


@pytest.mark.parametrize("name", ALL)
def test_dtypes(name: str) -> None:
    assert getattr(xp, name) is DType[name]
    assert getattr(xp, name) != getattr(xp, ALL[ALL.index(name) - 1])


@pytest.mark.parametrize("name", FLOATS)
def test_finfo(name: str) -> None:
    found, wanted = xp.finfo(getattr(xp, name)), strict.finfo(getattr(strict, name))
    for field in ("bits", "eps", "max", "min", "smallest_normal"):
        assert getattr(found, field) == getattr(wanted, field)
    assert found.dtype is DType[name]
    assert xp.finfo(xp.ones(2, dtype=found.dtype)) == found


@pytest.mark.parametrize("name", INTEGERS)
def test_iinfo(name: str) -> None:
    found, wanted = xp.iinfo(getattr(xp, name)), strict.iinfo(getattr(strict, name))
    assert (found.bits, found.max, found.min) == (wanted.bits, wanted.max, wanted.min)
    with pytest.raises(TypeError):
        xp.iinfo(xp.float32)


def test_isdtype() -> None:
    kinds = ["bool", "signed integer", "unsigned integer", "integral", "real floating", "numeric"]
    kinds += ["complex floating"]
    for name in ALL:
        for kind in [*kinds, ("bool", "integral"), ("complex floating", "real floating")]:
            wanted = strict.isdtype(getattr(strict, name), kind)
            assert xp.isdtype(getattr(xp, name), kind) == wanted
        for other in ALL:
            assert xp.isdtype(DType[name], DType[other]) == (name == other)
    with pytest.raises(ValueError, match="kind"):
        xp.isdtype(xp.bool, "truth")


def test_import_is_lazy() -> None:
    """`import maxmod` does not load the namespace; naming it does."""
    code = (
        "import sys, maxmod; print('maxmod.array_api' in sys.modules); "
        "print(maxmod.array_api.__array_api_version__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(maxmod.__file__).parents[1],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "2024.12"]


def test_arguments_of_other_kinds_are_refused() -> None:
    for call in (lambda: xp.abs(1.0), lambda: xp.add(1, 2), lambda: xp.sum([1, 2])):
        with pytest.raises(TypeError):
            call()
    assert isinstance(ours(__import__("numpy").ones(2)), xp.Array)
