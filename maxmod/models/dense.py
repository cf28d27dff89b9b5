"""The part Dense of a folder of sentence-transformers: a linear map of the vector of a text.

Source: the documentation of `sentence_transformers.models.Dense`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError, WeightsError
from maxmod.interpreters.lazy import lazy
from maxmod.models.config import from_table
from maxmod.models.config_fields import DENSE
from maxmod.nn import Linear, Module
from maxmod.tensor import Tensor
from maxmod.tensor.default_context import default_device, default_dtype
from maxmod.values.device import DeviceRef
from maxmod.weights import open_checkpoint
from maxmod.weights.json_files import read_json
from maxmod.weights.pytorch import open_pytorch

_ACTIVATIONS = {
    "Identity": lambda x: x,
    "Tanh": F.tanh,
    "ReLU": F.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
}


@dataclass(frozen=True, slots=True)
class DenseConfig:
    """The fields of the config.json of a Dense part."""

    in_features: int
    out_features: int
    bias: bool = True
    activation_function: str = "torch.nn.modules.activation.Tanh"

    def __post_init__(self) -> None:
        if min(self.in_features, self.out_features) < 1:
            raise ModelError("sizes must be above 0.")
        if not self.activation_function.startswith("torch.") or self.kind not in _ACTIVATIONS:
            known = ", ".join(f"torch.nn.{name}" for name in _ACTIVATIONS)
            raise ModelError(
                f"activation_function: expected one of {known}, got "
                f"{self.activation_function!r:.80}."
            )

    @property
    def kind(self) -> str:
        """The class of the activation."""
        return self.activation_function.rpartition(".")[2]


class Dense(Module[[Tensor], Tensor]):
    """A linear map and an activation: float32 [batch, in] to [batch, out]."""

    def __init__(self, config: DenseConfig) -> None:
        self.linear = Linear(config.in_features, config.out_features, bias=config.bias)
        self.width = config.out_features
        self.kind = config.kind

    def forward(self, x: Tensor) -> Tensor:
        """float32 [batch, in] -> [batch, out]"""
        return _ACTIVATIONS[self.kind](self.linear(x))


def load_dense(folder: Path, width: int, device: DeviceRef, *, strict: bool = False) -> Dense:
    """Loads a Dense part, which computes in float32.

    Args:
        folder: Its folder.
        width: Of the vectors that it gets.
        device: Where to put it.
        strict: Refuse unknown fields of its config.json, in place of a warning.

    Raises:
        ModelError: If its config.json is malformed or is for vectors of another size.
        CheckpointError: If its weights cannot be read.
        WeightsError: If they do not fit the configuration.
    """
    where = folder / "config.json"
    config = from_table(DenseConfig, read_json(where), str(where), known=DENSE, strict=strict)
    if config.in_features != width:
        raise ModelError(
            f"{where}: in_features: expected {width}, the size of the vectors before this part, "
            f"got {config.in_features}."
        )
    with lazy(), default_device(device), default_dtype(DType.float32):
        made = Dense(config)
    with open_pytorch(folder) or open_checkpoint(folder) as checkpoint:
        try:
            made.load_state_dict(checkpoint.on(device).astype(DType.float32))
        except WeightsError as error:
            raise WeightsError(f"{folder}: {error}") from None
    return made.to(device)
