"""Text generation: one token after another, each from the logits after all tokens before it.

>>> from maxmod.generate import generate_text
>>> from maxmod.models import adder_folder, load_model
>>> "".join(generate_text(load_model(adder_folder()), "123+456="))
'579'

`LanguageModel.generate` and `LanguageModel.stream` are the short way to it.
"""

from __future__ import annotations

from maxmod.generate.encoding import encode_prompt
from maxmod.generate.loop import Generator, generate, generate_batch, generate_text
from maxmod.generate.many import Request, generate_many

__all__ = [
    "Generator",
    "Request",
    "encode_prompt",
    "generate",
    "generate_batch",
    "generate_many",
    "generate_text",
]
