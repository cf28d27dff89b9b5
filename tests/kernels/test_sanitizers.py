"""The pool of threads under ThreadSanitizer; `tests/sanitize.py` runs the rest."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import sanitize


def _is_missing() -> str:
    """Why the sanitizer cannot run here; empty if it can."""
    if not sys.platform.startswith("linux") or not all(map(shutil.which, ("gcc", "setarch"))):
        return "needs GCC and setarch on Linux"
    asked = ["gcc", "-print-file-name=libtsan.so"]
    found = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
    if not Path(found).is_absolute():
        return "needs the library of GCC's ThreadSanitizer"
    plain = subprocess.run(["setarch", "-R", "true"], capture_output=True, check=False)
    return "setarch may not change the layout of memory here" if plain.returncode else ""


@pytest.mark.skipif(bool(_is_missing()), reason=_is_missing())
def test_threads_have_no_races(tmp_path: Path) -> None:
    assert sanitize.check_threads(tmp_path, 300) == "no races\n"


@pytest.mark.skipif(bool(_is_missing()), reason=_is_missing())
def test_two_callers_in_the_pool_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = sanitize.read("host/threads.c").replace("atomic_flag_test_and_set(&mm_job.taken)", "0")
    monkeypatch.setattr(sanitize, "read", lambda name: broken)
    with pytest.raises((subprocess.CalledProcessError, subprocess.TimeoutExpired)) as caught:
        sanitize.check_threads(tmp_path, 300)
    assert "data race" in str(caught.value.stderr)
