"""Loading weights: 500 MB of safetensors, against reading the file once.

    python benchmarks/load.py [--megabytes 500] [--folder DIR] [--cold] [--smoke]

The file has the tensors of a transformer (float32, a few MB each) and is written to `--folder`
first, a temporary folder by default. It is then in the page cache, so what is measured is
copying and first touch of memory, not the disk; `--cold` asks the system to forget it before each
call (`posix_fadvise`), so that the disk counts.

- read once, into memory that exists: the limit. Into new memory: what a copying loader can reach,
  since every page of the weights is touched for the first time.
- maxmod, every tensor: `open_checkpoint` and all of its tensors, as `load_state_dict` gets them.
- maxmod, mmap: views of the mapped file, and one read of every element (a sum over int64), without
  which nothing would have been read at all.
- maxmod, into a model: a declared model (`F.lazy`), `load_state_dict`.
- safetensors: `safetensors.numpy.load_file`; PyTorch: `safetensors.torch.load_file`.

Every loader drops its tensors before the next call.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
import numpy as np
from harness import Call
from safetensors.numpy import load_file

from maxmod import Module, Tensor
from maxmod import functional as F
from maxmod.weights import open_checkpoint, save_state

WIDTH = 1024
LAYER = {"attention": (3 * WIDTH, WIDTH), "output": (WIDTH, WIDTH), "norm": (WIDTH,)}


class Holder(Module[[Tensor], Tensor]):
    """A module with one parameter for each tensor of the file."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        for name, shape in shapes.items():
            setattr(self, name, Tensor.zeros(shape))


def make_shapes(megabytes: float) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of about this much float32, by name."""
    layer_nbytes = 4 * sum(int(np.prod(shape)) for shape in LAYER.values())
    layers = max(1, round(megabytes * 1e6 / layer_nbytes))
    return {f"{name}_{i}": shape for i in range(layers) for name, shape in LAYER.items()}


def write_file(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Writes random tensors."""
    arrays = {name: harness.normal(shape, seed=i) for i, (name, shape) in enumerate(shapes.items())}
    save_state(arrays, path)


def read_into_kept(path: Path) -> Call:
    """Returns a call that reads the file into memory that was touched before."""
    buffer = np.zeros(path.stat().st_size, np.uint8)
    return lambda: _read(path, buffer)


def read_into_new(path: Path) -> Call:
    """Returns a call that reads the file into new memory."""
    return lambda: _read(path, np.empty(path.stat().st_size, np.uint8))


def _read(path: Path, buffer: np.ndarray[Any, Any]) -> None:
    view = memoryview(buffer)
    with open(path, "rb", buffering=0) as file:
        position = 0
        while position < len(view):
            position += file.readinto(view[position:])


def every_tensor(path: Path) -> Any:
    """Reads all tensors with maxmod."""
    with open_checkpoint(path) as checkpoint:
        return [checkpoint[name] for name in checkpoint]


def every_element_mapped(path: Path) -> int:
    """Maps the file with maxmod and reads every element."""
    total = 0
    with open_checkpoint(path, mmap=True) as checkpoint:
        for name in checkpoint:
            total += int(checkpoint[name].to_numpy().view(np.int64).sum())
    return total


def into_model(path: Path, shapes: dict[str, tuple[int, ...]]) -> Any:
    """Declares a model and loads it."""
    with F.lazy():
        model = Holder(shapes)
    with open_checkpoint(path) as checkpoint:
        model.load_state_dict(checkpoint)
    return model


def torch_loader(path: Path) -> Call:
    """Returns a call of the loader that PyTorch users use."""
    from safetensors.torch import load_file as load_torch_file

    return lambda: load_torch_file(path)


def forget(path: Path) -> None:
    """Asks the system to drop a file from the page cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def check_contents(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Compares what maxmod loads with what safetensors loads."""
    expected = load_file(path)
    model = into_model(path, shapes)
    for name, parameter in model.parameters:
        harness.check(name, parameter, expected[name])


def contenders(
    path: Path, shapes: dict[str, Any], chosen: list[str], cold: bool
) -> dict[str, Call]:
    """Returns the calls by name; the limit comes first."""
    calls: dict[str, Call] = {
        "limit: read once": read_into_kept(path),
        "read into new memory": read_into_new(path),
        "maxmod, every tensor": lambda: every_tensor(path),
        "maxmod, mmap": lambda: every_element_mapped(path),
        "maxmod, into a model": lambda: into_model(path, shapes),
        "safetensors": lambda: load_file(path),
    }
    if "torch" in chosen:
        calls["PyTorch"] = torch_loader(path)
    return {name: _after_forgetting(path, call) for name, call in calls.items()} if cold else calls


def _after_forgetting(path: Path, call: Callable[[], Any]) -> Call:
    def cold_call() -> Any:
        forget(path)
        return call()

    return cold_call


def main() -> None:
    parser = harness.parser(__doc__)
    parser.add_argument("--megabytes", type=float, default=500, help="size of the file")
    parser.add_argument("--folder", type=Path, help="where to write it")
    parser.add_argument("--cold", action="store_true", help="read from the disk every time")
    args = harness.parse(parser)
    facts = harness.machine(args.peers)
    harness.print_facts(facts)
    shapes = make_shapes(1 if args.smoke else args.megabytes)
    with tempfile.TemporaryDirectory(prefix="maxmod-bench-", dir=args.folder) as folder:
        path = Path(folder, "model.safetensors")
        write_file(path, shapes)
        check_contents(path, shapes)
        calls = contenders(path, shapes, args.peers, args.cold)
        timings = harness.measure(calls, args.rounds)
        title = f"{path.stat().st_size / 1e6:.0f} MB, {len(shapes)} tensors"
        nbytes = path.stat().st_size
    base = timings["limit: read once"]
    rows = [
        (
            name,
            harness.duration(timing.median_s),
            harness.duration(timing.best_s),
            f"{nbytes / timing.median_s / 1e9:.2f}",
            harness.ratio(timing.median_s, base.median_s),
        )
        for name, timing in timings.items()
    ]
    harness.print_table((title, "median", "best", "GB/s", "x limit"), rows)
    records = [harness.record(t, contender=c, nbytes=nbytes) for c, t in timings.items()]
    harness.save(args, "load", facts, records)


if __name__ == "__main__":
    main()
