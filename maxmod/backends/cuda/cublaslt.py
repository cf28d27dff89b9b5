"""cuBLASLt, called through ctypes: products with cached plans, on any stream, also while a CUDA
graph is captured, with a bias and an activation as epilogue.

A plan holds the descriptors and the algorithm that the library chose for them. The workspace comes
from CuPy's pool for the time of a call: the pool reuses it only for later work of the same stream,
and while a graph is captured the pool belongs to the graph.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from maxmod import log
from maxmod.backends.cuda import libraries as cuda_libraries
from maxmod.errors import LibraryError
from maxmod.values.array import ArrayModule

# From library_types.h, cublas_api.h and cublasLt.h of CUDA 12 and 13.
FLOAT32, FLOAT64, FLOAT16, BFLOAT16 = 0, 1, 2, 14
COMPUTE_32F, COMPUTE_64F = 68, 70
DESC_TRANSA, DESC_TRANSB, DESC_EPILOGUE, DESC_BIAS_POINTER = 3, 4, 7, 8
LAYOUT_BATCH_COUNT, LAYOUT_BATCH_STEP = 5, 6
PREFERENCE_WORKSPACE, PREFERENCE_ALIGNMENT = 1, 5  # alignment: of A, then B, C and D
# Parts of an epilogue; none of them is EPILOGUE_DEFAULT.
ACTIVATION_BITS = {"": 0, "relu": 2, "gelu": 32}  # gelu by tanh
BIAS_BIT = 4
EPILOGUE_DEFAULT = 1
ALIGNMENT = 256  # more does not help; cudaMalloc gives as much

# What NVIDIA recommends for Hopper and newer, and for others (cuBLAS manual, cublasSetWorkspace).
WORKSPACE_NBYTES = {True: 32 << 20, False: 4 << 20}
_HOPPER = 90
_NOT_SUPPORTED = 15  # CUBLAS_STATUS_NOT_SUPPORTED: there is no algorithm

_FUNCTIONS = {
    "cublasLtCreate": "p",
    "cublasLtMatmulDescCreate": "pii",
    "cublasLtMatmulDescDestroy": "p",
    "cublasLtMatmulDescSetAttribute": "pipn",
    "cublasLtMatrixLayoutCreate": "piuul",
    "cublasLtMatrixLayoutDestroy": "p",
    "cublasLtMatrixLayoutSetAttribute": "pipn",
    "cublasLtMatmulPreferenceCreate": "p",
    "cublasLtMatmulPreferenceDestroy": "p",
    "cublasLtMatmulPreferenceSetAttribute": "pipn",
    "cublasLtMatmulAlgoGetHeuristic": "pppppppipp",
    "cublasLtMatmul": "ppppppppppppppnp",
}
_KINDS = {
    "p": ctypes.c_void_p,
    "i": ctypes.c_int,
    "n": ctypes.c_size_t,
    "u": ctypes.c_uint64,
    "l": ctypes.c_int64,
}


_Number = ctypes.c_int32 | ctypes.c_int64 | ctypes.c_uint32 | ctypes.c_uint64 | ctypes.c_void_p


class UnansweredError(LibraryError):
    """The library could not say which algorithm fits: it may if it is asked again.

    Version 13.3 answers nothing while a stream captures (status 14), though products themselves can
    be captured.
    """


class Heuristic(ctypes.Structure):
    """`cublasLtMatmulHeuristicResult_t`: an algorithm and its requirements."""

    _fields_ = (
        ("algorithm", ctypes.c_uint64 * 8),
        ("workspace_nbytes", ctypes.c_size_t),
        ("state", ctypes.c_int),
        ("waves", ctypes.c_float),
        ("reserved", ctypes.c_int * 4),
    )


class Epilogue(NamedTuple):
    """What follows a product: D = activation(A B + C + bias).

    Attributes:
        has_bias: Whether a vector of D.rows elements is added to each column.
        has_addend: Whether there is a C; it has the layout of D.
        activation: A key of `ACTIVATION_BITS`.
    """

    has_bias: bool = False
    has_addend: bool = False
    activation: str = ""

    @property
    def number(self) -> int:
        """The number of the library."""
        bits = ACTIVATION_BITS[self.activation] | (BIAS_BIT if self.has_bias else 0)
        return bits or EPILOGUE_DEFAULT


NO_EPILOGUE = Epilogue()


class Matrix(NamedTuple):
    """A matrix of columns, and how many of them follow one another.

    Attributes:
        rows: Elements of a column.
        columns: Number of columns.
        leading: Elements from one column to the next.
        count: Number of matrices.
        step: Elements from one matrix to the next.
        alignment: Bytes that divide the address of each matrix.
    """

    rows: int
    columns: int
    leading: int
    count: int
    step: int
    alignment: int


@functools.cache
def load(major: int) -> ctypes.CDLL | None:
    """Returns the functions of the library, or None if it cannot be loaded.

    Args:
        major: The version of CUDA to prefer: that of CuPy.
    """
    path = cuda_libraries.find("cublasLt", major)
    try:
        if path is None:
            raise OSError("libcublasLt was not found")
        library = ctypes.CDLL(path)
        for name, kinds in _FUNCTIONS.items():
            getattr(library, name).argtypes = [_KINDS[kind] for kind in kinds]
    except (OSError, AttributeError) as error:
        log.show(log.DEVICES, "products through CuPy, because cuBLASLt cannot be used: %s", error)
        return None
    log.show(log.DEVICES, "cuBLASLt: %s", path)
    return library


class Products:
    """The products of one device, which must be current in every call.

    Args:
        cupy: The module.
        library: The functions, from `load`.
        capability: Of the device, 90 for Hopper.
    """

    def __init__(self, cupy: ArrayModule, library: ctypes.CDLL, capability: int) -> None:
        self.cupy = cupy
        self.library = library
        self.workspace_nbytes = WORKSPACE_NBYTES[capability >= _HOPPER]
        self.lock = threading.Lock()  # of plans whose bias is set for each call
        self.handle = ctypes.c_void_p()
        check(library.cublasLtCreate(ctypes.byref(self.handle)), "cublasLtCreate")

    def plan(
        self,
        kind: int,
        transposed: tuple[int, int],
        matrices: Sequence[Matrix],
        epilogue: Epilogue = NO_EPILOGUE,
        bias: int = 0,
    ) -> Plan | None:
        """Returns a plan for D = op(A) op(B), or None if the library has no algorithm.

        Args:
            kind: cudaDataType of all matrices.
            transposed: For A and B, 1 to transpose.
            matrices: A, B, C and D; C differs from D in its alignment only.
            epilogue: The epilogue.
            bias: An address with the alignment that the bias of each call will have.

        Raises:
            UnansweredError: If the library fails to choose.
        """
        plan = Plan(self, kind, transposed, matrices, epilogue)
        return plan if plan.choose(matrices, bias) else None


class Plan:
    """Descriptors of a product, and the algorithm for it."""

    def __init__(
        self,
        products: Products,
        kind: int,
        transposed: tuple[int, int],
        matrices: Sequence[Matrix],
        epilogue: Epilogue,
    ) -> None:
        self._products = products
        self._library = library = products.library
        self._made: list[
            tuple[Callable[[ctypes.c_void_p], int], ctypes.c_void_p]
        ] = []  # (what destroys it, object)
        is_double = kind == FLOAT64
        number = ctypes.c_double if is_double else ctypes.c_float
        self._one, self._beta = number(1), number(int(epilogue.has_addend))
        compute, scale = (COMPUTE_64F, FLOAT64) if is_double else (COMPUTE_32F, FLOAT32)
        self._operation = self._make("MatmulDesc", compute, scale)
        for name, value in zip((DESC_TRANSA, DESC_TRANSB), transposed, strict=True):
            self._set("MatmulDesc", self._operation, name, ctypes.c_int32(value))
        self.has_bias = epilogue.has_bias
        if epilogue.number != EPILOGUE_DEFAULT:
            number = ctypes.c_int32(epilogue.number)
            self._set("MatmulDesc", self._operation, DESC_EPILOGUE, number)
        a, b, _, d = matrices
        self._layouts = [self._layout(kind, matrix) for matrix in (a, b, d)]
        self._heuristic = Heuristic()
        self._call = library.cublasLtMatmul

    def _make(self, what: str, *args: int) -> ctypes.c_void_p:
        made = ctypes.c_void_p()
        name = f"cublasLt{what}Create"
        check(getattr(self._library, name)(ctypes.byref(made), *args), name)
        self._made.append((getattr(self._library, f"cublasLt{what}Destroy"), made))
        return made

    def _set(self, what: str, target: ctypes.c_void_p, name: int, value: _Number) -> None:
        function = f"cublasLt{what}SetAttribute"
        set_attribute = getattr(self._library, function)
        check(set_attribute(target, name, ctypes.byref(value), ctypes.sizeof(value)), function)

    def _layout(self, kind: int, matrix: Matrix) -> ctypes.c_void_p:
        layout = self._make("MatrixLayout", kind, matrix.rows, matrix.columns, matrix.leading)
        if matrix.count > 1:
            what = "MatrixLayout"
            self._set(what, layout, LAYOUT_BATCH_COUNT, ctypes.c_int32(matrix.count))
            self._set(what, layout, LAYOUT_BATCH_STEP, ctypes.c_int64(matrix.step))
        return layout

    def prefer(self, workspace_nbytes: int, alignments: Sequence[int]) -> ctypes.c_void_p:
        """Sets the workspace limit of an algorithm and the alignments of A, B, C and D."""
        what = "MatmulPreference"
        preference = self._make(what)
        self._set(what, preference, PREFERENCE_WORKSPACE, ctypes.c_uint64(workspace_nbytes))
        for number, alignment in enumerate(alignments, PREFERENCE_ALIGNMENT):
            self._set(what, preference, number, ctypes.c_uint32(alignment))
        return preference

    def choose(self, matrices: Sequence[Matrix], bias: int) -> bool:
        """Asks the library for an algorithm; false if there is none.

        Raises:
            UnansweredError: If the library does not know.
        """
        library = self._library
        alignments = [matrix.alignment for matrix in matrices]
        preference = self.prefer(self._products.workspace_nbytes, alignments)
        if self.has_bias:  # cuBLASLt reads the alignment from the address
            self._set("MatmulDesc", self._operation, DESC_BIAS_POINTER, ctypes.c_void_p(bias))
        found = ctypes.c_int()
        a, b, d = self._layouts
        status = library.cublasLtMatmulAlgoGetHeuristic(
            self._products.handle,
            self._operation,
            *(a, b, d, d),
            preference,
            1,
            ctypes.byref(self._heuristic),
            ctypes.byref(found),
        )
        if status not in (0, _NOT_SUPPORTED):
            name = "cublasLtMatmulAlgoGetHeuristic"
            raise UnansweredError(f"{name} failed with status {status} (cublasStatus_t).")
        return status == 0 and found.value == 1 and self._heuristic.state == 0

    def __call__(self, a: int, b: int, d: int, stream: int, bias: int = 0, c: int = 0) -> None:
        """Computes, on addresses of the device; without an addend, `c` is not read."""
        nbytes = self._heuristic.workspace_nbytes
        scratch = self._products.cupy.cuda.alloc(nbytes) if nbytes else None
        with self._products.lock if self.has_bias else contextlib.nullcontext():
            if self.has_bias:
                self._set("MatmulDesc", self._operation, DESC_BIAS_POINTER, ctypes.c_void_p(bias))
            first, second, result = self._layouts
            status = self._call(
                self._products.handle,
                self._operation,
                *(ctypes.byref(self._one), a, first, b, second),
                *(ctypes.byref(self._beta), c or d, result, d, result),
                ctypes.byref(self._heuristic),  # starts with the algorithm
                None if scratch is None else scratch.ptr,
                nbytes,
                stream,
            )
        check(status, "cublasLtMatmul")

    def __del__(self) -> None:
        for destroy, made in self._made:
            destroy(made)


def check(status: int, function: str) -> None:
    """Raises if a call failed."""
    if status:
        raise LibraryError(f"{function} failed with status {status} (cublasStatus_t).")
