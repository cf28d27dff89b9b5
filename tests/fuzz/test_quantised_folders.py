"""Layers as other tools quantise them, with a changed tensor or field: read, or refused."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
from fuzz.examples import fuzzed, right_or_refused
from hypothesis import given
from hypothesis import strategies as st
from models.test_formats import CASES

from maxmod.models.formats.layer import IntegerLayer
from maxmod.models.formats.methods import open_format
from maxmod.weights.mapping import InMemory

DTYPES = [np.int8, np.uint8, np.int32, np.int64, np.float16, np.float32, ml_dtypes.bfloat16]
VALUES = [None, 0, -1, 1, True, "x", [], {}, [1], {"a": 1}, 2.5, 10**30, [128, 128], ["a", "b"]]
FIELDS = ["bits", "group_size", "checkpoint_format", "version", "format", "weight_block_size"]
FIELDS += ["config_groups", "sparsity_config", "transform_config"]


def changed(draw: st.DrawFn, value: np.ndarray) -> np.ndarray:
    """The tensor with another dtype, number of elements, order of axes or size."""
    way = draw(st.sampled_from(["dtype", "short", "axis", "turned", "size"]))
    if way == "dtype":
        with np.errstate(all="ignore"):
            return np.asarray(value, draw(st.sampled_from(DTYPES)))
    if way == "short":
        return value.reshape(-1)[: draw(st.integers(0, value.size))].copy()
    if way == "axis":
        return value[None]
    if way == "turned":
        return np.ascontiguousarray(value.T)
    sizes = [draw(st.integers(0, 5)) if draw(st.booleans()) else size for size in value.shape]
    return np.zeros(sizes, value.dtype)


@fuzzed(60)
@given(data=st.data(), case=st.sampled_from(sorted(CASES)))
def test_layers_of_other_tools(data: st.DataObject, case: str) -> None:
    make, table, _ = CASES[case]
    tensors, _ = make(np.random.default_rng(3), 64, 64)
    part = data.draw(st.sampled_from(sorted(tensors)))
    tensors[part] = data.draw(st.composite(changed)(tensors[part]))
    if data.draw(st.booleans()):
        table = table | {data.draw(st.sampled_from(FIELDS)): data.draw(st.sampled_from(VALUES))}
    stored = InMemory({f"a.{name}": value for name, value in tensors.items()})
    with right_or_refused():
        found = open_format(Path("folder"), {"quantization_config": table}, stored)
        assert found is not None
        weight = found["a.weight"]
        assert weight.type == found.tensor_type("a.weight")
        layer = found.layers["a"]
        if isinstance(layer, IntegerLayer) and layer.kept is not None:
            assert layer.codes().shape[0] == layer.rows
            assert layer.kept_scales().shape == (layer.rows, layer.groups)
