"""The command `maxmod`. Each subcommand is a module here, imported when it is asked for."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

from maxmod.errors import MaxmodError, MaxmodWarning

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
EXIT_BROKEN_PIPE = 141  # 128 + SIGPIPE


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        arguments: What stands after the name of the command; those of the process by default.

    Returns:
        The exit code: 0, or 1 for an error, 2 for wrong usage, 130 after Ctrl-C.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return EXIT_USAGE
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", MaxmodWarning)
            warnings.showwarning = _show_warning
            code = _run(options)
            sys.stdout.flush()
            return code
    except KeyboardInterrupt:
        print("\nmaxmod: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone. Python must not find that out again when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_BROKEN_PIPE
    except (MaxmodError, OSError, MemoryError) as error:
        if options.debug:
            raise
        print(f"maxmod: error: {error or type(error).__name__}", file=sys.stderr)
        return EXIT_ERROR


def _run(options: argparse.Namespace) -> int:
    if options.command == "generate":
        from maxmod.cli import generate

        return generate.run(options)
    if options.command == "embed":
        from maxmod.cli import embed

        return embed.run(options)
    if options.command == "classify":
        from maxmod.cli import classify

        return classify.run(options)
    if options.command == "inspect":
        from maxmod.cli import inspect

        return inspect.run(options)
    if options.command == "quantize":
        from maxmod.cli import quantize

        return quantize.run(options)
    if options.command == "run":
        from maxmod.cli import run

        return run.run(options)
    if options.command == "cache":
        from maxmod.cli import cache

        return cache.run(options)
    if options.command == "explain":
        from maxmod.cli import explain

        return explain.run(options)
    if options.command == "bench":
        from maxmod.cli import bench

        return bench.run(options)
    from maxmod.cli import doctor

    return doctor.run(options)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Shows our own warnings as one line, and others as Python does."""
    if issubclass(category, MaxmodWarning):
        print(f"maxmod: note: {message}", file=sys.stderr)
    else:
        sys.stderr.write(warnings.formatwarning(message, category, filename, lineno, line))


class _Version(argparse.Action):
    """Prints the version; it is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *args: object, **kwargs: object) -> None:
        from maxmod.config import __version__

        print(f"maxmod {__version__}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="maxmod", description="Inference with pretrained weights, on any CPU or an NVIDIA GPU."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    _add_generate(commands)
    _add_embed(commands)
    _add_classify(commands)
    _add_run(commands)
    _add_explain(commands)
    _add_bench(commands)
    _add_quantized_folder(commands)
    inspect = commands.add_parser("inspect", help="show what is in a file or folder of weights")
    inspect.add_argument("path", metavar="PATH", help="a model folder or .safetensors file")
    inspect.add_argument("--all", action="store_true", help="list the tensors of each layer")
    doctor = commands.add_parser("doctor", help="show versions, devices, compiler and cache")
    cache = commands.add_parser("cache", help="show or clear the cache of built kernels")
    cache.add_argument("action", choices=["info", "clear", "path"], help="what to do")
    for command in (inspect, doctor, cache):
        _add_debug(command)
    return parser


def _add_debug(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser(
        "run",
        help="run a script written for MAX",
        description="Runs a script written for MAX: its imports of max find maxmod.",
    )
    run.add_argument("--force", action="store_true", help="even if a package max is installed")
    run.add_argument("script", metavar="SCRIPT", help="path of the script")
    run.add_argument(
        "arguments", metavar="ARGS", nargs=argparse.REMAINDER, help="arguments of the script"
    )
    _add_debug(run)


def _add_generate(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    generate = commands.add_parser(
        "generate",
        help="continue a text",
        description="Continues a text with a pretrained model. The new text goes to the standard "
        "output, one line of timing to the standard error.",
    )
    add = generate.add_argument
    add("prompt", metavar="PROMPT", help='the text to continue, such as "123+456="')
    add("--model", metavar="FOLDER", help="a Hugging Face folder (default: a model that adds)")
    add("--max-new-tokens", metavar="N", type=int, default=100, help="default: 100")
    _add_placement(generate)
    _add_quantize(generate)
    add("--temperature", metavar="T", type=float, default=0.0, help="0: the most likely token")
    add("--top-k", metavar="K", type=int, default=0, help="draw from the K most likely tokens only")
    add("--top-p", metavar="P", type=float, default=1.0, help="from the most likely, P in total")
    add("--min-p", metavar="P", type=float, default=0.0, help="from those P times the likeliest")
    add("--repetition-penalty", metavar="R", type=float, default=1.0, help="above 1: repeat less")
    add("--seed", metavar="S", type=int, default=0, help="of the random numbers (default: 0)")
    add("--stop", metavar="TEXT", action="append", default=[], help="end before TEXT; repeatable")
    add("--chat", action="store_true", help="PROMPT is a message to a chat model, which answers")
    add("--system", metavar="TEXT", help="with --chat: a message that comes before PROMPT")
    add(
        "--token-ids",
        action="store_true",
        help="PROMPT is token ids, such as '15 20 7'; ids are printed; needs no tokenizer",
    )
    _add_debug(generate)


def _add_embed(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    embed = commands.add_parser(
        "embed",
        help="turn texts into vectors",
        description="Turns texts into vectors with a pretrained encoder: one line of JSON for each "
        "text on the standard output, one line of timing on the standard error.",
    )
    embed.add_argument("texts", metavar="TEXT", nargs="+", help="a text")
    embed.add_argument("--model", metavar="FOLDER", required=True, help="a folder of a BERT")
    embed.add_argument("--truncate", action="store_true", help="cut texts that are too long")
    _add_placement(embed)
    _add_quantize(embed)
    _add_debug(embed)


def _add_classify(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    classify = commands.add_parser(
        "classify",
        help="name what is in images",
        description="Prints the most likely labels of images, each with its probability, on the "
        "standard output; one line of timing on the standard error.",
    )
    classify.add_argument("images", metavar="IMAGE", nargs="+", help="an image file")
    classify.add_argument("--model", metavar="FOLDER", required=True, help="a folder of a ViT")
    classify.add_argument("--top", metavar="N", type=int, default=5, help="labels (default: 5)")
    _add_placement(classify)
    _add_quantize(classify)
    _add_debug(classify)


def _add_quantized_folder(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    quantize = commands.add_parser(
        "quantize",
        help="write a model with weights of 8 or 4 bits",
        description="Rounds the weights of the linear layers of a model and writes a new folder, "
        "which the other commands and load_model take like any other.",
    )
    add = quantize.add_argument
    add("folder", metavar="FOLDER", help="the model: a Hugging Face folder")
    add("out", metavar="OUT", help="the new folder; it appears when it is complete")
    add("--weights", choices=["int8", "int4"], default="int8", help="default: int8")
    _add_group_size(quantize)
    add("--skip", metavar="NAME", action="append", default=[], help="a layer to leave; repeatable")
    _add_dtype(quantize)
    _add_debug(quantize)


def _add_explain(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    explain = commands.add_parser(
        "explain",
        help="show what a model is compiled to",
        description="Compiles a step of a language model and shows what came out: the steps of a "
        "call with their bytes, the kernels and why they were formed, the memory plan.",
    )
    add = explain.add_argument
    add("--model", metavar="FOLDER", help="a Hugging Face folder (default: a model that adds)")
    add(
        "--step",
        choices=["decode", "prefill", "forward"],
        default="decode",
        help="one new token, a prompt, or a forward without a cache (default: decode)",
    )
    add("--batch", metavar="N", type=int, default=1, help="sequences (default: 1)")
    add("--seq", metavar="N", type=int, default=16, help="tokens of the prompt (default: 16)")
    add("--length", metavar="N", type=int, default=64, help="rows of the cache (default: 64)")
    add("--source", metavar="N", type=int, help="show the text of kernel N, and nothing else")
    add("--graph", action="store_true", help="show the graph too")
    add("--all", action="store_true", help="show everything, sources too")
    add("--html", metavar="FILE", help="write everything as one page, with drawings, and stop")
    add("--measure", action="store_true", help="run the step and show times")
    _add_place(explain)
    _add_debug(explain)


def _add_bench(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    bench = commands.add_parser(
        "bench",
        help="measure how fast a model runs here",
        description="Times loading, compiling, the first token and the following ones, with random "
        "tokens; the best of some rounds.",
    )
    add = bench.add_argument
    add("--model", metavar="FOLDER", help="a Hugging Face folder (default: a model that adds)")
    add("--prompt-tokens", metavar="N", type=int, default=8, help="default: 8")
    add("--new-tokens", metavar="N", type=int, default=8, help="default: 8")
    add("--batch", metavar="N", type=int, default=1, help="sequences (default: 1)")
    add("--rounds", metavar="N", type=int, default=3, help="default: 3")
    add("--json", action="store_true", help="print the numbers as JSON")
    _add_place(bench)
    _add_debug(bench)


def _add_placement(parser: argparse.ArgumentParser) -> None:
    _add_place(parser)
    parser.add_argument("--eager", action="store_true", help="run the model op by op")


def _add_quantize(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--quantize", choices=["int8", "int4"], help="round weights to 8 or 4 bits while loading"
    )
    _add_group_size(parser)


def _add_group_size(parser: argparse.ArgumentParser) -> None:
    text = "weights that share a scale; for int4 (default: 32)"
    parser.add_argument("--group-size", metavar="N", type=int, help=text)


def _add_place(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", choices=["cpu", "gpu"], help="default: gpu if there is one")
    _add_dtype(parser)


def _add_dtype(parser: argparse.ArgumentParser) -> None:
    choices = ["float32", "bfloat16", "float16"]
    parser.add_argument("--dtype", choices=choices, help="default: as stored")
