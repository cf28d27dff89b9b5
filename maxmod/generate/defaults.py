"""generation_config.json: how the makers of a model want its tokens to be chosen."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from maxmod import log
from maxmod.errors import ArgumentError, MaxmodWarning, ModelError, OperandError
from maxmod.generate.sampling import Sampling
from maxmod.values.plain import JsonObject
from maxmod.weights.json_files import read_json
from maxmod.weights.text_files import has_file

# With do_sample, what the transformers library takes where the file says nothing.
_SAMPLED = {"temperature": 1.0, "top_k": 50}
_OPTIONS = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")

# Fields that make transformers choose other tokens, which is not done here, with the values that
# change nothing; and those that change no token of a decoder with one text for a prompt.
_NOT_DONE: dict[str, tuple[object, ...]] = {
    **dict.fromkeys(("bad_words_ids", "begin_suppress_tokens", "suppress_tokens"), (None, [])),
    **dict.fromkeys(("constraints", "force_words_ids", "sequence_bias"), (None, [], {})),
    **dict.fromkeys(("stop_strings", "forced_bos_token_id", "forced_eos_token_id"), (None, [])),
    **dict.fromkeys(("min_length", "min_new_tokens", "no_repeat_ngram_size"), (None, 0)),
    **dict.fromkeys(("epsilon_cutoff", "eta_cutoff", "penalty_alpha"), (None, 0)),
    **dict.fromkeys(("num_beams", "num_beam_groups", "num_return_sequences"), (None, 1)),
    **dict.fromkeys(("encoder_repetition_penalty", "guidance_scale", "typical_p"), (None, 1)),
    **dict.fromkeys(("dola_layers", "exponential_decay_length_penalty", "top_h"), (None,)),
    **dict.fromkeys(("diversity_penalty", "max_time", "watermarking_config"), (None, 0)),
    "token_healing": (None, False),
}
_NO_MATTER = frozenset(
    [
        "assistant_confidence_threshold",
        "assistant_early_exit",
        "assistant_ensemble_weight",
        "assistant_lookbehind",
        "bos_token_id",
        "cache_config",
        "cache_implementation",
        "compile_config",
        "continuous_batching_config",
        "decoder_start_token_id",
        "disable_compile",
        "do_sample",
        "early_stopping",
        "encoder_no_repeat_ngram_size",
        "eos_token_id",
        "is_assistant",
        "length_penalty",
        "low_memory",
        "max_cache_len",
        "max_length",
        "max_matching_ngram_size",
        "max_new_tokens",
        "num_assistant_tokens",
        "num_assistant_tokens_schedule",
        "output_attentions",
        "output_hidden_states",
        "output_logits",
        "output_scores",
        "pad_token_id",
        "prefill_chunk_size",
        "prompt_lookup_num_tokens",
        "remove_invalid_values",
        "renormalize_logits",
        "return_dict_in_generate",
        "return_legacy_cache",
        "speculation_type",
        "target_lookbehind",
        "transformers_version",
        "trust_remote_code",
        "use_cache",
        "use_mtp",
    ]
)


class GenerationDefaults:
    """The options of generation that hold where a caller gives none.

    Args:
        table: The fields of the file; none if there is no file.
        where: The file, for messages.
    """

    def __init__(self, table: JsonObject | None = None, where: str = "") -> None:
        self._table = table or {}
        self._where = where
        self._is_said = False

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> GenerationDefaults:
        """Reads the file of a folder, if there is one.

        Raises:
            ModelError: If it is not a JSON object.
        """
        path = Path(folder) / "generation_config.json"
        return cls(read_json(path), str(path)) if has_file(path) else cls()

    @property
    def does_sample(self) -> bool:
        """Whether tokens are drawn, where the caller does not say it."""
        value = self._table.get("do_sample")
        if value is not None and not isinstance(value, bool):
            raise ModelError(
                f"{self._where}: do_sample: expected true or false, got {value!r:.60}."
            )
        return bool(value)

    def sampling(
        self, given: Mapping[str, float | None], seed: int | None, *, greedy: bool
    ) -> Sampling:
        """Returns how tokens are chosen, by a caller's options and those of the file.

        Args:
            given: The caller's options by name; None for those that were not given.
            seed: The caller's seed.
            greedy: Take the most likely token, and nothing of the file.

        Raises:
            ArgumentError: If a number is out of range.
            OperandError: If one is not a number.
            ModelError: If a field of the file has no such value.
        """
        said = {name: value for name, value in given.items() if value is not None}
        if greedy:
            if said.get("temperature"):
                raise ArgumentError(
                    "generate: greedy, temperature: expected greedy=True or a temperature above 0, "
                    "got both."
                )
            return Sampling(**said, seed=seed)  # type: ignore[arg-type]
        options = self._options(said)
        self._say(options)
        return Sampling(**{**options, **said}, seed=seed)  # type: ignore[arg-type]

    def _options(self, said: Mapping[str, object]) -> dict[str, float]:
        """Returns the options of the file that hold besides those of a caller."""
        table = {name: value for name, value in self._table.items() if value is not None}
        if self.does_sample:
            table = _SAMPLED | table
        elif "temperature" not in said:
            table = {"repetition_penalty": table.get("repetition_penalty", 1.0)}
        options = {name: table[name] for name in _OPTIONS if name in table and name not in said}
        if not self.does_sample:
            options.pop("temperature", None)
        for name, value in options.items():
            try:
                Sampling(**{name: value})
            except (ArgumentError, OperandError) as error:
                what = str(error).removeprefix("generate: ")
                raise ModelError(
                    f"{self._where}: {what} Hint: give {name}, or greedy=True (--greedy)."
                ) from None
        return options

    def max_new_tokens(self, longest: int) -> int | None:
        """Returns how many tokens the file allows after a prompt; None if it does not say it.

        Args:
            longest: The length of the longest prompt.

        Raises:
            ModelError: If the numbers are none, or the prompt is longer than the whole may be.
        """
        for name, before in (("max_new_tokens", 0), ("max_length", longest)):
            value = self._table.get(name)
            if value is None:
                continue
            if type(value) is not int or value < 1:
                raise ModelError(
                    f"{self._where}: {name}: expected 1 or more, got {value!r:.60}. Hint: give "
                    "max_new_tokens."
                )
            if value <= before:
                raise ModelError(
                    f"{self._where}: {name}: expected more than the {before} tokens of the prompt, "
                    f"got {value}. Hint: give max_new_tokens."
                )
            return value - before
        return None

    def _say(self, options: Mapping[str, float]) -> None:
        """Says once what the file changes, and what it asks for in vain."""
        if self._is_said:
            return
        self._is_said = True
        changed = {name: value for name, value in options.items() if value != _NEUTRAL[name]}
        if changed:
            listed = ", ".join(f"{name} {value:g}" for name, value in changed.items())
            log.note(
                f"generate: {listed}, by {self._where} (greedy=True or --greedy: the most likely "
                "token)"
            )
        self._warn()

    def _warn(self) -> None:
        table = {name: v for name, v in self._table.items() if not name.startswith("_")}
        unknown = [n for n in table if n not in {*_OPTIONS, *_NOT_DONE, *_NO_MATTER}]
        asked = [n for n in table if n in _NOT_DONE and table[n] not in _NOT_DONE[n]]
        parts = []
        if asked:
            parts.append(f"it asks for {', '.join(asked)}, which maxmod does not have")
        if unknown:
            parts.append(f"what {', '.join(unknown[:20])} would do is not known here")
        if parts:
            warnings.warn(
                f"generate: {self._where}: {'; '.join(parts)}: the text may differ from that of "
                "other libraries.",
                MaxmodWarning,
                stacklevel=5,
            )


_NEUTRAL = {name: getattr(Sampling(seed=0), name) for name in _OPTIONS}
