"""Folders of sentence-transformers: what is changed in the golden one, and how texts are embedded.

`tests/assets/make_sentence_fixtures.py` lets that library compute the vectors.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "assets" / "bert" / "sentences"
VECTORS = FOLDER.parent / "sentence_vectors.npz"
TEXTS = ["The cat sat on the mat.", "Dogs ran under a BRIDGE", "?", "it is " + "rain and " * 9]

PARTS = ["", "1_Pooling", "2_Normalize"]
POOLING = "1_Pooling/config.json"
RULES = "sentence_bert_config.json"
PROMPTS = "config_sentence_transformers.json"
NAMED = {"prompts": {"query": "Is it the sun? ", "passage": "rain: "}}
FLAGS = ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
FLAGS += ("lasttoken",)


@dataclass(frozen=True)
class Case:
    """Files of the folder with other content, and arguments of `embed` and `encode`."""

    files: dict[str, Any] = field(default_factory=dict)
    arguments: dict[str, Any] = field(default_factory=dict)


def flags(*names: str, **more: object) -> dict[str, Any]:
    """The config.json of a Pooling in the older form."""
    modes = {f"pooling_mode_{name}": name in names for name in FLAGS}
    return {"word_embedding_dimension": 24, **modes, **more}


def modules(*kinds: str, paths: dict[int, str] | None = None) -> list[dict[str, Any]]:
    """A modules.json of parts in this order."""
    named = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    return [
        {
            "idx": n,
            "name": str(n),
            "path": (paths or {}).get(n, named.get(kind, f"{n}_{kind}")),
            "type": f"sentence_transformers.models.{kind}",
        }
        for n, kind in enumerate(kinds)
    ]


def _cased(lower: bool) -> dict[str, Any]:
    """A tokenizer that knows only lower case and does not convert to it."""
    table = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))
    table["normalizer"]["lowercase"] = False
    return {"tokenizer.json": table, RULES: {"max_seq_length": 16, "do_lower_case": lower}}


CASES: dict[str, Case] = {
    **{f"flag {name}": Case({POOLING: flags(name)}) for name in FLAGS},
    "all flags": Case({POOLING: flags(*FLAGS)}),
    "no flag": Case({POOLING: flags()}),
    "named mode": Case({POOLING: {"embedding_dimension": 24, "pooling_mode": "max"}}),
    "list of modes": Case(
        {POOLING: {"embedding_dimension": 24, "pooling_mode": ["lasttoken", "cls"]}}
    ),
    "two poolings": Case(
        {
            "modules.json": modules(
                "Transformer", "Pooling", "Normalize", "Pooling", paths={3: "3"}
            ),
            "3/config.json": flags("cls_token"),
        }
    ),
    **{
        f"{name} without normalize": Case(
            {"modules.json": modules("Transformer", "Pooling"), POOLING: flags(name)}
        )
        for name in ("mean_tokens", "mean_sqrt_len_tokens")
    },
    "named prompt": Case({PROMPTS: NAMED}, {"prompt_name": "query"}),
    "prompt": Case({PROMPTS: NAMED}, {"prompt": "The dog: "}),
    "default prompt": Case({PROMPTS: NAMED | {"default_prompt_name": "passage"}}),
    "no prompt": Case({PROMPTS: NAMED | {"default_prompt_name": "passage"}}, {"prompt": ""}),
    "null prompt": Case(
        {PROMPTS: {"prompts": {"query": None}, "default_prompt_name": "query"}},
    ),
    **{
        f"{name} without the prompt": Case(
            {POOLING: flags(name, include_prompt=False), PROMPTS: NAMED}, {"prompt_name": "query"}
        )
        for name in FLAGS
    },
    "without a prompt": Case({POOLING: flags("mean_tokens", include_prompt=False)}),
    "upper case": Case(_cased(False)),
    "lower case": Case(_cased(True)),
    "lower case of prompts": Case(_cased(True), {"prompt": "THE DOG "}),
    "longer than the positions": Case({RULES: {"max_seq_length": 512}}),
    "length of the tokenizer": Case(
        {RULES: {"max_seq_length": None}, "tokenizer_config.json": {"model_max_length": 7}}
    ),
    "cut at the start": Case({"tokenizer_config.json": {"truncation_side": "left"}}),
    "no length": Case({RULES: {}, "tokenizer_config.json": {"model_max_length": 10**30}}),
}


def make_folder(case: Case, target: Path) -> Path:
    """Writes the folder of a case."""
    shutil.copytree(FOLDER, target)
    for name, content in case.files.items():
        path = target / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content), "utf-8")
    return target
