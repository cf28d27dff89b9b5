"""Small programs in PTX for tests of the interpreter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ptx.counts import Counts
from ptx.machine import Grid, launch
from ptx.spaces import Buffer
from ptx.text import Kernel, parse

HEAD = ".version 8.8\n.target sm_90\n.address_size 64\n"
# %i is the number of the thread in the launch, %j in its block.
START = """
    .reg .b32 %i, %j, %r<40>;
    .reg .b64 %rd<40>;
    .reg .b16 %h<20>;
    .reg .f32 %f<20>;
    .reg .f64 %fd<20>;
    .reg .pred %p<20>;
    mov.u32 %j, %tid.x;
    mov.u32 %r39, %ctaid.x;
    mov.u32 %r38, %ntid.x;
    mad.lo.s32 %i, %r39, %r38, %j;
"""


def kernel(body: str, parameters: int, declared: str = "", threads: int = 1024) -> Kernel:
    """Returns a kernel whose parameters are in %rd30 and so on."""
    names = ", ".join(f".param .u64 k_param_{n}" for n in range(parameters))
    loads = "\n".join(f"    ld.param.u64 %rd{30 + n}, [k_param_{n}];" for n in range(parameters))
    text = f"{HEAD}{declared}\n.visible .entry k({names})\n.maxntid {threads}, 1, 1\n"
    (found,) = parse(f"{text}{{{START}{loads}\n{body}\n    ret;\n}}")
    return found


def run(
    body: str,
    args: Sequence[Any],
    *,
    blocks: int = 1,
    threads: int = 32,
    shared_nbytes: int = 0,
    declared: str = "",
    lanes: int = 4096,
) -> Counts:
    """Runs a program; see `kernel`."""
    grid = Grid(blocks, threads, shared_nbytes)
    return launch(kernel(body, len(args), declared), grid, args, lanes=lanes)


def elementwise(instruction: str, operands: Sequence[Any], result: Any) -> np.ndarray[Any, Any]:
    """Returns what an instruction gives for each element of its operands.

    Args:
        instruction: With {0}, {1} and so on for the operands, and {d} for the result.
        operands: Arrays of one length; bool for predicates.
        result: The NumPy type of the result.
    """
    lines: list[str] = []
    names = {"d": _load(lines, None, np.dtype(result), len(operands), "d")}
    for number, array in enumerate(operands):
        names[str(number)] = _load(lines, array, array.dtype, number, f"a{number}")
    text = instruction
    for name, register in names.items():
        text = text.replace("{" + name + "}", register)
    lines += [f"    {text};", *_store(np.dtype(result), len(operands), names["d"])]
    made = Buffer.made(operands[0].shape, np.uint8 if result == np.bool_ else result)
    given = [a.astype(np.uint8) if a.dtype == np.bool_ else a for a in operands]
    run("\n".join(lines), [*given, made], threads=len(operands[0]))
    return made.array.astype(np.bool_) if result == np.bool_ else made.array


def _load(lines: list[str], array: Any, dtype: np.dtype[Any], number: int, name: str) -> str:
    """Adds lines that declare a register, and load it unless it is the result."""
    is_predicate = dtype == np.bool_
    bits = 16 if is_predicate else 8 * dtype.itemsize
    register = f"%{name}"
    lines.append(f"    .reg .b{max(bits, 16)} {register};")
    if is_predicate:
        lines.append(f"    .reg .pred {register}p;")
    if array is not None:
        lines.append(f"    mad.wide.u32 %rd1, %i, {dtype.itemsize}, %rd{30 + number};")
        kind = "u8" if dtype.itemsize == 1 else f"b{bits}"
        kind = "s8" if dtype == np.int8 else kind
        lines.append(f"    ld.global.{kind} {register}, [%rd1];")
        if is_predicate:
            lines.append(f"    setp.ne.s16 {register}p, {register}, 0;")
    return f"{register}p" if is_predicate else register


def _store(dtype: np.dtype[Any], number: int, register: str) -> list[str]:
    width = dtype.itemsize
    lines = [f"    mad.wide.u32 %rd1, %i, {width}, %rd{30 + number};"]
    if dtype == np.bool_:
        lines.append(f"    selp.b16 %d, 1, 0, {register};")
        register = "%d"
    return [*lines, f"    st.global.b{8 * width} [%rd1], {register};"]
