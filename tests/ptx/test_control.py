"""Branches, barriers, the text of a kernel, and what is counted of instructions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptx import Buffer, Fault, Grid, launch, parse
from ptx.programs import HEAD, kernel, run

STORE = """
    mad.wide.u32 %rd1, %i, 4, %rd30;
    st.global.u32 [%rd1], %r1;
"""


def _made(body: str, declared: str = "") -> np.ndarray[Any, Any]:
    made = Buffer.made((64,), np.uint32)
    run(body + STORE, [made], threads=64, declared=declared)
    return made.array


def test_threads_part_and_meet_again() -> None:
    """Each thread counts to its number; what follows is executed once by each warp."""
    body = """
    mov.u32 %r1, 0;
$LOOP:
    setp.ge.u32 %p1, %r1, %i;
    @%p1 bra $DONE;
    add.u32 %r1, %r1, 1;
    bra.uni $LOOP;
$DONE:
    mul.lo.s32 %r1, %r1, 2;
"""
    made = Buffer.made((64,), np.uint32)
    counts = run(body + STORE, [made], threads=64)
    np.testing.assert_array_equal(made.array, np.arange(64) * 2)
    assert counts.instructions["mul.lo.s32"] == 2
    assert counts.instructions["add.u32"] == 31 + 63
    assert counts.instructions["st.global.u32"] == 2


def test_both_ways_of_a_branch() -> None:
    body = """
    and.b32 %r2, %i, 1;
    setp.eq.s32 %p1, %r2, 0;
    @!%p1 bra $ODD;
    mov.u32 %r1, 10;
    bra $END;
$ODD:
    mov.u32 %r1, 20;
$END:
    add.u32 %r1, %r1, %r2;
"""
    np.testing.assert_array_equal(_made(body), np.tile([10, 21], 32))


def test_instructions_under_a_condition() -> None:
    body = (
        "mov.u32 %r1, 1; setp.gt.u32 %p1, %i, 40; @%p1 mov.u32 %r1, 2; @!%p1 add.u32 %r1, %r1, 4;"
    )
    np.testing.assert_array_equal(_made(body), np.where(np.arange(64) > 40, 2, 5))


def test_blocks_that_do_not_run_together_give_the_same() -> None:
    made = [Buffer.made((96 * 7,), np.uint32) for _ in range(2)]
    body = "mov.u32 %r1, %i; bar.sync 0;" + STORE
    for buffer, lanes in zip(made, (4096, 1), strict=True):
        run(body, [buffer], blocks=7, threads=96, lanes=lanes)
        np.testing.assert_array_equal(buffer.array, np.arange(96 * 7))


def test_a_block_may_wait_for_another() -> None:
    """Threads that ask again and again do not keep those from running that they wait for."""
    body = """
    setp.eq.s32 %p1, %r39, 1;
    @%p1 bra $WRITE;
$ASK:
    ld.acquire.gpu.global.u32 %r1, [%rd31];
    setp.eq.s32 %p2, %r1, 0;
    @%p2 bra $ASK;
    bra $END;
$WRITE:
    mov.u32 %r1, 5;
    setp.eq.s32 %p3, %j, 0;
    @%p3 st.release.gpu.global.u32 [%rd31], %r1;
$END:
"""
    made, flag = Buffer.made((64,), np.uint32), Buffer(np.zeros(1, np.uint32))
    run(body + STORE, [made, flag], blocks=2)
    assert (made.array == 5).all()


def test_barriers_that_some_threads_miss() -> None:
    body = "setp.gt.s32 %p1, %i, 40; @%p1 bra $END; bar.sync 0; $END:"
    with pytest.raises(Fault, match="barrier"):
        run(body, [], threads=64)
    # All of them come, to one or another.
    run(body.replace("$END:", "bra $REST; $END: bar.sync 0; $REST:"), [], threads=64)


def test_endless_loops_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ptx.machine.LONGEST", 1000)
    with pytest.raises(Fault, match="no end"):
        run("$L: setp.eq.s32 %p1, %i, 99; @!%p1 bra $L;", [])


def test_a_call_that_does_not_fit_is_refused() -> None:
    with pytest.raises(Fault, match="64 threads, but the kernel is for 32"):
        launch(kernel("", 0, threads=32), Grid(1, 64), [])
    with pytest.raises(Fault, match="1 parameters, 0 arguments"):
        launch(kernel("", 1), Grid(1, 32), [])


def test_local_memory_and_tables() -> None:
    """Each thread has its own local memory; tables of the module can be read."""
    declared = ".global .align 4 .u32 table[4] = {11, 22, 33, 44};"
    body = """
    .local .align 16 .b8 depot[16];
    mov.u64 %rd3, depot;
    cvta.local.u64 %rd4, %rd3;
    st.u32 [%rd4+4], %i;
    ld.local.u32 %r2, [%rd3+4];
    and.b32 %r3, %i, 3;
    mov.u64 %rd5, table;
    mad.wide.u32 %rd5, %r3, 4, %rd5;
    ld.global.nc.u32 %r4, [%rd5];
    add.s32 %r1, %r2, %r4;
"""
    found = _made(body, declared=declared)
    np.testing.assert_array_equal(found, np.arange(64) + np.tile([11, 22, 33, 44], 16))


def test_text() -> None:
    """Several kernels, with variables of their own and of the module; comments; scopes."""
    text = f"""{HEAD}
    // a comment
    .extern .shared .align 16 .b8 dynamic[];
    .visible .entry first(.param .u64 first_param_0, .param .u64 first_param_1)
    .maxntid 256, 1, 1
    {{
        .reg .b32 %r<3>;
        .shared .align 8 .b8 own[24];
        {{ .reg .pred q; @!%p1 bra L; }}
    L:  add.s32 %r1, %r2, -1; /* more */
    }}
    .global .align 4 .u32 late = 7;
    .visible .entry second() {{ ret; }}
    """
    first, second = parse(text)
    assert (first.name, first.threads, second.threads) == ("first", 256, 1024)
    assert first.parameters == [("first_param_0", 8), ("first_param_1", 8)]
    assert first.registers == {"%r0": 32, "%r1": 32, "%r2": 32, "q": 1}
    assert [i.name for i in first.code] == ["bra", "add.s32"]
    assert (first.code[0].guard, first.code[0].is_negated) == ("%p1", True)
    assert first.labels == {"L": 1}
    assert first.variables["own"].nbytes == 24
    assert first.variables["dynamic"].nbytes == 0
    assert set(second.variables) == {"dynamic", "late"}
    assert second.variables["late"].data == (7).to_bytes(4, "little")
