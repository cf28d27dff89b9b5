"""The names of `max.nn.kv_cache` that have a meaning on one device."""

from maxmod.compat.kv_cache import KVCacheParams, KVCacheStrategy, PagedCacheValues

__all__ = ["KVCacheParams", "KVCacheStrategy", "PagedCacheValues"]
