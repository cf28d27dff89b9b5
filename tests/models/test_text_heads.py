"""Text encoders of all families and their heads, against what transformers computed."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from models.folders import ASSETS, HEADS, copy, with_head

from maxmod import CPU, DType, Tensor
from maxmod.cli import main
from maxmod.errors import ArgumentError, MaxmodWarning, ModelError
from maxmod.models import (
    load_classifier,
    load_encoder,
    load_masked_model,
    load_tagger,
)
from maxmod.models.encoders import deberta, mpnet, roberta
from maxmod.models.encoders.heads import WordsAt
from maxmod.models.packing import Packing, pack
from maxmod.models.registry import describe, loader_of
from maxmod.weights import open_checkpoint, save_state

FOLDERS = sorted(path.parent for path in ASSETS.glob("encoders/*/config.json"))
BERT = ASSETS / "encoders" / "bert"
TEXTS = json.loads((BERT / "texts.json").read_text("utf-8"))
RELATIVE = 1e-4  # of the largest number


@functools.cache
def golden(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "golden.npz") as data:
        return dict(data)


def without_heads(folder: Path, target: Path) -> Path:
    made = copy(folder, target / folder.name)
    for extra in HEADS:
        (made / f"{extra}.safetensors").unlink()
    return made


def arrays(folder: Path, model: Any) -> list[Tensor]:
    names = ["tokens", "lengths", *(["types"] if model.config.type_vocab_size > 1 else [])]
    return [Tensor(np.ascontiguousarray(golden(folder)[name]), device=CPU()) for name in names]


def hidden(folder: Path, model: Any) -> Tensor:
    tokens, lengths, *types = arrays(folder, model)
    return model.module(tokens, lengths, **({"types": types[0]} if types else {}))


def close(found: np.ndarray, expected: np.ndarray, relative: float = RELATIVE) -> None:
    atol = relative * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def counted(folder: Path) -> np.ndarray:
    """bool [batch, seq]: the tokens that are no padding."""
    given = golden(folder)
    return np.arange(given["tokens"].shape[1]) < given["lengths"][:, None]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_vectors_and_logits_equal_transformers(folder: Path, tmp_path: Path) -> None:
    expected, kept = golden(folder), counted(folder)
    plain = without_heads(folder, tmp_path)
    options: dict[str, Any] = {"device": CPU(), "dtype": DType.float32}
    encoder = load_encoder(plain, **options)
    close(hidden(folder, encoder).to_numpy()[kept], expected["hidden"][kept])
    classifier = load_classifier(with_head(folder, "sequence", tmp_path), **options)
    close(classifier.module(*arrays(folder, classifier)).to_numpy(), expected["sequence"])
    tagger = load_tagger(with_head(folder, "tokens", tmp_path), **options)
    close(tagger.module(*arrays(folder, tagger)).to_numpy()[kept], expected["labels"][kept])
    masked = load_masked_model(plain, **options)
    tokens, lengths, *types = arrays(folder, masked)
    places = Tensor(np.flatnonzero(kept), device=CPU())
    found = WordsAt(masked.module)(tokens, lengths, places, *types).to_numpy()
    close(found, expected["words"][kept])
    whole = masked.module(*arrays(folder, masked)).to_numpy()
    close(whole[kept], expected["words"][kept])


COMPILED = ("bert", "deberta-v2", "modernbert", "mpnet")  # the others have no op that these lack


@pytest.mark.parametrize("name", COMPILED)
def test_compiled_logits_equal_transformers(name: str, tmp_path: Path) -> None:
    folder = ASSETS / "encoders" / name
    made = with_head(folder, "sequence", tmp_path)
    model = load_classifier(made, device=CPU(), dtype=DType.float32)
    close(model.compiled(*arrays(folder, model)).to_numpy(), golden(folder)["sequence"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_bfloat16_is_within_rounding(folder: Path, tmp_path: Path) -> None:
    model = load_encoder(without_heads(folder, tmp_path), device=CPU())
    assert model.dtype is DType.bfloat16
    found = hidden(folder, model).cast(DType.float32).to_numpy()
    kept, expected = counted(folder), golden(folder)["hidden"]
    error = np.sqrt(np.mean((found - expected)[kept] ** 2)) / np.std(expected[kept])
    assert error < 0.03  # 2^-8 for each of some roundings in turn


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_padding_changes_no_vector(folder: Path, tmp_path: Path) -> None:
    model = load_encoder(without_heads(folder, tmp_path), device=CPU(), dtype=DType.float32)
    given = golden(folder)
    row = given["tokens"][1, : given["lengths"][1]]
    alone = model.module(*(Tensor(x, device=CPU()) for x in (row[None], np.array([len(row)]))))
    padded = np.zeros((1, 20), np.int64)
    padded[0, : len(row)] = row
    both = model.module(*(Tensor(x, device=CPU()) for x in (padded, np.array([len(row)]))))
    close(both.to_numpy()[:, : len(row)], alone.to_numpy(), 1e-5)


def test_a_padding_token_inside_a_text_has_no_position(tmp_path: Path) -> None:
    """As in RoBERTa of transformers, which counts the tokens before that are no padding."""
    folder = without_heads(ASSETS / "encoders" / "roberta", tmp_path)
    model = load_encoder(folder, device=CPU(), dtype=DType.float32)
    tokens = Tensor(np.array([[5, 1, 6, 1, 7]]), device=CPU())
    assert model.module.places(tokens, None).to_numpy().tolist() == [[2, 1, 3, 1, 4]]


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_vectors_of_a_batch_equal_vectors_of_single_texts(folder: Path, tmp_path: Path) -> None:
    """Packed or padded; the mean of what transformers computed for the tokens of a text."""
    model = load_encoder(without_heads(folder, tmp_path), device=CPU(), dtype=DType.float32)
    given = golden(folder)
    rows = [row[:length] for row, length in zip(given["tokens"], given["lengths"])]
    expected = [hidden[: len(row)].mean(0) for hidden, row in zip(given["hidden"], rows)]
    if model.config.type_vocab_size > 1:  # other than those with two types
        expected = [model.embed_tokens([row], eager=True)[0] for row in rows]
    close(model.embed_tokens(rows, eager=True), np.array(expected), 1e-5)


NOMIC = {  # the fields of config.json that the first code of NomicBERT has
    "n_embd": 16,
    "n_head": 2,
    "n_inner": 24,
    "n_layer": 2,
    "n_positions": 8192,
    "max_trained_positions": 24,
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-12,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_scaling_factor": None,
    "qkv_proj_bias": False,
    "prenorm": False,
    "use_flash_attn": True,
    "auto_map": {
        "AutoConfig": "nomic-ai/nomic-bert-2048--configuration_hf_nomic_bert.NomicBertConfig",
        "AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel",
    },
}


def _with_older_config(target: Path, **changes: object) -> Path:
    folder = without_heads(ASSETS / "encoders" / "nomic_bert", target)
    table = {"model_type": "nomic_bert", "vocab_size": 40, "type_vocab_size": 2, **NOMIC, **changes}
    (folder / "config.json").write_text(json.dumps(table), "utf-8")
    return folder


def test_nomic_bert_with_the_fields_of_older_code(tmp_path: Path) -> None:
    model = load_encoder(
        _with_older_config(tmp_path), device=CPU(), dtype=DType.float32, strict_config=True
    )
    folder = ASSETS / "encoders" / "nomic_bert"
    assert model.config.max_positions == 24
    kept = counted(folder)
    close(hidden(folder, model).to_numpy()[kept], golden(folder)["hidden"][kept])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rotary_emb_fraction": 0.5}, "'rotary_emb_fraction': .*expected null or 1, got 0.5"),
        ({"prenorm": True}, "'prenorm': .*expected null or false, got true"),
        ({"num_experts": 8}, "'num_experts': models with this field are not supported"),
        ({"activation_function": "gelu"}, '\'activation_function\': .*or "swiglu", got "gelu"'),
        (
            {"auto_map": {"AutoModel": "other/code--file.OtherModel"}},
            "'auto_map': .*defined by code",
        ),
    ],
)
def test_other_kinds_of_nomic_bert_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    _refused(load_encoder, _with_older_config(tmp_path, **changes), message)


# ---- distances -----------------------------------------------------------------------------------


def test_buckets_of_distances_of_mpnet() -> None:
    """Near ones have their own, 8 to 127 share 8 on a logarithmic scale; later keys are apart."""
    found = mpnet.distance_buckets(300, 32)
    assert found[299] == 0
    assert found[299 - 7 : 299].tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert found[300:307].tolist() == [17, 18, 19, 20, 21, 22, 23]
    starts = [8, 12, 16, 23, 32, 46, 64, 91]  # 8 * 16^(n / 8), rounded up
    assert [int(found[299 - start]) for start in starts] == list(range(8, 16))
    assert [int(found[299 - start + 1]) for start in starts] == list(range(7, 15))
    assert found[0] == 15 and found[-1] == 31


def test_buckets_of_distances_of_deberta() -> None:
    distance = np.arange(-511, 512)
    found = deberta.log_buckets(distance, 256, 512)
    assert (found[383:640] == distance[383:640]).all()  # up to half the buckets
    assert (found == -found[::-1]).all()
    assert (np.diff(found) >= 0).all()
    exact = np.ceil(np.log(300 / 128) / np.log(511 / 128) * 127) + 128
    assert found[511 + 300] == exact
    assert found[-1] == 255


# ---- texts ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def text_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    target = tmp_path_factory.mktemp("heads")
    made = {head: with_head(BERT, head, target) for head in HEADS}
    return made | {"words": without_heads(BERT, target)}


def test_classes_of_texts_and_pairs(text_folders: dict[str, Path]) -> None:
    model = load_classifier(text_folders["sequence"], device=CPU(), dtype=DType.float32)
    texts = [*TEXTS["texts"], *map(tuple, TEXTS["pairs"])]
    assert model.labels == ["bad", "so so", "good"]
    found = model.classify(texts, batch_size=4)
    for row, expected in zip(found, TEXTS["classes"], strict=True):
        assert [label for label, _ in row] == [entry["label"] for entry in expected]
        np.testing.assert_allclose(
            [score for _, score in row], [entry["score"] for entry in expected], atol=1e-5
        )
    assert [len(row) for row in model.classify(texts[:2], top=1, eager=True)] == [1, 1]
    assert model.classify([]) == []
    assert model.logits(texts).shape == (6, 3)


@pytest.mark.parametrize("merge", ["none", "simple", "first"])
def test_tags(text_folders: dict[str, Path], merge: str) -> None:
    model = load_tagger(text_folders["tokens"], device=CPU(), dtype=DType.float32)
    every = model.tag(TEXTS["texts"], merge=merge, ignore=(), eager=True)
    for text, row, expected in zip(TEXTS["texts"], every, TEXTS[merge], strict=True):
        shown = [(tag.label, tag.start, tag.end) for tag in row if tag.label != "O"]
        assert shown == [(e["label"], e["start"], e["end"]) for e in expected if e["label"] != "O"]
        scores = [tag.score for tag in row if tag.label != "O"]
        wanted = [entry["score"] for entry in expected if entry["label"] != "O"]
        np.testing.assert_allclose(scores, wanted, atol=1e-5)
        assert all(tag.text == text[tag.start : tag.end] for tag in row)
    kept = model.tag(TEXTS["texts"], merge=merge, eager=True)
    assert {tag.label for row in kept for tag in row} == {"PER", "LOC"} or merge == "none"


def test_masked_words(text_folders: dict[str, Path]) -> None:
    model = load_masked_model(text_folders["words"], device=CPU(), dtype=DType.float32)
    assert model.mask == "[MASK]"
    one, two = model.fill(TEXTS["masked"], top=3)
    expected_one, expected_two = TEXTS["fills"]
    for found, expected in zip([*one, *two], [expected_one, *expected_two], strict=True):
        assert [word.token for word in found] == [entry["token"] for entry in expected]
        assert [word.text for word in found] == [entry["token_str"] for entry in expected]
        np.testing.assert_allclose(
            [word.score for word in found], [entry["score"] for entry in expected], atol=1e-5
        )
    with pytest.raises(ArgumentError, match=r"text 1 has no mask: expected '\[MASK\]' in it"):
        model.fill([TEXTS["masked"][0], "no mask"])


def test_long_texts_are_cut_as_a_tokenizer_cuts_the_longest_first(tmp_path: Path) -> None:
    model = load_classifier(with_head(BERT, "sequence", tmp_path), device=CPU())
    long, short = "cat " * 30, "dog"
    with pytest.warns(MaxmodWarning, match="text 0 is too long: expected at most 20 tokens"):
        model.logits([long], eager=True)
    model.logits([long], eager=True)  # told once
    pair = model.inputs.encode("logits", [(long, short)], True)[0]
    cat, dog = (model.tokenizer.encode(word, special=False)[0] for word in ("cat", "dog"))
    assert (len(pair.tokens), pair.tokens.count(cat), pair.tokens.count(dog)) == (20, 16, 1)
    both = model.inputs.encode("logits", [(long, "dog " * 30)], True)[0]
    assert (both.tokens.count(cat), both.tokens.count(dog)) == (8, 9)
    assert both.types == [0] * 10 + [1] * 10
    with pytest.raises(ArgumentError, match="text 0 is too long: expected at most 20 tokens"):
        model.classify([long], truncate=False)


# ---- ranking -------------------------------------------------------------------------------------


def test_ranks_of_a_cross_encoder(tmp_path: Path) -> None:
    folder = with_head(BERT, "sequence", tmp_path, id2label={"0": "LABEL_0"})
    path = folder / "model.safetensors"
    with open_checkpoint(path) as checkpoint:
        state = dict(checkpoint.items())
    save_state({n: t[:1] if n.startswith("classifier.") else t for n, t in state.items()}, path)
    model = load_classifier(folder, device=CPU(), dtype=DType.float32)
    texts = TEXTS["texts"]
    numbers = model.logits([("is it raining", text) for text in texts], eager=True)[:, 0]
    order = np.argsort(-numbers).tolist()
    found = model.rank("is it raining", texts, eager=True)
    assert [place for place, _ in found] == order
    chances = 1 / (1 + np.exp(-numbers.astype(np.float64)))
    np.testing.assert_allclose([score for _, score in found], chances[order], rtol=1e-5)
    assert model.rank("is it raining", texts, top=2, eager=True) == found[:2]
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for extra in (
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity"}},
    ):
        (folder / "config.json").write_text(json.dumps(config | extra), "utf-8")
        model = load_classifier(folder, device=CPU(), dtype=DType.float32)
        scores = [score for _, score in model.rank("is it raining", texts, eager=True)]
        np.testing.assert_allclose(scores, numbers[order], rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "softmax"),
        ({"problem_type": "single_label_classification"}, "softmax"),
        ({"problem_type": "multi_label_classification"}, "sigmoid"),
        ({"problem_type": "regression"}, "identity"),
    ],
)
def test_scores_follow_the_problem_type(tmp_path: Path, changes: dict, expected: str) -> None:
    model = load_classifier(with_head(BERT, "sequence", tmp_path, **changes), device=CPU())
    logits = model.logits(["a cat"], eager=True)[0].astype(np.float64)
    wanted = {
        "softmax": np.exp(logits) / np.exp(logits).sum(),
        "sigmoid": 1 / (1 + np.exp(-logits)),
        "identity": logits,
    }[expected]
    found = dict(model.classify(["a cat"], eager=True)[0])
    np.testing.assert_allclose([found[label] for label in model.labels], wanted, rtol=1e-5)


# ---- the commands ----------------------------------------------------------------------------


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in (*arguments, "--eager", "--dtype", "float32")])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_commands(text_folders: dict[str, Path], capsys: pytest.CaptureFixture[str]) -> None:
    sequence, words = text_folders["sequence"], text_folders["words"]
    code, out, err = _run(capsys, "classify", *TEXTS["texts"][:2], "--model", sequence, "--top", 1)
    best = [f"{text}:\n0.{digits}  bad\n" for text, digits in zip(TEXTS["texts"], (4310, 4985))]
    assert (code, out) == (0, "".join(best))
    assert "2 texts in" in err and "3 labels, cpu:0 float32" in err
    first, second = TEXTS["pairs"][0]
    _, out, _ = _run(capsys, "classify", first, "--pair", second, "--model", sequence)
    expected = [f"{entry['score']:.4f}  {entry['label']}" for entry in TEXTS["classes"][4]]
    assert out.splitlines() == expected
    _, out, _ = _run(capsys, "tag", *TEXTS["texts"], "--model", text_folders["tokens"])
    rows = [json.loads(line) for line in out.splitlines()]
    shown = [[entry["label"] for entry in row if entry["label"] != "O"] for row in TEXTS["simple"]]
    assert [[entry["label"] for entry in row] for row in rows] == shown
    query, *others = TEXTS["texts"]
    _, out, _ = _run(capsys, "rank", query, *others, query, "--model", words, "--top", 1)
    assert out == f"1.0000  {query}\n"


@pytest.mark.parametrize(
    ("command", "head", "message"),
    [
        ("classify", "words", "ends with SequenceClassification, .* Hint: load_masked_model reads"),
        ("classify", "tokens", "ends with SequenceClassification, .* Hint: load_tagger reads it"),
        ("tag", "sequence", "ends with TokenClassification, .* Hint: load_classifier reads it"),
    ],
)
def test_commands_name_the_head_of_a_folder(
    text_folders: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    command: str,
    head: str,
    message: str,
) -> None:
    code, out, err = _run(capsys, command, "a", "--model", text_folders[head])
    assert (code != 0, out) == (True, "")
    assert re.search(message, err)


# ---- refusals ------------------------------------------------------------------------------------


def _refused(load: Callable[..., Any], folder: Path, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load(folder, device=CPU())


def test_folders_with_another_head_are_refused(tmp_path: Path) -> None:
    sequence = with_head(BERT, "sequence", tmp_path)
    assert loader_of(sequence) is load_classifier
    assert describe(sequence) == "bert, read by load_classifier"
    _refused(load_tagger, sequence, "'architectures': the model has no such head.*ForTokenClass|To")
    tagged = with_head(BERT, "tokens", tmp_path)
    assert loader_of(tagged) is load_tagger
    _refused(load_classifier, tagged, "expected a class that ends with SequenceClassification")
    assert loader_of(without_heads(BERT, tmp_path)) is load_encoder


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id2label": {"1": "a"}}, 'id2label: expected strings under "0"'),
        ({"problem_type": "x"}, "problem_type: expected one of regression, multi_label"),
        ({"num_labels": 0, "id2label": None}, "num_labels: expected 1 to"),
        (
            {"sbert_ce_default_activation_function": "torch.nn.Tanh"},
            "activation_fn: expected one of .*Identity, got 'torch.nn.Tanh'",
        ),
    ],
)
def test_malformed_labels_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    _refused(load_classifier, with_head(BERT, "sequence", tmp_path, **changes), message)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one", "classify: texts: expected a list of str or of pairs, got str"),
        ([3], "classify: text 0: expected a str or a pair of them, got 3"),
        ([("a", "b", "c")], "classify: text 0: expected a str or a pair of them"),
        ([("a", 3)], "classify: text 0: expected a str or a pair of them"),
    ],
)
def test_malformed_texts_are_refused(
    text_folders: dict[str, Path], texts: Any, message: str
) -> None:
    model = load_classifier(text_folders["sequence"], device=CPU())
    with pytest.raises(ArgumentError, match=message):
        model.classify(texts)


def test_malformed_arguments_are_refused(text_folders: dict[str, Path]) -> None:
    model = load_classifier(text_folders["sequence"], device=CPU())
    with pytest.raises(ArgumentError, match="top: expected 1 or more, got 0"):
        model.classify(["a"], top=0)
    with pytest.raises(ArgumentError, match="batch_size: expected 1 or more, got 0"):
        model.classify(["a"], batch_size=0)
    with pytest.raises(ModelError, match="rank: .*expected a model with one label, got 3"):
        model.rank("a", ["b"])
    tagger = load_tagger(text_folders["tokens"], device=CPU())
    with pytest.raises(ArgumentError, match="merge: expected none, simple or first, got 'max'"):
        tagger.tag(["a"], merge="max")
    with pytest.raises(ArgumentError, match="text 0: expected a str"):
        tagger.tag([("a", "b")])  # type: ignore[list-item]


def test_a_masked_model_with_an_untied_map_is_refused(tmp_path: Path) -> None:
    folder = copy(BERT, tmp_path / "model", tie_word_embeddings=False)
    _refused(load_masked_model, folder, "'tie_word_embeddings': .*expected true, got false")


def test_a_padding_token_in_packed_texts_has_no_position() -> None:
    tokens = Tensor(np.array([[5, 1, 6, 7, 1, 8]]), device=CPU())
    _, _, *packed = pack([[5, 1, 6], [7, 1, 8]])
    packing = Packing(*(Tensor(array, device=CPU()) for array in packed))
    found = roberta.places_after_padding(tokens, 1, packing).to_numpy()
    assert found.tolist() == [[2, 1, 3, 2, 1, 3]]


def test_ranks_of_vectors(text_folders: dict[str, Path]) -> None:
    model = load_encoder(text_folders["words"], device=CPU(), dtype=DType.float32)
    vectors = model.embed([TEXTS["texts"][1], *TEXTS["texts"]], eager=True).astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    found = model.rank(TEXTS["texts"][1], TEXTS["texts"], eager=True)
    assert found[0][0] == 1
    np.testing.assert_allclose(
        [score for _, score in found], np.sort(vectors[1:] @ vectors[0])[::-1], rtol=1e-5
    )
    assert len(model.rank("a cat", TEXTS["texts"], top=2, eager=True)) == 2
    with pytest.raises(ArgumentError, match="rank: top: expected 1 or more, got 0"):
        model.rank("a", ["b"], top=0)
    with pytest.raises(ArgumentError, match="rank: query: expected a str, got int"):
        model.rank(3, ["b"])  # type: ignore[arg-type]
