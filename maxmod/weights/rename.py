"""Lazy, composable views that adapt names and layouts of a file to a model.

Each function takes a mapping of names to tensors and returns another one (`Weights`) without
reading anything; tensors are transformed one by one on access:

    with open_checkpoint(folder) as checkpoint:
        state = strip_prefix(checkpoint, "transformer.")
        state = drop(state, "*.attn.bias")
        state = transpose(state, ["*.c_attn.weight", "*.c_proj.weight", "*.c_fc.weight"])
        model.load_state_dict(state)

Names are matched by patterns, in which each `*` matches any characters, dots included. In the new
name of a rule, the first `*` is replaced by the match of the first `*` of the pattern, and so on.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from maxmod.dtype import DType, storage_dtype
from maxmod.errors import ArgumentError, ShapeError, WeightsError
from maxmod.op.rules import normalize_axis
from maxmod.ops import split_concat
from maxmod.tensor import Tensor
from maxmod.tensor.like import StateLike
from maxmod.values.tensor_type import TensorType
from maxmod.weights.mapping import (
    Cut,
    Recipe,
    Step,
    View,
    Weights,
    aligned_empty,
    as_weights,
    compact,
    static_sizes,
)

# A pattern, several of them, or a predicate.
T = TypeVar("T")
Names = str | Iterable[str] | Callable[[str], bool]


# ---- patterns ------------------------------------------------------------------------------------


def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile("(.*?)".join(map(re.escape, pattern.split("*"))), re.DOTALL)


def _fill(template: str, captured: Sequence[str]) -> str:
    literals = template.split("*")
    return "".join(literal + part for literal, part in zip(literals, (*captured, "")))


def _check_stars(op: str, pattern: str, templates: Iterable[str]) -> None:
    for template in templates:
        if template.count("*") != pattern.count("*"):
            raise ArgumentError(
                f"{op}: expected as many * in {template!r} as in {pattern!r}, got "
                f"{template.count('*')} and {pattern.count('*')}."
            )


def _chooser(names: Names) -> Callable[[str], bool]:
    if callable(names):
        return names
    patterns = [_compile(p) for p in ([names] if isinstance(names, str) else names)]
    return lambda name: any(pattern.fullmatch(name) for pattern in patterns)


def _view(op: str, recipes: Iterable[tuple[str, Recipe]]) -> View:
    """Makes a view; two tensors must not get the same name."""
    plan: dict[str, Recipe] = {}
    for name, recipe in recipes:
        if name in plan:
            one, two = plan[name].source[1], recipe.source[1]
            raise WeightsError(f"{op}: two tensors would be called {name!r}: {one!r} and {two!r}.")
        plan[name] = recipe
    return View(plan)


# ---- names ---------------------------------------------------------------------------------------


def rename(state: StateLike, rules: Mapping[str, str] | Callable[[str], str | None]) -> Weights:
    """Renames tensors.

    Args:
        state: Names to tensors.
        rules: Patterns of old names to new names: the first match applies, and names without a
            match are kept; or a function of the old name that returns the new one, or None to
            leave the tensor out.

    Returns:
        A lazy view; tensors are read on access.

    Raises:
        WeightsError: If two tensors would get the same name.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import rename
        >>> state = {"h.0.ln_1.weight": np.ones(2), "wte.weight": np.ones(3)}
        >>> list(rename(state, {"h.*.ln_1.*": "layers.*.norm.*"}))
        ['layers.0.norm.weight', 'wte.weight']
    """
    weights = as_weights(state)
    new_name = rules if callable(rules) else _by_rules(rules)
    renamed = ((new_name(name), Recipe((weights, name))) for name in weights)
    return _view("rename", ((new, recipe) for new, recipe in renamed if new is not None))


def _by_rules(rules: Mapping[str, str]) -> Callable[[str], str]:
    for pattern, template in rules.items():
        _check_stars("rename", pattern, [template])
    compiled = [(_compile(pattern), template) for pattern, template in rules.items()]

    def new_name(name: str) -> str:
        for pattern, template in compiled:
            match = pattern.fullmatch(name)
            if match:
                return _fill(template, match.groups())
        return name

    return new_name


def strip_prefix(state: StateLike, prefix: str) -> Weights:
    """Removes a prefix from the names that have it; other names are kept.

    Args:
        state: Names to tensors.
        prefix: The prefix, including its dot.

    Returns:
        A lazy view; tensors are read on access.

    Raises:
        WeightsError: If two tensors would get the same name.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import strip_prefix
        >>> state = {"model.norm": np.ones(2), "head": np.ones(2)}
        >>> list(strip_prefix(state, "model."))
        ['norm', 'head']
    """
    return rename(state, lambda name: name.removeprefix(prefix))


def add_prefix(state: StateLike, prefix: str) -> Weights:
    """Adds a prefix to every name.

    Args:
        state: Names to tensors.
        prefix: The prefix, including its dot.

    Returns:
        A lazy view; tensors are read on access.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import add_prefix
        >>> list(add_prefix({"weight": np.ones(2)}, "head."))
        ['head.weight']
    """
    return rename(state, lambda name: prefix + name)


def select(state: StateLike, names: Names) -> Weights:
    """Keeps only the chosen tensors.

    Args:
        state: Names to tensors.
        names: A pattern, several patterns, or a function of the name.

    Returns:
        A lazy view; tensors are read on access.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import select
        >>> state = {"encoder.w": np.ones(2), "decoder.w": np.ones(2)}
        >>> list(select(state, "encoder.*"))
        ['encoder.w']
    """
    chosen = _chooser(names)
    return rename(state, lambda name: name if chosen(name) else None)


def drop(state: StateLike, names: Names) -> Weights:
    """Leaves out the chosen tensors; the opposite of `select`.

    Args:
        state: Names to tensors.
        names: A pattern, several patterns, or a function of the name.

    Returns:
        A lazy view; tensors are read on access.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import drop
        >>> state = {"h.0.attn.bias": np.ones(2), "h.0.attn.weight": np.ones(2)}
        >>> list(drop(state, "*.attn.bias"))
        ['h.0.attn.weight']
    """
    chosen = _chooser(names)
    return rename(state, lambda name: None if chosen(name) else name)


def merge(*states: StateLike) -> Weights:
    """Joins mappings without common names.

    Args:
        *states: Names to tensors.

    Returns:
        A lazy view; tensors are read on access.

    Raises:
        WeightsError: If a name is in two of them.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import merge
        >>> list(merge({"a": np.ones(2)}, {"b": np.ones(3)}))
        ['a', 'b']
    """
    sources = [as_weights(state) for state in states]
    return _view("merge", ((name, Recipe((w, name))) for w in sources for name in w))


# ---- contents ------------------------------------------------------------------------------------


def astype(state: StateLike, dtype: DType) -> Weights:
    """Casts every floating tensor to a dtype.

    Args:
        state: Names to tensors.
        dtype: The dtype; tensors that are not floats keep theirs.

    Returns:
        A lazy view; tensors are read on access.

    Example:
        >>> import numpy as np
        >>> from maxmod import DType
        >>> from maxmod.weights import astype
        >>> astype({"w": np.ones(2, np.float32)}, DType.bfloat16).tensor_type("w").short()
        'bfloat16[2]'
    """
    return as_weights(state).astype(dtype)


def transpose(state: StateLike, names: Names, axes: Sequence[int] | None = None) -> Weights:
    """Permutes the axes of the chosen tensors.

    Args:
        state: Names to tensors.
        names: A pattern, several patterns, or a function of the name.
        axes: Axis i of the result is axis `axes[i]` of the tensor. By default the last two axes
            are swapped.

    Returns:
        A lazy view; tensors are read on access.

    Raises:
        ShapeError: On access to a tensor or its type, if its rank does not fit.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import transpose
        >>> state = {"c_fc.weight": np.ones((3, 12)), "c_fc.bias": np.ones(12)}
        >>> transpose(state, "*.weight")["c_fc.weight"].shape
        [Dim(12), Dim(3)]
    """
    weights = as_weights(state)
    chosen = _chooser(names)
    step = _Permute(None if axes is None else tuple(axes))
    return _view(
        "transpose",
        ((n, Recipe((weights, n), step=step if chosen(n) else None)) for n in weights),
    )


def split(
    state: StateLike,
    rules: Mapping[str, Sequence[str]],
    *,
    sizes: Sequence[int] | None = None,
    axis: int = 0,
    blocks: int = 1,
) -> Weights:
    """Splits tensors into pieces with separate names.

    Args:
        state: Names to tensors.
        rules: Pattern of the whole to the names of its pieces.
        sizes: Sizes of the pieces along the axis; equal by default.
        axis: The axis to split.
        blocks: The axis is so many equal blocks, and each has a part of every piece: heads, for
            example, with their queries, keys and values one after the other. The sizes are those in
            a block.

    Returns:
        A lazy view; tensors are read on access.

    Raises:
        ShapeError: On access to a piece or its type, if the sizes do not fit.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import split
        >>> state = {"h.0.qkv.weight": np.ones((6, 4))}
        >>> pieces = split(state, {"*.qkv.weight": ["*.q.weight", "*.k.weight", "*.v.weight"]})
        >>> list(pieces), pieces.tensor_type("h.0.k.weight").short()
        (['h.0.q.weight', 'h.0.k.weight', 'h.0.v.weight'], 'float64[2,4]')
    """
    for pattern, parts in rules.items():
        _check_stars("split", pattern, parts)
        if sizes is not None and len(sizes) != len(parts):
            raise ArgumentError(
                f"split: expected a size for each of {list(parts)}, got {list(sizes)}."
            )
    weights = as_weights(state)
    compiled = [(_compile(pattern), parts) for pattern, parts in rules.items()]

    def recipes() -> Iterable[tuple[str, Recipe]]:
        for name in weights:
            match, parts = _first_match(compiled, name)
            if match is None or parts is None:
                yield name, Recipe((weights, name))
                continue
            for i, part in enumerate(parts):
                step = _Part(axis, i, len(parts), None if sizes is None else tuple(sizes), blocks)
                yield _fill(part, match.groups()), Recipe((weights, name), step=step)

    return _view("split", recipes())


def concat(state: StateLike, rules: Mapping[str, Sequence[str]], *, axis: int = 0) -> Weights:
    """Joins tensors into larger ones; the opposite of `split`, with the same form of rules.

    Args:
        state: Names to tensors.
        rules: Name of the whole to the patterns of its pieces.
        axis: The axis along which they are joined.

    Returns:
        A lazy view; tensors are read on access.

    Raises:
        WeightsError: If a whole has some of its pieces and lacks others.
        ShapeError: On access to the whole or its type, if the pieces do not fit.

    Example:
        >>> import numpy as np
        >>> from maxmod.weights import concat
        >>> state = {"h.0.k": np.ones((2, 4)), "h.0.q": np.ones((6, 4))}
        >>> concat(state, {"*.qk": ["*.q", "*.k"]}).tensor_type("h.0.qk").short()
        'float64[8,4]'
    """
    weights = as_weights(state)
    compiled: list[tuple[re.Pattern[str], tuple[str, Sequence[str]]]] = []
    for whole, parts in rules.items():
        _check_stars("concat", whole, parts)
        compiled += [(_compile(part), (whole, parts)) for part in parts]
    step = _Join(axis)

    def recipes() -> Iterable[tuple[str, Recipe]]:
        made = set()
        for name in weights:
            match, rule = _first_match(compiled, name)
            if match is None or rule is None:
                yield name, Recipe((weights, name))
                continue
            whole, *sources = (_fill(text, match.groups()) for text in (rule[0], *rule[1]))
            missing = [source for source in sources if source not in weights]
            if missing:
                raise WeightsError(f"concat: {whole!r} lacks {missing[0]!r} to go with {name!r}.")
            if whole not in made:
                made.add(whole)
                first, *others = ((weights, source) for source in sources)
                yield whole, Recipe(first, tuple(others), step)

    return _view("concat", recipes())


def _first_match(
    compiled: Iterable[tuple[re.Pattern[str], T]], name: str
) -> tuple[re.Match[str], T] | tuple[None, None]:
    for pattern, value in compiled:
        match = pattern.fullmatch(name)
        if match:
            return match, value
    return None, None


class _Permute(Step):
    def __init__(self, axes: tuple[int, ...] | None) -> None:
        self.axes = axes
        self.text = f"transpose {axes}"

    def _resolved(self, name: str, rank: int) -> tuple[int, ...]:
        axes = self.axes
        if axes is None and rank >= 2:
            axes = (*range(rank - 2), rank - 1, rank - 2)
        if axes is None or sorted(axes) != list(range(rank)):
            expected = "at least 2 axes" if axes is None else f"{len(axes)} axes for {axes}"
            raise ShapeError(f"transpose: {name!r}: expected {expected}, got rank {rank}.")
        return axes

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        axes = self._resolved(name, types[0].rank)
        return types[0].with_sizes(tuple(types[0].sizes[axis] for axis in axes))

    def apply(self, tensors: list[Tensor]) -> Tensor:
        return compact(tensors[0].permute(self._resolved("tensor", tensors[0].rank)))

    def pulled(
        self, name: str, type: TensorType, cut: Cut
    ) -> tuple[Cut, Callable[[Tensor], Tensor]] | None:
        axis = self._resolved(name, type.rank)[cut.axis]
        return cut._replace(axis=axis), lambda tensor: self.apply([tensor])


class _Part(Step):
    def __init__(
        self, axis: int, number: int, count: int, sizes: tuple[int, ...] | None, blocks: int
    ) -> None:
        self.axis = axis
        self.number = number
        self.count = count
        self.sizes = sizes
        self.blocks = blocks
        self.text = f"part {axis} {number} of {sizes or count} in {blocks}"

    def _bounds(self, name: str, whole: TensorType) -> tuple[int, int, int]:
        """Returns the axis, and where the piece starts and ends in each block."""
        axis = normalize_axis("split", self.axis, whole.rank)
        total, rest = divmod(int(whole.sizes[axis]), self.blocks)
        sizes = self.sizes or (total // self.count,) * self.count
        if rest or sum(sizes) != total or min(sizes) < 0:
            each = "" if self.blocks == 1 else f" in each of {self.blocks} blocks"
            raise ShapeError(
                f"split: {name!r}: expected pieces that add up to {total}{each} on axis {axis} of "
                f"{whole.short()}, got {self.sizes or f'{self.count} equal ones'}."
            )
        start = sum(sizes[: self.number])
        return axis, start, start + sizes[self.number]

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        axis, start, stop = self._bounds(name, types[0])
        sizes = types[0].sizes
        size = self.blocks * (stop - start)
        return types[0].with_sizes((*sizes[:axis], size, *sizes[axis + 1 :]))

    def apply(self, tensors: list[Tensor]) -> Tensor:
        axis, start, stop = self._bounds("tensor", tensors[0].type)
        type = self.type("tensor", [tensors[0].type])
        data = tensors[0].data
        if self.blocks > 1:
            data = data.reshape(*data.shape[:axis], self.blocks, -1, *data.shape[axis + 1 :])
            axis += 1
        data = data[(slice(None),) * axis + (slice(start, stop),)]
        return compact(Tensor.wrap(data.reshape(static_sizes(type.sizes)), type))

    def pulled(
        self, name: str, type: TensorType, cut: Cut
    ) -> tuple[Cut, Callable[[Tensor], Tensor]] | None:
        axis, start, stop = self._bounds(name, type)
        if axis != cut.axis:
            return None
        size, block = stop - start, int(type.sizes[axis]) // self.blocks
        ranges: list[tuple[int, int]] = []
        for first, last in cut.ranges:
            for number in range(self.blocks):  # the blocks that the range touches
                low, high = max(first, number * size), min(last, (number + 1) * size)
                if low < high:
                    shift = number * (block - size) + start
                    ranges.append((low + shift, high + shift))
        return cut._replace(ranges=tuple(ranges)), lambda tensor: tensor


class _Join(Step):
    def __init__(self, axis: int) -> None:
        self.axis = axis
        self.text = f"concat {axis}"

    def type(self, name: str, types: list[TensorType]) -> TensorType:
        first = types[0]
        axis = normalize_axis("concat", self.axis, first.rank)
        total = 0
        for type in types:
            like = (*type.sizes[:axis], *first.sizes[axis : axis + 1], *type.sizes[axis + 1 :])
            if type.dtype is not first.dtype or like != first.sizes:
                raise ShapeError(
                    f"concat: {name!r}: expected pieces that differ on axis {axis} only, got "
                    f"{first.short()} and {type.short()}."
                )
            total += int(type.sizes[axis])
        return first.with_sizes((*first.sizes[:axis], total, *first.sizes[axis + 1 :]))

    def apply(self, tensors: list[Tensor]) -> Tensor:
        type = self.type("tensor", [tensor.type for tensor in tensors])
        if not all(tensor.type.device.is_cpu() for tensor in tensors):
            return split_concat.concat(tensors, axis=self.axis)
        whole = aligned_empty(type.sizes, storage_dtype(type.dtype))
        np.concatenate([tensor._host() for tensor in tensors], axis=self.axis, out=whole)
        return Tensor.wrap(whole, type)
