"""Write the golden folders of vision models under ``tests/assets/vit``.

Run by hand, once, with ``torch``, ``transformers``, ``pillow`` and ``numpy``
installed; the tests only read what it wrote:

    python tests/assets/make_vit_fixtures.py

Each folder has the files that ``save_pretrained`` writes: weights,
config.json and preprocessor_config.json.  ``golden.npz`` holds two images,
``image_0`` and ``image_1`` (uint8), ``pixels`` (of the image processor for
Pillow), ``hidden`` (float32, the last hidden states) and ``half`` (of the
model in bfloat16); of a classifier also ``logits``.  ``photo.png`` is the
first image.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import ViTConfig, ViTForImageClassification, ViTModel
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

OUT = Path(__file__).resolve().parent / "vit"
LABELS = ["cat", "dog, hound", "bridge", "rain", "Größe"]


def make_images() -> list[np.ndarray]:
    """Smooth colours with some noise: a small image, and a larger one that is not square."""
    random = np.random.default_rng(5)
    images = []
    for height, width in ((13, 17), (40, 29)):
        y, x = np.mgrid[0:height, 0:width]
        waves = [np.sin(x / 5 + k) + np.cos(y / (4 + k)) for k in range(3)]
        image = 128 + 55 * np.stack(waves, axis=-1) + random.normal(0, 12, (height, width, 3))
        images.append(np.clip(image, 0, 255).astype(np.uint8))
    return images


def randomize(model: torch.nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator) * 0.2
            is_gain = value.dim() == 1 and name.endswith("weight")
            value.copy_(1 + noise if is_gain else noise)


def write(name: str, model: torch.nn.Module, processor: ViTImageProcessorPil, seed: int) -> None:
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    randomize(model, seed)
    kind = type(model)
    model.to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    images = make_images()
    Image.fromarray(images[0]).save(folder / "photo.png")
    pixels = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    golden = {"pixels": pixels["pixel_values"].numpy()}
    for dtype, hidden in ((torch.float32, "hidden"), (torch.bfloat16, "half")):
        loaded = kind.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()
        encoder = loaded.vit if kind is ViTForImageClassification else loaded
        with torch.inference_mode():
            inputs = pixels["pixel_values"].to(dtype)
            golden[hidden] = encoder(inputs).last_hidden_state.float().numpy()
            if kind is ViTForImageClassification and dtype is torch.float32:
                golden["logits"] = loaded(inputs).logits.numpy()
    np.savez_compressed(folder / "golden.npz", image_0=images[0], image_1=images[1], **golden)


def main() -> None:
    torch.set_num_threads(1)
    config = ViTConfig(
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        image_size=16,
        patch_size=4,
        id2label=dict(enumerate(LABELS)),
        label2id={label: number for number, label in enumerate(LABELS)},
    )
    processor = ViTImageProcessorPil(size={"height": 16, "width": 16})
    write("classifier", ViTForImageClassification(config).eval(), processor, seed=3)
    config = ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_act="gelu_pytorch_tanh",
        image_size=[12, 18],
        patch_size=[4, 6],
        qkv_bias=False,
        layer_norm_eps=1e-6,
    )
    processor = ViTImageProcessorPil(
        size={"shortest_edge": 20},
        resample=3,
        do_center_crop=True,
        crop_size={"height": 12, "width": 18},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    write("encoder", ViTModel(config).eval(), processor, seed=4)


if __name__ == "__main__":
    main()
