"""Whole models with host kernels as the product builds them; other files here build with -O0."""

from __future__ import annotations

import numpy as np
import pytest
from models.folders import ASSETS, golden

from maxmod import CPU, DType, Tensor
from maxmod.models import load_model

OPTIMISED = True  # see conftest.py
RELATIVE = 1e-4  # of the largest logit, as in the other files

# Norms, biases and erf of GPT-2; rotary tables, groups of heads and a gated MLP of Llama.
FOLDERS = ("gpt2/tied", "llama/llama32")


@pytest.mark.parametrize("name", FOLDERS)
def test_logits_of_optimised_kernels(name: str) -> None:
    model = load_model(ASSETS / name, device=CPU(), dtype=DType.float32)
    compiled = model.module.compile(model.tokens_type)
    for tokens, expected in golden(ASSETS / name):
        found = compiled(Tensor(tokens, device=CPU())).to_numpy()
        atol = RELATIVE * np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
