"""Kernels that follow each other, by one foreign call: see `kernels/host/chain.c`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from maxmod.backends.host import compiler as host_compiler
from maxmod.backends.host.launch import HostLaunch, address
from maxmod.values.array import HostArray


class HostChain:
    """Launches as one call; see `maxmod.backends.base.Backend.chain` for the arguments."""

    def __init__(
        self,
        launches: Sequence[HostLaunch],
        fillings: Sequence[tuple[int, int, int]],
        flags: Mapping[int, HostArray],
    ) -> None:
        self._run = host_compiler.chain_function()
        self._launches = launches
        self._flags = dict(flags)
        count = 1 + max((number for *_, number in fillings), default=-1)
        self._arguments = np.zeros(count, np.uintp)
        self._links = np.array(
            [launch.link(flags.get(n)) for n, launch in enumerate(launches)], np.uintp
        )
        self._fillings = np.array(
            [(launches[n].place(position), number) for n, position, number in fillings], np.uintp
        )
        self._words = np.array(
            [
                address(self._links),
                len(launches),
                address(self._fillings),
                len(fillings),
                address(self._arguments),
            ],
            np.uintp,
        )
        self._chain = address(self._words)

    def __call__(self, done: int, addresses: Sequence[int]) -> int:
        if done == 0 and addresses:
            self._arguments[:] = addresses
        done = self._run(self._chain, done)
        self._launches[done - 1].expect_memory()
        return done
