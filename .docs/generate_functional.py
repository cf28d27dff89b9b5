"""Writes what follows from the list of ops: `maxmod/functional.py` and its pages of the reference.

    python .docs/generate_functional.py [--check]

A file of `maxmod/ops` is a family, and the names in its `__all__` are public. They become

- `maxmod/functional.py`, with imports that type checkers and editors can follow;
- one page for each family, `.docs/pages/reference/functional/FAMILY.md`;
- the table of families in `.docs/pages/reference/functional.md`, between its markers;
- the list of pages in `.docs/mkdocs.yml`, between its markers.

With `--check`, nothing is written: files that are not what would be written are listed, and the
exit status is 1. `tests/docs/test_functional.py` runs that. Names of the API are reviewed in
`tests/golden/public_names.txt`, which this script does not write.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import maxmod.ops  # noqa: E402  (the checkout of this script, not an installed package)

PAGES = ROOT / ".docs/pages/reference"
WIDTH = 100

# Other names of a function, as in PyTorch and NumPy.
ALIASES = {"clip": "clamp", "range": "arange"}

# Titles of pages where the name of the file does not do.
TITLES = {
    "collective": "Several devices",
    "context": "Context",
    "control_flow.functions": "Control flow",
    "conv": "Convolution",
    "create": "Creation",
    "custom": "Custom kernels",
    "elementwise": "Elementwise functions",
    "fft": "Fourier transforms",
    "gather": "Gather",
    "matmul": "Matrix products",
    "norm": "Normalisation and softmax",
    "pool": "Pooling",
    "random": "Random numbers",
    "reduce": "Reductions",
    "resample": "Resizing",
    "scatter": "Scatter",
    "shape": "Shapes",
    "sort": "Order",
    "split_concat": "Split and concatenate",
    "stores": "Stores into buffers",
    "weight_quantization": "Quantised weights",
}

_HEAD = '''"""Every op under its public name: `from maxmod import functional as F`.

Names that MAX lacks or spells otherwise stand beside its own (`range` and `arange`, `clip` and
`clamp`). Functions named like a built-in of Python are meant to be used as `F.sum`, `F.max`.

Written by `.docs/generate_functional.py` from the families in `maxmod/ops`.
"""

from __future__ import annotations

'''


class Family(NamedTuple):
    """A file of ops with public names.

    Attributes:
        module: Its path below `maxmod.ops`.
        summary: The first sentences of its docstring.
        names: What is public.
    """

    module: str
    summary: str
    names: list[str]

    @property
    def title(self) -> str:
        """The heading of its page."""
        return TITLES.get(self.module, self.module.replace("_", " ").capitalize())

    @property
    def page(self) -> str:
        """The name of its page."""
        return f"{self.module.partition('.')[0]}.md"


def families() -> list[Family]:
    """Returns the families by the name of their file."""
    found = []
    for info in pkgutil.walk_packages(maxmod.ops.__path__, "maxmod.ops."):
        module = importlib.import_module(info.name)
        if not info.ispkg and hasattr(module, "__all__"):
            summary = " ".join((module.__doc__ or "").partition("\n\n")[0].split())
            found.append(Family(info.name.removeprefix("maxmod.ops."), summary, module.__all__))
    return sorted(found)


def functional_text(listed: list[Family]) -> str:
    """Returns the text of `maxmod/functional.py`, as the formatter writes it."""
    imports = [_import(family) for family in listed]
    aliases = [f"{alias} = {name}" for alias, name in ALIASES.items()]
    names = sorted([*ALIASES, *(name for family in listed for name in family.names)])
    public = ["__all__ = [", *(f'    "{name}",' for name in names), "]"]
    return _HEAD + "\n".join([*imports, "", *aliases, "", *public, ""])


def _import(family: Family) -> str:
    start = f"from maxmod.ops.{family.module} import "
    names = sorted(family.names)
    line = start + ", ".join(names)
    return line if len(line) <= WIDTH else start + "(\n    " + ",\n    ".join(names) + ",\n)"


def page_text(family: Family) -> str:
    """Returns the page of a family."""
    parts = [
        f"# {family.title}",
        f"{family.summary} What every op raises is said [once](../functional.md#errors).",
    ]
    for name in sorted([*family.names, *(a for a, n in ALIASES.items() if n in family.names)]):
        is_alias = name in ALIASES
        entry = f"### {name}\n\nAnother name of `{ALIASES[name]}`." if is_alias else ""
        parts.append(entry or f"::: maxmod.functional.{name}")
    return "\n\n".join(parts) + "\n"


def _table(listed: list[Family]) -> str:
    rows = [
        f"| [{family.title}](functional/{family.page}) | "
        + ", ".join(f"`{name}`" for name in sorted(family.names))
        + " |"
        for family in listed
    ]
    return "\n".join(["", "| Family | Functions |", "|---|---|", *rows, ""])


def _nav(listed: list[Family]) -> str:
    lines = [f"          - {f.title}: reference/functional/{f.page}" for f in listed]
    return "\n".join([*lines, ""])


def _between(text: str, begin: str, end: str, content: str) -> str:
    """Returns a text with another content between the lines of two markers."""
    pattern = re.compile(f"({re.escape(begin)}[^\n]*\n).*?(?=[ ]*{re.escape(end)})", re.DOTALL)
    changed, count = pattern.subn(lambda match: match[1] + content, text)
    assert count == 1, f"expected one {begin!r} with {end!r} behind it"
    return changed


def texts() -> Iterator[tuple[Path, str]]:
    """Yields each file with what it must contain."""
    listed = sorted(families(), key=lambda family: family.title)
    yield ROOT / "maxmod/functional.py", functional_text(sorted(listed))
    for family in listed:
        yield PAGES / "functional" / family.page, page_text(family)
    head = PAGES / "functional.md"
    table = _between(head.read_text("utf-8"), "<!-- families", "<!-- end", _table(listed))
    yield head, table
    nav = ROOT / ".docs/mkdocs.yml"
    yield nav, _between(nav.read_text("utf-8"), "# families", "# end of families", _nav(listed))


def stale() -> list[Path]:
    """Returns the files that differ from what would be written, and pages of no family."""
    wanted = dict(texts())
    wrong = [p for p, text in wanted.items() if not p.exists() or p.read_text("utf-8") != text]
    return wrong + [p for p in (PAGES / "functional").glob("*.md") if p not in wanted]


def write() -> None:
    """Writes all files, and removes pages of families that are gone."""
    wanted = dict(texts())
    (PAGES / "functional").mkdir(exist_ok=True)
    for path in (PAGES / "functional").glob("*.md"):
        if path not in wanted:
            path.unlink()
    for path, text in wanted.items():
        path.write_text(text, "utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="only list files that are stale")
    if not parser.parse_args().check:
        write()
        return 0
    wrong = stale()
    for path in wrong:
        print(f"stale: {path.relative_to(ROOT)}; run: python .docs/generate_functional.py")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
