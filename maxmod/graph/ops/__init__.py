"""Every op, as in `maxmod.functional`, and those that only graphs have.

Called on values of a graph inside its `with` block, an op adds to the graph.
"""

from __future__ import annotations

from maxmod import functional as _functional
from maxmod.functional import *  # noqa: F403
from maxmod.graph.functions import buffer_create, buffer_load, call
from maxmod.graph.functions import constant as constant
from maxmod.graph.functions import constant_external as constant_external
from maxmod.graph.functions import top_k as top_k
from maxmod.graph.ops import allreduce, random
from maxmod.values.layouts import InterpolationMode

__all__ = [
    "InterpolationMode",
    "allreduce",
    "buffer_create",
    "buffer_load",
    "call",
    "random",
]
__all__ += _functional.__all__  # with some that are others here
