"""Write the golden folders of text encoders under ``tests/assets/encoders``.

Run by hand, once, with ``torch``, ``transformers``, ``tokenizers`` and
``numpy`` installed; the tests only read what it wrote:

    python tests/assets/make_encoder_fixtures.py

A folder for each family has what ``save_pretrained`` writes for the model of
masked words; ``sequence.safetensors`` and ``tokens.safetensors`` hold the
weights that the models with labels have besides. ``golden.npz`` holds
``tokens``, ``lengths`` and ``types`` of three rows, and what transformers
computes for them in float32: ``hidden``, and the logits ``sequence``,
``labels`` and ``words``. The folder of BERT has a tokenizer, and
``texts.json`` has what the pipelines of transformers return for some texts.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import torch
from make_bert_fixtures import PIECES, make_tokenizer
from safetensors.torch import save_file
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    PreTrainedTokenizerFast,
    pipeline,
)

OUT = Path(__file__).resolve().parent / "encoders"

USUAL = {"vocab_size": 40, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
USUAL |= {"intermediate_size": 24, "max_position_embeddings": 24, "pad_token_id": 1}
WORDS = [*PIECES, "[MASK]"]
BERT = USUAL | {"vocab_size": len(WORDS), "pad_token_id": 0, "max_position_embeddings": 20}
DEBERTA = {"relative_attention": True, "position_buckets": 4, "norm_rel_ebd": "layer_norm"}
DEBERTA |= {"share_att_key": True, "pos_att_type": "p2c|c2p", "position_biased_input": False}
MODERN = {"local_attention": 4, "bos_token_id": 0, "eos_token_id": 2, "cls_token_id": 0}
MODERN |= {"sep_token_id": 2, "num_hidden_layers": 3, "classifier_pooling": "mean"}
FAMILIES = {
    "albert": USUAL | {"embedding_size": 8, "num_hidden_layers": 3, "num_hidden_groups": 2},
    "bert": BERT,
    "camembert": USUAL,
    "deberta-v2": USUAL | DEBERTA,
    "distilbert": {"vocab_size": 40, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
    | {"max_position_embeddings": 24},
    "electra": USUAL | {"embedding_size": 8},
    "modernbert": USUAL | MODERN,
    "mpnet": USUAL,
    "nomic_bert": USUAL,
    "roberta": USUAL,
    "xlm-roberta": USUAL | {"type_vocab_size": 1},
}
SEQUENCE = {0: "bad", 1: "so so", 2: "good"}
TOKENS = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC", 4: "I-LOC"}

TEXTS = ["The cat sat on the mat.", "Dogs ran under a bridge", "?", "It is raining, isn't it?"]
PAIRS = [["The cat sat.", "Dogs ran fast."], ["?", "is it raining"]]
MASKED = ["The cat [MASK] on the mat.", "[MASK] ran under [MASK] bridge"]


def randomize(model: torch.nn.Module, seed: int) -> None:
    """Draws weights that are numbers of bfloat16."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator) * 0.3
            is_gain = value.dim() == 1 and name.endswith("weight")
            value.copy_((1 + noise if is_gain else noise).bfloat16())


def make(kind: str, fields: dict) -> None:
    folder = OUT / kind
    config = AutoConfig.for_model(kind, **fields)
    options = {"attn_implementation": "eager"}
    words = AutoModelForMaskedLM.from_config(config, **options).eval()
    randomize(words, 1)
    words.tie_weights()
    copy = AutoModelForMaskedLM.from_config(config, **options)
    copy.load_state_dict(words.state_dict())
    copy.to(torch.bfloat16).save_pretrained(folder)
    models = {"words": words}
    heads = {"sequence": (AutoModelForSequenceClassification, SEQUENCE)}
    heads["tokens"] = (AutoModelForTokenClassification, TOKENS)
    for name, (auto, labels) in heads.items():
        config = AutoConfig.for_model(kind, **fields, id2label=labels)
        model = auto.from_config(config, **options).eval()
        randomize(model, 2)
        known = words.state_dict()
        shared = {n: t for n, t in known.items() if n in model.state_dict() and "head" not in n}
        model.load_state_dict(model.state_dict() | shared)
        own = {n: t.bfloat16() for n, t in model.state_dict().items() if n not in shared}
        save_file(own, folder / f"{name}.safetensors")
        models[name] = model
    given = tokens_of(fields, words)
    mask = torch.tensor(np.arange(given["tokens"].shape[1]) < given["lengths"][:, None])
    inputs = {"input_ids": torch.tensor(given["tokens"]), "attention_mask": mask.long()}
    if getattr(config, "type_vocab_size", 0) > 1:
        inputs["token_type_ids"] = torch.tensor(given["types"])
    with torch.inference_mode():
        base = words.base_model(**inputs)
        found = {name: model(**inputs).logits.numpy() for name, model in models.items()}
    np.savez_compressed(
        folder / "golden.npz",
        **given,
        hidden=base.last_hidden_state.numpy(),
        sequence=found["sequence"],
        labels=found["tokens"],
        words=found["words"],
    )
    if kind == "bert":
        write_texts(folder, models)


def tokens_of(fields: dict, model: torch.nn.Module) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    lengths = np.array([13, 6, 1])
    tokens = rng.integers(2, fields["vocab_size"], (3, 13))
    types = np.broadcast_to(np.arange(13) > 4, (3, 13)).astype(np.int64)
    tokens[np.arange(13) >= lengths[:, None]] = model.config.pad_token_id
    return {"tokens": tokens, "lengths": lengths, "types": types}


def write_texts(folder: Path, models: dict[str, torch.nn.Module]) -> None:
    """Writes a tokenizer, and what the pipelines return with it."""
    plain_tokenizer = make_tokenizer(WORDS)
    plain_tokenizer.add_special_tokens(["[MASK]"])
    names = ("pad", "unk", "cls", "sep", "mask")
    special = {f"{name}_token": f"[{name.upper()}]" for name in names}
    inputs = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain_tokenizer, model_input_names=inputs, **special
    )
    tokenizer.save_pretrained(folder)
    options = {"tokenizer": tokenizer, "device": "cpu"}
    classify = pipeline("text-classification", model=models["sequence"], **options)
    tag = pipeline("token-classification", model=models["tokens"], **options)
    fill = pipeline("fill-mask", model=models["words"], **options)
    pairs = [{"text": first, "text_pair": second} for first, second in PAIRS]
    found = {
        "texts": TEXTS,
        "pairs": PAIRS,
        "masked": MASKED,
        "classes": classify(TEXTS, top_k=None) + [classify(pair, top_k=None) for pair in pairs],
        "fills": fill(MASKED, top_k=3),
    }
    for merge in ("none", "simple", "first"):
        rows = tag(TEXTS, aggregation_strategy=merge)
        found[merge] = [[plain(entry) for entry in row] for row in rows]
    (folder / "texts.json").write_text(json.dumps(found, indent=1, default=float) + "\n", "utf-8")


def plain(entry: dict) -> dict:
    label = entry.get("entity_group", entry.get("entity"))
    kept = {name: entry[name] for name in ("start", "end")}
    return {"label": label, "score": float(entry["score"]), **kept}


def main() -> None:
    torch.set_num_threads(1)
    shutil.rmtree(OUT, ignore_errors=True)
    for kind, fields in FAMILIES.items():
        make(kind, fields)


if __name__ == "__main__":
    main()
