"""What the interpreter refuses of accesses to memory, and what it counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ptx import Buffer, Counts, Fault
from ptx.programs import run

SHARED = ".shared .align 16 .b8 memory[4096];"


def _count(body: str, args: list[Any] | None = None, **options: Any) -> Counts:
    return run(body, args or [], declared=SHARED, **options)


# ---- bounds, alignment, contents -----------------------------------------------------------------


def test_accesses_outside_of_arrays() -> None:
    x = np.arange(32, dtype=np.float32)
    body = "mad.wide.u32 %rd1, %i, 4, %rd30; ld.global.f32 %f1, [%rd1+OFFSET];"
    _count(body.replace("OFFSET", "0"), [x])
    for offset, place in (("4", "byte 128"), ("-4", "byte -4"), ("100000000", "outside of global")):
        with pytest.raises(Fault, match=place):
            _count(body.replace("OFFSET", offset), [x])
    with pytest.raises(Fault, match=r"block 0, thread 31: ld\.global\.f32"):
        _count(body.replace("OFFSET", "4"), [x])


def test_inputs_are_not_written() -> None:
    x = np.arange(32, dtype=np.float32)
    body = "mad.wide.u32 %rd1, %i, 4, %rd30; mov.f32 %f1, 0f00000000; st.global.f32 [%rd1], %f1;"
    with pytest.raises(Fault, match=r"writes where it must not, byte 0 of float32\[32\]"):
        _count(body, [x])
    _count(body, [Buffer(x)])
    assert not x.any()


def test_addresses_that_are_not_aligned() -> None:
    x = np.arange(256, dtype=np.float32)
    body = "mad.wide.u32 %rd1, %i, STEP, %rd30; ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd1];"
    _count(body.replace("STEP", "16"), [x])
    with pytest.raises(Fault, match="not aligned to 16 bytes: block 0, thread 1"):
        _count(body.replace("STEP", "8"), [x])


def test_results_are_written_before_anything_reads() -> None:
    made = Buffer.made((32,), np.float32)
    body = "mad.wide.u32 %rd1, %i, 4, %rd30; ld.global.f32 %f1, [%rd1];"
    with pytest.raises(Fault, match="reads what nobody wrote, byte 0"):
        _count(body, [made])
    _count("mad.wide.u32 %rd1, %i, 4, %rd30; st.global.u32 [%rd1], %i;" + body, [made])


def test_shared_memory_starts_undefined_and_ends() -> None:
    store = "mov.u32 %r1, memory; mad.lo.s32 %r1, %i, 4, %r1; st.shared.u32 [%r1], %i;"
    _count(store + "ld.shared.u32 %r2, [%r1];")
    with pytest.raises(Fault, match="shared memory: reads what nobody wrote"):
        _count(store + "ld.shared.u32 %r2, [%r1+128];")
    with pytest.raises(Fault, match="outside of shared memory, byte 4096 of 4096"):
        _count("mov.u32 %r1, memory; st.shared.u32 [%r1+4096], %i;", threads=1)


def test_dynamic_shared_memory_has_the_size_of_the_launch() -> None:
    declared = ".extern .shared .align 16 .b8 dynamic[];"
    body = "mov.u32 %r1, dynamic; mad.lo.s32 %r1, %i, 4, %r1; st.shared.u32 [%r1], %i;"
    run(body, [], declared=declared, shared_nbytes=128)
    with pytest.raises(Fault, match="outside of shared memory, byte 124 of 124"):
        run(body, [], declared=declared, shared_nbytes=124)


def test_loads_past_the_caches_need_data_of_an_earlier_launch() -> None:
    """ld.global.nc may give what was there before this launch wrote."""
    x = Buffer(np.zeros(32, np.uint32))
    load = "mad.wide.u32 %rd1, %i, 4, %rd30; ld.global.nc.u32 %r1, [%rd1];"
    _count(load, [x])
    with pytest.raises(Fault, match="past the caches"):
        _count("mad.wide.u32 %rd1, %i, 4, %rd30; st.global.u32 [%rd1], %i; bar.sync 0;" + load, [x])


# ---- asynchronous copies -------------------------------------------------------------------------

COPY = """
    mov.u32 %r1, memory;
    mad.lo.s32 %r1, %i, 16, %r1;
    mad.wide.u32 %rd1, %i, 16, %rd30;
    and.b32 %r2, %i, 1;
    mul.lo.s32 %r2, %r2, 16;
    cp.async.cg.shared.global.L2::128B [%r1], [%rd1], 16, %r2;
"""
SHOW = """
    ld.shared.v4.u32 {%r3, %r4, %r5, %r6}, [%r1];
    mad.wide.u32 %rd2, %i, 16, %rd31;
    st.global.v4.u32 [%rd2], {%r3, %r4, %r5, %r6};
"""


def test_copies_arrive_when_a_thread_waits() -> None:
    x, made = np.arange(128, dtype=np.uint32), Buffer.made((32, 4), np.uint32)
    _count(COPY + "cp.async.wait_all;" + SHOW, [x, made])
    wanted = x.reshape(32, 4).copy()
    wanted[::2] = 0  # copies of 0 bytes
    np.testing.assert_array_equal(made.array, wanted)
    with pytest.raises(Fault, match="reads what nobody wrote"):
        _count(COPY + SHOW, [x, made])


def test_groups_of_copies() -> None:
    x, made = np.arange(128, dtype=np.uint32), Buffer.made((32, 4), np.uint32)
    later = "cp.async.commit_group;" + COPY.replace("memory;", "memory; add.s32 %r1, %r1, 2048;")
    later += "cp.async.commit_group; cp.async.wait_group COUNT; sub.s32 %r1, %r1, BACK;"
    for count, back, is_there in (("1", "2048", True), ("1", "0", False), ("0", "0", True)):
        body = COPY + later.replace("COUNT", count).replace("BACK", back) + SHOW
        if is_there:
            _count(body, [x, made])
        else:
            with pytest.raises(Fault, match="reads what nobody wrote"):
                _count(body, [x, made])


# ---- races ---------------------------------------------------------------------------------------

WRITE = "mov.u32 %r1, memory; mad.lo.s32 %r2, %j, 4, %r1; st.shared.u32 [%r2], %j;"
READ = "xor.b32 %r3, %j, OTHER; mad.lo.s32 %r3, %r3, 4, %r1; ld.shared.u32 %r4, [%r3];"


@pytest.mark.parametrize("other", ["1", "32"], ids=["in a warp", "in another warp"])
def test_a_barrier_is_missing(other: str) -> None:
    read = READ.replace("OTHER", other)
    first = "mov.u32 %r1, memory; mad.lo.s32 %r2, %j, 4, %r1; st.shared.u32 [%r2], 0; bar.sync 0;"
    with pytest.raises(Fault, match="a race with thread"):  # read after write
        _count(WRITE + read, threads=64)
    _count(WRITE + "bar.sync 0;" + read, threads=64)
    with pytest.raises(Fault, match="a race with thread"):  # write after read
        _count(first + read + WRITE, threads=64)
    _count(first + read + "bar.sync 0;" + WRITE, threads=64)


def test_a_barrier_of_the_warp_orders_threads() -> None:
    body = WRITE + "bar.warp.sync -1;" + READ
    _count(body.replace("OTHER", "1"), threads=64)
    with pytest.raises(Fault, match="a race"):
        _count(body.replace("OTHER", "32"), threads=64)


def test_two_threads_write_one_word() -> None:
    body = "mov.u32 %r1, memory; and.b32 %r2, %j, 15; mad.lo.s32 %r2, %r2, 4, %r1;"
    with pytest.raises(Fault, match="two threads write here"):
        _count(body + "st.shared.u32 [%r2], %j;")
    _count(body + "st.shared.u32 [%r2], 7;")  # the same number


def test_threads_of_two_warps_write_one_word() -> None:
    body = """
    setp.lt.s32 %p1, %j, 32;
    @%p1 bra $FIRST;
    mov.u32 %r1, OTHER;
    st.shared.u32 [memory], %r1;
    bra $END;
$FIRST:
    mov.u32 %r1, 5;
    st.shared.u32 [memory], %r1;
$END:
    """
    with pytest.raises(Fault, match="a race with thread"):
        _count(body.replace("OTHER", "6"), threads=64)
    _count(body.replace("OTHER", "5"), threads=64)


def test_many_readers_are_remembered() -> None:
    """All threads read one word, which the last of them then writes."""
    body = """
    setp.eq.s32 %p1, %j, 0;
    @%p1 st.shared.u32 [memory], %j;
    bar.sync 0;
    ld.shared.u32 %r1, [memory];
    setp.eq.s32 %p2, %j, WRITER;
    @%p2 st.shared.u32 [memory], %r1;
    """
    for writer in ("0", "17", "31"):
        with pytest.raises(Fault, match="a race"):
            _count(body.replace("WRITER", writer))
        _count(
            body.replace("WRITER", writer).replace("setp.eq.s32 %p2", "bar.sync 0; setp.eq.s32 %p2")
        )


def test_neighbours_write_halves_of_a_word() -> None:
    body = "mov.u32 %r1, memory; mad.lo.s32 %r2, %j, 2, %r1; cvt.u16.u32 %h1, %j;"
    _count(body + "st.shared.u16 [%r2], %h1;")


LAST = """
    mad.wide.u32 %rd1, %i, 4, %rd30;
    st.global.u32 [%rd1], %i;
    FENCE
    bar.sync 0;
    setp.ne.s32 %p1, %j, 0;
    @%p1 bra $REST;
    atom.global.add.u32 %r1, [%rd31], 1;
    st.shared.u32 [memory], %r1;
$REST:
    bar.sync 0;
    ld.shared.u32 %r2, [memory];
    setp.ne.s32 %p2, %r2, WAITED;
    @%p2 bra $END;
    mad.wide.u32 %rd2, %j, 4, %rd30;
    ld.global.u32 %r3, [%rd2];
    mad.wide.u32 %rd3, %j, 4, %rd32;
    st.global.u32 [%rd3], %r3;
$END:
"""


@pytest.mark.parametrize("lanes", [1, 4096])
def test_the_last_block_reads_results_of_others(lanes: int) -> None:
    """With a fence before the atomic, and only if it is the last."""

    def launched(fence: str, waited: int) -> Any:
        made, result = (Buffer.made((n,), np.uint32) for n in (128, 32))
        counter = Buffer(np.zeros(1, np.uint32))
        body = LAST.replace("FENCE", fence).replace("WAITED", str(waited))
        _count(body, [made, counter, result], blocks=4, lanes=lanes)
        return result.array

    np.testing.assert_array_equal(launched("membar.gl;", 3), np.arange(32))
    with pytest.raises(Fault, match="a race with thread 0 of block 0"):
        launched("", 3)


def test_blocks_that_write_one_word() -> None:
    made = Buffer.made((64,), np.uint32)
    body = "mad.wide.u32 %rd1, %j, 4, %rd30; st.global.u32 [%rd1], %i;"
    for lanes, what in ((1, "a race with"), (4096, "two threads write here")):
        with pytest.raises(Fault, match=what):
            _count(body, [made], blocks=2, lanes=lanes)


def test_atomics() -> None:
    sums, floats = Buffer(np.zeros(2, np.uint32)), Buffer(np.zeros(1, np.float32))
    body = """
    atom.global.add.u32 %r1, [%rd30], %i;
    red.global.max.u32 [%rd30+4], %i;
    mov.f32 %f1, 0f3F000000;
    atom.global.add.f32 %f2, [%rd31], %f1;
    """
    _count(body, [sums, floats], blocks=2)
    assert sums.array.tolist() == [64 * 63 // 2, 63]
    assert floats.array.tolist() == [32.0]
    swapped = Buffer(np.array([7], np.uint32))
    _count("atom.global.cas.b32 %r1, [%rd30], 7, 9;", [swapped])
    assert swapped.array.tolist() == [9]


# ---- costs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "width", "used", "ideal"),
    [
        (4, "f32", 4, 4),
        (8, "f32", 8, 4),
        (32, "f32", 32, 4),
        (128, "f32", 32, 4),
        (0, "f32", 1, 1),
        (16, "v4.f32", 16, 16),
        (2, "u16", 2, 2),
    ],
)
def test_sectors(step: int, width: str, used: int, ideal: int) -> None:
    x = np.zeros(2048, np.float32)
    names = {"f32": "%f1", "v4.f32": "{%f1, %f2, %f3, %f4}", "u16": "%h1"}[width]
    counts = _count(
        f"mad.wide.u32 %rd1, %i, {step}, %rd30; ld.global.{width} {names}, [%rd1];", [x]
    )
    (access,) = counts.accesses.values()
    assert (access.requests, access.used, access.ideal) == (1, used, ideal)
    assert counts.sector_ratio == used / ideal


@pytest.mark.parametrize(
    ("step", "width", "used", "ideal"),
    [
        (4, "u32", 1, 1),
        (8, "u32", 2, 1),
        (128, "u32", 32, 1),
        (0, "u32", 1, 1),
        (132, "u32", 1, 1),
        (2, "u16", 1, 1),
        (8, "v2.u32", 2, 2),
        (16, "v4.u32", 4, 4),
        (64, "v4.u32", 16, 4),
        (80, "v4.u32", 4, 4),
    ],
)
def test_passes(step: int, width: str, used: int, ideal: int) -> None:
    """Banks are 4 bytes wide; a whole, a half or a quarter of a warp is served at a time."""
    declared = ".shared .align 16 .b8 memory[8192];"
    names = {"u32": "%r2", "u16": "%h1"}.get(width, "{%r2, %r3}")
    names = "{%r2, %r3, %r4, %r5}" if width == "v4.u32" else names
    body = """
    mov.u32 %r1, memory;
    mov.u32 %r6, 0;
$FILL:
    add.s32 %r7, %r1, %r6;
    mad.lo.s32 %r7, %j, 4, %r7;
    st.shared.u32 [%r7], %j;
    add.s32 %r6, %r6, 128;
    setp.lt.s32 %p1, %r6, 8192;
    @%p1 bra $FILL;
    bar.sync 0;
    """
    body += f"mad.lo.s32 %r1, %i, {step}, %r1; ld.shared.{width} {names}, [%r1];"
    counts = run(body, [], declared=declared)
    (access,) = [a for a in counts.accesses.values() if a.instruction.parts[0] == "ld"]
    assert (access.requests, access.used, access.ideal) == (1, used, ideal)


def test_costs_of_several_warps_add_up() -> None:
    x = np.zeros(2048, np.float32)
    counts = _count("mad.wide.u32 %rd1, %i, 8, %rd30; ld.global.f32 %f1, [%rd1];", [x], threads=96)
    (access,) = counts.worst("global")
    assert (access.requests, access.used, access.ideal, access.ratio) == (3, 24, 12, 2.0)
    assert counts.sectors == 24
