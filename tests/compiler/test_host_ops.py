"""Every elementwise op in kernels of the host, against its oracle."""

from __future__ import annotations

import pytest
from cuda_programs import op_cases, op_expected, op_operands, op_program
from helpers import HALVES, WIDE_FLOATS, assert_close, tensor
from ops.oracles import ORACLES

from maxmod.backends.host import compiler as host_compiler
from maxmod.dtype import DType
from maxmod.runtime.compiled import compile_function
from maxmod.tensor import Tensor

DTYPES = (DType.bool, DType.int8, DType.int64, DType.uint8, DType.uint64, *WIDE_FLOATS, *HALVES)
SIZE = 1003


@pytest.mark.skipif(
    bool(host_compiler.unavailable_reason()), reason=host_compiler.unavailable_reason()
)
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
def test_values(dtype: DType) -> None:
    """All ops of a dtype are results of one function, whose kernels hold many of them each."""
    cases = op_cases(dtype)
    operands = [op_operands(*case, dtype, SIZE) for case in cases]
    programs = [op_program(*case, dtype, SIZE) for case in cases]

    def fn(*args: Tensor) -> list[Tensor]:
        rest = iter(args)
        return [call(*[next(rest) for _ in types]) for call, types in programs]

    every = [type for _, types in programs for type in types]
    model = compile_function(fn, every, name="ops", parameters={})
    assert model.kernels, "the compiler refused a kernel"
    results = model(*[tensor(array) for arrays in operands for array in arrays])
    wrong = []
    for (name, number), arrays, found in zip(cases, operands, results, strict=True):
        expected = op_expected(name, number, dtype, arrays)
        try:
            assert_close(found, expected)
        except AssertionError as error:
            wrong.append(f"{name} {ORACLES[name].attrs[number]}: {error}")
    assert not wrong, "\n\n".join(wrong)
