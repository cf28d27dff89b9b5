"""Write ``tests/assets/bert/sentence_vectors.npz``: vectors that sentence-transformers computes.

Run by hand, once, with ``torch`` and ``sentence-transformers`` installed; the
tests only read what it wrote:

    python tests/assets/make_sentence_fixtures.py

For each case of ``tests/models/sentence_cases.py`` it holds the vectors of its
texts, float32.  Where the library lets texts be longer than the model has
positions, it is told the number of positions.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from models.sentence_cases import CASES, TEXTS, VECTORS, Case, make_folder

POSITIONS = 20
FAST = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "pad_token": "[PAD]"}
FAST |= {"cls_token": "[CLS]", "sep_token": "[SEP]"}


def vectors(case: Case, target: Path) -> np.ndarray:
    """Returns the vectors of a case."""
    files = dict(case.files)
    files["tokenizer_config.json"] = FAST | files.get("tokenizer_config.json", {})
    folder = make_folder(Case(files), target)
    model = SentenceTransformer(str(folder), device="cpu", model_kwargs={"dtype": torch.float32})
    model.max_seq_length = min(model.max_seq_length, POSITIONS)
    return model.encode(TEXTS, convert_to_numpy=True, **case.arguments)


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = {
            name: vectors(case, Path(folder) / str(n))
            for n, (name, case) in enumerate(CASES.items())
        }
    np.savez_compressed(VECTORS, **found)


if __name__ == "__main__":
    main()
