"""Finding the C compiler: the commands that are tried, and what decides their results."""

from __future__ import annotations

import importlib
import os
import sys

from maxmod.backends.host import caches
from maxmod.backends.host.library import HostCompiler
from maxmod.backends.host.processor import is_known, processor
from maxmod.kernel import cache as kernel_cache

PROBE_VERSION = 4  # raise it when the flags that are tried change
HINT = (
    "Hint: install gcc or clang, or pip install ziglang (which contains clang), or name a compiler "
    "with MAXMOD_CC."
)
_NAMES = ("cc", "gcc", "clang")
_PACKAGE = "ziglang"  # it contains a clang, with headers and libraries of the system
# What zig adds unless -O2 or more is given: the kernels of tests would end at the first overflow.
_PACKAGE_OPTIONS = ("-fno-sanitize=undefined",)
_BUILD = "maxmod.backends.host.build"  # imports subprocess; needed only where something is missing


def first_that_works(wanted: str, cc: str, search_path: str) -> tuple[HostCompiler | None, str]:
    """Returns the first compiler that works, and why there is none.

    Args:
        wanted: The command of `MAXMOD_CC`: no other is tried; or nothing.
        cc: The command of `CC`, tried first; or nothing.
        search_path: Where programs are looked for.
    """
    problems: list[str] = []
    names = [wanted] if wanted else [*([cc] if cc else []), *_NAMES]
    for command in names:
        words = command.split()
        path = which(words[0], search_path) if words else None
        if path is None:
            problems.append(f"{command}: not found")
            continue
        compiler, problem = _probed(path, tuple(words[1:]), search_path)
        if compiler is not None:
            return compiler, ""
        problems.append(f"{command}: {problem}")
    zig = None if wanted else _zig()
    if zig:
        compiler, problem = _probed(zig, ("cc", *_PACKAGE_OPTIONS), search_path)
        if compiler is not None:
            return compiler, ""
        problems.append(f"{_PACKAGE}: {problem}")
    return None, f"host_compiler: no C compiler works: {'; '.join(problems)}. {HINT}"


def which(program: str, search_path: str) -> str | None:
    """Looks along PATH, like `shutil.which`, which costs 3 ms to import."""
    folders = [""] if os.path.dirname(program) else search_path.split(os.pathsep)
    suffixes = (".exe", "") if sys.platform == "win32" else ("",)
    for folder in folders:
        for suffix in suffixes:
            path = os.path.join(folder, program + suffix)
            if os.path.isfile(path) and os.access(path, os.X_OK):
                return os.path.abspath(path)
    return None


def _zig() -> str | None:
    """Returns the program in the package `ziglang`, if that is installed; does not import it."""
    for folder in sys.path:
        found = which(os.path.join(folder or ".", _PACKAGE, "zig"), "")
        if found:
            return found
    return None


def _probed(
    path: str, options: tuple[str, ...], search_path: str
) -> tuple[HostCompiler | None, str]:
    """Returns the compiler with its flags, from the cache or by trying them.

    A system that does not tell what its processor can do is no reason to trust what was found on
    another day: the compiler is asked again.
    """
    identity = "\n".join((*_programs(path, options, search_path), processor()))
    key = kernel_cache.make_key(f"probe {PROBE_VERSION}", identity, "\0".join(options))
    entry = kernel_cache.load(key) if is_known(processor()) else None
    if entry is not None:
        version, features, *flags = entry.data.decode().split("\n")
    else:
        found, problem = importlib.import_module(_BUILD).probe(path, options)
        if found is None:
            return None, problem
        version, features, flags = found
        kernel_cache.store(key, "\n".join((version, features, *flags)).encode())
    identity = f"{version}\n{features}\n{identity}"
    return HostCompiler(path, version, (*flags, *caches.flags()), identity), ""


def _programs(path: str, options: tuple[str, ...], search_path: str) -> list[str]:
    """Returns what tells versions of a compiler apart: path, size and time of its file.

    In `ccache gcc` and `python -m ziglang cc` the program that compiles is one of the options.
    """
    found: list[str | None] = [path]
    for option in options:
        if not option.startswith("-"):
            found += [which(option, search_path), _zig() if option == _PACKAGE else None]
    return [_file(program) for program in found if program]


def _file(path: str) -> str:
    facts = os.stat(path)  # of the program itself, behind all links
    return f"{os.path.realpath(path)} {facts.st_size} {facts.st_mtime_ns}"
