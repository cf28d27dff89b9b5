"""Views that rename and reshape: values against NumPy, composition, errors, lazy reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from maxmod import DType, Tensor
from maxmod.errors import ArgumentError, AxisError, MaxmodError, ShapeError, WeightsError
from maxmod.weights import (
    Checkpoint,
    add_prefix,
    astype,
    concat,
    drop,
    merge,
    open_checkpoint,
    rename,
    save_state,
    select,
    split,
    strip_prefix,
    transpose,
)


def arrays(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Distinct float32 arrays; `__` in a name becomes a dot."""
    rng = np.random.default_rng(0)
    return {
        name.replace("__", "."): rng.normal(size=shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def numbers(state: Any) -> dict[str, np.ndarray]:
    return {name: tensor.to_numpy() for name, tensor in state.items()}


class Counting(Checkpoint):
    """A checkpoint that records reads."""

    def _load(self, name: str) -> Tensor:
        self.reads.append(name)
        return super()._load(name)


@pytest.fixture
def counting(tmp_path: Path) -> Any:
    def make(state: dict[str, np.ndarray]) -> Checkpoint:
        checkpoint = open_checkpoint(save_state(state, tmp_path / "model.safetensors"))
        checkpoint.__class__ = Counting
        checkpoint.reads = []
        return checkpoint

    return make


def test_gpt2_layout_into_torch_layout(counting: Any) -> None:
    """Everything composed: the case that the helpers are for."""
    state = arrays(
        transformer__h__0__attn__c_attn__weight=(4, 12),
        transformer__h__0__attn__c_attn__bias=(12,),
        transformer__h__0__attn__bias=(1, 1, 3, 3),
        transformer__wte__weight=(5, 4),
        lm_head__weight=(5, 4),
    )
    checkpoint = counting(state)
    view = strip_prefix(checkpoint, "transformer.")
    view = drop(view, "*.attn.bias")
    view = transpose(view, "*.c_attn.weight")
    view = split(view, {"*.c_attn.*": ["*.q.*", "*.k.*", "*.v.*"]})
    view = rename(view, {"h.*": "layers.*", "wte.weight": "embedding.weight"})
    view = astype(view, DType.float64)
    assert checkpoint.reads == []
    types = {name: view.tensor_type(name).short() for name in view}
    assert checkpoint.reads == []
    assert types == {
        "layers.0.attn.q.weight": "float64[4,4]",
        "layers.0.attn.k.weight": "float64[4,4]",
        "layers.0.attn.v.weight": "float64[4,4]",
        "layers.0.attn.q.bias": "float64[4]",
        "layers.0.attn.k.bias": "float64[4]",
        "layers.0.attn.v.bias": "float64[4]",
        "embedding.weight": "float64[5,4]",
        "lm_head.weight": "float64[5,4]",
    }
    got = numbers(view)
    whole = state["transformer.h.0.attn.c_attn.weight"].T
    np.testing.assert_array_equal(got["layers.0.attn.k.weight"], whole[4:8])
    np.testing.assert_array_equal(
        got["layers.0.attn.v.bias"], state["transformer.h.0.attn.c_attn.bias"][8:]
    )
    np.testing.assert_array_equal(got["lm_head.weight"], state["lm_head.weight"])
    assert sorted(checkpoint.reads) == sorted(n for n in state if n != "transformer.h.0.attn.bias")
    assert {n: view[n].type.short() for n in view} == types


def test_rename_rules() -> None:
    state = arrays(a__0__w=(1,), a__1__w=(1,), b=(1,), a__1__x__w=(1,))
    assert list(rename(state, {"a.*.w": "z.*", "b": "c", "a.1.*": "never.*"})) == [
        "z.0",
        "z.1",
        "c",
        "z.1.x",
    ]
    assert list(rename(state, lambda n: None if n == "b" else n.upper())) == [
        "A.0.W",
        "A.1.W",
        "A.1.X.W",
    ]
    assert list(rename(arrays(a__b__c=(1,)), {"*.b.*": "*/*"})) == ["a/c"]
    # A pattern is matched as a whole, and only * is special.
    assert list(rename(arrays(axb=(1,), a__b=(1,)), {"a.b": "dot"})) == ["axb", "dot"]
    assert list(rename(arrays(ab=(1,), abc=(1,)), {"ab": "x"})) == ["x", "abc"]


def test_rename_collision() -> None:
    with pytest.raises(WeightsError) as caught:
        rename(arrays(a=(1,), b=(1,)), {"a": "b"})
    assert str(caught.value) == "rename: two tensors would be called 'b': 'a' and 'b'."


UNEVEN_STARS = {
    "rename": lambda state: rename(state, {"a.*": "b"}),
    "split": lambda state: split(state, {"a.*": ["b.*", "c"]}),
    "concat": lambda state: concat(state, {"a": ["b.*", "c.*"]}),
}


@pytest.mark.parametrize("function", UNEVEN_STARS)
def test_stars_must_match(function: str) -> None:
    with pytest.raises(ArgumentError, match=r"expected as many \* in '.*' as in '.*', got . and ."):
        UNEVEN_STARS[function]({})


def test_prefixes() -> None:
    state = arrays(model__a=(1,), head=(1,))
    assert list(strip_prefix(state, "model.")) == ["a", "head"]
    assert list(add_prefix(state, "x.")) == ["x.model.a", "x.head"]
    with pytest.raises(WeightsError, match="two tensors would be called 'a'"):
        strip_prefix(arrays(model__a=(1,), a=(1,)), "model.")


def test_select_and_drop() -> None:
    state = arrays(enc__a=(1,), enc__b=(1,), dec__a=(1,))
    for names, chosen in (
        ("enc.*", ["enc.a", "enc.b"]),
        (["*.a", "enc.b"], ["enc.a", "enc.b", "dec.a"]),
        (lambda name: name.endswith("b"), ["enc.b"]),
        ([], []),
        (iter(["dec.a"]), ["dec.a"]),
    ):
        if not isinstance(names, str) and hasattr(names, "__next__"):
            assert list(select(state, names)) == chosen
            continue
        assert list(select(state, names)) == chosen
        assert list(drop(state, names)) == [name for name in state if name not in chosen]


def test_merge() -> None:
    one, two = arrays(a=(1,)), {"b": Tensor([2.0])}
    both = merge(one, two)
    assert both["a"].to_numpy() == one["a"] and both["b"] is two["b"]
    with pytest.raises(WeightsError, match="merge: two tensors would be called 'a'"):
        merge(one, one)


@pytest.mark.parametrize("axes", [None, (2, 0, 1), (0, 1, 2), (-1, 0, 1)])
def test_transpose(axes: tuple[int, ...] | None) -> None:
    state = arrays(x=(2, 3, 5), y=(2, 3, 5))
    view = transpose(state, "x", axes)
    if axes and -1 in axes:
        with pytest.raises(ShapeError, match="transpose: 'x': expected 3 axes for"):
            view.tensor_type("x")
        return
    expected = state["x"].transpose(axes or (0, 2, 1))
    assert view.tensor_type("x").sizes == expected.shape
    np.testing.assert_array_equal(view["x"].data, expected)
    np.testing.assert_array_equal(view["y"].data, state["y"])
    assert view["x"].data.flags.c_contiguous


def test_transpose_of_a_large_matrix() -> None:
    """Large ones are copied in tiles by several threads."""
    array = np.random.default_rng(0).integers(0, 1 << 30, (1531, 1013), np.int64)
    data = transpose({"x": array}, "x")["x"].data
    np.testing.assert_array_equal(data, array.T)
    assert data.flags.c_contiguous and data.ctypes.data % 64 == 0


def test_transpose_needs_two_axes() -> None:
    with pytest.raises(ShapeError, match="transpose: 'x': expected at least 2 axes, got rank 1"):
        transpose(arrays(x=(3,)), "x").tensor_type("x")


@pytest.mark.parametrize(("axis", "sizes"), [(0, None), (1, [1, 5, 0]), (-1, [2, 2, 2])])
def test_split_is_undone_by_concat(axis: int, sizes: list[int] | None) -> None:
    state = arrays(h__0__qkv=(6, 6), h__1__qkv=(6, 6), other=(2,))
    names = {"h.*.qkv": ["h.*.q", "h.*.k", "h.*.v"]}
    pieces = split(state, names, sizes=sizes, axis=axis)
    assert list(pieces) == [f"h.{i}.{p}" for i in (0, 1) for p in "qkv"] + ["other"]
    bounds = np.cumsum(sizes or [2, 2, 2])[:-1]
    for name, expected in zip("qkv", np.split(state["h.1.qkv"], bounds, axis)):
        np.testing.assert_array_equal(pieces[f"h.1.{name}"].data, expected)
        assert pieces.tensor_type(f"h.1.{name}").sizes == expected.shape
    whole = concat(pieces, names, axis=axis)
    assert list(whole) == ["h.0.qkv", "h.1.qkv", "other"]
    for name, array in state.items():
        assert whole.tensor_type(name).sizes == array.shape
        np.testing.assert_array_equal(whole[name].data, array)


def test_pieces_do_not_share_memory() -> None:
    state = arrays(x=(4, 3))
    piece = split(state, {"x": ["a", "b"]})["a"]
    assert not np.shares_memory(piece.data, state["x"])


def test_split_in_blocks() -> None:
    """Two heads, each with 2 rows of queries and 1 of values."""
    heads = np.arange(24).reshape(6, 4)
    names = {"*.qv": ["*.q", "*.v"]}
    pieces = split({"a.qv": heads, "b.qv": heads[:, 0].copy()}, names, sizes=[2, 1], blocks=2)
    assert pieces.tensor_type("a.q").short() == "int64[4,4]"
    np.testing.assert_array_equal(pieces["a.q"].to_numpy(), heads[[0, 1, 3, 4]])
    np.testing.assert_array_equal(pieces["a.v"].to_numpy(), heads[[2, 5]])
    np.testing.assert_array_equal(pieces["b.v"].to_numpy(), [8, 20])
    across = split({"a.qv": heads.T.copy()}, names, sizes=[2, 1], axis=1, blocks=2)
    np.testing.assert_array_equal(across["a.v"].to_numpy(), heads[[2, 5]].T)
    with pytest.raises(ShapeError, match="add up to 2 in each of 3 blocks on axis 0"):
        split({"a.qv": heads}, names, sizes=[2, 1], blocks=3).tensor_type("a.q")


def test_split_reads_the_whole_once(counting: Any) -> None:
    checkpoint = counting(arrays(x=(6, 2), y=(6, 2)))
    view = split(checkpoint, {"*": ["*.0", "*.1", "*.2"]})
    dict(view)
    assert checkpoint.reads == ["x", "y"]
    assert view._held is None  # nothing is kept behind
    _ = view["x.1"], view["x.1"]
    assert checkpoint.reads == ["x", "y", "x", "x"]


def test_split_errors() -> None:
    state = arrays(x=(5, 2))
    with pytest.raises(
        ShapeError, match=r"'a': expected pieces that add up to 5 on axis 0 of floa"
    ):
        split(state, {"x": ["a", "b"]}).tensor_type("a")
    with pytest.raises(ShapeError, match=r"add up to 5 .*float32\[5,2\], got \(2, 2\)"):
        split(state, {"x": ["a", "b"]}, sizes=[2, 2])["a"]
    with pytest.raises(ShapeError):
        split(state, {"x": ["a", "b"]}, sizes=[-1, 6])["a"]
    with pytest.raises(ArgumentError, match=r"a size for each of \['a', 'b'\], got \[5\]"):
        split(state, {"x": ["a", "b"]}, sizes=[5])
    with pytest.raises(AxisError):
        split(state, {"x": ["a", "b"]}, axis=2)["a"]


def test_concat_errors() -> None:
    state = {**arrays(q=(2, 3), k=(2, 4)), "v": np.ones((2, 3))}
    with pytest.raises(WeightsError, match=r"concat: 'qw' lacks 'w' to go with 'q'"):
        concat(state, {"qw": ["q", "w"]})
    with pytest.raises(WeightsError, match=r"concat: 'wq' lacks 'w' to go with 'q'"):
        concat(state, {"wq": ["w", "q"]})
    with pytest.raises(ShapeError, match=r"'qk': .* differ on axis 0 only, got float32\[2,3\] and"):
        concat(state, {"qk": ["q", "k"]}).tensor_type("qk")
    with pytest.raises(ShapeError, match=r"got float32\[2,3\] and float64\[2,3\]"):
        concat(state, {"qv": ["q", "v"]})["qv"]
    assert concat(state, {"qk": ["q", "k"]}, axis=1)["qk"].sizes == (2, 7)
    assert set(concat(state, {"none": ["x", "y"]})) == set(state)


def test_ties_go_through_views(tmp_path: Path) -> None:
    tensor = Tensor([[1.0, 2.0], [3.0, 4.0]])
    state = {"a": tensor, "b": tensor, "c": Tensor([[1.0, 2.0], [3.0, 4.0]])}
    save_state(state, tmp_path)
    for source in (state, open_checkpoint(tmp_path)):
        view = add_prefix(astype(transpose(source, "*"), DType.bfloat16), "m.")
        first = view["m.a"]
        assert view["m.b"] is first and view["m.c"] is not first
        assert view.nbytes() == 16
        # Only one of them transposed: two different tensors.
        half = transpose(source, "a")
        assert half["b"] is not half["a"] and half.nbytes() == 48


def test_order_on_the_disk_goes_through_views(tmp_path: Path) -> None:
    state = arrays(a=(64,), b=(64,), c=(64,))
    checkpoint = open_checkpoint(save_state(state, tmp_path))
    view = rename(checkpoint, {"a": "z", "c": "a"})
    assert view.file_order() == ["z", "b", "a"]
    assert [name for name, _ in view.items_in_file_order()] == ["z", "b", "a"]
    assert merge(checkpoint, add_prefix(checkpoint, "x.")).file_order()[::2] == ["a", "b", "c"]


def test_sources_of_other_kinds() -> None:
    tensor = Tensor([1.0])
    view = add_prefix({"t": tensor, "n": np.ones(2)}, "x.")
    assert view["x.t"] is tensor and view["x.n"].dtype is DType.float64
    assert add_prefix(view, "y.")("y.x.t") is tensor


_STEPS = st.lists(
    st.sampled_from(["prefix", "strip", "transpose", "split", "concat", "cast", "drop"]), max_size=6
)


@given(steps=_STEPS)
def test_types_never_lie(steps: list[str]) -> None:
    """Whatever is composed: the type told in advance is the type of the tensor, or both raise."""
    view: Any = arrays(h__0__w=(4, 6), h__1__w=(4, 6), h__0__b=(4,))
    for step in steps:
        try:
            view = {
                "prefix": lambda v: add_prefix(v, "p."),
                "strip": lambda v: strip_prefix(v, "p."),
                "transpose": lambda v: transpose(v, "*w*"),
                "split": lambda v: split(v, {"*.w": ["*.w1", "*.w2"]}, axis=1),
                "concat": lambda v: concat(v, {"*w": ["*h.0.w", "*h.1.w"]}),
                "cast": lambda v: astype(v, DType.float16),
                "drop": lambda v: drop(v, "*b"),
            }[step](view)
        except WeightsError:
            return
    if isinstance(view, dict):
        return
    assert sorted(view.file_order()) == sorted(view)
    for name in view:
        try:
            type = view.tensor_type(name)
        except MaxmodError as error:
            with pytest.raises(error.__class__):
                view[name]
            continue
        assert view[name].type == type
        assert view[name].data.flags.c_contiguous
