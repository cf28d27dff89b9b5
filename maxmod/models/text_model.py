"""`TextModel`: what text models with a head have in common."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxmod.dtype import DType
from maxmod.generate.text import Tokenizer
from maxmod.models.pickling import PickledWithoutPrograms
from maxmod.models.text_inputs import Batch, TextInputs
from maxmod.nn import Module
from maxmod.runtime.compiled import CompiledModel
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import TensorType


@dataclass(eq=False)
class TextModel(PickledWithoutPrograms):
    """What text models with a head have in common.

    Attributes:
        folder: The folder it was loaded from.
        module: (int64 tokens [batch, seq], int64 lengths [batch], int64 types [batch, seq]) to
            logits; the types may be left out.
        config: The fields of config.json that the module uses.
        inputs: Makes tokens of texts.
        device: Where its weights are.
        dtype: The dtype that it computes in.
    """

    folder: Path
    module: Module[..., Tensor]
    config: Any
    inputs: TextInputs
    device: DeviceRef
    dtype: DType

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder.

        Raises:
            ModelError: If there is none, or it needs a package that is not installed.
        """
        return self.inputs.tokenizer

    @property
    def max_positions(self) -> int:
        """The most tokens of a text, special ones included."""
        return self.inputs.rules.max_tokens

    def forget_compiled(self) -> None:
        """Makes the next use compile again, with the layers and weights that are there then."""
        vars(self).pop("compiled", None)

    @functools.cached_property
    def compiled(self) -> CompiledModel:
        """The compiled module, for all sizes; made when it is first needed."""
        return self._runnable().compile(*self._types())

    def _runnable(self) -> Module[..., Tensor]:
        return self.module

    def _types(self) -> list[TensorType]:
        tokens = TensorType(DType.int64, ["batch", "seq"], self.device)
        lengths = TensorType(DType.int64, ["batch"], self.device)
        return [tokens, lengths, *([tokens] if self.inputs.type_count else [])]

    def _arrays(self, batch: Batch) -> list[HostArray]:
        return [batch.tokens, batch.lengths, *([batch.types] if self.inputs.type_count else [])]

    def _run(self, arrays: Iterable[HostArray], eager: bool) -> HostArray:
        run = self._runnable() if eager else self.compiled
        return run(*(Tensor(array, device=self.device) for array in arrays)).to_numpy()


def scores_of(logits: HostArray, kind: str) -> HostArray:
    """Returns the scores of logits.

    Args:
        logits: float32 [..., labels].
        kind: "softmax", "sigmoid", or "identity" for the logits themselves.
    """
    if kind == "softmax":
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return powers / powers.sum(axis=-1, keepdims=True)
    if kind == "sigmoid":
        small = np.exp(-np.abs(logits))  # never overflows
        return np.where(logits >= 0, 1, small) / (1 + small)
    return logits
