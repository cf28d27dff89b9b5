"""`TextEncoder`: a module that embeds texts, with its configuration and tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from maxmod import functional as F
from maxmod.dtype import DType
from maxmod.errors import ArgumentError, ModelError
from maxmod.generate.text import Tokenizer
from maxmod.generate.tokenizer_files import open_tokenizer
from maxmod.models.config import from_table
from maxmod.nn import Module
from maxmod.runtime.compiled import CompiledModel
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.device import DeviceRef
from maxmod.values.plain import JsonObject
from maxmod.values.tensor_type import TensorType
from maxmod.weights.json_files import read_json, read_json_list


@dataclass(frozen=True, slots=True)
class Pooling:
    """How token vectors become one vector per text, from the config.json of a Pooling module.

    Attributes:
        pooling_mode_cls_token: The vector of the first token.
        pooling_mode_mean_tokens: The mean of all.
        normalize: Scale the result to length 1.
    """

    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = True
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False
    normalize: bool = False

    def __post_init__(self) -> None:
        others = (
            self.pooling_mode_max_tokens,
            self.pooling_mode_mean_sqrt_len_tokens,
            self.pooling_mode_weightedmean_tokens,
            self.pooling_mode_lasttoken,
        )
        if any(others) or self.pooling_mode_cls_token == self.pooling_mode_mean_tokens:
            raise ModelError(
                "expected exactly one of pooling_mode_cls_token and pooling_mode_mean_tokens."
            )


def read_pooling(folder: Path) -> Pooling:
    """Reads how a folder of the sentence-transformers library pools: modules.json and its parts.

    A folder without modules.json takes the mean.

    Raises:
        ModelError: If a file is malformed, or a part is of an unknown kind.
    """
    path = folder / "modules.json"
    if not path.exists():
        return Pooling()
    pooling: dict[str, Any] = {}
    where = path
    for part in read_json_list(path):
        kind = str(part.get("type", "") if isinstance(part, dict) else "").rpartition(".")[2]
        if kind == "Pooling":
            where = folder / _plain_name(part.get("path"), path) / "config.json"
            pooling |= _by_modes(read_json(where), where)
        elif kind == "Normalize":
            pooling["normalize"] = True
        elif kind != "Transformer":
            raise ModelError(
                f"{path}: unknown part: expected Transformer, Pooling or Normalize, got {kind!r}."
            )
    return from_table(Pooling, pooling, str(where))


def _plain_name(name: object, path: Path) -> str:
    """Checks the name of a subfolder, which must not point outside the folder."""
    if not isinstance(name, str) or name in (".", "..") or set(name) & set("/\\:\0"):
        raise ModelError(f"{path}: path: expected the name of a folder, got {name!r}.")
    return name


def _by_modes(table: JsonObject, where: Path) -> JsonObject:
    """Converts the newer form, `"pooling_mode": "cls"`, to the older one."""
    mode = table.get("pooling_mode")
    if mode is None:
        return table
    if mode not in ("cls", "mean"):
        raise ModelError(f"{where}: pooling_mode: expected 'cls' or 'mean', got {mode!r}.")
    return {f"pooling_mode_{name}": name.startswith(mode) for name in ("cls_token", "mean_tokens")}


class Embed(Module[[Tensor, Tensor], Tensor]):
    """One vector for each text.

    Args:
        module: (int64 tokens [batch, seq], int64 lengths [batch]) to [batch, seq, width].
        pooling: How to pool the token vectors.
    """

    def __init__(self, module: Any, pooling: Pooling) -> None:
        self.module = module
        self.pooling = pooling

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """int64 [batch, seq], of which the first lengths [batch] count -> float32 [batch, width]"""
        hidden = self.module(tokens, lengths).cast(DType.float32)
        if self.pooling.pooling_mode_cls_token:
            result = hidden[:, 0]
        else:
            positions = F.arange(0, tokens.shape[1], dtype=DType.int64, device=tokens.device)
            counts = F.unsqueeze(lengths, 1)
            kept = F.unsqueeze(positions < counts, 2)
            total = F.squeeze(F.sum(F.where(kept, hidden, 0.0), axis=1), 1)
            result = total / counts.cast(DType.float32)
        if self.pooling.normalize:
            length = F.sqrt(F.sum(result * result, axis=-1))
            result = result / F.elementwise_max(length, 1e-12)
        return result


@dataclass(eq=False)
class TextEncoder:
    """A pretrained encoder from a folder; made by `load_encoder`.

    Attributes:
        folder: The folder it was loaded from.
        module: (int64 tokens [batch, seq], int64 lengths [batch]) to [batch, seq, width].
        config: The fields of config.json that the module uses.
        pooling: How the vectors of the tokens become one.
        max_positions: The longest sequence.
        device: Where its weights are.
        dtype: The dtype that it computes in.
    """

    folder: Path
    module: Module[[Tensor, Tensor], Tensor]
    config: Any
    pooling: Pooling
    max_positions: int
    device: DeviceRef
    dtype: DType

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder.

        Raises:
            ModelError: If there is none, or it needs a package that is not installed.
        """
        return open_tokenizer(self.folder)

    def forget_compiled(self) -> None:
        """Makes the next use compile again, with the layers and weights that are there then."""
        vars(self).pop("compiled", None)

    @functools.cached_property
    def compiled(self) -> CompiledModel:
        """The compiled `Embed` of the module, for all sizes; made when it is first needed."""
        tokens = TensorType(DType.int64, ["batch", "seq"], self.device)
        lengths = TensorType(DType.int64, ["batch"], self.device)
        return Embed(self.module, self.pooling).compile(tokens, lengths)

    def embed(
        self,
        texts: Sequence[str],
        *,
        batch_size: int = 32,
        truncate: bool = False,
        eager: bool = False,
    ) -> HostArray:
        """Returns a vector for each text.

        Args:
            texts: The texts.
            batch_size: How many are computed together.
            truncate: Cut texts that are too long for the model instead of refusing them.
            eager: Run the module op by op instead of compiled.

        Returns:
            float32 [texts, width].

        Raises:
            ArgumentError: (a ValueError) If a text is too long, texts is a str, or batch_size is
                below 1.
        """
        if isinstance(texts, str) or batch_size < 1:
            raise ArgumentError("embed: expected a list of str, and a batch_size above 0.")
        rows = [self._tokens(place, text, truncate) for place, text in enumerate(texts)]
        # Texts of similar length share a batch, which keeps padding small.
        order = sorted(range(len(rows)), key=lambda place: len(rows[place]))
        parts = [order[at : at + batch_size] for at in range(0, len(order), batch_size)]
        found = [self._embed([rows[place] for place in part], eager) for part in parts]
        width = int(self.config.hidden_size)
        result = np.empty((len(rows), width), np.float32)
        for part, vectors in zip(parts, found):
            result[part] = vectors
        return result

    def _tokens(self, place: int, text: str, truncate: bool) -> list[int]:
        tokens = self.tokenizer.encode(text)
        if not tokens:
            raise ArgumentError(f"embed: text {place} has no tokens.")
        if len(tokens) <= self.max_positions:
            return tokens
        if not truncate:
            raise ArgumentError(
                f"embed: text {place} is too long: expected at most {self.max_positions} tokens, "
                f"got {len(tokens)}. Hint: split it, or let it be cut with truncate."
            )
        return [*tokens[: self.max_positions - 1], tokens[-1]]  # the last one marks the end

    def _embed(self, rows: Sequence[Sequence[int]], eager: bool) -> HostArray:
        tokens = np.zeros((len(rows), max(map(len, rows))), np.int64)
        for line, row in zip(tokens, rows):
            line[: len(row)] = row
        lengths = np.array([len(row) for row in rows], np.int64)
        run = Embed(self.module, self.pooling) if eager else self.compiled
        return run(
            Tensor(tokens, device=self.device), Tensor(lengths, device=self.device)
        ).to_numpy()
