"""Files that are not what their name says, told by their first bytes: failed downloads and such."""

from __future__ import annotations

from typing import NamedTuple

_AGAIN = "The download failed or needs a login; download it again."
_CONVERT = "Convert it to safetensors first."


class Foreign(NamedTuple):
    """What a file is, and what to do about it."""

    start: bytes  # in lower case, after white space
    what: str
    hint: str


_PAGES = (
    Foreign(
        b"version https://git-lfs",
        "a git-lfs pointer",
        "Fetch the files with `git lfs pull` or `hf download`.",
    ),
    Foreign(b"<!doctype", "an HTML page", _AGAIN),
    Foreign(b"<html", "an HTML page", _AGAIN),
    Foreign(b"<head", "an HTML page", _AGAIN),
    Foreign(b"<?xml", "an XML page", _AGAIN),
)
_FORMATS = (
    Foreign(b"pk\x03\x04", "a zip archive (a PyTorch file?)", _CONVERT),
    Foreign(b"\x80\x02", "a pickle (a PyTorch file?)", _CONVERT),
    Foreign(b"gguf", "a GGUF file", "maxmod reads safetensors only."),
    Foreign(b"\x89hdf\r\n", "an HDF5 file", _CONVERT),
    Foreign(b"\x1f\x8b", "a gzip archive", "Unpack it first."),
)


def foreign_page(data: bytes) -> Foreign | None:
    """Returns what stands in place of a file whose download failed; None if nothing is known."""
    return _found(data, _PAGES)


def foreign_weights(data: bytes) -> Foreign | None:
    """Returns what else the start of a weight file may be; None if nothing is known."""
    return _found(data, _PAGES + _FORMATS)


def _found(data: bytes, kinds: tuple[Foreign, ...]) -> Foreign | None:
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for kind in kinds if start.startswith(kind.start)), None)
