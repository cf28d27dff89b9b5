"""Models of images and text, of which the text model is read: its fields, its weights.

For text alone they compute what their text model does. In the multimodal rotary embedding of
Qwen2-VL a token of text has one position three times, which is the usual rotary embedding.

Source: P. Wang et al., Qwen2-VL, arXiv 2409.12191, section 2.1; S. Bai et al., Qwen2.5-VL Technical
Report, arXiv 2502.13923; Gemma Team, Gemma 3 Technical Report, arXiv 2503.19786; with the names of
the transformers library.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maxmod.errors import ModelError
from maxmod.models.config import judge_fields
from maxmod.models.config_fields import IMAGES_AND_TEXT
from maxmod.models.decoders import gemma, llama
from maxmod.nn.places import warn
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, drop, rename

_TIED = "tie_word_embeddings"


@dataclass(frozen=True, slots=True)
class TextPart:
    """The text model in a model of images and text.

    Attributes:
        inside: Which it is, by its name in the field `text_config`; that is None where all fields
            are in one object, or the name is missing.
        defaults: Fields that may be missing.
        tied_by_either: Whether the fields of both models are asked if the head is the embedding.
    """

    inside: Mapping[str | None, str]
    defaults: JsonObject = field(default_factory=dict)
    tied_by_either: bool = False

    def model_type(self, table: JsonObject) -> str:
        """Returns which text model a config.json has; the first one if it does not say so."""
        text = table.get("text_config")
        name = text.get("model_type") if isinstance(text, dict) else None
        known = name if isinstance(name, str) else None
        return self.inside.get(known, next(iter(self.inside.values())))


_QWEN2 = {**llama.DEFAULTS["qwen2"], "num_key_value_heads": 8, "max_window_layers": 80}
_QWEN2 |= {"rms_norm_eps": 1e-5, "rope_theta": 1e6}
_QWEN3 = {**llama.DEFAULTS["qwen3"], "max_position_embeddings": 128000, "rope_theta": 5e5}
_GEMMA3 = {"vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216}
_GEMMA3 |= {"num_hidden_layers": 26, "num_attention_heads": 8, **gemma.DEFAULTS["gemma3_text"]}
# By the `model_type` of the whole.
PARTS = {
    "gemma3": TextPart({"gemma3_text": "gemma3_text", None: "gemma3_text"}, _GEMMA3),
    "mistral3": TextPart({"mistral": "mistral", "ministral3": "ministral3"}),
    "qwen2_vl": TextPart(dict.fromkeys(("qwen2_vl_text", "qwen2_vl", None), "qwen2"), _QWEN2, True),
    "qwen2_5_vl": TextPart(
        dict.fromkeys(("qwen2_5_vl_text", "qwen2_5_vl", None), "qwen2"), _QWEN2, True
    ),
    "qwen3_vl": TextPart({"qwen3_vl_text": "qwen3"}, _QWEN3, True),
}
_TOWERS = ("visual", "vision_tower", "multi_modal_projector")
_LEFT_OUT = [f"{prefix}{name}.*" for name in _TOWERS for prefix in ("", "model.")]
_NAMES = {
    "language_model.lm_head.*": "lm_head.*",
    "language_model.model.*": "model.*",
    "model.language_model.*": "model.*",
}


def text_fields(part: TextPart, table: JsonObject, where: Path, strict: bool) -> JsonObject:
    """Returns the fields of the text model, with its defaults.

    Args:
        part: Which text model it is.
        table: The config.json of the whole.
        where: Its path, for messages.
        strict: Refuse unknown fields, in place of a warning.

    Raises:
        ModelError: If there is another text model in it, or a field is malformed.
    """
    given = table.get("text_config")
    if given is None and None in part.inside:  # as the first versions had it: all in one
        own = IMAGES_AND_TEXT.neutral - {"model_type"} | {"vision_config", "text_config"}
        text = {name: value for name, value in table.items() if name not in own}
    elif isinstance(given, dict):
        name = given.get("model_type")
        if not isinstance(name, str | None) or name not in part.inside:
            known = " or ".join(repr(one) for one in part.inside if one is not None)
            raise ModelError(
                f"{where}: text_config: model_type: expected {known}, got {name!r:.80}."
            )
        text = dict(given)
        used = {"text_config", "vision_config", _TIED, "model_type", "architectures"}
        used |= {"quantization_config", "auto_map"}
        judge_fields(table, used, str(where), known=IMAGES_AND_TEXT, strict=strict)
    else:
        raise ModelError(f"{where}: text_config: expected an object, got {given!r:.80}.")
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(text.get(name), dict):
            text[name] = _for_text(text[name])
    ties = [one[_TIED] for one in (table, text) if one.get(_TIED) is not None]
    if ties:
        text[_TIED] = (True in ties) if part.tied_by_either else ties[0]
    text |= {"architectures": None, "auto_map": table.get("auto_map")}
    return {**part.defaults, **text, "model_type": part.model_type(table)}


def _for_text(rope: JsonObject) -> JsonObject:
    """Rotary fields without those that say which of its three positions an element gets."""
    kept = {k: v for k, v in rope.items() if k not in ("mrope_section", "mrope_interleaved")}
    return {
        name: "default" if name in ("type", "rope_type") and value == "mrope" else value
        for name, value in kept.items()
    }


def text_weights(weights: StateLike) -> Weights:
    """Returns the weights of the text model, as a folder of its own has them.

    One warning says that others are left out.
    """
    weights = rename(weights, {})
    kept = drop(weights, _LEFT_OUT)
    if len(kept) < len(weights):
        warn(
            "load_model: of this model of images and text only the text model is read; its vision "
            "tower is left out."
        )
    return rename(kept, _NAMES)


def only_text(adapt: Any) -> Any:
    """Returns the function that adapts weights of the whole, of the one for the text model."""
    return lambda weights, config: adapt(text_weights(weights), config)
