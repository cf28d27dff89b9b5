"""`max.nn.transformer`, `max.nn.attention`: the choices that model files import by name."""

from __future__ import annotations

import enum


class ReturnLogits(enum.StrEnum):
    """Which logits a model returns.

    Args:
        value: The name of the choice.
    """

    LAST_TOKEN = "last_token"
    VARIABLE = "variable"
    ALL = "all"


class ReturnHiddenStates(enum.StrEnum):
    """Which hidden states a model returns.

    Args:
        value: The name of the choice.
    """

    NONE = "none"
    LAST = "last"
    ALL = "all"
    ALL_NORMALIZED = "all_normalized"
    LAST_PER_DEVICE = "last_per_device"
    SELECTED_LAYERS = "selected_layers"


class MHAMaskVariant(enum.StrEnum):
    """Which positions attention sees.

    Args:
        value: The code of the mask.
    """

    CAUSAL_MASK = "0"
    NULL_MASK = "2"
    CHUNKED_CAUSAL_MASK = "3"
    SLIDING_WINDOW_CAUSAL_MASK = "4"
    SLIDING_WINDOW_NONCAUSAL_MASK = "5"


__all__ = ["MHAMaskVariant", "ReturnHiddenStates", "ReturnLogits"]
