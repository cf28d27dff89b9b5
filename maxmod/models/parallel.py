"""One model on several devices: which weights of a family are divided, and how.

Each process has some of the heads and a part of each MLP; a block needs two sums over the
processes. Embedding and head are divided by the vocabulary.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from maxmod.distributed import Group
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.config import ModelConfig
from maxmod.nn import (
    ColumnParallelLinear,
    Embedding,
    Linear,
    Module,
    QuantizedEmbedding,
    QuantizedLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
)
from maxmod.nn.places import Owner, Place, modules_in
from maxmod.nn.quantizing import replace_at
from maxmod.values.tensor_type import TensorType
from maxmod.weights import Weights
from maxmod.weights.mapping import Cut
from maxmod.weights.shards import Shards


@dataclass(frozen=True, slots=True)
class Parallel:
    """How a family is divided. Names are those of layers, in which `*` matches any characters.

    Attributes:
        part: `part(config, size)`: the configuration of the part that each process computes.
        kv_heads: The number of heads of keys and values of a configuration.
        columns: Layers that are divided by their outputs.
        of_kv: The same, with an equal part for each head of keys and values: these are repeated
            where there are fewer than processes.
        fused: Layers of queries, keys and values in one, each of which is divided.
        rows: Layers that are divided by their inputs; their results are summed.
        table: The embedding.
        head: The head.
    """

    part: Callable[[ModelConfig, int], ModelConfig]
    kv_heads: Callable[[ModelConfig], int]
    columns: tuple[str, ...]
    of_kv: tuple[str, ...]
    fused: tuple[str, ...]
    rows: tuple[str, ...]
    table: str
    head: str


def expect_multiple(size: int, **numbers: int) -> None:
    """Raises ModelError unless so many processes divide the numbers of a configuration."""
    for name, number in numbers.items():
        if number % size:
            raise ModelError(
                f"{name}={number} is not a multiple of {size}, the number of processes."
            )


def rows_of_part(vocab_size: int, size: int) -> int:
    """Returns how many rows of the vocabulary each process has; the last have zeros behind them."""
    return -(-vocab_size // size)


def part_of_decoder(config: ModelConfig, size: int) -> ModelConfig:
    """The part of a configuration with the fields of `DecoderConfig`."""
    kv = config.kv_heads
    expect_multiple(
        size,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
    )
    if kv % size and size % kv:
        raise ModelError(
            f"num_key_value_heads={kv}, and {size} processes: neither is a multiple of the other."
        )
    return replace(
        config,
        vocab_size=rows_of_part(config.vocab_size, size),
        num_attention_heads=config.num_attention_heads // size,
        num_key_value_heads=max(kv // size, 1),
        head_dim=config.dim,
        intermediate_size=config.intermediate_size // size,
    )


DECODER = Parallel(
    part=part_of_decoder,
    kv_heads=lambda config: config.kv_heads,
    columns=("*.q_proj", "*.gate_proj", "*.up_proj"),
    of_kv=("*.k_proj", "*.v_proj"),
    fused=(),
    rows=("*.o_proj", "*.down_proj"),
    table="embed_tokens",
    head="lm_head",
)


def shards(weights: Weights, plan: Parallel, config: ModelConfig, group: Group) -> Weights:
    """Returns the parts of weights that a process has.

    Args:
        weights: Those of the whole model, with the names of its module.
        plan: How the family is divided.
        config: The configuration of the whole model.
        group: The processes.
    """
    cuts: dict[str, Cut] = {}
    for name in weights:
        cut = _cut(name, weights.tensor_type(name), plan, config, group)
        if cut is not None:
            cuts[name] = cut
    return Shards(weights, cuts)


def _cut(
    name: str, type: TensorType, plan: Parallel, config: ModelConfig, group: Group
) -> Cut | None:
    layer, _, leaf = name.rpartition(".")
    rank, size = group.rank, group.size

    def is_one_of(patterns: tuple[str, ...]) -> bool:
        return any(fnmatch.fnmatchcase(layer, pattern) for pattern in patterns)

    if layer in (plan.table, plan.head):
        total = int(type.sizes[0])
        rows = rows_of_part(total, size)
        start, stop = (min(place * rows, total) for place in (rank, rank + 1))
        return Cut(0, ((start, stop),), rows - (stop - start))
    if is_one_of(plan.columns):
        return Cut(0, (_even(name, type, 0, rank, size),))
    if is_one_of(plan.of_kv):
        heads = min(plan.kv_heads(config), size)
        return Cut(0, (_even(name, type, 0, rank * heads // size, heads),))
    if is_one_of(plan.fused):
        third = int(type.sizes[0]) // 3
        start, stop = _even(name, type.with_sizes((third, *type.sizes[1:])), 0, rank, size)
        return Cut(0, tuple((start + n * third, stop + n * third) for n in range(3)))
    if not is_one_of(plan.rows) or leaf == "bias" or type.rank < 2:
        return None
    columns = int(type.sizes[1])
    if leaf != "scales":
        return Cut(1, (_even(name, type, 1, rank, size),))
    if columns == 1:  # one for each row
        return None
    if type.dtype is not DType.uint8:
        return Cut(1, (_even(name, type, 1, rank, size),))
    # Scales of groups, then minimums, then the exponent of the row.
    groups = columns // 2
    start, stop = _even(name, type.with_sizes((int(type.sizes[0]), groups)), 1, rank, size)
    return Cut(1, ((start, stop), (groups + start, groups + stop), (2 * groups, columns)))


def _even(name: str, type: TensorType, axis: int, rank: int, size: int) -> tuple[int, int]:
    total = int(type.sizes[axis])
    if total % size:
        what = "groups of " if name.endswith(".scales") else ""
        raise ModelError(
            f"{name}: {total} {what}{'rows' if axis == 0 else 'columns'} cannot be divided among "
            f"{size} processes."
        )
    part = total // size
    return rank * part, (rank + 1) * part


def join(module: Module, plan: Parallel, vocab_size: int, group: Group) -> None:
    """Makes layers of a module work with those of other processes, in place.

    Args:
        module: The part of a model that this process has, with its weights.
        plan: How the family is divided.
        vocab_size: Number of tokens of the whole model.
        group: The processes.
    """
    for place, child in list(_layers(module, "")):
        if place.name == plan.table and isinstance(child, Embedding | QuantizedEmbedding):
            new: Module = VocabParallelEmbedding.of(child, vocab_size, group)
        elif place.name == plan.head:
            new = ColumnParallelLinear.gathering(child, vocab_size, group)
        elif _is_summed(place.name, plan) and isinstance(child, Linear | QuantizedLinear):
            new = RowParallelLinear.of(child, group)
        else:
            continue
        replace_at(place, new)


def _is_summed(name: str, plan: Parallel) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in plan.rows)


def _layers(owner: Owner, prefix: str) -> Iterator[tuple[Place, Module]]:
    for name, attribute, keys, child, _ in modules_in(owner):
        yield Place(owner, attribute, prefix + name, keys), child
        yield from _layers(child, f"{prefix}{name}.")
