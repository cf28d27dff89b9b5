"""ViT and its preprocessing against what transformers computed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from models.folders import ASSETS, copy

from maxmod import CPU, Device, DType, Tensor
from maxmod.cli import main
from maxmod.errors import ModelError, WeightsError
from maxmod.models import VisionModel, adder_folder, load_model, load_vision_model
from maxmod.models.preprocessing import Preprocessing, read_preprocessing

CLASSIFIER = ASSETS / "vit" / "classifier"
ENCODER = ASSETS / "vit" / "encoder"
FOLDERS = [CLASSIFIER, ENCODER]
LABELS = ["cat", "dog, hound", "bridge", "rain", "Größe"]


def _golden(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "golden.npz") as data:
        return dict(data)


def _images(folder: Path) -> list[np.ndarray]:
    golden = _golden(folder)
    return [golden["image_0"], golden["image_1"]]


def _load(folder: Path, device: Device | None = None) -> VisionModel:
    return load_vision_model(folder, device=device or CPU(), dtype=DType.float32)


def _softmax(logits: np.ndarray) -> np.ndarray:
    weights = np.exp(logits.astype(np.float64))
    return weights / weights.sum(-1, keepdims=True)


def _close(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


# ---- the modules ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_compiled", [False, True])
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_hidden_states(folder: Path, is_compiled: bool, device: Device) -> None:
    golden = _golden(folder)
    model = _load(folder, device)
    pixels = Tensor(golden["pixels"]).to(device)
    module = model.module.vit if folder == CLASSIFIER else model.module
    run = module.compile(model.pixels_type) if is_compiled else module
    _close(np.array(run(pixels)), golden["hidden"])


@pytest.mark.parametrize("is_compiled", [False, True])
def test_logits(is_compiled: bool) -> None:
    golden = _golden(CLASSIFIER)
    model = _load(CLASSIFIER)
    run = model.module.compile(model.pixels_type) if is_compiled else model.module
    _close(np.array(run(Tensor(golden["pixels"], device=CPU()))), golden["logits"])


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_bfloat16(folder: Path) -> None:
    golden = _golden(folder)
    model = load_vision_model(folder, device=CPU())
    assert model.dtype is DType.bfloat16
    module = model.module.vit if folder == CLASSIFIER else model.module
    pixels = Tensor(golden["pixels"], device=CPU()).cast(DType.bfloat16)
    found = np.array(module(pixels).cast(DType.float32))
    theirs = np.sqrt(np.mean((golden["half"] - golden["hidden"]) ** 2))
    ours = np.sqrt(np.mean((found - golden["hidden"]) ** 2))
    assert 0 < ours < 2 * theirs < 0.2


def test_images_of_another_size() -> None:
    model = _load(CLASSIFIER)
    with pytest.raises(ModelError, match=r"expected images of 16 x 16, got float32\[1,3,16,20\]"):
        model.module(Tensor.zeros([1, 3, 16, 20], dtype=DType.float32, device=CPU()))


# ---- images to labels and vectors ----------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_preprocessing(folder: Path) -> None:
    """Enlarged and shrunk, cropped and padded; exactly as Pillow resizes."""
    found = np.stack([read_preprocessing(folder).pixels(image) for image in _images(folder)])
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, _golden(folder)["pixels"], rtol=0, atol=1e-6)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_classify(eager: bool, batch_size: int) -> None:
    model = _load(CLASSIFIER)
    assert model.labels == LABELS
    expected = _softmax(_golden(CLASSIFIER)["logits"])
    images = _images(CLASSIFIER)
    rows = model.classify(images, top=9, batch_size=batch_size, eager=eager)
    for row, probabilities in zip(rows, expected, strict=True):
        order = np.argsort(-probabilities)
        assert [label for label, _ in row] == [LABELS[place] for place in order]
        np.testing.assert_allclose([p for _, p in row], probabilities[order], rtol=1e-4)
    few = model.classify(images, top=2, batch_size=batch_size, eager=eager)
    assert few == [row[:2] for row in rows]
    assert model.classify([]) == []


def test_several_labels_at_once(tmp_path: Path) -> None:
    """Then each has its own probability."""
    changes = {"problem_type": "multi_label_classification"}
    model = _load(copy(CLASSIFIER, tmp_path / "model", **changes))
    (row,) = model.classify(_images(CLASSIFIER)[:1], top=5)
    logits = np.sort(_golden(CLASSIFIER)["logits"][0].astype(np.float64))[::-1]
    np.testing.assert_allclose([p for _, p in row], 1 / (1 + np.exp(-logits)), rtol=1e-4)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_embed(folder: Path) -> None:
    model = _load(folder)
    expected = _golden(folder)["hidden"][:, 0]
    _close(model.embed(_images(folder)), expected)
    _close(model.embed(_images(folder), batch_size=1, eager=True), expected)


def test_one_compile_serves_all_batches() -> None:
    model = _load(CLASSIFIER)
    images = _images(CLASSIFIER)
    model.classify(images)
    model.classify(images[:1])
    assert model.probabilities.stats.programs == 2
    assert model.probabilities is model.probabilities


def test_an_encoder_has_no_labels() -> None:
    model = _load(ENCODER)
    assert model.labels == []
    with pytest.raises(ModelError, match=r"classify: .*the model has no labels\. Hint: embed"):
        model.classify(_images(ENCODER))


# ---- reading images ------------------------------------------------------------------------------


def test_files_arrays_and_images_of_pillow_are_equal() -> None:
    from PIL import Image

    path = CLASSIFIER / "photo.png"
    preprocessing = read_preprocessing(CLASSIFIER)
    expected = _golden(CLASSIFIER)["pixels"][0]
    for image in (path, str(path), Image.open(path), np.array(Image.open(path))):
        np.testing.assert_allclose(preprocessing.pixels(image), expected, rtol=0, atol=1e-6)


def test_other_modes_of_images(tmp_path: Path) -> None:
    """Transparent pixels are white; grey is all three colours; photos are turned as noted."""
    from PIL import Image

    keep = Preprocessing(do_resize=False, do_normalize=False)
    clear = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    clear.putpixel((0, 0), (255, 0, 0, 255))
    clear.save(tmp_path / "clear.png")
    found = keep.pixels(tmp_path / "clear.png")
    np.testing.assert_array_equal(found[:, 0], [[1, 1], [0, 1], [0, 1]])
    np.testing.assert_array_equal(
        keep.pixels(Image.new("L", (1, 1), 51)), np.full((3, 1, 1), 0.2, "f")
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    Image.new("RGB", (4, 2)).save(tmp_path / "turned.png", exif=exif)
    assert keep.pixels(tmp_path / "turned.png").shape == (3, 4, 2)


def test_missing_and_damaged_images_are_refused(tmp_path: Path) -> None:
    preprocessing = read_preprocessing(CLASSIFIER)
    with pytest.raises(ValueError, match="there is no such file"):
        preprocessing.pixels(tmp_path / "none.png")
    damaged = tmp_path / "damaged.png"
    whole = (CLASSIFIER / "photo.png").read_bytes()
    for content in (b"", b"GIF89a", whole[: len(whole) // 2], b"\x89PNG\r\n\x1a\n" + b"\xff" * 40):
        damaged.write_bytes(content)
        with pytest.raises(ValueError, match=r"damaged\.png: cannot read the image"):
            preprocessing.pixels(damaged)
    for wrong in (np.zeros((3, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), 3, None):
        with pytest.raises(
            ValueError, match=r"expected a path, an image of Pillow, or uint8\[heig"
        ):
            preprocessing.pixels(wrong)


def test_images_that_are_too_large_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import Image

    path = tmp_path / "large.png"
    Image.new("L", (40, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 799)
    with pytest.raises(ValueError, match="cannot read the image: .*bomb.*MAX_IMAGE_PIXELS is half"):
        read_preprocessing(CLASSIFIER).pixels(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)  # as the hint says, and without a warning
    assert read_preprocessing(CLASSIFIER).pixels(path).shape == (3, 16, 16)


def test_without_pillow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ModelError, match=r"needs the package Pillow.*pip install pillow"):
        read_preprocessing(CLASSIFIER).pixels(CLASSIFIER / "photo.png")


def test_arguments() -> None:
    model = _load(CLASSIFIER)
    (image, *_) = _images(CLASSIFIER)
    for images in ("one.png", Path("one.png"), b"", 3, None, {image.tobytes()}, image):
        with pytest.raises(
            ValueError, match=r"images: expected a list of images, got \w+\. Hint: \["
        ):
            model.classify(images)
    with pytest.raises(ValueError, match="batch_size: expected 1 or more, got 0"):
        model.classify([], batch_size=0)
    expected = model.classify([image, image], eager=True)
    for images in (np.stack([image, image]), (image, image), iter([image, image])):
        assert model.classify(images, eager=True) == expected
    with pytest.raises(ValueError, match="top: expected 1 or more, got 0"):
        model.classify([], top=0)


# ---- folders that are refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 25}, "hidden_size=25 is not a multiple of num_attention_heads=3"),
        ({"num_channels": 0}, "sizes must be above 0"),
        ({"patch_size": 0}, "sizes must be above 0"),
        ({"patch_size": 17}, "expected patches no larger than the image"),
        ({"image_size": [16]}, "image_size: expected a number or two of them"),
        ({"image_size": [16, 2.5]}, "image_size: expected a number or two of them"),
        ({"hidden_act": "erf"}, "hidden_act: expected one of gelu"),
        ({"architectures": ["ViTForMaskedImageModeling"]}, "architectures: expected one of ViTFor"),
        ({"architectures": ["ViTModel", "ViTModel"]}, "architectures: expected one of ViTFor"),
        ({"architectures": [["ViTModel"]]}, "architectures: expected one of ViTFor"),
        ({"id2label": {"1": "cat"}}, "id2label: expected strings under"),
        ({"id2label": {"0": 1}}, "id2label: expected strings under"),
    ],
)
def test_refused_configurations(tmp_path: Path, changes: dict, message: str) -> None:
    folder = copy(CLASSIFIER, tmp_path / "model", **changes)
    with pytest.raises(ModelError, match=message) as caught:
        load_vision_model(folder, device=CPU())
    assert str(folder / "config.json") in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_processor_type": "CLIPImageProcessor"}, "expected 'ViTImageProcessor', got 'CLIP"),
        ({"resample": 9}, r"resample: expected one of 0 \(nearest\), .*3 \(bicubic\).*, got 9"),
        ({"size": {"height": 16}}, "size: expected height and width above 0"),
        ({"size": {"shortest_edge": 0}}, "shortest_edge: expected a number above 0, got 0"),
        ({"size": "16"}, "'size': expected dict or int"),
        ({"image_mean": [0.5, 0.5]}, "image_mean: expected 3 numbers"),
        ({"image_std": [0.5, 0, 0.5]}, "image_std: expected no 0"),
        ({"do_center_crop": True}, "crop_size: expected height and width"),
        ({"do_pad": True}, "'do_pad': models with this field are not supported"),
        ({"size": 20}, "expected images of 16 x 16 and 3 channels, got 20 x 20 and 3"),
        ({"size": {"shortest_edge": 16}}, "expected images of 16 x 16 .* got any size"),
        ({"do_resize": False}, "expected images of 16 x 16 .* got any size"),
    ],
)
def test_refused_preprocessing(tmp_path: Path, changes: dict, message: str) -> None:
    folder = copy(CLASSIFIER, tmp_path / "model")
    path = folder / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")
    with pytest.raises(ModelError, match=message) as caught:
        _ = _load(folder).preprocessing
    assert str(folder) in str(caught.value)


def test_without_preprocessing(tmp_path: Path) -> None:
    folder = copy(CLASSIFIER, tmp_path / "model")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="there is no preprocessor_config.json"):
        _load(folder).classify([CLASSIFIER / "photo.png"])


def test_sizes_that_old_files_have(tmp_path: Path) -> None:
    folder = copy(CLASSIFIER, tmp_path / "model")
    table = {"do_normalize": True, "do_resize": True, "size": 16, "resample": 2}
    table |= {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "crop_size": None}
    (folder / "preprocessor_config.json").write_text(json.dumps(table), "utf-8")
    found = _load(folder).preprocessing.pixels(CLASSIFIER / "photo.png")
    np.testing.assert_allclose(found, _golden(CLASSIFIER)["pixels"][0], rtol=0, atol=1e-6)


def test_missing_weights(tmp_path: Path) -> None:
    folder = copy(CLASSIFIER, tmp_path / "model", num_hidden_layers=3)
    with pytest.raises(WeightsError, match=r"(?s)load_vision_model: .*layers\.2\.mlp\.fc1\.weight"):
        load_vision_model(folder, device=CPU())


def test_other_kinds_of_models() -> None:
    with pytest.raises(ModelError, match=r"does not read 'vit'\. Hint: use load_vision_model"):
        load_model(CLASSIFIER, device=CPU())
    with pytest.raises(ModelError, match=r"does not read 'gpt2'\. Hint: use load_model"):
        load_vision_model(adder_folder(), device=CPU())


# ---- the command ---------------------------------------------------------------------------------


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    photo = str(CLASSIFIER / "photo.png")
    arguments = ["classify", photo, "--model", str(CLASSIFIER), "--device", "cpu"]
    assert main([*arguments, "--dtype", "float32", "--top", "2"]) == 0
    captured = capsys.readouterr()
    probabilities = _softmax(_golden(CLASSIFIER)["logits"][0])
    best = np.argsort(-probabilities)[:2]
    assert captured.out == "".join(f"{probabilities[n]:.4f}  {LABELS[n]}\n" for n in best)
    assert "1 image in" in captured.err
    assert "5 labels, cpu:0 float32" in captured.err
    assert main(["classify", photo, *arguments[1:], "--top", "1", "--eager"]) == 0
    assert capsys.readouterr().out.splitlines()[::2] == [f"{photo}:"] * 2
    assert main(["classify", "none.png", "--model", str(CLASSIFIER)]) == 1
    assert capsys.readouterr().err == "maxmod: error: images: none.png: there is no such file.\n"
