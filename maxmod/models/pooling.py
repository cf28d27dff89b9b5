"""How the vectors of the tokens of a text become one, as a folder of sentence-transformers says.

Source: the documentation of `sentence_transformers.models.Pooling`, whose vectors are followed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ModelError
from maxmod.models.config import judge_fields
from maxmod.models.config_fields import POOLING
from maxmod.models.packing import Packing
from maxmod.nn import Module, ModuleList
from maxmod.nn.places import warn
from maxmod.tensor import Tensor
from maxmod.values.plain import JsonObject
from maxmod.weights.json_files import read_json, read_json_list
from maxmod.weights.text_files import has_file


@dataclass(frozen=True, slots=True)
class Tokens:
    """The vectors of the tokens of some texts, and which of them count.

    Attributes:
        hidden: float32 [batch, seq, width].
        positions: int64 [1, seq]: 0, 1, 2, ...
        starts: int64 [batch, 1]: the position of the first token that counts.
        ends: int64 [batch, 1]: the position after the last one.
    """

    hidden: Tensor
    positions: Tensor
    starts: Tensor
    ends: Tensor

    def mask(self) -> Tensor:
        """bool [batch, seq, 1]: true for tokens that count."""
        kept = (self.positions >= self.starts) & (self.positions < self.ends)
        return F.unsqueeze(kept, 2)

    def at(self, places: Tensor) -> Tensor:
        """The vectors at int64 places [batch, 1]: float32 [batch, width]."""
        return _sum(F.where(F.unsqueeze(self.positions == places, 2), self.hidden, 0.0))

    def total(self) -> Tensor:
        """The sum of the vectors that count: float32 [batch, width]."""
        return _sum(F.where(self.mask(), self.hidden, 0.0))

    def counts(self) -> Tensor:
        """How many count: float32 [batch, 1]."""
        return (self.ends - self.starts).cast(DType.float32)


def _sum(x: Tensor) -> Tensor:
    return F.squeeze(F.sum(x, axis=1), 1)


def _largest(tokens: Tokens) -> Tensor:
    return F.squeeze(F.max(F.where(tokens.mask(), tokens.hidden, -float("inf")), axis=1), 1)


def _weighted_mean(tokens: Tokens) -> Tensor:
    """The weight of a token is its position, from 1; a prompt that is left out counts in it."""
    places = F.unsqueeze((tokens.positions + 1).cast(DType.float32), 2)
    weights = F.where(tokens.mask(), places, 0.0)
    return _sum(weights * tokens.hidden) / _sum(weights)


# In the order in which sentence-transformers joins the vectors of several ones.
MODES: dict[str, Callable[[Tokens], Tensor]] = {
    "cls": lambda tokens: tokens.at(tokens.starts),
    "max": _largest,
    "mean": lambda tokens: tokens.total() / tokens.counts(),
    "mean_sqrt_len_tokens": lambda tokens: tokens.total() / F.sqrt(tokens.counts()),
    "weightedmean": _weighted_mean,
    "lasttoken": lambda tokens: tokens.at(tokens.ends - 1),
}
# The names of the older form, each true or false.
_FLAGS = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


@dataclass(frozen=True, slots=True)
class Pooling:
    """How the vectors of the tokens of a text become one.

    Attributes:
        modes: Names of `MODES`; the vectors of several ones are joined.
        include_prompt: Whether the tokens of a prompt count.
        normalize: Scale the result to length 1.
        dense: The subfolders of linear maps of the vector, which come before that.
    """

    modes: tuple[str, ...] = ("mean",)
    include_prompt: bool = True
    normalize: bool = False
    dense: tuple[str, ...] = ()


class Embed(Module[..., Tensor]):
    """One vector for each text.

    Args:
        module: (int64 tokens [1, tokens], int64 lengths [batch], their `Packing`) to
            [batch, seq, width].
        pooling: How to pool the token vectors.
        dense: What is done with the vector of a text.
    """

    def __init__(self, module: Any, pooling: Pooling, dense: Sequence[Module] = ()) -> None:
        self.module = module
        self.pooling = pooling
        self.dense = ModuleList(dense)

    def forward(
        self,
        tokens: Tensor,
        lengths: Tensor,
        starts: Tensor,
        ends: Tensor,
        places: Tensor,
        skipped: Tensor,
    ) -> Tensor:
        """Pools the vectors of texts.

        Args:
            tokens: int64 [1, tokens]: those of all texts, one text after another.
            lengths: int64 [batch]: how many tokens each text has.
            starts: int64 [tokens]; this one and the next two as in `Packing`.
            ends: int64 [tokens].
            places: int64 [batch, seq].
            skipped: int64 [batch]: the first token that is pooled; others are only attended to.

        Returns:
            float32 [batch, width * modes].
        """
        hidden = self.module(tokens, lengths, Packing(starts, ends, places))
        return _pooled(hidden, lengths, skipped, self.pooling, self.dense)


class EmbedPadded(Module[..., Tensor]):
    """One vector for each text, of texts that are filled up to one length.

    Args:
        module: (int64 tokens [batch, seq], int64 lengths [batch]) to [batch, seq, width].
        pooling: How to pool the token vectors.
        dense: What is done with the vector of a text.
    """

    def __init__(self, module: Any, pooling: Pooling, dense: Sequence[Module] = ()) -> None:
        self.module = module
        self.pooling = pooling
        self.dense = ModuleList(dense)

    def forward(self, tokens: Tensor, lengths: Tensor, skipped: Tensor) -> Tensor:
        """Pools the vectors of texts.

        Args:
            tokens: int64 [batch, seq].
            lengths: int64 [batch]: how many tokens of each text count.
            skipped: int64 [batch]: the first token that is pooled; others are only attended to.

        Returns:
            float32 [batch, width * modes].
        """
        hidden = self.module(tokens, lengths)
        return _pooled(hidden, lengths, skipped, self.pooling, self.dense)


def _pooled(
    hidden: Tensor,
    lengths: Tensor,
    skipped: Tensor,
    pooling: Pooling,
    dense: Iterable[Module[..., Tensor]],
) -> Tensor:
    """Pools vectors [batch, seq, width] of texts that start at `skipped`."""
    hidden = hidden.cast(DType.float32)
    columns = F.arange(0, hidden.shape[1], dtype=DType.int64, device=hidden.device)
    given = F.unsqueeze(columns, 0), F.unsqueeze(skipped, 1), F.unsqueeze(lengths, 1)
    pooled = [MODES[mode](Tokens(hidden, *given)) for mode in pooling.modes]
    result = pooled[0] if len(pooled) == 1 else F.concat(pooled, axis=1)
    for part in dense:
        result = part(result)
    if pooling.normalize:
        length = F.sqrt(F.sum(result * result, axis=-1))
        result = result / F.elementwise_max(length, 1e-12)
    return result


# ---- modules.json --------------------------------------------------------------------------------


_KINDS = ("Transformer", "Pooling", "Dense", "Normalize", "Dropout")


def read_pooling(folder: Path, *, strict: bool = False) -> Pooling:
    """Reads how a folder of the sentence-transformers library pools: modules.json and its parts.

    The parts are applied one after another, so the last Pooling counts, with what follows it. A
    folder without modules.json takes the mean, as that library does.

    Raises:
        ModelError: If a file is malformed, a part is of an unknown kind, or it is strict and a
            field is unknown.
    """
    path = folder / "modules.json"
    if not has_file(path):
        return Pooling()
    parts = [(_kind(part, path), part) for part in read_json_list(path)]
    kinds = [kind for kind, _ in parts]
    if kinds.count("Transformer") != 1 or kinds[0] != "Transformer" or "Pooling" not in kinds:
        raise ModelError(
            f"{path}: expected a Transformer, then a Pooling, got {', '.join(kinds) or 'nothing'}."
        )
    _check_transformer(parts[0][1], path)
    pooling: Pooling | None = None
    for kind, part in parts[1:]:
        if kind == "Pooling":
            pooling = _next_pooling(pooling, _pooling_of(folder, part, path, strict), path)
        elif kind == "Dropout":
            continue
        elif pooling is None:
            raise ModelError(f"{path}: expected a Pooling before {kind}.")
        elif kind == "Dense":
            if pooling.normalize:
                raise ModelError(f"{path}: expected Normalize after Dense, got it before.")
            name = _plain_name(part.get("path"), path)
            pooling = replace(pooling, dense=(*pooling.dense, name))
        else:
            _check_normalize(folder, part, path)
            pooling = replace(pooling, normalize=True)
    assert pooling is not None
    return pooling


def _kind(part: object, path: Path) -> str:
    """The kind of a part, from the name of its class."""
    name = str(part.get("type", "")) if isinstance(part, dict) else ""
    room, _, kind = name.rpartition(".")
    ours = not room or room.startswith("sentence_transformers.")
    if not ours or kind not in _KINDS:
        raise ModelError(
            f"{path}: unknown part: expected Transformer, Pooling, Dense or Normalize "
            f"of sentence_transformers, got {name!r}."
        )
    return kind


def _check_transformer(part: Mapping[str, object], path: Path) -> None:
    inside = part.get("path") or ""
    if inside not in ("", "."):
        raise ModelError(
            f"{path}: the model is in the folder {inside!r}, as the first versions of "
            "sentence-transformers had it: expected it next to modules.json. Hint: move the files "
            'of that folder here, and say "path": "" in modules.json.'
        )


def _next_pooling(before: Pooling | None, pooling: Pooling, path: Path) -> Pooling:
    if before is not None and before.modes != pooling.modes:
        warn(
            f"load_encoder: {path}: there are two Pooling parts: {', '.join(before.modes)}, then "
            f"{', '.join(pooling.modes)}. The last one makes the vectors, as in "
            "sentence-transformers."
        )
    return pooling


def _pooling_of(folder: Path, part: Mapping[str, object], path: Path, strict: bool) -> Pooling:
    where = folder / _plain_name(part.get("path"), path) / "config.json"
    table = read_json(where)
    include = table.get("include_prompt", True)
    if type(include) is not bool:
        raise ModelError(f"{where}: include_prompt: expected true or false, got {include!r}.")
    modes = _modes(table, where)
    used = {"include_prompt", "pooling_mode", *_FLAGS}
    judge_fields(table, used, str(where), known=POOLING, strict=strict)
    return Pooling(modes, include)


def _modes(table: JsonObject, where: Path) -> tuple[str, ...]:
    """Reads the newer form, `"pooling_mode": "cls"` or a list, or the older one of flags."""
    named = table.get("pooling_mode")
    if named is not None:
        listed = named if isinstance(named, list) else [named]
        if not listed or not all(isinstance(mode, str) and mode in MODES for mode in listed):
            known = ", ".join(map(repr, MODES))
            raise ModelError(f"{where}: pooling_mode: expected one of {known}, got {named!r}.")
        return tuple(listed)
    for name in table:
        if name.startswith("pooling_mode_") and name not in _FLAGS:
            raise ModelError(f"{where}: {name}: expected one of {', '.join(_FLAGS)}.")
        if name in _FLAGS and type(table[name]) is not bool:
            raise ModelError(f"{where}: {name}: expected true or false, got {table[name]!r}.")
    return tuple(mode for name, mode in _FLAGS.items() if table.get(name)) or ("mean",)


def _check_normalize(folder: Path, part: Mapping[str, object], path: Path) -> None:
    """Rejects a Normalize that scales something else; most folders have no file for it."""
    name = part.get("path")
    where = folder / _plain_name(name, path) / "config.json" if name else None
    if where is None or not has_file(where):
        return
    for field in ("module_input_name", "module_output_name"):
        value = read_json(where).get(field)
        if value not in (None, "sentence_embedding"):
            raise ModelError(f"{where}: {field}: expected 'sentence_embedding', got {value!r}.")


def _plain_name(name: object, path: Path) -> str:
    """Checks the name of a subfolder, which must not point outside the folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\:\0"):
        raise ModelError(f"{path}: path: expected the name of a folder, got {name!r}.")
    return name
