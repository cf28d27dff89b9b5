"""Write the golden GPT-2 folders under ``tests/assets/gpt2``.

Run by hand, once, with ``torch``, ``transformers``, ``tokenizers`` and
``numpy`` installed; the tests only read what it wrote:

    python tests/assets/make_gpt2_fixtures.py

Each folder holds ``config.json`` and the weights as ``save_pretrained``
writes them, and ``golden.npz`` with ``input_ids_<i>`` (int64, batch by
sequence) and ``logits_<i>`` (float32, batch by sequence by vocabulary) for
i = 0, 1, 2.  The weights are random, and larger than a fresh model's, biases
and layer norm gains included: a wrong transpose, a skipped bias or another
activation function then moves the logits far.

``with_tokenizer`` has a byte-level BPE ``tokenizer.json`` besides, and
``golden.json``: what the tokenizer makes of some texts, and how the model
continues some prompts greedily.  Its model is fitted for a moment to the few
sentences below, so that the continuations are readable and no near-tie
between two tokens decides them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional
from transformers import GPT2Config, GPT2LMHeadModel

OUT = Path(__file__).resolve().parent / "gpt2"
END_OF_TEXT = "<|endoftext|>"
NEW_TOKENS = 12

# Written for this file; the tokenizer learns its few merges from them.
SENTENCES = [
    "The lighthouse keeper counted the boats and the boats counted the waves.",
    "In the morning the baker is baking bread, and in the evening she is reading.",
    "There are three ways to the station: over the hill, under the bridge, or along the river.",
    "They were waiting there for the other train, the one that never came in on time.",
    "It isn't raining, it's only the fountain; we'll be there when the bells are ringing.",
    "Another winter, another letter, another answer in the same thin handwriting.",
]

TEXTS = [
    "the bells are ringing",
    " The other  train\n\tnever came.",
    "It's 1234 o'clock, isn't it?",
    "naïve café, 東京 🙂",
    f"one{END_OF_TEXT}two",
    "",
]

# Two of them reach the end token before NEW_TOKENS are out.
PROMPTS = ["The light", "In the evening", "three answer", "when the bells are ring"]


def random_model(config: GPT2Config, seed: int) -> GPT2LMHeadModel:
    model = GPT2LMHeadModel(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator) * config.initializer_range
            is_gain = value.dim() == 1 and name.endswith("weight")
            value.copy_(1 + noise if is_gain else noise)
    return model.eval()


def make_config(**changes: object) -> GPT2Config:
    settings: dict = {
        "vocab_size": 97,
        "n_positions": 16,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "initializer_range": 0.2,
        "resid_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "attn_pdrop": 0.0,
        **changes,
    }
    last = settings["vocab_size"] - 1
    return GPT2Config(**{"bos_token_id": last, "eos_token_id": last, **settings})


def fit(model: GPT2LMHeadModel, rows: list[list[int]], steps: int) -> None:
    """Fit the model to a few rows of ids (all of them in every step)."""
    width = max(map(len, rows))
    ids = torch.tensor([row + row[-1:] * (width - len(row)) for row in rows])
    # cross_entropy leaves the label -100 out.
    labels = torch.tensor([row + [-100] * (width - len(row)) for row in rows])
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        logits = model(ids).logits
        loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(f"fitted to a loss of {loss.item():.3f}")


def write_golden(folder: Path, seed: int) -> None:
    """Read the folder back as float32 and store what it answers."""
    model, info = GPT2LMHeadModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    problems = {kind: found for kind, found in info.items() if found}
    assert not problems, (folder, problems)
    model.eval()
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    arrays = {}
    # All positions, but for the model with a tokenizer: its vocabulary is wide.
    longest = config.n_positions if config.vocab_size < 100 else 8
    for index, shape in enumerate([(1, 1), (2, 7), (1, longest)]):
        ids = torch.randint(config.vocab_size, shape, generator=generator)
        with torch.inference_mode():
            logits = model(ids, use_cache=False).logits
        arrays[f"input_ids_{index}"] = ids.numpy()
        arrays[f"logits_{index}"] = logits.numpy()
    np.savez(folder / "golden.npz", **arrays)


def write_model(name: str, model: GPT2LMHeadModel, seed: int, max_shard_size: str = "50GB") -> Path:
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    write_golden(folder, seed)
    return folder


def train_tokenizer(vocab_size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES, trainer)
    return tokenizer


def write_with_tokenizer(seed: int) -> None:
    tokenizer = train_tokenizer(300)
    end = tokenizer.token_to_id(END_OF_TEXT)
    config = make_config(
        vocab_size=tokenizer.get_vocab_size(),
        n_positions=56,
        n_embd=12,
        bos_token_id=end,
        eos_token_id=end,
    )
    model = random_model(config, seed)
    fit(model, [[*tokenizer.encode(sentence).ids, end] for sentence in SENTENCES], 400)
    folder = write_model("with_tokenizer", model, 106)
    tokenizer.save(str(folder / "tokenizer.json"))
    encodings = [{"text": text, "ids": tokenizer.encode(text).ids} for text in TEXTS]
    generations = []
    for prompt in PROMPTS:
        prompt_ids = tokenizer.encode(prompt).ids
        ids = torch.tensor([prompt_ids])
        output = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=NEW_TOKENS,
            pad_token_id=end,
        )
        new_ids = output[0, len(prompt_ids) :].tolist()
        generations.append(
            {
                "prompt": prompt,
                "prompt_ids": prompt_ids,
                "max_new_tokens": NEW_TOKENS,
                "new_ids": new_ids,
                # Without special tokens, as a reader would see it.
                "text": tokenizer.decode(new_ids, skip_special_tokens=True),
            }
        )
    golden = {"encodings": encodings, "generations": generations}
    (folder / "golden.json").write_text(json.dumps(golden, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    torch.set_num_threads(1)
    write_model("tied", random_model(make_config(), 11), 101)
    untied = make_config(
        vocab_size=41,
        n_embd=48,
        n_head=3,
        n_inner=80,
        activation_function="gelu",
        layer_norm_epsilon=1e-6,
        tie_word_embeddings=False,
    )
    write_model("untied_gelu", random_model(untied, 12), 102)
    write_model("sharded", random_model(make_config(), 13), 103, max_shard_size="50KB")
    narrow = make_config(n_embd=16, n_head=2)
    write_model("bfloat16", random_model(narrow, 14).to(torch.bfloat16), 104)
    scaled = make_config(
        vocab_size=53, n_embd=12, n_layer=3, n_head=2, scale_attn_by_inverse_layer_idx=True
    )
    write_model("inverse_layer_scale", random_model(scaled, 15), 105)
    write_with_tokenizer(16)


if __name__ == "__main__":
    main()
