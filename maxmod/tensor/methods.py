"""Methods of tensors that are named like ops: one call each to the op."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Self, Unpack, overload

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import OperandError
from maxmod.op import call
from maxmod.op.spelling import explained
from maxmod.tensor.like import TensorLike
from maxmod.values.axes import Axes, AxisKeywords, Extreme
from maxmod.values.device import DeviceLike, DeviceRef
from maxmod.values.dim import Dim, DimLike
from maxmod.values.shape import ShapeLike

if TYPE_CHECKING:
    from maxmod.values.tensor_type import TensorType


@explained
class OpMethods:
    """The part of `Tensor` that calls ops of the same names."""

    __slots__ = ()

    if TYPE_CHECKING:
        _type: TensorType

    def to(self, device: DeviceLike) -> Self:
        """Returns the tensor on another device.

        Args:
            device: A `Device` or `DeviceRef`.

        Returns:
            A copy there; the tensor itself if it is there already.

        Raises:
            RuntimeError: If the device cannot be used.

        Example:
            >>> from maxmod import CPU, Tensor
            >>> x = Tensor([1.0])
            >>> x.to(CPU()) is x
            True
        """
        ref = DeviceRef.from_device(device)
        return self if ref == self._type._device else call("transfer_to", self, device=ref)

    def cast(self, dtype: DType) -> Self:
        """Returns the tensor with another dtype; see `functional.cast`.

        Args:
            dtype: The dtype of the result.

        Returns:
            The converted elements; the tensor itself if it has the dtype.

        Raises:
            TypeError: If `dtype` is not a DType.

        Example:
            >>> from maxmod import DType, Tensor
            >>> Tensor([1.9, -1.9]).cast(DType.int32).to_numpy().tolist()
            [1, -1]
        """
        return self if dtype is self._type.dtype else call("cast", self, dtype=dtype)

    @overload
    def reshape(self, shape: ShapeLike) -> Self: ...
    @overload
    def reshape(self, *shape: DimLike) -> Self: ...
    def reshape(self, *items: object, shape: object = None) -> Self:
        """Returns the same elements in row-major order, in another shape.

        Args:
            *items: Sizes, one by one or as one sequence; at most one is -1 and is worked out.
            shape: The same by keyword.

        Returns:
            The dtype of the tensor, the shape `shape`.

        Raises:
            ValueError: If the number of elements differs.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.arange(6).reshape([2, -1]).to_numpy().tolist()
            [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        """
        return call("reshape", self, shape=_one_list("reshape", items, shape))

    @overload
    def permute(self, dims: Iterable[int]) -> Self: ...
    @overload
    def permute(self, *dims: int) -> Self: ...
    def permute(self, *items: object, dims: object = None) -> Self:
        """Returns the tensor with its axes in another order.

        Args:
            *items: Every axis once, one by one or as one sequence; axis i of the result is
                axis `items[i]`.
            dims: The same by keyword.

        Returns:
            The dtype of the tensor, its sizes in the new order.

        Raises:
            ValueError: If the number of axes is wrong or one occurs twice.
            IndexError: If an axis lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.zeros([2, 3, 4]).permute([2, 0, 1]).shape
            [Dim(4), Dim(2), Dim(3)]
        """
        return call("permute", self, dims=_one_list("permute", items, dims))

    @overload
    def transpose(self, dim1: int, dim2: int) -> Self: ...

    @overload
    def transpose(self, *, dim_1: int, dim_2: int) -> Self: ...

    def transpose(
        self,
        dim1: int | None = None,
        dim2: int | None = None,
        *,
        dim_1: int | None = None,
        dim_2: int | None = None,
    ) -> Self:
        """Returns the tensor with two axes swapped.

        Args:
            dim1: One axis.
            dim2: The other.
            dim_1: Another name of `dim1`, which values of graphs have in MAX.
            dim_2: Another name of `dim2`.

        Returns:
            The dtype of the tensor, two sizes swapped.

        Raises:
            IndexError: If an axis lies outside the rank.
            TypeError: If an axis is missing, or given twice.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor.zeros([2, 3, 4]).transpose(0, -1).shape
            [Dim(4), Dim(3), Dim(2)]
        """
        first = _one_of("dim1", dim1, "dim_1", dim_1)
        return call("transpose", self, first, _one_of("dim2", dim2, "dim_2", dim_2))

    @overload
    def broadcast_to(self, shape: ShapeLike) -> Self: ...
    @overload
    def broadcast_to(self, *shape: DimLike) -> Self: ...
    def broadcast_to(self, *items: object, shape: object = None) -> Self:
        """Returns the tensor repeated along axes of size 1 and new leading axes.

        Args:
            *items: Sizes of the result, one by one or as one sequence.
            shape: The same by keyword.

        Returns:
            The dtype of the tensor, the shape `shape`.

        Raises:
            ValueError: If a size is neither 1 nor equal to the target.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0], [2.0]]).broadcast_to([2, 3]).to_numpy().tolist()
            [[1.0, 1.0, 1.0], [2.0, 2.0, 2.0]]
        """
        return call("broadcast_to", self, shape=_one_list("broadcast_to", items, shape))

    def squeeze(self, axis: int) -> Self:
        """Returns the tensor without an axis of size 1.

        Args:
            axis: The axis.

        Returns:
            The dtype of the tensor, one axis less.

        Raises:
            ValueError: If the size is not 1.
            IndexError: If the axis lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0, 2.0]]).sum().squeeze(-1).to_numpy().tolist()
            [3.0]
        """
        return call("squeeze", self, axis)

    def unsqueeze(self, axis: int) -> Self:
        """Returns the tensor with a new axis of size 1.

        Args:
            axis: Its position in the result, -(rank + 1) to rank.

        Returns:
            The dtype of the tensor, one axis more.

        Raises:
            IndexError: If the axis is out of range.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([1.0, 2.0]).unsqueeze(0).shape
            [Dim(1), Dim(2)]
        """
        return call("unsqueeze", self, axis)

    def split(
        self, split_size_or_sections: DimLike | Sequence[DimLike], axis: int = 0
    ) -> list[Self]:
        """Returns the pieces along an axis.

        Args:
            split_size_or_sections: Sizes of the pieces; or one int, the size of each piece but the
                last, which may be smaller.
            axis: The axis.

        Returns:
            A list of tensors.

        Raises:
            ValueError: If the sizes do not add up to the size of the axis.
            IndexError: If the axis lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> [piece.to_numpy().tolist() for piece in Tensor.arange(5).split(2)]
            [[0.0, 1.0], [2.0, 3.0], [4.0]]
        """
        return call("split", self, split_size_or_sections, axis)

    def sum(self, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Self:
        """Returns the sum along an axis, which stays with size 1.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            The dtype of the tensor (integers wrap), size 1 on `axis`.

        Raises:
            ValueError: If the axis lies outside the rank, or the dtype is bool.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0, 2.0], [3.0, 4.0]]).sum(axis=0).to_numpy().tolist()
            [[4.0, 6.0]]
        """
        return call("sum", self, axis, **keywords)

    def mean(self, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Self:
        """Returns the mean along an axis, which stays with size 1.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            The dtype of the tensor, size 1 on `axis`; integers are divided toward zero.

        Raises:
            ValueError: If the axis lies outside the rank, or the dtype is bool.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0, 2.0], [3.0, 4.0]]).mean().to_numpy().tolist()
            [[1.5], [3.5]]
        """
        return call("mean", self, axis, **keywords)

    def prod(self, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Self:
        """Returns the product along an axis, which stays with size 1.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            The dtype of the tensor (integers wrap), size 1 on `axis`.

        Raises:
            ValueError: If the axis lies outside the rank, or the dtype is bool.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0, 2.0], [3.0, 4.0]]).prod(axis=None).item()
            24.0
        """
        return call("prod", self, axis, **keywords)

    @overload
    def max(self, *, dim: int, keepdim: bool = ...) -> Extreme[Self]: ...
    @overload
    def max(self, axis: Axes = ..., *, keepdims: bool = ...) -> Self: ...
    def max(self, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Self | Extreme[Self]:
        """Returns the largest element along an axis, which stays with size 1.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            The dtype of the tensor, size 1 on `axis`; NaN if there is one.

        Raises:
            ValueError: If the axis is empty or lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0, 5.0], [4.0, 2.0]]).max(axis=0).to_numpy().tolist()
            [[4.0, 5.0]]
        """
        return call("max", self, axis=axis, **keywords)

    @overload
    def min(self, *, dim: int, keepdim: bool = ...) -> Extreme[Self]: ...
    @overload
    def min(self, axis: Axes = ..., *, keepdims: bool = ...) -> Self: ...
    def min(self, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Self | Extreme[Self]:
        """Returns the smallest element along an axis, which stays with size 1.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            The dtype of the tensor, size 1 on `axis`; NaN if there is one.

        Raises:
            ValueError: If the axis is empty or lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0, 5.0], [4.0, 2.0]]).min().to_numpy().tolist()
            [[1.0], [2.0]]
        """
        return call("min", self, axis=axis, **keywords)

    def argmax(self, axis: int | None = -1, **keywords: Unpack[AxisKeywords]) -> Self:
        """Returns the position of the largest element along an axis, which stays with size 1.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            int64, size 1 on `axis`; the first of equals.

        Raises:
            ValueError: If the axis is empty or lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0, 5.0], [4.0, 2.0]]).argmax().to_numpy().tolist()
            [[1], [0]]
        """
        return call("argmax", self, axis, **keywords)

    def any(self, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Self:
        """Tells where an element along an axis is true, that is not 0; see `functional.any`.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            bool, size 1 on `axis`.

        Raises:
            ValueError: If the axis lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> (Tensor([1.0, 7.0]) > 5).any().item()
            True
        """
        return call("any", self, axis, **keywords)

    def all(self, axis: Axes = -1, **keywords: Unpack[AxisKeywords]) -> Self:
        """Tells where all elements along an axis are true, that is not 0; see `functional.all`.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            bool, size 1 on `axis`.

        Raises:
            ValueError: If the axis lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> (Tensor([1.0, 7.0]) > 5).all().item()
            False
        """
        return call("all", self, axis, **keywords)

    def var(
        self, axis: Axes = -1, *, correction: float | None = None, **keywords: Unpack[AxisKeywords]
    ) -> Self:
        """Returns the variance along an axis; see `functional.var`.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            correction: The sum is divided by the number of elements less this: by default 0, as in
                NumPy, and with `dim` 1, as in PyTorch.
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            The dtype of the tensor, size 1 on `axis`.

        Raises:
            ValueError: If the dtype is not a float, or the axis lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([1.0, 3.0]).var().item(), Tensor([1.0, 3.0]).var(dim=0).item()
            (1.0, 2.0)
        """
        return call("var", self, axis, correction=correction, **keywords)

    def std(
        self, axis: Axes = -1, *, correction: float | None = None, **keywords: Unpack[AxisKeywords]
    ) -> Self:
        """Returns the standard deviation along an axis; see `functional.std`.

        Args:
            axis: The axis; None flattens first and gives the shape [1].
            correction: The sum is divided by the number of elements less this: by default 0, as in
                NumPy, and with `dim` 1, as in PyTorch.
            **keywords: `keepdims=False` drops the axis. With `dim` it goes as in PyTorch, unless
                `keepdim` is true.

        Returns:
            The dtype of the tensor, size 1 on `axis`.

        Raises:
            ValueError: If the dtype is not a float, or the axis lies outside the rank.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([1.0, 3.0]).std().item()
            1.0
        """
        return call("std", self, axis, correction=correction, **keywords)

    def clip(self, *, min: TensorLike | None = None, max: TensorLike | None = None) -> Self:
        """Returns the elements bounded from below, then from above.

        The upper bound wins where it lies below the lower one (in `functional.clamp` the lower one
        wins).

        Args:
            min: Tensor or number; None for no bound.
            max: Tensor or number; None for no bound.

        Returns:
            The promoted dtype, the broadcast shape; NaN stays NaN.

        Raises:
            ValueError: If dtypes or shapes do not fit.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([-2.0, 0.5, 9.0]).clip(min=0).to_numpy().tolist()
            [0.0, 0.5, 9.0]
            >>> Tensor([-2.0, 0.5, 9.0]).clip(min=0, max=1).to_numpy().tolist()
            [0.0, 0.5, 1.0]
        """
        result = self if min is None else call("maximum", self, min)
        return result if max is None else call("minimum", result, max)


def _one_of(name: str, value: int | None, other: str, alias: int | None) -> int:
    if (value is None) == (alias is None):
        what = "missing" if value is None else f"given twice, also as {other}"
        raise OperandError(f"transpose: {name}: the axis is {what}.")
    return value if value is not None else alias  # type: ignore[return-value]  # one is given


def _one_list(name: str, items: tuple[object, ...], given: object) -> object:
    """Returns sizes or axes that are given one by one, as one sequence, or by keyword."""
    if not items and given is not None:
        return given
    if not items or given is not None:
        raise OperandError(f"{name}: expected sizes or axes. Hint: x.{name}([...]).")
    is_list = len(items) == 1 and not isinstance(items[0], (int, str, Dim, np.integer))
    return items[0] if is_list else items
