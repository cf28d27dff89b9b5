"""Pretrained weights: opening files and folders, adapting names and layouts, saving.

>>> from maxmod.weights import open_checkpoint, save_state, strip_prefix, transpose
"""

from maxmod.weights.checkpoint import Checkpoint, open_checkpoint
from maxmod.weights.fit import expect_room
from maxmod.weights.inspect import inspect_text
from maxmod.weights.mapping import Weights
from maxmod.weights.quantized_view import QuantizedWeights
from maxmod.weights.rename import (
    add_prefix,
    astype,
    concat,
    drop,
    merge,
    rename,
    select,
    split,
    strip_prefix,
    transpose,
)
from maxmod.weights.save import save_state

__all__ = [
    "Checkpoint",
    "QuantizedWeights",
    "Weights",
    "add_prefix",
    "astype",
    "concat",
    "drop",
    "expect_room",
    "inspect_text",
    "merge",
    "open_checkpoint",
    "rename",
    "save_state",
    "select",
    "split",
    "strip_prefix",
    "transpose",
]
