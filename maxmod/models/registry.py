"""`load_model`: the model of a Hugging Face folder, chosen by its config.json."""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maxmod.defaults import default_device, default_dtype, resolve
from maxmod.dtype import DType
from maxmod.eager import lazy
from maxmod.errors import ModelError, WeightsError, did_you_mean
from maxmod.models import gpt2, llama
from maxmod.models.config import from_table, read_json
from maxmod.models.language import LanguageModel
from maxmod.nn import Module
from maxmod.weights import Weights, open_checkpoint


def adder_folder() -> Path:
    """Returns the folder of the model that comes with the package.

    It is a small GPT-2 that adds two numbers of up to three digits: `123+456=` gives `579`.
    """
    return Path(__file__).parent / "adder"


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to make one kind of model.

    Attributes:
        config: Dataclass of the fields of config.json.
        module: Makes the module of a configuration.
        adapt: Gives the weights of a folder the names and layouts of the module.
        defaults: Fields that config.json may leave out, where the dataclass has another default.
    """

    config: type[Any]
    module: Callable[[Any], Module[..., Any]]
    adapt: Callable[[Mapping[str, Any]], Weights]
    defaults: Mapping[str, Any] = field(default_factory=dict)


# By the `model_type` of config.json.
ARCHITECTURES = {
    "gpt2": Architecture(gpt2.Config, gpt2.GPT2, gpt2.adapt_weights),
    **{
        name: Architecture(llama.Config, llama.Llama, llama.adapt_weights, defaults)
        for name, defaults in llama.DEFAULTS.items()
    },
}


def load_model(
    folder: str | os.PathLike[str], *, device: Any = None, dtype: DType | None = None
) -> LanguageModel:
    """Loads a pretrained model.

    Args:
        folder: A folder as `save_pretrained` of transformers writes it: config.json, weights as
            .safetensors files, and a tokenizer if text is to be generated. Nothing is downloaded.
        device: Where to put it; the default device if it is not given.
        dtype: What to compute in; the dtype of the stored weights if it is not given.

    Raises:
        ModelError: (a ValueError) If the folder, its config.json or its architecture is of no use.
        CheckpointError: (a ValueError) If its weights cannot be read.
        WeightsError: (a ValueError and KeyError) If they do not fit the configuration.

    Example:
        >>> from maxmod import CPU, Tensor
        >>> from maxmod.models import adder_folder, load_model
        >>> model = load_model(adder_folder(), device=CPU())
        >>> compiled = model.module.compile(model.tokens_type)
        >>> tokens = Tensor([model.tokenizer.encode("1+2=")], dtype=DType.int64, device=CPU())
        >>> compiled(tokens).shape
        [Dim(1), Dim(4), Dim(13)]
    """
    folder = Path(folder)
    table = _config_of(folder)
    architecture = _architecture_of(table, folder)
    fields = {**architecture.defaults, **table}
    config = from_table(architecture.config, fields, str(folder / "config.json"))
    _, ref = resolve(None, device)
    with open_checkpoint(folder) as checkpoint:
        dtype = dtype or _stored_dtype(checkpoint)
        with lazy(), default_device(ref), default_dtype(dtype):
            module = architecture.module(config)
        weights = architecture.adapt(checkpoint).astype(dtype)
        try:
            module.load_state_dict(weights)
        except WeightsError as error:
            raise WeightsError(f"load_model: {folder}: {error}") from None
    return LanguageModel(
        folder=folder,
        module=module.to(ref),
        config=config,
        vocab_size=config.vocab_size,
        max_positions=config.max_positions,
        cache_shape=config.cache_shape,
        stop=_stop_tokens(folder, table),
        device=ref,
        dtype=dtype,
    )


def _config_of(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise ModelError(
            f"load_model: {folder}: there is no such folder. Hint: nothing is downloaded; give a "
            "folder with config.json and *.safetensors."
        )
    return read_json(folder / "config.json")


def _architecture_of(table: Mapping[str, Any], folder: Path) -> Architecture:
    name = table.get("model_type")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        hint = did_you_mean(name, ARCHITECTURES) if isinstance(name, str) else ""
        raise ModelError(
            f"load_model: {folder}: unknown architecture: expected the model_type of config.json "
            f"to be one of {', '.join(map(repr, ARCHITECTURES))}, got {name!r}.{hint}"
        )
    return ARCHITECTURES[name]


def _stored_dtype(weights: Weights) -> DType:
    """Returns the floating dtype in which most of the weights are stored."""
    nbytes: collections.Counter[DType] = collections.Counter()
    for name in weights:
        stored = weights.tensor_type(name)
        if stored.dtype.is_float():
            nbytes[stored.dtype] += int(stored.nbytes)
    return nbytes.most_common(1)[0][0] if nbytes else DType.float32


def _stop_tokens(folder: Path, table: Mapping[str, Any]) -> frozenset[int]:
    """Returns the end tokens; generation_config.json, where there is one, knows best."""
    value = table.get("eos_token_id")
    generation = folder / "generation_config.json"
    if generation.exists():
        value = read_json(generation).get("eos_token_id", value)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int for token in listed):
        raise ModelError(f"{folder}: eos_token_id: expected an integer or a list of them.")
    return frozenset(listed)
