"""Damaged image files, and images of Pillow of every kind, become pixels or are refused."""

from __future__ import annotations

import functools
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzz.examples import fuzzed, right_or_refused
from fuzz.mutations import changed_bytes, changed_json
from hypothesis import given
from hypothesis import strategies as st
from models.folders import ASSETS
from PIL import Image

from maxmod.models.images import rgb_pixels
from maxmod.models.preprocessing import read_preprocessing

FOLDER = ASSETS / "vit" / "classifier"
FORMATS = ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "ICO", "TGA", "PCX", "MPO", "AVIF"]
# Pillow warns of odd metadata, which has no part in the pixels.
ODD = pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::DeprecationWarning:PIL")


@functools.cache
def _encoded(kind: str) -> bytes:
    pixels = np.random.default_rng(3).integers(0, 256, (12, 9, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    stream = io.BytesIO()
    options: dict[str, Any] = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP", "TIFF") else {}
    Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


def _check(pixels: np.ndarray) -> None:
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.size


@ODD
@fuzzed(100)
@given(data=st.data(), kind=st.sampled_from(FORMATS))
def test_damaged_files(tmp_path: Path, data: st.DataObject, kind: str) -> None:
    path = tmp_path / "image"
    path.write_bytes(data.draw(changed_bytes(_encoded(kind), near=64)))
    with right_or_refused():
        _check(rgb_pixels(path))


MODES = ["1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "F", "LA", "PA", "RGBX"]
MODES += ["RGBa", "La", "I;16", "I;16L", "I;16B", "I;16N"]
CLEAR = st.one_of(
    st.none(),
    st.integers(-1, 70000),
    st.binary(max_size=4),
    st.tuples(*[st.integers(0, 70000)] * 3),
    st.text(max_size=2),
)


@ODD
@fuzzed(100)
@given(
    mode=st.sampled_from(MODES),
    size=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    clear=CLEAR,
    orientation=st.one_of(st.none(), st.integers(0, 10), st.text(max_size=2)),
    seed=st.integers(0, 99),
)
def test_images_of_every_mode(
    mode: str, size: tuple[int, int], clear: object, orientation: object, seed: int
) -> None:
    image = Image.new(mode, size)
    channels = len(image.tobytes()) if image.size[0] * image.size[1] else 0
    if channels:
        image.frombytes(np.random.default_rng(seed).bytes(channels))
    if clear is not None:
        image.info["transparency"] = clear
    if orientation is not None:
        image.getexif()[0x0112] = orientation
    with right_or_refused():
        _check(rgb_pixels(image))


DTYPES = ["u1", "u2", ">u2", "i4", "f4", "f8", "?", "c8", "O", "S1", "M8[s]"]


@fuzzed(100)
@given(
    dtype=st.sampled_from(["u1", *DTYPES]),
    shape=st.one_of(
        st.lists(st.integers(0, 5), max_size=4),
        st.tuples(st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3, 4])),
    ),
)
def test_arrays(dtype: str, shape: list[int]) -> None:
    array = np.zeros(shape, dtype)
    with right_or_refused():
        np.testing.assert_array_equal(rgb_pixels(array), array)


@ODD
@fuzzed(100)
@given(data=st.data(), height=st.integers(1, 40), width=st.integers(1, 40))
def test_changed_preprocessing(
    tmp_path: Path, data: st.DataObject, height: int, width: int
) -> None:
    """The fields in any form; the pixels then have the size that the fields say."""
    table = json.loads((FOLDER / "preprocessor_config.json").read_text("utf-8"))
    names = ("size", "crop_size", "do_center_crop", "shortest_edge", "resample", "do_pad")
    changed = data.draw(changed_json(table, names=names))
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(changed), "utf-8")
    with right_or_refused():
        found = read_preprocessing(tmp_path)
        size = found.output_size()
        if size is None or size[0] * size[1] < 10**7:  # more only takes time
            with np.errstate(all="ignore"):  # a rescale_factor of 1e308 is as asked for
                pixels = found.pixels(np.zeros((height, width, 3), np.uint8))
            assert pixels.shape[0] == 3
            assert size in (None, pixels.shape[1:])
