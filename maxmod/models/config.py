"""Reads the fields of config.json that a model uses, and rejects unsupported ones."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, TypeVar, get_args, get_type_hints

from maxmod.errors import ModelError

T = TypeVar("T")

# Fields that change what some models compute, with the values that change nothing. A model that
# knows such a field lists it in its configuration.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (None, False),
    "alibi": (None, False),
    "attention_chunk_size": (None,),
    "attention_multiplier": (None,),
    "attn_logit_softcapping": (None,),
    "clip_qkv": (None,),
    "do_flip_channel_order": (None, False),
    "do_pad": (None, False),
    "embedding_multiplier": (None, 1),
    "embedding_size": (None,),
    "final_logit_softcapping": (None,),
    "is_encoder_decoder": (None, False),
    "logit_scale": (None, 1),
    "logits_scaling": (None, 1),
    "no_rope_layers": (None, []),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "parallel_attn": (None, False),
    "partial_rotary_factor": (None, 1),
    "pruned_heads": (None, {}),
    "qk_layernorm": (None, False),
    "quantization": (None,),  # as MLX writes it
    "quantization_config": (None,),
    "residual_multiplier": (None, 1),
    "scale_depth": (None,),
    "scale_emb": (None, 1),
    "use_qk_norm": (None, False),
}


def from_table(cls: type[T], table: Mapping[str, object], where: str) -> T:
    """Makes a dataclass from the fields that it declares.

    Other fields of the table are ignored, except those known to change what a model computes,
    which must have a neutral value.

    Args:
        cls: A dataclass whose fields are `int`, `float`, `bool`, `str`, `list` or `dict`, or one of
            them or None.
        table: Names to values.
        where: The file, for messages.

    Raises:
        ModelError: If a field without a default is missing, one is of another type, or the model
            would have to compute something else.
    """
    hints = get_type_hints(cls)
    for name in _NEUTRAL.keys() & table.keys() - hints.keys():
        if table[name] not in _NEUTRAL[name]:
            raise ModelError(
                f"{where}: {name!r}: models with this field are not supported: expected "
                f"{' or '.join(map(json.dumps, _NEUTRAL[name]))}, got "
                f"{json.dumps(table[name])[:80]}."
            )
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        if field.name in table:
            values[field.name] = _checked(field.name, table[field.name], hints[field.name], where)
        elif field.default is dataclasses.MISSING:
            raise ModelError(f"{where}: the field {field.name!r} is missing.")
    try:
        return cls(**values)
    except ModelError as error:
        raise ModelError(f"{where}: {error}") from None


def _checked(name: str, value: object, hint: Any, where: str) -> Any:
    allowed = get_args(hint) or (hint,)
    if type(value) in allowed:  # exactly: True is not an int here
        return value
    if float in allowed and type(value) is int:
        return float(value)
    expected = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
    raise ModelError(f"{where}: {name!r}: expected {expected}, got {json.dumps(value)[:80]}.")
