"""Makes the module of a folder and loads its weights."""

from __future__ import annotations

import collections
import functools
import os
from collections.abc import Callable, Container
from pathlib import Path
from typing import NamedTuple

from maxmod import backends
from maxmod.distributed import Group, enter
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ModelError, WeightsError
from maxmod.interpreters.lazy import lazy
from maxmod.log import note
from maxmod.models.architectures import Architecture, architecture_of, config_of, read_fields
from maxmod.models.config import ModelConfig
from maxmod.models.folder import CONFIG, find_folder
from maxmod.models.formats.methods import FIELD, FormatWeights, open_format
from maxmod.models.gguf.folder import open_weights
from maxmod.models.gguf.tensors import GGUFView
from maxmod.models.parallel import Parallel, join, shards
from maxmod.models.quantized_folder import Rounding, as_stored, is_marked, rounded
from maxmod.nn import Module
from maxmod.nn.quantizing import linear_layers
from maxmod.tensor.default_context import default_device, default_dtype, resolve
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.plain import JsonObject
from maxmod.weights import Weights, expect_room, open_checkpoint
from maxmod.weights.pytorch import open_pytorch
from maxmod.weights.quantized_view import stored_layers


class Loaded(NamedTuple):
    """A model of a folder.

    Attributes:
        caller: The loading function.
        folder: The folder, as an absolute path.
        table: Its config.json.
        config: The fields that the module uses.
        module: The module, with its weights.
        device: Where they are.
        dtype: What it computes in.
        part: The configuration of what this process computes, of several processes.
    """

    caller: str
    folder: Path
    table: JsonObject
    config: ModelConfig
    module: Module
    device: DeviceRef
    dtype: DType
    part: ModelConfig


def load(
    caller: str,
    folder: str | os.PathLike[str],
    *,
    device: DeviceLike | None,
    dtype: DType | None,
    rounding: Rounding | None,
    strict: bool,
    adjust: Callable[[str, Architecture, JsonObject, Path], Architecture] | None = None,
    group: Group | None = None,
) -> Loaded:
    """Loads the model of a folder.

    Args:
        caller: The loading function, for messages and as a key of `KINDS`.
        folder: As for `load_model`.
        device: As for `load_model`.
        dtype: As for `load_model`.
        rounding: How to quantise it.
        strict: As `strict_config` of `load_model`.
        adjust: Changes the architecture by what config.json says; gets the caller and its path too.
        group: The processes that compute it together; this one alone if it is not given.
    """
    path = find_folder(caller, folder)
    table = config_of(caller, path)
    config = read_fields(caller, path, table, strict)
    architecture = architecture_of(caller, table)
    if adjust is not None:
        architecture = adjust(caller, architecture, table, path / CONFIG)
    division, device = _division(caller, path, architecture, config, device, group)
    made = _load(caller, path, table, architecture, config, device, dtype, rounding, division)
    part = config if division is None else division.part
    return Loaded(caller, path.absolute(), table, config, *made, part)


class _Division(NamedTuple):
    """How a model is divided among several processes."""

    plan: Parallel
    part: ModelConfig
    group: Group


def _division(
    caller: str,
    folder: Path,
    architecture: Architecture,
    config: ModelConfig,
    device: DeviceLike | None,
    group: Group | None,
) -> tuple[_Division | None, DeviceLike | None]:
    """Returns how the model is divided, None in a group of one, and the device of this process."""
    if group is None or group.size == 1:
        return None, device
    where = folder / CONFIG
    if architecture.parallel is None:
        raise ModelError(f"{caller}: {where}: this architecture cannot be divided among processes.")
    try:
        part = architecture.parallel.part(config, group.size)
    except ModelError as error:
        raise ModelError(f"{caller}: {where}: {error}") from None
    enter(group)
    _, ref = resolve(None, device)
    if ref.is_gpu():
        count = backends.get(ref).device_count()
        if device is None and count > 1:  # else a launcher shows each process its own
            ref = DeviceRef.GPU(group.local_rank)
        group.use_gpu(ref.id)
    return _Division(architecture.parallel, part, group), ref


def _load(
    caller: str,
    folder: Path,
    table: JsonObject,
    architecture: Architecture,
    config: ModelConfig,
    device: DeviceLike | None,
    dtype: DType | None,
    rounding: Rounding | None,
    division: _Division | None,
) -> tuple[Module, DeviceRef, DType]:
    """Returns the module with its weights, device and dtype."""
    where = folder / CONFIG
    has_mark = is_marked(table, where)
    _, ref = resolve(None, device)
    opened = open_weights(folder) or open_pytorch(folder) or open_checkpoint(folder)
    with opened as checkpoint:
        _check_layers(config, len(checkpoint), where)
        layers = stored_layers(checkpoint)
        if has_mark and not layers:
            raise ModelError(f"{where}: {FIELD!r}: no layer of the folder is stored as codes.")
        if layers and rounding is not None:
            raise ArgumentError(
                f"{caller}: {folder}: quantize: the weights of this folder are quantised already."
            )
        formats = None if has_mark else open_format(folder, table, checkpoint)
        parts = {f"{name}.scales" for name in layers} if formats is None else formats.parts
        dtype = dtype or _stored_dtype(checkpoint, parts)
        if isinstance(checkpoint, GGUFView) and rounding is None:
            _tell_of_dequantised(checkpoint, dtype)
        with lazy(), default_device(ref), default_dtype(dtype):
            module = architecture.module(config if division is None else division.part)
        stored = checkpoint.on(ref) if formats is None else formats
        try:
            if formats is not None and rounding is None and division is not None:
                raise ModelError(
                    f"{caller}: {folder}: layers that {formats.method} quantised cannot be divided "
                    "among processes. Hint: quantize='int4' or 'int8' (--quantize) rounds them "
                    "again while they are read."
                )
            if formats is not None and rounding is None:
                _tell_of_format(folder, formats, dtype)
                adapt = functools.partial(_adapted, architecture, config)
                stored, layers = formats.with_codes(adapt, _sizes_of_layers(module))
            elif not layers:
                stored = architecture.adapt(stored, config)
            if division is not None:
                stored = shards(stored, division.plan, config, division.group)
                layers = stored_layers(stored) if layers else layers
            if layers:
                weights = as_stored(module, stored, dtype, layers)
            else:
                weights = stored.astype(dtype)
            if rounding is not None:
                weights = rounded(module, stored, weights, rounding)
            expect_room(weights, ref, action=f"{caller}: {folder}")
            module.load_state_dict(weights)
        except WeightsError as error:
            raise WeightsError(f"{caller}: {folder}: {error}") from None
    if division is not None:
        join(module, division.plan, config.vocab_size, division.group)
    return module.to(ref), ref, dtype


def _sizes_of_layers(module: Module) -> dict[str, tuple[int, int]]:
    """Returns the sizes [out, in] of each linear layer by its name."""
    return {
        path: (int(linear.out_dim), int(linear.in_dim)) for path, _, linear in linear_layers(module)
    }


def _adapted(architecture: Architecture, config: ModelConfig, weights: Weights) -> Weights:
    return architecture.adapt(weights, config)


def _tell_of_format(folder: Path, formats: FormatWeights, dtype: DType) -> None:
    """Says in one line where the codes of another tool are not read as they are."""
    if formats.is_widened():
        note(
            f"{folder.name}: weights of {formats.method} with zero points are kept as codes of 8 "
            "bits, which hold them exactly."
        )
    if formats.are_floats():
        rounds = {DType.bfloat16: ", at most 0.2 % off", DType.float16: ", at most 0.05 % off"}
        note(
            f"{folder.name}: weights of {formats.method} are read as {dtype!r}"
            f"{rounds.get(dtype, '')}. Hint: quantize='int4' or 'int8' (--quantize) rounds them "
            "again while they are read."
        )


def _tell_of_dequantised(checkpoint: GGUFView, dtype: DType) -> None:
    """Says in one line that quantised weights of a GGUF file take more memory than the file."""
    file = checkpoint.file
    if file.is_quantised:
        kinds = ", ".join(file.quantised_kinds)
        note(
            f"{Path(file.path).name}: weights of {kinds} are read as {dtype!r}. Hint: "
            "quantize='int4' or 'int8' (--quantize) rounds them again while they are read."
        )


def _check_layers(config: ModelConfig, tensors: int, where: Path) -> None:
    """Rejects more layers than there are tensors, before allocating an object for each."""
    for name in ("num_hidden_layers", "n_layer"):
        value = getattr(config, name, 0)
        if value > tensors:
            raise ModelError(
                f"{where}: {name}: expected at most {tensors}, as many as there are tensors in the "
                f"weights, got {value}."
            )


def _stored_dtype(weights: Weights, scales: Container[str]) -> DType:
    """Returns the dtype to compute in: the floating dtype of most of the stored bytes.

    8-bit floats are a storage format; they are computed with in bfloat16, and so is what is
    dequantised of a GGUF file. Scales of quantised weights do not count.
    """
    if isinstance(weights, GGUFView) and weights.file.is_quantised:
        return DType.bfloat16
    nbytes: collections.Counter[DType] = collections.Counter()
    for name in weights:
        stored = weights.tensor_type(name)
        if stored.dtype.is_float() and name not in scales:
            nbytes[stored.dtype] += int(stored.nbytes)
    stored = nbytes.most_common(1)[0][0] if nbytes else DType.float32
    return stored if stored.size_in_bits > 8 else DType.bfloat16
