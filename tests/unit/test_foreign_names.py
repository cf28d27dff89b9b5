"""Names of PyTorch and NumPy: each is here, or the error says what to write, or why not."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maxmod
from maxmod import CPU, DType, Tensor, TensorType, nn
from maxmod import functional as F
from maxmod.op import foreign_hint
from maxmod.op.foreign.absent import REASONS
from maxmod.op.foreign.known import KNOWN
from maxmod.op.foreign.names import LINES, OF_MODULES, OF_PACKAGES
from maxmod.op.registry import call_of

FOLDER = Path(__file__).parents[1] / "assets" / "foreign_names"
HOLDERS: dict[str, list[Any]] = {
    "torch": [maxmod],
    "torch.nn": [nn],
    "torch.nn.functional": [F],
    "torch.Tensor": [Tensor([[1.0]])],
    "torch.nn.Module": [nn.Linear(3, 2)],
    "numpy": [maxmod, F],
}


def _names(of: str) -> list[str]:
    return (FOLDER / f"{of}.txt").read_text("utf-8").split()


@pytest.mark.parametrize("of", HOLDERS)
def test_each_name_exists_or_is_explained(of: str) -> None:
    unexplained = []
    for holder in HOLDERS[of]:
        for name in _names(of):
            try:
                getattr(holder, name)
            except AttributeError as error:
                if "Hint: " not in str(error) and "It is absent: " not in str(error):
                    unexplained.append(name)
    assert unexplained == []


def test_known_names_equal_the_lists() -> None:
    assert {name for of in HOLDERS for name in _names(of)} == KNOWN


def _namespace() -> dict[str, Any]:
    x = Tensor(np.array([[0.5, 0.25, 0.75], [0.1, 0.9, 0.3]], np.float32))
    model = nn.Linear(3, 2)
    return {
        "x": x,
        "y": x + 0.5,
        "v": Tensor([1.0, 2.0, 3.0]),
        "m": Tensor(np.eye(4, 3, dtype=np.float32)[:3] + 1),
        "mask": x > 0.4,
        "t": Tensor(0.5),
        "i": Tensor([1, 0], dtype=DType.int64),
        "images": Tensor.ones([1, 4, 4, 3]),
        "model": model,
        "F": F,
        "nn": nn,
        "np": np,
        "maxmod": maxmod,
        "Tensor": Tensor,
        "DType": DType,
        "TensorType": TensorType,
        "CPU": CPU,
    }


@pytest.mark.parametrize("line", [line for _, line in (*LINES, *OF_MODULES, *OF_PACKAGES)])
def test_the_line_of_a_hint_runs(line: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    code = line.partition("  #")[0]
    space = _namespace()
    if "open_checkpoint" in code:
        maxmod.weights.save_state(space["model"].state_dict(), "model.safetensors")
    if "Accelerator" not in code:
        exec(code, space)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("exp", ["x"]), ("logical_and", ["x", "rhs"]), ("concat", ["x"]), ("relu", ["x"])],
)
def test_functions_of_f_are_named_with_arguments(name: str, arguments: list[str]) -> None:
    assert call_of(name) == f"F.{name}({', '.join(arguments)})"


def test_only_public_functions_are_named() -> None:
    for name in ("reduce_sum", "rows", "set_item", "basic_slice"):
        assert not foreign_hint(name)
    assert "F.max(x, y)" in foreign_hint("maximum")
    assert not foreign_hint("a_name_of_the_user")


@pytest.mark.parametrize(
    ("holder", "name", "text"),
    [
        (maxmod, "cat", "module 'maxmod' has no attribute 'cat'. Hint: F.concat([x, y], axis=0)."),
        (F, "cat", "module 'maxmod.functional' has no attribute 'cat'. Hint: F.concat("),
        (nn, "LSTM", "It is absent: there are no recurrent layers"),
        (nn, "MSELoss", "It is absent: there is no training here"),
        (Tensor([1.0]), "add_", "Hint: x = F.add(x, rhs), results are new tensors."),
        (Tensor([1.0]), "backward", "there is no training here"),
        (nn.Linear(3, 2), "cuda", "Hint: model.to(Accelerator())."),
        (nn.Linear(3, 2), "half", "Hint: model.apply_to_parameters(lambda name, x: x.cast(DType.f"),
        (maxmod, "float32", "Hint: DType.float32."),
        (Tensor([1.0]), "float", "Hint: x.cast(DType.float32)."),
        (nn.Linear(3, 2), "named_weights", "'Linear' object has no attribute 'named_weights'"),
    ],
)
def test_texts(holder: Any, name: str, text: str) -> None:
    with pytest.raises(AttributeError) as caught:
        getattr(holder, name)
    assert text in str(caught.value)


def test_no_word_is_explained_twice() -> None:
    words = [name for names, _ in LINES for name in names.split()]
    assert len(words) == len(set(words)), sorted(w for w in set(words) if words.count(w) > 1)
    assert all(reason and patterns for reason, patterns in REASONS)


def test_an_error_of_a_property_is_not_hidden() -> None:
    class Broken(nn.Module):
        @property
        def scale(self) -> float:
            return self.missing  # type: ignore[attr-defined]

    with contextlib.suppress(ImportError), pytest.raises(AttributeError, match="'missing'"):
        _ = Broken().scale
