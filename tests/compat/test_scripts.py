"""Scripts written for MAX run unchanged: `maxmod run`, with the names of each version."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import maxmod
from maxmod import CPU, DType, TensorType, compat
from maxmod.backends.host import compiler as host_compiler
from maxmod.cli import main

SCRIPTS = Path(__file__).parent / "scripts"
EXAMPLES = sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != "gpt2")
# Where the same names are in other versions.
SPELLINGS = {
    "25.7": {},
    "26.1": {
        "max.nn.module_v3": "max.nn",
        "max.experimental.tensor": "max.tensor",
        "max.experimental.functional": "max.functional",
        "max.experimental import Tensor": "max.tensor import Tensor",
        "max.experimental import functional": "max import functional",
    },
    "26.7": {"max.nn.module_v3": "max.experimental.nn"},
}
# The scripts have the names of every version, one of which 26.7 calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Tensor.constant is deprecated")
PRINTED = {
    "affine": r"Affine\(.*\)\nTensor\(\[0 0 0 0 0\], .*\)\n",
    "apply_accelerator": r"(Device\(type=gpu,id=0\) ?){4}\n",
    "compile": r"Tensor\(\[\[0 0 0 0 0 0 0 0 0 0\]\n.*\], shape=\[3, 10\], .*\)\n",
    "count": r"Total parameters: 325\n",
    "load_state": r"(Tensor\(\[0 0 0\], .*\)\n){2}",
    "map_accelerator": r"Device\(type=gpu,id=0\)\n",
    "to_host": r"Device\(type=cpu,id=0\)\n",
}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    compat.uninstall()


def spelled(name: str, version: str, folder: Path) -> Path:
    """Writes a script with the names of a version."""
    text = (SCRIPTS / f"{name}.py").read_text("utf-8")
    for old, new in SPELLINGS[version].items():
        text = text.replace(old, new)
    path = folder / f"{name}.py"
    path.write_text(text, "utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    code = main(["run", *map(str, arguments)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("version", SPELLINGS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_on_an_accelerator(
    name: str,
    version: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    emulated_accelerator: object,
) -> None:
    code, out, err = run(capsys, spelled(name, version, tmp_path))
    assert (code, err) == (0, "")
    assert re.fullmatch(PRINTED.get(name, ""), out, re.DOTALL), out


@pytest.mark.parametrize("version", SPELLINGS)
@pytest.mark.parametrize("name", EXAMPLES)
def test_on_the_host(
    name: str,
    version: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    no_accelerator: None,
) -> None:
    code, out, err = run(capsys, spelled(name, version, tmp_path))
    if name.endswith("accelerator"):
        assert (code, out) == (1, "")
        assert "NoAcceleratorError: Accelerator(0): no accelerator can be used." in err
    else:
        assert (code, err) == (0, "")
        assert re.fullmatch(PRINTED.get(name, ""), out, re.DOTALL), out


# ---- GPT-2 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", SPELLINGS)
def test_gpt2_generates_the_same_eagerly_and_compiled(
    version: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], no_accelerator: None
) -> None:
    """The script compares the two itself."""
    code, out, err = run(capsys, spelled("gpt2", version, tmp_path), "1", "2", "3")
    assert (code, err) == (0, "")
    *_, greedy, sampled = out.splitlines()
    for line in (greedy, sampled):
        assert [int(text) for text in line.split()][:3] == [1, 2, 3]
        assert len(line.split()) == 8
    assert out.startswith("LanguageModel(\n    transformer=Transformer(\n")


def test_gpt2_on_an_accelerator(
    capsys: pytest.CaptureFixture[str], emulated_accelerator: object
) -> None:
    code, _, err = run(capsys, SCRIPTS / "gpt2.py", "1", "2")
    assert (code, err) == (0, "")


def _layer_norm(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scale = np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return centred / scale * state[f"{name}.weight"] + state[f"{name}.bias"]


def _linear(x: np.ndarray, state: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def gpt2_in_numpy(
    tokens: np.ndarray, state: dict[str, np.ndarray], layers: int, heads: int
) -> np.ndarray:
    """The model of the script in float64."""
    state = {name.removeprefix("transformer."): a.astype(np.float64) for name, a in state.items()}
    batch, seq = tokens.shape
    x = state["wte.weight"][tokens] + state["wpe.weight"][:seq]
    for layer in range(layers):
        block = f"h.{layer}"
        qkv = _linear(_layer_norm(x, state, f"{block}.ln_1"), state, f"{block}.attn.c_attn")
        parts = (
            part.reshape(batch, seq, heads, -1).transpose(0, 2, 1, 3)
            for part in np.split(qkv, 3, axis=-1)
        )
        q, k, v = parts
        scores = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        scores = np.where(np.tri(seq, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = (weights @ v).transpose(0, 2, 1, 3).reshape(batch, seq, -1)
        x = x + _linear(mixed, state, f"{block}.attn.c_proj")
        wide = _linear(_layer_norm(x, state, f"{block}.ln_2"), state, f"{block}.mlp.c_fc")
        wide = wide / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (wide + 0.044715 * wide**3)))
        x = x + _linear(wide, state, f"{block}.mlp.c_proj")
    return _layer_norm(x, state, "ln_f") @ state["lm_head.weight"].T


def test_gpt2_computes_the_model(no_accelerator: None) -> None:
    assert compat.install()
    script = runpy.run_path(str(SCRIPTS / "gpt2.py"))
    sizes = script["Sizes"]()
    model = script["LanguageModel"](sizes)
    state = script["make_state"](model, 3)
    model.load_state_dict(state)
    compiled = model.compile(TensorType(DType.int64, ["batch", "seqlen"], CPU()))
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (2, 7), (3, 16)):
        tokens = rng.integers(0, sizes.vocab_size, shape)
        expected = gpt2_in_numpy(tokens, state, sizes.n_layer, sizes.n_head)
        eager = model(maxmod.Tensor(tokens)).to_numpy()
        np.testing.assert_allclose(eager, expected, rtol=2e-5, atol=2e-5)
        fast = compiled(maxmod.Tensor(tokens)).to_numpy()
        np.testing.assert_allclose(fast, expected, rtol=2e-5, atol=2e-5)
    assert compiled.stats.programs == 3


def test_gpt2_is_fused(no_accelerator: None) -> None:
    """One compile serves all sizes, in kernels of several ops each."""
    assert compat.install()
    script = runpy.run_path(str(SCRIPTS / "gpt2.py"))
    model = script["LanguageModel"](script["Sizes"]())
    compiled = model.compile(TensorType(DType.int64, ["batch", "seqlen"], CPU()))
    if host_compiler.find() is None:
        assert compiled.kernels == ()
    else:
        assert 0 < len(compiled.kernels) < len(compiled.graph.nodes) / 2


# ---- the command ---------------------------------------------------------------------------------


def test_as_a_process(tmp_path: Path) -> None:
    """Arguments, options that look like ours, the script's folder on the path, the exit code."""
    (tmp_path / "neighbour.py").write_text("VALUE = 41\n", "utf-8")
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from max.driver import CPU\n"
        "from neighbour import VALUE\n"
        "if __name__ == '__main__':\n"
        "    print(sys.argv[0] == __file__, sys.argv[1:], VALUE, CPU())\n"
        "    sys.exit(7)\n",
        "utf-8",
    )
    root = str(Path(maxmod.__file__).parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "maxmod", "run", str(script), "a", "--force", "-x"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=tmp_path.parent,
        check=False,
    )
    expected = "True ['a', '--force', '-x'] 41 Device(type=cpu,id=0)\n"
    assert (done.returncode, done.stdout, done.stderr) == (7, expected, "")


def test_errors_show_the_script_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], no_accelerator: None
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from max.experimental.tensor import Tensor\n"
        "def f():\n"
        "    return Tensor.ones([2]) + Tensor.ones([3])\n"
        "f()\n",
        "utf-8",
    )
    argv, path = list(sys.argv), list(sys.path)
    code, out, err = run(capsys, script)
    assert (code, out) == (1, "")
    lines = err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[1] == f'  File "{script}", line 4, in <module>'
    assert "neither equivalent nor broadcastable" in err
    assert "runpy" not in err
    assert (argv, path) == (sys.argv, sys.path)


def test_wrong_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = tmp_path / "script.py"
    script.write_text("def f(:\n", "utf-8")
    code, _, err = run(capsys, script)
    assert code == 1
    assert "SyntaxError" in err
    assert "runpy" not in err


def test_missing_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, tmp_path / "none.py")
    assert (code, out) == (1, "")
    assert err.startswith("maxmod: error: ")
    assert "none.py" in err
    assert err.count("\n") == 1


def test_installed_max(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package max is not hidden unless that is asked for."""
    package = tmp_path / "site" / "max"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("", "utf-8")
    (package / "driver.py").write_text("CPU = 'the real one'\n", "utf-8")
    monkeypatch.syspath_prepend(tmp_path / "site")
    script = tmp_path / "script.py"
    script.write_text("from max.driver import CPU\nprint(CPU)\n", "utf-8")
    # The folder of the script takes the first place of the path, so ours must not be there.
    sys.path.insert(0, str(tmp_path))
    code, out, err = run(capsys, script)
    assert (code, out) == (1, "")
    assert err == (
        f"maxmod: error: run: {package / '__init__.py'} is installed as max. Hint: maxmod run "
        "--force SCRIPT uses maxmod instead.\n"
    )
    code, out, err = run(capsys, "--force", script)
    assert (code, err) == (0, "")
    assert out == "<class 'maxmod.backends.devices.CPU'>\n"
