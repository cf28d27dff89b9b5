"""The host: NumPy arrays."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np

from maxmod.backends.base import Backend
from maxmod.device import DeviceKind
from maxmod.op import Op


class CpuBackend(Backend):
    """Runs ops with NumPy."""

    kind = DeviceKind.CPU
    api = "cpu"

    @property
    def xp(self) -> Any:
        return np

    def device_count(self) -> int:
        return 1

    def unavailable_reason(self) -> str:
        return ""

    def from_host(self, array: np.ndarray[Any, Any], index: int) -> np.ndarray[Any, Any]:
        return array

    def to_host(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        return array

    def synchronize(self, index: int) -> None:
        return None

    def architecture(self, index: int) -> str:
        return platform.machine()

    def run(self, op: Op, arrays: Any, attrs: dict[str, Any], types: Any) -> list[Any]:
        # Domain errors give NaN or infinity without a warning, on every device.
        with np.errstate(all="ignore"):
            return super().run(op, arrays, attrs, types)
