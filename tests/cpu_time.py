"""What tests cost: CPU seconds of their process and of its children, by file and by test.

    pytest -n auto -p cpu_time --cache-clear        # 30 rows; CPU_TIME_ROWS says how many

A plugin of pytest. CPU time hardly depends on what else the machine does, and counts the compilers
that a test starts, which `--durations` cannot tell from waiting. What a fixture of a module or a
`functools.cache` makes is counted at the first test that asks for it: files compare better than
tests.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

_ROWS = int(os.environ.get("CPU_TIME_ROWS", "30"))
_PROPERTY = "cpu_time"
_FIRST = "importing and collecting, a worker"

Seconds = tuple[float, float]  # of the process, and of its children
_last: Seconds = (0.0, 0.0)  # when the phase before ended


def _since_last() -> Seconds:
    global _last
    times = os.times()
    now = (times.user + times.system, times.children_user + times.children_system)
    spent = (now[0] - _last[0], now[1] - _last[1])
    _last = now
    return spent


def pytest_runtest_logstart(nodeid: str) -> None:
    if not _last[0]:
        _first.append(_since_last())


_first: list[Seconds] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[Any]:
    """Puts into the report what was spent since the last: a worker sends it to who prints it."""
    report = yield
    rows = [(_FIRST, *_first.pop())] if _first else []
    rows.append((item.nodeid, *_since_last()))
    report.cpu_time = rows
    return report


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Prints the sums, and what is most expensive."""
    own: Counter[str] = Counter()
    children: Counter[str] = Counter()
    reports = [report for some in terminalreporter.stats.values() for report in some]
    for report in {id(report): report for report in reports}.values():
        for node, process, child in getattr(report, "cpu_time", []):
            own[node] += process
            children[node] += child
    if not own:
        return
    files = {node: node.split("::")[0] for node in own}
    terminalreporter.section("CPU seconds: process, children")
    _print(terminalreporter, own, children, dict.fromkeys(own, "all"))
    _print(terminalreporter, own, children, files)
    _print(terminalreporter, own, children, {node: node for node in own})


def _print(terminal: Any, own: Counter[str], children: Counter[str], group: dict[str, str]) -> None:
    sums: dict[str, list[float]] = {}
    for node, name in group.items():
        entry = sums.setdefault(name, [0.0, 0.0])
        entry[0] += own[node]
        entry[1] += children[node]
    for name in sorted(sums, key=lambda name: -sum(sums[name]))[:_ROWS]:
        terminal.write_line("{:8.2f} {:8.2f}  {}".format(*sums[name], name))
    terminal.write_line("")
