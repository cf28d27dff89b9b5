"""Pooling, prompts, case and length of sentence encoders, against sentence-transformers."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from models.sentence_cases import (
    CASES,
    FOLDER,
    POOLING,
    PROMPTS,
    RULES,
    TEXTS,
    VECTORS,
    Case,
    flags,
    make_folder,
    modules,
)

from maxmod import CPU, DType, MaxmodWarning
from maxmod.cli import main
from maxmod.errors import ModelError, SliceError
from maxmod.models import load_encoder
from maxmod.models.encoder import TextEncoder


def _load(case: Case, tmp_path: Path) -> TextEncoder:
    return load_encoder(make_folder(case, tmp_path / "model"), device=CPU(), dtype=DType.float32)


@pytest.fixture(scope="module")
def vectors() -> dict[str, np.ndarray]:
    with np.load(VECTORS) as data:
        return dict(data)


@pytest.mark.parametrize("name", CASES)
def test_vectors(name: str, tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    case = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MaxmodWarning)  # has a test of its own
        model = _load(case, tmp_path)
    found = model.embed(TEXTS, truncate=True, eager=True, **case.arguments)
    np.testing.assert_allclose(found, vectors[name], rtol=0, atol=2e-5)


def test_cases_differ(vectors: dict[str, np.ndarray]) -> None:
    """What a case changes can be seen, but for those that say the same in two ways."""
    same = {"no flag", "no prompt", "null prompt", "without a prompt", "lower case", "no length"}
    same |= {"named mode", *(name for name in CASES if name.startswith("flag mean_sqrt"))}
    same |= {"mean_sqrt_len_tokens without the prompt"}  # a factor, which Normalize takes away
    kept = {name: value for name, value in vectors.items() if name not in same}
    for name, value in kept.items():
        shaped = [other for other, theirs in kept.items() if theirs.shape == value.shape]
        assert [n for n in shaped if np.allclose(kept[n], value, atol=1e-4)] == [name]


def test_all_modes_compiled(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    model = _load(CASES["all flags"], tmp_path)
    for batch_size in (1, 4):
        found = model.embed(TEXTS, truncate=True, batch_size=batch_size)
        np.testing.assert_allclose(found, vectors["all flags"], rtol=0, atol=2e-5)
    assert model.embed([]).shape == (0, 24 * 6)


def test_a_prompt_is_left_out_compiled(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    name = "max_tokens without the prompt"
    model = _load(CASES[name], tmp_path)
    found = model.embed(TEXTS, truncate=True, prompt_name="query")
    np.testing.assert_allclose(found, vectors[name], rtol=0, atol=2e-5)


def test_folders_saved_by_version_6(tmp_path: Path, vectors: dict[str, np.ndarray]) -> None:
    """What `save` of sentence-transformers 6.2 writes for the case "default prompt"."""
    base, rooms = "sentence_transformers.base.modules", "sentence_transformers.sentence_transformer"
    types = [f"{base}.transformer.Transformer", f"{rooms}.modules.pooling.Pooling"]
    types += [f"{base}.normalize.Normalize"]
    same = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    files = {
        "modules.json": [
            part | {"type": kind}
            for part, kind in zip(modules("Transformer", "Pooling", "Normalize"), types)
        ],
        POOLING: {"embedding_dimension": 24, "pooling_mode": "mean", "include_prompt": True},
        "2_Normalize/config.json": same,
        RULES: {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": text},
            "module_output_name": "token_embeddings",
        },
        PROMPTS: {
            "__version__": {"sentence_transformers": "6.2.0"},
            "default_prompt_name": "passage",
            "model_type": "SentenceTransformer",
            "prompts": {"document": "", "passage": "rain: ", "query": "Is it the sun? "},
            "similarity_fn_name": "cosine",
        },
        "tokenizer_config.json": {"model_max_length": 16, "tokenizer_class": "TokenizersBackend"},
    }
    found = _load(Case(files), tmp_path).embed(TEXTS, truncate=True, eager=True)
    np.testing.assert_allclose(found, vectors["default prompt"], rtol=0, atol=2e-5)


# ---- prompts -------------------------------------------------------------------------------------


def test_wrong_prompts_are_refused(tmp_path: Path) -> None:
    model = _load(CASES["named prompt"], tmp_path)
    assert model.prompts == {"query": "Is it the sun? ", "passage": "rain: "}
    for arguments, message in (
        ({"prompt_name": "qeury"}, r"expected 'query', 'passage', got 'qeury'\. Did you mean 'q"),
        ({"prompt_name": "query", "prompt": ""}, "expected prompt_name or prompt, got both"),
        ({"prompt": 3}, "prompt: expected a str, got int"),
        ({"prompt_name": 3}, "expected 'query', 'passage', got 3"),
        ({"prompt_name": ["query"]}, r"expected 'query', 'passage', got \['query'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            model.embed(TEXTS, **arguments)
    with pytest.raises(ValueError, match="expected no name, as the folder has no prompts, got 'q"):
        load_encoder(FOLDER, device=CPU()).embed(TEXTS, prompt_name="query")


def test_a_prompt_without_room_for_a_text_is_refused(tmp_path: Path) -> None:
    model = _load(Case({POOLING: flags("mean_tokens", include_prompt=False)}), tmp_path)
    with pytest.raises(ValueError, match="prompt is too long: expected fewer than 16 tokens with"):
        model.embed(["cat"], prompt="cat " * 14)
    assert np.isfinite(model.embed(["cat"], prompt="cat " * 13, truncate=True, eager=True)).all()


# ---- length --------------------------------------------------------------------------------------

LONG = "the cat " * 8


def test_long_texts_are_cut_with_one_warning(tmp_path: Path) -> None:
    model = load_encoder(FOLDER, device=CPU(), dtype=DType.float32)
    with pytest.warns(MaxmodWarning) as caught:
        found = model.embed(["cat", LONG, LONG + "dog"], eager=True)
        model.embed([LONG], eager=True)
    (warning,) = caught
    assert "text 1 is too long: expected at most 16 tokens, got 18" in str(warning.message)
    assert warning.filename == __file__
    np.testing.assert_array_equal(
        found, model.embed(["cat", LONG, LONG], truncate=True, eager=True)
    )
    with pytest.raises(ValueError, match="text 1 is too long: expected at most 16 tokens, got 18"):
        model.embed(["cat", LONG], truncate=False)


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("texts", [None, 3, b"ab", {"a"}, {"a": 1}, np.array("a")])
def test_texts_that_are_not_a_list_are_refused(texts: object) -> None:
    with pytest.raises(ValueError, match="texts: expected a list of str, got"):
        load_encoder(FOLDER, device=CPU()).embed(texts)


def test_texts_in_other_containers() -> None:
    model = load_encoder(FOLDER, device=CPU(), dtype=DType.float32)
    expected = model.embed(TEXTS[:3], eager=True)
    for texts in (tuple(TEXTS[:3]), np.array(TEXTS[:3]), iter(TEXTS[:3])):
        np.testing.assert_array_equal(model.embed(texts, eager=True), expected)


def test_a_text_of_another_type_is_refused() -> None:
    with pytest.raises(ValueError, match=r"text 1: expected a str, got NoneType"):
        load_encoder(FOLDER, device=CPU()).embed(["a", None])


def test_a_token_that_only_the_tokenizer_knows_is_refused(tmp_path: Path) -> None:
    table = json.loads((FOLDER / "tokenizer.json").read_text("utf-8"))
    flags = dict.fromkeys(["single_word", "lstrip", "rstrip", "normalized", "special"], False)
    table["added_tokens"].append({"id": 75, "content": "<new>", **flags})
    model = _load(Case({"tokenizer.json": table}), tmp_path)
    with pytest.raises(SliceError, match="token 75 at position 2 is not in the vocabulary: expec"):
        model.embed(["a <new> cat"])


# ---- folders that are refused --------------------------------------------------------------------

FOREIGN = [{"type": "custom_st.Transformer", "path": ""}]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("modules.json", [], "expected a Transformer, then a Pooling, got nothing"),
        ("modules.json", modules("Transformer"), "then a Pooling, got Transformer"),
        ("modules.json", modules("Pooling", "Transformer"), "got Pooling, Transformer"),
        ("modules.json", modules("Transformer", "Normalize", "Pooling"), "a Pooling before Norm"),
        ("modules.json", FOREIGN, "unknown part: .*got 'custom_st.Transformer'"),
        (
            "modules.json",
            modules("Transformer", "Pooling", paths={0: "0_Transformer"}),
            "the model is in the folder '0_Transformer'.*Hint: move the files",
        ),
        (POOLING, {"pooling_mode": []}, r"pooling_mode: expected one of 'cls', .*got \[\]"),
        (POOLING, {"pooling_mode": ["cls", "all"]}, "pooling_mode: expected one of 'cls'"),
        (POOLING, {"pooling_mode": 3}, "pooling_mode: expected one of 'cls'"),
        (POOLING, {"pooling_mode_first": True}, "pooling_mode_first: expected one of pooling_mod"),
        (POOLING, {"include_prompt": 1}, "include_prompt: expected true or false, got 1"),
        ("2_Normalize/config.json", {"module_input_name": "x"}, "module_input_name: expected 'sen"),
        (RULES, {"do_lower_case": 1}, "do_lower_case: expected true or false, got 1"),
        (RULES, {"max_seq_length": 1}, "max_seq_length: expected 2 or more, got 1"),
        (RULES, {"max_seq_length": True}, "max_seq_length: expected 2 or more, got True"),
        (RULES, {"transformer_task": "fill-mask"}, "transformer_task: expected 'feature-extrac"),
        (
            RULES,
            {"modality_config": {"text": {"method_output_name": "pooler_output"}}},
            "method_output_name: expected 'last_hidden_state', got 'pooler_output'",
        ),
        ("tokenizer_config.json", {"truncation_side": "up"}, "truncation_side: expected 'left' or"),
        (PROMPTS, {"prompts": []}, "prompts: expected names with texts"),
        (PROMPTS, {"prompts": {"a": 1}}, "prompts: expected names with texts"),
        (PROMPTS, {"default_prompt_name": "a"}, "default_prompt_name: expected no name, .*got 'a'"),
        (PROMPTS, {"default_prompt_name": []}, r"default_prompt_name: expected no name.*got \[\]"),
    ],
)
def test_refused_parts(tmp_path: Path, file: str, content: object, message: str) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        _load(Case({file: content}), tmp_path)
    assert str(tmp_path / "model") in str(caught.value)


def test_a_length_of_the_tokenizer_that_is_not_a_number_is_refused(tmp_path: Path) -> None:
    for wrong in ("7", True, 1, float("nan")):
        files = {RULES: {}, "tokenizer_config.json": {"model_max_length": wrong}}
        with pytest.raises(ModelError, match="model_max_length: expected 2 or more, got"):
            _load(Case(files), tmp_path / str(wrong))


def test_two_poolings_give_a_warning(tmp_path: Path) -> None:
    with pytest.warns(MaxmodWarning, match="two Pooling parts: mean, then cls. The last one makes"):
        _load(CASES["two poolings"], tmp_path)


# ---- the command ---------------------------------------------------------------------------------


def test_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], vectors: dict[str, np.ndarray]
) -> None:
    folder = make_folder(CASES["named prompt"], tmp_path / "model")
    arguments = [
        "embed",
        "--model",
        str(folder),
        "--device",
        "cpu",
        "--dtype",
        "float32",
        "--eager",
    ]

    def embed(*more: str) -> np.ndarray:
        assert main([*arguments, *more, *TEXTS]) == 0
        return np.array([json.loads(line) for line in capsys.readouterr().out.splitlines()])

    for options, name in (
        (("--prompt-name", "query"), "named prompt"),
        (("--prompt", "The dog: "), "prompt"),
    ):
        found = embed("--truncate", *options)
        np.testing.assert_allclose(found, vectors[name], rtol=0, atol=2e-5)
    assert main([*arguments, "--no-truncate", *TEXTS]) == 1
    assert "text 3 is too long" in capsys.readouterr().err
    assert main([*arguments, *TEXTS]) == 0
    assert "maxmod: note: embed: text 3 is too long" in capsys.readouterr().err
    assert main([*arguments, "--prompt-name", "none", *TEXTS]) == 1
    assert "prompt_name: expected 'query', 'passage', got 'none'" in capsys.readouterr().err
