"""The config.json that the metadata of a GGUF file amount to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from maxmod.errors import ModelError
from maxmod.models.gguf.kinds import COMMON, FACTORS, KINDS
from maxmod.values.plain import JsonObject
from maxmod.weights.gguf import GGUFWeights


def config_of(caller: str, file: GGUFWeights) -> JsonObject:
    """Returns the config.json that the metadata of a file amount to.

    Raises:
        ModelError: If the architecture, or something that it says, is not supported.
    """
    name = file.fields.get("general.architecture")
    if name not in KINDS:
        raise ModelError(
            f"{caller}: {file.path}: general.architecture: GGUF files are read of "
            f"{', '.join(KINDS)}; got {name!r:.80}."
        )
    kind = KINDS[str(name)]

    def given(key: str) -> Any:
        return file.fields.get(f"{name}.{key}")

    fields = {**COMMON, **kind.fields}
    table = {to: given(key) for key, to in fields.items() if given(key) is not None}
    table |= kind.constants
    table["model_type"] = kind.model_type
    table["vocab_size"] = int(file.tensor_type("token_embd.weight").sizes[0])
    table["tie_word_embeddings"] = "output.weight" not in file
    biased = any(key.endswith("attn_q.bias") for key in file)
    if kind.model_type in ("llama", "qwen3", "granite", "smollm3", "olmo2"):
        table["attention_bias"] = biased
    for token in ("bos", "eos"):
        table[f"{token}_token_id"] = file.fields.get(f"tokenizer.ggml.{token}_token_id")
    if given("expert_count"):
        raise ModelError(f"{caller}: {file.path}: models of experts are not supported.")
    if kind.model_type in _LARGE_GEMMA:
        # The scale of the scores is that of a head, but for the largest model of each.
        is_largest = table["num_hidden_layers"] == _LARGE_GEMMA[kind.model_type]
        shared = int(table["hidden_size"]) // int(table["num_attention_heads"])
        table["query_pre_attn_scalar"] = shared if is_largest else table["head_dim"]
    _add_rope(caller, file, table, given)
    if kind.model_type == "gpt2":
        return {_GPT2_FIELDS.get(key, key): value for key, value in table.items() if value}
    return table


_LARGE_GEMMA = {"gemma2": 46, "gemma3_text": 62}  # the layers of the models of 27B
_GPT2_FIELDS = {
    "max_position_embeddings": "n_positions",
    "hidden_size": "n_embd",
    "intermediate_size": "n_inner",
    "num_hidden_layers": "n_layer",
    "num_attention_heads": "n_head",
}


def _add_rope(
    caller: str, file: GGUFWeights, table: JsonObject, given: Callable[[str], Any]
) -> None:
    heads = int(table["num_attention_heads"])  # type: ignore[call-overload]
    dim = int(table.get("head_dim") or int(table["hidden_size"]) // heads)  # type: ignore[call-overload]
    rotated = given("rope.dimension_count")
    if rotated and rotated != dim and table["model_type"] == "phi3":
        table["partial_rotary_factor"] = rotated / dim
    trained = given("rope.scaling.original_context_length")
    factors = {
        to: [float(number) for number in file[f"{key}.weight"].to_numpy()]
        for key, to in FACTORS.items()
        if f"{key}.weight" in file
    }
    if factors:
        longest = table["max_position_embeddings"]
        both = "long_factor" in factors
        factors.setdefault("long_factor", factors["short_factor"])
        scaling: JsonObject = {"rope_type": "longrope", **factors}
        # One list is for all lengths; of two, the first is up to the length that was trained.
        scaling["original_max_position_embeddings"] = trained if both and trained else longest
        scaling["attention_factor"] = given("rope.scaling.attn_factor") or 1.0
        table["rope_scaling"] = scaling
        return
    kind = given("rope.scaling.type")
    if kind in (None, "none"):
        return
    if kind not in ("linear", "yarn"):
        raise ModelError(
            f"{caller}: {file.path}: rope.scaling.type: expected none, linear or yarn, got "
            f"{kind!r:.80}."
        )
    scaling = {"rope_type": kind, "factor": given("rope.scaling.factor")}
    if kind == "yarn" and trained:
        scaling["original_max_position_embeddings"] = trained
    table["rope_scaling"] = scaling
