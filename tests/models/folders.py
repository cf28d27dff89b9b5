"""The golden folders that transformers wrote, and what it computed for them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

from maxmod.weights import merge, open_checkpoint, save_state

ASSETS = Path(__file__).parents[1] / "assets"
GPT2 = sorted(path.parent for path in ASSETS.glob("gpt2/*/config.json"))
DECODERS = sorted(path.parent for path in ASSETS.glob("decoders/*/config.json"))
LLAMA = sorted(path.parent for path in ASSETS.glob("llama/*/config.json"))
HEADS = {"sequence": "SequenceClassification", "tokens": "TokenClassification"}
LABELS = {
    "sequence": {"0": "bad", "1": "so so", "2": "good"},
    "tokens": {"0": "O", "1": "B-PER", "2": "I-PER", "3": "B-LOC", "4": "I-LOC"},
}


def golden(folder: Path) -> list[tuple[np.ndarray, np.ndarray]]:
    """Returns (tokens, float32 logits) of a folder."""
    with np.load(folder / "golden.npz") as data:
        return [(data[f"input_ids_{i}"], data[f"logits_{i}"]) for i in range(3)]


def copy(folder: Path, target: Path, **changes: object) -> Path:
    """Copies a folder, with other fields in its config.json; `...` leaves a field out."""
    shutil.copytree(folder, target)
    path = target / "config.json"
    table = json.loads(path.read_text("utf-8")) | changes
    path.write_text(json.dumps({k: v for k, v in table.items() if v is not ...}), "utf-8")
    return target


def with_head(folder: Path, head: str, target: Path, **changes: object) -> Path:
    """A folder as transformers saves the model with a head for labels."""
    named = json.loads((folder / "config.json").read_text("utf-8"))["architectures"][0]
    name = named.replace("MaskedLM", HEADS[head])
    changes = {"architectures": [name], "id2label": LABELS[head], **changes}
    made = copy(folder, target / f"{folder.name}-{head}", **changes)
    with open_checkpoint(folder) as whole, open_checkpoint(folder / f"{head}.safetensors") as own:
        kept = {n: t for n, t in whole.items() if n not in own}
        save_state(merge(kept, dict(own.items())), made / "model.safetensors")
    for extra in HEADS:
        (made / f"{extra}.safetensors").unlink()
    return made


def relative_error(found: np.ndarray, wanted: np.ndarray) -> float:
    """The root of the mean square of the difference, in units of the spread of the logits."""
    return float(np.sqrt(np.mean((found - wanted) ** 2)) / np.std(wanted))
