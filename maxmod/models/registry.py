"""`load_model` and its like: the model of a Hugging Face folder, chosen by its config.json."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from maxmod.distributed import Group
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.generate.defaults import GenerationDefaults
from maxmod.generate.special_tokens import end_tokens
from maxmod.models.architectures import (
    KINDS,
    Architecture,
    config_of,
    in_direction,
    read_fields,
)
from maxmod.models.dense import load_dense
from maxmod.models.encoder import TextEncoder
from maxmod.models.encoders.heads import expect_tied
from maxmod.models.folder import CONFIG, find_folder, unsupported
from maxmod.models.formats.methods import method_of
from maxmod.models.labels import Labels, read_labels
from maxmod.models.language import LanguageModel
from maxmod.models.loading import Loaded, load
from maxmod.models.masked_model import MaskedModel
from maxmod.models.pooling import read_pooling
from maxmod.models.prompts import read_text_rules
from maxmod.models.quantized_folder import Rounding
from maxmod.models.text_classifier import TextClassifier
from maxmod.models.text_inputs import TextInputs
from maxmod.models.token_tagger import TokenTagger
from maxmod.models.vision import VisionModel
from maxmod.values.device import DeviceLike
from maxmod.values.plain import JsonObject
from maxmod.weights.json_files import read_json
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


def load_model(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
    sensitive: str = "int8",
    strict_config: bool = False,
    group: Group | None = None,
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
        group_size: As for `maxmod.quantize`, like the three below.
        skip: Linear layers to leave as they are.
        head: The scheme of the head, the layer that chooses among all tokens.
        sensitive: The scheme of the `sensitive_layers` of the module, where `quantize` is `"int4"`.
        strict_config: Refuse a folder whose config.json has a field that nobody here knows; else
            that is one warning. A field known to change what is computed is always refused.
        group: The processes that compute the model together, `maxmod.distributed.world()`: each
            reads its part of the weights, onto the device with its local rank. All of them make
            the same calls, and get the same tokens.

    Returns:
        The model; `model.module` is the module, with the weights.

    Raises:
        ModelError: (a ValueError) If the folder, its config.json or its architecture is unusable,
            or the processes of the group do not divide it.
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
    found = load(
        "load_model",
        folder,
        device=device,
        dtype=dtype,
        rounding=Rounding.of("load_model", quantize, group_size, skip, head, sensitive),
        strict=strict_config,
        group=group,
    )
    return LanguageModel(
        folder=found.folder,
        module=found.module,
        config=found.config,
        vocab_size=found.config.vocab_size,
        max_positions=found.config.max_positions,
        cache_shape=found.part.cache_shape,
        stop=_stop_tokens(found.folder, found.table) | end_tokens(found.folder),
        device=found.device,
        dtype=found.dtype,
        defaults=GenerationDefaults.read(found.folder),
        group=group or Group(),
    )


def load_encoder(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
    sensitive: str = "int8",
    strict_config: bool = False,
) -> TextEncoder:
    """Loads a pretrained encoder, or a decoder used as one, which turns texts into vectors.

    Args:
        folder: A folder as for `load_model`. The files of the sentence-transformers library are
            read as well: modules.json says how the vectors of the tokens of a text become one.
        device: As for `load_model`.
        dtype: As for `load_model`.
        quantize: As for `load_model`, like the four below. `"int4"` keeps 8 bits in the
            `sensitive_layers` of the module: half of the weights of BERT.
        group_size: As for `maxmod.quantize`.
        skip: Linear layers to leave as they are.
        head: As for `maxmod.quantize`.
        sensitive: `"int4"` gives the `sensitive_layers` 4 bits as well.
        strict_config: As for `load_model`, for all configuration files of the folder.

    Returns:
        The encoder: `load_encoder(folder).embed(["a text", "another"])`.

    Raises:
        ModelError: As for `load_model`, like the errors below.
        CheckpointError: If its weights cannot be read.
        WeightsError: If they do not fit the configuration.
        OutOfMemoryError: If they are larger than the free memory of the device.
    """
    found = load(
        "load_encoder",
        folder,
        device=device,
        dtype=dtype,
        rounding=Rounding.of("load_encoder", quantize, group_size, skip, head, sensitive),
        strict=strict_config,
        adjust=in_direction,
    )
    pooling = read_pooling(found.folder, strict=strict_config)
    width, dense = found.config.hidden_size * len(pooling.modes), []
    for name in pooling.dense:
        dense.append(load_dense(found.folder / name, width, found.device, strict=strict_config))
        width = dense[-1].width
    return TextEncoder(
        folder=found.folder,
        module=found.module,
        config=found.config,
        pooling=pooling,
        rules=read_text_rules(found.folder, found.config.max_positions, strict=strict_config),
        device=found.device,
        dtype=found.dtype,
        dense=dense,
    )


def load_classifier(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
    sensitive: str = "int8",
    strict_config: bool = False,
) -> TextClassifier:
    """Loads a pretrained classifier of texts: sentiments, topics, cross-encoders.

    Args:
        folder: A folder as for `load_model`, of an encoder, or a decoder, with a head for labels
            of a text (`...ForSequenceClassification`).
        device: As for `load_model`.
        dtype: As for `load_model`.
        quantize: As for `load_encoder`, like the four below.
        group_size: As for `maxmod.quantize`.
        skip: Linear layers to leave as they are.
        head: As for `maxmod.quantize`.
        sensitive: `"int4"` gives the `sensitive_layers` 4 bits as well.
        strict_config: As for `load_model`, for all configuration files of the folder.

    Returns:
        The classifier: `load_classifier(folder).classify(["a text", ("a text", "its pair")])`.

    Raises:
        ModelError: As for `load_model`, like the errors below; or if the folder has another head.
        CheckpointError: If its weights cannot be read.
        WeightsError: If they do not fit the configuration.
        OutOfMemoryError: If they are larger than the free memory of the device.
    """
    found = load(
        "load_classifier",
        folder,
        device=device,
        dtype=dtype,
        rounding=Rounding.of("load_classifier", quantize, group_size, skip, head, sensitive),
        strict=strict_config,
        adjust=_with_labels,
    )
    return TextClassifier(**_text_model(found, strict_config), label_rules=_labels_of(found))


def load_tagger(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
    sensitive: str = "int8",
    strict_config: bool = False,
) -> TokenTagger:
    """Loads a pretrained model of labels of tokens: names of people and places, parts of speech.

    Args:
        folder: A folder as for `load_model`, of an encoder with a head for labels of tokens
            (`...ForTokenClassification`).
        device: As for `load_model`.
        dtype: As for `load_model`.
        quantize: As for `load_encoder`, like the four below.
        group_size: As for `maxmod.quantize`.
        skip: Linear layers to leave as they are.
        head: As for `maxmod.quantize`.
        sensitive: `"int4"` gives the `sensitive_layers` 4 bits as well.
        strict_config: As for `load_model`, for all configuration files of the folder.

    Returns:
        The tagger: `load_tagger(folder).tag(["Ada lives in London."])`.

    Raises:
        ModelError: As for `load_model`, like the errors below; or if the folder has another head.
        CheckpointError: If its weights cannot be read.
        WeightsError: If they do not fit the configuration.
        OutOfMemoryError: If they are larger than the free memory of the device.
    """
    found = load(
        "load_tagger",
        folder,
        device=device,
        dtype=dtype,
        rounding=Rounding.of("load_tagger", quantize, group_size, skip, head, sensitive),
        strict=strict_config,
        adjust=_with_labels,
    )
    return TokenTagger(**_text_model(found, strict_config), label_rules=_labels_of(found))


def load_masked_model(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
    sensitive: str = "int8",
    strict_config: bool = False,
) -> MaskedModel:
    """Loads a pretrained model of masked words.

    Args:
        folder: A folder as for `load_model`, of an encoder with the head of its pretraining
            (`...ForMaskedLM` or `...ForPreTraining`).
        device: As for `load_model`.
        dtype: As for `load_model`.
        quantize: As for `load_encoder`, like the four below.
        group_size: As for `maxmod.quantize`.
        skip: Linear layers to leave as they are.
        head: As for `maxmod.quantize`.
        sensitive: `"int4"` gives the `sensitive_layers` 4 bits as well.
        strict_config: As for `load_model`, for all configuration files of the folder.

    Returns:
        The model: `load_masked_model(folder).fill(["Paris is the [MASK] of France."])`.

    Raises:
        ModelError: As for `load_model`, like the errors below; or if the folder has another head.
        CheckpointError: If its weights cannot be read.
        WeightsError: If they do not fit the configuration.
        OutOfMemoryError: If they are larger than the free memory of the device.
    """
    found = load(
        "load_masked_model",
        folder,
        device=device,
        dtype=dtype,
        rounding=Rounding.of("load_masked_model", quantize, group_size, skip, head, sensitive),
        strict=strict_config,
        adjust=_with_words,
    )
    return MaskedModel(**_text_model(found, strict_config))


def load_vision_model(
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None = None,
    dtype: DType | None = None,
    quantize: str | None = None,
    group_size: int | None = None,
    skip: str | Iterable[str] = (),
    head: str = "int8",
    sensitive: str = "int8",
    strict_config: bool = False,
) -> VisionModel:
    """Loads a pretrained vision model, which classifies images or turns them into vectors.

    Args:
        folder: A folder as for `load_model`, with preprocessor_config.json where images are to be
            read. Its config.json says whether the model has a classifier.
        device: As for `load_model`.
        dtype: As for `load_model`.
        quantize: As for `load_model`, like the four below.
        group_size: As for `maxmod.quantize`.
        skip: Linear layers to leave as they are.
        head: As for `maxmod.quantize`.
        sensitive: `"int4"` gives the `sensitive_layers` 4 bits as well.
        strict_config: As for `load_model`, for all configuration files of the folder.

    Returns:
        The model: `load_vision_model(folder).classify(["photo.jpg"])`.

    Raises:
        ModelError: As for `load_model`, like the errors below.
        CheckpointError: If its weights cannot be read.
        WeightsError: If they do not fit the configuration.
        OutOfMemoryError: If they are larger than the free memory of the device.
    """
    found = load(
        "load_vision_model",
        folder,
        device=device,
        dtype=dtype,
        rounding=Rounding.of("load_vision_model", quantize, group_size, skip, head, sensitive),
        strict=strict_config,
    )
    return VisionModel(
        found.folder, found.module, found.config, found.device, found.dtype, strict_config
    )


def loader_of(folder: str | os.PathLike[str]) -> Callable[..., Any]:
    """Returns the function that loads a folder: `load_model` or one of the others.

    Raises:
        ModelError: If there is none for it; the message lists the known architectures.
    """
    folder = find_folder("load", folder)
    table = config_of("load", folder)
    name = table.get("model_type")
    if isinstance(name, str):
        # A decoder with the files of sentence-transformers is made for vectors.
        vectors = [load_encoder] if has_file(folder / "modules.json") else []
        for loader in (*_WITH_HEADS, *vectors, *_LOADERS):
            if name in KINDS[loader.__name__] and _has_head(table, loader.__name__):
                return loader
    raise unsupported("load", folder, table, KINDS)


# The first that fits a folder is taken.
_WITH_HEADS = (load_classifier, load_tagger)
_LOADERS = (load_model, load_encoder, load_vision_model)
_HEADS = {"load_classifier": "SequenceClassification", "load_tagger": "TokenClassification"}


def _has_head(table: JsonObject, loader: str) -> bool:
    """Whether a folder has the head that a loading function wants."""
    classes = table.get("architectures")
    named = classes[0] if isinstance(classes, list) and classes else ""
    return isinstance(named, str) and named.endswith(_HEADS.get(loader, ""))


def describe(folder: str | os.PathLike[str]) -> str:
    """Returns which known architecture a folder has, and which function loads it.

    Returns:
        Such as `llama, read by load_model`; or what the loading function would say.
    """
    try:
        caller = loader_of(folder).__name__
        folder = find_folder("load", folder)
        table = config_of("load", folder)
        return _described(caller, str(table["model_type"]), folder, table)
    except ModelError as error:
        return f"unknown: {str(error).removeprefix('load: ')}"


def _described(caller: str, name: str, folder: Path, table: JsonObject) -> str:
    try:
        read_fields(caller, folder, table, strict=False)
    except ModelError as error:
        return f"{name}, which {caller} cannot read: {error}"
    found = method_of(table, folder)
    by = "" if found is None else f", quantised by {found[0]}"
    return f"{name}{by}, read by {caller}"


def _text_model(found: Loaded, strict: bool) -> dict[str, Any]:
    """Returns the fields of a `TextModel`."""
    rules = read_text_rules(found.folder, found.config.max_positions, strict=strict)
    types = getattr(found.config, "type_vocab_size", 0)  # decoders have none
    return {
        "folder": found.folder,
        "module": found.module,
        "config": found.config,
        "inputs": TextInputs(found.folder, rules, found.config.vocab_size, types),
        "device": found.device,
        "dtype": found.dtype,
    }


def _labels_of(found: Loaded) -> Labels:
    """Returns the labels of a model that `_with_labels` made."""
    return read_labels(found.table, found.folder / CONFIG, _HEADS[found.caller])


def _with_labels(caller: str, found: Architecture, table: JsonObject, where: Path) -> Architecture:
    """Gives an architecture the number of its labels."""
    labels = read_labels(table, where, _HEADS[caller])
    return replace(found, module=partial(found.module, labels=len(labels.names)))


def _with_words(caller: str, found: Architecture, table: JsonObject, where: Path) -> Architecture:
    expect_tied(table, where)
    return replace(found, module=partial(found.module, labels=0))


def _stop_tokens(folder: Path, table: JsonObject) -> frozenset[int]:
    """Returns the end tokens; generation_config.json takes precedence if there is one."""
    inner = table.get("text_config")
    value = table.get(
        "eos_token_id", inner.get("eos_token_id") if isinstance(inner, dict) else None
    )
    generation = folder / "generation_config.json"
    if has_file(generation):
        value = read_json(generation).get("eos_token_id", value)
    listed = value if isinstance(value, list) else [] if value is None else [value]
    if not all(type(token) is int for token in listed):
        raise ModelError(f"{folder}: eos_token_id: expected an integer or a list of them.")
    return frozenset(listed)
