"""`python -m maxmod` is the `maxmod` command."""

from __future__ import annotations

import sys

from maxmod.cli import main

if __name__ == "__main__":
    sys.exit(main())
