"""What each field of config.json does: used, neutral, refused by name, or unknown and told."""

from __future__ import annotations

import dataclasses
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from models.folders import ASSETS, GPT2, LLAMA, copy
from models.folders import DECODERS as MORE_DECODERS

from maxmod import CPU
from maxmod.errors import MaxmodWarning, ModelError
from maxmod.models import adder_folder, load_encoder, load_model, load_vision_model
from maxmod.models.config import from_table
from maxmod.models.config_fields import CONFIG, KnownFields
from maxmod.models.registry import KINDS, describe
from maxmod.models.text_part import PARTS

# Fields of transformers' configuration classes; see its entry "source".
FIELDS = json.loads((ASSETS / "config_fields.json").read_text("utf-8"))
ARCHITECTURES = {name: a for kinds in KINDS.values() for name, a in kinds.items()}
DECODERS = {name: ASSETS / "llama" / name for name in ("mistral", "qwen2", "qwen3", "gemma2")}
DECODERS |= {"llama": ASSETS / "llama/llama2", "gemma": ASSETS / "llama/gemma"}
DECODERS |= {"gemma3_text": ASSETS / "llama/gemma3", "gpt2": ASSETS / "gpt2/tied"}
MORE = {path.name: path for path in MORE_DECODERS} | {"gpt_neox": ASSETS / "decoders/pythia"}
ENCODERS = {path.name: path for path in (ASSETS / "encoders").iterdir()}
BERT, VIT = ASSETS / "bert/sentences", ASSETS / "vit/classifier"


def config_of(folder: Path, **changes: object) -> object:
    """The configuration of a folder with other fields; nothing else of it is read."""
    table = json.loads((folder / "config.json").read_text("utf-8")) | changes
    name = table["model_type"]
    fields = {**ARCHITECTURES[name].defaults, **table}
    return from_table(ARCHITECTURES[name].config, fields, "here", known=CONFIG[name])


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - PARTS))
def test_every_field_of_the_classes_of_transformers_is_known(name: str) -> None:
    used = {field.name for field in dataclasses.fields(ARCHITECTURES[name].config)}
    known = CONFIG[name]
    ours = used | known.neutral | known.changing.keys() | known.aliases.keys() | {"architectures"}
    assert set(FIELDS["all"] + FIELDS[name]) - ours == set()


@pytest.mark.parametrize(
    "folder",
    [*GPT2, *LLAMA, *MORE.values(), *ENCODERS.values(), BERT, VIT, adder_folder()],
    ids=lambda f: f.name,
)
def test_folders_of_transformers_give_no_warning(folder: Path) -> None:
    config_of(folder)  # a warning would be an error


@pytest.mark.parametrize(
    "extra",
    [
        {"use_mrope": False, "is_causal": True, "unsloth_version": "2025.1", "unsloth_fixed": True},
        {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"a": 1}},
        {"max_sequence_length": 2048, "tokenizer_padding_side": "right", "_name_or_path": "/tmp"},
        {"architectures": None, "neftune_noise_alpha": 5, "pretraining_tp": 1, "temperature": 0.6},
        {"auto_map": None, "quantization_config": None, "max_length": 20, "torch_dtype": "a"},
        {"auto_map": {"AutoTokenizer": ["tokenization_yi.YiTokenizer", None]}},
    ],
    ids=str,
)
def test_extras_of_public_folders_are_neutral(extra: dict[str, object]) -> None:
    for folder in DECODERS.values():
        assert config_of(folder, **extra) == config_of(folder)


@pytest.mark.parametrize("name", sorted(DECODERS))
def test_bidirectional_decoders_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=r"'is_causal': .*: expected null or true, got false"):
        config_of(DECODERS[name], is_causal=False)
    config_of(BERT, is_causal=False)
    with pytest.raises(ModelError, match=r"'is_causal': .*: expected null or false, got true"):
        config_of(BERT, is_causal=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alibi", True),
        ("attention_multiplier", 0.1),
        ("per_layer_config", {"0": {"head_dim": 8}}),
        ("partial_rotary_factor", 0.5),
        ("quantization", {"bits": 4}),
        ("use_parallel_residual", True),
        ("rope_interleaved", True),
        ("num_experts", 8),
        ("use_mrope", True),
    ],
)
def test_fields_that_change_results_are_refused(field: str, value: object) -> None:
    for folder in DECODERS.values():
        with pytest.raises(ModelError, match=f"here: '{field}': models with this field are not"):
            config_of(folder, **{field: value})


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("llama", "sliding_window", 8),
        ("llama", "use_sliding_window", True),
        ("gemma", "sliding_window", 8),
        ("gemma", "query_pre_attn_scalar", 8),
        ("gemma", "attn_logit_softcapping", 50.0),
        ("gemma", "final_logit_softcapping", 30.0),
        ("gemma2", "rope_local_base_freq", 9.0),
        ("llama", "dual_chunk_attention_config", {"chunk_size": 8, "local_size": 2}),
        ("gpt2", "rope_scaling", {"type": "linear", "factor": 2.0}),
    ],
)
def test_fields_of_other_architectures_are_refused(name: str, field: str, value: object) -> None:
    with pytest.raises(ModelError, match=f"'{field}': models with this field are not supported"):
        config_of(DECODERS[name], **{field: value})


def test_field_that_transformers_has_and_does_not_apply() -> None:
    """Gemma3TextConfig has attn_logit_softcapping; the code of the model leaves it alone."""
    folder = DECODERS["gemma3_text"]
    assert config_of(folder, attn_logit_softcapping=50.0) == config_of(folder)


def test_layers_of_a_kind_the_model_does_not_have() -> None:
    config_of(DECODERS["llama"], layer_types=["full_attention"] * 2, num_hidden_layers=2)
    config_of(DECODERS["mistral"], layer_types=["sliding_attention"] * 2, num_hidden_layers=2)
    for name in ("llama", "gemma"):
        with pytest.raises(ModelError, match="layer_types: expected 2 times one of full_"):
            changes = {"layer_types": ["sliding_attention"] * 2, "num_hidden_layers": 2}
            config_of(DECODERS[name], **changes)
    for wrong in (["full_attention"], [[]] * 2, [None] * 2):
        with pytest.raises(ModelError, match="layer_types: expected 2 times one of"):
            config_of(DECODERS["qwen2"], layer_types=wrong, num_hidden_layers=2)


def test_dual_chunk_attention_ends_with_the_first_chunk() -> None:
    """Up to there it is the usual attention: arXiv 2402.17463, section 3."""
    chunks = {"chunk_size": 24, "local_size": 8, "original_max_position_embeddings": 24}
    config = config_of(DECODERS["qwen2"], dual_chunk_attention_config=chunks)
    assert config.max_positions == 16  # type: ignore[attr-defined]
    for wrong in ({}, {"chunk_size": "a", "local_size": 1}, {"chunk_size": 8, "local_size": 8}):
        with pytest.raises(ModelError, match="dual_chunk_attention_config: expected chunk_size"):
            config_of(DECODERS["qwen2"], dual_chunk_attention_config=wrong)


# ---- beyond --------------------------------------------------------------------------------------


def test_unknown_fields_are_one_warning(tmp_path: Path) -> None:
    folder = copy(DECODERS["llama"], tmp_path / "m", use_fancy_rope=True, another=[1])
    message = (
        "config.json: nobody here knows the field 'use_fancy_rope', the field 'another': whether "
        r"that changes what is computed is not known, and it is ignored\. Hint: strict_config=True"
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = load_model(folder, device=CPU())
    assert [(w.category, w.filename) for w in caught] == [(MaxmodWarning, __file__)]
    with pytest.warns(MaxmodWarning, match=message):
        load_model(folder, device=CPU())
    plain = load_model(DECODERS["llama"], device=CPU())
    tokens = [[1, 2, 3]]
    found, expected = (m.next_logits(tokens, eager=True) for m in (model, plain))
    np.testing.assert_array_equal(found, expected)


def test_many_and_long_unknown_fields_are_shortened() -> None:
    with pytest.warns(MaxmodWarning, match=r"'x{60}'\.\.\., .* and 3 more: whether") as caught:
        config_of(DECODERS["llama"], **{"x" * 1000: 1}, **{f"f{n}": n for n in range(12)})
    assert len(str(caught[0].message)) < 1000


@pytest.mark.parametrize("load", [load_model, load_encoder, load_vision_model])
def test_unknown_fields_are_refused_where_asked_for(tmp_path: Path, load: object) -> None:
    source = {load_model: DECODERS["gpt2"], load_encoder: BERT, load_vision_model: VIT}[load]
    load(source, device=CPU(), strict_config=True)  # type: ignore[operator]
    folder = copy(source, tmp_path / "m", use_fancy_rope=True)
    with pytest.raises(ModelError, match=r"config\.json: nobody here knows .*'use_fancy_rope'"):
        load(folder, device=CPU(), strict_config=True)  # type: ignore[operator]


def test_unknown_fields_of_the_other_files(tmp_path: Path) -> None:
    folder = copy(BERT, tmp_path / "bert")
    path = folder / "1_Pooling/config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"fancy": 1}), "utf-8")
    with pytest.warns(MaxmodWarning, match=r"1_Pooling.config\.json: nobody .* the field 'fancy'"):
        load_encoder(folder, device=CPU())
    with pytest.raises(ModelError, match="'fancy'"):
        load_encoder(folder, device=CPU(), strict_config=True)

    folder = copy(VIT, tmp_path / "vit")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"fancy": 1}), "utf-8")
    with pytest.warns(MaxmodWarning, match="preprocessor_config.json: nobody .* 'fancy'"):
        assert load_vision_model(folder, device=CPU()).preprocessing
    with pytest.raises(ModelError, match="'fancy'"):
        assert load_vision_model(folder, device=CPU(), strict_config=True).preprocessing


def test_classes_that_nobody_knows() -> None:
    with pytest.warns(MaxmodWarning, match='nobody here knows the architecture "FancyModel"'):
        config_of(DECODERS["llama"], architectures=["LlamaForCausalLM", "FancyModel"])
    config_of(DECODERS["llama"], architectures=["LLaMAForCausalLM"])  # as in files of early 2023
    with pytest.raises(ModelError, match=r"'architectures': expected list or null, got \"Llama"):
        config_of(DECODERS["llama"], architectures="LlamaForCausalLM")


@pytest.mark.parametrize("name", ["LlamaForSequenceClassification", "LlamaForTokenClassification"])
def test_decoders_with_heads_are_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"'architectures': .*{name} has a head"):
        config_of(DECODERS["llama"], architectures=[name])


@pytest.mark.parametrize("folder", [DECODERS["llama"], DECODERS["gpt2"], BERT, VIT], ids=str)
def test_models_with_foreign_code_are_refused(folder: Path) -> None:
    auto_map = {"AutoConfig": "configuration_clex.Config", "AutoModel": "modeling.LlamaForCausalLM"}
    with pytest.raises(ModelError, match=r"'auto_map': .* code of its own, \"configuration_clex"):
        config_of(folder, auto_map=auto_map)


def test_other_names_of_fields() -> None:
    """GPT2Config has an attribute_map, by which n_embd may be written as hidden_size."""
    folder = DECODERS["gpt2"]
    width = json.loads((folder / "config.json").read_text("utf-8"))["n_embd"]
    assert config_of(folder, hidden_size=width) == config_of(folder)
    with pytest.raises(ModelError, match="'hidden_size' and 'n_embd' are two names of one field"):
        config_of(folder, hidden_size=2 * width)


# ---- types ---------------------------------------------------------------------------------------

HOSTILE = [None, True, -1, 0, 10**300, 1e300, float("nan"), "a", [], [[]], {}, {"a": []}]


@dataclasses.dataclass(frozen=True)
class Sizes:
    count: int = 1
    ratio: float = 1.0


@pytest.mark.parametrize("value", [10**300, True, "1", None, [], float("nan"), float("inf")])
def test_numbers_are_checked(value: object) -> None:
    for field, kind in (("count", "int"), ("ratio", "float")):
        with pytest.raises(ModelError, match=f"here: '{field}': expected {kind}, got "):
            from_table(Sizes, {field: value}, "here", known=KnownFields())
    made = from_table(Sizes, {"count": 2**63 - 1, "ratio": 2}, "here", known=KnownFields())
    assert made == Sizes(2**63 - 1, 2.0)


@pytest.mark.parametrize("name", sorted(ARCHITECTURES.keys() - PARTS))
def test_every_value_of_every_field_is_read_or_refused(name: str) -> None:
    folder = {**DECODERS, **ENCODERS, **MORE, "vit": VIT}[name]
    fields = [field.name for field in dataclasses.fields(ARCHITECTURES[name].config)]
    for field in [*fields, "architectures", "auto_map", "is_causal", "num_experts"]:
        for value in HOSTILE if field != "model_type" else []:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", MaxmodWarning)
                try:
                    config_of(folder, **{field: value})
                except ModelError as error:
                    assert len(str(error)) < 600


# ---- what inspect says ---------------------------------------------------------------------------


def test_description_says_the_same_as_the_load(tmp_path: Path) -> None:
    assert describe(DECODERS["llama"]) == "llama, read by load_model"
    unknown = {"rope_type": "ntk", "factor": 4.0}
    folder = copy(DECODERS["llama"], tmp_path / "m", rope_scaling=unknown)
    with pytest.raises(ModelError) as caught:
        load_model(folder, device=CPU())
    assert describe(folder) == f"llama, which load_model cannot read: {caught.value}"
    assert "got 'ntk'" in describe(folder)


# ---- rotary embeddings ---------------------------------------------------------------------------


def frequencies(theta: float, factor: float = 1, dim: int = 8) -> np.ndarray:
    """theta^(-2k / dim) / factor, as in arXiv 2104.09864 and the linear scaling of it."""
    return theta ** (-2.0 * np.arange(dim // 2) / dim) / factor


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"rope_scaling": {"rope_type": "linear", "factor": 2.0, "rope_theta": 7.0}}, (7.0, 2)),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 5e5}, (5e5, 2)),
        ({"rope_scaling": {}, "rope_theta": 5e5}, (1e6, 1)),
        ({"rope_scaling": None}, (1e6, 1)),
        ({"rope_scaling": {"type": "default"}, "rope_theta": 9.0}, (9.0, 1)),
    ],
)
def test_rope_scaling_wins_over_rope_parameters(
    fields: dict[str, object], expected: tuple[float, float]
) -> None:
    """As RotaryEmbeddingConfigMixin of transformers 5.24 does: it replaces all of the other."""
    given = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": None}
    given |= fields
    for name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"):
        config = config_of(DECODERS[name], head_dim=8, **given)
        for rope in config.ropes().values():  # type: ignore[attr-defined]
            np.testing.assert_allclose(rope.frequencies, frequencies(*expected), rtol=1e-14)


def test_unknown_rope_scaling_is_refused_beside_rope_parameters() -> None:
    given = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": 1e6}
    for name in ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text"):
        with pytest.raises(ModelError, match="unknown rope_type: .* got 'ntk'"):
            kind = {"rope_type": "ntk", "factor": 4.0}
            parameters = {} if name == "gemma3_text" else given
            config_of(DECODERS[name], **parameters, rope_scaling=kind)


def test_lost_base_is_told() -> None:
    given = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "rope_theta": None}
    with pytest.warns(MaxmodWarning, match="rope_scaling replaces rope_parameters and its rope_th"):
        scaling = {"rope_type": "linear", "factor": 2.0}
        config = config_of(DECODERS["qwen3"], head_dim=8, rope_scaling=scaling, **given)
    found = config.ropes()["full_attention"].frequencies  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, frequencies(1e4, 2), rtol=1e-14)


def test_rope_of_gemma3_is_one_for_each_kind_of_layer() -> None:
    """rope_scaling is merged into that of the full layers, as Gemma3TextConfig does."""
    full = {"rope_type": "default", "rope_theta": 1e5}
    parameters = {"full_attention": full, "sliding_attention": {"rope_theta": 9.0}}
    scaling = {"rope_type": "linear", "factor": 8.0}
    fields = {"head_dim": 8, "rope_parameters": parameters, "rope_scaling": scaling}
    found = config_of(DECODERS["gemma3_text"], **fields).ropes()  # type: ignore[attr-defined]
    np.testing.assert_allclose(found["full_attention"].frequencies, frequencies(1e5, 8), rtol=1e-14)
    np.testing.assert_allclose(found["sliding_attention"].frequencies, frequencies(9.0), rtol=1e-14)
    fields |= {"rope_parameters": None, "rope_scaling": None, "rope_theta": None}
    fields |= {"rope_local_base_freq": 7.0}
    found = config_of(DECODERS["gemma3_text"], **fields).ropes()  # type: ignore[attr-defined]
    np.testing.assert_allclose(found["full_attention"].frequencies, frequencies(1e6), rtol=1e-14)
    np.testing.assert_allclose(found["sliding_attention"].frequencies, frequencies(7.0), rtol=1e-14)
    with pytest.raises(ModelError, match="rope_parameters: expected an object for each of full_"):
        config_of(DECODERS["gemma3_text"], rope_parameters={"rope_type": "linear", "factor": 8.0})


@pytest.mark.parametrize("kind", [[], {}, None, 1, "ntk"])
def test_odd_kinds_of_scaling(kind: object) -> None:
    with pytest.raises(
        ModelError, match="rope_scaling: unknown rope_type: expected one of default"
    ):
        config_of(DECODERS["llama"], rope_scaling={"rope_type": kind, "factor": 2.0})


@pytest.mark.parametrize("value", [[], "2", True, 0, -1, float("nan"), 10**4000])
def test_odd_numbers_of_scaling(value: object) -> None:
    with pytest.raises(ModelError, match="rope_scaling: factor: expected a number above 0"):
        config_of(DECODERS["llama"], rope_scaling={"rope_type": "linear", "factor": value})
    with pytest.raises(ModelError, match=r"rope_theta.*: expected"):
        config_of(DECODERS["gemma"], rope_theta=-5, rope_parameters=None, rope_scaling=None)


def test_heads_of_a_size_that_no_model_has() -> None:
    with pytest.raises(ModelError, match="expected heads of an even size of at most 65536"):
        config_of(DECODERS["llama"], head_dim=2**40)
