"""Plain Python values, for annotations: numbers, what JSON holds, static arguments of ops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

Scalar: TypeAlias = bool | int | float | np.generic
"""A number or bool of Python or NumPy."""

Numbers: TypeAlias = "Scalar | Sequence[Numbers]"
"""A number, or nested sequences of numbers."""

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""What JSON holds, and what may be written as JSON."""

JsonObject: TypeAlias = dict[str, Any]
"""An object of a JSON file by its names, such as `config.json` of a model.

Which type stands under a name is for the reader of the file to know; a union would have to be
taken apart at every name.
"""

Attrs: TypeAlias = dict[str, Any]
"""The static arguments of a call of an op, by name.

The type of each is the one that the parameter of the op is annotated with. Ops are records, so that
no type checker can follow a name to its op; code that does not look at values takes
`Mapping[str, object]`.
"""
