"""Tensors with one element as numbers of Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from maxmod.dtype import DType
from maxmod.errors import OperandError
from maxmod.op.spelling import explained
from maxmod.values.array import HostArray

if TYPE_CHECKING:
    from maxmod.values.tensor_type import TensorType


@explained
class OneElement:
    """The part of `Tensor` that reads the only element."""

    __slots__ = ()

    if TYPE_CHECKING:
        _type: TensorType

        def _host(self) -> HostArray: ...

    def item(self) -> Any:
        """Returns the only element as a Python scalar.

        Returns:
            A bool, int or float.

        Raises:
            TypeError: If there is not exactly one element, or while tracing.

        Example:
            >>> from maxmod import Tensor
            >>> Tensor([[1.0, 2.0]]).sum().item()
            3.0
        """
        return self._only("item")

    def _only(self, name: str, hint: str = "") -> Any:
        host = self._host()
        if host.size != 1:
            raise OperandError(f"{name}: expected one element, got {self._type.short()}.{hint}")
        value = host.reshape(())
        if self._type.dtype is DType.bool:
            return bool(value)
        return float(value) if self._type.dtype.is_float() else int(value)

    def __bool__(self) -> bool:
        return bool(
            self._only("bool", " Hint: an if needs one value, such as F.max(x, axis=None)[0] > 0.")
        )

    def __float__(self) -> float:
        return float(self._only("float"))

    def __int__(self) -> int:
        return int(self._only("int"))

    def __format__(self, spec: str) -> str:
        if not spec:
            return str(self)
        hint = f' Hint: f"{{x.mean(axis=None).item():{spec}}}" formats one number.'
        return format(self._only("format", hint), spec)
