"""Quantised models: how far their logits are from those of the floats, and loading them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from models.folders import ASSETS, golden, relative_error

import maxmod
from maxmod import CPU, DType, Tensor
from maxmod.errors import ArgumentError, ShapeError
from maxmod.generate import generate
from maxmod.models import load_model
from maxmod.nn import Linear, QuantizedEmbedding, QuantizedLinear
from maxmod.weights import save_state

TIED = ASSETS / "gpt2" / "tied"


# Errors that were measured are half of these limits or less. Random weights, narrow layers: the
# hardest case, logits of all tokens are near each other.
@pytest.mark.parametrize(
    ("folder", "scheme", "limit", "agree"),
    [
        ("gpt2/tied", "int8", 0.03, 0.95),
        ("gpt2/tied", "int4", 0.4, 0.7),
        ("llama/llama32", "int8", 0.04, 0.8),
    ],
)
def test_random_models(folder: str, scheme: str, limit: float, agree: float) -> None:
    """Against what transformers computed in floats."""
    model = load_model(ASSETS / folder, device=CPU(), dtype=DType.float32, quantize=scheme)
    compiled = model.module.compile(model.tokens_type)
    same = []
    for tokens, expected in golden(ASSETS / folder):
        rows = Tensor(tokens, device=CPU())
        eager, found = model.module(rows).to_numpy(), compiled(rows).to_numpy()
        # Compiled, activations become integers of 16 bits.
        np.testing.assert_allclose(found, eager, rtol=0, atol=4e-4 * np.abs(eager).max())
        assert 0 < relative_error(found, expected) < limit
        same.append((found.argmax(axis=-1) == expected.argmax(axis=-1)).reshape(-1))
    assert np.mean(np.concatenate(same)) >= agree


@pytest.mark.parametrize(
    ("scheme", "head"), [("int8", "int8"), ("int4", "int8"), ("int4", "int4"), ("int8", "int4")]
)
def test_while_loading_and_afterwards_are_the_same(scheme: str, head: str) -> None:
    one = load_model(TIED, device=CPU(), quantize=scheme, skip="h.0.*", head=head)
    two = load_model(TIED, device=CPU())
    tokens = np.array([[1, 2, 3]])
    before = two.next_logits(tokens)
    maxmod.quantize(two, scheme, skip="h.0.*", head=head)
    assert type(one.module.h[0].mlp.c_fc) is Linear  # type: ignore[attr-defined]
    assert isinstance(one.module.lm_head, QuantizedLinear)
    assert one.module.lm_head.scheme == head
    assert one.module.h[1].mlp.c_fc.scheme == scheme  # type: ignore[attr-defined]
    pairs = list(zip(one.module.parameters, two.module.parameters, strict=True))
    for (name, left), (other, right) in pairs:
        assert name == other
        assert left.type == right.type
        np.testing.assert_array_equal(left.data, right.data, err_msg=name)
    after = two.next_logits(tokens)  # compiled again
    assert (after != before).any()
    np.testing.assert_array_equal(after, one.next_logits(tokens))


def test_scales_keep_the_dtype() -> None:
    """In a model of halves too; codes come from the stored weights, not from a rounded copy."""
    model = load_model(TIED, device=CPU(), dtype=DType.bfloat16, quantize="int8")
    exact = load_model(TIED, device=CPU(), quantize="int8")
    head, wanted = model.module.lm_head, exact.module.lm_head
    assert isinstance(head, QuantizedLinear)
    assert isinstance(wanted, QuantizedLinear)
    assert head.scales.dtype is DType.float32
    np.testing.assert_array_equal(head.weight.to_numpy(), wanted.weight.to_numpy())
    table = model.module.wte
    assert isinstance(table, QuantizedEmbedding)
    assert table.dtype is DType.bfloat16
    assert table.weight is head.weight
    assert len(list(generate(model, [1, 2, 3], max_new_tokens=4))) <= 4


def test_bad_options_are_refused() -> None:
    with pytest.raises(ArgumentError, match="skip, head and sensitive need quantize as well"):
        load_model(TIED, device=CPU(), group_size=32)
    with pytest.raises(ShapeError, match=r"quantize: h.0.attn.c_attn.weight: .*group_size=128"):
        load_model(TIED, device=CPU(), quantize="int4", group_size=128)
    with pytest.raises(ArgumentError, match=r"'lm_heat' matches no linear layer.*'lm_head'"):
        load_model(TIED, device=CPU(), quantize="int8", skip=["lm_heat"])


def test_a_bad_weight_of_the_file_is_named(tmp_path: Path) -> None:
    from maxmod.weights import open_checkpoint

    for path in TIED.iterdir():
        if path.suffix == ".json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with open_checkpoint(TIED) as checkpoint:
        state = {name: tensor.to_numpy().copy() for name, tensor in checkpoint.items()}
    name = next(name for name in state if name.endswith("h.1.mlp.c_fc.weight"))
    state[name][3, 5] = np.inf
    save_state(state, tmp_path / "model.safetensors")
    with pytest.raises(ArgumentError, match=r"quantize: h.1.mlp.c_fc.weight: .*NaN or infinity"):
        load_model(tmp_path, device=CPU(), quantize="int8")


# The float weights are 170 MB.
_MEMORY = """
import sys
from maxmod import CPU
from maxmod.models import load_model

def status(key):
    for line in open("/proc/self/status"):
        if line.startswith(key):
            return int(line.split()[1]) * 1024

folder, small = sys.argv[1:]
load_model(small, device=CPU(), quantize="int8")  # imports and one-time caching
open("/proc/self/clear_refs", "w").write("5")
before = status("VmRSS:")
model = load_model(folder, device=CPU(), quantize="int8")
print(status("VmHWM:") - before, model.module.summary().nbytes)
"""


def test_peak_of_a_load(tmp_path: Path) -> None:
    """Memory never holds more than the rounded model and one tensor of floats."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("this system does not tell the peak memory of a process")
    table = json.loads((TIED / "config.json").read_text("utf-8"))
    table |= {"n_embd": 768, "n_layer": 5, "n_head": 12, "vocab_size": 9000, "n_positions": 32}
    table |= {"n_inner": None, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(table), "utf-8")
    from maxmod.models.config import from_table
    from maxmod.models.config_fields import CONFIG
    from maxmod.models.decoders import gpt2

    module = gpt2.GPT2(from_table(gpt2.Config, table, "config.json", known=CONFIG["gpt2"]))
    transposed = ("c_attn.weight", "c_fc.weight", "c_proj.weight")
    state = {
        name: np.ascontiguousarray(t.to_numpy().T) if name.endswith(transposed) else t
        for name, t in module.parameters
        if name != "lm_head.weight"
    }
    save_state(state, tmp_path / "model.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY, tmp_path, TIED], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    peak, model = map(int, done.stdout.split())
    largest = 9000 * 768 * 4
    assert model * 0.95 < peak < model + largest + (24 << 20)
    assert model + largest + (24 << 20) < 0.8 * sum(
        t.nbytes for t in map(np.asarray, state.values())
    )
