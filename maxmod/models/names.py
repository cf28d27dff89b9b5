"""The names by which people know the models of each architecture."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from maxmod.models.architectures import KINDS

# By the `model_type` of config.json, in the order in which they are listed.
NAMES = {
    "llama": "Llama 2 to 3.2",
    "mistral": "Mistral",
    "ministral": "Ministral",
    "ministral3": "Ministral 3",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen3": "Qwen3",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 (text)",
    "gemma3": "Gemma 3 (its text model)",
    "mistral3": "Mistral Small 3.1, Ministral 3 with images (its text model)",
    "qwen2_vl": "Qwen2-VL (its text model)",
    "qwen2_5_vl": "Qwen2.5-VL (its text model)",
    "qwen3_vl": "Qwen3-VL (its text model)",
    "phi3": "Phi-3, Phi-3.5, Phi-4",
    "smollm3": "SmolLM3",
    "granite": "Granite 3",
    "olmo2": "OLMo 2",
    "olmo3": "OLMo 3",
    "starcoder2": "StarCoder2",
    "cohere": "Command R, Aya",
    "cohere2": "Command R7B, Command A",
    "glm": "GLM-4",
    "glm4": "GLM-4-0414",
    "gpt_neox": "Pythia, GPT-NeoX",
    "opt": "OPT",
    "gpt2": "GPT-2",
    "bert": "BERT, MiniLM, BGE, E5",
    "roberta": "RoBERTa",
    "xlm-roberta": "XLM-RoBERTa, BGE-M3",
    "camembert": "CamemBERT",
    "distilbert": "DistilBERT",
    "mpnet": "MPNet",
    "electra": "ELECTRA",
    "albert": "ALBERT",
    "deberta-v2": "DeBERTa v2 and v3",
    "modernbert": "ModernBERT",
    "nomic_bert": "NomicBERT",
    "vit": "ViT",
}


class Supported(NamedTuple):
    """An architecture that can be loaded.

    Attributes:
        names: The names of its models.
        model_type: Its name in config.json.
        functions: The functions that load it.
    """

    names: str
    model_type: str
    functions: tuple[str, ...]


def supported() -> Iterator[Supported]:
    """Yields every architecture that this version loads."""
    for model_type, names in NAMES.items():
        functions = tuple(name for name, kinds in KINDS.items() if model_type in kinds)
        yield Supported(names, model_type, functions)
