"""`maxmod generate`: continues a text, streams it and reports timing."""

from __future__ import annotations

import argparse
import io
import sys
import time
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from maxmod.cli.arguments import add_device, add_eager, add_model, add_quantize
from maxmod.errors import ArgumentError

if TYPE_CHECKING:
    from maxmod.generate.text import NewText
    from maxmod.models import LanguageModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the description and the arguments of the subcommand to its parser."""
    parser.description = (
        "Continues a text with a pretrained model. Prints the new text to standard output, and one "
        "line of timing to standard error."
    )
    add = parser.add_argument
    add("prompt", metavar="PROMPT", help='the text to continue, such as "123+456="')
    add_model(parser)
    add("--max-new-tokens", metavar="N", type=int, default=100, help="default: 100")
    add_device(parser)
    add_eager(parser)
    add_quantize(parser)
    _add_sampling(parser)
    add("--stop", metavar="TEXT", action="append", default=[], help="stop before TEXT; repeatable")
    add("--chat", action="store_true", help="treat PROMPT as a message to a chat model")
    add("--system", metavar="TEXT", help="with --chat: the system message")
    add(
        "--token-ids",
        action="store_true",
        help="read PROMPT as token ids, such as '15 20 7', and print ids; needs no tokenizer",
    )


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    text = "sampling temperature; 0 takes the most likely token (default: 0)"
    add("--temperature", metavar="T", type=float, default=0.0, help=text)
    text = "keep the K most likely tokens; 0 keeps all (default: 0)"
    add("--top-k", metavar="K", type=int, default=0, help=text)
    text = "keep the most likely tokens whose probabilities sum to P (default: 1)"
    add("--top-p", metavar="P", type=float, default=1.0, help=text)
    text = "keep tokens with probability at least P times the largest (default: 0)"
    add("--min-p", metavar="P", type=float, default=0.0, help=text)
    text = "make tokens that already occur less likely if above 1 (default: 1)"
    add("--repetition-penalty", metavar="R", type=float, default=1.0, help=text)
    text = "seed of the random numbers (default: 0)"
    add("--seed", metavar="S", type=int, default=0, help=text)


def run(options: argparse.Namespace) -> int:
    """Runs the subcommand and returns its exit code."""
    from maxmod.cli.options import chosen_device, chosen_dtype, chosen_folder, kernels_text
    from maxmod.generate import generate
    from maxmod.generate.text import NewText
    from maxmod.models import load_model

    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal whose encoding lacks a character shows ?.
        sys.stdout.reconfigure(errors="replace")
    start = time.perf_counter()
    model = load_model(
        chosen_folder("generate", options.model),
        device=chosen_device(options.device),
        dtype=chosen_dtype(options.dtype),
        strict_config=options.strict,
        quantize=options.quantize,
        group_size=options.group_size,
    )
    prompt = _prompt_tokens(options, model)
    text = None
    if not options.token_ids:
        text = NewText(model.tokenizer, options.stop, () if options.chat else prompt)
    tokens = generate(
        model,
        prompt,
        max_new_tokens=options.max_new_tokens,
        repetition_penalty=options.repetition_penalty,
        temperature=options.temperature,
        top_k=options.top_k,
        top_p=options.top_p,
        min_p=options.min_p,
        seed=options.seed,
        eager=options.eager,
    )
    loaded = time.perf_counter()
    lengths = () if options.eager else dict.fromkeys((len(prompt), 1))
    steps = [model.step(seq=length) for length in lengths]
    compiled = time.perf_counter()
    count = _stream(tokens, text)
    time_s = time.perf_counter() - compiled
    rate = f"{count / time_s:.0f}" if time_s > 0 else "?"
    tokens_text = "1 token" if count == 1 else f"{count} tokens"
    how = f"compile {compiled - loaded:.3f} s ({kernels_text(steps)})" if steps else "eager"
    weights_text = f", {options.quantize} weights" if options.quantize else ""
    print(
        f"maxmod: load {loaded - start:.3f} s, {how}, {tokens_text} in {time_s:.3f} s "
        f"({rate} tokens/s), {model.device} {model.dtype.name}{weights_text}",
        file=sys.stderr,
    )
    return 0


def _prompt_tokens(options: argparse.Namespace, model: LanguageModel) -> list[int]:
    from maxmod.generate.chat import open_chat_template

    if options.system is not None and not options.chat:
        raise ArgumentError("generate: --system: requires --chat.")
    if options.token_ids:
        return _numbers(options)
    if not options.chat:
        return model.tokenizer.encode(options.prompt)
    messages = [{"role": "user", "content": options.prompt}]
    if options.system is not None:
        messages.insert(0, {"role": "system", "content": options.system})
    text = open_chat_template(model.folder).render(messages)
    return model.tokenizer.encode(text, special=False)


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
