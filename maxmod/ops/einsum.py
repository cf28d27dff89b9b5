"""`einsum`: sums of products by letters, as diagonals, sums, matrix products and permutations."""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from typing import NamedTuple, cast

from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DTypeError, OperandError, ShapeError
from maxmod.interpreters.operands import promote_strong, strong
from maxmod.op import function
from maxmod.ops.arithmetic import mul
from maxmod.ops.create import iota
from maxmod.ops.gather import gather_nd
from maxmod.ops.matmul import matmul
from maxmod.ops.reduce import reduce_sum
from maxmod.ops.shape import broadcast_to, permute, reshape, unsqueeze
from maxmod.ops.split_concat import concat
from maxmod.tensor import Tensor
from maxmod.tensor.like import TensorLike
from maxmod.values.dim import Size
from maxmod.values.shape import product

__all__ = ["einsum"]

_LETTERS = string.ascii_uppercase + string.ascii_lowercase


class _Term(NamedTuple):
    """A tensor with a label for each axis."""

    tensor: Tensor
    labels: tuple[str, ...]


@function
def einsum(equation: str | Tensor, *operands: TensorLike | Sequence[TensorLike]) -> Tensor:
    """Sum of products over labelled axes, such as `F.einsum("ij,jk->ik", x, y)`.

    Axes with one letter go together; letters that the result lacks are summed. All forms of
    NumPy's `einsum`: a letter twice in an operand is its diagonal, `...` stands for axes without
    letters, which broadcast; without `->` the result has the letters that occur once, in
    alphabetical order, behind the axes of `...`. Operands are combined from left to right.

    Args:
        equation: Letters of each operand, `->`, letters of the result. Or the first operand,
            followed by a list of numbers in place of letters, and so on: `F.einsum(x, [0, 1], y,
            [1, 2], [0, 2])`.
        *operands: Tensors of numeric dtypes, or one list of them.

    Returns:
        The promoted dtype; the axes of the result in the order of its letters.

    Raises:
        ValueError: If the equation is malformed or does not fit the operands, or sizes under one
            letter differ.

    Example:
        >>> from maxmod import Tensor
        >>> from maxmod import functional as F
        >>> x = Tensor([[1.0, 2.0], [3.0, 4.0]])
        >>> F.einsum("ij,kj->ik", x, x).to_numpy().tolist()
        [[5.0, 11.0], [11.0, 25.0]]
        >>> F.einsum("ii", x).item(), F.einsum("ij->j", x).to_numpy().tolist()
        (5.0, [4.0, 6.0])
    """
    inputs, output, tensors = _parsed(equation, operands)
    terms = [_Term(tensor, labels) for tensor, labels in zip(tensors, inputs, strict=True)]
    terms = [_diagonal(term) for term in terms]
    sizes = _sizes(terms)
    result = _summed(terms[0], {*output}.union(*(term.labels for term in terms[1:])))
    for position, term in enumerate(terms[1:], 1):
        needed = {*output}.union(*(later.labels for later in terms[position + 1 :]))
        result = _product(result, _summed(term, needed | {*result.labels}), needed, sizes)
    result = _summed(result, {*output})
    tensor = permute(result.tensor, [result.labels.index(label) for label in output])
    return broadcast_to(tensor, [sizes[label] for label in output])


# ---- equations ---------------------------------------------------------------------------------


def _parsed(
    equation: str | Tensor, operands: tuple[object, ...]
) -> tuple[list[tuple[str, ...]], tuple[str, ...], Sequence[Tensor]]:
    """Returns the labels of operands and result, with those of `...` written out."""
    if not isinstance(equation, str):
        equation, operands = _from_lists((equation, *operands))
    elif len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    left, arrow, right = equation.replace(" ", "").partition("->")
    texts = left.split(",")
    if len(texts) != len(operands):
        raise ArgumentError(
            f"einsum: {equation!r} names {len(texts)} operands, got {len(operands)}."
        )
    tensors = promote_strong("einsum", [strong("einsum", operand) for operand in operands])
    if any(tensor.dtype is DType.bool for tensor in tensors):
        raise DTypeError("einsum: bool has no sum. Hint: x.cast(DType.int64).")
    hidden = [_hidden(equation, text, tensor) for text, tensor in zip(texts, tensors)]
    inputs = [_labels(equation, text, count) for text, count in zip(texts, hidden)]
    most = max(hidden)
    if not arrow:
        flat = [label for labels in inputs for label in labels]
        once = sorted(label for label in {*flat} if flat.count(label) == 1 and label.isalpha())
        return inputs, (*_dots(most), *once), tensors
    if most and "..." not in right:
        raise ArgumentError(
            f"einsum: {equation!r}: the result lacks the axes of '...'. Hint: write ... behind ->, "
            "and sum them afterwards."
        )
    output = _labels(equation, right, most)
    for label in output:
        if output.count(label) > 1 or not any(label in labels for labels in inputs):
            raise ArgumentError(
                f"einsum: {equation!r}: {label!r} of the result must occur once there, and in an "
                "operand."
            )
    return inputs, output, tensors


def _dots(count: int) -> tuple[str, ...]:
    """Labels of the axes of `...`, counted from the last, since they broadcast."""
    return tuple(f"...{axis}" for axis in reversed(range(count)))


def _hidden(equation: str, text: str, tensor: Tensor) -> int:
    """Returns how many axes of an operand `...` stands for; checks the number of letters."""
    letters = len(text.replace("...", "", 1))
    hidden = tensor.rank - letters
    if hidden < 0 or (hidden and "..." not in text):
        raise ShapeError(
            f"einsum: {equation!r}: {text!r} has {letters} letters for {tensor.type.short()}."
        )
    return hidden


def _labels(equation: str, text: str, hidden: int) -> tuple[str, ...]:
    before, dots, after = text.partition("...")
    for letter in before + after:
        if letter not in _LETTERS:
            raise ArgumentError(
                f"einsum: {equation!r}: expected letters, ',', '...' and '->', got {letter!r}."
            )
    return (*before, *(_dots(hidden) if dots else ()), *after)


def _from_lists(arguments: tuple[object, ...]) -> tuple[str, tuple[object, ...]]:
    """Returns the equation of operands and lists of numbers in turns."""
    pairs, rest = len(arguments) // 2, len(arguments) % 2
    texts = [_text(arguments[2 * pair + 1]) for pair in range(pairs)]
    equation = ",".join(texts) + (f"->{_text(arguments[-1])}" if rest else "")
    return equation, arguments[: 2 * pairs : 2]


def _text(numbers: object) -> str:
    if not isinstance(numbers, Iterable) or isinstance(numbers, (str, Tensor)):
        raise OperandError(
            "einsum: expected an equation and tensors, or tensors and lists of numbers in turns. "
            'Hint: F.einsum("ij,jk->ik", x, y).'
        )
    items = list(cast("Iterable[object]", numbers))
    if not all(item is ... or item in range(len(_LETTERS)) for item in items):
        raise ArgumentError(f"einsum: expected numbers from 0 to 51 and ..., got {items}.")
    return "".join("..." if item is ... else _LETTERS[cast("int", item)] for item in items)


# ---- products ----------------------------------------------------------------------------------


def _diagonal(term: _Term) -> _Term:
    """Takes the diagonal of axes with one label."""
    tensor, labels = term
    while len({*labels}) < len(labels):
        label = next(label for label in labels if labels.count(label) > 1)
        axes = [axis for axis, other in enumerate(labels) if other == label]
        size = tensor.sizes[axes[0]]
        if any(tensor.sizes[axis] != size for axis in axes):
            raise ShapeError(f"einsum: {label!r}: sizes differ in {tensor.type.short()}.")
        row = iota(count=size, dtype=DType.int64, device=tensor.type.device)
        others = [axis for axis in range(tensor.rank) if axis not in axes]
        places = concat([unsqueeze(row, -1)] * len(axes), axis=-1)
        tensor = gather_nd(permute(tensor, [*axes, *others]), places)
        labels = (label, *(labels[axis] for axis in others))
    return _Term(tensor, labels)


def _sizes(terms: Iterable[_Term]) -> dict[str, Size]:
    """Returns the size of each label; 1 goes with any other size."""
    found: dict[str, Size] = {}
    for tensor, labels in terms:
        for label, size in zip(labels, tensor.sizes, strict=True):
            have = found.setdefault(label, size)
            if have == 1:
                found[label] = size
            elif size not in (1, have):
                raise ShapeError(f"einsum: {label!r} has the sizes {have} and {size}.")
    return found


def _summed(term: _Term, needed: set[str]) -> _Term:
    """Sums the axes that nothing else needs."""
    tensor, labels = term
    for axis in reversed(range(len(labels))):
        if labels[axis] not in needed:
            kept = [*tensor.sizes[:axis], *tensor.sizes[axis + 1 :]]
            tensor = reshape(reduce_sum(tensor, axis), kept)
    return _Term(tensor, tuple(label for label in labels if label in needed))


def _product(left: _Term, right: _Term, needed: set[str], sizes: dict[str, Size]) -> _Term:
    """Multiplies two terms and sums the common labels that nothing else needs."""
    common = [label for label in left.labels if label in right.labels]
    summed = [label for label in common if label not in needed]
    batch = [label for label in common if label in needed]
    rows = [label for label in left.labels if label not in common]
    columns = [label for label in right.labels if label not in common]
    labels = (*batch, *rows, *columns)
    if not summed:
        x = _arranged(left, [batch, rows], sizes)
        y = _arranged(right, [batch, columns], sizes)
        x = reshape(x, (*x.sizes, *[1] * len(columns)))
        y = reshape(y, (*y.sizes[: len(batch)], *[1] * len(rows), *y.sizes[len(batch) :]))
        return _Term(mul(x, y), labels)
    x = _merged(_arranged(left, [batch, rows, summed], sizes), len(batch), len(rows))
    y = _merged(_arranged(right, [batch, summed, columns], sizes), len(batch), len(summed))
    return _Term(reshape(matmul(x, y), [sizes[label] for label in labels]), labels)


def _arranged(term: _Term, groups: list[list[str]], sizes: dict[str, Size]) -> Tensor:
    """Brings axes into the order of groups of labels, and to the sizes of their labels."""
    order = [label for group in groups for label in group]
    tensor = permute(term.tensor, [term.labels.index(label) for label in order])
    return broadcast_to(tensor, [sizes[label] for label in order])


def _merged(x: Tensor, batch: int, first: int) -> Tensor:
    """Merges axes into [..., m, n]: `first` of them after the batch, and the others."""
    split = batch + first
    return reshape(x, (*x.sizes[:batch], product(x.sizes[batch:split]), product(x.sizes[split:])))
