"""A folder that stands for a GGUF file, so that every function and command reads the file."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

from maxmod.models.gguf.config import config_of
from maxmod.models.gguf.kinds import KINDS
from maxmod.models.gguf.tensors import GGUFView
from maxmod.models.gguf.tokenizer import write_tokenizer
from maxmod.values.plain import JsonObject
from maxmod.weights.gguf import GGUFWeights, parts_of

SOURCE = "gguf.path"  # in the folder: where the file is

# Folders by the files that they stand for, and what would show that these were changed.
_Stamp = tuple[tuple[str, int, int], ...]
_MADE: dict[_Stamp, Path] = {}
# Files whose tensors are about to be read: reading a header takes a second for 50,000 tokens.
_OPEN: dict[Path, GGUFWeights] = {}


def folder_of_file(caller: str, path: Path) -> Path:
    """Returns a folder that stands for a GGUF file: with its config.json and its tokenizer.

    It is in the folder of temporary files, and is removed when the process ends. `open_weights`
    opens the tensors.

    Args:
        caller: For messages.
        path: The file, of a model in parts any of them.

    Raises:
        ModelError: If the architecture, or what its metadata say, is not supported.
        CheckpointError: If the file cannot be read.
    """
    stamp = _stamp([*parts_of(path), path.with_name("tokenizer.json")])
    if stamp not in _MADE:
        file = GGUFWeights(path)
        config = config_of(caller, file)
        folder = _new_folder(path.name)
        _write(folder / "config.json", config)
        (folder / SOURCE).write_text(str(path.absolute()), "utf-8")
        write_tokenizer(folder, path, file.fields)
        _OPEN[folder] = file
        _MADE[stamp] = folder
    return _MADE[stamp]


def open_weights(folder: Path) -> GGUFView | None:
    """Returns the tensors of the file that a folder stands for, with the names of its model."""
    source = folder / SOURCE
    if not source.is_file():
        return None
    file = _OPEN.pop(folder, None)
    file = file or GGUFWeights(source.read_text("utf-8"))
    kind = KINDS[str(file.fields["general.architecture"])]
    return GGUFView(file, kind, json.loads((folder / "config.json").read_text("utf-8")))


def _stamp(paths: list[Path]) -> _Stamp:
    found = [(path.absolute(), path.stat()) for path in paths if path.is_file()]
    return tuple((str(path), stat.st_mtime_ns, stat.st_size) for path, stat in found)


def _new_folder(name: str) -> Path:
    made, owner = tempfile.mkdtemp(prefix="maxmod-gguf-"), os.getpid()

    def remove() -> None:
        if os.getpid() == owner:  # a forked process has the same list of what is to be done
            shutil.rmtree(made, ignore_errors=True)

    atexit.register(remove)
    folder = Path(made, name)  # messages name it
    folder.mkdir()
    return folder


def _write(path: Path, table: JsonObject) -> None:
    path.write_text(json.dumps(table), "utf-8")
