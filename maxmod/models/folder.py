"""Model folders: found by path or name, and what to say about those that cannot be read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from maxmod.errors import ModelError
from maxmod.models.gguf.folder import folder_of_file
from maxmod.values.plain import JsonObject
from maxmod.weights.gguf import gguf_of
from maxmod.weights.hub_cache import find_in_cache, missing_text
from maxmod.weights.json_files import read_json

CONFIG = "config.json"


def find_folder(caller: str, given: str | os.PathLike[str]) -> Path:
    """Returns the folder of a model.

    Args:
        caller: For messages.
        given: A folder with config.json, or with one GGUF model and no config.json; a GGUF file, of
            a model in parts the first one; or a model in the cache of Hugging Face, by the path of
            its folder there or by its name, such as `org/name`.

    Returns:
        The folder; for a GGUF file one that stands for it.

    Raises:
        ModelError: If there is none; the message says what is there in its place.
        CheckpointError: If a GGUF file cannot be read.
    """
    if not os.fspath(given):  # as from an unset variable; Path("") would be the current folder
        raise ModelError(f"{caller}: expected a folder, got an empty string.")
    try:
        folder = Path(find_in_cache(os.fspath(given)))
    except ModelError as error:
        raise ModelError(f"{caller}: {error}") from None
    file = gguf_of(folder)
    if file is not None:
        return folder_of_file(caller, file)
    if folder.is_dir():
        return folder
    what = _of_file(folder) if os.path.lexists(folder) else missing_text(str(folder))
    raise ModelError(f"{caller}: {folder}: {what}")


def read_config(caller: str, folder: Path) -> JsonObject:
    """Reads the config.json of a folder.

    Raises:
        ModelError: If there is none (the message says what the folder is), or it is malformed.
    """
    path = folder / CONFIG
    if not os.path.lexists(path):
        raise ModelError(f"{caller}: {folder}: there is no {CONFIG}. {_of_folder(folder)}")
    return read_json(path)


def unsupported(
    caller: str, folder: Path, table: JsonObject, kinds: Mapping[str, Mapping[str, object]]
) -> ModelError:
    """Makes the error for a model that a loading function does not read.

    Args:
        caller: The loading function.
        folder: The folder.
        table: Its config.json.
        kinds: The names of the loading functions, each with the architectures that it reads.
    """
    name = table.get("model_type")
    other = next((f for f in kinds if isinstance(name, str) and name in kinds[f]), None)
    if other is not None:
        what = f"{caller} does not read {name!r}. Hint: use {other}."
        return ModelError(f"{caller}: {folder}: {what}")
    listed = "; ".join(f"{f} {_read(f)} {names}" for names, f in _by_names(kinds).items())
    if name is None:
        what = f"{CONFIG} has no model_type, which says how the model computes"
    else:
        what = f"model_type {name!r:.80} is not supported in this version"
    return ModelError(f"{caller}: {folder}: {what}: {listed}.")


def _by_names(kinds: Mapping[str, Mapping[str, object]]) -> dict[str, str]:
    """Returns the loading functions that read the same architectures together.

    Decoders, most of which are encoders as well, are named once, with the first function.
    """
    result: dict[str, str] = {}
    decoders = kinds["load_model"].keys()
    for function, known in kinds.items():
        own = [name for name in known if function == "load_model" or name not in decoders]
        names = ", ".join(map(repr, own))
        result[names] = f"{result[names]}, {function}" if names in result else function
    return result


def _read(functions: str) -> str:
    return "read" if ", " in functions else "reads"


def _of_file(path: Path) -> str:
    """What to say about something that is not a folder."""
    if not path.exists():
        return "the link leads nowhere. Hint: the download is incomplete; download it again."
    if not path.is_file():
        return "expected a folder, got a pipe or device."
    return (
        f"expected a folder, got a file. Hint: give the folder with {CONFIG}, the weights and the "
        f"tokenizer, such as {path.parent}."
    )


def _of_folder(folder: Path) -> str:
    """What a folder without config.json may be, and what to do about it."""
    try:
        names = sorted(os.listdir(folder))
    except OSError as error:
        return f"The folder cannot be listed: {error.strerror}."
    if "adapter_config.json" in names:
        return _adapter(folder)
    if any(name.endswith(".gguf") for name in names):
        return "Hint: it holds several GGUF files; name one of them."
    if "model_index.json" in names:
        return "Hint: this is a pipeline of diffusers, whose models are not supported."
    if "params.json" in names:
        return (
            "Hint: this is the original layout of the weights; download the one for transformers, "
            "with config.json."
        )
    return (
        "Hint: expected a folder as save_pretrained of transformers writes it: config.json, "
        "*.safetensors, and tokenizer.json."
    )


def _adapter(folder: Path) -> str:
    base = read_json(folder / "adapter_config.json").get("base_model_name_or_path")
    of = f" of {base[:80]!r}" if isinstance(base, str) else ""
    return (
        f"It holds a LoRA adapter{of}, not a model. Hint: add it to its model first, with the "
        "package peft: from peft import AutoPeftModelForCausalLM; "
        f"AutoPeftModelForCausalLM.from_pretrained({str(folder)!r}).merge_and_unload()"
        ".save_pretrained('merged')."
    )
