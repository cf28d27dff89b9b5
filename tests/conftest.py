"""Settings and fixtures of the whole test-suite.

Every op result and every graph is verified (`MAXMOD_VERIFY`), warnings are errors, and what could
not run on this machine is listed at the end.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

# Read once, when maxmod is imported; threads and child processes see it too.
os.environ["MAXMOD_VERIFY"] = "1"
os.environ["MAXMOD_PROGRESS"] = "0"  # how long something takes must not change what is printed
# Kernels that an earlier run built must not hide a fault of this one. Workers share the folder.
_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not _IS_WORKER:
    os.environ["MAXMOD_CACHE_DIR"] = tempfile.mkdtemp(prefix="maxmod-tests-")
# Where Python does not keep compiled source, as in many containers, each child process would
# compile maxmod again, which takes half a second of a processor, and each worker all tests.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.path.join(os.environ["MAXMOD_CACHE_DIR"], "bytecode")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

# Until all tests are collected nothing becomes garbage: a quarter of that time went into looking.
gc.disable()

import build_cache
import hypothesis
import pytest
from emulated import EmulatedBackend
from fuzz import examples
from readable_ids import readable_id

from maxmod import backends, config, random
from maxmod.backends.devices import CPU, Accelerator, Device
from maxmod.backends.host.backend import CpuBackend
from maxmod.op import Op
from maxmod.values.device import DeviceKind, DeviceRef

assert config.current().verify, "maxmod was imported before tests/conftest.py"

hypothesis.settings.register_profile(
    "maxmod",
    deadline=None,  # the first call of an op is slower than the others
    derandomize=bool(os.environ.get("CI")),
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture],
)
hypothesis.settings.load_profile("maxmod")

build_cache.share_host_builds()

_GPUS = backends.accelerator_count()
_NO_GPU = "" if _GPUS else backends.get(DeviceRef.GPU()).unavailable_reason()
_ORACLES = ("torch", "transformers")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("maxmod")
    group.addoption(
        "--require", choices=["gpu"], help="fail instead of leaving out what needs a GPU"
    )
    group.addoption(
        "--update-golden", action="store_true", help="rewrite the checked-in expectations"
    )
    group.addoption(
        "--fuzz", type=int, metavar="N", help="run N new examples of each test in tests/fuzz"
    )


def pytest_configure(config: pytest.Config) -> None:
    examples.ask(config.getoption("--fuzz"))
    if config.getoption("--require") == "gpu" and not _GPUS:
        raise pytest.UsageError(f"--require=gpu: no GPU can be used. {_NO_GPU}")
    if not _IS_WORKER:
        own = getattr(config, "cache", None)  # None under `-p no:cacheprovider`
        parent = own.mkdir("builds") if own else os.environ["MAXMOD_CACHE_DIR"]
        os.environ[build_cache.FOLDER] = str(parent)


def pytest_unconfigure() -> None:
    if not _IS_WORKER:
        build_cache.trim()
        shutil.rmtree(os.environ["MAXMOD_CACHE_DIR"], ignore_errors=True)


def pytest_make_parametrize_id(config: pytest.Config, val: Any) -> str | None:
    return readable_id(val)


def pytest_collection_finish() -> None:
    gc.freeze()  # tests, modules: they stay, and are not looked at again
    gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = [name for name in _ORACLES if importlib.util.find_spec(name) is None]
    for item in items:
        if examples.is_long() and "fuzz" in item.path.parts:
            item.add_marker(pytest.mark.timeout(0))  # as long as it takes
        if item.get_closest_marker("gpu") and not _GPUS:
            item.add_marker(pytest.mark.skip(reason="needs a GPU"))
        if item.get_closest_marker("oracle") and missing:
            item.add_marker(pytest.mark.skip(reason=f"needs {' and '.join(missing)}"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Lists what did not run and why, so that a green run cannot hide it."""
    reasons: Counter[str] = Counter()
    for report in terminalreporter.getreports("skipped"):
        text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        reasons[text.removeprefix("Skipped: ")] += 1
    if not _GPUS:
        reasons[f"tests of every device, on a real GPU. {_NO_GPU}"] += 0
    if reasons:
        terminalreporter.section("did not run")
        for reason, count in reasons.most_common():
            terminalreporter.write_line(f"{count or 'all':>5} {reason}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keeps the tests of a file on one worker, if `--dist` says nothing else.

    They share costly objects: traced functions, plans, kernels of the emulated GPU.
    """
    if config.getoption("dist") != "load":
        return None
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


@pytest.fixture(autouse=True)
def _drawn_from_one_seed() -> None:
    """What a test draws, weights of layers above all, depends on no test before it."""
    random.set_seed(0)


@pytest.fixture(scope="module")
def unoptimised_host_kernels() -> Iterator[None]:
    """For modules whose subject is not the code of host kernels; see `tests/README.md`."""
    with build_cache.unoptimised_host_kernels():
        yield


@pytest.fixture
def emulated_accelerator() -> Iterator[Device]:
    """Device 0 of an emulated accelerator with two devices, which is then the default device."""
    previous = backends.replace(DeviceKind.GPU, EmulatedBackend(count=2))
    try:
        yield Accelerator()
    finally:
        backends.replace(DeviceKind.GPU, previous)


@pytest.fixture
def no_accelerator() -> Iterator[None]:
    """Hides the accelerators of this machine."""
    previous = backends.replace(DeviceKind.GPU, EmulatedBackend(count=0))
    try:
        yield
    finally:
        backends.replace(DeviceKind.GPU, previous)


@pytest.fixture(params=["cpu", "emulated", *(["cuda"] if _GPUS else [])])
def device(request: pytest.FixtureRequest) -> Device:
    """Each kind of device: the host, an emulated accelerator, and a real one if there is one.

    Under the last two the default device is the accelerator and the default dtype bfloat16.
    """
    if request.param == "emulated":
        return request.getfixturevalue("emulated_accelerator")
    return CPU() if request.param == "cpu" else Accelerator()


@pytest.fixture
def host_ops(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the ops that the host runs one by one, in order; a kernel adds none."""
    names: list[str] = []
    original = CpuBackend.run

    def run(self: CpuBackend, op: Op, *args: Any) -> Any:
        names.append(op.name)
        return original(self, op, *args)

    monkeypatch.setattr(CpuBackend, "run", run)
    return names


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """True if checked-in expectations are to be rewritten (`--update-golden`)."""
    return bool(request.config.getoption("--update-golden"))
