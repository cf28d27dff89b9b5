"""Write the golden folder of an encoder under ``tests/assets/bert``.

Run by hand, once, with ``torch``, ``transformers``, ``tokenizers`` and
``numpy`` installed; the tests only read what it wrote:

    python tests/assets/make_bert_fixtures.py

The folder has the files that ``save_pretrained`` writes, a WordPiece
tokenizer, and the small files of the sentence-transformers library, written
here in its form.  ``golden.json`` holds texts and their tokens;
``golden.npz`` holds ``tokens`` (filled up with 0), ``lengths``, ``hidden``
(float32, text by token by width), ``half`` (of the model in bfloat16), and
``mean`` and ``cls``: the vector of each text, scaled to length 1.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

OUT = Path(__file__).resolve().parent / "bert" / "sentences"

WORDS = ["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "bridge", "and", "is", "it"]
WORDS += ["fast", "slow", "rain", "sun"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *"abcdefghijklmnopqrstuvwxyz"]
PIECES += [f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["##ing", "##s", ".", "?"]
PIECES = list(dict.fromkeys(PIECES))

TEXTS = ["The cat sat on the mat.", "Dogs ran under a bridge", "?", "It is raining, isn't it?"]


def make_tokenizer(pieces: list[str] = PIECES) -> Tokenizer:
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(
        ("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"])
    )
    tokenizer.enable_truncation(8)  # as such folders often have it; it must not count
    tokenizer.enable_padding(length=8)
    return tokenizer


def write_json(name: str, value: object) -> None:
    path = OUT / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1) + "\n", "utf-8")


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    config = BertConfig(
        vocab_size=len(PIECES),
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=20,
        initializer_range=0.3,
    )
    model = BertModel(config).eval()
    generator = torch.Generator().manual_seed(31)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator) * config.initializer_range
            is_gain = value.dim() == 1 and name.endswith("weight")
            value.copy_(1 + noise if is_gain else noise)
    model.to(torch.bfloat16).save_pretrained(OUT)
    tokenizer = make_tokenizer()
    tokenizer.save(str(OUT / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    parts = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds)
    ]
    write_json("modules.json", parts)
    modes = ["cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens"]
    pooling = {f"pooling_mode_{mode}": mode == "mean_tokens" for mode in modes}
    write_json("1_Pooling/config.json", {"word_embedding_dimension": 24, **pooling})
    write_json("sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": False})

    rows = [tokenizer.encode(text).ids for text in TEXTS]
    write_json("golden.json", {"texts": TEXTS, "tokens": rows})
    lengths = torch.tensor([len(row) for row in rows])
    tokens = torch.zeros((len(rows), int(lengths.max())), dtype=torch.int64)
    for line, row in zip(tokens, rows):
        line[: len(row)] = torch.tensor(row)
    mask = (torch.arange(tokens.shape[1]) < lengths[:, None]).to(torch.int64)
    hidden = {}
    for dtype in (torch.float32, torch.bfloat16):
        loaded = BertModel.from_pretrained(OUT, dtype=dtype, attn_implementation="eager").eval()
        with torch.inference_mode():
            hidden[dtype] = loaded(tokens, attention_mask=mask).last_hidden_state.float()
    wide = hidden[torch.float32]
    mean = (wide * mask[..., None]).sum(1) / lengths[:, None]
    np.savez_compressed(
        OUT / "golden.npz",
        tokens=tokens.numpy(),
        lengths=lengths.numpy(),
        hidden=wide.numpy(),
        half=hidden[torch.bfloat16].numpy(),
        mean=torch.nn.functional.normalize(mean).numpy(),
        cls=torch.nn.functional.normalize(wide[:, 0]).numpy(),
    )


if __name__ == "__main__":
    main()
