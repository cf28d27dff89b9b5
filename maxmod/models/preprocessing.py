"""Image preprocessing for vision models: read, resize, crop, rescale and normalise.

Source: the image processors of the transformers library for Pillow, whose fields in
preprocessor_config.json and whose arithmetic are followed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxmod.errors import ArgumentError, ModelError
from maxmod.models.config import from_table
from maxmod.models.config_fields import PREPROCESSOR
from maxmod.models.images import pillow_image, rgb_pixels
from maxmod.values.array import HostArray
from maxmod.values.plain import JsonObject
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import has_file

Array = HostArray

FILE = "preprocessor_config.json"
_CHANNELS = 3
_MAX_PIXELS = (
    178_956_970  # as Pillow reads at most; a thin image with a shortest edge may ask for more
)
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

    def pixels(self, image: object) -> Array:
        """Turns an image into the pixels that the model reads.

        Args:
            image: The path of a file; a Pillow image; or uint8 [height, width, 3], RGB. Files and
                Pillow images are turned as their EXIF orientation says, transparent pixels are laid
                on white, gray of 16 bits is scaled to 8, and an animation gives its first frame.
                Files of more than 178,956,970 pixels are refused: twice
                `PIL.Image.MAX_IMAGE_PIXELS`, which may be changed.

        Returns:
            float32 [3, height, width].

        Raises:
            ArgumentError: (a ValueError) If the file or array is not an image, or its pixels are
                numbers of an unknown range (modes I and F of Pillow).
            ModelError: If Pillow is not installed.
        """
        array = rgb_pixels(image)
        if self.do_resize:
            size = self._resized(*array.shape[:2])
            if math.prod(size) > _MAX_PIXELS:
                raise ArgumentError(
                    f"images: an image of {array.shape[0]} x {array.shape[1]} would be resized to "
                    f"{size[0]} x {size[1]}: expected at most {_MAX_PIXELS} pixels. Hint: crop it."
                )
            if size != array.shape[:2]:
                picture = pillow_image().fromarray(array)
                array = np.asarray(picture.resize(size[::-1], resample=self.resample))
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


def read_preprocessing(folder: Path, *, strict: bool = False) -> Preprocessing:
    """Reads the preprocessing of a model folder.

    Raises:
        ModelError: If preprocessor_config.json is missing or unusable.
    """
    path = folder / FILE
    if not has_file(path):
        raise ModelError(
            f"{folder}: there is no {FILE}, which says how images become pixels. Hint: copy it "
            "from the source of the weights, or pass pixels to the module."
        )
    table = _known(read_json(path))
    return from_table(Preprocessing, table, str(path), known=PREPROCESSOR, strict=strict)


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
