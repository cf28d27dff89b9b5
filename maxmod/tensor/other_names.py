"""Names known from other libraries, with their equivalents on a `Tensor`."""

from __future__ import annotations

from typing import Any

from maxmod.op import FUNCTIONS

# PyTorch's and NumPy's names.
_INSTEAD = {
    "__cuda_array_interface__": "x.to(Accelerator()), the data is on the host",
    "astype": "x.cast(DType.float32)",
    "bfloat16": "x.cast(DType.bfloat16)",
    "clone": "nothing, results are new tensors; copy.copy(x) shares the data",
    "contiguous": "nothing, tensors are contiguous where it matters",
    "cpu": "x.to(CPU())",
    "cuda": "x.to(Accelerator())",
    "detach": "nothing, there are no gradients",
    "dim": "x.rank",
    "double": "x.cast(DType.float64)",
    "expand": "x.broadcast_to([...])",
    "float": "x.cast(DType.float32)",
    "half": "x.cast(DType.float16)",
    "int": "x.cast(DType.int32)",
    "long": "x.cast(DType.int64)",
    "masked_fill": "F.where(mask, value, x)",
    "ndim": "x.rank",
    "numel": "x.num_elements()",
    "numpy": "x.to_numpy()",
    "requires_grad": "nothing, there are no gradients",
    "size": "x.shape",
    "std": "F.sqrt of the mean of squares",
    "tolist": "x.to_numpy().tolist()",
    "type_as": "x.cast(y.dtype)",
    "view": "x.reshape([...])",
}


class ForeignNames:
    """Says what to write where an attribute does not exist."""

    __slots__ = ()

    def __getattr__(self, name: str) -> Any:
        text = f"'{type(self).__name__}' object has no attribute {name!r}"
        instead = _INSTEAD.get(name) or (f"F.{name}(x)" if name in FUNCTIONS else "")
        hint = f". Hint: {instead}." if instead else ""
        raise AttributeError(text + hint, name=name, obj=self)
