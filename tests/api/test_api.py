"""Every public name of the API is proven: by a case here, or by the samples of its op."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
from api.names import NAMES
from api.proving import CASES, entered, find
from ops.test_registry import SAMPLES

from maxmod import functional as F
from maxmod.op import REGISTRY, Kind
from maxmod.tensor import Tensor

for _file in sorted(Path(__file__).parent.glob("cases_*.py")):
    importlib.import_module(f"api.{_file.stem}")

ALL = [f"{root}.{name}" for root, text in NAMES.items() for name in text.split()]


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    """The case passes, and runs the code of everything that it is about."""
    case, about = CASES[name]
    found = {what: find(what) for what in about}
    with entered() as codes:
        case()
    idle = [what for what, thing in found.items() if thing.codes and not thing.codes & codes]
    assert not idle, f"the case does not use {', '.join(idle)}"


def test_a_case_must_use_the_claimed_names() -> None:
    with entered() as codes:
        F.relu(Tensor([1.0]))
    assert find("F.relu").codes & codes
    assert find("Tensor.__init__").codes & codes
    for name in ("F.sigmoid", "Tensor.T", "nn.Linear", "F.softmax"):
        assert find(name).codes
        assert not find(name).codes & codes


def test_every_name_exists() -> None:
    missing = []
    for name in ALL:
        try:
            find(name)
        except AttributeError:
            missing.append(name)
    assert not missing


def _has_samples(name: str) -> bool:
    """True if the tables of test_registry.py or test_elementwise.py hold the op of this name."""
    root, _, function = name.partition(".")
    op = REGISTRY.get(function)
    if root != "F" or op is None or getattr(getattr(F, function), "op", None) is not op:
        return False
    return op.kind is Kind.ELEMENTWISE or function in SAMPLES


def test_every_name_is_proven() -> None:
    claimed = {what for _, about in CASES.values() for what in about}
    unproven = [name for name in ALL if name not in claimed and not _has_samples(name)]
    assert not unproven, f"{len(unproven)} names without a case: {' '.join(unproven)}"
    assert not claimed - set(ALL), "cases claim names that are not in the lists"
