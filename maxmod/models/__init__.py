"""Pretrained models, read from Hugging Face folders.

>>> from maxmod.models import adder_folder, load_encoder, load_model, load_vision_model
"""

from maxmod.models.encoder import TextEncoder
from maxmod.models.language import LanguageModel
from maxmod.models.masked_model import MaskedModel, Word
from maxmod.models.quantized_folder import save_quantized
from maxmod.models.registry import (
    adder_folder,
    load_classifier,
    load_encoder,
    load_masked_model,
    load_model,
    load_tagger,
    load_vision_model,
)
from maxmod.models.text_classifier import TextClassifier
from maxmod.models.token_tagger import Tag, TokenTagger
from maxmod.models.vision import VisionModel

__all__ = [
    "LanguageModel",
    "MaskedModel",
    "Tag",
    "TextClassifier",
    "TextEncoder",
    "TokenTagger",
    "VisionModel",
    "Word",
    "adder_folder",
    "load_classifier",
    "load_encoder",
    "load_masked_model",
    "load_model",
    "load_tagger",
    "load_vision_model",
    "save_quantized",
]
