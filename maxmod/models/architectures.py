"""The architectures: which function loads each, and how a module is made of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from maxmod.models import vit
from maxmod.models.config import ModelConfig, from_table
from maxmod.models.config_fields import CONFIG as CONFIG_FIELDS
from maxmod.models.decoders import (
    as_encoder,
    cohere,
    gemma,
    glm,
    gpt2,
    gpt_neox,
    granite,
    llama,
    ministral,
    olmo2,
    opt,
    phi3,
    smollm3,
    starcoder2,
)
from maxmod.models.encoders import (
    albert,
    bert,
    deberta,
    distilbert,
    electra,
    modernbert,
    mpnet,
    nomic_bert,
    roberta,
)
from maxmod.models.encoders.family import Family
from maxmod.models.folder import CONFIG, read_config, unsupported
from maxmod.models.formats.methods import FIELD
from maxmod.models.parallel import DECODER, Parallel
from maxmod.models.quantized_folder import is_marked
from maxmod.models.text_part import PARTS, only_text, text_fields
from maxmod.nn import Module
from maxmod.nn.places import warn
from maxmod.tensor.like import StateLike
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights


@dataclass(frozen=True, slots=True)
class Architecture:
    """How to make one kind of model.

    Attributes:
        config: Dataclass of the fields of config.json.
        module: Makes the module of a configuration, and of a number of labels where it has some.
        adapt: Gives the weights of a folder the names and layouts of the module, by its
            configuration.
        defaults: Fields that config.json may leave out, where the dataclass has another default.
        parallel: How it is divided among several devices; None if it is not.
    """

    config: type[ModelConfig]
    module: Callable[..., Module]
    adapt: Callable[[StateLike, ModelConfig], Weights]
    defaults: Mapping[str, object] = field(default_factory=dict)
    parallel: Parallel | None = None


def _by_name(adapt: Callable[[StateLike], Weights]) -> Callable[[StateLike, ModelConfig], Weights]:
    """For weights that are adapted whatever the configuration is."""
    return lambda weights, config: adapt(weights)


def _decoder(family: Any, defaults: Mapping[str, object]) -> Architecture:
    """A decoder of `maxmod.models.decoders`; most folders have the names of its module."""
    adapt = getattr(family, "adapt_weights", _by_name(llama.adapt_weights))
    parallel = getattr(family, "PARALLEL", DECODER)
    return Architecture(family.Config, family.make_module, adapt, defaults, parallel)


# By the `model_type` of config.json.
ARCHITECTURES = {
    "gpt2": Architecture(
        gpt2.Config, gpt2.GPT2, _by_name(gpt2.adapt_weights), parallel=gpt2.PARALLEL
    ),
    **{
        name: Architecture(
            llama.Config, llama.make_module, _by_name(llama.adapt_weights), defaults, DECODER
        )
        for name, defaults in llama.DEFAULTS.items()
    },
    **{name: _decoder(gemma, defaults) for name, defaults in gemma.DEFAULTS.items()},
    "gpt_neox": _decoder(gpt_neox, gpt_neox.DEFAULTS),
    "glm": _decoder(glm, glm.DEFAULTS),
    "glm4": _decoder(glm, glm.DEFAULTS),
    "granite": _decoder(granite, {}),
    **{name: _decoder(ministral, defaults) for name, defaults in ministral.DEFAULTS.items()},
    "opt": _decoder(opt, opt.DEFAULTS),
    "phi3": _decoder(phi3, phi3.DEFAULTS),
    "smollm3": _decoder(smollm3, smollm3.DEFAULTS),
    "starcoder2": _decoder(starcoder2, starcoder2.DEFAULTS),
    **{name: _decoder(cohere, defaults) for name, defaults in cohere.DEFAULTS.items()},
    **{name: _decoder(olmo2, defaults) for name, defaults in olmo2.DEFAULTS.items()},
}


def _text_part(name: str, table: JsonObject) -> Architecture:
    """The text model in a model of images and text, which its config.json names."""
    found = ARCHITECTURES[PARTS[name].model_type(table)]
    return dataclasses.replace(found, adapt=only_text(found.adapt))


ARCHITECTURES |= {name: _text_part(name, {}) for name in PARTS}
FAMILIES: dict[str, Family] = {
    "albert": albert.ALBERT,
    "bert": bert.BERT,
    "camembert": roberta.ROBERTA,
    "deberta-v2": deberta.DEBERTA,
    "distilbert": distilbert.DISTILBERT,
    "electra": electra.ELECTRA,
    "modernbert": modernbert.MODERNBERT,
    "mpnet": mpnet.MPNET,
    "nomic_bert": nomic_bert.NOMIC_BERT,
    "roberta": roberta.ROBERTA,
    "xlm-roberta": roberta.ROBERTA,
}
VISION = {"vit": Architecture(vit.Config, vit.make_module, _by_name(vit.adapt_weights))}


def _encoder(family: Family) -> Architecture:
    """The encoder without a head; a warning names a head for labels that is left out."""

    def adapt(weights: StateLike) -> Weights:
        heads = family.label_weights(weights)
        if heads:
            warn(
                "load_encoder: the folder has a head for labels, which is left out: "
                f"{', '.join(heads)[:200]}. The encoder gives vectors of texts only."
            )
        return family.encoder_weights(weights)

    return Architecture(family.config, family.module, _by_name(adapt), family.defaults)


def _decoder_as_encoder(decoder: Architecture, both_ways: bool = False) -> Architecture:
    return dataclasses.replace(
        decoder,
        module=partial(as_encoder.make_module, decoder.module, both_ways),
        adapt=partial(as_encoder.adapt_weights, decoder.adapt),
    )


def _decoder_as_classifier(decoder: Architecture) -> Architecture:
    return dataclasses.replace(
        decoder,
        module=partial(as_encoder.make_classifier, decoder.module),
        adapt=partial(as_encoder.adapt_weights, decoder.adapt),
    )


def in_direction(caller: str, found: Architecture, table: JsonObject, where: Path) -> Architecture:
    """Lets the tokens of a decoder see those behind them, if config.json says so."""
    decoder = ARCHITECTURES.get(str(table.get("model_type")))
    if decoder is None:
        return found
    return _decoder_as_encoder(decoder, as_encoder.sees_both_ways(table))


def _with_head(task: str) -> dict[str, Architecture]:
    """The encoders with a head; `module` takes the number of labels as well."""
    return {
        name: Architecture(
            family.config,
            partial(family.with_head, task),
            _by_name(partial(family.weights_with_head, task)),
            family.defaults,
        )
        for name, family in FAMILIES.items()
        if task in family.heads
    }


# Decoders that read texts for other functions, too.
_TEXT_READERS = {
    name: decoder for name, decoder in ARCHITECTURES.items() if name not in ("gpt2", "opt", *PARTS)
}
# The function that loads each kind of model.
KINDS: dict[str, dict[str, Architecture]] = {
    "load_model": ARCHITECTURES,
    "load_encoder": {
        **{name: _encoder(family) for name, family in FAMILIES.items()},
        **{name: _decoder_as_encoder(decoder) for name, decoder in _TEXT_READERS.items()},
    },
    "load_classifier": {
        **_with_head("sequence"),
        **{name: _decoder_as_classifier(decoder) for name, decoder in _TEXT_READERS.items()},
    },
    "load_tagger": _with_head("tokens"),
    "load_masked_model": _with_head("words"),
    "load_vision_model": VISION,
}


def architecture_of(caller: str, table: JsonObject) -> Architecture:
    """Returns how a loading function makes the model of a config.json that it knows."""
    name = table["model_type"]
    return _text_part(name, table) if name in PARTS else KINDS[caller][name]


def read_fields(caller: str, folder: Path, table: JsonObject, strict: bool) -> ModelConfig:
    """Returns the configuration of a model from its config.json."""
    name = table.get("model_type")
    if not isinstance(name, str) or name not in KINDS[caller]:
        raise unsupported(caller, folder, table, KINDS)
    architecture = architecture_of(caller, table)
    is_marked(table, folder / CONFIG)
    if name in PARTS:
        table = text_fields(PARTS[name], table, folder / CONFIG, strict)
        name = str(table["model_type"])
    fields = {**architecture.defaults, **table, FIELD: None}
    where, known = str(folder / CONFIG), CONFIG_FIELDS[name]
    if caller == "load_encoder" and name in ARCHITECTURES:
        if as_encoder.says_direction(table):
            known = dataclasses.replace(known, code=as_encoder.KNOWN_CODE.get(name, known.code))
        fields = as_encoder.without_direction(fields)
    if caller == "load_classifier":
        classes = known.classes | known.headed
        known = dataclasses.replace(known, classes=classes, headed=frozenset())
    return from_table(architecture.config, fields, where, known=known, strict=strict)


def config_of(caller: str, folder: Path) -> JsonObject:
    """Reads config.json; a BERT of 2018 gets the field `model_type` that it did not have."""
    table = read_config(caller, folder)
    return table | {"model_type": "bert"} if bert.is_old_config(table) else table
