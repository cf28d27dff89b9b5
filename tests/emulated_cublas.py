"""cuBLAS and cuBLASLt without a GPU: loops over the raw memory that they are given addresses of.

Both check what they are told as the libraries do: sizes of attributes, columns that overlap,
batches of different length, alignments that were promised and are not kept. `FakeCublasLt` has the
functions that `maxmod.backends.cuda.cublaslt` calls through ctypes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from maxmod.backends.cuda.cublaslt import Heuristic

HANDLE = 77
SCRATCH_NBYTES = 512
SUCCESS, INVALID, UNSUPPORTED = 0, 7, 15

# ---- cuBLAS, as CuPy wraps it --------------------------------------------------------------------

_DTYPES = {0: np.float32, 1: np.float64, 2: np.float16, 14: ml_dtypes.bfloat16}


def _columns(address: int, kind: int, rows: int, columns: int, leading: int) -> Any:
    """Returns the matrix whose columns start `leading` elements apart."""
    dtype = np.dtype(_DTYPES[kind])
    assert leading >= max(rows, 1), "the columns overlap"
    count = leading * (columns - 1) + rows
    block = (ctypes.c_uint8 * (count * dtype.itemsize)).from_address(address)
    flat = np.frombuffer(block, dtype)
    step = dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat, (rows, columns), (step, leading * step))


def _gemm(
    handle: int,
    transpose_a: int,
    transpose_b: int,
    m: int,
    n: int,
    k: int,
    alpha: int,
    a: int,
    a_kind: int,
    lda: int,
    b: int,
    b_kind: int,
    ldb: int,
    beta: int,
    c: int,
    c_kind: int,
    ldc: int,
    compute: int,
    algorithm: int,
) -> None:
    number = ctypes.c_double if compute == 70 else ctypes.c_float
    assert handle == HANDLE
    assert compute == (70 if c_kind == 1 else 68)
    assert algorithm == -1
    assert number.from_address(alpha).value == 1.0
    assert number.from_address(beta).value == 0.0
    left = _columns(a, a_kind, *((k, m) if transpose_a else (m, k)), lda)
    right = _columns(b, b_kind, *((n, k) if transpose_b else (k, n)), ldb)
    wide = np.float64 if compute == 70 else np.float32
    left = (left.T if transpose_a else left).astype(wide)
    right = (right.T if transpose_b else right).astype(wide)
    result = _columns(c, c_kind, m, n, ldc)
    result[...] = (left @ right).astype(result.dtype)


def _gemm_batched(*args: int) -> None:
    head, (a, a_kind, lda, a_step) = args[:7], args[7:11]
    (b, b_kind, ldb, b_step), beta = args[11:15], args[15]
    (c, c_kind, ldc, c_step), count, end = args[16:20], args[20], args[21:]
    sizes = [np.dtype(_DTYPES[kind]).itemsize for kind in (a_kind, b_kind, c_kind)]
    for i in range(count):
        first = a + i * a_step * sizes[0]
        second = b + i * b_step * sizes[1]
        third = c + i * c_step * sizes[2]
        _gemm(*head, first, a_kind, lda, second, b_kind, ldb, beta, third, c_kind, ldc, *end)


def modules(captures: Callable[[], bool]) -> dict[str, ModuleType]:
    """Returns the modules that the backend imports.

    Args:
        captures: True while the current stream captures; CuPy refuses to call cuBLAS then.
    """

    def guarded(function: Callable[..., None]) -> Callable[..., None]:
        def call(*args: Any) -> None:
            if captures():
                raise NotImplementedError("calling cuBLAS API during stream capture")
            function(*args)

        return call

    names = ["cupy_backends", "cupy_backends.cuda", "cupy_backends.cuda.libs"]
    found = {name: ModuleType(name) for name in [*names, f"{names[-1]}.cublas"]}
    cublas: Any = found[f"{names[-1]}.cublas"]
    cublas.gemmEx = guarded(_gemm)
    cublas.gemmStridedBatchedEx = guarded(_gemm_batched)
    parent: Any = found[names[-1]]
    parent.cublas = cublas
    return found


# ---- cuBLASLt ------------------------------------------------------------------------------------

# For each kind of object, the attributes that can be set, with the bytes of each.
_ATTRIBUTES = {
    "MatmulDesc": {3: 4, 4: 4, 7: 4, 8: 8},
    "MatrixLayout": {5: 4, 6: 8},
    "MatmulPreference": {1: 8, 5: 4, 6: 4, 7: 4, 8: 4},
}
_BIAS, _RELU, _GELU = 4, 2, 32


def _gelu(x: Any) -> Any:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


class FakeCublasLt:
    """The functions of the library.

    Args:
        run: Runs a piece of work on a stream, given by its address, or records it there.

    Attributes:
        calls: (m, n, k, count, epilogue, whether it was added to another matrix) of each product,
            in the order of the library.
        live: Objects that were made and not destroyed.
    """

    def __init__(self, run: Callable[[int, Callable[[], None]], None]) -> None:
        self._run = run
        self.live: dict[int, Any] = {}
        self.calls: list[tuple[int, int, int, int, int, bool]] = []
        self.queries = 0
        for kind in _ATTRIBUTES:
            setattr(self, f"cublasLt{kind}Create", self._maker(kind))
            setattr(self, f"cublasLt{kind}Destroy", self._destroy)
            setattr(self, f"cublasLt{kind}SetAttribute", self._setter(kind))

    def cublasLtCreate(self, handle: Any) -> int:  # noqa: N802  (the names of the library)
        """Makes the handle."""
        handle._obj.value = HANDLE
        return SUCCESS

    def _maker(self, kind: str) -> Callable[..., int]:
        def create(made: Any, *args: int) -> int:
            made._obj.value = number = id(made._obj)
            self.live[number] = SimpleNamespace(kind=kind, args=args, attributes={})
            if kind == "MatrixLayout":
                type_, rows, _, leading = args
                return SUCCESS if type_ in _DTYPES and leading >= rows else INVALID
            return SUCCESS

        return create

    def _destroy(self, made: Any) -> int:
        del self.live[made.value]
        return SUCCESS

    def _setter(self, kind: str) -> Callable[..., int]:
        def set_attribute(target: Any, name: int, value: Any, nbytes: int) -> int:
            found = self.live[target.value]
            if found.kind != kind or _ATTRIBUTES[kind].get(name) != nbytes:
                return INVALID
            found.attributes[name] = value._obj.value or 0
            return SUCCESS

        return set_attribute

    def cublasLtMatmulAlgoGetHeuristic(  # noqa: N802
        self,
        handle: Any,
        operation: Any,
        *rest: Any,
    ) -> int:
        """Chooses the only algorithm, unless the alignment is below that of an element."""
        *layouts, preference, wanted, result, count = rest
        assert (handle.value, wanted) == (HANDLE, 1)
        assert layouts[2] is layouts[3]
        self.queries += 1
        self._numbers(operation, layouts)
        chosen = self.live[preference.value].attributes
        found: Heuristic = result._obj
        found.algorithm[0] = 1234
        for number, layout in enumerate(layouts):
            found.algorithm[number + 1] = alignment = chosen[5 + number]
            kind = self.live[layout.value].args[0]
            if alignment % np.dtype(_DTYPES[kind]).itemsize:
                return UNSUPPORTED
        found.workspace_nbytes = min(SCRATCH_NBYTES, chosen[1])
        count._obj.value = 1
        return SUCCESS

    def _numbers(self, operation: Any, layouts: Any) -> Any:
        """Returns what a product does, after checking that everything fits together."""
        desc, (a, b, d) = self.live[operation.value], [self.live[x.value] for x in layouts[:3]]
        compute, scale = desc.args
        assert a.args[0] == b.args[0] == d.args[0]
        assert (compute, scale) == ((70, 1) if d.args[0] == 1 else (68, 0))
        transposed = (desc.attributes.get(3, 0), desc.attributes.get(4, 0))
        sides = [x.args[1:3][::-1] if t else x.args[1:3] for x, t in zip((a, b), transposed)]
        (m, k), (other, n) = sides
        assert k == other
        assert (m, n) == d.args[1:3]
        counts = {x.attributes.get(5, 1) for x in (a, b, d)}
        assert len(counts) == 1, "batches of different length"
        epilogue = desc.attributes.get(7, 1)
        assert epilogue in (1, _BIAS, _RELU, _GELU, _RELU | _BIAS, _GELU | _BIAS)
        return SimpleNamespace(
            m=m,
            n=n,
            k=k,
            count=counts.pop(),
            epilogue=epilogue,
            bias=desc.attributes.get(8, 0),
            transposed=transposed,
            matrices=(a, b, d),
        )

    def cublasLtMatmul(self, handle: Any, operation: Any, *args: Any) -> int:  # noqa: N802
        """Multiplies, on a stream."""
        (
            alpha,
            a,
            first,
            b,
            second,
            beta,
            c,
            third,
            d,
            result,
            algorithm,
            scratch,
            nbytes,
            stream,
        ) = args
        assert handle.value == HANDLE
        assert third == result
        assert alpha._obj.value == 1.0
        adds = beta._obj.value == 1.0
        assert adds or (c == d and beta._obj.value == 0.0)
        found: Heuristic = algorithm._obj
        assert found.algorithm[0] == 1234
        what = self._numbers(operation, (first, second, result))
        for number, address in enumerate((a, b, c, d)):
            assert address % found.algorithm[number + 1] == 0, "less aligned than promised"
        assert nbytes == found.workspace_nbytes
        assert not (adds and what.epilogue & (_RELU | _GELU)), "no activation after C"
        self.calls.append((what.m, what.n, what.k, what.count, what.epilogue, adds))
        addresses = (a, b, c, d) if adds else (a, b, d)
        self._run(stream, lambda: _multiply(what, addresses, scratch, nbytes))
        return SUCCESS


def _multiply(what: Any, addresses: tuple[int, ...], scratch: int, nbytes: int) -> None:
    ctypes.memset(scratch, 0xA5, nbytes)  # it must be nobody's
    kind = what.matrices[2].args[0]
    dtype = np.dtype(_DTYPES[kind])
    wide = np.float64 if kind == 1 else np.float32
    last = [what.matrices[2]] * (len(addresses) - 2)  # the addend lies as the result does
    for number in range(what.count):
        views = [
            _columns(address + number * x.attributes.get(6, 0) * dtype.itemsize, *x.args)
            for address, x in zip(addresses, (*what.matrices[:2], *last), strict=True)
        ]
        sides = [
            (view.T if transposed else view).astype(wide)
            for view, transposed in zip(views, what.transposed)
        ]
        total = sides[0] @ sides[1]
        for view in views[2:-1]:
            total = total + view.astype(wide)
        if what.epilogue & _BIAS:
            block = (ctypes.c_uint8 * (what.m * dtype.itemsize)).from_address(what.bias)
            total = total + np.frombuffer(block, dtype).astype(wide)[:, None]
        if what.epilogue & _RELU:
            total = np.maximum(total, 0)
        views[-1][...] = (_gelu(total) if what.epilogue & _GELU else total).astype(dtype)
