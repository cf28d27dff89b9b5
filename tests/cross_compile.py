"""Host kernels built by other compilers, and for other processors and systems than this one.

    python tests/cross_compile.py                   every target, by the `ziglang` package (clang)
    python tests/cross_compile.py windows macos     the targets whose names contain one of these
    python tests/cross_compile.py --models          the kernels of small models of every kind too
    python tests/cross_compile.py --cc "clang-22 -mavx512f" gcc-11     these compilers instead

Kernels are planned as for a call, but only translated, with warnings as errors; nothing is run.
The targets need the package `ziglang` (`pip install ziglang`), which contains clang and the
headers of all systems. A test does the same with `representative()` where it is installed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from maxmod import CPU, DType, Tensor, TensorType, backends
from maxmod import functional as F
from maxmod.backends.host import build as host_build
from maxmod.backends.host import library as host_library
from maxmod.backends.host import quantize as host_quantize
from maxmod.compiler.pipeline import plan_graph
from maxmod.kernel import text as kernel_text
from maxmod.kernel.source import Dialect, KernelSource
from maxmod.models import adder_folder, load_encoder, load_model, load_vision_model
from maxmod.runtime.staging import trace_function

ASSETS = Path(__file__).parent / "assets"
ZIG = "zig.exe" if sys.platform == "win32" else "zig"

# -O0 runs the front end and the instruction selection, which is where a builtin or a vector type
# of another processor is refused; the optimiser takes most of the time and refuses nothing.
FLAGS = ("-O0", "-Wall", "-Wextra", "-Werror", "-c")
# What -Wextra says of text that is written by a program and meant so: arguments of the calling
# convention and loops over no element; GCC warns of alternatives in macros, clang of wide vectors
# passed to functions that are always inlined.
ALLOWED = (
    "-Wno-unused-parameter", "-Wno-unused-function", "-Wno-unused-variable", "-Wno-type-limits",
    "-Wno-sign-compare", "-Wno-psabi", "-Wno-unknown-pragmas", "-Wno-unused-but-set-variable",
    "-Wno-unused-command-line-argument", "-Wno-unknown-warning-option",
    "-Wno-missing-field-initializers",
)  # fmt: skip

# For each the instruction sets that select text in kernels/host.
TARGETS: Mapping[str, tuple[str, ...]] = {
    "linux-sse2": ("-target", "x86_64-linux-gnu", "-mcpu=x86_64"),
    "linux-avx": ("-target", "x86_64-linux-gnu", "-mcpu=sandybridge"),
    "linux-avx2": ("-target", "x86_64-linux-gnu", "-mcpu=haswell"),
    "linux-avxvnni": ("-target", "x86_64-linux-gnu", "-mcpu=alderlake"),
    "linux-avx512": ("-target", "x86_64-linux-gnu", "-mcpu=skylake_avx512"),
    "linux-vnni": ("-target", "x86_64-linux-gnu", "-mcpu=icelake_server"),
    "linux-bf16": ("-target", "x86_64-linux-gnu", "-mcpu=sapphirerapids"),
    "linux-arm": ("-target", "aarch64-linux-gnu", "-mcpu=generic"),
    "linux-dotprod": ("-target", "aarch64-linux-gnu", "-mcpu=neoverse_n1"),
    "linux-sve": ("-target", "aarch64-linux-gnu", "-mcpu=neoverse_v1"),
    "linux-riscv": ("-target", "riscv64-linux-musl", "-mcpu=generic_rv64+m+a+f+d+c"),
    "windows-sse2": ("-target", "x86_64-windows-gnu", "-mcpu=x86_64"),
    "windows-avx2": ("-target", "x86_64-windows-gnu", "-mcpu=haswell"),
    "windows-vnni": ("-target", "x86_64-windows-gnu", "-mcpu=icelake_server"),
    "windows-arm": ("-target", "aarch64-windows-gnu", "-mcpu=generic"),
    "macos-arm": ("-target", "aarch64-macos", "-mcpu=apple_m1"),
    "macos-x86": ("-target", "x86_64-macos", "-mcpu=haswell"),
}
QUICK = ("linux-bf16", "linux-dotprod", "windows-avx2", "macos-arm")


def zig() -> list[str] | None:
    """Returns the command of the compiler in the package `ziglang`, if that is installed."""
    spec = importlib.util.find_spec("ziglang")
    if spec is None or not spec.submodule_search_locations:
        return None
    return [str(Path(spec.submodule_search_locations[0]) / ZIG), "cc"]


# ---- kernels -------------------------------------------------------------------------------------


def planned(fn: Any, types: Sequence[object], weights: Mapping[str, Tensor]) -> list[KernelSource]:
    """Returns the host kernels of a function, none of which is built."""
    graph = trace_function(fn, types, name="f", parameters=weights).graph
    found = plan_graph(graph, Dialect.HOST, _run, lambda stage: contextlib.nullcontext())
    return list(found[1].kernels)


def _run(op: Any, arrays: Any, attrs: Any, types: Any) -> Any:
    return backends.run(op, arrays, attrs, types)


def representative() -> list[KernelSource]:
    """Returns kernels that together contain every file of `kernels/host`."""
    return [*_threads(), *_rounding(), *_products(), *_maps()]


def _threads() -> Iterator[KernelSource]:
    code = "\n".join(map(kernel_text.read, host_library.THREADS_FILES))
    yield KernelSource("threads", Dialect.HOST, code, "mm_set_threads", 0, 0)


def _rounding() -> Iterator[KernelSource]:
    for dtype, (stored, load) in host_quantize._STORED.items():
        front = f"#define MM_STORED {stored}\n#define MM_LOAD(code) {load}(code)\n\n"
        code = front + kernel_text.read("host/quantize.c")
        yield KernelSource(f"quantize_{dtype}", Dialect.HOST, code, "mm_quantize", 4, 3)


def _products() -> list[KernelSource]:
    """Products of every kind, and attention."""
    depth, group = 96, 32
    weight = Tensor(np.ones((40, depth), np.float32), device=CPU())
    types = [TensorType(DType.float32, ["rows", depth], CPU()), weight.type]
    int8 = [code.type for code in F.quantize_weight(weight, "int8")]
    int4 = [code.type for code in F.quantize_weight(weight, "int4", group)]

    def products(x: Tensor, w: Tensor, *codes: Tensor) -> list[Tensor]:
        q = F.unsqueeze(x, 0)
        return [
            F.quantized_linear(x, *codes[:2]),
            F.quantized_linear(x, *codes[2:]),
            F.relu(x @ w.T),
            x @ F.reshape(w, [depth, 40]),
            *(x.cast(dtype) @ w.cast(dtype).T for dtype in (DType.bfloat16, DType.float16)),
            F.scaled_dot_product_attention(q, q, q),
        ]

    return planned(products, [*types, *int8, *int4], {})


def _maps() -> list[KernelSource]:
    """Maps, rows, look-ups, choices, random numbers, integers and doubles."""
    dtypes = (DType.float32, DType.float64, DType.int64, DType.float8_e4m3fn)
    types = [TensorType(dtype, ["n", 768], CPU()) for dtype in dtypes]

    def maps(x: Tensor, y: Tensor, n: Tensor, z: Tensor) -> list[Any]:
        return [
            F.gelu(F.sin(x) + F.cos(x)) * F.exp(z.cast(DType.float32)),
            F.softmax(x.cast(DType.bfloat16)),
            F.layer_norm(x, x[0], x[0], 1e-5),
            F.argmax(x, axis=-1),
            F.gather(x, F.min(n, axis=-1), axis=0),
            F.sqrt(F.exp(y)) // 3.0,
            n // 7 % 5,
        ]

    return planned(maps, types, {})


def models() -> Iterator[KernelSource]:
    """Yields the kernels of a small model of each kind, in every dtype and quantised."""
    folders = (Path(adder_folder()), ASSETS / "gpt2" / "tied", ASSETS / "llama" / "llama32")
    for folder in folders:
        for dtype in (DType.float32, DType.bfloat16, DType.float16):
            for scheme in (None, "int8", *(("int4",) if folder.name == "tied" else ())):
                model = load_model(folder, device=CPU(), dtype=dtype, quantize=scheme)
                yield from _of_module(model.module, [model.tokens_type])
    for dtype in (DType.float32, DType.bfloat16, DType.float16):
        vision = load_vision_model(ASSETS / "vit" / "classifier", device=CPU(), dtype=dtype)
        yield from _of_module(vision._probabilities(), [vision.pixels_type])
        encoder = load_encoder(ASSETS / "bert" / "sentences", device=CPU(), dtype=dtype)
        tokens = TensorType(DType.int64, ["texts", "length"], CPU())
        yield from _of_module(encoder.module, [tokens, TensorType(DType.int64, ["texts"], CPU())])


def _of_module(module: Any, types: Sequence[object]) -> list[KernelSource]:
    return planned(module, types, dict(module.parameters))


# ---- building ------------------------------------------------------------------------------------


def options() -> list[str]:
    """Returns the options of every kernel that concern the language, and `FLAGS`."""
    always = [flag for flag in host_build._ALWAYS if flag not in ("-O3", "-shared", "-fPIC")]
    return [*always, "-fopenmp-simd", *FLAGS, *ALLOWED]


def refusal(command: Sequence[str], source: KernelSource) -> str:
    """Translates a kernel, and returns what a compiler says about it: nothing, if all is well.

    Args:
        command: The compiler with its target.
        source: The kernel.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.c"
        path.write_text(source.full_text(), "utf-8")
        words = [*command, *options(), *source.options]
        done = subprocess.run(
            [*words, str(path), "-o", str(Path(folder) / "kernel.o")],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            env={**os.environ, "LC_ALL": "C"},
        )  # fmt: skip
    return done.stdout.strip() or (f"status {done.returncode}" if done.returncode else "")


def refusals(command: Sequence[str], sources: Sequence[KernelSource]) -> dict[str, str]:
    """Returns what a compiler says about kernels, by their names; nothing of those that pass."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = pool.map(functools.partial(refusal, command), sources)
    return {source.name: text for source, text in zip(sources, said, strict=True) if text}


def _commands(arguments: argparse.Namespace) -> dict[str, list[str]]:
    if arguments.cc:
        return {command: command.split() for command in arguments.cc}
    command = zig()
    if command is None:
        raise SystemExit("cross_compile: needs ziglang: pip install ziglang.")
    wanted = arguments.targets or [""]
    names = [name for name in TARGETS if any(part in name for part in wanted)]
    return {name: [*command, *TARGETS[name]] for name in names}


def main(words: Sequence[str]) -> int:
    """Builds what the command line names; returns the number of targets that refuse a kernel."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("targets", nargs="*", help="parts of the names of targets")
    parser.add_argument("--cc", action="append", help="a compiler with options, instead of targets")
    parser.add_argument("--models", action="store_true", help="the kernels of small models too")
    arguments = parser.parse_args(words)
    sources = [*representative(), *(models() if arguments.models else ())]
    unique = list({(source.plain, source.options): source for source in sources}.values())
    failed = 0
    for name, command in _commands(arguments).items():
        found = refusals(command, unique)
        print(f"{name}: {len(unique)} kernels, {len(found)} refused", flush=True)
        for kernel, text in found.items():
            print(f"  {kernel}: " + "\n    ".join(text.splitlines()[:12]))
        failed += bool(found)
    return failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
