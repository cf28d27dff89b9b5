"""Sanitizers over the host kernels: memory, undefined behaviour, and races of the thread pool.

    python tests/sanitize.py address                    the kernels of the model tests
    python tests/sanitize.py address tests/ops -k matmul      those of other tests
    python tests/sanitize.py thread                     the pool, called by three threads at once

Needs GCC on Linux. `address` runs pytest with a compiler that checks every access and every
operation, so it takes many times as long as the tests; kernels are built into folders of their own.
`thread` builds `kernels/host/threads.c` with a small program around it, which takes a second; a
test does the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from maxmod.kernel.source import Dialect
from maxmod.kernel.text import prelude, read

MODELS = ("tests/models", "-k", "logits or hidden or embed or classify or token_by_token")
CHECKS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g1")

# Three threads call at once: one has the pool, the others work alone. An item that is not done
# exactly once ends the program.
HARNESS = """
#include <stdio.h>

static void add_one(void *const *buffers, const int64_t *scalars, void *shared, char *room,
                    int64_t first, int64_t end)
{
    int64_t *const counts = buffers[0], *const marks = (int64_t *)room;
    for (int64_t n = first; n < end; n++) {
        marks[0] = n;
        counts[n] += marks[0] == n;
    }
}

static void *caller(void *argument)
{
    static _Thread_local int64_t counts[1024];
    void *const buffers[] = {counts};
    for (int call = 0; call < CALLS; call++) {
        const int64_t count = 1 + (call * 37) % 1024;
        memset(counts, 0, sizeof counts);
        mm_parallel(add_one, buffers, NULL, NULL, count, 1 + call % 9, 64);
        for (int64_t n = 0; n < count; n++)
            if (counts[n] != 1) {
                printf("item %lld of %lld: %lld times\\n", (long long)n, (long long)count,
                       (long long)counts[n]);
                exit(1);
            }
    }
    return argument;
}

int main(void)
{
    mm_set_threads(3);
    mm_threads = &mm_threads_of;
    pthread_t threads[3];
    for (int n = 0; n < 3; n++)
        pthread_create(&threads[n], NULL, caller, NULL);
    for (int n = 0; n < 3; n++)
        pthread_join(threads[n], NULL);
    puts("no races");
    return 0;
}
"""


def check_threads(folder: Path, calls: int) -> str:
    """Runs the pool under ThreadSanitizer; returns what the program wrote.

    Args:
        folder: Where to build.
        calls: The number of calls of each thread.

    Raises:
        subprocess.CalledProcessError: If it does not build, or something was found.
    """
    source, program = folder / "pool.c", folder / "pool"
    parts = (prelude(Dialect.HOST), f"#define CALLS {calls}", read("host/threads.c"), HARNESS)
    source.write_text("\n".join(parts), "utf-8")
    flags = ("-std=gnu11", "-O1", "-g", "-fsanitize=thread", "-w", "-pthread")
    subprocess.run(["gcc", *flags, source, "-o", program, "-lm"], check=True)
    # Without a random layout of memory, for which old versions of the sanitizer have no room.
    ran = subprocess.run(
        ["setarch", "-R", program], check=True, capture_output=True, text=True, timeout=60
    )
    return ran.stdout


def check_memory(arguments: Sequence[str]) -> int:
    """Runs pytest with kernels that check memory and operations; returns its exit status."""
    libraries = [
        subprocess.check_output(["gcc", f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    with tempfile.TemporaryDirectory() as folder:
        settings = {
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python itself keeps what it allocates
            "MAXMOD_CC": " ".join(["gcc", *CHECKS]),
            "MAXMOD_CACHE_DIR": folder,
        }
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
        command += ["-o", "timeout=0", *arguments]
        return subprocess.run(command, env=os.environ | settings, check=False).returncode


def main(arguments: Sequence[str]) -> int:
    """Runs what the command line names."""
    match arguments:
        case ["thread"]:
            with tempfile.TemporaryDirectory() as folder:
                print(check_threads(Path(folder), 4000), end="")
            return 0
        case ["address", *tests]:
            return check_memory(tests or MODELS)
        case _:
            print(__doc__)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
