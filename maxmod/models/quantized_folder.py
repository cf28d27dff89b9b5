"""Models with weights of 8 and 4 bits: rounded while they are loaded, or loaded as they were saved.

A folder of rounded weights is one as `save_quantized` writes it: its tensors have the names and
layouts of the module, a rounded layer has `weight` and `scales` (see `F.quantize_weight`), and
config.json says `"quantization_config": {"quant_method": "maxmod", ...}`. What each layer has is
told by its tensors, so that what `save_state` made of the parameters of a module loads as well.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, MaxmodError, ModelError, WeightsError
from maxmod.interpreters.lazy import lazy
from maxmod.models.formats.methods import FIELD, METHODS
from maxmod.nn import Module, QuantizedLinear
from maxmod.nn.places import descendants_of, parameters_of
from maxmod.nn.quantized_embedding import QuantizedEmbedding
from maxmod.nn.quantizing import formats_of, linear_layers, replace_layers, tied_embeddings
from maxmod.ops.weight_quantization import ROWS
from maxmod.tensor import Tensor
from maxmod.values.plain import JsonObject
from maxmod.weights import QuantizedWeights, Weights, save_state
from maxmod.weights.json_files import read_json, read_json_list
from maxmod.weights.mapping import Recipe, View
from maxmod.weights.quantized_view import Stored
from maxmod.weights.text_files import MAX_BYTES, read_bytes

METHOD = "maxmod"
# 2: 4-bit codes have minimums, a tied embedding has the codes of the head.
# 3: 8-bit codes have a scale for each group.
VERSION = 3
# Files that `save_quantized` copies along with config.json: tokenizers, templates and the like.
_COPIED = (".json", ".txt", ".model", ".jinja", ".md")


class Rounding(NamedTuple):
    """How to round a model while it is loaded; see `maxmod.quantize`."""

    scheme: str
    group_size: int | None
    skip: str | tuple[str, ...]
    head: str
    sensitive: str

    @classmethod
    def of(
        cls,
        caller: str,
        quantize: str | None,
        group_size: int | None,
        skip: str | Iterable[str],
        head: str,
        sensitive: str,
    ) -> Rounding | None:
        """Returns the options of a loading function as a record; None if it does not quantise."""
        if quantize is not None:
            names = skip if isinstance(skip, str) else tuple(skip)
            return cls(quantize, group_size, names, head, sensitive)
        if group_size is not None or skip or (head, sensitive) != ("int8", "int8"):
            raise ArgumentError(
                f"{caller}: group_size, skip, head and sensitive need quantize as well."
            )
        return None


def is_marked(table: JsonObject, where: Path) -> bool:
    """Returns whether config.json says that weights are stored rounded, by `save_quantized`.

    Raises:
        ModelError: If a method that is not read quantised them; the message names it.
    """
    given = table.get(FIELD)
    if given is None:
        return False
    method = given.get("quant_method") if isinstance(given, dict) else None
    if method == METHOD:
        assert isinstance(given, dict)
        version = given.get("version", 1)
        if type(version) is not int or not 1 <= version <= VERSION:
            raise ModelError(
                f"{where}: {FIELD!r}: version: expected 1 to {VERSION}, got "
                f"{json.dumps(version)[:80]}. Hint: a newer maxmod wrote this folder."
            )
        return True
    if isinstance(method, str) and method in METHODS:
        return False
    by = f"by {json.dumps(method)[:80]}" if method is not None else "in a way that is not named"
    raise ModelError(
        f"{where}: {FIELD!r}: weights that were quantised {by} are not supported: expected null or "
        f"a quant_method of {', '.join((*METHODS, METHOD))}, got {json.dumps(given)[:80]}. Hint: "
        "load the folder of the original floats with quantize='int8' or 'int4'."
    )


def rounded(module: Module, stored: Weights, weights: Weights, rounding: Rounding) -> Weights:
    """Quantises the layers of a module without data, and returns the weights for it.

    Args:
        module: The module.
        stored: Its weights in their stored dtypes.
        weights: The same in the dtype of the module.
        rounding: The scheme and its options.
    """
    tied = {name: p.names for p in parameters_of(module) for name in p.names}
    formats = formats_of(module, *rounding)
    tables = _tables_by_layer(module)
    replace_layers(module, formats)
    for path in [path for path, (scheme, _) in formats.items() if scheme == "int8"]:
        formats |= dict.fromkeys(tables.get(path, ()), formats[path])
    sources = {}
    for path in formats:
        own = f"{path}.weight"
        found = [name for name in (own, *tied[own]) if name in stored]
        if found:  # the load reports the others
            sources[path] = found[0]
    return QuantizedWeights(weights, stored, sources, formats)


def as_stored(
    module: Module, stored: Weights, dtype: DType, layers: Mapping[str, Stored]
) -> Weights:
    """Quantises the layers of a module without data in the way they are stored.

    Args:
        module: The module.
        stored: Its weights.
        dtype: The dtype that floats are cast to; scales keep theirs.
        layers: The layers that are stored as codes.

    Returns:
        The weights for the module.
    """
    tables = _tables_by_layer(module)
    formats: dict[str, Stored] = {}
    for path, _, _ in linear_layers(module):  # codes in common have the name of the embedding
        found = [name for name in (path, *tables.get(path, ())) if name in layers]
        if found:
            scheme, group = layers[found[0]]
            formats[path] = Stored(scheme, group or ROWS)
    try:
        replace_layers(module, formats, tables=layers)
    except MaxmodError as error:
        raise WeightsError(str(error)) from None
    _take_dtypes_of_scales(module, stored)
    floats = stored.astype(dtype)
    scales = {f"{name}.scales" for name in layers}
    return View({n: Recipe((stored if n in scales else floats, n)) for n in stored})


def _take_dtypes_of_scales(module: Module, stored: Weights) -> None:
    """Gives scales without data the dtypes of the stored ones: other tools have other floats."""
    made: dict[int, Tensor] = {}
    layers = [
        (f"{name}.scales", layer)
        for name, _, layer in descendants_of(module)
        if isinstance(layer, (QuantizedLinear, QuantizedEmbedding))
    ]
    for name, layer in layers:
        if name in stored and stored.tensor_type(name).dtype is not layer.scales.dtype:
            with lazy():
                made[id(layer.scales)] = layer.scales.cast(stored.tensor_type(name).dtype)
    for _, layer in layers:  # those of a tied embedding are in common
        layer.scales = made.get(id(layer.scales), layer.scales)


def _tables_by_layer(module: Module) -> dict[str, list[str]]:
    """Returns the names of the embeddings whose weight a linear layer has, by that of the layer."""
    tables = tied_embeddings(module)
    return {
        path: [place.name for place, _ in tables.get(id(linear.weight), ())]
        for path, _, linear in linear_layers(module)
    }


class Pretrained(Protocol):
    """What `load_model` and its like return."""

    @property
    def folder(self) -> Path: ...

    @property
    def module(self) -> Module: ...


def save_quantized(
    model: Pretrained, folder: str | os.PathLike[str], *, max_shard_bytes: int | None = None
) -> Path:
    """Saves a model with rounded weights as a folder that `load_model` and the like can load.

    The folder appears when it is complete, or not at all; one that is there and empty is filled
    when all files are made. Other files that belong to the model, such as its tokenizer, are
    copied.

    Args:
        model: A model from `load_model`, `load_encoder` or `load_vision_model`, rounded while
            loading or by `maxmod.quantize`.
        folder: A folder that does not exist, or is empty.
        max_shard_bytes: As for `maxmod.weights.save_state`.

    Returns:
        The folder.

    Raises:
        ArgumentError: (a ValueError) If there is something in the folder, or no layer of the model
            is rounded.
        OSError: If the disk is full or cannot be written to; there is no folder then.

    Example:
        >>> import tempfile
        >>> from maxmod.models import adder_folder, load_model, save_quantized
        >>> model = load_model(adder_folder(), quantize="int8")
        >>> folder = save_quantized(model, tempfile.mkdtemp() + "/adder-int8")
        >>> load_model(folder).generate("123+456=")
        '579'
    """
    group = getattr(model, "group", None)
    if group is not None and group.size > 1:
        raise ArgumentError("save_quantized: this process has a part of the weights only.")
    target = expect_new_folder(folder)
    config = read_json(model.folder / "config.json") | {FIELD: _description(model.module)}
    target.parent.mkdir(parents=True, exist_ok=True)
    # Written inside an existing folder, since that may be a mount or the working directory.
    parent = target if target.exists() else target.parent
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=parent) as temporary:
        made = Path(temporary) / "model"
        save_state(model.module.parameters, made, max_shard_bytes=max_shard_bytes)
        for path in _companions(model.folder):
            _write(made / path, read_bytes(model.folder / path))
        _write(made / "config.json", json.dumps(config, indent=2).encode() + b"\n")
        if parent is not target:
            made.rename(target)
        else:
            config_last = sorted(made.iterdir(), key=lambda path: path.name == "config.json")
            for path in config_last:
                path.rename(target / path.name)
    return target


def expect_new_folder(folder: str | os.PathLike[str]) -> Path:
    """Returns the absolute path of a new or empty folder.

    Raises:
        ArgumentError: If there is something, or no folder can be there.
    """
    name = os.fspath(folder)
    expected = "expected a folder that does not exist or is empty"
    try:
        target = Path(folder).resolve()
        nearest = next(path for path in (target, *target.parents) if path.exists())
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a null character
        raise ArgumentError(f"save_quantized: {name!r}: {expected}: {error}.") from None
    if not name or not nearest.is_dir() or (nearest == target and any(target.iterdir())):
        why = f": {nearest} is a file" if nearest.is_file() and nearest != target else ""
        raise ArgumentError(f"save_quantized: {name!r}: {expected}{why}.")
    return target


def _description(module: Module) -> JsonObject:
    """The entry of config.json about the weights, for people: how layers are stored.

    `bits` and `group_size` are those of most weights, or of two halves those with fewer bits;
    `layers` has the layers with others.
    """
    made = {
        name: layer
        for name, _, layer in descendants_of(module)
        if isinstance(layer, QuantizedLinear)
    }
    if not made:
        raise ArgumentError(
            "save_quantized: no layer of the model is quantised. Hint: maxmod.quantize(model, "
            "'int8') rounds its weights."
        )
    formats = {name: _bits_and_group(layer) for name, layer in made.items()}
    sizes: Counter[tuple[int, int]] = Counter()
    for name, layer in made.items():
        sizes[formats[name]] += int(layer.in_dim) * int(layer.out_dim)
    usual = max(sizes, key=lambda kind: (sizes[kind], -kind[0], kind[1]))
    others = {name: _entry(*kind) for name, kind in formats.items() if kind != usual}
    made_by = {"quant_method": METHOD, **_entry(*usual), "version": VERSION}
    return made_by | ({"layers": others} if others else {})


def _bits_and_group(layer: QuantizedLinear) -> tuple[int, int]:
    """The bits of a code and how many share a scale, 0 for all of a row."""
    return (8 if layer.scheme == "int8" else 4), layer.group_size or 0


def _entry(bits: int, group_size: int) -> JsonObject:
    return {"bits": bits, "group_size": group_size or None}


def _companions(folder: Path) -> list[Path]:
    """Returns the small files of a model, in its folder and the folders of its parts."""
    found = [*folder.iterdir()]
    for name in _parts(folder):
        found += (folder / name).iterdir()
    return [
        path.relative_to(folder)
        for path in sorted(found)
        if path.suffix in (_COPIED if path.parent == folder else (*_COPIED, ".safetensors"))
        and path != folder / "config.json"
        and not path.name.startswith(".")
        and not path.name.endswith(".index.json")
        and path.is_file()
        and path.stat().st_size <= MAX_BYTES
    ]


def _parts(folder: Path) -> list[str]:
    """Returns the subfolders that modules.json names, such as the one of the pooling."""
    path = folder / "modules.json"
    if not path.exists():
        return []
    named = [part.get("path") for part in read_json_list(path) if isinstance(part, dict)]
    inside = (item.name for item in folder.iterdir() if item.is_dir())
    return [name for name in inside if name in named and not name.startswith(".")]


def _write(path: Path, data: bytes) -> None:
    """Writes a new file and flushes it to disk."""
    path.parent.mkdir(exist_ok=True)
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
