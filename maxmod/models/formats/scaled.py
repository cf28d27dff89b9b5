"""Weights of 8 bits in a tensor of their own dtype, floats or integers, with scales beside them."""

from __future__ import annotations

import numpy as np

from maxmod.dtype import DType, storage_dtype
from maxmod.models.formats.layer import IntegerLayer, Layer, looked_up, scaled, spread
from maxmod.values.array import HostArray
from maxmod.weights import Weights

_ZERO = "weight_zero_point"
_FLOATS = (
    DType.float8_e4m3fn,
    DType.float8_e5m2,
    DType.float8_e4m3fnuz,
    DType.float8_e5m2fnuz,
)
BESIDE = ("input_scale", "input_scale_ub", "input_zero_point", "output_scale")


def expect_codes(layer: Layer, *dtypes: DType) -> tuple[int, int]:
    """Returns the sizes [out, in] of a weight of codes.

    Raises:
        ModelError: If it is no matrix of one of these dtypes. Weights that were not yet rounded
            have scales beside them, too.
    """
    found = layer.sizes("weight")
    if len(found) != 2:
        raise layer.error("weight", f"expected a matrix, got the sizes {list(found)}")
    dtype = layer.dtype("weight")
    if dtype not in dtypes:
        known = " or ".join(map(repr, dtypes))
        is_wide = dtype.is_float() and dtype.size_in_bits > 8
        hint = ". Hint: these weights are not rounded yet; save the model compressed"
        raise layer.error(
            "weight",
            f"expected {known} beside a scale, got {dtype!r}{hint if is_wide else ''}",
        )
    return found


class Float8Layer(Layer):
    """8-bit floats with a scale for all, for each output, or for each block.

    Args:
        weights: The tensors of the folder.
        name: The name of the layer.
        scale: The name of the tensor of the scales.
        block: The sizes of a block, of outputs and inputs; None where scales are of other kinds.
    """

    def __init__(
        self, weights: Weights, name: str, scale: str, block: tuple[int, int] | None
    ) -> None:
        super().__init__(weights, name, (scale, _ZERO, *BESIDE))
        self.rows, self.depth = expect_codes(self, *_FLOATS)
        self.scale, self.block = scale, block
        if self.has(_ZERO) and self.read(_ZERO, *self.sizes(_ZERO)).any():
            raise self.error(_ZERO, "expected zeros for 8-bit floats, got others")
        self._scales_of_rows()  # refuses sizes that do not fit before weights are read

    def floats(self) -> HostArray:
        """Reads the weight: float32 [out, in]."""
        scales, each = self._scales_of_rows()
        dtype = storage_dtype(self.dtype("weight"))
        values = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float32)
        wide = looked_up(values, self.raw("weight")).reshape(self.rows, self.depth)
        if each == 1:
            return scaled(wide, scales, None)
        for start in range(0, self.rows, each):
            wide[start : start + each] *= spread(scales[start // each][None], self.depth, None)
        return wide

    def _scales_of_rows(self) -> tuple[HostArray, int]:
        """The scales [parts, groups], and how many rows each part has."""
        found = self.read(self.scale, *self.sizes(self.scale)).astype(np.float32)
        if found.size == 1:
            return found.reshape(1, 1), max(self.rows, 1)
        if self.block is not None:  # first, since there may be as many blocks as outputs
            high, wide = self.block
            if found.shape == (-(-self.rows // high), -(-self.depth // wide)):
                each = np.repeat(found, wide, axis=1)[:, : self.depth]
                return each, high
        if found.shape in ((self.rows,), (self.rows, 1)):
            return found.reshape(-1, 1), 1
        groups = found.shape[-1]
        has_groups = found.shape == (self.rows, groups) and groups and self.depth % groups == 0
        if self.block is None and has_groups:
            return found, 1
        blocks = "" if self.block is None else f", or for blocks of {list(self.block)}"
        raise self.error(
            self.scale,
            f"expected a scale for all of [{self.rows}, {self.depth}], for each output{blocks}, "
            f"got the sizes {list(found.shape)}",
        )


class Int8Layer(IntegerLayer):
    """8-bit integers with a scale for all, for each output, or for each group of its inputs.

    Args:
        weights: The tensors of the folder.
        name: The name of the layer.
        scale: The name of the tensor of the scales.
        zero: The name of the tensor of zero points, which there may be.
        beside: The names of further tensors that are left out.
        factor: Of the scales.
    """

    def __init__(
        self,
        weights: Weights,
        name: str,
        scale: str,
        zero: str | None = None,
        beside: tuple[str, ...] = BESIDE,
        factor: float = 1.0,
    ) -> None:
        parts = (scale, *beside) if zero is None else (scale, zero, *beside)
        super().__init__(weights, name, parts)
        self.rows, self.depth = expect_codes(self, DType.int8)
        self.scale, self.factor = scale, factor
        self.zero = zero if zero is not None and self.has(zero) else None
        self.groups = self._by_rows(scale).shape[1]
        zeros = np.zeros((1, 1), np.int8) if self.zero is None else self._by_rows(self.zero)
        self.keep(-128, 127, zeros, scale)

    def integers(self) -> HostArray:
        """Reads codes less their zero points: int8 or int16 [out, in]."""
        codes = self.read("weight", self.rows, self.depth)
        if self.zero is None:
            return codes
        zeros = self._by_rows(self.zero).astype(np.int16)
        return codes - spread(zeros, self.depth, None)

    def scales(self) -> HostArray:
        """Reads the scales: floats [out, groups]."""
        found = self._by_rows(self.scale)
        return found if self.factor == 1 else found.astype(np.float32) * np.float32(self.factor)

    def _by_rows(self, part: str) -> HostArray:
        """[out, groups], from one number, one for each output or one for each group."""
        found = self.read(part, *self.sizes(part))
        if found.size == 1:
            return np.broadcast_to(found.reshape(1, 1), (self.rows, 1))
        if found.ndim == 1:
            found = found[:, None]
        groups = found.shape[-1]
        if found.shape != (self.rows, groups) or not groups or self.depth % groups:
            raise self.error(
                part,
                f"expected one for all of [{self.rows}, {self.depth}], for each output or for each "
                f"group of inputs, got the sizes {list(found.shape)}",
            )
        return found
