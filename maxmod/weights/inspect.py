"""`inspect_text`: the contents of a weight file, as text for a terminal."""

from __future__ import annotations

import collections
import os
import re

from maxmod.dtype import DType
from maxmod.weights.checkpoint import Checkpoint, open_checkpoint
from maxmod.weights.fit import rounded_nbytes
from maxmod.weights.gguf import GGUFWeights, gguf_of
from maxmod.weights.mapping import Weights, format_nbytes
from maxmod.weights.pytorch import PyTorchWeights, open_pytorch
from maxmod.weights.quantized_view import stored_layers

_ESTIMATED = (DType.float32, DType.bfloat16)
_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")  # a part of a dotted name


def inspect_text(path: str | os.PathLike[str], *, fold: bool = True) -> str:
    r"""Describes weights without reading them: their tensors, dtypes, and the memory they need.

    Args:
        path: As for `open_checkpoint`, or a GGUF file.
        fold: Shows tensors that differ in the numbers of their names only, such as those of
            repeated layers, as one line.

    Returns:
        Lines of text, without a newline at the end.

    Raises:
        CheckpointError: If the weights cannot be opened.

    Example:
        >>> import numpy as np
        >>> import tempfile
        >>> from maxmod.weights import inspect_text, save_state
        >>> folder = tempfile.mkdtemp()
        >>> _ = save_state({f"layers.{i}.weight": np.ones((2, 3), "f") for i in range(4)}, folder)
        >>> print("\n".join(inspect_text(folder).split("\n")[2:4]))
        name             count  dtype    shape   size
        layers.*.weight      4  float32  [2, 3]  96 B
    """
    with opened(path) as checkpoint:
        return text_of(checkpoint, fold=fold)


def text_of(
    checkpoint: Checkpoint | GGUFWeights | PyTorchWeights,
    *,
    fold: bool,
    memory: list[str] | None = None,
) -> str:
    """Describes open weights; see `inspect_text`.

    Args:
        checkpoint: The weights.
        fold: As for `inspect_text`.
        memory: Lines on the memory that they need; by default what their tensors tell.
    """
    parts = [repr(checkpoint), "", *_tensor_table(checkpoint, fold), ""]
    parts += _dtype_table(checkpoint)
    parts += ["", *(_memory_lines(checkpoint) if memory is None else memory)]
    if checkpoint.metadata:
        entries = (f"{_plain(k)}={_plain(v)}" for k, v in checkpoint.metadata.items())
        parts += ["", "metadata  " + _shorten(", ".join(entries), 200)]
    return "\n".join(parts)


def opened(path: str | os.PathLike[str]) -> Checkpoint | GGUFWeights | PyTorchWeights:
    """Opens weights of a folder or file, for what is stored of them."""
    file = gguf_of(path)
    return open_pytorch(path) or open_checkpoint(path) if file is None else GGUFWeights(file)


def stored_nbytes(checkpoint: Checkpoint | GGUFWeights | PyTorchWeights) -> int:
    """Returns the bytes that the tensors have in their files, tied ones counted once."""
    unique = {checkpoint.source_key(name): name for name in checkpoint}
    return sum(_stored(checkpoint, name)[1] for name in unique.values())


def _stored(checkpoint: Checkpoint | GGUFWeights | PyTorchWeights, name: str) -> tuple[str, int]:
    """Returns what the dtype of a tensor is called in its file, and its bytes there."""
    if isinstance(checkpoint, GGUFWeights):
        return checkpoint.stored(name)
    type = checkpoint.tensor_type(name)
    return repr(type.dtype), int(type.nbytes)


def _plain(text: str) -> str:
    """Escapes control characters, which a terminal would interpret."""
    return text if text.isprintable() else repr(text)[1:-1]


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def _tensor_table(checkpoint: Checkpoint | GGUFWeights | PyTorchWeights, fold: bool) -> list[str]:
    groups: dict[tuple[str, str], list[str]] = {}
    for name in checkpoint:
        type = checkpoint.tensor_type(name)
        shape = f"{_stored(checkpoint, name)[0]} {list(map(int, type.sizes))}"
        groups.setdefault((_NUMBER.sub("*", name) if fold else name, shape), []).append(name)
    seen: dict[object, str] = {}
    rows = [("name", "count", "dtype", "shape", "size")]
    for (folded, shape), names in groups.items():
        dtype, _, sizes = shape.partition(" ")
        nbytes = 0
        note = ""
        for name in names:
            first = seen.setdefault(checkpoint.source_key(name), name)
            if first == name:
                nbytes += _stored(checkpoint, name)[1]
            else:
                note = f"tied to {_plain(first)}"
        label = names[0] if len(names) == 1 else folded
        size = format_nbytes(nbytes) if nbytes or not note else note
        rows.append((_shorten(_plain(label), 80), str(len(names)), dtype, sizes, size))
    return _columns(rows, right=(1, 4))


def _dtype_table(checkpoint: Checkpoint | GGUFWeights | PyTorchWeights) -> list[str]:
    unique = {checkpoint.source_key(name): name for name in checkpoint}
    tensors: collections.Counter[str] = collections.Counter()
    elements: collections.Counter[str] = collections.Counter()
    nbytes: collections.Counter[str] = collections.Counter()
    for name in unique.values():
        dtype, size = _stored(checkpoint, name)
        tensors[dtype] += 1
        elements[dtype] += checkpoint.tensor_type(name).num_elements()
        nbytes[dtype] += size
    rows = [("dtype", "tensors", "elements", "size")]
    for dtype, _ in nbytes.most_common():
        rows.append(
            (dtype, str(tensors[dtype]), f"{elements[dtype]:,}", format_nbytes(nbytes[dtype]))
        )
    total = (str(tensors.total()), f"{elements.total():,}", format_nbytes(nbytes.total()))
    return _columns([*rows, ("total", *total)], right=(1, 2, 3))


def _memory_lines(checkpoint: Checkpoint | GGUFWeights | PyTorchWeights) -> list[str]:
    """The memory of the weights if every floating tensor had one dtype."""
    unique = {checkpoint.source_key(f"{n}.weight"): k for n, k in stored_layers(checkpoint).items()}
    layers = collections.Counter(unique.values())  # a head and its embedding count once
    if layers:
        counts = [f"{count} of {kind}" for kind, count in layers.most_common()]
        return [
            f"quantised layers  {'; '.join(counts)}",
            f"memory of the weights  {format_nbytes(checkpoint.nbytes())}",
        ]
    return [memory_line(checkpoint)]


def memory_line(weights: Weights) -> str:
    """Says how much memory floats need in other dtypes, or rounded."""
    sizes = [f"{d!r} {format_nbytes(weights.nbytes(d))}" for d in _ESTIMATED]
    sizes += [f"{s} {format_nbytes(rounded_nbytes(weights, s))}" for s in ("int8", "int4")]
    return f"memory of the weights when loaded as  {', '.join(sizes)}"


def _columns(rows: list[tuple[str, ...]], right: tuple[int, ...]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    ]
