"""`load_model` and its like: the model of a Hugging Face folder, chosen by its config.json."""

from __future__ import annotations

import collections
import dataclasses
import os
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, MaxmodError, ModelError, WeightsError
from maxmod.generate.defaults import GenerationDefaults
from maxmod.generate.special_tokens import end_tokens
from maxmod.interpreters.lazy import lazy
from maxmod.models import bert, gemma, gpt2, llama, vit
from maxmod.models.config import from_table
from maxmod.models.config_fields import CONFIG as CONFIG_FIELDS
from maxmod.models.encoder import TextEncoder
from maxmod.models.folder import CONFIG, find_folder, read_config, unsupported
from maxmod.models.language import LanguageModel
from maxmod.models.pooling import read_pooling
from maxmod.models.prompts import read_text_rules
from maxmod.models.quantized_folder import FIELD, Rounding, as_stored, is_marked, rounded
from maxmod.models.vision import VisionModel
from maxmod.nn import Module
from maxmod.tensor.default_context import default_device, default_dtype, resolve
from maxmod.tensor.like import StateLike
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, expect_room, open_checkpoint
from maxmod.weights.json_files import read_json
from maxmod.weights.quantized_view import stored_layers
from maxmod.weights.text_files import has_file


def adder_folder() -> Path:
    """Returns the folder of the model that comes with the package.

    It is a small GPT-2 that adds two numbers of up to three digits: `123+456=` gives `579`.

    Returns:
        A path, for `load_model` and `open_checkpoint`.

    Example:
        >>> from maxmod.models import adder_folder, load_model
        >>> load_model(adder_folder()).generate("999+1=")
        '1000'
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
    module: Callable[[Any], Module]
    adapt: Callable[[StateLike], Weights]
    defaults: Mapping[str, object] = field(default_factory=dict)


# By the `model_type` of config.json.
ARCHITECTURES = {
    "gpt2": Architecture(gpt2.Config, gpt2.GPT2, gpt2.adapt_weights),
    **{
        name: Architecture(llama.Config, llama.Llama, llama.adapt_weights, defaults)
        for name, defaults in llama.DEFAULTS.items()
    },
    **{
        name: Architecture(gemma.Config, gemma.Gemma, gemma.adapt_weights, defaults)
        for name, defaults in gemma.DEFAULTS.items()
    },
}
ENCODERS = {"bert": Architecture(bert.Config, bert.Bert, bert.adapt_weights)}
VISION = {"vit": Architecture(vit.Config, vit.make_module, vit.adapt_weights)}
# The function that loads each kind of model.
KINDS = {"load_model": ARCHITECTURES, "load_encoder": ENCODERS, "load_vision_model": VISION}


def load_model(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    strict_config: bool = False,
) -> LanguageModel:
    """Loads a pretrained model.

    Args:
        folder: A folder as `save_pretrained` of transformers writes it: config.json, weights as
            .safetensors files, and a tokenizer if text is to be generated; or as `save_quantized`
            does; or the name of a model in the cache of Hugging Face, such as `"org/name"`.
            Nothing is downloaded.
        device: Where to put it; the default device if it is not given.
        dtype: What to compute in; the dtype of the stored weights if it is not given, or bfloat16
            if they are 8-bit floats.
        quantize: `"int8"` or `"int4"` rounds the weights of linear layers while they are read, as
            `maxmod.quantize` does afterwards; memory never holds more than the rounded model and
            one tensor.
        group_size: As for `maxmod.quantize`, like `skip`.
        skip: Linear layers to leave as they are.
        strict_config: Refuse a folder whose config.json has a field that nobody here knows; else
            that is one warning. A field known to change what is computed is always refused.

    Returns:
        The model; `model.module` is the module, with the weights.

    Raises:
        ModelError: (a ValueError) If the folder, its config.json or its architecture is unusable.
        CheckpointError: (a ValueError) If its weights cannot be read.
        WeightsError: (a ValueError and KeyError) If they do not fit the configuration.
        OutOfMemoryError: (a MemoryError) If they are larger than the free memory of the device;
            they are not read then.

    Example:
        >>> from maxmod import CPU, DType, Tensor
        >>> from maxmod.models import adder_folder, load_model
        >>> model = load_model(adder_folder(), device=CPU())
        >>> model.generate("1+2=")
        '3'
        >>> compiled = model.module.compile(model.tokens_type)
        >>> tokens = Tensor([model.tokenizer.encode("1+2=")], dtype=DType.int64, device=CPU())
        >>> compiled(tokens).shape
        [Dim(1), Dim(4), Dim(13)]
    """
    folder = find_folder("load_model", folder)
    table = _config_of("load_model", folder)
    rounding = Rounding.of("load_model", quantize, group_size, skip)
    config = _read_fields("load_model", folder, table, strict_config)
    module, ref, dtype = _load("load_model", folder, table, config, device, dtype, rounding)
    return LanguageModel(
        folder=folder.absolute(),
        module=module,
        config=config,
        vocab_size=config.vocab_size,
        max_positions=config.max_positions,
        cache_shape=config.cache_shape,
        stop=_stop_tokens(folder, table) | end_tokens(folder),
        device=ref,
        dtype=dtype,
        defaults=GenerationDefaults.read(folder),
    )


def load_encoder(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    strict_config: bool = False,
) -> TextEncoder:
    """Loads a pretrained encoder, which turns texts into vectors.

    Args:
        folder: A folder as for `load_model`. The files of the sentence-transformers library are
            read as well: modules.json says how the vectors of the tokens of a text become one.
        device: As for `load_model`.
        dtype: As for `load_model`.
        quantize: As for `load_model`, like `group_size` and `skip`. `"int4"` keeps 8 bits in the
            `sensitive_layers` of the module; for 4 bits in all, load the floats and then call
            `maxmod.quantize(encoder, "int4", sensitive="int4")`.
        group_size: As for `maxmod.quantize`.
        skip: Linear layers to leave as they are.
        strict_config: As for `load_model`, for all configuration files of the folder.

    Returns:
        The encoder: `load_encoder(folder).embed(["a text", "another"])`.

    Raises:
        ModelError: As for `load_model`, like the errors below.
        CheckpointError: If its weights cannot be read.
        WeightsError: If they do not fit the configuration.
        OutOfMemoryError: If they are larger than the free memory of the device.
    """
    folder = find_folder("load_encoder", folder)
    table = _config_of("load_encoder", folder)
    rounding = Rounding.of("load_encoder", quantize, group_size, skip)
    config = _read_fields("load_encoder", folder, table, strict_config)
    module, ref, dtype = _load("load_encoder", folder, table, config, device, dtype, rounding)
    return TextEncoder(
        folder=folder.absolute(),
        module=module,
        config=config,
        pooling=read_pooling(folder, strict=strict_config),
        rules=read_text_rules(folder, config.max_positions, strict=strict_config),
        device=ref,
        dtype=dtype,
    )


def load_vision_model(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    strict_config: bool = False,
) -> VisionModel:
    """Loads a pretrained vision model, which classifies images or turns them into vectors.

    Args:
        folder: A folder as for `load_model`, with preprocessor_config.json where images are to be
            read. Its config.json says whether the model has a classifier.
        device: As for `load_model`.
        dtype: As for `load_model`.
        quantize: As for `load_model`, like `group_size` and `skip`.
        group_size: As for `maxmod.quantize`.
        skip: Linear layers to leave as they are.
        strict_config: As for `load_model`, for all configuration files of the folder.

    Returns:
        The model: `load_vision_model(folder).classify(["photo.jpg"])`.

    Raises:
        ModelError: As for `load_model`, like the errors below.
        CheckpointError: If its weights cannot be read.
        WeightsError: If they do not fit the configuration.
        OutOfMemoryError: If they are larger than the free memory of the device.
    """
    folder = find_folder("load_vision_model", folder)
    table = _config_of("load_vision_model", folder)
    rounding = Rounding.of("load_vision_model", quantize, group_size, skip)
    config = _read_fields("load_vision_model", folder, table, strict_config)
    module, ref, dtype = _load("load_vision_model", folder, table, config, device, dtype, rounding)
    return VisionModel(folder.absolute(), module, config, ref, dtype, strict_config)


def loader_of(folder: str | os.PathLike[str]) -> Callable[..., Any]:
    """Returns the function that loads a folder: `load_model` or one of the others.

    Raises:
        ModelError: If there is none for it; the message lists the known architectures.
    """
    folder = find_folder("load", folder)
    table = _config_of("load", folder)
    name = table.get("model_type")
    for loader in (load_model, load_encoder, load_vision_model):
        if isinstance(name, str) and name in KINDS[loader.__name__]:
            return loader
    raise unsupported("load", folder, table, KINDS)


def _read_fields(caller: str, folder: Path, table: JsonObject, strict: bool) -> Any:
    """Returns the configuration of a model from its config.json."""
    name = table.get("model_type")
    if not isinstance(name, str) or name not in KINDS[caller]:
        raise _unsupported(caller, folder, table)
    architecture = KINDS[caller][name]
    is_marked(table, folder / CONFIG)
    fields = {**architecture.defaults, **table, FIELD: None}
    where, known = str(folder / CONFIG), CONFIG_FIELDS[name]
    return from_table(architecture.config, fields, where, known=known, strict=strict)


def _load(
    caller: str,
    folder: Path,
    table: JsonObject,
    config: Any,
    device: Any,
    dtype: DType | None,
    rounding: Rounding | None,
) -> tuple[Module, DeviceRef, DType]:
    """Returns the module with its weights, device and dtype."""
    architecture = KINDS[caller][table["model_type"]]
    where = folder / CONFIG
    has_mark = is_marked(table, where)
    _, ref = resolve(None, device)
    with open_checkpoint(folder) as checkpoint:
        _check_layers(config, len(checkpoint), where)
        layers = stored_layers(checkpoint)
        if has_mark and not layers:
            raise ModelError(f"{where}: {FIELD!r}: no layer of the folder is stored as codes.")
        if layers and rounding is not None:
            raise ArgumentError(
                f"{caller}: {folder}: quantize: the weights of this folder are quantised already."
            )
        dtype = dtype or _stored_dtype(checkpoint, {f"{name}.scales" for name in layers})
        with lazy(), default_device(ref), default_dtype(dtype):
            module = architecture.module(config)
        stored = checkpoint.on(ref)
        try:
            if layers:
                weights = as_stored(module, stored, dtype, layers)
            else:
                stored = architecture.adapt(stored)
                weights = stored.astype(dtype)
            if rounding is not None:
                weights = rounded(module, stored, weights, rounding)
            expect_room(weights, ref, action=f"{caller}: {folder}")
            module.load_state_dict(weights)
        except WeightsError as error:
            raise WeightsError(f"{caller}: {folder}: {error}") from None
    return module.to(ref), ref, dtype


def _check_layers(config: Any, tensors: int, where: Path) -> None:
    """Rejects more layers than there are tensors, before allocating an object for each."""
    for name in ("num_hidden_layers", "n_layer"):
        value = getattr(config, name, 0)
        if value > tensors:
            raise ModelError(
                f"{where}: {name}: expected at most {tensors}, as many as there are tensors in the "
                f"weights, got {value}."
            )


def describe(folder: str | os.PathLike[str]) -> str:
    """Returns which known architecture a folder has, and which function loads it.

    Returns:
        Such as `llama, read by load_model`; or what the loading function would say.
    """
    try:
        folder = find_folder("load", folder)
        table = _config_of("load", folder)
        name = table.get("model_type")
        for caller, known in KINDS.items():
            if isinstance(name, str) and name in known:
                return _described(caller, name, folder, table)
        raise unsupported("load", folder, table, KINDS)
    except ModelError as error:
        return f"unknown: {str(error).removeprefix('load: ')}"


def _described(caller: str, name: str, folder: Path, table: JsonObject) -> str:
    try:
        _read_fields(caller, folder, table, strict=False)
    except ModelError as error:
        return f"{name}, which {caller} cannot read: {error}"
    return f"{name}, read by {caller}"


def _config_of(caller: str, folder: Path) -> JsonObject:
    """Reads config.json; a BERT of 2018 gets the field `model_type` that it did not have."""
    table = read_config(caller, folder)
    return table | {"model_type": "bert"} if bert.is_old_config(table) else table


def _unsupported(caller: str, folder: Path, table: JsonObject) -> ModelError:
    name = table.get("model_type")
    if caller == "load_encoder" and isinstance(name, str) and name in ARCHITECTURES:
        hint = _decoder_hint(folder, table, ARCHITECTURES[name])
        return ModelError(f"{caller}: {folder}: {caller} does not read {name!r}.{hint}")
    return unsupported(caller, folder, table, KINDS)


def _decoder_hint(folder: Path, table: JsonObject, architecture: Architecture) -> str:
    """Returns what can be done with a decoder, of which `load_encoder` makes no vectors."""
    defaults = {known.name: known.default for known in dataclasses.fields(architecture.config)}
    is_tied = {**defaults, **architecture.defaults, **table}.get("tie_word_embeddings")
    try:
        with open_checkpoint(folder) as checkpoint:
            has_head = any(name.endswith("lm_head.weight") for name in checkpoint)
    except MaxmodError:
        has_head = True  # load_model says what is wrong with the weights
    if has_head or is_tied:
        return (
            " Hint: use load_model; load_encoder makes no vectors with decoders, but "
            "load_model(folder).module.hidden(tokens) gives one for each token."
        )
    return (
        " The model is a decoder without a head (lm_head.weight), made for vectors: decoders are "
        "not read as encoders. Hint: use sentence-transformers for it."
    )


def _stored_dtype(weights: Weights, scales: Container[str]) -> DType:
    """Returns the dtype to compute in: the floating dtype of most of the stored bytes.

    8-bit floats are a storage format; they are computed with in bfloat16. Scales of quantised
    weights do not count.
    """
    nbytes: collections.Counter[DType] = collections.Counter()
    for name in weights:
        stored = weights.tensor_type(name)
        if stored.dtype.is_float() and name not in scales:
            nbytes[stored.dtype] += int(stored.nbytes)
    stored = nbytes.most_common(1)[0][0] if nbytes else DType.float32
    return stored if stored.size_in_bits > 8 else DType.bfloat16


def _stop_tokens(folder: Path, table: JsonObject) -> frozenset[int]:
    """Returns the end tokens; generation_config.json takes precedence if there is one."""
    value = table.get("eos_token_id")
    generation = folder / "generation_config.json"
    if has_file(generation):
        value = read_json(generation).get("eos_token_id", value)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int for token in listed):
        raise ModelError(f"{folder}: eos_token_id: expected an integer or a list of them.")
    return frozenset(listed)
