"""What each process of `test_parallel.py` runs: `mpirun ... child.py RESULT JOB ARGUMENTS...`.

Rank 0 writes what it found to RESULT as JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

import maxmod
from maxmod import CPU, DType, Tensor
from maxmod.distributed import Group, world
from maxmod.errors import MaxmodError
from maxmod.generate import generate
from maxmod.kernel import cache as kernel_cache
from maxmod.models import load_model, loading
from maxmod.weights import Checkpoint, open_checkpoint

PROMPT = [5, 7, 9, 11, 3, 2]


def most(group: Group, number: int) -> int:
    return -group.least(-number)


def logits_error(folder: str, group: Group) -> float:
    """The largest difference from the logits of transformers, in units of their spread."""
    module = load_model(folder, dtype=DType.float32, device=CPU(), group=group).module
    with np.load(Path(folder) / "golden.npz") as data:
        tokens, wanted = data["input_ids_0"], data["logits_0"]
    found = module(Tensor(tokens.astype(np.int64), device=CPU())).to_numpy()
    assert found.shape == wanted.shape
    return float(np.abs(found - wanted).max() / np.std(wanted))


def families(group: Group, *folders: str) -> dict[str, Any]:
    """Logits of each folder; those of most are computed op by op."""
    return {folder: logits_error(folder, group) for folder in folders}


def tokens_of(folder: str, group: Group | None, **options: Any) -> list[int]:
    rounding = {"quantize": options.pop("quantize")} if "quantize" in options else {}
    model = load_model(folder, dtype=DType.float32, device=CPU(), group=group, **rounding)
    return list(generate(model, PROMPT, max_new_tokens=8, stop=(), **options))


def texts(group: Group, *folders: str) -> dict[str, Any]:
    """Compiled generation, beside that of one process; drawn tokens, without a seed in common."""
    found: dict[str, Any] = {}
    for folder in folders:
        plans: list[str] = []
        make_key = kernel_cache.make_key

        def spy(
            kind: Any, *parts: Any, plans: Any = plans, make: Any = make_key, **more: Any
        ) -> Any:
            if kind == "plan":
                plans.extend(parts)
            return make(kind, *parts, **more)

        kernel_cache.make_key = spy
        together = tokens_of(folder, group, greedy=True)
        kernel_cache.make_key = make_key
        drawn = tokens_of(folder, group, temperature=1.0, seed=group.rank)
        texts_of_first = group.share((together, drawn, plans))
        is_same = texts_of_first == (together, drawn, plans)
        found[folder] = {
            "together": together,
            "alone": tokens_of(folder, None, greedy=True) if group.rank == 0 else None,
            "plans": len(plans),
            "same": group.least(is_same),
        }
    return found


def quantised(group: Group, original: str, *stored: str) -> dict[str, Any]:
    """Rounded weights: as they were saved, and rounded while they are read."""
    found: dict[str, Any] = {}
    for folder, options in [*((name, {}) for name in stored), (original, {"quantize": "int8"})]:
        together = tokens_of(folder, group, greedy=True, eager=True, **options)
        alone = tokens_of(folder, None, greedy=True, eager=True, **options)
        found[folder] = {"together": together, "alone": alone}
    return found


def reads(group: Group, folder: str) -> dict[str, Any]:
    """The most bytes that a process reads of a folder, and the bytes of its tensors."""
    opened: list[Checkpoint] = []

    def open_and_keep(path: Any) -> Checkpoint:
        opened.append(open_checkpoint(path))
        return opened[-1]

    loading.open_checkpoint = open_and_keep
    load_model(folder, device=CPU(), group=group)
    return {"read": most(group, opened[0].nbytes_read), "all": opened[0].nbytes()}


def refused(group: Group, *folders: str) -> dict[str, Any]:
    """The errors of folders that so many processes cannot divide."""
    found = {}
    for folder in folders:
        try:
            load_model(folder, group=group)
            found[folder] = ""
        except MaxmodError as error:
            found[folder] = str(error)
    return found


def raises(group: Group, folder: str) -> None:
    """One process raises while the other waits for a sum."""
    if group.rank == 1:
        raise ValueError("rank 1 has had enough")
    load_model(folder, dtype=DType.float32, device=CPU(), group=group).module(
        Tensor([PROMPT], dtype=DType.int64, device=CPU())
    )


JOBS = {job.__name__: job for job in (families, texts, quantised, reads, refused, raises)}


def main(result: str, jobs: str) -> None:
    group = world()
    found = {}
    with maxmod.configure(verify=False):
        for name, arguments in json.loads(jobs):
            found[name] = JOBS[name](group, *arguments)
    if group.rank == 0:
        Path(result).write_text(json.dumps(found), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
