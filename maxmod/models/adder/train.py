"""Train the embedded "adder" model from scratch.

This is a development script: nothing in the package imports it.  It needs
``torch`` and ``safetensors``, takes no input data (every problem is made
here from a seeded generator), and writes ``config.json``,
``model.safetensors`` and ``vocab.json`` in the layout of a Hugging Face GPT-2
checkpoint.

    python train.py --out . --seed 7

A problem is the text ``a+b=`` with ``0 <= a, b <= 999``; the model continues
it with the decimal digits of the sum, most significant first and without
padding, and then the end token.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional

END_TOKEN = "<|end|>"
TOKENS = [*"0123456789+=", END_TOKEN]
VOCAB = {token: index for index, token in enumerate(TOKENS)}
PLUS, EQUALS, END = VOCAB["+"], VOCAB["="], VOCAB[END_TOKEN]

LIMIT = 1000  # operands are below this
MAX_LENGTH = len("999+999=1998") + 1  # with the end token

HELD_OUT_SEED = 2024
# Number of held-out problems by the digits of the (first, second) operand.
HELD_OUT_MIX = {
    (1, 1): 10,
    (1, 2): 60,
    (2, 1): 60,
    (2, 2): 170,
    (1, 3): 100,
    (3, 1): 100,
    (2, 3): 150,
    (3, 2): 150,
    (3, 3): 200,
}

CONFIG = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": len(TOKENS),
    "n_positions": 16,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
    "initializer_range": 0.02,
    "resid_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "attn_pdrop": 0.0,
    "bos_token_id": END,
    "eos_token_id": END,
    "tie_word_embeddings": True,
    "dtype": "float32",
}


# ---------------------------------------------------------------- problems


def digit_range(digits: int) -> tuple[int, int]:
    """The half-open range of numbers written with exactly this many digits."""
    return (0 if digits == 1 else 10 ** (digits - 1)), 10**digits


def held_out_problems(seed: int = HELD_OUT_SEED) -> list[tuple[int, int]]:
    """The 1000 distinct problems that training never shows.

    Training leaves out the swapped problem ``(b, a)`` of each of them too,
    so that the answer cannot have been learnt by heart from its mirror image.
    """
    rng = random.Random(seed)
    problems: list[tuple[int, int]] = []
    for (first, second), count in HELD_OUT_MIX.items():
        chosen: set[tuple[int, int]] = set()
        while len(chosen) < count:
            pair = (rng.randrange(*digit_range(first)), rng.randrange(*digit_range(second)))
            if pair not in chosen:
                chosen.add(pair)
                problems.append(pair)
    return problems


def excluded_table(problems: list[tuple[int, int]]) -> torch.Tensor:
    """A bool table over ``a * LIMIT + b``, true where training must not look."""
    table = torch.zeros(LIMIT * LIMIT, dtype=torch.bool)
    for a, b in problems:
        table[a * LIMIT + b] = True
        table[b * LIMIT + a] = True
    return table


class Sampler:
    """Draws batches of training problems, never an excluded one."""

    def __init__(self, seed: int, excluded: torch.Tensor) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.excluded = excluded

    def _integers(self, high: int, count: int) -> torch.Tensor:
        return torch.randint(high, (count,), generator=self.generator)

    def _number(self, count: int) -> torch.Tensor:
        """Numbers whose digit count is 1, 2 or 3 with weights 1 : 2 : 3."""
        lengths = torch.tensor([1, 2, 2, 3, 3, 3])[self._integers(6, count)]
        low = torch.tensor([0, 0, 10, 100])[lengths]
        span = torch.tensor([0, 10, 90, 900])[lengths]
        return low + (torch.rand(count, generator=self.generator) * span).long()

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        a, b = self._number(count), self._number(count)
        # In a quarter of the problems, make long carries likely: some digits
        # of b become 9 minus the digit of a above them (so that a carry from
        # the right runs through).
        chains = torch.rand(count, generator=self.generator) < 0.25
        carried = b.clone()
        for place in (1, 10, 100):
            replace = (torch.rand(count, generator=self.generator) < 0.5) & (b >= place)
            digit = 9 - a // place % 10
            carried = torch.where(
                replace, carried + (digit - carried // place % 10) * place, carried
            )
        b = torch.where(chains, carried, b)
        keep = ~self.excluded[a * LIMIT + b]
        return a[keep], b[keep]


def encode(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids ``[n, MAX_LENGTH]`` and a mask of the answer positions.

    The row is ``a + b = sum end``, filled up with end tokens on the right.
    """
    count = len(a)
    ids = torch.full((count, MAX_LENGTH), END)
    rows = torch.arange(count)
    at = torch.zeros(count, dtype=torch.long)

    def put_number(values: torch.Tensor) -> None:
        nonlocal at
        for place in (1000, 100, 10, 1):
            written = (values >= place) if place > 1 else torch.ones(count, dtype=torch.bool)
            ids[rows[written], at[written]] = (values // place % 10)[written]
            at = at + written

    def put_token(token: int) -> None:
        nonlocal at
        ids[rows, at] = token
        at = at + 1

    put_number(a)
    put_token(PLUS)
    put_number(b)
    put_token(EQUALS)
    start = at
    put_number(a + b)
    columns = torch.arange(MAX_LENGTH)
    answer = (columns >= start[:, None]) & (columns <= at[:, None])  # digits and one end token
    return ids, answer


# ------------------------------------------------------------------- model


class Linear(nn.Module):
    """A dense layer that keeps its weight as ``[inputs, outputs]``."""

    def __init__(self, inputs: int, outputs: int, std: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) * std)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight + self.bias


class Attention(nn.Module):
    def __init__(self, width: int, heads: int, std: float, out_std: float) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn = Linear(width, 3 * width, std)
        self.c_proj = Linear(width, width, out_std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, width = x.shape
        packed = self.c_attn(x).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = packed.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.c_proj(mixed.transpose(1, 2).reshape(batch, length, width))


class FeedForward(nn.Module):
    def __init__(self, width: int, std: float, out_std: float) -> None:
        super().__init__()
        self.c_fc = Linear(width, 4 * width, std)
        self.c_proj = Linear(4 * width, width, out_std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.c_proj(functional.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    def __init__(self, width: int, heads: int, layers: int, std: float) -> None:
        super().__init__()
        out_std = std / math.sqrt(2 * layers)
        self.ln_1 = nn.LayerNorm(width, eps=CONFIG["layer_norm_epsilon"])
        self.attn = Attention(width, heads, std, out_std)
        self.ln_2 = nn.LayerNorm(width, eps=CONFIG["layer_norm_epsilon"])
        self.mlp = FeedForward(width, std, out_std)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class Adder(nn.Module):
    """GPT-2 in miniature; attribute names follow the checkpoint's keys."""

    def __init__(self) -> None:
        super().__init__()
        width, layers = CONFIG["n_embd"], CONFIG["n_layer"]
        std = 1 / math.sqrt(width)  # a narrow model trains faster from a larger start than 0.02
        self.wte = nn.Embedding(CONFIG["vocab_size"], width)
        self.wpe = nn.Embedding(CONFIG["n_positions"], width)
        nn.init.normal_(self.wte.weight, std=0.1)
        nn.init.normal_(self.wpe.weight, std=0.1)
        self.h = nn.ModuleList(Block(width, CONFIG["n_head"], layers, std) for _ in range(layers))
        self.ln_f = nn.LayerNorm(width, eps=CONFIG["layer_norm_epsilon"])

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


# -------------------------------------------------------------- evaluation


@torch.inference_mode()
def greedy_answers(model: Adder, a: torch.Tensor, b: torch.Tensor) -> list[list[int]]:
    """Decode each problem token by token; up to and with the end token."""
    prompts, answer = encode(a, b)
    at = answer.int().argmax(1)  # where the answer begins
    ids = torch.where(torch.arange(MAX_LENGTH) < at[:, None], prompts, END)
    rows = torch.arange(len(a))
    done = torch.zeros(len(a), dtype=torch.bool)
    replies: list[list[int]] = [[] for _ in rows]
    while not bool(done.all()):
        tokens = model(ids)[rows, at - 1].argmax(-1)
        for row in rows[~done].tolist():
            replies[row].append(int(tokens[row]))
        ids[rows[~done], at[~done]] = tokens[~done]
        at = torch.where(done, at, at + 1)
        done = done | (tokens == END) | (at >= MAX_LENGTH)
    return replies


def expected_answer(a: int, b: int) -> list[int]:
    return [*map(int, str(a + b)), END]


def greedy_correct(model: Adder, problems: list[tuple[int, int]]) -> int:
    """How many problems greedy decoding answers exactly, end token included."""
    a, b = torch.tensor(problems).T
    replies = greedy_answers(model, a, b)
    return sum(
        reply == expected_answer(*pair) for reply, pair in zip(replies, problems, strict=True)
    )


@torch.inference_mode()
def solved(model: Adder, a: torch.Tensor, b: torch.Tensor, batch: int = 8192) -> torch.Tensor:
    """For each problem, whether greedy decoding would answer it exactly.

    Uses one pass with the true answer as input: greedy decoding is right
    exactly when the best token at every answer position is the true one.
    """
    result = []
    for first, second in zip(a.split(batch), b.split(batch), strict=True):
        ids, answer = encode(first, second)
        best = model(ids[:, :-1]).argmax(-1)
        result.append(((best == ids[:, 1:]) | ~answer[:, 1:]).all(1))
    return torch.cat(result)


# ---------------------------------------------------------------- training


def learning_rate(step: int, steps: int, peak: float, warm_up: int) -> float:
    if step < warm_up:
        return peak * (step + 1) / warm_up
    progress = (step - warm_up) / max(1, steps - warm_up)
    return peak * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * progress)))


def train(args: argparse.Namespace) -> Adder:
    torch.manual_seed(args.seed)
    held_out = held_out_problems()
    excluded = excluded_table(held_out)
    sampler = Sampler(args.seed, excluded)
    model = Adder()
    decayed = [p for p in model.parameters() if p.dim() >= 2]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": decayed, "weight_decay": args.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.98))
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    began = time.perf_counter()
    for step in range(args.steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.lr, args.warm_up)
        a, b = sampler.draw(args.batch)
        ids, answer = encode(a, b)
        wanted = answer[:, 1:]
        loss = functional.cross_entropy(model(ids[:, :-1])[wanted], ids[:, 1:][wanted])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % args.report == 0 or step + 1 == args.steps:
            # Progress is measured on fresh training problems; the held-out
            # ones are looked at once, after the last step.
            exact = solved(model, *sampler.draw(2048)).float().mean()
            seconds = time.perf_counter() - began
            print(
                f"step {step + 1:6d}  loss {loss.item():.5f}  exact {exact:.4f}  {seconds:6.0f} s",
                flush=True,
            )
    return model


def rounded(weights: torch.Tensor) -> torch.Tensor:
    """Keeps 10 of the 24 significant bits: the rest is noise that packs badly into the wheel."""
    bits = weights.detach().contiguous().view(torch.int32)
    return ((bits + 0x1FFF + (bits >> 14 & 1)) >> 14 << 14).view(torch.float32)


def save(model: Adder, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"transformer.{name}": rounded(value) for name, value in model.state_dict().items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n", encoding="utf-8")
    (folder / "vocab.json").write_text(json.dumps(VOCAB, indent=2) + "\n", encoding="utf-8")


def report(model: Adder, seed: int) -> None:
    def show(name: str, right: int, total: int) -> None:
        print(f"{name}: {right} of {total} exact ({100 * right / total:.3f} %)", flush=True)

    held_out = held_out_problems()
    show("held out", greedy_correct(model, held_out), len(held_out))
    grid = torch.arange(LIMIT * LIMIT)
    a, b = grid // LIMIT, grid % LIMIT
    right = solved(model, a, b)
    short = (a < 100) & (b < 100)
    show("both operands below 100", int(right[short].sum()), int(short.sum()))
    sample = torch.randperm(len(grid), generator=torch.Generator().manual_seed(seed + 1))[:20000]
    show("random sample", int(right[sample].sum()), len(sample))
    show("every problem", int(right.sum()), len(right))
    for wrong in (~right).nonzero().flatten()[:20].tolist():
        print(f"  wrong: {wrong // LIMIT}+{wrong % LIMIT}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded adder model.")
    parser.add_argument(
        "--seed", type=int, default=7, help="seed of the weights and the training problems"
    )
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate")
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--warm-up", type=int, default=300, help="steps to the peak learning rate")
    parser.add_argument("--report", type=int, default=500, help="steps between progress lines")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parent, help="folder to write"
    )
    parser.add_argument(
        "--write-held-out",
        type=Path,
        help="also write the held-out problems, as JSON, to this file",
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.write_held_out:
        args.write_held_out.write_text(json.dumps(held_out_problems()) + "\n", encoding="utf-8")
    model = train(args)
    save(model, args.out)
    report(model, args.seed)


if __name__ == "__main__":
    main()
