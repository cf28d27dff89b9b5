"""`VisionModel`: an image module, with its configuration and preprocessing."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ModelError
from maxmod.models.pickling import PickledWithoutPrograms
from maxmod.models.preprocessing import Preprocessing, read_preprocessing
from maxmod.models.vit import Classifier
from maxmod.nn import Module
from maxmod.runtime.compiled import CompiledModel
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import TensorType

Array = HostArray


class Probabilities(Module[[Tensor], Tensor]):
    """The probability of each label.

    Args:
        module: Pixels to logits [batch, labels].
        config: Says whether labels are exclusive (softmax) or independent (sigmoid).
        dtype: The dtype that the module computes in.
    """

    def __init__(self, module: Any, config: Any, dtype: DType) -> None:
        self.module = module
        self.several = config.problem_type == "multi_label_classification"
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 [batch, channels, height, width] -> float32 [batch, labels]"""
        logits = self.module(pixels.cast(self.dtype)).cast(DType.float32)
        return F.sigmoid(logits) if self.several or logits.shape[1] == 1 else F.softmax(logits)


class Vectors(Module[[Tensor], Tensor]):
    """The vector of each image: the hidden state of its first token.

    Args:
        encoder: Pixels to [batch, 1 + patches, width].
        dtype: The dtype that the encoder computes in.
    """

    def __init__(self, encoder: Any, dtype: DType) -> None:
        self.encoder = encoder
        self.dtype = dtype

    def forward(self, pixels: Tensor) -> Tensor:
        """float32 [batch, channels, height, width] -> float32 [batch, width]"""
        return self.encoder(pixels.cast(self.dtype))[:, 0].cast(DType.float32)


@dataclass(eq=False)
class VisionModel(PickledWithoutPrograms):
    """A pretrained vision model from a folder; made by `load_vision_model`.

    Attributes:
        folder: The folder it was loaded from.
        module: Pixels [batch, channels, height, width] to logits [batch, labels]; to vectors
            [batch, 1 + patches, width] if the model has no labels.
        config: The fields of config.json that the module uses.
        device: Where its weights are.
        dtype: The dtype that it computes in.
        strict_config: As for `load_vision_model`, for preprocessor_config.json.
    """

    folder: Path
    module: Module[[Tensor], Tensor]
    config: Any
    device: DeviceRef
    dtype: DType
    strict_config: bool = False

    @property
    def labels(self) -> list[str]:
        """The names of the labels; none if the model has no classifier."""
        return self.config.labels() if self.config.is_classifier() else []

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """How images become pixels.

        Raises:
            ModelError: If the folder does not define it, or it does not fit the module.
        """
        found = read_preprocessing(self.folder, strict=self.strict_config)
        size = found.output_size()
        if size != self.config.image or self.config.num_channels != 3:
            raise ModelError(
                f"{self.folder}: preprocessor_config.json and config.json differ: expected images "
                f"of {self.config.image[0]} x {self.config.image[1]} and 3 channels, got "
                f"{'any size' if size is None else f'{size[0]} x {size[1]}'} and "
                f"{self.config.num_channels}."
            )
        return found

    @property
    def pixels_type(self) -> TensorType:
        """The type of preprocessed images: float32 ["batch", channels, height, width]."""
        sizes = ["batch", self.config.num_channels, *self.config.image]
        return TensorType(DType.float32, sizes, self.device)

    def forget_compiled(self) -> None:
        """Makes the next use compile again, with the layers and weights of that time."""
        for name in ("probabilities", "vectors"):
            vars(self).pop(name, None)

    @functools.cached_property
    def probabilities(self) -> CompiledModel:
        """The compiled `Probabilities` for any number of images; made when it is first needed."""
        return self._probabilities().compile(self.pixels_type, name="classify")

    @functools.cached_property
    def vectors(self) -> CompiledModel:
        """The compiled `Vectors` for any number of images; made when it is first needed."""
        return self._vectors().compile(self.pixels_type, name="embed")

    def classify(
        self, images: Iterable[object], *, top: int = 5, batch_size: int = 8, eager: bool = False
    ) -> list[list[tuple[str, float]]]:
        """Returns the most likely labels of each image.

        Args:
            images: Each a path, a Pillow image, or uint8 [height, width, 3]. Files and Pillow
                images are turned as their EXIF orientation says, and transparent pixels are laid
                on white (the pipeline of transformers shows the colour below them instead). Gray of
                16 bits is scaled to 8, an animation gives its first frame, and a file has at most
                178,956,970 pixels (twice `PIL.Image.MAX_IMAGE_PIXELS`).
            top: The number of labels.
            batch_size: The number of images in a batch.
            eager: Run the module op by op instead of compiled.

        Returns:
            For each image pairs of label and probability, the most likely first.

        Raises:
            ArgumentError: (a ValueError) If an image cannot be read, images is a single one, or a
                number is below 1.
            ModelError: (a ValueError) If the model has no labels, or the folder does not say how
                images become pixels.
        """
        labels = self.labels
        if not labels:
            raise ModelError(f"classify: {self.folder}: the model has no labels. Hint: embed.")
        if top < 1:
            raise ArgumentError(f"classify: top: expected 1 or more, got {top}.")
        run = self._probabilities() if eager else self.probabilities
        result = []
        for row in self._over("classify", run, images, batch_size, len(labels)):
            best = np.argsort(-row, kind="stable")[:top]
            result.append([(labels[place], float(row[place])) for place in best])
        return result

    def embed(
        self, images: Iterable[object], *, batch_size: int = 8, eager: bool = False
    ) -> HostArray:
        """Returns a vector for each image: the last hidden state of its first token.

        Args:
            images: As for `classify`.
            batch_size: The number of images in a batch.
            eager: Run the module op by op instead of compiled.

        Returns:
            float32 [images, width].

        Raises:
            ArgumentError, ModelError: As for `classify`.
        """
        run = self._vectors() if eager else self.vectors
        return self._over("embed", run, images, batch_size, self.config.hidden_size)

    def _probabilities(self) -> Probabilities:
        return Probabilities(self.module, self.config, self.dtype)

    def _vectors(self) -> Vectors:
        module = self.module
        return Vectors(module.vit if isinstance(module, Classifier) else module, self.dtype)

    def _over(
        self,
        caller: str,
        run: Callable[[Tensor], Tensor],
        images: object,
        batch_size: int,
        width: int,
    ) -> Array:
        images = _listed(caller, images)
        if batch_size < 1:
            raise ArgumentError(f"{caller}: batch_size: expected 1 or more, got {batch_size}.")
        result = np.empty((len(images), width), np.float32)
        for at in range(0, len(images), batch_size):
            part = images[at : at + batch_size]
            pixels = np.stack([self.preprocessing.pixels(image) for image in part])
            result[at : at + batch_size] = run(Tensor(pixels, device=self.device)).to_numpy()
        return result


def _listed(caller: str, images: object) -> list[object]:
    """Returns the images as a list; one alone, or what has no order, is refused."""
    is_one = isinstance(images, (str, bytes, os.PathLike, Mapping, Set)) or (
        isinstance(images, np.ndarray) and images.ndim != 4
    )
    if is_one or not isinstance(images, Iterable):
        raise ArgumentError(
            f"{caller}: images: expected a list of images, got {type(images).__name__}. Hint: "
            "[image] for one."
        )
    return list(images)
