"""Limits of time and memory for chat templates, which come from strangers.

A template is a program: loops, macros, operators and the methods of `str`. Each of these passes
through a hook here, in whatever thread it runs, and is charged to the `Budget` of the rendering:

- a step of a loop, a call and a filter look at the processor time that the thread has used;
- an operation whose result can be much larger than its operands (`'a' * 10**10`, `center`, `%`,
  `batch`, ...) is refused by the size that the result would have, before it is computed;
- a value that is made, and text that is printed, counts towards the memory of the rendering;
- a container counts as long as its text: `[a, a]` in a loop doubles it at each step without
  needing memory, until it is printed or compared.
"""

from __future__ import annotations

import contextvars
import functools
import itertools
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set, ValuesView
from typing import Any, TypeAlias

Value: TypeAlias = Any
"""A value of a template, or what jinja2 makes of one; any operation may be tried with it."""

Given: TypeAlias = Sequence[Value]
"""The arguments of a method or a filter."""

MAX_SOURCE = 1 << 20  # characters of a template; long ones on the hub have 50,000
MAX_TOKENS = 60_000  # words and signs of a template, which take 2 s and 0.2 GB to read
MAX_TIME_S = 3.0  # of the processor; real templates take milliseconds
MAX_DEPTH = 100  # calls within calls; Python's own limit is about 150 macros
# Characters of one value, and of all values and texts that a rendering makes; each message adds to
# them, as templates repeat what they are given, and some collect it in a loop.
MAX_VALUE, VALUE_FACTOR = 1 << 22, 8
MAX_TOTAL, TOTAL_FACTOR = 1 << 26, 2048
ITEM = 8  # what an entry of a container counts, besides its own size
INT_FACTOR = 64  # for the bits of integers, whose operations take more than linear time

_CONTAINERS = (Mapping, list, tuple, Set, ValuesView)
# A width or a precision in a format: `%08d`, `%.3f`, `{:>20}`, `{:,.2f}`.
_WIDTH = re.compile(r"(?:%(?:\([^)]*\))?[-#0 +]*|:[^{}]{0,6}?|\.)(\d+)")
_NESTED = re.compile(r"\{[^{}]*\{|%[^a-zA-Z%]*\*")  # a width that is an argument
_budget: contextvars.ContextVar[Budget] = contextvars.ContextVar("budget of a template")


class Budget:
    """What one rendering may still use.

    Args:
        given: The variables of the template; the limits grow with them.
    """

    def __init__(self, given: Mapping[str, object]) -> None:
        self._sizes: dict[int, tuple[object, int]] = {}
        self._largest = 1 << 62
        size = self.size(given)
        self._largest = MAX_VALUE + VALUE_FACTOR * size
        self._left = MAX_TOTAL + TOTAL_FACTOR * size
        self._steps = 0
        self._end = time.thread_time() + MAX_TIME_S
        self.depth = 0

    def step(self) -> None:
        """Counts a step, and looks at the time now and then."""
        self._steps += 1
        if self._steps % 32 == 0 and time.thread_time() > self._end:
            raise RuntimeError(f"it takes more than {MAX_TIME_S:g} s")

    def expect(self, size: int) -> None:
        """Refuses a value of more than the largest size, before it is made."""
        if size > self._largest:
            raise MemoryError(f"it makes a value of more than {self._largest} characters")

    def take(self, size: int) -> None:
        """Counts new memory."""
        self._left -= size
        if self._left < 0:
            raise MemoryError("it makes too many or too large values and texts")

    def size(self, value: object) -> int:
        """Returns about how many characters the text of a value has.

        A container is measured once, so that one that is in itself many times costs no time; it
        cannot change, as templates have no operation that changes one.
        """
        if isinstance(value, (str, bytes)):
            return len(value) + ITEM
        if isinstance(value, int):
            return ITEM + (value.bit_length() * INT_FACTOR if abs(value) > 1 << 1024 else 0)
        if not isinstance(value, _CONTAINERS):
            return ITEM
        known = self._sizes
        if id(value) not in known:
            known[id(value)] = (value, 1 << 62)  # its size if it contains itself
            items = _entries(value)
            sizes = (known[id(i)][1] if id(i) in known else self.size(i) for i in items)
            known[id(value)] = (value, ITEM + sum(sizes))
        size = known[id(value)][1]
        self.expect(size)
        return size

    def made(self, value: Value) -> Value:
        """Counts a new value; returns it, or for an iterator one that counts its steps."""
        self.step()
        if isinstance(value, Iterator):
            return self.steps(value)
        self.expect(self.size(value))
        if isinstance(value, (str, bytes)):
            self.take(len(value))
        elif isinstance(value, _CONTAINERS):
            self.take(ITEM * len(value))
        return value

    def steps(self, iterator: Iterator[Value]) -> Iterator[Value]:
        """Yields what an iterator yields, and counts."""
        for value in iterator:
            self.step()
            yield value


def _entries(value: Value) -> Iterable[object]:
    is_map = isinstance(value, Mapping)
    return itertools.chain.from_iterable(value.items()) if is_map else value


def with_budget(given: Mapping[str, object], run: Callable[[], str]) -> str:
    """Runs something with a new budget; that of a rendering around it is put back afterwards."""
    token = _budget.set(Budget(given))
    try:
        return run()
    finally:
        _budget.reset(token)


# ---- how large a result would be -----------------------------------------------------------------


def _largest_int(values: Iterable[object]) -> int:
    return max((abs(v) for v in values if isinstance(v, int)), default=0)


def _widths(budget: Budget, owner: Value, given: Given) -> int:
    return _largest_int(given)


def _tabs(budget: Budget, owner: Value, given: Given) -> int:
    return len(owner) * max(_largest_int(given), 8)


def _replaced(budget: Budget, owner: Value, given: Given) -> int:
    old, new = given[0], given[1]
    return len(owner) + owner.count(old) * len(new)


def _joined(budget: Budget, owner: Value, given: Given) -> int:
    return budget.size(given[0]) + len(owner) * len(given[0])


def _translated(budget: Budget, owner: Value, given: Given) -> int:
    return len(owner) * max(map(budget.size, given[0].values()), default=0)


def _formatted(budget: Budget, owner: Value, given: Value) -> int:
    text = owner.decode("latin-1") if isinstance(owner, bytes) else str(owner)
    fields = text.count("%") + text.count("{")
    given = given if isinstance(given, tuple) else (given,)
    values = [*given, *itertools.chain(*(v.values() for v in given if isinstance(v, Mapping)))]
    size = sum(map(budget.size, values))
    if _NESTED.search(text):
        size += _largest_int(values)
    return len(text) + sum(int(width) for width in _WIDTH.findall(text)) + fields * size


# Methods of `str`, `bytes` and `int` by name, for what is called on and the arguments.
_METHODS: dict[str, Callable[[Budget, Value, Given], int]] = {
    **dict.fromkeys(("center", "ljust", "rjust", "zfill", "to_bytes"), _widths),
    **dict.fromkeys(("format", "format_map"), _formatted),
    "expandtabs": _tabs,
    "replace": _replaced,
    "join": _joined,
    "translate": _translated,
}


def _indented(budget: Budget, owner: Value, given: Given) -> int:
    widths = [len(v) if isinstance(v, str) else v for v in given] or [4]
    return budget.size(owner) + (str(owner).count("\n") + 1) * _largest_int(widths)


def _squared(budget: Budget, owner: Value, given: Given) -> int:
    return sum(map(budget.size, (owner, *given))) ** 2 // INT_FACTOR


def _many(budget: Budget, owner: Value, given: Given) -> int:
    return ITEM * _largest_int(given)


def _joined_filter(budget: Budget, owner: Value, given: Given) -> int:
    return _joined(budget, str(given[0]) if given else "", [owner])


def _replaced_filter(budget: Budget, owner: Value, given: Given) -> int:
    budget.size(owner)
    return _replaced(budget, str(owner), [str(given[0]), str(given[1])])


def _summed(budget: Budget, owner: Value, given: Given) -> int:
    adds_lists = any(isinstance(value, (list, tuple)) for value in given)
    return _squared(budget, owner, given) if adds_lists else 0


def _rounded(budget: Budget, owner: Value, given: Given) -> int:
    return _largest_int(given) * INT_FACTOR * INT_FACTOR


def _json(budget: Budget, owner: Value, given: Given) -> int:
    """Each entry stands on a line of its own if there is an indent."""
    size, widths = budget.size(owner), [len(v) if isinstance(v, str) else v for v in given]
    return size + _largest_int(widths) * (_depth(owner) + 1) * size // ITEM


def _depth(value: Value) -> int:
    if not isinstance(value, _CONTAINERS):
        return 0
    return 1 + max(map(_depth, _entries(value)), default=0)


# Filters by name. Those that are squared take more than linear time, or repeat their arguments.
_FILTERS: dict[str, Callable[[Budget, Value, Given], int]] = {
    **dict.fromkeys(("pprint", "striptags", "urlize", "wordwrap", "xmlattr"), _squared),
    **dict.fromkeys(("batch", "slice"), _many),
    "center": _widths,
    "format": _formatted,
    "indent": _indented,
    "join": _joined_filter,
    "replace": _replaced_filter,
    "round": _rounded,
    "sum": _summed,
    "tojson": _json,
}


def _product(left: Value, right: Value) -> int:
    if isinstance(left, int) and isinstance(right, int):
        return (left.bit_length() + right.bit_length()) * INT_FACTOR
    for sequence, count in ((left, right), (right, left)):
        if isinstance(count, int) and isinstance(sequence, (str, bytes, list, tuple)):
            return len(sequence) * max(count, 0) * (1 if isinstance(sequence, str) else ITEM)
    return 0


def _quotient(left: Value, right: Value) -> int:
    both = isinstance(left, int) and isinstance(right, int)
    return left.bit_length() * right.bit_length() // INT_FACTOR if both else 0


def _power(left: Value, right: Value) -> int:
    both = isinstance(left, int) and isinstance(right, int)
    return left.bit_length() * max(right, 0) * INT_FACTOR if both else 0


_OPERATORS: dict[str, Callable[[Value, Value], int]] = {
    "*": _product,
    "**": _power,
    **dict.fromkeys(("/", "//", "%"), _quotient),
}


class Opaque:
    """What a namespace is printed as: its values are not shown, as it may hold itself."""

    def __repr__(self) -> str:
        return "<Namespace>"


# ---- the hooks -----------------------------------------------------------------------------------


class Limited:
    """Methods of a sandboxed environment of Jinja; a class of both is made by the caller."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "**", "%"))

    def call(self, context: Value, function: Value, /, *args: Value, **kwargs: Value) -> Value:
        """Calls a function, method or macro."""
        if getattr(function, "__self__", None) is self:
            return function(*args)  # one of the methods below
        budget = _budget.get()
        method = getattr(function, "__wrapped__", function)  # Jinja wraps str.format
        owner, name = getattr(method, "__self__", None), getattr(method, "__name__", "")
        if type(method).__name__ == "LoopContext":  # the next level of a recursive loop
            args = (self.counted(args[0]), *args[1:])
        if isinstance(owner, (str, bytes, int)) and name in _METHODS:
            args = _listed(args) if name == "join" else args
            budget.expect(_METHODS[name](budget, owner, (*args, *kwargs.values())))
        budget.depth += 1
        try:
            if budget.depth > MAX_DEPTH:
                raise RecursionError(f"more than {MAX_DEPTH} calls within calls")
            made = super().call(context, function, *args, **kwargs)  # type: ignore[misc]
            return budget.made(made)
        finally:
            budget.depth -= 1

    def call_binop(self, context: Value, operator: str, left: Value, right: Value) -> Value:
        """Computes `left operator right`."""
        budget = _budget.get()
        if operator == "%" and isinstance(left, (str, bytes)):
            budget.expect(_formatted(budget, left, right))
        elif operator in _OPERATORS:
            budget.expect(_OPERATORS[operator](left, right))
        made = super().call_binop(context, operator, left, right)  # type: ignore[misc]
        return budget.made(made)

    def concat(self, pieces: Iterable[str]) -> str:
        """Joins the pieces of a text."""
        budget, kept = _budget.get(), []
        for piece in pieces:
            if not isinstance(piece, str):  # a filter block may make anything
                raise TypeError(f"expected a text, got {type(piece).__name__}")
            budget.take(len(piece))
            kept.append(piece)
        return "".join(kept)

    def counted(self, iterable: Iterable[Value]) -> Iterator[Value]:
        """Iterates for a loop."""
        return _budget.get().steps(iter(iterable))

    def printed(self, value: Value) -> Value:
        """Passes a value that becomes text."""
        budget = _budget.get()
        budget.step()
        budget.take(budget.size(value))
        return value

    def literal(self, value: Value) -> Value:
        """Passes a container that the template writes down."""
        return _budget.get().made(value)


def _listed(args: tuple[Value, ...]) -> tuple[Value, ...]:
    """Makes a list of an iterator, which has no length."""
    return tuple(list(value) if isinstance(value, Iterator) else value for value in args)


def limited_filter(name: str, function: Callable[..., Value]) -> Callable[..., Value]:
    """Returns a filter of Jinja that counts."""
    first = int(hasattr(function, "jinja_pass_arg"))  # the context, or the environment
    predicted = _FILTERS.get(name, lambda budget, owner, given: 0)

    @functools.wraps(function)  # keeps the mark for the context
    def filtered(*args: Value, **kwargs: Value) -> Value:
        budget = _budget.get()
        args = (*args[:first], *_listed(args[first:])) if name == "join" else args
        owner, given = args[first], (*args[first + 1 :], *kwargs.values())
        for value in (owner, *given):
            budget.size(value)
        budget.expect(predicted(budget, owner, given))
        return budget.made(function(*args, **kwargs))

    return filtered
