"""Pretrained models, read from Hugging Face folders.

>>> from maxmod.models import adder_folder, load_model
"""

from maxmod.models.language import LanguageModel
from maxmod.models.registry import adder_folder, load_model

__all__ = ["LanguageModel", "adder_folder", "load_model"]
