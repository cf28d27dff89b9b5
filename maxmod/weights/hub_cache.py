"""Models in the cache of Hugging Face, found by name and without a network.

A model `org/name` has a folder `models--org--name` with its revisions in `snapshots`; the file
`refs/main` names the one that was downloaded last.

Source: the documentation of huggingface_hub, "Understand caching" and "Environment variables".
"""

from __future__ import annotations

import os
import re

from maxmod.errors import ModelError
from maxmod.weights.text_files import read_text

_NAME = re.compile(r"(?!.*--)(?!.*\.\.)\w[\w.-]*(/\w[\w.-]*)?", re.ASCII)  # of a model on the hub
_ROOT = re.compile(r"models--\w[\w.-]*", re.ASCII)
_REVISION = re.compile(r"\w[\w.-]*", re.ASCII)
_MAX_BYTES = 1000  # a hash has 40


def cache_folder() -> str:
    """Returns the cache of Hugging Face, as its own library finds it; it need not exist."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return os.path.expandvars(os.path.expanduser(os.environ[name]))
    root = os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache")
    home = os.environ.get("HF_HOME") or os.path.join(root, "huggingface")
    return os.path.join(os.path.expandvars(os.path.expanduser(home)), "hub")


def find_in_cache(path: str) -> str:
    """Returns the folder that a path or the name of a model means.

    Args:
        path: A path, which is returned unless it is the folder of a model in a cache; or, if
            there is no such path, the name of a model in the cache (`org/name`, `name`, or
            `models--org--name`).

    Returns:
        The path, or the folder of the snapshot.

    Raises:
        ModelError: If the model is in the cache, but no snapshot can be chosen.
    """
    if os.path.isdir(os.path.join(path, "snapshots")) and not _has_config(path):
        return _snapshot(path)
    if os.path.lexists(path):
        return path
    root = os.path.join(cache_folder(), _folder_name(path))
    return _snapshot(root) if _folder_name(path) and os.path.isdir(root) else path


def missing_text(path: str) -> str:
    """Returns what to say about a path that does not exist and is not a model of the cache."""
    give = "nothing is downloaded; give a folder with config.json and *.safetensors"
    hint = download_hint(path)
    if not hint:
        return f"there is no such folder. Hint: {give}."
    return (
        f"there is no such folder, and no such model in the cache of Hugging Face "
        f"({cache_folder()}). Hint: {give}, or {hint}."
    )


def download_hint(name: str) -> str:
    """Returns how to put a model into the cache; empty if the name is not one of a model."""
    if not _NAME.fullmatch(name) or name.endswith((".json", ".safetensors")):
        return ""
    return f"fetch it first: `pip install huggingface_hub`, then `hf download {name}`"


def _folder_name(path: str) -> str:
    """Returns the name of the folder of a model in the cache; empty if the name is of no model."""
    if _ROOT.fullmatch(path):
        return path
    return f"models--{path.replace('/', '--')}" if _NAME.fullmatch(path) else ""


def _has_config(folder: str) -> bool:
    return os.path.lexists(os.path.join(folder, "config.json"))


def _snapshot(root: str) -> str:
    """Returns the snapshot that `refs/main` names; without it the only one."""
    folder = os.path.join(root, "snapshots")
    names = sorted(name for name in os.listdir(folder)) if os.path.isdir(folder) else []
    reference = os.path.join(root, "refs", "main")
    if os.path.lexists(reference):
        names = [read_text(reference, max_nbytes=_MAX_BYTES).strip()]
    found = [
        os.path.join(folder, name)
        for name in names
        if _REVISION.fullmatch(name) and os.path.isdir(os.path.join(folder, name))
    ]
    if len(found) == 1:
        return found[0]
    listed = ", ".join(found[:8]) or "none"
    raise ModelError(
        f"{root}: this folder of a download cache has no revision to choose: expected the one that "
        f"refs/main names in {folder}, got {listed}. Hint: give the folder of one of them, or "
        "download the model again."
    )
