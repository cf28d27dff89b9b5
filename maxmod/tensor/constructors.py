"""Class methods of tensors that make one: of literals, filled, like another, ranges."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Self

from maxmod.dtype import DType
from maxmod.errors import OperandError, SliceError, user_level
from maxmod.op import call
from maxmod.op.spelling import explained
from maxmod.tensor import era
from maxmod.tensor.default_context import resolve
from maxmod.tensor.exchange import DLPackArray
from maxmod.values.device import CPU_REF, DeviceLike
from maxmod.values.dim import Dim, DimLike, as_size
from maxmod.values.plain import Numbers, Scalar
from maxmod.values.shape import ShapeLike, as_sizes
from maxmod.values.tensor_type import TensorType


@explained
class Constructors:
    """The part of `Tensor` that makes tensors."""

    __slots__ = ()

    if TYPE_CHECKING:
        _type: TensorType

        def broadcast_to(self, shape: ShapeLike) -> Self: ...

    @classmethod
    def constant(
        cls,
        value: Numbers | DLPackArray,
        *,
        dtype: DType | None = None,
        device: DeviceLike | None = None,
    ) -> Self:
        """Makes a tensor of a number, a nested sequence, or an array.

        In scripts for MAX 26.7 it warns that it is deprecated, as there.

        Args:
            value: The data; an array keeps its dtype.
            dtype: Element type; the default dtype if it is not given.
            device: Where to put it; the default device if it is not given.

        Returns:
            Tensor with the shape of the nesting or of the array.

        Raises:
            ValueError: If a literal is not rectangular or does not fit, or an array has another
                dtype.

        Example:
            >>> from maxmod import DType, Tensor
            >>> Tensor.constant([1, 2], dtype=DType.int32).type
            TensorType(dtype=int32, shape=[Dim(2)], device=cpu:0)
        """
        if era.current() == "26.7":
            warnings.warn(
                "Tensor.constant is deprecated in MAX 26.7. Hint: Tensor(value, dtype=, device=).",
                DeprecationWarning,
                stacklevel=user_level(),
            )
        return call("constant", value=value, dtype=dtype, device=device)

    @classmethod
    def full(
        cls,
        shape: ShapeLike,
        value: Scalar | Dim,
        *,
        dtype: DType | None = None,
        device: DeviceLike | None = None,
    ) -> Self:
        """Makes a tensor filled with one number.

        Args:
            shape: Sizes; `[]` gives a scalar.
            value: A number that the dtype holds.
            dtype: Element type; the default dtype if it is not given.
            device: Where to put it; the default device if it is not given.

        Returns:
            Tensor of the shape `shape`.

        Raises:
            ValueError: If the dtype does not hold the number.
            TypeError: If `shape` is a single int.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.full([2], 0.5).to_numpy().tolist()
            [0.5, 0.5]
        """
        dtype, ref = resolve(dtype, device)
        return call("full", shape=as_sizes(shape), value=value, dtype=dtype, device=ref)

    @classmethod
    def zeros(
        cls, shape: ShapeLike, *, dtype: DType | None = None, device: DeviceLike | None = None
    ) -> Self:
        """Makes a tensor of zeros.

        Args:
            shape: Sizes; `[]` gives a scalar.
            dtype: Element type; the default dtype if it is not given.
            device: Where to put it; the default device if it is not given.

        Returns:
            Tensor of the shape `shape`.

        Raises:
            TypeError: If `shape` is a single int.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.zeros([2, 3]).type
            TensorType(dtype=float32, shape=[Dim(2), Dim(3)], device=cpu:0)
        """
        return cls.full(shape, 0, dtype=dtype, device=device)

    @classmethod
    def ones(
        cls, shape: ShapeLike, *, dtype: DType | None = None, device: DeviceLike | None = None
    ) -> Self:
        """Makes a tensor of ones.

        Args:
            shape: Sizes; `[]` gives a scalar.
            dtype: Element type; the default dtype if it is not given.
            device: Where to put it; the default device if it is not given.

        Returns:
            Tensor of the shape `shape`.

        Raises:
            TypeError: If `shape` is a single int.

        Example:
            >>> from maxmod import DType, Tensor
            >>> Tensor.ones([2], dtype=DType.int64).to_numpy().tolist()
            [1, 1]
        """
        return cls.full(shape, 1, dtype=dtype, device=device)

    @classmethod
    def full_like(cls, like: Self | TensorType, value: Scalar) -> Self:
        """Makes a filled tensor with the shape, dtype and device of a tensor or type.

        Args:
            like: Tensor or TensorType.
            value: A number that the dtype holds.

        Returns:
            Tensor of the type of `like`.

        Raises:
            ValueError: If the dtype does not hold the number.
            TypeError: If `like` is neither a tensor nor a type.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.full_like(Tensor([1.0, 2.0]), 7).to_numpy().tolist()
            [7.0, 7.0]
        """
        like = type_like("full_like", like)
        return cls.full(like.shape, value, dtype=like.dtype, device=like.device)

    @classmethod
    def zeros_like(cls, like: Self | TensorType) -> Self:
        """Makes zeros with the shape, dtype and device of a tensor or type.

        Args:
            like: Tensor or TensorType.

        Returns:
            Tensor of the type of `like`.

        Raises:
            TypeError: If `like` is neither a tensor nor a type.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.zeros_like(Tensor([[1.0, 2.0]])).to_numpy().tolist()
            [[0.0, 0.0]]
        """
        return cls.full_like(like, 0)

    @classmethod
    def ones_like(cls, like: Self | TensorType) -> Self:
        """Makes ones with the shape, dtype and device of a tensor or type.

        Args:
            like: Tensor or TensorType.

        Returns:
            Tensor of the type of `like`.

        Raises:
            TypeError: If `like` is neither a tensor nor a type.

        Example:
            >>> from maxmod import CPU, DType, Tensor, TensorType
            >>> Tensor.ones_like(TensorType(DType.float32, [2], CPU())).to_numpy().tolist()
            [1.0, 1.0]
        """
        return cls.full_like(like, 1)

    @classmethod
    def arange(
        cls,
        start: DimLike | float = 0,
        stop: DimLike | float | None = None,
        step: DimLike | float = 1,
        out_dim: DimLike | None = None,
        *,
        dtype: DType | None = None,
        device: DeviceLike | None = None,
    ) -> Self:
        """Makes the numbers start, start + step, ... below stop.

        The dtype is the default dtype (a float), not an integer, unless it is given. See
        `functional.arange`.

        Args:
            start: First number; alone, it is the stop, and the start is 0.
            stop: End, not included.
            step: Difference, not 0.
            out_dim: The size of the result; needed if a bound is a tensor.
            dtype: Element type; the default dtype if it is not given.
            device: Where to put it; the default device if it is not given.

        Returns:
            Tensor of rank 1.

        Raises:
            ValueError: If the step is 0, or a bound does not fit the dtype.

        Example:
            >>> from maxmod import DType, Tensor
            >>> Tensor.arange(3).to_numpy().tolist()
            [0.0, 1.0, 2.0]
            >>> Tensor.arange(6, 0, -2, dtype=DType.int64).to_numpy().tolist()
            [6, 4, 2]
        """
        if stop is None:
            start, stop = 0, start
        return call("arange", start, stop, step, out_dim, dtype=dtype, device=device)

    @classmethod
    def range_like(cls, type: Self | TensorType) -> Self:
        """Makes 0, 1, ... n - 1 along the last axis, broadcast to a whole shape.

        Args:
            type: Tensor or TensorType, whose shape, dtype and device are taken.

        Returns:
            Tensor of that type.

        Raises:
            IndexError: If the rank is 0.
            TypeError: If `type` is neither a tensor nor a type.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.range_like(Tensor.zeros([2, 3])).to_numpy().tolist()
            [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]
        """
        type = type_like("range_like", type)
        if type.rank == 0:
            raise SliceError("range_like: expected at least one axis, got rank 0.")
        row = cls.arange(0, type.shape[-1], dtype=type.dtype, device=type.device)
        return row.broadcast_to(type.shape)

    @classmethod
    def from_dim(cls, dim: DimLike) -> Self:
        """Makes a tensor of a size.

        Args:
            dim: A Dim or an int; symbolic sizes only while tracing.

        Returns:
            int64 scalar on the host.

        Raises:
            ValueError: If the size is symbolic and nothing is traced.

        Example:
            >>> from maxmod import Dim, Tensor
            >>> Tensor.from_dim(Dim(3))
            Tensor(3, shape=[], dtype=DType.int64, device=Device(type=cpu,id=0))
        """
        return call("full", shape=(), value=as_size(dim), dtype=DType.int64, device=CPU_REF)


def type_like(name: str, like: object) -> TensorType:
    """Returns the type of a tensor or type, whose like is to be made.

    Raises:
        TypeError: For anything else.
    """
    if isinstance(like, TensorType):
        return like
    if isinstance(like, Constructors):
        return like._type
    raise OperandError(
        f"{name}: expected a Tensor or a TensorType, got {type(like).__name__}. Hint: Tensor(x) is "
        "the tensor of an array."
    )
