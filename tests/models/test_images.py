"""Kinds of images: orientation, modes, bits, transparency and size. The oracle is the format."""

from __future__ import annotations

import io
import os
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from maxmod.errors import ArgumentError
from maxmod.models.images import rgb_pixels
from maxmod.models.preprocessing import Preprocessing

RNG = np.random.default_rng(7)
WIDE = np.array([0, 1, 128, 129, 256, 257, 32768, 65279, 65535], ">u2")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(path: Path, rows: np.ndarray, colour: int, *chunks: bytes) -> Path:
    """Writes a PNG of 16 bits; rows [height, width] or [height, width, channels]."""
    head = struct.pack(">IIBBBBB", rows.shape[1], rows.shape[0], 16, colour, 0, 0, 0)
    data = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    parts = [_chunk(b"IHDR", head), *chunks, _chunk(b"IDAT", zlib.compress(data))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + _chunk(b"IEND", b""))
    return path


# ---- orientation ---------------------------------------------------------------------------------

# What EXIF says of the first row and column of the stored image, as steps from it to the photo.
TURNS = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
    8: lambda x: np.rot90(x),
}


@pytest.mark.parametrize("kind", ["png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", TURNS)
def test_photos_are_turned_once(tmp_path: Path, orientation: int, kind: str) -> None:
    """By their path, as an opened image, and as one that was turned before."""
    stored = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"photo.{kind}"
    Image.fromarray(stored).save(path, exif=exif, **({"lossless": True} if kind == "webp" else {}))
    expected = TURNS[orientation](stored)
    np.testing.assert_array_equal(rgb_pixels(path), expected)
    with Image.open(path) as image:
        np.testing.assert_array_equal(rgb_pixels(image), expected)
        np.testing.assert_array_equal(rgb_pixels(image.convert("RGB")), expected)
        np.testing.assert_array_equal(rgb_pixels(ImageOps.exif_transpose(image)), expected)
        if kind != "tiff":  # which Pillow turns itself when it loads it
            np.testing.assert_array_equal(np.asarray(image), stored)  # not changed in place


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_unknown_orientations_turn_nothing(orientation: int) -> None:
    image = Image.fromarray(RNG.integers(0, 256, (2, 3, 3)).astype(np.uint8))
    image.getexif()[0x0112] = orientation
    np.testing.assert_array_equal(rgb_pixels(image), np.asarray(image))


# ---- 16 bits and numbers -------------------------------------------------------------------------


def _grays(wide: np.ndarray) -> np.ndarray:
    return np.round(wide.astype(np.float64) / 65535 * 255).astype(np.uint8)


@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_gray_of_16_bits_is_scaled(tmp_path: Path, order: str) -> None:
    wide = WIDE.astype(order)[None]
    image = Image.fromarray(wide)
    assert image.mode == ("I;16" if order == "<u2" else "I;16B")
    image.save(tmp_path / "gray.tiff")
    for found in (rgb_pixels(image), rgb_pixels(tmp_path / "gray.tiff")):
        np.testing.assert_array_equal(found, _grays(wide)[..., None].repeat(3, -1))


def test_png_and_netpbm_of_16_bits_are_scaled(tmp_path: Path) -> None:
    png = _png(tmp_path / "gray.png", WIDE[None], 0)
    pgm = tmp_path / "gray.pgm"
    pgm.write_bytes(b"P5\n9 1\n65535\n" + WIDE.tobytes())
    for path in (png, pgm):
        np.testing.assert_array_equal(rgb_pixels(path)[0, :, 1], _grays(WIDE))
    pgm.write_bytes(b"P5\n3 1\n1000\n" + np.array([0, 250, 1000], ">u2").tobytes())
    np.testing.assert_array_equal(rgb_pixels(pgm)[0, :, 1], [0, 64, 255])


def test_colours_of_16_bits_keep_the_upper_bits(tmp_path: Path) -> None:
    """As Pillow reads them; at most one step of 8 bits from the rounded number."""
    wide = RNG.integers(0, 65536, (5, 7, 3)).astype(np.uint16)
    path = _png(tmp_path / "rgb.png", wide, 2)
    np.testing.assert_array_equal(rgb_pixels(path), wide >> 8)
    assert np.abs((wide >> 8).astype(int) - _grays(wide)).max() == 1


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_of_an_unknown_range_are_refused(tmp_path: Path, mode: str) -> None:
    array = np.linspace(-3, 70000, 12).reshape(3, 4).astype(np.int32 if mode == "I" else np.float32)
    image = Image.fromarray(array)
    image.save(tmp_path / "numbers.tiff")
    assert image.mode == mode
    for given in (image, tmp_path / "numbers.tiff"):
        with pytest.raises(
            ArgumentError, match=rf"mode '{mode}'\), whose range is not known.*Hint"
        ):
            rgb_pixels(given)
    x = np.asarray(image, dtype=float)  # what the hint says
    scaled = Image.fromarray(np.uint8(255 * (x - x.min()) / (x.max() - x.min())))
    found = rgb_pixels(scaled)
    assert (found.min(), found.max()) == (0, 255)


# ---- modes and transparency ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "pixel", "expected"),
    [
        ("1", 255, (255, 255, 255)),
        ("L", 51, (51, 51, 51)),
        ("RGB", (10, 20, 30), (10, 20, 30)),
        ("RGBX", (10, 20, 30, 40), (10, 20, 30)),
        ("CMYK", (255, 0, 0, 0), (0, 255, 255)),
        ("CMYK", (0, 0, 0, 255), (0, 0, 0)),
        ("YCbCr", (255, 128, 128), (255, 255, 255)),
        ("HSV", (0, 255, 255), (255, 0, 0)),
        ("LAB", (0, 0, 0), (0, 0, 0)),  # its band A is a colour
        ("RGBA", (200, 100, 0, 255), (200, 100, 0)),
        ("RGBA", (200, 100, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 100, 0, 51), (244, 224, 204)),
        ("LA", (100, 0), (255, 255, 255)),
        ("LA", (100, 255), (100, 100, 100)),
        ("PA", (3, 0), (255, 255, 255)),
        ("RGBa", (0, 0, 0, 0), (255, 255, 255)),
        ("RGBa", (20, 10, 0, 51), (224, 214, 204)),
        ("La", (0, 0), (255, 255, 255)),
        ("La", (20, 51), (224, 224, 224)),
    ],
)
def test_modes(mode: str, pixel: object, expected: tuple[int, ...]) -> None:
    """Transparent pixels are laid on white: colour * alpha + 255 * (1 - alpha)."""
    found = rgb_pixels(Image.new(mode, (2, 3), pixel))
    assert (found.shape, found.dtype) == ((3, 2, 3), np.uint8)
    if mode != "LAB":  # whose conversion is Pillow's
        np.testing.assert_allclose(found[0, 0].astype(int), expected, rtol=0, atol=1)


def test_lab_is_not_taken_for_transparent() -> None:
    image = Image.new("LAB", (2, 2), (120, 3, 200))
    np.testing.assert_array_equal(rgb_pixels(image), np.asarray(image.convert("RGB")))


def test_palettes(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    np.testing.assert_array_equal(rgb_pixels(image), [[[255, 0, 0], [0, 0, 255]]])
    for name, clear in (("clear.png", b"\xff\x00"), ("clear.gif", 1)):
        image.save(tmp_path / name, transparency=clear)
        np.testing.assert_array_equal(rgb_pixels(tmp_path / name), [[[255, 0, 0], [255, 255, 255]]])
    coloured = Image.new("P", (1, 1))
    coloured.putpalette([255, 0, 0, 0], "RGBA")
    np.testing.assert_array_equal(rgb_pixels(coloured), [[[255, 255, 255]]])


def test_one_transparent_colour_of_16_bits(tmp_path: Path) -> None:
    """Gray pixels next to it in 16 bits, which are equal in 8, stay."""
    clear = _chunk(b"tRNS", struct.pack(">H", 256))
    gray = _png(tmp_path / "gray.png", np.array([[255, 256, 257, 65535]]), 0, clear)
    np.testing.assert_array_equal(rgb_pixels(gray)[0, :, 0], [1, 255, 1, 255])
    clear = _chunk(b"tRNS", struct.pack(">HHH", 256, 0, 512))
    rows = np.array([[[256, 0, 512], [0, 0, 0], [65535, 0, 512]]])
    found = rgb_pixels(_png(tmp_path / "rgb.png", rows, 2, clear))
    np.testing.assert_array_equal(found, [[[255, 255, 255], [0, 0, 0], [255, 0, 2]]])


def test_one_transparent_colour_of_8_bits(tmp_path: Path) -> None:
    Image.new("L", (2, 1), 7).save(tmp_path / "gray.png", transparency=7)
    Image.new("RGB", (2, 1), (1, 2, 3)).save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    Image.new("1", (2, 1), 0).save(tmp_path / "bits.png", transparency=0)
    for name in ("gray.png", "rgb.png", "bits.png"):
        np.testing.assert_array_equal(rgb_pixels(tmp_path / name), np.full((1, 2, 3), 255))


@pytest.mark.parametrize("kind", ["gif", "png", "webp", "tiff"])
def test_animations_give_the_first_frame(tmp_path: Path, kind: str) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    frames = [Image.new("RGB", (4, 4), colour) for colour in colours]
    path = tmp_path / f"moving.{kind}"
    lossless = {"lossless": True} if kind == "webp" else {}
    frames[0].save(path, save_all=True, append_images=frames[1:], **lossless)
    np.testing.assert_array_equal(rgb_pixels(path)[0, 0], colours[0])
    with Image.open(path) as image:
        assert image.n_frames == 3
        np.testing.assert_array_equal(rgb_pixels(image)[0, 0], colours[0])
        image.seek(2)
        np.testing.assert_array_equal(rgb_pixels(image)[0, 0], colours[2])  # where it stands


# ---- files ---------------------------------------------------------------------------------------


def test_a_photo_of_108_megapixels(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (12000, 9000), 1).save(path)
    assert rgb_pixels(path).shape == (9000, 12000, 3)


def test_a_photo_above_the_limit_is_refused(tmp_path: Path) -> None:
    """178,956,970 pixels are read, one row more is not; only the head is looked at."""
    head = struct.pack(">IIBBBBB", 13_365, 13_390, 1, 0, 0, 0, 0)
    path = tmp_path / "large.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", b""))
    assert 13_365 * 13_390 > 2 * Image.MAX_IMAGE_PIXELS > 13_365 * 13_389
    with pytest.raises(ArgumentError, match=r"large\.png: .*178956970 pixels.*Hint: make it small"):
        rgb_pixels(path)


def test_paths_of_other_things_than_files_are_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "empty.png").touch()
    for name, message in (
        ("pipe.png", "expected a file, got a pipe or a device"),
        ("", "expected a file, got a folder"),
        ("empty.png", "the file is empty"),
        ("none.png", r"there is no such file\.$"),
        ("none.png\0", "cannot read the image: embedded null"),
        ("x" * 300, "cannot read the image: .*too long"),
    ):
        with pytest.raises(ArgumentError, match=message):
            rgb_pixels(tmp_path / name)
    with pytest.raises(ArgumentError, match="no such file. Hint: nothing is downloaded"):
        rgb_pixels("https://example.org/cat.png")
    with pytest.raises(ArgumentError, match="got a pipe or a device"):
        rgb_pixels("/dev/zero")


def test_damaged_images_of_pillow_are_refused(tmp_path: Path) -> None:
    """They are read when their pixels are needed."""
    whole = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (50, 50, 3)).astype(np.uint8)).save(whole, "PNG")
    cut = Image.open(io.BytesIO(whole.getvalue()[:3000]))
    with pytest.raises(ArgumentError, match="cannot read the image of Pillow: .*truncated"):
        rgb_pixels(cut)
    closed = Image.open(io.BytesIO(whole.getvalue()))
    closed.close()
    with pytest.raises(ArgumentError, match="cannot read the image of Pillow"):
        rgb_pixels(closed)
    with pytest.raises(ArgumentError, match="expected pixels, got an image without any"):
        rgb_pixels(Image.new("RGB", (0, 3)))


# ---- arrays and other objects --------------------------------------------------------------------

GOLDEN = RNG.integers(0, 256, (4, 5, 3)).astype(np.uint8)
GRAY = GOLDEN[:, :, :1].repeat(3, -1)


def test_arrays_with_strides() -> None:
    for array in (GOLDEN[::-1, ::-1], GOLDEN.transpose(1, 0, 2), np.asfortranarray(GOLDEN)):
        np.testing.assert_array_equal(rgb_pixels(array), array)
        assert Preprocessing(size=8).pixels(array).shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (GOLDEN.transpose(2, 0, 1), GOLDEN),
        (np.float32(GOLDEN / 255), GOLDEN),
        (np.float64(GOLDEN / 255).transpose(2, 0, 1), GOLDEN),
        (np.uint16(GOLDEN) * 257, GOLDEN),
        (np.int64(GOLDEN), GOLDEN),
        (np.int64(GOLDEN).transpose(2, 0, 1), GOLDEN),
        (GOLDEN[:, :, 0], GRAY),
        (GOLDEN[:, :, :1], GRAY),
        (GOLDEN[None, :, :, 0], GRAY),
        (np.float32(GOLDEN[:, :, 0] / 255), GRAY),
        (np.uint16(GOLDEN[:, :, 0]) * 257, GRAY),
        (GOLDEN > 127, np.uint8(GOLDEN > 127) * 255),
        (np.concatenate([GOLDEN, np.full((4, 5, 1), 255, np.uint8)], 2), GOLDEN),
    ],
)
def test_hints_for_arrays_work(array: np.ndarray, expected: np.ndarray) -> None:
    with pytest.raises(
        ArgumentError, match=r"expected a path, .*, got \w+\[[\d,]+\]\. Hint"
    ) as caught:
        rgb_pixels(array)
    code = re.sub(r" \(if .*\)\.$|\.$", "", str(caught.value).partition("Hint: ")[2])
    names = {"np": np, "PIL": __import__("PIL"), "x": array}
    exec(code, names)
    np.testing.assert_array_equal(rgb_pixels(names["x"]), expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((2, 4, 5, 3), np.uint8), r"got uint8\[2,4,5,3\]\. Hint: give the images one by"),
        (np.zeros((0, 5, 3), np.uint8), r"got uint8\[0,5,3\]"),
        (np.zeros(3, np.uint8), r"got uint8\[3\]"),
        (np.zeros((), np.uint8), r"got uint8\[\]"),
        (b"\x89PNG", r"got bytes\. Hint: PIL\.Image\.open\(io\.BytesIO"),
        (io.BytesIO(), r"got BytesIO\. Hint: PIL\.Image\.open\(file\)"),
        ([[1]], "got list"),
        (None, "got NoneType"),
    ],
)
def test_other_objects_are_refused(image: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        rgb_pixels(image)


def test_a_thin_image_is_not_resized_to_an_endless_one() -> None:
    preprocessing = Preprocessing(
        size={"shortest_edge": 224}, do_center_crop=True, crop_size={"height": 16, "width": 16}
    )
    with pytest.raises(ArgumentError, match=r"1 x 20000 would be resized to 224 x 4480000"):
        preprocessing.pixels(np.zeros((1, 20000, 3), np.uint8))
