"""`expect_room`: checks that weights fit into device memory, before anything is read."""

from __future__ import annotations

import re

from maxmod import backends
from maxmod.dtype import DType
from maxmod.errors import OutOfMemoryError
from maxmod.tensor.default_context import resolve
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.weights.mapping import Weights, format_nbytes

# Bits of a weight with its part of scales, which 64 weights of 8 bits or 32 of 4 share.
_BITS = {"int8": 8 + 16 / 64, "int4": 4 + 16 / 32}
_TABLE = re.compile(r"embed|wte|wpe|words|positions")  # tables that are looked up
# Heads, and the layers of BERT that `maxmod.quantize` keeps in 8 bits, by the names of checkpoints.
_EIGHT_BITS = re.compile(r"lm_head|self\.value\.|attention\.output\.dense|intermediate\.dense")


def expect_room(
    weights: Weights, device: DeviceLike | None = None, *, action: str = "expect_room"
) -> None:
    """Raises unless weights fit into the free memory of a device.

    Nothing is read or allocated. `load_model` and its like ask this first; a system without such
    a question would run out of memory in the middle of a load, or be made to end the process.

    Args:
        weights: The weights to load, such as an open checkpoint or `checkpoint.astype(dtype)`.
        device: The target device; the default device if not given.
        action: Name of the caller, for the message.

    Raises:
        OutOfMemoryError: (a MemoryError) With the bytes that are needed and available. Where the
            system does not tell how much is free, never.

    Example:
        >>> from maxmod import CPU
        >>> from maxmod.models import adder_folder
        >>> from maxmod.weights import expect_room, open_checkpoint
        >>> expect_room(open_checkpoint(adder_folder()), CPU())
    """
    _, ref = resolve(None, device)
    stats = backends.get(ref).stats(ref.id)
    if "free_memory" not in stats:
        return
    available = stats["free_memory"] + stats.get("pool_cached", 0)
    needed = weights.nbytes()
    if needed <= available:
        return
    hint = _hint(weights, needed, available, ref, can_round=action.startswith("load_"))
    raise OutOfMemoryError(
        f"{action}: the weights need {format_nbytes(needed)}, but only {format_nbytes(available)} "
        f"of the {format_nbytes(stats['total_memory'])} of {ref} are free. Nothing was allocated. "
        f"Hint: {hint}"
    )


def _hint(weights: Weights, needed: int, available: int, ref: DeviceRef, *, can_round: bool) -> str:
    """Names the widest form of the weights that fits."""
    half = weights.nbytes(DType.bfloat16)
    if half <= available and half < needed:
        return (
            f"As bfloat16 they need {format_nbytes(half)}: dtype=DType.bfloat16 (in a command "
            "--dtype bfloat16)."
        )
    for scheme in _BITS if can_round else ():
        nbytes = rounded_nbytes(weights, scheme)
        if nbytes <= available and nbytes < needed:
            return (
                f"Linear weights rounded to {scheme} bring them to about {format_nbytes(nbytes)}: "
                f"quantize={scheme!r} (in a command --quantize {scheme})."
            )
    if ref.is_gpu():
        return "Load them on the host (device=CPU()), or free memory of the device."
    return "End other programs, or use a smaller model."


def rounded_nbytes(weights: Weights, scheme: str) -> int:
    """Estimates what rounded weights need: matrices of layers as codes, the rest as bfloat16.

    Whether a table is tied to the head, and has its codes, is not known here: it counts in full.

    Args:
        weights: The weights.
        scheme: `"int8"` or `"int4"`.
    """
    total = 0.0
    unique = {weights.source_key(name): name for name in weights}
    for name in unique.values():
        type = weights.tensor_type(name)
        is_linear = len(type.sizes) == 2 and not _TABLE.search(name)
        own = "int8" if _EIGHT_BITS.search(name) else scheme
        total += type.num_elements() * (_BITS[own] if is_linear else 16) / 8
    return int(total)
