"""Which ways of quantising are read, and the tensors of such a folder as a model takes them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.formats import awq, bitsandbytes, compressed_tensors, fp8, gptq
from maxmod.models.formats.layer import IntegerLayer, Layer
from maxmod.ops.weight_quantization import group_size_of, scheme_of
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.plain import JsonObject
from maxmod.values.tensor_type import TensorType
from maxmod.weights import Weights
from maxmod.weights.json_files import read_json
from maxmod.weights.mapping import Recipe, View
from maxmod.weights.quantized_view import Stored

FIELD = "quantization_config"
# By the `quant_method` of config.json.
METHODS: dict[str, Callable[[Weights, JsonObject, Path], dict[str, Layer]]] = {
    "awq": awq.layers,
    "bitsandbytes": bitsandbytes.layers,
    "compressed-tensors": compressed_tensors.layers,
    "fbgemm_fp8": fp8.layers,
    "fp8": fp8.layers,
    "gptq": gptq.layers,
}
# Ends of names of what rounds queries, keys and values of a KV cache, which is not rounded here.
_OF_CACHES = tuple(
    f".{name}_{part}" for name in ("q", "k", "v", "kv") for part in ("scale", "zero_point")
)
# Where folders of the first versions say it, beside a config.json that does not.
_OLDER_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}


def method_of(table: JsonObject, folder: Path) -> tuple[str, JsonObject, Path] | None:
    """Returns the way in which another tool quantised a folder, what it says of it, and where.

    Returns:
        None for a folder of floats, of our own codes, or of a way that is not read.
    """
    given = table.get(FIELD)
    if isinstance(given, dict):
        method = given.get("quant_method")
        if method not in METHODS:
            return None
        return str(method), given, folder / "config.json"
    if given is None:
        for file, method in _OLDER_FILES.items():
            if (folder / file).is_file():
                return method, read_json(folder / file), folder / file
    return None


class FormatWeights(Weights):
    """The tensors of a folder, in which each quantised layer has one weight of float32.

    Args:
        folder: The tensors as they are stored.
        method: How they were quantised.
        layers: The quantised layers by their names.
        transposed: Whether the model keeps weights as [in, out].
    """

    def __init__(
        self, folder: Weights, method: str, layers: Mapping[str, Layer], *, transposed: bool
    ) -> None:
        self.folder, self.method, self.layers = folder, method, layers
        self.parts = {name for layer in layers.values() for name in layer.tensors}
        self._transposed = transposed
        own = {f"{name}.weight": layer for name, layer in layers.items()}
        others = {n: None for n in folder if n not in self.parts and not n.endswith(_OF_CACHES)}
        super().__init__({**others, **own})

    def _load(self, name: str) -> Tensor:
        layer: Layer | None = self._plan[name]
        if layer is None:
            return self.folder[name]
        floats = layer.floats()
        found = floats.T if self._transposed else floats
        return Tensor.wrap(np.ascontiguousarray(found), self._type_of(name))

    def _type_of(self, name: str) -> TensorType:
        layer: Layer | None = self._plan[name]
        if layer is None:
            return self.folder.tensor_type(name)
        sizes = (layer.rows, layer.depth)
        return TensorType.of(DType.float32, sizes[::-1] if self._transposed else sizes, CPU_REF)

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        layer: Layer | None = self._plan[name]
        if layer is None:
            return self.folder.source_key(name)
        return (*self.folder.source_key(layer.tensors[0]), "dequantised")

    def with_codes(
        self, adapt: Callable[[Weights], Weights], sizes: Mapping[str, tuple[int, int]]
    ) -> tuple[Weights, dict[str, Stored]]:
        """Returns the weights of a model, with the codes of layers that kernels can read.

        Args:
            adapt: Gives weights the names and layouts of the model; rows of codes and of scales
                follow those of a weight.
            sizes: The sizes [out, in] of its linear layers.

        Returns:
            The weights, and how layers are stored in them.
        """
        floats = adapt(self)
        if self._transposed:
            return floats, {}
        codes, scales = adapt(_Part(self, 0)), adapt(_Part(self, 1))
        plan = {name: Recipe((floats, name)) for name in floats}
        found: dict[str, Stored] = {}
        for path, (rows, depth) in sizes.items():
            name = f"{path}.weight"
            if name not in floats:
                continue
            kept = codes.tensor_type(name), scales.tensor_type(name)
            if kept[0].dtype not in (DType.int8, DType.uint8):
                continue
            each = 1 if kept[0].dtype is DType.int8 else 2
            if kept[0].sizes != (rows, depth // each) or kept[1].sizes[0] != rows:
                continue  # the load reports the sizes
            scheme = scheme_of(kept[0].dtype, kept[1].dtype)
            found[path] = Stored(scheme, group_size_of(*kept))
            plan[name] = Recipe((codes, name))
            plan[f"{path}.scales"] = Recipe((scales, name))
        return View(plan), found

    def kinds(self) -> Counter[str]:
        """How many layers are read as what: such as `int8`, or `floats`."""
        layers = self.layers.values()
        is_float = self._transposed
        return Counter("floats" if is_float or n.kept is None else str(n.kept) for n in layers)

    def kept_nbytes(self) -> int | None:
        """The bytes of the weights with the codes that kernels read; None if some are floats."""
        if self.are_floats():
            return None
        codes, scales = _Part(self, 0), _Part(self, 1)
        own = [f"{name}.weight" for name in self.layers]
        return codes.nbytes() + sum(int(scales.tensor_type(name).nbytes) for name in own)

    def is_widened(self) -> bool:
        """Whether codes of fewer bits are kept as codes of 8."""
        return not self._transposed and any(
            isinstance(layer, IntegerLayer)
            and layer.kept is not None
            and layer.kept.scheme == "int8"
            and layer.bits < 8
            for layer in self.layers.values()
        )

    def are_floats(self) -> bool:
        """Whether there are weights whose codes no kernel reads."""
        return self._transposed or any(layer.kept is None for layer in self.layers.values())


class _Part(Weights):
    """The codes, or the scales, of layers that kernels read; other tensors as they are."""

    def __init__(self, whole: FormatWeights, part: int) -> None:
        self._whole, self._part = whole, part
        super().__init__(
            {
                name: layer if isinstance(layer, IntegerLayer) and layer.kept else None
                for name, layer in whole._plan.items()
            }
        )

    def _load(self, name: str) -> Tensor:
        layer: IntegerLayer | None = self._plan[name]
        if layer is None:
            return self._whole[name]
        found = layer.kept_scales() if self._part else layer.codes()
        return Tensor.wrap(np.ascontiguousarray(found), self._type_of(name))

    def _type_of(self, name: str) -> TensorType:
        layer: IntegerLayer | None = self._plan[name]
        if layer is None:
            return self._whole.tensor_type(name)
        if self._part:
            return TensorType.of(layer.scale_dtype, (layer.rows, layer.groups), CPU_REF)
        assert layer.kept is not None
        if layer.kept.scheme == "int8":
            return TensorType.of(DType.int8, (layer.rows, layer.depth), CPU_REF)
        return TensorType.of(DType.uint8, (layer.rows, layer.depth // 2), CPU_REF)

    def source_key(self, name: str) -> tuple[Hashable, ...]:
        key = self._whole.source_key(name)
        return key if self._plan[name] is None else (*key, "scales" if self._part else "codes")


def open_format(folder: Path, table: JsonObject, weights: Weights) -> FormatWeights | None:
    """Returns the tensors of a folder that another tool quantised; None for other folders.

    Args:
        folder: The folder.
        table: Its config.json.
        weights: Its tensors as they are stored.

    Raises:
        ModelError: If it says something that is not read, has no quantised layer, or one whose
            tensors do not fit together.
    """
    found = method_of(table, folder)
    if found is None:
        return None
    method, given, where = found
    try:
        layers = METHODS[method](weights, given, where)
    except ModelError as error:
        if str(error).startswith(str(where)):
            raise
        raise ModelError(f"{where}: {method}: {error}") from None
    if not layers and where.name != "config.json":
        return None  # floats, with a file that was left from elsewhere
    if not layers:
        raise ModelError(
            f"{where}: {json.dumps(method)}: no layer of the folder has the tensors of this method."
        )
    is_conv = table.get("model_type") == "gpt2"  # Conv1D keeps weights as [in, out]
    return FormatWeights(weights, method, layers, transposed=is_conv)
