"""The names of `max.nn.attention` that have a meaning on one device."""

from maxmod.compat.transformer import MHAMaskVariant

__all__ = ["MHAMaskVariant"]
