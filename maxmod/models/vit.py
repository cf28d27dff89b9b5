"""ViT, an encoder of images split into patches, with weights in the layout of Hugging Face.

Source: A. Dosovitskiy et al., An Image is Worth 16x16 Words, arXiv 2010.11929. Names and numerics
follow `ViTModel` and `ViTForImageClassification` of the transformers library, without the pooler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maxmod import functional as F
from maxmod.errors import ModelError
from maxmod.models.activations import ACTIVATIONS, check_activation
from maxmod.models.attention import attention, merge_heads, split_heads
from maxmod.models.labels import MAX_LABELS, label_names
from maxmod.nn import Conv2d, LayerNorm, Linear, Module, ModuleList
from maxmod.nn.initial import initial_normal
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.weights import Weights, drop, rename, strip_prefix

# Values of `architectures` in config.json, and whether each has a classifier.
KINDS = {"ViTForImageClassification": True, "ViTModel": False}


@dataclass(frozen=True, slots=True)
class Config:
    """The fields of config.json that the model uses."""

    architectures: list | None = None
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-12
    image_size: int | list = 224
    patch_size: int | list = 16
    num_channels: int = 3
    qkv_bias: bool = True
    id2label: dict | None = None
    num_labels: int | None = None
    problem_type: str | None = None

    def __post_init__(self) -> None:
        sizes = (self.hidden_size, self.num_hidden_layers, self.num_attention_heads)
        sizes += (self.intermediate_size, self.num_channels)
        if self.num_labels is not None and not 0 < self.num_labels <= MAX_LABELS:
            raise ModelError(f"num_labels: expected 1 to {MAX_LABELS}, got {self.num_labels}.")
        sizes += _pair("image_size", self.image_size) + _pair("patch_size", self.patch_size)
        if min(sizes) < 1:
            raise ModelError("sizes must be above 0.")
        if self.hidden_size % self.num_attention_heads:
            raise ModelError(
                f"hidden_size={self.hidden_size} is not a multiple of "
                f"num_attention_heads={self.num_attention_heads}."
            )
        if min(self.grid) < 1:
            raise ModelError(
                f"expected patches no larger than the image, got patch_size={self.patch_size} and "
                f"image_size={self.image_size}."
            )
        check_activation("hidden_act", self.hidden_act)
        self.is_classifier()
        self.labels()

    @property
    def image(self) -> tuple[int, int]:
        """Height and width of the images."""
        return _pair("image_size", self.image_size)

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch."""
        return _pair("patch_size", self.patch_size)

    @property
    def grid(self) -> tuple[int, int]:
        """Number of patches in the height and in the width."""
        return self.image[0] // self.patch[0], self.image[1] // self.patch[1]

    def is_classifier(self) -> bool:
        """Whether the model gives logits of labels, or only a vector for each patch.

        Raises:
            ModelError: If `architectures` names another kind of model.
        """
        names = self.architectures or ["ViTModel"]
        if len(names) != 1 or not isinstance(names[0], str) or names[0] not in KINDS:
            raise ModelError(
                f"architectures: expected one of {', '.join(KINDS)}, got {names!r:.80}."
            )
        return KINDS[names[0]]

    def labels(self) -> list[str]:
        """The names of the labels, in the order of the logits.

        Raises:
            ModelError: If `id2label` does not map 0, 1, ... to strings.
        """
        return label_names(self.id2label, self.num_labels)


def _pair(field: str, value: Any) -> tuple[int, int]:
    """Returns height and width; a single number is used for both."""
    pair = value if isinstance(value, list) else [value, value]
    if len(pair) != 2 or not all(type(size) is int for size in pair):
        raise ModelError(f"{field}: expected a number or two of them, got {value!r}.")
    return pair[0], pair[1]


class Embeddings(Module[[Tensor], Tensor]):
    """An image as a sequence: a learned class token, then a vector for each patch."""

    def __init__(self, config: Config) -> None:
        self.image = config.image
        rows, columns = config.grid
        self.projection = Conv2d(
            config.patch,
            config.num_channels,
            config.hidden_size,
            stride=config.patch,
            has_bias=True,
            permute=True,
        )
        self.cls_token = initial_normal([1, 1, config.hidden_size])
        self.position_embeddings = initial_normal([1, 1 + rows * columns, config.hidden_size])

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [batch, channels, height, width] -> [batch, 1 + patches, width]"""
        if list(pixels.shape[2:]) != list(self.image):
            raise ModelError(
                f"pixels: expected images of {self.image[0]} x {self.image[1]}, got "
                f"{pixels.type.short()}. Hint: preprocess them."
            )
        patches = self.projection(pixels)
        batch, width, rows, columns = patches.shape
        patches = patches.reshape([batch, width, rows * columns]).permute([0, 2, 1])
        first = F.broadcast_to(self.cls_token, [batch, 1, width])
        return F.concat([first, patches], axis=1) + self.position_embeddings


class Attention(Module[[Tensor], Tensor]):
    """Multi-head self-attention, not masked."""

    def __init__(self, config: Config) -> None:
        self.heads = config.num_attention_heads
        self.scale = (config.hidden_size // self.heads) ** -0.5
        self.q_proj = Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.k_proj = Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.v_proj = Linear(config.hidden_size, config.hidden_size, bias=config.qkv_bias)
        self.o_proj = Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, seq, width]"""
        q, k, v = (split_heads(f(x), self.heads) for f in (self.q_proj, self.k_proj, self.v_proj))
        return self.o_proj(merge_heads(attention(q, k, v, None, self.scale)))


class MLP(Module[[Tensor], Tensor]):
    """Two linear layers with an activation between them."""

    def __init__(self, config: Config) -> None:
        self.activation = config.hidden_act
        self.fc1 = Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        """Transforms each patch: x [batch, seq, width]."""
        return self.fc2(ACTIVATIONS[self.activation](self.fc1(x)))


class Block(Module[[Tensor], Tensor]):
    """Pre-norm attention and MLP, each with a residual connection."""

    def __init__(self, config: Config) -> None:
        self.layernorm_before = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attention = Attention(config)
        self.layernorm_after = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x: Tensor) -> Tensor:
        """x [batch, seq, width]"""
        x = x + self.attention(self.layernorm_before(x))
        return x + self.mlp(self.layernorm_after(x))


class ViT(Module[[Tensor], Tensor]):
    """The encoder: an image to a vector for the class token and one for each patch.

    Attributes:
        embeddings: Pixels to the input of the first block.
        layers: The blocks.
        layernorm: The last normalisation.
    """

    def __init__(self, config: Config) -> None:
        self.embeddings = Embeddings(config)
        self.layers = ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self.layernorm = LayerNorm(config.hidden_size, config.layer_norm_eps)

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, channels, height, width] -> [batch, 1 + patches, width]"""
        x = self.embeddings(pixels)
        for block in self.layers:
            x = block(x)
        return self.layernorm(x)


class Classifier(Module[[Tensor], Tensor]):
    """An encoder and the logits of its labels, computed from the class token."""

    def __init__(self, config: Config) -> None:
        self.vit = ViT(config)
        self.classifier = Linear(config.hidden_size, len(config.labels()))

    def forward(self, pixels: Tensor) -> Tensor:
        """[batch, channels, height, width] -> logits [batch, labels]"""
        return self.classifier(self.vit(pixels)[:, 0])


def make_module(config: Config) -> Module[[Tensor], Tensor]:
    """Makes the module that a configuration specifies."""
    return Classifier(config) if config.is_classifier() else ViT(config)


def adapt_weights(weights: StateLike) -> Weights:
    """Returns weights of a Hugging Face folder with the names of `ViT` or `Classifier`.

    What belongs to the pooler and to masked images is left out.
    """
    has_classifier = any(name.startswith("classifier.") for name in weights)
    weights = strip_prefix(weights, "vit.")
    weights = drop(weights, ["pooler.*", "embeddings.mask_token"])
    block = "encoder.layer.*."
    names = {
        "embeddings.patch_embeddings.projection.*": "embeddings.projection.*",
        block + "attention.attention.query.*": "layers.*.attention.q_proj.*",
        block + "attention.attention.key.*": "layers.*.attention.k_proj.*",
        block + "attention.attention.value.*": "layers.*.attention.v_proj.*",
        block + "attention.output.dense.*": "layers.*.attention.o_proj.*",
        block + "intermediate.dense.*": "layers.*.mlp.fc1.*",
        block + "output.dense.*": "layers.*.mlp.fc2.*",
        block + "layernorm_*": "layers.*.layernorm_*",
    }
    weights = rename(weights, names)
    if not has_classifier:
        return weights
    return rename(weights, lambda name: name if name.startswith("classifier.") else f"vit.{name}")
