"""`maxmod generate`: continues a text, streams it and reports timing."""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from maxmod.cli.arguments import add_device, add_eager, add_model, add_quantize, add_sampling
from maxmod.cli.several import add_parallel, run_together
from maxmod.errors import ArgumentError

if TYPE_CHECKING:
    from maxmod.distributed import Group
    from maxmod.generate.sampling import Sampling
    from maxmod.generate.text import NewText
    from maxmod.models import LanguageModel

_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Continues a text with a pretrained model. Prints the new text to standard output, and one "
        "line of timing to standard error. Options of sampling that are not given come from "
        "generation_config.json of the model, if it has one."
    )
    add = parser.add_argument
    text = 'the text to continue, such as "123+456="; - reads standard input'
    add("prompt", metavar="PROMPT", help=text)
    add_model(parser)
    add("--max-new-tokens", metavar="N", type=int, default=100, help="default: 100")
    add_device(parser)
    add_eager(parser)
    add_quantize(parser)
    add_parallel(parser)
    add_sampling(parser)
    add("--stop", metavar="TEXT", action="append", default=[], help="stop before TEXT; repeatable")
    _add_chat(parser)
    add(
        "--token-ids",
        action="store_true",
        help="read PROMPT as token ids, such as '15 20 7', and print ids; needs no tokenizer",
    )


def _add_chat(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--chat", action="store_true", help="treat PROMPT as a message to a chat model")
    add("--system", metavar="TEXT", help="with --chat: the system message")
    text = "with --chat: a variable of the template, such as enable_thinking=false; repeatable"
    add("--template-variable", metavar="NAME=JSON", action="append", default=[], help=text)
    add("--chat-template", metavar="NAME", help="with --chat: which template of the folder")


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    return run_together(options, lambda group: _run(options, group))


def _run(options: argparse.Namespace, group: Group | None) -> int:
    is_first = group is None or group.rank == 0
    from maxmod.cli.options import (
        chosen_device,
        chosen_dtype,
        chosen_folder,
        kernels_text,
        rounding,
        standard_input,
    )
    from maxmod.generate import generate
    from maxmod.generate.text import NewText
    from maxmod.models import load_model

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal whose encoding lacks a character shows ?.
        sys.stdout.reconfigure(errors="replace")
    if options.prompt == "-":
        if group is not None and group.size > 1:
            raise ArgumentError(
                "generate: -: launchers of several processes do not all pass standard input on. "
                'Hint: generate --parallel "$(cat FILE)".'
            )
        options.prompt = standard_input("generate")
    start = time.perf_counter()
    model = load_model(
        chosen_folder("generate", options.model),
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        group=group,
        **rounding(options),
    )
    prompt = _prompt_tokens(options, model)
    text = None
    if not options.token_ids:
        text = NewText(model.tokenizer, options.stop, () if options.chat else prompt)
    given = {name: getattr(options, name) for name in _SAMPLING}
    sampling = model.defaults.sampling(given, options.seed, greedy=options.greedy)
    tokens = generate(
        model,
        prompt,
        max_new_tokens=options.max_new_tokens,
        **given,
        seed=sampling.seed,
        greedy=options.greedy,
        eager=options.eager,
    )
    loaded = time.perf_counter()
    lengths = () if options.eager else dict.fromkeys((len(prompt), 1))
    steps = model.steps(lengths)
    compiled = time.perf_counter()
    count = _stream(tokens, text)
    rate = _rate(count, time.perf_counter() - compiled)
    how = f"compile {compiled - loaded:.3f} s ({kernels_text(steps)})" if steps else "eager"
    if not is_first:
        return 0
    print(
        f"maxmod: load {loaded - start:.3f} s, {how}, {rate}, {_where(model)} {model.dtype.name}"
        f"{_details(options, sampling)}",
        file=sys.stderr,
    )
    return 0


def _where(model: LanguageModel) -> str:
    size = model.group.size
    return f"{model.device}" if size == 1 else f"{size} processes, {model.device}"


def _rate(count: int, time_s: float) -> str:
    rate = f"{count / time_s:.0f}" if time_s > 0 else "?"
    tokens = "1 token" if count == 1 else f"{count} tokens"
    return f"{tokens} in {time_s:.3f} s ({rate} tokens/s)"


def _details(options: argparse.Namespace, sampling: Sampling) -> str:
    """Returns how the weights were rounded, and the seed that gives the same text again."""
    weights = f", {options.quantize} weights" if options.quantize else ""
    is_drawn = sampling.temperature > 0 and options.seed is None
    return weights + (f", seed {sampling.seed}" if is_drawn else "")


def _prompt_tokens(options: argparse.Namespace, model: LanguageModel) -> list[int]:
    from maxmod.generate import encode_prompt

    for name in ("system", "template_variable", "chat_template"):
        if getattr(options, name) not in (None, []) and not options.chat:
            raise ArgumentError(f"generate: --{name.replace('_', '-')}: requires --chat.")
    if options.token_ids:
        return _numbers(options)
    if not options.chat:
        return encode_prompt(model, options.prompt)
    messages = [{"role": "user", "content": options.prompt}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    return encode_prompt(
        model,
        messages,
        chat_template=options.chat_template,
        template_variables=dict(map(_variable, options.template_variable)),
    )


def _variable(text: str) -> tuple[str, object]:
    """Returns the name and value of NAME=JSON."""
    name, sign, value = text.partition("=")
    try:
        if not sign or not name.isidentifier():
            raise ValueError
        return name, json.loads(value)
    except (ValueError, RecursionError):
        raise ArgumentError(
            f"generate: --template-variable: expected NAME=JSON, got {text[:80]!r}. Hint: "
            """enable_thinking=false; texts in quotes, 'date="26 Jul 2024"'; a file is """
            'tools="$(cat tools.json)".'
        ) from None


def _numbers(options: argparse.Namespace) -> list[int]:
    from maxmod.cli.options import token_ids

    if options.chat or options.stop:
        raise ArgumentError("generate: --token-ids: cannot be combined with --chat or --stop.")
    return token_ids("generate", options.prompt)


def _stream(tokens: Iterator[int], text: NewText | None) -> int:
    """Prints text, or the tokens themselves, as they come; returns the number of tokens."""
    count = 0
    with warnings.catch_warnings(record=True) as notes:  # shown after the text
        for token in tokens:
            piece = f"{' ' if count else ''}{token}" if text is None else text.push(token)
            print(piece, end="", flush=True)
            count += 1
            if text is not None and text.is_stopped:
                break
    print("" if text is None else text.finish(), flush=True)
    for note in notes:
        warnings.showwarning(note.message, note.category, note.filename, note.lineno)
    return count
