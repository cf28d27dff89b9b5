"""Write ``tests/assets/decoder_vectors.npz``: decoders of other golden folders as encoders.

Run by hand, once, with ``torch``, ``transformers`` and ``numpy`` installed;
the tests only read what it wrote:

    python tests/assets/make_decoder_vectors.py

For each folder and direction it holds the last hidden states of rows of
several lengths, float32, as transformers computes them from padded rows; and
the logits of a classifier with a score for each of three labels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification

ASSETS = Path(__file__).resolve().parent
# Of a name its folder, and the fields that say what tokens see.
CASES: dict[str, tuple[str, dict[str, bool]]] = {
    "qwen3": ("decoders/yarn", {}),
    "mistral": ("llama/mistral", {}),
    "qwen2_both_ways": ("llama/qwen2", {"is_causal": False}),
    "gemma3_both_ways": ("llama/gemma3", {"use_bidirectional_attention": True}),
}
LENGTHS = (15, 6, 1)


def hidden(folder: Path, fields: dict[str, bool], tokens: np.ndarray) -> np.ndarray:
    config = AutoConfig.from_pretrained(folder)
    if "use_bidirectional_attention" in fields:
        config = type(config)(**(config.to_dict() | fields))
    elif fields:
        config.is_causal = False
        config.use_sliding_window, config.sliding_window = False, None
        config.layer_types = ["full_attention"] * config.num_hidden_layers
    model = AutoModel.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    mask = torch.tensor(np.arange(tokens.shape[1]) < np.array(LENGTHS)[:, None]).long()
    with torch.inference_mode():
        found = model(torch.tensor(tokens), attention_mask=mask, use_cache=False)
    return found.last_hidden_state.numpy()


def logits(folder: Path, score: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    model = AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=len(score), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    model.config.pad_token_id = 0
    mask = torch.tensor(np.arange(tokens.shape[1]) < np.array(LENGTHS)[:, None]).long()
    with torch.inference_mode():
        model.score.weight.copy_(torch.tensor(score))
        found = model(torch.tensor(tokens) * mask, attention_mask=mask, use_cache=False)
    return found.logits.numpy()


def main() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(7)
    tokens = rng.integers(3, 61, (len(LENGTHS), max(LENGTHS)))
    arrays = {name: hidden(ASSETS / at, fields, tokens) for name, (at, fields) in CASES.items()}
    arrays["score"] = rng.normal(size=(3, 24)).astype(np.float32)
    arrays["logits"] = logits(ASSETS / CASES["qwen3"][0], arrays["score"], tokens)
    arrays |= {"tokens": tokens, "lengths": np.array(LENGTHS)}
    np.savez_compressed(ASSETS / "decoder_vectors.npz", **arrays)


if __name__ == "__main__":
    main()
