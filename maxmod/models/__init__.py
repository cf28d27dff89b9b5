"""Pretrained models, read from Hugging Face folders.

>>> from maxmod.models import adder_folder, load_encoder, load_model
"""

from maxmod.models.encoder import TextEncoder
from maxmod.models.language import LanguageModel
from maxmod.models.registry import adder_folder, load_encoder, load_model

__all__ = ["LanguageModel", "TextEncoder", "adder_folder", "load_encoder", "load_model"]
