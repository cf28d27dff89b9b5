"""Writes the table of supported models in README.md, between its markers.

    python .docs/generate_models.py [--check]

With `--check`, nothing is written, and the exit status is 1 if the table is not what would be
written. `tests/docs/test_models.py` runs that.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from maxmod.models.names import supported  # noqa: E402  (the checkout of this script)

README = ROOT / "README.md"
START, END = "<!-- models: .docs/generate_models.py -->\n", "<!-- end of models -->\n"
FUNCTIONS = {
    "load_model": "`load_model`; most by `load_encoder`, `load_classifier` too",
    "load_encoder": "`load_encoder`, `load_classifier`, `load_tagger`, `load_masked_model`",
    "load_vision_model": "`load_vision_model`",
}


def table() -> str:
    """Returns the table: for each kind of function the models that it loads."""
    rows = ["| loaded by | models |", "|---|---|"]
    for first, functions in FUNCTIONS.items():
        names = ", ".join(found.names for found in supported() if found.functions[0] == first)
        rows.append(f"| {functions} | {names} |")
    return "\n".join(rows) + "\n"


def written(text: str) -> str:
    """Returns README.md with the table of now."""
    before, rest = text.split(START)
    return before + START + table() + END + rest.split(END)[1]


def main() -> int:
    """Runs the script."""
    parser = argparse.ArgumentParser(description="Writes the table of models in README.md.")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 if it would")
    text = README.read_text("utf-8")
    new = written(text)
    if parser.parse_args().check:
        return int(new != text)
    README.write_text(new, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
