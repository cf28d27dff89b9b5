"""Each family of instructions gives what the PTX ISA says."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from ptx import Buffer, Fault
from ptx.programs import elementwise, run

I32, U32, I64, U64 = np.int32, np.uint32, np.int64, np.uint64
F32, F64, F16 = np.float32, np.float64, np.float16
INF, NAN = np.inf, np.nan
BIG = 0x8000_0000_0000_0001

# (instruction, operands, result): the types of NumPy decide those of memory.
Case = tuple[str, list[Any], Any]


def a(dtype: Any, *values: Any) -> np.ndarray[Any, Any]:
    """Returns an array."""
    return np.array(values, dtype)


INTEGERS: list[Case] = [
    ("add.s32 {d}, {0}, {1}", [a(I32, 1, 2**31 - 1), a(I32, -3, 1)], a(I32, -2, -(2**31))),
    ("sub.u64 {d}, {0}, {1}", [a(U64, 1), a(U64, 2)], a(U64, 2**64 - 1)),
    ("mul.lo.s32 {d}, {0}, {1}", [a(I32, 65536, -3), a(I32, 65537, 5)], a(I32, 65536, -15)),
    ("mul.hi.s32 {d}, {0}, {1}", [a(I32, -1, 2**30), a(I32, 1, 8)], a(I32, -1, 2)),
    ("mul.hi.u64 {d}, {0}, {1}", [a(U64, BIG), a(U64, 6)], a(U64, 3)),
    ("mul.hi.s64 {d}, {0}, {1}", [a(I64, -1, 2**62), a(I64, 5, -12)], a(I64, -1, -3)),
    ("mul.wide.s32 {d}, {0}, {1}", [a(I32, -(2**31)), a(I32, 4)], a(I64, -(2**33))),
    ("mul.wide.u32 {d}, {0}, {1}", [a(U32, 2**31), a(U32, 4)], a(I64, 2**33)),
    ("mad.wide.u32 {d}, {0}, {1}, 5", [a(U32, 2**31), a(U32, 4)], a(I64, 2**33 + 5)),
    ("mad.lo.s32 {d}, {0}, {1}, {0}", [a(I32, 7), a(I32, -2)], a(I32, -7)),
    ("div.s32 {d}, {0}, {1}", [a(I32, -7, 7, 7), a(I32, 2, -2, 2)], a(I32, -3, -3, 3)),
    ("rem.s32 {d}, {0}, {1}", [a(I32, -7, 7, 7), a(I32, 2, -2, 2)], a(I32, -1, 1, 1)),
    ("div.u32 {d}, {0}, {1}", [a(U32, 2**32 - 1), a(U32, 2)], a(U32, 2**31 - 1)),
    ("min.s32 {d}, {0}, {1}", [a(I32, -1, 3), a(I32, 1, 2)], a(I32, -1, 2)),
    ("max.u32 {d}, {0}, {1}", [a(U32, 2**32 - 1), a(U32, 1)], a(U32, 2**32 - 1)),
    ("neg.s32 {d}, {0}", [a(I32, 5)], a(I32, -5)),
    ("abs.s32 {d}, {0}", [a(I32, -5, 5)], a(I32, 5, 5)),
    ("dp4a.s32.s32 {d}, {0}, {1}, 10", [a(U32, 0x01FF0203), a(U32, 0x01050403)], a(I32, 23)),
    ("dp4a.u32.s32 {d}, {0}, {1}, 0", [a(U32, 0xFF), a(U32, 0xFF)], a(I32, -255)),
]
BITS: list[Case] = [
    ("and.b32 {d}, {0}, 12", [a(U32, 10)], a(U32, 8)),
    ("or.b32 {d}, {0}, 12", [a(U32, 10)], a(U32, 14)),
    ("xor.b64 {d}, {0}, -1", [a(U64, 0)], a(U64, 2**64 - 1)),
    ("not.b32 {d}, {0}", [a(U32, 1)], a(U32, 2**32 - 2)),
    ("shl.b32 {d}, {0}, {1}", [a(U32, 3, 3), a(U32, 31, 32)], a(U32, 2**31, 0)),
    ("shr.u32 {d}, {0}, {1}", [a(U32, 2**31, 8), a(U32, 31, 99)], a(U32, 1, 0)),
    ("shr.s32 {d}, {0}, {1}", [a(I32, -8, -8), a(U32, 1, 99)], a(I32, -4, -1)),
    ("shf.l.wrap.b32 {d}, {0}, {1}, 8", [a(U32, 0xAB000000), a(U32, 1)], a(U32, 0x1AB)),
    ("shf.r.wrap.b32 {d}, {0}, {1}, 40", [a(U32, 0xAB00), a(U32, 1)], a(U32, 0x010000AB)),
    ("shf.r.clamp.b32 {d}, {0}, {1}, 40", [a(U32, 5), a(U32, 77)], a(U32, 77)),
    ("popc.b32 {d}, {0}", [a(U32, 0xF0F, 0)], a(U32, 8, 0)),
    ("clz.b32 {d}, {0}", [a(U32, 1, 0, 2**31)], a(U32, 31, 32, 0)),
    ("clz.b64 {d}, {0}", [a(U64, 2**40)], a(U32, 23)),
    ("bfind.u32 {d}, {0}", [a(U32, 0x1000, 0)], a(U32, 12, 2**32 - 1)),
    ("bfind.shiftamt.u32 {d}, {0}", [a(U32, 0x1000, 0)], a(U32, 19, 2**32 - 1)),
    ("bfind.s32 {d}, {0}", [a(I32, -1, -256)], a(U32, 2**32 - 1, 7)),
    ("brev.b32 {d}, {0}", [a(U32, 1, 6)], a(U32, 2**31, 0x60000000)),
    ("bfi.b32 {d}, {0}, {1}, 8, 4", [a(U32, 0xFB), a(U32, 0)], a(U32, 0xB00)),
    ("bfi.b32 {d}, {0}, {1}, 0, 32", [a(U32, 7), a(U32, 9)], a(U32, 7)),
    ("bfe.u32 {d}, {0}, 4, 8", [a(U32, 0xABCD)], a(U32, 0xBC)),
    ("bfe.s32 {d}, {0}, 4, 8", [a(U32, 0xABCD, 0xA7CD)], a(I32, 0xBC - 256, 0x7C)),
    (
        "prmt.b32 {d}, {0}, {1}, 0x5410",
        [a(U32, 0x33221100), a(U32, 0x77665544)],
        a(U32, 0x55441100),
    ),
    ("prmt.b32 {d}, {0}, {1}, 0x8880", [a(U32, 0x80), a(U32, 0)], a(U32, 0xFFFFFF80)),
    # The table of a & b | c.
    ("lop3.b32 {d}, {0}, {1}, 16, 0xEA", [a(U32, 12), a(U32, 10)], a(U32, 24)),
]
FLOATS: list[Case] = [
    ("add.f32 {d}, {0}, {1}", [a(F32, 1, INF), a(F32, 2.0**-24, -INF)], a(F32, 1, NAN)),
    ("add.rz.f32 {d}, {0}, {1}", [a(F32, 1), a(F32, 1.9 * 2.0**-24)], a(F32, 1)),
    ("sub.f64 {d}, {0}, {1}", [a(F64, 1), a(F64, 2.0**-53)], a(F64, 1 - 2.0**-53)),
    ("mul.f32 {d}, {0}, {1}", [a(F32, 3), a(F32, 0.1)], a(F32, F32(3) * F32(0.1))),
    # The exact product is 1 + 2^-11 + 2^-24: rounded once, the last bit stays.
    (
        "fma.rn.f32 {d}, {0}, {0}, {1}",
        [a(F32, 1 + 2.0**-12), a(F32, -1)],
        a(F32, 2.0**-11 + 2.0**-24),
    ),
    ("fma.rm.f32 {d}, {0}, {0}, {1}", [a(F32, 2.0**-30), a(F32, -1)], a(F32, -1)),
    ("fma.rz.f32 {d}, {0}, {0}, {1}", [a(F32, 2.0**-20), a(F32, -1)], a(F32, -1 + 2.0**-24)),
    ("div.rn.f32 {d}, {0}, {1}", [a(F32, 1, 1), a(F32, 3, 0)], a(F32, 1 / 3, INF)),
    ("rcp.rn.f32 {d}, {0}", [a(F32, 3)], a(F32, 1 / 3)),
    ("sqrt.rn.f32 {d}, {0}", [a(F32, 2, -1)], a(F32, 2**0.5, NAN)),
    ("rsqrt.approx.ftz.f32 {d}, {0}", [a(F32, 4, 0, 1e-40)], a(F32, 0.5, INF, INF)),
    ("ex2.approx.ftz.f32 {d}, {0}", [a(F32, 3, -INF, -130)], a(F32, 8, 0, 0)),
    ("lg2.approx.f32 {d}, {0}", [a(F32, 8, 0)], a(F32, 3, -INF)),
    ("min.f32 {d}, {0}, {1}", [a(F32, NAN, 1), a(F32, 2, -1)], a(F32, 2, -1)),
    ("max.NaN.f32 {d}, {0}, {1}", [a(F32, NAN, 1), a(F32, 2, -1)], a(F32, NAN, 1)),
    ("abs.f32 {d}, {0}", [a(F32, -0.0, -2)], a(F32, 0, 2)),
    ("neg.f32 {d}, {0}", [a(F32, 2)], a(F32, -2)),
    ("copysign.f32 {d}, {0}, {1}", [a(F32, -1), a(F32, 5)], a(F32, -5)),
    ("cvt.sat.f32.f32 {d}, {0}", [a(F32, NAN, 2, -1, 0.25)], a(F32, 0, 1, 0, 0.25)),
]
COMPARISONS: list[Case] = [
    ("setp.lt.s32 {d}, {0}, {1}", [a(I32, -1, 1), a(I32, 1, -1)], a(bool, 1, 0)),
    ("setp.lt.u32 {d}, {0}, {1}", [a(I32, -1, 1), a(I32, 1, -1)], a(bool, 0, 1)),
    ("setp.hi.u32 {d}, {0}, 5", [a(U32, 5, 6)], a(bool, 0, 1)),
    ("setp.eq.f32 {d}, {0}, {1}", [a(F32, NAN, 1), a(F32, NAN, 1)], a(bool, 0, 1)),
    ("setp.ne.f32 {d}, {0}, {1}", [a(F32, NAN, 1), a(F32, 0, 2)], a(bool, 0, 1)),
    ("setp.neu.f32 {d}, {0}, {1}", [a(F32, NAN, 1), a(F32, 0, 1)], a(bool, 1, 0)),
    ("setp.gtu.f32 {d}, {0}, {1}", [a(F32, NAN, 1), a(F32, 0, 2)], a(bool, 1, 0)),
    ("setp.nan.f32 {d}, {0}, {1}", [a(F32, NAN, 1), a(F32, 0, 2)], a(bool, 1, 0)),
    ("setp.num.f32 {d}, {0}, {1}", [a(F32, NAN, 1), a(F32, 0, 2)], a(bool, 0, 1)),
    ("setp.lt.and.s32 {d}, {0}, 5, {1}", [a(I32, 1, 1, 9), a(bool, 1, 0, 1)], a(bool, 1, 0, 0)),
    ("and.pred {d}, {0}, {1}", [a(bool, 1, 1), a(bool, 1, 0)], a(bool, 1, 0)),
    ("not.pred {d}, {0}", [a(bool, 1, 0)], a(bool, 0, 1)),
    ("selp.f32 {d}, {0}, 0f40000000, {1}", [a(F32, 1, 1), a(bool, 1, 0)], a(F32, 1, 2)),
    ("mov.pred {d}, -1", [a(bool, 0)], a(bool, 1)),
    ("mov.b32 {d}, 0f3F800000", [a(U32, 0)], a(F32, 1)),
]
CONVERSIONS: list[Case] = [
    ("cvt.s64.s32 {d}, {0}", [a(I32, -2)], a(I64, -2)),
    ("cvt.u64.u32 {d}, {0}", [a(I32, -2)], a(I64, 2**32 - 2)),
    ("cvt.u32.u64 {d}, {0}", [a(U64, BIG)], a(U32, 1)),
    ("cvt.u16.u8 {d}, {0}", [a(np.uint16, 0xFFFF)], a(np.uint16, 0xFF)),
    ("cvt.s16.s8 {d}, {0}", [a(np.uint16, 0x80)], a(np.int16, -128)),
    ("cvt.s32.s8 {d}, {0}", [a(U32, 0x180)], a(I32, -128)),
    (
        "cvt.rzi.s32.f32 {d}, {0}",
        [a(F32, -1.7, 3e9, NAN, -3e9)],
        a(I32, -1, 2**31 - 1, 0, -(2**31)),
    ),
    ("cvt.rzi.u32.f32 {d}, {0}", [a(F32, -1, 3e9)], a(U32, 0, 3e9)),
    ("cvt.rzi.s64.f32 {d}, {0}", [a(F32, 2.0**40)], a(I64, 2**40)),
    ("cvt.rni.s32.f32 {d}, {0}", [a(F32, 2.5, 3.5)], a(I32, 2, 4)),
    ("cvt.rmi.f32.f32 {d}, {0}", [a(F32, -1.5)], a(F32, -2)),
    ("cvt.rpi.f32.f32 {d}, {0}", [a(F32, -1.5)], a(F32, -1)),
    ("cvt.rn.f32.s64 {d}, {0}", [a(I64, -(2**40))], a(F32, -(2.0**40))),
    ("cvt.rn.f32.u32 {d}, {0}", [a(U32, 2**32 - 1)], a(F32, 2.0**32)),
    ("cvt.rn.f32.f64 {d}, {0}", [a(F64, 1 + 2.0**-25)], a(F32, 1)),
    ("cvt.f64.f32 {d}, {0}", [a(F32, 0.1)], a(F64, F32(0.1))),
    ("cvt.f32.f16 {d}, {0}", [a(F16, 0.1, INF)], a(F32, F16(0.1), INF)),
    ("cvt.rn.f16.f32 {d}, {0}", [a(F32, 0.1, 1e6)], a(F16, 0.1, INF)),
    ("cvt.f32.bf16 {d}, {0}", [a(np.uint16, 0x3F80)], a(F32, 1)),
    # Halfway between two: the even one.
    ("cvt.rn.bf16.f32 {d}, {0}", [a(U32, 0x3F808000, 0x3F818000)], a(np.uint16, 0x3F80, 0x3F82)),
    ("cvt.rn.bf16x2.f32 {d}, {0}, {1}", [a(F32, 1), a(F32, 2)], a(U32, 0x3F804000)),
    ("cvt.rn.f16x2.f32 {d}, {0}, {1}", [a(F32, 1), a(F32, 2)], a(U32, 0x3C004000)),
    (
        "fma.rn.bf16x2 {d}, {0}, {1}, {0}",
        [a(U32, 0x3F804000), a(U32, 0x40403F80)],
        a(U32, 0x40804080),
    ),
    ("add.f16x2 {d}, {0}, {0}", [a(U32, 0x3C004000)], a(U32, 0x40004400)),
]


@pytest.mark.parametrize(
    "case",
    [*INTEGERS, *BITS, *FLOATS, *COMPARISONS, *CONVERSIONS],
    ids=[c[0].split()[0] for c in (*INTEGERS, *BITS, *FLOATS, *COMPARISONS, *CONVERSIONS)],
)
def test_one_instruction(case: Case) -> None:
    instruction, operands, wanted = case
    found = elementwise(instruction, operands, wanted.dtype)
    np.testing.assert_array_equal(found, wanted)
    assert found.dtype == wanted.dtype


def test_directed_rounding_to_halves_is_done_once() -> None:
    """1 + 2^-8 + 2^-30 in float64 is above the middle of two bfloat16, and not in float32."""
    value = a(F64, 1 + 2.0**-8 + 2.0**-30)
    assert elementwise("cvt.rn.bf16.f64 {d}, {0}", [value], np.uint16).tolist() == [0x3F81]


def test_unknown_instructions_are_refused() -> None:
    with pytest.raises(Fault, match=r"unknown instruction: frobnicate\.s32"):
        elementwise("frobnicate.s32 {d}, {0}", [a(I32, 1)], I32)
    with pytest.raises(Fault, match=r"unknown instruction: mma"):
        elementwise("mma.sync.aligned.m8n8k4.row.col.f32.f16 {d}, {0}", [a(I32, 1)], I32)


def test_vectors_of_registers_are_packed_and_unpacked() -> None:
    made = Buffer.made((32,), U32)
    body = """
    mul.lo.s32 %r1, %i, 65537;
    mov.b32 {%h1, %h2}, %r1;
    add.s16 %h1, %h1, 3;
    mov.b32 %r2, {%h2, %h1};
    mov.b64 %rd1, {%r2, %r1};
    mov.b64 {%r3, %r4}, %rd1;
    mad.wide.u32 %rd2, %i, 4, %rd30;
    st.global.u32 [%rd2], %r3;
    """
    run(body, [made])
    i = np.arange(32)
    np.testing.assert_array_equal(made.array, i | i + 3 << 16)


# ---- warps ---------------------------------------------------------------------------------------


def _shuffled(mode: str, b: int, c: int) -> tuple[Any, Any]:
    """Returns values and predicates of a shuffle of the numbers of lanes, plus 100."""
    made, found = Buffer.made((32,), U32), Buffer.made((32,), U32)
    body = f"""
    add.s32 %r1, %i, 100;
    shfl.sync.{mode}.b32 %r2|%p1, %r1, {b}, {c}, -1;
    selp.u32 %r3, 1, 0, %p1;
    mad.wide.u32 %rd1, %i, 4, %rd30;
    mad.wide.u32 %rd2, %i, 4, %rd31;
    st.global.u32 [%rd1], %r2;
    st.global.u32 [%rd2], %r3;
    """
    run(body, [made, found])
    return made.array, found.array


def test_shuffles() -> None:
    lane = np.arange(32)
    np.testing.assert_array_equal(_shuffled("bfly", 5, 31)[0], 100 + (lane ^ 5))
    down, inside = _shuffled("down", 3, 31)
    np.testing.assert_array_equal(down, 100 + np.where(lane < 29, lane + 3, lane))
    np.testing.assert_array_equal(inside, lane < 29)
    up, inside = _shuffled("up", 3, 0)
    np.testing.assert_array_equal(up, 100 + np.where(lane >= 3, lane - 3, lane))
    np.testing.assert_array_equal(inside, lane >= 3)
    # In segments of 8, as __shfl_sync(.., 2, 8) has it: c = (32 - 8) << 8 | 31.
    np.testing.assert_array_equal(_shuffled("idx", 2, 24 << 8 | 31)[0], 100 + lane // 8 * 8 + 2)


def test_threads_missing_from_a_shuffle() -> None:
    body = """
    setp.gt.s32 %p1, %i, 15;
    @%p1 bra $END;
    shfl.sync.bfly.b32 %r2|%p2, %i, 1, 31, MEMBERS;
$END:
    """
    run(body.replace("MEMBERS", "65535"), [])
    with pytest.raises(Fault, match="threads do not come that are named"):
        run(body.replace("MEMBERS", "-1"), [])
    with pytest.raises(Fault, match="a thread comes that is not named"):
        run(body.replace("MEMBERS", "255"), [])
    with pytest.raises(Fault, match="a value of a thread that does not come"):
        run(body.replace("MEMBERS", "65535").replace(" 1, 31", " 16, 31"), [])


def test_votes_and_reductions() -> None:
    made = Buffer.made((64, 4), U32)
    body = """
    setp.lt.s32 %p1, %i, 3;
    vote.sync.ballot.b32 %r1, %p1, -1;
    vote.sync.any.pred %p2, %p1, -1;
    vote.sync.all.pred %p3, !%p1, -1;
    redux.sync.add.s32 %r4, %i, -1;
    selp.u32 %r2, 1, 0, %p2;
    selp.u32 %r3, 1, 0, %p3;
    mad.wide.u32 %rd1, %i, 16, %rd30;
    st.global.v4.u32 [%rd1], {%r1, %r2, %r3, %r4};
    """
    run(body, [made], threads=64)
    sums = np.arange(64).reshape(2, 32).sum(1)
    np.testing.assert_array_equal(made.array[:32], np.tile([7, 1, 0, sums[0]], (32, 1)))
    np.testing.assert_array_equal(made.array[32:], np.tile([0, 0, 1, sums[1]], (32, 1)))


# ---- tensor cores --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bf16", "f16"])
def test_products_of_matrices(name: str) -> None:
    """The places of elements are written out as the figures of the PTX ISA have them."""
    dtype = np.dtype(ml_dtypes.bfloat16 if name == "bf16" else F16)
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal(s).astype(dtype) for s in ((16, 16), (16, 8)))
    given = rng.standard_normal((16, 8)).astype(F32)
    words = np.zeros((32, 6), U32)
    sums = np.zeros((32, 4), F32)
    wanted = np.zeros((32, 4), F32)
    exact = (left.astype(F64) @ right.astype(F64) + given).astype(F32)
    for lane in range(32):
        g, q = divmod(lane, 4)
        rows = [(g, 2 * q), (g + 8, 2 * q), (g, 2 * q + 8), (g + 8, 2 * q + 8)]
        pairs = [(left[r, c], left[r, c + 1]) for r, c in rows]
        pairs += [(right[k, g], right[k + 1, g]) for k in (2 * q, 2 * q + 8)]
        words[lane] = np.array(pairs, dtype).view(U32)[:, 0]
        for n, (r, c) in enumerate(
            [(g, 2 * q), (g, 2 * q + 1), (g + 8, 2 * q), (g + 8, 2 * q + 1)]
        ):
            sums[lane, n], wanted[lane, n] = given[r, c], exact[r, c]
    made = Buffer.made((32, 4), F32)
    body = f"""
    mad.wide.u32 %rd1, %i, 24, %rd30;
    mad.wide.u32 %rd2, %i, 16, %rd31;
    mad.wide.u32 %rd3, %i, 16, %rd32;
    ld.global.nc.v2.u32 {{%r1, %r2}}, [%rd1];
    ld.global.nc.v2.u32 {{%r3, %r4}}, [%rd1+8];
    ld.global.nc.v2.u32 {{%r5, %r6}}, [%rd1+16];
    ld.global.nc.v4.f32 {{%f1, %f2, %f3, %f4}}, [%rd2];
    mma.sync.aligned.m16n8k16.row.col.f32.{name}.{name}.f32
        {{%f1, %f2, %f3, %f4}}, {{%r1, %r2, %r3, %r4}}, {{%r5, %r6}}, {{%f1, %f2, %f3, %f4}};
    st.global.v4.f32 [%rd3], {{%f1, %f2, %f3, %f4}};
    """
    run(body, [words, sums, made])
    np.testing.assert_array_equal(made.array, wanted)


@pytest.mark.parametrize("way", ["", ".trans"])
def test_loads_of_matrices(way: str) -> None:
    """Lanes 0 to 7 point to the rows of the first matrix, lanes 8 to 15 to those of the second."""
    rows = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    made = Buffer.made((32, 4), U32)
    body = f"""
    mad.wide.u32 %rd1, %i, 16, %rd30;
    mad.wide.u32 %rd2, %i, 16, %rd31;
    mov.u32 %r9, memory;
    mad.lo.s32 %r9, %i, 16, %r9;
    ld.global.v4.u32 {{%r1, %r2, %r3, %r4}}, [%rd1];
    st.shared.v4.u32 [%r9], {{%r1, %r2, %r3, %r4}};
    bar.sync 0;
    ldmatrix.sync.aligned.m8n8.x4{way}.shared.b16 {{%r5, %r6, %r7, %r8}}, [%r9];
    st.global.v4.u32 [%rd2], {{%r5, %r6, %r7, %r8}};
    """
    declared = ".shared .align 16 .b8 memory[512];"
    run(body, [rows, made], declared=declared)
    for matrix, found in zip(rows, made.array.T, strict=True):
        shown = matrix.T if way else matrix
        pairs = np.ascontiguousarray(found).view(np.uint16).reshape(8, 8)
        np.testing.assert_array_equal(pairs, shown)
