"""`max.nn.norm.group_norm`: the layer and the function."""

from __future__ import annotations

from maxmod.functional import group_norm
from maxmod.nn.norm import GroupNorm

__all__ = ["GroupNorm", "group_norm"]
