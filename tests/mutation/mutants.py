"""Mutants: a source text with one operator, constant, condition or argument changed.

Python is read with `ast`, C by its tokens. What cannot change a result is left out: docstrings,
annotations, decorators, assertions, and whatever a `raise` says.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_PYTHON = {
    ast.Lt: ("<", "<="),
    ast.LtE: ("<=", "<"),
    ast.Gt: (">", ">="),
    ast.GtE: (">=", ">"),
    ast.Eq: ("==", "!="),
    ast.NotEq: ("!=", "=="),
    ast.Is: ("is", "is not"),
    ast.IsNot: ("is not", "is"),
    ast.In: ("in", "not in"),
    ast.NotIn: ("not in", "in"),
    ast.And: ("and", "or"),
    ast.Or: ("or", "and"),
    ast.Add: ("+", "-"),
    ast.Sub: ("-", "+"),
    ast.Mult: ("*", "//"),
    ast.FloorDiv: ("//", "*"),
    ast.Div: ("/", "*"),
    ast.Mod: ("%", "//"),
    ast.LShift: ("<<", ">>"),
    ast.RShift: (">>", "<<"),
    ast.BitAnd: ("&", "|"),
    ast.BitOr: ("|", "&"),
}
# Formatted C has a space on either side of an operator of two operands.
_C = {
    " < ": " <= ",
    " <= ": " < ",
    " > ": " >= ",
    " >= ": " > ",
    " == ": " != ",
    " != ": " == ",
    " && ": " || ",
    " || ": " && ",
    " + ": " - ",
    " - ": " + ",
    " * ": " + ",
    " / ": " * ",
    " % ": " / ",
    " += ": " -= ",
    " -= ": " += ",
    "(!": "(",
    "min(": "max(",
    "max(": "min(",
    "break;": "continue;",
    "continue;": "break;",
}
_C_TOKEN = re.compile("|".join(map(re.escape, _C)) + r"|(?<![\w.])\d+(?![\w.])")
_C_SKIPPED = re.compile(r"//.*|/\*(?s:.*?)\*/|^[ \t]*#[ \t]*(?:include|error|pragma|undef).*", re.M)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change of a source text: bytes `start` to `end` become `new`."""

    start: int
    end: int
    new: str

    def applied(self, source: bytes) -> bytes:
        """Returns the changed text."""
        return source[: self.start] + self.new.encode() + source[self.end :]

    def described(self, source: bytes) -> str:
        """Returns the line number, and the line before and after."""
        number = source.count(b"\n", 0, self.start)
        before, after = (
            b" ".join(text.split(b"\n")[number : number + 1 + source.count(b"\n", self.start, end)])
            for text, end in ((source, self.end), (self.applied(source), self.start))
        )
        return f"{number + 1}: {_short(before)}  ->  {_short(after)}"


def _short(line: bytes) -> str:
    return re.sub(r"\s+", " ", line.decode()).strip()


def mutants_of(path: str, source: bytes) -> list[Mutant]:
    """Returns every mutant of a file, in order."""
    if not path.endswith(".py"):
        return list(_of_c(source.decode("latin-1"), 0))
    found = set(_Python(source, "/codegen/" in path).mutants())
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.new))


def _of_c(text: str, offset: int) -> Iterator[Mutant]:
    text = _C_SKIPPED.sub(lambda match: " " * len(match[0]), text)
    for token in _C_TOKEN.finditer(text):
        new = _C.get(token[0]) or str(int(token[0]) + 1)
        yield Mutant(offset + token.start(), offset + token.end(), new)


class _Python:
    """The mutants of a Python file.

    Args:
        source: The file.
        holds_c: Whether its texts are C, and are changed as such.
    """

    def __init__(self, source: bytes, holds_c: bool) -> None:
        self._source = source
        self._holds_c = holds_c
        self._lines = [0, *(match.end() for match in re.finditer(rb"\n", source))]

    def mutants(self) -> Iterator[Mutant]:
        for node in _walk(ast.parse(self._source)):
            yield from self._of(node)

    def _of(self, node: ast.AST) -> Iterator[Mutant]:
        match node:
            case ast.Compare():
                for (left, right), op in zip(pairwise([node.left, *node.comparators]), node.ops):
                    yield self._between(left, op, right)
            case ast.BinOp() if type(node.op) in _PYTHON:
                yield self._between(node.left, node.op, node.right)
            case ast.BoolOp():
                for left, right in pairwise(node.values):
                    yield self._between(left, node.op, right)
            case ast.UnaryOp(op=ast.Not() | ast.USub()):
                yield Mutant(*self._span(node), self._text(node.operand))
            case ast.Constant():
                yield from self._of_constant(node)
            case ast.JoinedStr():
                yield from self._of_text(node)
            case ast.If() | ast.IfExp() | ast.While():
                yield Mutant(*self._span(node.test), f"not ({self._text(node.test)})")
            case ast.Call():
                yield from self._of_call(node)

    def _of_constant(self, node: ast.Constant) -> Iterator[Mutant]:
        if isinstance(node.value, str):
            yield from self._of_text(node)
        elif isinstance(node.value, bool):
            yield Mutant(*self._span(node), str(not node.value))
        elif isinstance(node.value, int):
            yield Mutant(*self._span(node), str(node.value + 1))
        elif isinstance(node.value, float):
            yield Mutant(*self._span(node), str(node.value * 2 or 1.0))

    def _of_text(self, node: ast.expr) -> Iterator[Mutant]:
        if self._holds_c:
            start, end = self._span(node)
            text = self._source[start:end].decode("latin-1")
            yield from _of_c(re.sub(r"\{[^{}]*\}", lambda m: "_" * len(m[0]), text), start)

    def _of_call(self, node: ast.Call) -> Iterator[Mutant]:
        for left, right in pairwise(node.args):
            if _are_alike(left, right) and self._text(left) != self._text(right):
                (a, b), (c, d) = self._span(left), self._span(right)
                between = self._source[b:c].decode()
                yield Mutant(a, d, self._text(right) + between + self._text(left))
        for keyword in node.keywords:
            if keyword.arg is not None:
                start, end = self._span(keyword)
                comma = re.compile(rb"\s*,").match(self._source, end)
                yield Mutant(start, comma.end() if comma else end, "")

    def _between(self, left: ast.AST, op: ast.AST, right: ast.AST) -> Mutant:
        old, new = _PYTHON[type(op)]
        start, end = self._span(left)[1], self._span(right)[0]
        at = self._source.index(old.encode(), start, end)
        return Mutant(at, at + len(old), new)

    def _span(self, node: ast.AST) -> tuple[int, int]:
        """Returns the first byte of a node and the one behind it."""
        assert isinstance(node, (ast.expr, ast.keyword))
        assert node.end_lineno is not None and node.end_col_offset is not None
        first = self._lines[node.lineno - 1] + node.col_offset
        return first, self._lines[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.AST) -> str:
        return self._source[slice(*self._span(node))].decode()


def _walk(node: ast.AST) -> Iterator[ast.AST]:
    """Yields the nodes whose change can change a result."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST) and not _is_skipped(child):
                yield child
                # Positions inside of an f-string are those of the whole before Python 3.12.
                if not isinstance(child, ast.JoinedStr):
                    yield from _walk(child)


def _are_alike(left: ast.expr, right: ast.expr) -> bool:
    """True if exchanging two arguments may give more than a TypeError."""
    if isinstance(left, ast.Constant) and isinstance(right, ast.Constant):
        return type(left.value) is type(right.value)
    return type(left) is type(right) and not isinstance(left, ast.Starred)


def _is_skipped(node: ast.AST) -> bool:
    is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    return is_text or isinstance(node, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom))
