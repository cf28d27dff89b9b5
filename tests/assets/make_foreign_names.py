"""Writes the public names of PyTorch and NumPy: `foreign_names/` and `maxmod/op/foreign/known.py`.

    python tests/assets/make_foreign_names.py

Needs torch; run where the newest versions are installed.
"""

from __future__ import annotations

import textwrap
import types
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).parent
KNOWN = HERE.parents[1] / "maxmod/op/foreign/known.py"
HEAD = '''"""Every public name of PyTorch and NumPy that hints know.

Written by `tests/assets/make_foreign_names.py`.
"""

_NAMES = """
{names}
"""
KNOWN = frozenset(_NAMES.split())
'''


def public_names(holder: object) -> list[str]:
    """Returns the names of a module or class that are neither private nor modules."""
    names = [name for name in dir(holder) if not name.startswith("_")]
    return [n for n in names if not isinstance(getattr(holder, n, None), types.ModuleType)]


def main() -> None:
    holders = {
        "torch": torch,
        "torch.Tensor": torch.Tensor,
        "torch.nn": torch.nn,
        "torch.nn.Module": torch.nn.Module,
        "torch.nn.functional": torch.nn.functional,
    }
    lists = {name: public_names(holder) for name, holder in holders.items()}
    lists["numpy"] = [name for name in np.__all__ if not name.startswith("_")]
    for name, names in lists.items():
        (HERE / "foreign_names" / f"{name}.txt").write_text("\n".join(sorted(names)) + "\n")
    every = " ".join(sorted({name for names in lists.values() for name in names}))
    KNOWN.write_text(HEAD.format(names=textwrap.fill(every, 96)))


if __name__ == "__main__":
    main()
