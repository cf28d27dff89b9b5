"""`PinnedDeviceTensor`: the annotation of attributes that `Module.to` does not move."""

from __future__ import annotations

import functools
import inspect
import sys
from typing import Annotated

from maxmod.tensor import Tensor

if sys.version_info >= (3, 14):  # annotations are evaluated lazily, and may name missing objects
    import annotationlib

    def own_annotations(cls: type) -> dict[str, object]:
        """Returns the annotations of a class without those of its bases."""
        return annotationlib.get_annotations(cls, format=annotationlib.Format.FORWARDREF)
else:

    def own_annotations(cls: type) -> dict[str, object]:
        """Returns the annotations of a class without those of its bases."""
        return inspect.get_annotations(cls)


class _Pinned:
    """The mark inside the annotation."""

    def __repr__(self) -> str:
        return "pinned"


# For small tensors that are read on the host although the module runs elsewhere:
#     class Scaled(Module):
#         scale: PinnedDeviceTensor
PinnedDeviceTensor = Annotated[Tensor, _Pinned()]


@functools.lru_cache(maxsize=1024)
def pinned_attributes(cls: type) -> frozenset[str]:
    """Returns the names that a class or its bases annotate as pinned."""
    found = set()
    for base in cls.__mro__:
        for name, annotation in own_annotations(base).items():
            is_str = isinstance(annotation, str)  # as under `from __future__ import annotations`
            last = annotation.rpartition(".")[2] if is_str else ""
            if annotation is PinnedDeviceTensor or last == "PinnedDeviceTensor":
                found.add(name)
    return frozenset(found)
