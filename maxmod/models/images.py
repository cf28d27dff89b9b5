"""Reads images: files, images of Pillow and arrays become uint8 [height, width, 3], RGB.

Photos are turned as their EXIF orientation says, transparent images are laid on white, and 16 bits
become 8. What has no such meaning, such as floating-point pixels of an unknown range, is refused.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np

from maxmod.errors import ArgumentError, ModelError
from maxmod.values.array import HostArray

Array = HostArray

Image: TypeAlias = Any
"""An image of the package Pillow, which is imported inside of functions only."""

_EXPECTED = "images: expected a path, an image of Pillow, or uint8[height,width,3]"
_WHITE = (255, 255, 255, 255)
_ORIENTATION = 0x0112  # of EXIF
_IN_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_CONDITIONS = {
    "f": " (if the numbers are 0 to 1)",
    "i": " (if the numbers are 0 to 255)",
    "u": " (if all 16 bits are used)",
}
_BY_ITS_RANGE = (
    "Hint: map the range that it has to 8 bits: x = np.asarray(image, dtype=float), then "
    "Image.fromarray(np.uint8(255 * (x - x.min()) / (x.max() - x.min())))."
)


def rgb_pixels(image: object) -> Array:
    """Returns the pixels of an image.

    Args:
        image: The path of a file, an image of Pillow, or uint8 [height, width, 3], RGB.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ArgumentError: (a ValueError) If it is not an image, or of a kind without a meaning here.
        ModelError: If Pillow is not installed.
    """
    if isinstance(image, np.ndarray):
        _check_array(image)
        return np.asarray(image)
    pillow = pillow_image()
    if isinstance(image, (str, os.PathLike)):
        path = Path(image)
        with _wrapped(f"images: {path}: cannot read the image"):
            _check_file(path)
            with warnings.catch_warnings():
                # Pillow warns above half of what it refuses; photos of 108 megapixels are usual.
                warnings.simplefilter("ignore", pillow.DecompressionBombWarning)
                with pillow.open(path) as opened:
                    return _pixels(opened)
    if not isinstance(image, pillow.Image):
        raise ArgumentError(f"{_EXPECTED}, got {type(image).__name__}.{_hint_for(image)}")
    with _wrapped("images: cannot read the image of Pillow"):
        return _pixels(image)


def pillow_image() -> ModuleType:
    """Returns the module `PIL.Image`.

    Raises:
        ModelError: If Pillow is not installed.
    """
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise ModelError(
            f"images: reading and resizing them needs the package Pillow, which cannot be imported "
            f"({error}). Hint: pip install pillow."
        ) from None
    return PIL.Image


@contextmanager
def _wrapped(where: str) -> Iterator[None]:
    """Turns what decoders raise for damaged files, which is of all kinds, into an ArgumentError."""
    try:
        yield
    except (ArgumentError, ModelError):
        raise
    except Exception as error:
        hint = ""
        if type(error).__name__ == "DecompressionBombError":
            hint = (
                " Hint: make it smaller, or allow more: PIL.Image.MAX_IMAGE_PIXELS is half the "
                "limit."
            )
        text = f"{error}".strip() or type(error).__name__
        raise ArgumentError(f"{where}: {text.rstrip('.')}.{hint}") from None


def _check_file(path: Path) -> None:
    """Refuses what is not a file, before a pipe is waited for."""
    try:
        found = path.stat()
    except FileNotFoundError:
        hint = " Hint: nothing is downloaded." if ":/" in str(path) else ""
        raise ArgumentError(f"images: {path}: there is no such file.{hint}") from None
    if stat.S_ISDIR(found.st_mode):
        raise ArgumentError(f"images: {path}: expected a file, got a folder.")
    if not stat.S_ISREG(found.st_mode):
        raise ArgumentError(f"images: {path}: expected a file, got a pipe or a device.")
    if found.st_size == 0:
        raise ArgumentError(f"images: {path}: cannot read the image: the file is empty.")


def _hint_for(image: object) -> str:
    if isinstance(image, (bytes, bytearray)):
        return " Hint: PIL.Image.open(io.BytesIO(data))."
    if hasattr(image, "read"):
        return " Hint: PIL.Image.open(file)."
    if hasattr(image, "__array__"):
        return " Hint: np.asarray(image), as uint8 [height, width, 3]."
    return ""


# ---- arrays --------------------------------------------------------------------------------------


def _check_array(array: Array) -> None:
    if array.dtype == np.uint8 and array.ndim == 3 and array.shape[2] == 3 and array.size:
        return
    what = f"{_EXPECTED}, got {array.dtype}[{','.join(map(str, array.shape))}]."
    if array.ndim not in (2, 3) or not array.size:
        raise ArgumentError(f"{what} Hint: give the images one by one, without a batch axis.")
    condition = _CONDITIONS.get(array.dtype.kind, "") if array.dtype != np.uint8 else ""
    raise ArgumentError(f"{what} Hint: {'; '.join(_steps(array))}{condition}.")


def _steps(array: Array) -> Iterator[str]:
    """The lines from an array that is nearly an image to one that is."""
    is_first = array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4)
    if is_first:
        yield "x = x.transpose(1, 2, 0)"
    if array.dtype == np.bool_:
        yield "x = np.uint8(x) * 255"
    elif array.dtype.kind == "u" and array.dtype != np.uint8:
        yield "x = np.uint8(x >> 8)"
    elif array.dtype != np.uint8:
        yield f"x = np.uint8({'np.round(x * 255)' if array.dtype.kind == 'f' else 'x'})"
    channels = array.shape[0 if is_first else 2] if array.ndim == 3 else 0
    if channels == 0:
        yield "x = np.stack([x] * 3, axis=-1)"
    elif channels == 1:
        yield "x = np.repeat(x, 3, axis=-1)"
    elif channels == 4:
        yield "x = PIL.Image.fromarray(x)"
    elif channels != 3:
        yield "x = x[:, :, :3]"


# ---- images of Pillow ----------------------------------------------------------------------------


def _pixels(image: Image) -> Array:
    """The first frame of a file, or the frame at which an image of Pillow stands, as RGB."""
    from PIL.ImageOps import exif_transpose

    if 0 in image.size:
        raise ArgumentError("images: expected pixels, got an image without any.")
    if image.getexif().get(_ORIENTATION, 1) != 1:
        image = exif_transpose(image)  # without the note, so that nobody turns it again
    if image.mode in ("I", "F", *_IN_16_BITS):
        image = _in_8_bits(image)
    if image.has_transparency_data:
        image = _on_white(image)
    return np.asarray(image.convert("RGB"))


def _on_white(image: Image) -> Image:
    if image.mode == "La":
        image = image.convert("LA")
    clear = image.info.get("transparency")
    if isinstance(clear, tuple) and max(clear) > 255:  # of 16 bits, of which Pillow keeps the upper
        image = image.copy()
        image.info["transparency"] = tuple(value >> 8 for value in clear)
    image = image.convert("RGBA")
    return pillow_image().alpha_composite(pillow_image().new("RGBA", image.size, _WHITE), image)


def _in_8_bits(image: Image) -> Image:
    """Scales gray of 16 bits to 8: 65535 becomes 255."""
    # Netpbm files of 16 bits have the mode I, but their range is known: Pillow scales it to 65535.
    if image.mode not in _IN_16_BITS and not (image.mode == "I" and image.format == "PPM"):
        kind = "floating-point numbers" if image.mode == "F" else "32-bit integers"
        raise ArgumentError(
            f"images: the pixels are {kind} (mode {image.mode!r}), whose range is not known: "
            f"expected 8 or 16 bits. {_BY_ITS_RANGE}"
        )
    wide = np.asarray(image).astype(np.float64)
    gray = np.uint8(np.round(wide / 257))
    clear = image.info.get("transparency")
    if clear is not None:
        gray = np.where(wide == clear, np.uint8(255), gray)  # white, as what is laid on it
    return pillow_image().fromarray(gray)
