"""Machine code of the kernels of a decoding step at real widths: registers, spills, loads."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from maxmod.kernel.source import KernelSource
from ptx.sass import Code, _in_flight, codes_of, unavailable_reason
from ptx.small_models import Case, planned

MISSING = unavailable_reason()
THREADS = 132 * 2048  # of an H100
DIMS = {"length": 512}


@dataclass(frozen=True)
class Limit:
    """What kernels of one name need, the worst of them.

    Attributes:
        in_flight: Bytes of loads of a thread under way at once, at least. The goal is 128 for
            everything that reads weights: 8 loads of 16 bytes.
        blocks: On a multiprocessor, at least.
        spills: Bytes, at most. The goal is 0.
    """

    in_flight: int
    blocks: int
    spills: int = 0


# As they are today, to be raised with the kernels: a lane has 14 accesses of 4-bit codes to each
# column of down, which two columns at a time divide into rounds of 4, 4, 4 and 2.
LIMITS: dict[Case, dict[str, Limit]] = {
    Case("llama_8b", "bfloat16"): {
        "matmul": Limit(144, 2),
        "matmul_add": Limit(144, 2),
        "rms_norm_matmul": Limit(144, 2),
        "rms_norm_matmul_silu_matmul_mul": Limit(160, 2),
        "attention": Limit(128, 3),
        "choose_tokens": Limit(32, 1),
    },
    Case("llama_8b", "int8"): {
        "quantized_linear": Limit(128, 2),
        "rms_norm_quantized_linear": Limit(128, 2),
        "add_rms_norm_quantized_linear": Limit(128, 2),
    },
    Case("llama_8b", "int4"): {
        "quantized_linear": Limit(72, 2),
        "rms_norm_quantized_linear": Limit(112, 2),
        "add_rms_norm_quantized_linear": Limit(128, 2),
    },
    Case("gpt2_124m", "bfloat16"): {
        "matmul_bias": Limit(64, 4),
        "matmul_bias_add": Limit(64, 4),
        "layer_norm_matmul_bias": Limit(48, 4),
        "layer_norm_matmul_bias_gelu": Limit(48, 4),
        "attention": Limit(80, 4),
    },
}


@pytest.mark.skipif(bool(MISSING), reason=MISSING)
@pytest.mark.parametrize("case", LIMITS, ids=str)
def test_kernels_of_a_step(case: Case) -> None:
    limits = LIMITS[case]
    sources = [source for source in planned(case).plan.kernels if source.name in limits]
    assert {source.name for source in sources} == limits.keys()
    found = zip(sources, codes_of(sources), strict=True)
    wrong = [
        (source.name, code.usage, code.in_flight, _blocks(source, code))
        for source, code in found
        if code.in_flight < limits[source.name].in_flight
        or _blocks(source, code) < limits[source.name].blocks
        or code.usage.spill_nbytes > limits[source.name].spills
        or (source.name != "choose_tokens" and not code.count(r"LDG\S*\.128"))
    ]
    assert not wrong


def _blocks(source: KernelSource, code: Code) -> int:
    grid = source.launch.grid(DIMS, THREADS)
    return code.blocks(grid.threads, grid.shared_nbytes)


def test_bytes_in_flight() -> None:
    """A use of a register waits for the load of it, and for all loads before that."""
    loads = ["LDG.E.128 R4, desc[UR4][R2.64]", "@P0 LDG.E.64 R8, desc[UR4][R2.64+0x10]"]
    assert _in_flight(loads) == 24
    assert _in_flight([loads[0], "FADD R20, R7, R1", loads[1]]) == 16
    assert _in_flight([loads[0], "FADD R20, R21, R1", loads[1]]) == 24
    assert _in_flight([loads[0], "@P1 BRA `(.L_x_1)", loads[1]]) == 24
    assert _in_flight([loads[0], "BRA `(.L_x_1)", loads[1]]) == 16
    assert _in_flight([loads[1], "STG.E.128 desc[UR4][R2.64], R8", loads[0]]) == 16
