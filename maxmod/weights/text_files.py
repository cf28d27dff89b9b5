"""Reading the small files of a model folder (texts, vocabularies), which come from strangers."""

from __future__ import annotations

import os

from maxmod.errors import ModelError
from maxmod.system.files import read_regular
from maxmod.weights.foreign import foreign_page

MAX_BYTES = 64 << 20  # tokenizer.json of large vocabularies has 33 MB; more is another file


def has_file(path: str | os.PathLike[str]) -> bool:
    """Whether a folder has a file of that name; also if it is a link that leads nowhere.

    A file that is asked for and cannot be read is an error; only one that is not there is left out.
    """
    return os.path.lexists(path)


def read_bytes(path: str | os.PathLike[str], *, max_nbytes: int = MAX_BYTES) -> bytes:
    """Reads a small file of a model folder.

    Raises:
        ModelError: If it cannot be read, is larger than `max_nbytes`, is a folder, pipe or device,
            changes meanwhile, or is what a failed download leaves: a git-lfs pointer or an HTML
            page. The message has the path.
    """
    where = os.fspath(path)
    try:
        data = read_regular(where, max_nbytes)
    except OSError as error:
        raise ModelError(f"{where}: cannot read the file: {error.strerror or error}.") from None
    found = foreign_page(data)
    if found is not None:
        raise ModelError(f"{where}: got {found.what} in place of the file. Hint: {found.hint}")
    return data


def read_text(path: str | os.PathLike[str], *, max_nbytes: int = MAX_BYTES) -> str:
    """Reads a small text file of a model folder, in UTF-8, with or without a byte order mark.

    Raises:
        ModelError: As for `read_bytes`, also if it is not UTF-8.
    """
    data = read_bytes(path, max_nbytes=max_nbytes)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ModelError(
            f"{os.fspath(path)}: expected text in UTF-8, got the byte 0x{data[error.start]:02x} at "
            f"position {error.start}."
        ) from None
