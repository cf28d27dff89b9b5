"""Pretrained models, read from Hugging Face folders.

>>> from maxmod.models import adder_folder, load_encoder, load_model, load_vision_model
"""

from maxmod.models.encoder import TextEncoder
from maxmod.models.language import LanguageModel
from maxmod.models.quantized_folder import save_quantized
from maxmod.models.registry import adder_folder, load_encoder, load_model, load_vision_model
from maxmod.models.vision import VisionModel

__all__ = [
    "LanguageModel",
    "TextEncoder",
    "VisionModel",
    "adder_folder",
    "load_encoder",
    "load_model",
    "load_vision_model",
    "save_quantized",
]
