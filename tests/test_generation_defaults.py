"""generation_config.json: its options hold where a caller gives none, as in transformers."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from pathlib import Path

import pytest

from maxmod import CPU
from maxmod.cli import main
from maxmod.errors import ArgumentError, MaxmodWarning, ModelError, OperandError
from maxmod.generate import generate, generate_batch
from maxmod.generate.defaults import GenerationDefaults
from maxmod.generate.sampling import Sampling
from maxmod.models import LanguageModel, adder_folder, load_model

# As Qwen2.5 and Llama 3.2 have them.
QWEN = {
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "repetition_penalty": 1.1,
    "temperature": 0.7,
    "top_k": 20,
    "top_p": 0.8,
    "transformers_version": "4.37.0",
}
LLAMA = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "_from_model_config": True}


def _sampling(table: dict, greedy: bool = False, **given: float | None) -> Sampling:
    return GenerationDefaults(table, "file").sampling(given, 1, greedy=greedy)


@pytest.mark.parametrize(
    ("table", "given", "wanted"),
    [
        ({}, {}, {}),
        ({}, {"temperature": 0.5}, {"temperature": 0.5}),
        (
            QWEN,
            {},
            {"temperature": 0.7, "top_k": 20, "top_p": 0.8, "repetition_penalty": 1.1},
        ),
        # The library samples from the 50 most likely tokens where the file does not say it.
        (LLAMA, {}, {"temperature": 0.6, "top_k": 50, "top_p": 0.9}),
        ({"do_sample": True}, {}, {"temperature": 1.0, "top_k": 50}),
        ({"do_sample": True, "top_k": None, "top_p": None}, {}, {"temperature": 1.0, "top_k": 50}),
        ({"do_sample": True, "top_k": 0, "min_p": 0.1}, {}, {"temperature": 1.0, "min_p": 0.1}),
        (LLAMA, {"temperature": 0.0, "top_k": 0}, {"temperature": 0.0, "top_p": 0.9}),
        (LLAMA, {"top_p": 1.0, "min_p": 0.2}, {"temperature": 0.6, "top_k": 50, "min_p": 0.2}),
        (LLAMA, {"temperature": None}, {"temperature": 0.6, "top_k": 50, "top_p": 0.9}),
        # Without do_sample, the most likely token is taken unless the caller samples.
        (
            {"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.3},
            {},
            {"repetition_penalty": 1.3},
        ),
        (
            {"do_sample": False, "top_p": 0.9},
            {"temperature": 2.0},
            {"temperature": 2.0, "top_p": 0.9},
        ),
        ({"do_sample": None, "temperature": 5.0}, {"top_k": 3}, {"top_k": 3}),
    ],
    ids=str,
)
def test_options_of_the_file_hold_where_none_are_given(
    table: dict, given: dict, wanted: dict
) -> None:
    assert _sampling(table, **given) == Sampling(**wanted, seed=1)


def test_greedy_leaves_the_file_alone() -> None:
    assert _sampling(QWEN, greedy=True) == Sampling(seed=1)
    assert _sampling(QWEN, greedy=True, repetition_penalty=2.0).repetition_penalty == 2.0
    assert _sampling({"do_sample": 3, "num_beams": 4}, greedy=True) == Sampling(seed=1)
    with pytest.raises(ArgumentError, match="greedy, temperature: expected greedy=True or a temp"):
        _sampling({}, greedy=True, temperature=0.5)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"do_sample": "yes"}, "file: do_sample: expected true or false, got 'yes'"),
        ({**LLAMA, "top_k": -1}, "file: top_k: expected 0 or more, got -1. Hint: give top_k, or"),
        ({**LLAMA, "top_p": 0}, "file: top_p: expected above 0 and at most 1, got 0"),
        ({**LLAMA, "top_k": 2.5}, "file: top_k: expected an int, got 2.5"),
        ({**LLAMA, "temperature": "hot"}, "file: temperature: expected a number, got str"),
        ({"repetition_penalty": -2}, "file: repetition_penalty: expected a finite float32 above"),
    ],
    ids=str,
)
def test_a_file_without_a_meaning_is_refused(table: dict, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        _sampling(table)


def test_a_wrong_field_does_no_harm_where_the_caller_decides() -> None:
    assert _sampling({**LLAMA, "top_k": -1}, top_k=3).top_k == 3


def test_fields_that_are_not_followed_are_named_once() -> None:
    defaults = GenerationDefaults({**LLAMA, "num_beams": 4, "typical_p": 0.9, "novel": "x"}, "f")
    with pytest.warns(MaxmodWarning) as caught:
        defaults.sampling({}, None, greedy=False)
        defaults.sampling({}, None, greedy=False)
    (warning,) = caught
    assert str(warning.message) == (
        "generate: f: it asks for num_beams, typical_p, which maxmod does not have; what novel "
        "would do is not known here: the text may differ from that of other libraries."
    )


def test_fields_that_change_nothing_are_not_named() -> None:
    neutral = {"num_beams": 1, "typical_p": 1.0, "no_repeat_ngram_size": 0, "bad_words_ids": None}
    _sampling({**QWEN, **neutral, "suppress_tokens": [], "guidance_scale": None, "use_cache": True})


# The fields of GenerationConfig in transformers 5.24, with what it takes where they are missing.
LIBRARY: dict[str, object] = {
    **dict.fromkeys(
        [
            "assistant_early_exit",
            "assistant_ensemble_weight",
            "bad_words_ids",
            "begin_suppress_tokens",
            "bos_token_id",
            "cache_config",
            "cache_implementation",
            "compile_config",
            "constraints",
            "continuous_batching_config",
            "decoder_start_token_id",
            "disable_compile",
            "dola_layers",
            "eos_token_id",
            "exponential_decay_length_penalty",
            "force_words_ids",
            "forced_bos_token_id",
            "forced_eos_token_id",
            "guidance_scale",
            "is_assistant",
            "low_memory",
            "max_cache_len",
            "max_length",
            "max_matching_ngram_size",
            "max_new_tokens",
            "max_time",
            "min_new_tokens",
            "min_p",
            "output_attentions",
            "output_hidden_states",
            "output_logits",
            "pad_token_id",
            "penalty_alpha",
            "prefill_chunk_size",
            "prompt_lookup_num_tokens",
            "sequence_bias",
            "speculation_type",
            "stop_strings",
            "suppress_tokens",
            "token_healing",
            "top_h",
            "use_mtp",
            "watermarking_config",
        ]
    ),
    **dict.fromkeys(["num_beams", "num_beam_groups", "num_return_sequences", "temperature"], 1),
    **dict.fromkeys(["encoder_repetition_penalty", "length_penalty", "typical_p", "top_p"], 1.0),
    **dict.fromkeys(["epsilon_cutoff", "eta_cutoff", "diversity_penalty"], 0.0),
    **dict.fromkeys(["min_length", "no_repeat_ngram_size", "encoder_no_repeat_ngram_size"], 0),
    **dict.fromkeys(
        ["do_sample", "early_stopping", "output_scores", "remove_invalid_values"], False
    ),
    **dict.fromkeys(["renormalize_logits", "return_dict_in_generate"], False),
    "assistant_confidence_threshold": 0.4,
    "assistant_lookbehind": 10,
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "repetition_penalty": 1.0,
    "target_lookbehind": 10,
    "top_k": 50,
    "transformers_version": "5.24.0",
    "use_cache": True,
}
# Those that make the library choose other tokens, each with a value that does.
ASKED: dict[str, object] = {
    **{key: [[1]] for key in ("bad_words_ids", "force_words_ids", "sequence_bias")},
    **{key: [1] for key in ("suppress_tokens", "begin_suppress_tokens", "constraints")},
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), 2),
    **dict.fromkeys(("min_length", "min_new_tokens", "no_repeat_ngram_size", "max_time"), 3),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "penalty_alpha", "top_h", "typical_p"), 0.5),
    **dict.fromkeys(("guidance_scale", "encoder_repetition_penalty", "diversity_penalty"), 1.5),
    **dict.fromkeys(("forced_bos_token_id", "forced_eos_token_id"), 0),
    "dola_layers": "high",
    "exponential_decay_length_penalty": [5, 1.5],
    "stop_strings": ["x"],
    "token_healing": True,
    "watermarking_config": {"bias": 2.0},
}


def test_every_field_of_the_library_is_known() -> None:
    _sampling(LIBRARY)
    assert ASKED.keys() < LIBRARY.keys()
    for name, value in ASKED.items():
        with pytest.warns(MaxmodWarning, match=f"file: it asks for {name}, which maxmod does not"):
            _sampling({**LIBRARY, name: value})


def test_the_length_of_the_file_holds() -> None:
    def most(**table: object) -> int | None:
        return GenerationDefaults(table, "file").max_new_tokens(10)

    assert [most(), most(max_new_tokens=5), most(max_length=30)] == [None, 5, 20]
    assert most(max_new_tokens=None, max_length=11) == 1
    with pytest.raises(ModelError, match="max_length: expected more than the 10 tokens of the pro"):
        most(max_length=10)
    with pytest.raises(ModelError, match="file: max_new_tokens: expected 1 or more, got '5'"):
        most(max_new_tokens="5")


# ---- in generation -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("model") / "adder"
    shutil.copytree(adder_folder(), made)
    table = {"do_sample": True, "temperature": 50.0, "max_new_tokens": 3, "eos_token_id": []}
    (made / "generation_config.json").write_text(json.dumps(table), "utf-8")
    return made


@pytest.fixture(scope="module")
def model(folder: Path) -> LanguageModel:
    return load_model(folder, device=CPU())


def test_each_call_gives_another_text_and_a_seed_the_same(model: LanguageModel) -> None:
    texts = {model.generate("123+456=", eager=True) for _ in range(8)}
    assert len(texts) > 2
    assert max(len(text) for text in texts) == 3
    assert len({model.generate("123+456=", eager=True, seed=5) for _ in range(3)}) == 1
    assert model.generate("123+456=", eager=True, greedy=True, max_new_tokens=3) == "579"
    assert model.generate("123+456=", eager=True, temperature=0.0) == "579"
    rows = [model.tokenizer.encode("1+1=")] * 2
    drawn = {str([*generate_batch(model, rows, eager=True)]) for _ in range(6)}
    assert len(drawn) > 2


def test_the_log_says_once_which_options_hold(
    model: LanguageModel, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = dataclasses.replace(model, defaults=GenerationDefaults.read(folder))
    with caplog.at_level(logging.INFO, "maxmod"):
        for _ in range(2):
            next(generate(said, [1], eager=True))
    path = folder / "generation_config.json"
    assert caplog.messages == [
        f"generate: temperature 50, top_k 50, by {path} (greedy=True or --greedy: the most likely "
        "token)"
    ]


def test_the_command_takes_the_options_of_the_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["generate", "--model", str(folder), "--device", "cpu", "--eager", "123+456="]
    arguments += ["--max-new-tokens", "3"]
    assert main([*arguments, "--greedy"]) == 0
    done = capsys.readouterr()
    assert done.out == "579\n" and "seed" not in done.err
    assert main(arguments) == 0
    done = capsys.readouterr()
    seed = done.err.rsplit(", seed ", 1)[1].strip()
    assert main([*arguments, "--seed", seed]) == 0
    assert capsys.readouterr().out == done.out
    assert main([*arguments, "--greedy", "--temperature", "1"]) == 1
    assert "greedy, temperature: expected greedy=True or" in capsys.readouterr().err


def test_options_of_another_name_are_refused_with_a_hint(model: LanguageModel) -> None:
    for name, hint in (
        ("temprature", "Did you mean 'temperature'"),
        ("do_sample", "Hint: temperature=1.0 samples, greedy=True does not"),
        ("max_length", "Hint: max_new_tokens, without the prompt"),
        ("enable_thinking", "a variable of a chat template needs messages"),
    ):
        with pytest.raises(OperandError, match=f"generate: {name!r}: expected an option .*{hint}"):
            model.generate("1+1=", **{name: 1})
