"""Kernels of users: registration, eager calls, graphs, changes in place, CUDA text."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulated import EmulatedBackend
from helpers import tensor, values
from ops.compiling import assert_compiles, sizes_of, type_of

from maxmod import backends, custom
from maxmod import functional as F
from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.compiler.passes.merge_common import merge_common
from maxmod.driver import Buffer
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, DeviceError, OperandError, ShapeError, TraceError
from maxmod.op import ir
from maxmod.runtime.compiled import compile_function
from maxmod.runtime.staging import trace_function
from maxmod.tensor import Tensor
from maxmod.values.device import CPU_REF
from maxmod.values.tensor_type import TensorType

HOST = CPU()
X = tensor(np.array([1.0, 2.0, 3.0], np.float32))

custom.register("test.axpy", numpy=lambda x, y, a=1: a * x + y, cuda=lambda x, y, a=1: a * x + y)
custom.register("test.split", numpy=lambda x, at: (x[:at], x[at:]))
custom.register(
    "test.doubled_rows",
    numpy=lambda x: np.concatenate([x, x]),
    infer=lambda x: x.with_sizes((x.sizes[0] * 2, *x.sizes[1:])),
)


def _increment(x: Any, by: Any = 1) -> None:
    x += x.dtype.type(by)


custom.register("test.increment", numpy=_increment, cuda=_increment)


def of(*sizes: Any, dtype: DType = DType.float32) -> TensorType:
    return TensorType(dtype, sizes, CPU_REF)


# ---- eager calls -------------------------------------------------------------------------------


def test_results_are_a_list() -> None:
    found = F.custom("test.axpy", HOST, [X, X], [X.type])
    assert isinstance(found, list)
    assert found[0].to_numpy().tolist() == [2, 4, 6]
    found = F.custom("test.axpy", HOST.ref, [X, X], [X.type], {"a": 3})
    assert found[0].to_numpy().tolist() == [4, 8, 12]
    one, two = F.custom("test.split", HOST, [X], [of(1), of(2)], {"at": 1})
    assert one.to_numpy().tolist() == [1]
    assert two.to_numpy().tolist() == [2, 3]


def test_results_have_the_declared_dtype() -> None:
    (found,) = F.custom("test.axpy", HOST, [X, X], [of(3, dtype=DType.bfloat16)])
    assert found.dtype is DType.bfloat16
    (same,) = F.custom("test.axpy", HOST, [found, found], [found.type])
    assert same.cast(DType.float32).to_numpy().tolist() == [4, 8, 12]


def test_kernels_without_operands() -> None:
    custom.register("test.steps", numpy=lambda n: np.arange(n, dtype=np.float32))
    (found,) = F.custom("test.steps", HOST, [], [of(4)], {"n": 4})
    assert found.to_numpy().tolist() == [0, 1, 2, 3]


def test_parameters_keep_python_types() -> None:
    seen: list[Any] = []

    def note(x: Any, p: Any) -> Any:
        seen.append(p)
        return x + 0

    custom.register("test.note", numpy=note)
    given = [1, True, 1.0, 0.0, -0.0, "text", DType.int8]
    for value in given:
        F.custom("test.note", HOST, [X], [X.type], {"p": value})
    assert [repr(p) for p in seen] == [repr(p) for p in given]


def test_the_rule_gives_the_types() -> None:
    (found,) = F.custom("test.doubled_rows", HOST, [X], None)
    assert found.to_numpy().tolist() == [1, 2, 3, 1, 2, 3]
    (found,) = F.custom("test.doubled_rows", HOST, [X], [of("m")])
    assert found.sizes == (6,)
    with pytest.raises(ShapeError, match=r"doubled_rows gives: expected float32\[6\], got .*\[5\]"):
        F.custom("test.doubled_rows", HOST, [X], [of(5)])
    with pytest.raises(ShapeError, match="out_types are not what"):
        F.custom("test.doubled_rows", HOST, [X], [of(6, dtype=DType.int32)])
    with pytest.raises(ShapeError, match="out_types are not what"):
        F.custom("test.doubled_rows", HOST, [X], [of(6), of(6)])


def test_operands_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        F.custom("test.increment", HOST, [X], [X.type])
    assert X.to_numpy().tolist() == [1, 2, 3]


def test_results_do_not_share_memory() -> None:
    custom.register("test.same", numpy=lambda x: x)
    x = tensor(np.zeros(2, np.float32))
    (found,) = F.custom("test.same", HOST, [x], [x.type])
    F.buffer_store(found, found + 1.0)
    assert x.to_numpy().tolist() == [0, 0]


def test_errors() -> None:
    call = F.custom
    with pytest.raises(ValueError, match="no kernel is registered as 'test.axpi'. Did you mean"):
        call("test.axpi", HOST, [X], [X.type])
    with pytest.raises(TypeError, match="custom: parameters: a: expected a bool, int.*got list"):
        call("test.axpy", HOST, [X, X], [X.type], {"a": [1]})
    with pytest.raises(OperandError, match="custom: expected tensors, got a Buffer"):
        call("test.axpy", HOST, [X, Buffer.zeros([3], DType.float32)], [X.type])
    with pytest.raises(TypeError, match="custom: .*expected a Tensor, got float"):
        call("test.axpy", HOST, [X, 1.0], [X.type])
    with pytest.raises(TypeError, match="out_types: expected TensorTypes, got"):
        call("test.axpy", HOST, [X, X], [DType.float32])
    with pytest.raises(ArgumentError, match="must have results"):
        call("test.axpy", HOST, [X, X], [])
    with pytest.raises(ArgumentError, match="names for sizes, which are known in a trace only"):
        call("test.axpy", HOST, [X, X], [of("n")])
    with pytest.raises(ShapeError, match="another shape: expected \\[4\\], got \\[3\\]"):
        call("test.axpy", HOST, [X, X], [of(4)])
    with pytest.raises(ShapeError, match="test.split gave 2 results, not 1"):
        call("test.split", HOST, [X], [of(1)], {"at": 1})


def test_registration_errors() -> None:
    register: Any = custom.register
    with pytest.raises(TypeError, match="register: name: expected a non-empty str, got 3"):
        register(3, numpy=len)
    with pytest.raises(TypeError, match="register: numpy: expected a function, got 'x'"):
        register("test.bad", numpy="x")
    with pytest.raises(TypeError, match="register: cuda: expected a str or a function, got 1"):
        register("test.bad", cuda=1)
    with pytest.raises(TypeError, match="register: infer: expected a function"):
        register("test.bad", numpy=len, infer=3)
    with pytest.raises(ValueError, match="'test.bad' needs a numpy function, a cuda version"):
        register("test.bad")
    for threads in (0, 1025):
        with pytest.raises(ValueError, match=f"threads: expected 1 to 1024, got {threads}"):
            register("test.bad", numpy=len, threads=threads)
    with pytest.raises(ValueError, match="no kernel is registered as 'test.bad'"):
        custom.lookup("test.bad")


# ---- graphs ------------------------------------------------------------------------------------


def test_compiled_with_symbolic_sizes() -> None:
    def fn(x: Tensor, y: Tensor) -> Tensor:
        (found,) = F.custom("test.axpy", HOST, [x * 2.0, y], [x.type], {"a": 3})
        return found + 1.0

    rng = np.random.default_rng(0)
    calls = [rng.normal(size=(2, n, 3)).astype(np.float32) for n in (1, 4, 0)]
    assert_compiles(fn, (type_of("n", 3), type_of("n", 3)), *calls)
    assert_compiles(
        lambda x: F.custom("test.doubled_rows", HOST, [x], None),
        (type_of("n", 3),),
        *[call[:1] for call in calls],
    )
    assert sizes_of(lambda x: F.custom("test.doubled_rows", HOST, [x], None), of("n")) == ["n * 2"]


def test_a_compiled_model_keeps_the_kernel_of_compile_time() -> None:
    custom.register("test.version", numpy=lambda x: x + 1)
    model = compile_function(
        lambda x: F.custom("test.version", HOST, [x], [x.type])[0],
        [of(3)],
        name="f",
        parameters={},
    )
    custom.register("test.version", numpy=lambda x: x + 2)
    assert model(X).to_numpy().tolist() == [2, 3, 4]
    (found,) = F.custom("test.version", HOST, [X], [X.type])
    assert found.to_numpy().tolist() == [3, 4, 5]


def test_the_source_is_part_of_the_node() -> None:
    def graph(fn: Any) -> ir.Graph:
        return trace_function(fn, [of(3)], name="f", parameters={}).graph

    def twice(x: Tensor) -> Tensor:
        first = F.custom("test.axpy", HOST, [x, x], [x.type], {"a": 1})[0]
        return first + F.custom("test.axpy", HOST, [x, x], [x.type], {"a": 1})[0]

    def different(x: Tensor) -> Tensor:
        first = F.custom("test.axpy", HOST, [x, x], [x.type], {"a": 1})[0]
        return first + F.custom("test.axpy", HOST, [x, x], [x.type], {"a": True})[0]

    def replaced(x: Tensor) -> Tensor:
        made = []
        for count in range(2):
            # Equal source, other values in it: never the same kernel.
            custom.register("test.closure", numpy=lambda x, n=count: x + n)
            made += F.custom("test.closure", HOST, [x], [x.type])
        return made[0] + made[1]

    assert len(merge_common(graph(twice)).nodes) == 2
    assert len(merge_common(graph(different)).nodes) == 3
    assert len(merge_common(graph(replaced)).nodes) == 3
    digest = custom.lookup("test.axpy").digest
    assert f"test.axpy@{digest[:8]}" in str(graph(twice))


def test_the_digest_follows_the_text() -> None:
    one = custom.register("test.digest", cuda="a", entry="e")
    assert custom.register("test.digest", cuda="a", entry="e").digest == one.digest
    changed: list[dict[str, Any]] = [
        {"cuda": "b", "entry": "e"},
        {"cuda": "a", "entry": "f"},
        {"cuda": "a", "entry": "e", "threads": 32},
        {"cuda": "a", "entry": "e", "numpy": len},
    ]
    for arguments in changed:
        assert custom.register("test.digest", **arguments).digest != one.digest
    plain = eval("lambda x: x + 1")
    other = eval("lambda x: x + 2")
    digests = {custom.register("test.digest", numpy=f).digest for f in (plain, other)}
    assert len(digests) == 2


# ---- in place ----------------------------------------------------------------------------------


def test_inplace_custom_changes_operands() -> None:
    memory = np.zeros(3, np.float32)
    x = Tensor.from_dlpack(memory)
    assert F.inplace_custom("test.increment", HOST, [x]) == []
    assert memory.tolist() == [1, 1, 1]
    assert F.inplace_custom("test.increment", HOST, [x], parameters={"by": 2}) == []
    assert memory.tolist() == [3, 3, 3]


def test_inplace_custom_may_have_results() -> None:
    def add(x: Any, y: Any) -> Any:
        x += y
        return x.sum(keepdims=True)

    custom.register("test.accumulate", numpy=add)
    x = tensor(np.zeros(2, np.float32))
    (total,) = F.inplace_custom("test.accumulate", HOST, [x, x + 4.0], [of(1)])
    assert total.to_numpy().tolist() == [8]
    assert x.to_numpy().tolist() == [4, 4]


def test_inplace_custom_of_a_view_leaves_other_tensors_unchanged() -> None:
    base = tensor(np.zeros((2, 2), np.float32))
    row, repeated = base[0], base[0].broadcast_to([3, 2])
    F.inplace_custom("test.increment", HOST, [row])
    assert base.to_numpy().tolist() == [[0, 0], [0, 0]]
    F.inplace_custom("test.increment", HOST, [repeated])
    assert repeated.to_numpy().tolist() == [[1, 1]] * 3
    F.inplace_custom("test.increment", HOST, [base])
    assert row.to_numpy().tolist() == [1, 1]
    turned = base.T
    F.inplace_custom("test.increment", HOST, [turned])
    assert turned.to_numpy().tolist() == [[2, 2], [2, 2]]
    assert base.to_numpy().tolist() == [[1, 1], [1, 1]]


def test_inplace_errors() -> None:
    with pytest.raises(ValueError, match="no kernel is registered"):
        F.inplace_custom("test.nothing", HOST, [X])
    with pytest.raises(TypeError, match="inplace_custom: parameters"):
        F.inplace_custom("test.increment", HOST, [X], parameters={"by": None})

    def fn(x: Tensor) -> Tensor:
        F.inplace_custom("test.increment", HOST, [x])
        return x

    with pytest.raises(TraceError, match="inplace_custom: test.increment cannot change tensors"):
        sizes_of(fn, of("n"))


# ---- accelerators ------------------------------------------------------------------------------


def test_functions_on_an_accelerator(emulated_accelerator: Device) -> None:
    x = X.to(emulated_accelerator)
    (found,) = F.custom("test.axpy", emulated_accelerator, [x, x], [x.type], {"a": 2})
    assert found.device == emulated_accelerator
    assert values(found.to(HOST)).tolist() == [3, 6, 9]
    F.inplace_custom("test.increment", emulated_accelerator, [x])
    assert values(x.to(HOST)).tolist() == [2, 3, 4]
    with pytest.raises(ArgumentError, match="test.split has no version .* cuda="):
        F.custom("test.split", emulated_accelerator, [x], [x.type, x.type], {"at": 1})
    with pytest.raises(DeviceError, match="the operands are on another device"):
        F.custom("test.axpy", emulated_accelerator, [X, X], [x.type])
    with pytest.raises(DeviceError, match="must be on the same device"):
        F.custom("test.axpy", emulated_accelerator, [X, x], [x.type])
    with pytest.raises(DeviceError, match="out_types must be on gpu:0"):
        F.custom("test.axpy", emulated_accelerator, [x, x], [X.type])


def test_cuda_text_is_launched(emulated_accelerator: Device) -> None:
    """The arguments of the source; `RawKernel` replaces CuPy's and records the launch."""
    launches: list[Any] = []

    def raw_kernel(code: str, entry: str) -> Any:
        def launch(grid: Any, block: Any, arguments: Any) -> None:
            launches.append((code, entry, grid, block, arguments))
            arguments[1][...] = arguments[0] * float(arguments[-2])

        return launch

    backend: Any = backends.get(emulated_accelerator.ref)
    assert isinstance(backend, EmulatedBackend)
    backend._xp.RawKernel = raw_kernel
    custom.register("test.text", cuda="the text", entry="run", threads=32)
    x = tensor(np.arange(100, dtype=np.float32).reshape(4, 25)).to(emulated_accelerator).T
    (found,) = F.custom("test.text", emulated_accelerator, [x], [x.type], {"by": 2.5, "flag": True})
    assert values(found.to(HOST)).tolist() == (np.arange(100.0).reshape(4, 25).T * 2.5).tolist()
    ((code, entry, grid, block, arguments),) = launches
    assert (code, entry, grid, block) == ("the text", "run", (4,), (32,))
    source, result, *numbers = arguments
    assert source.flags.c_contiguous
    assert result.shape == (25, 4)
    assert [(n.dtype, n) for n in numbers] == [
        (np.int64, 100),
        (np.float64, 2.5),
        (np.int64, 1),
    ]
    with pytest.raises(TypeError, match="test.text: name: CUDA text takes numbers only, got 'x'"):
        F.custom("test.text", emulated_accelerator, [x], [x.type], {"name": "x"})
    F.custom("test.text", emulated_accelerator, [x[:0]], [x[:0].type], {"by": 1.0, "flag": True})
    assert len(launches) == 1  # nothing to do


def test_text_has_no_version_for_the_host() -> None:
    custom.register("test.text", cuda="the text")
    with pytest.raises(ArgumentError, match="test.text has no version .* numpy="):
        F.custom("test.text", HOST, [X], [X.type])


CUDA_TEXT = """
extern "C" __global__ void axpy(const float* x, const float* y, float* out, long long n, double a)
{
    long long i = blockIdx.x * (long long)blockDim.x + threadIdx.x;
    if (i < n) out[i] = (float)a * x[i] + y[i];
}
"""


@pytest.mark.gpu
def test_cuda_text_on_a_gpu() -> None:
    custom.register("test.gpu_axpy", cuda=CUDA_TEXT, entry="axpy")
    device = Accelerator()
    x = X.to(device)
    (found,) = F.custom("test.gpu_axpy", device, [x, x], [x.type], {"a": 2.0})
    assert values(found.to(HOST)).tolist() == [3, 6, 9]
