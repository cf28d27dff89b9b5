"""`expect_room`: checks that weights fit into device memory, before anything is read."""

from __future__ import annotations

from maxmod import backends
from maxmod.dtype import DType
from maxmod.errors import OutOfMemoryError
from maxmod.tensor.default_context import resolve
from maxmod.values.device import DeviceLike
from maxmod.weights.mapping import Weights, format_nbytes


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
    half = weights.nbytes(DType.bfloat16)
    if half <= available:
        hint = f"As bfloat16 they need {format_nbytes(half)}: dtype=DType.bfloat16."
    elif ref.is_gpu():
        hint = "Load them on the host (device=CPU()), or free memory of the device."
    else:
        hint = "End other programs, or use a smaller model."
    raise OutOfMemoryError(
        f"{action}: the weights need {format_nbytes(needed)}, but only {format_nbytes(available)} "
        f"of the {format_nbytes(stats['total_memory'])} of {ref} are free. Nothing was allocated. "
        f"Hint: {hint}"
    )
