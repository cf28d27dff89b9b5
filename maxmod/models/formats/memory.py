"""What `maxmod inspect` says of the memory that a folder of another tool needs."""

from __future__ import annotations

from pathlib import Path

from maxmod.errors import ModelError
from maxmod.models.formats.methods import method_of, open_format
from maxmod.weights import Weights
from maxmod.weights.inspect import memory_line
from maxmod.weights.json_files import read_json
from maxmod.weights.mapping import format_nbytes


def memory_lines(path: Path, weights: Weights) -> list[str] | None:
    """Returns the lines for a folder that another tool quantised, or for a file in one.

    Args:
        path: The folder or file.
        weights: Its tensors as they are stored.

    Returns:
        The lines; None for other folders, whose tensors tell it.
    """
    folder = path if path.is_dir() else path.parent
    try:
        table = read_json(folder / "config.json")
        if method_of(table, folder) is None:
            return None
    except ModelError:
        return None  # the line on the architecture says what is wrong
    try:
        found = open_format(folder, table, weights)
    except ModelError as error:  # of a file alone it may be that another one has the rest
        return [f"quantised layers  cannot be read: {error}"] if path.is_dir() else []
    if found is None:
        return None
    kinds = [f"{count} read as {kind}" for kind, count in found.kinds().most_common()]
    lines = [f"quantised layers  {'; '.join(kinds)}"]
    nbytes = found.kept_nbytes()
    if nbytes is not None:
        lines.append(f"memory of the weights  {format_nbytes(nbytes)}")
    return [*lines, memory_line(found)]
