"""Random programs on the emulated GPU give what they give op by op."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated_cuda import emulated_cuda
from fuzz.random_programs import Program, programs
from fuzz.test_programs import assert_same
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from maxmod import CPU, DType, TensorType
from maxmod.backends.devices import Device
from maxmod.runtime.compiled import CompiledModel, compile_function

BATCH = 12  # programs whose kernels are built together: building takes longer than running


def _compiled(program: Program, device: Device, names: bool) -> CompiledModel | None:
    types = [TensorType(DType.float32, t.shape, device) for t in program.types(names=names)]
    try:
        return compile_function(program, types, name="p", parameters={})
    except ValueError:  # a name against another size; with known sizes no program is refused
        assert names
        return None


def _check(program: Program, compiled: CompiledModel, device: Device) -> None:
    args = program.arguments()
    found = compiled(*[arg.to(device) for arg in args])
    for one, other in zip(found, program(*args), strict=True):
        assert_same(np.asarray(one.to(CPU()).to_numpy()), other.to_numpy(), program)


@settings(
    max_examples=3,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking would build for minutes
    suppress_health_check=list(HealthCheck),
)
@given(batch=st.lists(programs(), min_size=BATCH, max_size=BATCH), order=st.sampled_from([0, 2, 3]))
@pytest.mark.parametrize("names", [False, True], ids=["static", "symbolic"])
def test_programs(batch: list[Program], order: int, names: bool) -> None:
    with emulated_cuda() as (device, backend):
        backend.cuda.order = order
        compiled: list[tuple[Program, Any]] = [(p, _compiled(p, device, names)) for p in batch]
        for program, model in compiled:
            if model is not None:
                _check(program, model, device)
