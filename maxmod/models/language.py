"""`LanguageModel`: a module with its configuration and tokenizer, ready to generate text."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np
from numpy.typing import ArrayLike

from maxmod import backends
from maxmod.distributed import Group
from maxmod.dtype import DType
from maxmod.errors import MaxmodError
from maxmod.generate import generate_many, generate_text
from maxmod.generate.defaults import GenerationDefaults
from maxmod.generate.kv_cache import CachedContext, CacheShape, KVCache
from maxmod.generate.many import ManyOptions, Prompt, Request
from maxmod.generate.messages import Message
from maxmod.generate.sampling import Sampler, Sampling
from maxmod.generate.text import Tokenizer
from maxmod.generate.tokenizer_files import open_tokenizer
from maxmod.models.pickling import PickledWithoutPrograms
from maxmod.nn import Module
from maxmod.runtime.compiled import CompiledModel, built_together
from maxmod.tensor import Tensor
from maxmod.values.array import HostArray
from maxmod.values.device import DeviceRef
from maxmod.values.tensor_type import TensorType

_CALIBRATED = 512  # tokens that are read together, op by op: logits of all are in memory
_ADDER_HINT = (
    " Hint: this is the model that comes with maxmod, which only adds two numbers, such as 12+34=; "
    "another one is named with --model FOLDER, or load_model(FOLDER)."
)


class LastLogits(Module[[Tensor], Tensor]):
    """A language model that returns only the logits of the last position, in float32.

    Generation needs no others, and the head is a large part of a small model.

    Args:
        model: A module with `hidden(tokens, context)`, and `logits(hidden)` or `lm_head(hidden)`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        """int64 [batch, seq] -> float32 [batch, vocab]"""
        return _logits(self.model, self.model.hidden(tokens))


class CachedLogits(Module[[Tensor, KVCache], Tensor]):
    """`LastLogits` of tokens that follow those in a cache; they are added to it."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def forward(self, tokens: Tensor, cache: KVCache) -> Tensor:
        """int64 [batch, seq] -> float32 [batch, vocab]"""
        return _cached_logits(self.model, tokens, cache)


class NextTokens(Module[[KVCache, Sampler], None]):
    """Reads tokens as `CachedLogits` does and chooses the next ones, which the sampler keeps."""

    def __init__(self, model: Any, processes: int = 1) -> None:
        self.model = model
        self.processes = processes

    def forward(self, cache: KVCache, sampler: Sampler, prompts: Tensor | None = None) -> None:
        """Reads int64 prompts [batch, seq]; without any, the last tokens of the sampler."""
        tokens = sampler.tokens if prompts is None else prompts
        sampler.choose(_cached_logits(self.model, tokens, cache), self.processes)


def _cached_logits(model: Any, tokens: Tensor, cache: KVCache) -> Tensor:
    context = CachedContext(tokens, cache)
    hidden = model.hidden(tokens, context)
    context.finish()
    return _logits(model, hidden)


def _logits(model: Any, hidden: Tensor) -> Tensor:
    """float32 [batch, vocab] of the last position of hidden [batch, seq, width]."""
    return getattr(model, "logits", model.lm_head)(hidden[:, -1]).cast(DType.float32)


@dataclass(eq=False)
class LanguageModel(PickledWithoutPrograms):
    """A pretrained language model from a folder; made by `load_model`.

    Attributes:
        folder: The folder it was loaded from.
        module: int64 tokens [batch, seq] to logits [batch, seq, vocab].
        config: The fields of config.json that the module uses.
        vocab_size: Number of tokens.
        max_positions: The longest sequence.
        cache_shape: Size of the cache per token.
        stop: Tokens that end a sequence: those of generation_config.json or config.json, and the
            end token of the tokenizer.
        device: Where its weights are.
        dtype: The dtype that it computes in.
        defaults: The options of generation_config.json, for what a caller does not say.
        group: The processes that compute it together; `module` and `cache_shape` are the part of
            this one.
    """

    folder: Path
    module: Module[[Tensor], Tensor]
    config: Any
    vocab_size: int
    max_positions: int
    cache_shape: CacheShape
    stop: frozenset[int]
    device: DeviceRef
    dtype: DType
    defaults: GenerationDefaults = field(default_factory=GenerationDefaults)
    group: Group = field(default_factory=Group)

    def __post_init__(self) -> None:
        self._steps: dict[tuple[bool, bool, bool], CompiledModel] = {}
        self._tokenizer: Tokenizer | None = None

    def forget_compiled(self) -> None:
        """Makes the next use compile again, with the layers and weights of that time."""
        self._steps.clear()
        vars(self).pop("last_logits", None)

    @property
    def tokens_type(self) -> TensorType:
        """The type to compile the module with: int64 ["batch", "seq"] on its device."""
        return TensorType(DType.int64, ["batch", "seq"], device=self.device)

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the folder.

        Raises:
            ModelError: If there is none, or it needs a package that is not installed.
        """
        if self._tokenizer is None:
            hint = _ADDER_HINT if self.folder == Path(__file__).parent / "adder" else ""
            self._tokenizer = open_tokenizer(self.folder, hint=hint)
        return self._tokenizer

    def stream(self, prompt: str | Sequence[Message], **options: Any) -> Iterator[str]:
        """Continues a text, or answers a chat; yields each piece of text as soon as it is final.

        Args:
            prompt: The text to continue; or the messages of a chat, such as
                `[{"role": "user", "content": "Hello"}]`.
            **options: As for `maxmod.generate.generate_text`: `max_new_tokens`, `temperature`,
                `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`, `greedy`,
                `stop_strings`; for a chat variables of its template, such as `tools` and
                `enable_thinking`. What is not given comes from generation_config.json, and each
                call gives another text if tokens are sampled and there is no `seed`.

        Returns:
            An iterator of pieces, which never end inside a character.

        Example:
            >>> from maxmod.models import adder_folder, load_model
            >>> for piece in load_model(adder_folder()).stream("123+456="):
            ...     print(piece)
            5
            7
            9
        """
        return generate_text(self, prompt, **options)

    def generate(self, prompt: str | Sequence[Message], **options: Any) -> str:
        """Continues a text, or answers a chat, and returns all of the new text.

        Args:
            prompt: The text to continue, or the messages of a chat; see `stream`.
            **options: As for `stream`.

        Returns:
            The new text.

        Raises:
            ValueError: If the prompt has no tokens or is longer than the model takes.
            ModelError: If the folder has no tokenizer, or no template for a chat.

        Example:
            >>> from maxmod.models import adder_folder, load_model
            >>> load_model(adder_folder()).generate("123+456=")
            '579'
        """
        return "".join(self.stream(prompt, **options))

    @overload
    def generate_many(
        self,
        prompts: Iterable[Prompt | Request],
        *,
        ordered: Literal[True] = True,
        on_error: Literal["raise"] = "raise",
        **options: Unpack[ManyOptions],
    ) -> Iterator[str]: ...
    @overload
    def generate_many(
        self,
        prompts: Iterable[Prompt | Request],
        *,
        ordered: Literal[True] = True,
        on_error: Literal["yield"],
        **options: Unpack[ManyOptions],
    ) -> Iterator[str | MaxmodError]: ...
    @overload
    def generate_many(
        self,
        prompts: Iterable[Prompt | Request],
        *,
        ordered: Literal[False],
        on_error: Literal["raise"] = "raise",
        **options: Unpack[ManyOptions],
    ) -> Iterator[tuple[int, str]]: ...
    @overload
    def generate_many(
        self,
        prompts: Iterable[Prompt | Request],
        *,
        ordered: Literal[False],
        on_error: Literal["yield"],
        **options: Unpack[ManyOptions],
    ) -> Iterator[tuple[int, str | MaxmodError]]: ...
    def generate_many(
        self, prompts: Iterable[Prompt | Request], **options: Any
    ) -> Iterator[object]:
        """Continues any number of texts or chats, several at a time; yields each new text.

        A text that ends gives its place in the batch to the next prompt.

        Args:
            prompts: Texts, chats and lists of token ids, also from a generator; each may be a
                `maxmod.generate.Request` with options of its own.
            **options: As for `maxmod.generate.generate_many`: `batch_size`, `ordered`, `on_error`
                and those of `generate`; variables of a chat template as
                `template_variables={...}`.

        Returns:
            An iterator of the new texts, in the order of the prompts; see there for other results.

        Example:
            >>> from maxmod.models import adder_folder, load_model
            >>> list(load_model(adder_folder()).generate_many(["1+1=", "123+456="], batch_size=2))
            ['2', '579']
        """
        return generate_many(self, prompts, **options)

    @functools.cached_property
    def last_logits(self) -> CompiledModel:
        """The compiled `LastLogits` of the module, for all sizes; made when it is first needed."""
        return LastLogits(self.module).compile(self.tokens_type)

    def next_logits(
        self, tokens: Sequence[Sequence[int]] | HostArray, *, eager: bool = False
    ) -> HostArray:
        """Returns the logits after each of some sequences of equal length.

        Args:
            tokens: [batch, seq], at least one token each.
            eager: Run the module op by op instead of compiled.

        Returns:
            float32 [batch, vocab].

        Example:
            >>> from maxmod.models import adder_folder, load_model
            >>> model = load_model(adder_folder())
            >>> logits = model.next_logits([model.tokenizer.encode("1+2=")])
            >>> logits.shape, model.tokenizer.decode([logits[0].argmax()])
            ((1, 13), '3')
        """
        run = LastLogits(self.module) if eager else self.last_logits
        return run(self._rows(tokens)).to_numpy()

    def run_texts(self, texts: Iterable[str]) -> None:
        """Reads texts op by op and keeps nothing: for `maxmod.quantize(calibration=...)`."""
        longest = min(self.max_positions, _CALIBRATED)
        for text in texts:
            tokens = self.tokenizer.encode(text)
            for start in range(0, len(tokens), longest):
                self.module(self._rows([tokens[start : start + longest]]))

    # ---- with a cache --------------------------------------------------------------------------

    def empty_cache(self, padding: Sequence[int], length: int) -> KVCache:
        """Returns a cache for `next_tokens` and `next_logits_cached`; see `KVCache.empty`.

        Args:
            padding: For each sequence, the number of padding positions in front of its tokens.
            length: Capacity in tokens.

        Returns:
            The cache, on the device and in the dtype of the model.
        """
        return KVCache.empty(self.cache_shape, padding, length, self.dtype, self.device)

    def new_sampler(self, options: Sampling, prompts: Sequence[Sequence[int]]) -> Sampler:
        """Returns a sampler for `next_tokens`; see `Sampler.start`.

        Args:
            options: How tokens are chosen.
            prompts: The tokens of each sequence so far.

        Returns:
            The sampler, on the device of the model.
        """
        return Sampler.start(options, prompts, self.vocab_size, self.device)

    def step(self, *, batch: int = 1, seq: int = 1, logits: bool = False) -> CompiledModel:
        """The compiled step of generation for a batch size and a number of tokens to read.

        There are at most four, each made when it is first needed: one sequence or several, prefill
        or decode. Everything else, such as the length of the cache and the sampling options, is
        an argument of the step.

        Args:
            batch: The number of sequences.
            seq: The number of tokens.
            logits: The step of `next_logits_cached` instead: `CachedLogits`, not `NextTokens`.

        Returns:
            The compiled model; it takes a cache, a sampler, and prompts if `seq` is not 1; with
            `logits` it takes tokens and a cache.
        """
        key = (batch == 1, seq == 1, logits)
        if key not in self._steps:
            self._steps[key] = self._compiled(*key)
        return self._steps[key]

    def steps(self, seqs: Iterable[int], *, batch: int = 1) -> list[CompiledModel]:
        """Returns several compiled steps; their kernels are built side by side.

        Args:
            seqs: The number of tokens of each.
            batch: The number of sequences.

        Returns:
            For each number of tokens what `step` returns.
        """
        keys = [(batch == 1, seq == 1, False) for seq in seqs]
        missing = dict.fromkeys(key for key in keys if key not in self._steps)
        if missing:
            with built_together():
                made = {key: self._compiled(*key) for key in missing}
            self._steps |= made  # from now on they can be called
        return [self._steps[key] for key in keys]

    def _compiled(self, is_one: bool, is_decode: bool, logits: bool) -> CompiledModel:
        """Compiles the step for one sequence or several, and for one token or several."""
        rows: int | str = 1 if is_one else "batch"
        tokens = TensorType(DType.int64, [rows, 1 if is_decode else "seq"], self.device)
        cache = KVCache.types(self.cache_shape, rows, self.dtype, self.device)
        name = "decode" if is_decode else "prefill"
        if logits:
            return CachedLogits(self.module).compile(tokens, cache, name=name)
        sampler = Sampler.types(rows, self.vocab_size, self.device)
        prompts = () if is_decode else (tokens,)
        return NextTokens(self.module, self.group.size).compile(cache, sampler, *prompts, name=name)

    def next_tokens(
        self,
        cache: KVCache,
        sampler: Sampler,
        prompts: HostArray | None = None,
        *,
        eager: bool = False,
    ) -> list[int]:
        """Reads tokens and chooses the next one of each sequence.

        On an accelerator, only the chosen tokens are copied to the host.

        Args:
            cache: The tokens read so far; changed in place. It must have room for the new ones.
            sampler: Chooses the tokens; changed in place.
            prompts: [batch, seq], seq > 1; tokens in the padding of the cache are ignored.
                None to read the tokens that the sampler chose last.
            eager: Run the module op by op instead of compiled.

        Returns:
            The tokens; -1 for a sequence with a NaN logit.
        """
        return self.start_tokens(cache, sampler, prompts, eager=eager)()

    def start_tokens(
        self,
        cache: KVCache,
        sampler: Sampler,
        prompts: HostArray | None = None,
        *,
        eager: bool = False,
    ) -> Callable[[], list[int]]:
        """Queues what `next_tokens` does.

        Returns:
            A function that waits for the tokens and returns them.
        """
        given = () if prompts is None else (self._rows(prompts),)
        batch, seq = sampler.tokens.shape if prompts is None else prompts.shape
        if eager:
            run = NextTokens(self.module, self.group.size)
        else:  # tokens that follow a prompt are read one by one
            run = self.steps(dict.fromkeys((int(seq), 1)), batch=int(batch))[0]
        run(cache, sampler, *given)
        return self._later_tokens(sampler)

    def stepper(
        self, cache: KVCache, sampler: Sampler, *, eager: bool = False
    ) -> Callable[[], Callable[[], list[int]]]:
        """Returns what queues a step that reads the tokens chosen last, as `start_tokens` does.

        It is for as many steps as the cache and the sampler keep their memory.
        """
        if eager:
            return functools.partial(self.start_tokens, cache, sampler, eager=True)
        batch = int(sampler.tokens.shape[0])
        run = self.step(batch=batch).repeated(cache, sampler)

        def start() -> Callable[[], list[int]]:
            run()
            return self._later_tokens(sampler)

        return start

    @property
    def runs_ahead(self) -> bool:
        """True where work is queued, so that a step may be started before the last is read."""
        return backends.get(self.device).records

    def _later_tokens(self, sampler: Sampler) -> Callable[[], list[int]]:
        later = backends.get(self.device).later(sampler.tokens.data)
        return lambda: later()[:, 0].tolist()

    def next_logits_cached(
        self, tokens: HostArray, cache: KVCache, *, eager: bool = False
    ) -> HostArray:
        """Adds tokens to a cache and returns the logits after the last one of each sequence.

        Args:
            tokens: [batch, seq]; tokens in the padding of the cache are ignored.
            cache: The cache, changed in place; it must have room for the tokens.
            eager: Run the module op by op instead of compiled.

        Returns:
            float32 [batch, vocab].
        """
        batch, seq = tokens.shape
        run = CachedLogits(self.module) if eager else self.step(batch=batch, seq=seq, logits=True)
        return run(self._rows(tokens), cache).to_numpy()

    def _rows(self, tokens: ArrayLike) -> Tensor:
        return Tensor(np.ascontiguousarray(tokens, dtype=np.int64), device=self.device)
