"""Files that are not what their name says, told by their first bytes: failed downloads and such."""

from __future__ import annotations

from typing import NamedTuple

_AGAIN = "The download failed or needs a login; download it again."
_CONVERT = "Convert it to safetensors first."
PYTORCH = " (a PyTorch file?)"


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
    Foreign(b"pk\x03\x04", f"a zip archive{PYTORCH}", _CONVERT),
    Foreign(b"\x80\x02", f"a pickle{PYTORCH}", _CONVERT),
    Foreign(b"gguf", "a GGUF file", "load_model reads it, and maxmod inspect shows it."),
    Foreign(b"\x89hdf\r\n", "an HDF5 file", _CONVERT),
    Foreign(b"\x1f\x8b", "a gzip archive", "Unpack it first."),
)


def foreign_page(data: bytes) -> Foreign | None:
    """Returns what stands in place of a file whose download failed; None if nothing is known."""
    return _found(data, _PAGES)


def foreign_weights(data: bytes) -> Foreign | None:
    """Returns what else the start of a weight file may be; None if nothing is known."""
    return _found(data, _PAGES + _FORMATS)


def conversion_lines(source: str, target: str) -> str:
    """Returns the two lines of Python that convert files of PyTorch, where torch is installed.

    Args:
        source: A pattern of `glob` for the files.
        target: The .safetensors file to write.
    """
    return (
        "With torch installed, these lines convert it:\n"
        "    import glob, torch; from safetensors.torch import save_file\n"
        "    save_file({name: t.clone().contiguous() for file in sorted(glob.glob("
        f"{source!r})) for name, t in torch.load(file, map_location='cpu', weights_only=True)"
        f".items()}}, {target!r}, {{'format': 'pt'}})\n"
        "A Module takes it as it is: module.load_state_dict(torch.load(FILE, weights_only=True))."
    )


def _found(data: bytes, kinds: tuple[Foreign, ...]) -> Foreign | None:
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    return next((kind for kind in kinds if start.startswith(kind.start)), None)
