"""`max.nn.kv_cache`: the records that describe a paged cache.

They hold what code passes around and compute sizes. The cache that generation uses is
`maxmod.generate.KVCache`; there is no attention over pages.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterator, Sequence

from maxmod.dtype import DType
from maxmod.errors import ArgumentError
from maxmod.values.device import CPU_REF, DeviceRef
from maxmod.values.tensor_type import TensorOrType


class KVCacheStrategy(enum.StrEnum):
    """How the memory of a cache is divided.

    Args:
        value: The name of the strategy.
    """

    MODEL_DEFAULT = "model_default"
    PAGED = "paged"


@dataclasses.dataclass
class KVCacheParams:
    """Sizes of the keys and values of a transformer.

    Args:
        dtype: Element type.
        n_kv_heads: Number of heads of keys and values.
        head_dim: Size of a head.
        num_layers: Number of layers.
        devices: The device; one.
        enable_prefix_caching: No effect.
        page_size: Positions in a page.
        cache_strategy: No effect.
        data_parallel_degree: Must be 1.

    Raises:
        ValueError: For several devices, or sizes that are not positive.

    Example:
        >>> from maxmod import DType
        >>> from maxmod.compat.kv_cache import KVCacheParams
        >>> params = KVCacheParams(DType.bfloat16, n_kv_heads=8, head_dim=128, num_layers=2)
        >>> params.shape_per_block, params.bytes_per_block
        ([2, 2, 128, 8, 128], 1048576)
    """

    dtype: DType
    n_kv_heads: int
    head_dim: int
    num_layers: int = 1
    devices: Sequence[DeviceRef] = (CPU_REF,)
    enable_prefix_caching: bool = False
    page_size: int = 128
    cache_strategy: KVCacheStrategy = KVCacheStrategy.PAGED
    data_parallel_degree: int = 1

    def __post_init__(self) -> None:
        if len(self.devices) != 1 or self.data_parallel_degree != 1:
            raise ArgumentError(
                f"KVCacheParams: expected one device, got {list(self.devices)} with "
                f"data_parallel_degree {self.data_parallel_degree}."
            )
        for name in ("n_kv_heads", "head_dim", "num_layers", "page_size"):
            if getattr(self, name) < 1:
                raise ArgumentError(
                    f"KVCacheParams: {name}: expected a positive number, got {getattr(self, name)}."
                )

    @property
    def n_devices(self) -> int:
        """1: the number of devices."""
        return len(self.devices)

    @property
    def n_kv_heads_per_device(self) -> int:
        """The number of heads of keys and values: all of them."""
        return self.n_kv_heads

    @property
    def shape_per_block(self) -> list[int]:
        """The shape of a page: keys and values, layers, positions, heads, size of a head."""
        return [2, self.num_layers, self.page_size, self.n_kv_heads, self.head_dim]

    @property
    def bytes_per_block(self) -> int:
        """The bytes of a page."""
        keys_and_values = 2 * self.num_layers * self.page_size
        return keys_and_values * self.n_kv_heads * self.head_dim * self.dtype.size_in_bytes


@dataclasses.dataclass
class PagedCacheValues:
    """The tensors of a paged cache, as a model takes them.

    Attributes:
        kv_blocks: The pages.
        cache_lengths: The positions of each text that are filled.
        lookup_table: The pages of each text.
        max_lengths: The longest prompt and the longest context.
    """

    kv_blocks: TensorOrType
    cache_lengths: TensorOrType
    lookup_table: TensorOrType
    max_lengths: TensorOrType

    def __iter__(self) -> Iterator[TensorOrType]:
        return iter((self.kv_blocks, self.cache_lengths, self.lookup_table, self.max_lengths))


__all__ = ["KVCacheParams", "KVCacheStrategy", "PagedCacheValues"]
