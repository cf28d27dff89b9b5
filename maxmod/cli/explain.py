"""`maxmod explain`: shows the steps, kernels and memory plan of a compiled model."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

from maxmod.cli.arguments import add_device, add_model, add_quantize
from maxmod.errors import ArgumentError

if TYPE_CHECKING:
    from maxmod.models import LanguageModel
    from maxmod.runtime.compiled import CompiledModel

_HINT = """\
maxmod explain --source N shows the text of kernel N, --graph the graph, --all everything,
--html FILE writes a page with charts, --measure adds times"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Compiles one step of a language model and shows the result: the steps of a call with "
        "their bytes, the kernels and why they were fused, and the memory plan."
    )
    add_model(parser)
    add = parser.add_argument
    add(
        "--step",
        choices=["decode", "prefill", "forward"],
        default="decode",
        help="one new token, a prompt, or a forward pass without KV cache (default: decode)",
    )
    add("--batch", metavar="N", type=int, default=1, help="sequences (default: 1)")
    add("--seq", metavar="N", type=int, default=16, help="tokens in the prompt (default: 16)")
    add("--length", metavar="N", type=int, default=64, help="rows of the KV cache (default: 64)")
    add("--source", metavar="N", type=int, help="show only the source of kernel N")
    add("--graph", action="store_true", help="show the graph too")
    add("--all", action="store_true", help="show everything, including sources")
    add("--html", metavar="FILE", help="write everything to an HTML page with charts, and exit")
    add("--measure", action="store_true", help="run the step and show timings")
    add_device(parser)
    add_quantize(parser)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import chosen_device, chosen_dtype, chosen_folder, rounding
    from maxmod.models import load_model

    for name in ("batch", "seq", "length"):
        if getattr(options, name) < 1:
            raise ArgumentError(f"explain: --{name}: expected 1 or more.")
    model = load_model(
        chosen_folder("explain", options.model),
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        **rounding(options),
    )
    compiled = _compiled(model, options)
    sizes = {"batch": options.batch, "seq": options.seq}
    sizes["length"] = max(options.length, options.seq)
    found = compiled.explanation(measure=options.measure, **sizes)
    if options.html is not None:
        return _write(options.html, found.html())
    if options.source is not None:
        count = len(compiled.kernels)
        if not 0 <= options.source < count:
            raise ArgumentError(
                f"explain: --source: there is no kernel {options.source}: expected 0 to "
                f"{count - 1}."
                if count
                else "explain: --source: there are no kernels: ops run one by one."
            )
        print(found.kernel(options.source))
        return 0
    print(found.summary())
    print(textwrap.fill(_compiling(model, compiled), found.width, subsequent_indent="    "))
    if options.all:
        print(f"\n{found}")
        return 0
    if options.graph:
        print(f"\n== graph\n{found.graph()}")
    print(f"\n== steps\n{found.steps(fold=True)}")
    for number in range(len(compiled.kernels)):
        print(f"\n{found.kernel(number, source=False)}")
    print(f"\n== memory\n{found.memory_text()}\n\n{_HINT}")
    return 0


def _write(path: str, page: str) -> int:
    """Writes the page and returns the exit code."""
    from maxmod.compiler.units import scaled

    try:
        Path(path).write_text(page, "utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise ArgumentError(f"explain: --html: cannot write {path}: {reason}.") from None
    print(f"written: {path} ({scaled(len(page.encode()), 'B')})")
    return 0


def _compiled(model: LanguageModel, options: argparse.Namespace) -> CompiledModel:
    if options.step == "forward":
        return model.module.compile(model.tokens_type)
    return model.step(batch=options.batch, seq=1 if options.step == "decode" else options.seq)


def _compiling(model: LanguageModel, compiled: CompiledModel) -> str:
    """How long compiling took, and where kernels came from."""
    from maxmod.cli.options import kernels_text

    stages = ", ".join(f"{stage} {time_s:.3f}" for stage, time_s in compiled.stats.times_s.items())
    return (
        f"compiled in {compiled.stats.compile_s:.3f} s for {model.device} {model.dtype.name} "
        f"({kernels_text([compiled])}): {stages}"
    )
