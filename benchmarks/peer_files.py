"""Writes GPT-2 small with random weights in the formats of each library of `decode_model.py`.

    python benchmarks/peer_files.py FOLDER [--smoke]
    python benchmarks/decode.py --model FOLDER/float32 --gguf FOLDER/gpt2-*.gguf \\
        --ctranslate2 FOLDER/ctranslate2-*

- `float32/` and `bfloat16/`: folders as transformers has them, which maxmod reads too.
- `gpt2-F32.gguf`, `-BF16`, `-Q8_0` and `-Q4_1`: for llama.cpp, where `gguf` is installed. Matrices
  have the format of the name, all else is float32.
- `ctranslate2-float32/` and `-int8/`: where CTranslate2 and transformers are installed.

Words of the vocabulary are numbers: benchmarks give numbers of tokens, never a text.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import decode
import gpt2_prefill
import harness
import numpy as np

from maxmod import DType
from maxmod.models.decoders import gpt2

GGUF_FORMATS = ("F32", "BF16", "Q8_0", "Q4_1")
CTRANSLATE2_KINDS = ("float32", "int8")
END = "<|endoftext|>"

# Names of GPT-2's tensors in a GGUF file, by those of transformers.
_GGUF_TENSORS = {
    "wte": "token_embd",
    "wpe": "position_embd",
    "ln_f": "output_norm",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def words_of(config: gpt2.Config) -> list[str]:
    """Returns a vocabulary: the bytes as GPT-2 writes them are not needed, only as many words."""
    return [*(f"w{n}" for n in range(config.vocab_size - 1)), END]


def write_tokenizer(folder: Path, config: gpt2.Config) -> None:
    """Writes the files that converters ask for."""
    vocabulary = {word: number for number, word in enumerate(words_of(config))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    (folder / "merges.txt").write_text("#version: 0.2\n", "utf-8")
    special = {"bos_token": END, "eos_token": END, "unk_token": END}
    table = {"tokenizer_class": "GPT2Tokenizer", "model_max_length": config.n_positions, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(table), "utf-8")


def gguf_name(name: str) -> str:
    """Returns the name of a tensor in a GGUF file."""
    layer, words = "", name.split(".")
    if words[0] == "h":
        layer, words = f"blk.{words[1]}.", words[2:]
    return f"{layer}{_GGUF_TENSORS['.'.join(words[:-1])]}.{words[-1]}"


def write_gguf(path: Path, config: gpt2.Config, weights: gpt2_prefill.Weights, kind: str) -> None:
    """Writes a file for llama.cpp; weights are [out, in] there, as in maxmod."""
    import gguf

    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    _add_vocabulary(writer, words_of(config))
    format = gguf.GGMLQuantizationType[kind]
    for name, weight in weights.items():
        is_matrix = weight.ndim == 2 and not name.startswith("wpe.") and kind != "F32"
        if is_matrix:
            data = gguf.quants.quantize(weight, format)
            writer.add_tensor(gguf_name(name), data, raw_dtype=format)
        else:
            writer.add_tensor(gguf_name(name), np.ascontiguousarray(weight))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_vocabulary(writer: Any, words: list[str]) -> None:
    import gguf

    normal, control = int(gguf.TokenType.NORMAL), int(gguf.TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(words)
    writer.add_token_types([*(normal for _ in words[1:]), control])
    writer.add_token_merges(["w 0"])
    writer.add_bos_token_id(len(words) - 1)
    writer.add_eos_token_id(len(words) - 1)


def write_ctranslate2(folder: Path, source: Path, kind: str) -> None:
    """Converts a folder of transformers for CTranslate2."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(source)).convert(str(folder), quantization=kind, force=True)


def write_all(folder: Path, config: gpt2.Config) -> list[Path]:
    """Writes everything that an installed package can write, and returns the paths."""
    made: list[Path] = []
    for dtype in (DType.float32, DType.bfloat16):
        place = folder / dtype.name
        place.mkdir(parents=True, exist_ok=True)
        decode.write_folder(place, config, dtype)
        write_tokenizer(place, config)
        made.append(place)
    _, weights = gpt2_prefill.make_model(config)
    if harness.is_installed("gguf"):
        for kind in GGUF_FORMATS:
            made.append(folder / f"gpt2-{kind}.gguf")
            write_gguf(made[-1], config, weights, kind)
    if harness.is_installed("ctranslate2") and harness.is_installed("transformers"):
        for kind in CTRANSLATE2_KINDS:
            made.append(folder / f"ctranslate2-{kind}")
            write_ctranslate2(made[-1], folder / "float32", kind)
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smoke", action="store_true", help="a tiny model")
    args = parser.parse_args()
    for path in write_all(args.folder, gpt2_prefill.TINY if args.smoke else gpt2_prefill.SMALL):
        print(path)


if __name__ == "__main__":
    main()
