"""Ops and graphs: what an op is, its type rules, and the graph that tracing records.

- `record`: the description of an op. `registry`: the decorator that makes it, and all of them.
- `calling`: how a call is dispatched to the innermost interpreter.
- `rules`: type rules. `affine`: index arithmetic of views. `ir`: the graph.
"""

from maxmod.op.calling import (
    Interpreter,
    bind,
    freeze,
    innermost,
    interpreter,
    register_bottom,
)
from maxmod.op.record import Kind, Lowering, Meaning, Op, Operands, Signature, TypeRule
from maxmod.op.registry import (
    FUNCTIONS,
    REGISTRY,
    OpFunction,
    call,
    foreign_hint,
    function,
    is_op,
    lookup,
    op,
    op_of,
)

__all__ = [
    "FUNCTIONS",
    "REGISTRY",
    "Interpreter",
    "Kind",
    "Lowering",
    "Meaning",
    "Op",
    "OpFunction",
    "Operands",
    "Signature",
    "TypeRule",
    "bind",
    "call",
    "foreign_hint",
    "freeze",
    "function",
    "innermost",
    "interpreter",
    "is_op",
    "lookup",
    "op",
    "op_of",
    "register_bottom",
]
