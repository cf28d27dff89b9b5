"""Times of a compiled graph, as far as somebody measured them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measurement:
    """Times of one set of sizes, and what the machine reaches at best.

    Attributes:
        times_s: Seconds of each step that does something in a call, by the slot of its first
            result; each step alone, so that their sum is more than a call takes.
        call_s: Seconds of a whole call.
        calls: Number of calls; every time is their median.
        bytes_per_s: Bytes that a copy of a large array reads and writes in a second.
        flops_per_s: Operations of a large matrix product in a second.
        dtype: The name of the dtype of that product.
    """

    times_s: Mapping[int, float]
    call_s: float
    calls: int
    bytes_per_s: float
    flops_per_s: float
    dtype: str
