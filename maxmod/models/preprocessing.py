"""Image preprocessing for vision models: read, resize, crop, rescale and normalise.

Source: the image processors of the transformers library for Pillow, whose fields in
preprocessor_config.json and whose arithmetic are followed.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxmod.errors import ArgumentError, ModelError
from maxmod.models.config import from_table
from maxmod.values.array import HostArray
from maxmod.values.plain import JsonObject
from maxmod.weights.json_files import read_json

Array = HostArray

FILE = "preprocessor_config.json"
_CHANNELS = 3
# Other processors have other defaults.
_KINDS = ("ViTImageProcessor", "ViTImageProcessorFast", "ViTFeatureExtractor")
_RESAMPLE = {0: "nearest", 1: "Lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "Hamming"}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """The fields of preprocessor_config.json, in the order in which they are applied.

    Attributes:
        do_resize: Whether to change the size of an image.
        size: `{"height": h, "width": w}`, or a number for both, or `{"shortest_edge": n}`, which
            keeps the aspect ratio.
        resample: The filter, as Pillow numbers them; 2 is bilinear, 3 bicubic.
        do_center_crop: Whether to crop the centre.
        crop_size: Its size, like `size`.
        do_rescale: Whether to multiply by `rescale_factor`.
        do_normalize: Whether to subtract `image_mean` and divide by `image_std`, by channel.
    """

    do_resize: bool = True
    size: dict | int = 224
    resample: int = 2
    do_center_crop: bool | None = False
    crop_size: dict | int | None = None
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    do_normalize: bool = True
    image_mean: list | float = 0.5
    image_std: list | float = 0.5
    image_processor_type: str | None = None
    feature_extractor_type: str | None = None

    def __post_init__(self) -> None:
        kind = self.image_processor_type or self.feature_extractor_type
        if kind is not None and kind not in _KINDS:
            raise ModelError(f"image_processor_type: expected {_KINDS[0]!r}, got {kind!r}.")
        if self.resample not in _RESAMPLE:
            known = ", ".join(f"{number} ({name})" for number, name in _RESAMPLE.items())
            raise ModelError(f"resample: expected one of {known}, got {self.resample}.")
        if self.do_resize:
            self._resized(1, 1)
        if self.do_center_crop:
            _height_and_width("crop_size", self.crop_size)
        for name in ("image_mean", "image_std"):
            value = getattr(self, name)
            numbers = value if isinstance(value, list) else [value]
            if len(numbers) not in (1, _CHANNELS) or not all(map(_is_number, numbers)):
                raise ModelError(f"{name}: expected {_CHANNELS} numbers, got {value!r}.")
            if name == "image_std" and 0 in numbers:
                raise ModelError(f"{name}: expected no 0, got {value!r}.")

    def pixels(self, image: Any) -> Array:
        """Turns an image into the pixels that the model reads.

        Args:
            image: The path of a file; a Pillow image; or uint8 [height, width, 3], RGB.

        Returns:
            float32 [3, height, width].

        Raises:
            ArgumentError: (a ValueError) If the file or array is not an image.
            ModelError: If Pillow is not installed.
        """
        array = np.asarray(_rgb(image))
        if self.do_resize:
            size = self._resized(*array.shape[:2])
            if size != array.shape[:2]:
                resized = _pillow().fromarray(array).resize(size[::-1], resample=self.resample)
                array = np.asarray(resized)
        if self.do_center_crop:
            array = _cropped(array, *_height_and_width("crop_size", self.crop_size))
        result = array.astype(np.float32)
        if self.do_rescale:
            result = (array.astype(np.float64) * self.rescale_factor).astype(np.float32)
        if self.do_normalize:
            mean, std = (np.array(n, np.float32) for n in (self.image_mean, self.image_std))
            result = (result - mean) / std
        return np.ascontiguousarray(result.transpose(2, 0, 1))

    def output_size(self) -> tuple[int, int] | None:
        """Height and width of every result; None if they depend on the image."""
        if self.do_center_crop:
            return _height_and_width("crop_size", self.crop_size)
        if self.do_resize and not (isinstance(self.size, dict) and "shortest_edge" in self.size):
            return _height_and_width("size", self.size)
        return None

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, dict) or self.size.keys() != {"shortest_edge"}:
            return _height_and_width("size", self.size)
        edge = self.size["shortest_edge"]
        if type(edge) is not int or edge < 1:
            raise ModelError(f"size: shortest_edge: expected a number above 0, got {edge!r}.")
        longest = int(edge * max(height, width) / min(height, width))
        return (longest, edge) if width <= height else (edge, longest)


def read_preprocessing(folder: Path) -> Preprocessing:
    """Reads the preprocessing of a model folder.

    Raises:
        ModelError: If preprocessor_config.json is missing or unusable.
    """
    path = folder / FILE
    if not path.exists():
        raise ModelError(
            f"{folder}: there is no {FILE}, which says how images become pixels. Hint: copy it "
            "from the source of the weights, or pass pixels to the module."
        )
    return from_table(Preprocessing, _known(read_json(path)), str(path))


def _known(table: JsonObject) -> JsonObject:
    """Drops null fields, with which old files mark steps that are off."""
    return {name: value for name, value in table.items() if value is not None}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _height_and_width(field: str, size: Any) -> tuple[int, int]:
    table = {"height": size, "width": size} if isinstance(size, int) else size
    sizes = tuple(table.get(name) for name in ("height", "width")) if table else ()
    if len(table or ()) != 2 or not all(type(n) is int and n > 0 for n in sizes):
        raise ModelError(f"{field}: expected height and width above 0, got {size!r}.")
    return sizes  # type: ignore[return-value]


def _cropped(array: Array, height: int, width: int) -> Array:
    """Crops the centre; pixels outside the image are 0."""
    sizes = (height, width)
    before = [max(0, -((have - want) // 2)) for have, want in zip(array.shape, sizes)]
    after = [max(0, want - have - n) for have, want, n in zip(array.shape, sizes, before)]
    padded = np.pad(array, [*zip(before, after), (0, 0)])
    top, left = (max(0, (have - want) // 2) for have, want in zip(array.shape, sizes))
    return padded[top : top + height, left : left + width]


# ---- with Pillow ---------------------------------------------------------------------------------


def _pillow() -> Any:
    try:
        import PIL.Image
        import PIL.ImageOps
    except ImportError as error:
        raise ModelError(
            f"images: reading and resizing them needs the package Pillow, which cannot be imported "
            f"({error}). Hint: pip install 'maxmod[image]'."
        ) from None
    return PIL.Image


def _rgb(image: Any) -> Any:
    """Returns an image as uint8 [height, width, 3], or as a Pillow image of mode RGB."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise ArgumentError(
                "images: expected a path, an image of Pillow, or uint8[height,width,3], got "
                f"{image.dtype}{list(image.shape)}."
            )
        return image
    pillow = _pillow()
    if isinstance(image, (str, os.PathLike)):
        image = _opened(pillow, Path(image))
    if not isinstance(image, pillow.Image):
        raise ArgumentError(
            "images: expected a path, an image of Pillow, or uint8[height,width,3], got "
            f"{type(image).__name__}."
        )
    if "A" in image.getbands() or image.info.get("transparency") is not None:
        image = image.convert("RGBA")
        white = pillow.new("RGBA", image.size, (255, 255, 255, 255))
        image = pillow.alpha_composite(white, image)
    return image.convert("RGB")


def _opened(pillow: Any, path: Path) -> Any:
    """Reads a file, and rotates photos as their EXIF orientation says."""
    from PIL.ImageOps import exif_transpose

    try:
        with warnings.catch_warnings():
            # Reject images so large that Pillow suspects a decompression bomb.
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path) as image:
                return exif_transpose(image)
    except FileNotFoundError:
        raise ArgumentError(f"images: {path}: there is no such file.") from None
    except Exception as error:  # decoders raise all kinds of errors for damaged files
        raise ArgumentError(f"images: {path}: cannot read the image: {error}") from None
