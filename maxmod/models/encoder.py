"""`TextEncoder`: a module that embeds texts, with its configuration and tokenizer."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from maxmod.dtype import DType
from maxmod.errors import ArgumentError
from maxmod.generate.prompts import token_rows
from maxmod.generate.text import Tokenizer
from maxmod.models.dense import Dense
from maxmod.models.packing import pack, pad
from maxmod.models.pickling import PickledWithoutPrograms
from maxmod.models.pooling import Embed, EmbedPadded, Pooling
from maxmod.models.prompts import TextRules
from maxmod.models.ranking import check_ranking, ranked
from maxmod.models.text_inputs import TextInputs, by_length
from maxmod.nn import Module
from maxmod.runtime.compiled import CompiledModel
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import TensorType


@dataclass(eq=False)
class TextEncoder(PickledWithoutPrograms):
    """A pretrained encoder from a folder; made by `load_encoder`.

    Attributes:
        folder: The folder it was loaded from.
        module: (int64 tokens [batch, seq], int64 lengths [batch]) to [batch, seq, width].
        config: The fields of config.json that the module uses.
        pooling: How the vectors of the tokens become one.
        rules: The longest text, prompts and the like.
        device: Where its weights are.
        dtype: The dtype that it computes in.
        dense: What is done with the vector of a text, in float32.
    """

    folder: Path
    module: Module[[Tensor, Tensor], Tensor]
    config: Any
    pooling: Pooling
    rules: TextRules
    device: DeviceRef
    dtype: DType
    dense: Sequence[Dense] = field(default=())

    @functools.cached_property
    def inputs(self) -> TextInputs:
        """Makes tokens of texts."""
        return TextInputs(self.folder, self.rules, int(self.config.vocab_size), 0)

    @property
    def max_positions(self) -> int:
        """The most tokens of a text, special ones included."""
        return self.rules.max_tokens

    @property
    def width(self) -> int:
        """The size of the vector of a text."""
        if self.dense:
            return self.dense[-1].width
        return int(self.config.hidden_size) * len(self.pooling.modes)

    @property
    def prompts(self) -> Mapping[str, str]:
        """The prompts of the folder, by name; `embed` takes the names."""
        return self.rules.prompts

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder.

        Raises:
            ModelError: If there is none, or it needs a package that is not installed.
        """
        return self.inputs.tokenizer

    def forget_compiled(self) -> None:
        """Makes the next use compile again, with the layers and weights that are there then."""
        vars(self).pop("compiled", None)

    @functools.cached_property
    def compiled(self) -> CompiledModel:
        """The compiled `Embed` of the module, for all sizes; made when it is first needed."""
        each, text, rows = ["tokens"], ["batch"], ["batch", "seq"]
        shapes: tuple[list[Any], ...] = (rows, text, text)
        if self._is_packable:
            shapes = ([1, "tokens"], text, each, each, rows, text)
        return self._embedder().compile(*(TensorType(DType.int64, s, self.device) for s in shapes))

    @property
    def _is_packable(self) -> bool:
        return bool(getattr(self.module, "is_packable", False))

    def _embedder(self) -> Module[..., Tensor]:
        make = Embed if self._is_packable else EmbedPadded
        return make(self.module, self.pooling, self.dense)

    def embed(
        self,
        texts: Iterable[str],
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int | None = None,
        truncate: bool | None = None,
        eager: bool = False,
    ) -> HostArray:
        """Returns a vector for each text.

        Args:
            texts: The texts.
            prompt_name: The name of a prompt of the folder, such as "query", which is put in front
                of each text. If neither it nor `prompt` is given, the default prompt of the folder
                is used, if it has one.
            prompt: The prompt itself; "" for none.
            batch_size: How many are computed together at most; by default it is the number of
                their tokens that is limited, which suits texts of any length.
            truncate: What to do with a text that is too long for the model: true cuts it, false
                refuses it; if it is not given, it is cut and the first one of an encoder is
                reported by a `MaxmodWarning`.
            eager: Run the module op by op instead of compiled.

        Returns:
            float32 [texts, width].

        Raises:
            ArgumentError: (a ValueError) If a text is too long and `truncate` is false, texts are
                not several str, the folder has no prompt of that name, or batch_size is below 1.
            SliceError: (an IndexError) If the tokenizer has more tokens than the model.
        """
        prompt = self.inputs.case(self.rules.prompt(prompt_name, prompt))
        start = self._start(prompt)
        rows = self.inputs.tokens("embed", texts, prompt, truncate)
        return self._in_batches(rows, start, batch_size, eager)

    def rank(
        self,
        query: str,
        texts: Iterable[str],
        *,
        top: int | None = None,
        batch_size: int | None = None,
        truncate: bool | None = None,
        eager: bool = False,
    ) -> list[tuple[int, float]]:
        """Orders texts by the cosine of the angle between their vectors and that of a query.

        The query gets the prompt of the folder named "query", and the texts that named "document",
        where it has them.

        Args:
            query: The query.
            texts: The texts.
            top: How many to return; all if it is not given.
            batch_size: As for `embed`.
            truncate: As for `embed`.
            eager: As for `embed`.

        Returns:
            Pairs of the place of a text among the texts and its cosine, the largest first.

        Raises:
            ArgumentError: As for `embed`; or if `top` is below 1.
        """
        check_ranking(query, top)
        options: dict[str, Any] = {"batch_size": batch_size, "truncate": truncate, "eager": eager}
        first = self.embed([query], prompt_name=self._prompt_named("query"), **options)
        others = self.embed(texts, prompt_name=self._prompt_named("document"), **options)
        lengths = np.linalg.norm(others, axis=1) * np.linalg.norm(first)
        cosines = others @ first[0] / np.maximum(lengths, np.finfo(np.float32).tiny)
        return ranked(cosines, top)

    def _prompt_named(self, name: str) -> str | None:
        return name if name in self.prompts else None

    def run_texts(self, texts: Iterable[str]) -> None:
        """Reads texts op by op, one after the other: for `maxmod.quantize(calibration=...)`."""
        self.embed(texts, batch_size=1, truncate=True, eager=True)

    def embed_tokens(
        self, rows: Iterable[Sequence[int]], *, batch_size: int | None = None, eager: bool = False
    ) -> HostArray:
        """Returns a vector for each sequence of tokens; needs no tokenizer.

        Args:
            rows: The token ids of each text, with those that mark its start and end; nothing is put
                in front of them.
            batch_size: As for `embed`.
            eager: As for `embed`.

        Returns:
            float32 [rows, width].

        Raises:
            ArgumentError: (a ValueError) If a row is empty or too long, or batch_size is below 1.
            OperandError: (a TypeError) If a row is not a sequence of int.
            SliceError: (an IndexError) If a token is not in the vocabulary.
        """
        checked = token_rows("embed: rows", rows)
        self.inputs.check("embed", checked)
        return self._in_batches(checked, 0, batch_size, eager)

    def _in_batches(
        self, rows: Sequence[Sequence[int]], start: int, batch_size: int | None, eager: bool
    ) -> HostArray:
        result = np.empty((len(rows), self.width), np.float32)
        for part in by_length("embed", [len(row) for row in rows], batch_size):
            result[part] = self._embed([rows[place] for place in part], start, eager)
            if len(part) > 1 and not np.isfinite(result[part]).all():
                # What overflows in one text reaches others: 0 times infinity is NaN.
                for place in part:
                    result[place] = self._embed([rows[place]], start, eager)
        return result

    def _start(self, prompt: str) -> int:
        """Returns how many tokens of each text are not pooled, because they are the prompt's."""
        if self.pooling.include_prompt or not prompt:
            return 0
        before, after = self.inputs.specials(prompt)
        length = before + len(self.tokenizer.encode(prompt, special=False))
        if length + after >= self.max_positions:
            raise ArgumentError(
                f"embed: the prompt is too long: expected fewer than {self.max_positions} tokens "
                f"with the special ones, got {length + after}."
            )
        return length

    def _embed(self, rows: Sequence[Sequence[int]], start: int, eager: bool) -> HostArray:
        given = (*(pack if self._is_packable else pad)(rows), np.full(len(rows), start, np.int64))
        run = self._embedder() if eager else self.compiled
        return run(*(Tensor(array, device=self.device) for array in given)).to_numpy()
