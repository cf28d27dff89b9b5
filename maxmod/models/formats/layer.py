"""The weight of a linear layer as another tool stored it: as integers for kernels, or as floats."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import numpy as np

from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ModelError
from maxmod.ops import four_bits
from maxmod.ops.weight_quantization import BLOCK
from maxmod.values.array import HostArray
from maxmod.weights import Weights
from maxmod.weights.parallel import copy_array, in_parallel
from maxmod.weights.quantized_view import Stored

_AT_ONCE = 1 << 15  # codes that are looked up together: their positions stay in the cache
WORD = 32  # bits of an integer that several codes are packed in


class Layer(abc.ABC):
    """One weight [out, in] of a folder.

    Args:
        weights: The tensors of the folder.
        name: The name of the layer, as in the folder.
        parts: What the names of its tensors have behind that of the layer, such as `qweight`.

    Attributes:
        tensors: The names of its tensors, which the model does not have.
        rows: The size of the output.
        depth: The size of the input.
        kept: How kernels read its codes, if they can; `codes` gives them.
    """

    rows: int
    depth: int
    kept: Stored | None = None

    def __init__(self, weights: Weights, name: str, parts: Sequence[str]) -> None:
        self.weights, self.name = weights, name
        self.tensors = [full for part in parts if (full := f"{name}.{part}") in weights]

    @abc.abstractmethod
    def floats(self) -> HostArray:
        """Reads the weight: float32 [out, in]."""

    def read(self, part: str, *sizes: int | None) -> HostArray:
        """Reads one of its tensors, which must have these sizes; None is any.

        Raises:
            ModelError: If it has others, or there is none.
        """
        found = self.sizes(part)
        if len(found) != len(sizes) or any(n not in (None, size) for n, size in zip(sizes, found)):
            wanted = ", ".join("any" if size is None else str(size) for size in sizes)
            raise self.error(part, f"expected the sizes [{wanted}], got {list(found)}")
        tensor = self.weights[f"{self.name}.{part}"]
        wide = tensor.dtype.is_float() and tensor.dtype not in (DType.float16, DType.float32)
        return (tensor.cast(DType.float32) if wide else tensor).to_numpy()

    def integers_of(self, part: str, *sizes: int | None) -> HostArray:
        """Reads one of its tensors like `read`, which must be of int32, as tools write them."""
        self.sizes(part)  # refuses a missing one
        if self.dtype(part) is not DType.int32:
            raise self.error(part, f"expected int32, got {self.dtype(part)!r}")
        return self.read(part, *sizes)

    def dtype(self, part: str) -> DType:
        """Returns the dtype of one of its tensors, which must exist."""
        return self.weights.tensor_type(f"{self.name}.{part}").dtype

    def raw(self, part: str) -> HostArray:
        """Reads the bytes of one of its tensors, which must exist: uint8."""
        data = self.weights[f"{self.name}.{part}"].data
        return np.ascontiguousarray(data).reshape(-1).view(np.uint8)

    def has(self, part: str) -> bool:
        """Whether there is a tensor of this name."""
        return f"{self.name}.{part}" in self.weights

    def sizes(self, part: str) -> tuple[int, ...]:
        """Returns the sizes of one of its tensors."""
        if not self.has(part):
            raise self.error(part, f"there is no such tensor beside {', '.join(self.tensors)}")
        return tuple(int(size) for size in self.weights.tensor_type(f"{self.name}.{part}").sizes)

    def error(self, part: str, what: str) -> ModelError:
        """Makes an error about one of its tensors."""
        return ModelError(f"{self.name}.{part}: {what}.")


class IntegerLayer(Layer):
    """A weight of integers, each times the scale of its group: `integer * scale`.

    Attributes:
        bits: Of a code.
        groups: How many scales a row has.
        order: The group of each input; None where they follow one another in equal parts.
        scale_dtype: Of the scales, as kernels take them; see `keep`.
    """

    bits: int = 8
    groups: int
    order: HostArray | None = None
    scale_dtype: DType

    @abc.abstractmethod
    def integers(self) -> HostArray:
        """Reads codes less their zero points: signed integers [out, in]."""

    @abc.abstractmethod
    def scales(self) -> HostArray:
        """Reads the scales: floats [out, groups]."""

    def keep(self, least: int, most: int, zeros: HostArray, scales: str) -> None:
        """Keeps codes less their zero points as codes, where kernels have such.

        They take groups of a multiple of 32, and 8 bits also whole rows.

        Args:
            least: The least code there may be.
            most: The greatest.
            zeros: All zero points.
            scales: The name of the tensor of the scales, whose dtype is kept, but for those of
                whole rows, which are float32.
        """
        stored = self.dtype(scales)
        if not stored.is_float() or not self.groups:
            sizes = list(self.sizes(scales))
            raise self.error(scales, f"expected floats for groups, got {stored!r} {sizes}")
        group = self.depth // self.groups if self.depth % self.groups == 0 else 0
        is_read = stored in (DType.float16, DType.bfloat16, DType.float32)
        if self.order is not None or not group or not is_read:
            return
        self.scale_dtype = DType.float32 if self.groups == 1 else stored
        if zeros.size:
            least, most = least - int(zeros.max()), most - int(zeros.min())
        is_blocks = group % BLOCK == 0
        if is_blocks and -8 <= least <= most <= 7:
            self.kept = Stored("int4_symmetric", group)
        elif (is_blocks or self.groups == 1) and -128 <= least <= most <= 127:
            self.kept = Stored("int8", None if self.groups == 1 else group)

    def codes(self) -> HostArray:
        """Reads the codes as kernels take them; see `F.quantize_weight`."""
        found = self.integers()
        if self.kept is not None and self.kept.scheme == "int8":
            return found.astype(np.int8, copy=False)
        return four_bits.packed(np, (found + 8).reshape(self.rows, 1, self.depth))  # type: ignore[arg-type]

    def kept_scales(self) -> HostArray:
        """Reads the scales as kernels take them."""
        return self.scales().astype(storage_dtype(self.scale_dtype))

    def floats(self) -> HostArray:
        """Reads the weight: float32 [out, in]."""
        return scaled(self.integers().astype(np.float32), self.scales(), self.order)


def centred(codes: HostArray, bits: int, zeros: HostArray, order: HostArray | None) -> HostArray:
    """Returns codes less the zero points of their groups.

    Args:
        codes: uint8 [rows, depth].
        bits: Of a code.
        zeros: Integers [rows, groups] or [1, groups].
        order: As of `spread`.

    Returns:
        int8 [rows, depth], of 8 bits int16.
    """
    dtype = np.int16 if bits == 8 else np.int8
    wide = codes.astype(dtype) if bits == 8 else codes.view(dtype)
    groups = zeros.shape[1]
    if order is not None or not groups or wide.shape[1] % groups:
        return wide - spread(zeros.astype(dtype), wide.shape[1], order)
    each = wide.reshape(len(wide), groups, wide.shape[1] // groups)
    return (each - zeros.astype(dtype)[:, :, None]).reshape(wide.shape)


def scaled(wide: HostArray, scales: HostArray, order: HostArray | None) -> HostArray:
    """Multiplies float32 [rows, depth] in place with the scales [rows, groups] of its groups."""
    scales, groups = scales.astype(np.float32), scales.shape[1]
    if order is not None or not groups or wide.shape[1] % groups:
        wide *= spread(scales, wide.shape[1], order)
    else:
        each = wide.reshape(len(wide), groups, wide.shape[1] // groups)
        each *= scales[:, :, None]
    return wide


def turned(matrix: HostArray) -> HostArray:
    """Returns the transpose in row-major memory."""
    found = np.empty(matrix.shape[::-1], matrix.dtype)
    copy_array(found, matrix.T)
    return found


def looked_up(values: HostArray, codes: HostArray) -> HostArray:
    """Returns the value of each code, of 256: in parts, since positions take eight bytes each."""
    found = np.empty(codes.size, values.dtype)

    def work(start: int, stop: int) -> None:
        for at in range(start, stop, _AT_ONCE):
            part = slice(at, min(at + _AT_ONCE, stop))
            np.take(values, codes[part], out=found[part], mode="clip")

    in_parallel(work, codes.size, found.nbytes)
    return found


def spread(values: HostArray, depth: int, order: HostArray | None) -> HostArray:
    """Gives each input the value of its group: [rows, groups] -> [rows, depth]."""
    if values.shape[1] == 1:
        return np.broadcast_to(values, (len(values), depth))
    if order is not None:
        return values[:, order]
    return np.repeat(values, -(-depth // max(values.shape[1], 1)), axis=1)[:, :depth]


def unpacked(words: HostArray, bits: int, axis: int) -> HostArray:
    """Returns the codes in words of 32 bits, the lowest bits first.

    Args:
        words: int32 [n, m].
        bits: Of each code: 2, 4 or 8; or 3, of which 32 fill three words.
        axis: Along which codes are packed.

    Returns:
        uint8, with 32 / bits times as many elements along `axis`.
    """
    rows = np.ascontiguousarray(words) if axis == 1 else turned(words)
    data = rows.astype("<i4", copy=False).view(np.uint8)
    if bits == 3:
        each = np.unpackbits(data, axis=1, bitorder="little").reshape(len(rows), -1, bits)
        found = each[..., 0] | each[..., 1] << 1 | each[..., 2] << 2
    elif bits == 8:
        found = data
    else:  # each byte becomes a word whose bytes have a code each: vectors, a fifth of the time
        wide = data.astype("<u2" if bits == 4 else "<u4")
        if bits == 2:
            wide |= wide << 12
        wide |= wide << (8 - bits)
        wide &= 0x0F0F if bits == 4 else 0x03030303
        found = wide.view(np.uint8)
    return found if axis == 1 else found.T


def layers_with(weights: Weights, ending: str) -> list[str]:
    """Returns the names of the layers that have a tensor of this name."""
    return [name.removesuffix(ending) for name in weights if name.endswith(ending)]
