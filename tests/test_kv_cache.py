"""The cache of keys and values without a model: rows, masks, and where they live."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import maxmod
from maxmod import CPU, DType, Tensor
from maxmod.backends.devices import Device
from maxmod.generate.kv_cache import CachedContext, CacheShape, KVCache, WholeContext
from maxmod.values.device import CPU_REF, DeviceRef

SHAPE = CacheShape(layers=2, heads=3, head_dim=4)
PADDING = [2, 0, 1]


def _cache(used: int, length: int = 8) -> KVCache:
    cache = KVCache.empty(SHAPE, PADDING, length, DType.float32, CPU_REF)
    cache.used = Tensor(np.array(used, np.int64))
    return cache


def _tokens(count: int, device: Any = CPU_REF) -> Tensor:
    return Tensor(np.zeros((len(PADDING), count), np.int64), device=device)


def _rows(count: int, first: float) -> tuple[Tensor, Tensor]:
    """Keys and values of some tokens, all numbers different."""
    shape = (2, len(PADDING), SHAPE.heads, count, SHAPE.head_dim)
    numbers = np.arange(np.prod(shape), dtype=np.float32).reshape(shape) + first
    return Tensor(numbers[0]), Tensor(numbers[1])


@pytest.mark.parametrize("window", [None, 1, 2, 3, 20])
@pytest.mark.parametrize(("used", "count"), [(0, 1), (0, 5), (3, 1), (2, 4), (7, 1)])
def test_masks(used: int, count: int, window: int | None) -> None:
    """A token sees itself and the rows before, down to its window and its padding."""
    found = CachedContext(_tokens(count), _cache(used)).mask(window)
    row = np.arange(used, used + count).reshape(1, 1, -1, 1)
    key = np.arange(8)
    first = np.minimum(np.reshape(PADDING, (-1, 1, 1, 1)), row)
    wanted = (key <= row) & (key >= first)
    if window is not None:
        wanted &= key > row - window
    np.testing.assert_array_equal(found.to_numpy(), wanted)
    assert wanted.any(-1).all()


@pytest.mark.parametrize("window", [None, 1, 2])
def test_masks_of_whole_sequences(window: int | None) -> None:
    context = WholeContext(_tokens(4))
    row, key = np.ogrid[:4, :4]
    wanted = (key <= row) & (key > row - (window or 4))
    np.testing.assert_array_equal(context.mask(window).to_numpy(), wanted)
    assert context.positions.to_numpy().tolist() == [0, 1, 2, 3]


def test_positions_count_from_the_first_token() -> None:
    positions = CachedContext(_tokens(3), _cache(1)).positions
    assert positions.to_numpy().tolist() == [[0, 0, 1], [1, 2, 3], [0, 1, 2]]


def test_rows_are_stored_behind_earlier_rows() -> None:
    cache = _cache(0)
    given = [_rows(3, 1), _rows(2, 1000)]
    for rows in given:
        context = CachedContext(_tokens(rows[0].to_numpy().shape[2]), cache)
        for layer in range(SHAPE.layers):
            keys, values = context.extend(layer, *(x * float(layer + 1) for x in rows))
            assert keys is cache.keys[layer]
            assert values is cache.values[layer]
        context.finish()
    assert cache.used.item() == 5
    for layer in range(SHAPE.layers):
        for number, buffer in enumerate((cache.keys[layer], cache.values[layer])):
            wanted = np.concatenate([rows[number].to_numpy() for rows in given], 2) * (layer + 1)
            np.testing.assert_array_equal(buffer.to_numpy()[:, :, :5], wanted)
            assert not buffer.to_numpy()[:, :, 5:].any()


def test_longer_caches_keep_rows() -> None:
    cache = _cache(0, length=3)
    CachedContext(_tokens(3), cache).extend(1, *_rows(3, 1))
    before = [x.to_numpy().copy() for x in (*cache.keys, *cache.values)]
    cache.lengthen(7)
    assert cache.length == 7
    for buffer, old in zip((*cache.keys, *cache.values), before, strict=True):
        assert buffer.shape == [3, 3, 7, 4]
        np.testing.assert_array_equal(buffer.to_numpy()[:, :, :3], old)
        assert not buffer.to_numpy()[:, :, 3:].any()


def test_selected_sequences_are_copies() -> None:
    cache = _cache(0)
    CachedContext(_tokens(2), cache).extend(0, *_rows(2, 1))
    part = cache.select([2, 0])
    assert part.padding.to_numpy().tolist() == [1, 2]
    np.testing.assert_array_equal(part.keys[0].to_numpy(), cache.keys[0].to_numpy()[[2, 0]])
    np.testing.assert_array_equal(part.values[0].to_numpy(), cache.values[0].to_numpy()[[2, 0]])
    context = CachedContext(_tokens(2)[:2], part)
    context.finish()
    assert (part.used.item(), cache.used.item()) == (2, 0)


def test_everything_stays_on_the_device_of_the_tokens(emulated_accelerator: Device) -> None:
    """Also where the default device is another one."""
    device = DeviceRef.GPU()
    with maxmod.default_device(CPU()):
        cache = KVCache.empty(SHAPE, PADDING, 4, DType.float32, device)
        context = CachedContext(_tokens(2, emulated_accelerator), cache)
        whole = WholeContext(_tokens(2, emulated_accelerator))
        context.finish()
        part = cache.select([1])
        found = [context.positions, context.mask(1), whole.positions, whole.mask(1)]
        found += [*part.keys, *part.values, part.used, part.padding, cache.used]
    assert all(tensor.device == emulated_accelerator for tensor in found)
