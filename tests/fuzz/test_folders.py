"""Changed JSON files of model folders: the model loads and runs, or the folder is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.examples import fuzzed, right_or_refused
from fuzz.mutations import changed_bytes, changed_json
from hypothesis import given
from hypothesis import strategies as st
from models.folders import ASSETS, GPT2, LLAMA
from models.sentence_cases import PROMPTS, RULES

from maxmod import CPU
from maxmod.models import load_encoder, load_model, load_vision_model
from maxmod.models.registry import describe

SENTENCES = ASSETS / "bert" / "sentences"
VISION = ASSETS / "vit" / "classifier"
# Fields that change what models compute, some of them of other models.
FIELDS = ("rope_scaling", "rope_parameters", "sliding_window", "tie_word_embeddings", "is_causal")
FIELDS += ("quantization_config", "head_dim", "attention_bias", "layer_types", "text_config")
FIELDS += ("num_key_value_heads", "partial_rotary_factor", "auto_map", "architectures", "dtype")
FIELDS += ("rope_type", "factor", "rope_theta", "hidden_act", "model_type", "eos_token_id")


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One copy of each folder, of which an example changes one file and restores it."""
    root = tmp_path_factory.mktemp("folders")
    return {
        f"{path.parent.name}/{path.name}": Path(shutil.copytree(path, root / str(n)))
        for n, path in enumerate([*GPT2, *LLAMA, SENTENCES, VISION])
    }


def _run(folder: Path, kind: str) -> None:
    """Loads a folder and runs it once, op by op."""
    assert describe(folder)
    if kind == "bert":
        encoder = load_encoder(folder, device=CPU())
        found = encoder.embed(["a cat"], eager=True)
        assert found.shape == (1, encoder.config.hidden_size * len(encoder.pooling.modes))
    elif kind == "vit":
        model = load_vision_model(folder, device=CPU())
        assert len(model.classify([VISION / "photo.png"], eager=True, top=1)) == 1
    else:
        model = load_model(folder, device=CPU())
        assert model.next_logits([[1, 2, 3]], eager=True).shape == (1, model.vocab_size)


class _Changed:
    """A file of a folder with other content, for as long as it is run."""

    def __init__(self, path: Path, content: bytes) -> None:
        self.path = path
        self.content = content

    def __enter__(self) -> None:
        self.before = self.path.read_bytes() if self.path.exists() else None
        self.path.write_bytes(self.content)

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            self.path.unlink()
        else:
            self.path.write_bytes(self.before)


def _dump(table: Any) -> bytes:
    return json.dumps(table).encode()


NAMES = [f"{path.parent.name}/{path.name}" for path in (*GPT2, *LLAMA, SENTENCES, VISION)]
# Numbers of 1e308 and the like are computed with as asked; the results are not finite then.
NUMBERS = pytest.mark.filterwarnings("ignore::RuntimeWarning")


@NUMBERS
@fuzzed(100)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_changed_configurations(copies: dict[str, Path], data: st.DataObject, name: str) -> None:
    path = copies[name] / "config.json"
    table = json.loads(path.read_text("utf-8"))
    changed = data.draw(changed_json(table, names=FIELDS))
    with _Changed(path, _dump(changed)), right_or_refused():
        _run(copies[name], name.split("/")[0])


@NUMBERS
@fuzzed(50)
@given(data=st.data(), name=st.sampled_from(NAMES))
def test_damaged_configurations(copies: dict[str, Path], data: st.DataObject, name: str) -> None:
    path = copies[name] / "config.json"
    changed = data.draw(changed_bytes(path.read_bytes()))
    with _Changed(path, changed), right_or_refused():
        _run(copies[name], name.split("/")[0])


TABLES: dict[str, Any] = {
    "modules.json": ...,
    "1_Pooling/config.json": ...,
    RULES: ...,
    PROMPTS: {"prompts": {"query": "a ", "b": ""}, "default_prompt_name": "query"},
    "tokenizer_config.json": {"model_max_length": 12, "tokenizer_class": "BertTokenizer"},
}
PARTS = ("pooling_mode", "include_prompt", "pooling_mode_lasttoken", "do_lower_case", "path")
PARTS += ("default_prompt_name", "prompts", "max_seq_length", "model_max_length", "add_bos_token")


@fuzzed(60)
@given(data=st.data(), name=st.sampled_from(sorted(TABLES)))
def test_changed_files_of_sentences(
    copies: dict[str, Path], data: st.DataObject, name: str
) -> None:
    folder = copies["bert/sentences"]
    table = TABLES[name]
    if table is ...:
        table = json.loads((folder / name).read_text("utf-8"))
    changed = data.draw(changed_json(table, names=PARTS))
    with _Changed(folder / name, _dump(changed)), right_or_refused():
        _run(folder, "bert")


@fuzzed(50)
@given(data=st.data())
def test_changed_generation_settings(copies: dict[str, Path], data: st.DataObject) -> None:
    folder = copies["llama/chat"]
    table = {"eos_token_id": [2, 3], "temperature": 0.7, "top_p": 0.9, "top_k": 20}
    table |= {"repetition_penalty": 1.1, "do_sample": True, "bos_token_id": 1}
    names = ("min_p", "max_new_tokens", "max_length", "suppress_tokens", "stop_strings")
    changed = data.draw(changed_json(table, names=names))
    path = folder / "generation_config.json"
    with _Changed(path, _dump(changed)), right_or_refused():
        model = load_model(folder, device=CPU())
        assert isinstance(model.generate("a", max_new_tokens=2, eager=True), str)


def test_the_folders_that_are_changed_are_right(copies: dict[str, Path]) -> None:
    for name, folder in copies.items():
        _run(folder, name.split("/")[0])
    assert np.isfinite(
        load_encoder(copies["bert/sentences"], device=CPU()).embed(["a"], eager=True)
    ).all()
