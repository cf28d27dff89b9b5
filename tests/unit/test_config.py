from __future__ import annotations

import threading
from dataclasses import asdict
from typing import get_type_hints

import pytest

import maxmod
from maxmod import config
from maxmod.config import VARIABLES, Config, from_environment
from maxmod.errors import ConfigError, MaxmodWarning


def test_defaults_of_table_and_class_agree() -> None:
    assert asdict(Config()) == {variable.name: variable.default for variable in VARIABLES}


def test_types_of_table_and_class_agree() -> None:
    declared = get_type_hints(Config)
    assert declared == {variable.name: variable.type for variable in VARIABLES}


def test_defaults_are_legal() -> None:
    for variable in VARIABLES:
        assert variable.check(variable.default) == variable.default
        assert variable.doc


def test_empty_environment() -> None:
    assert from_environment({"PATH": "/bin"}) == Config()
    assert from_environment({"MAXMOD_DEBUG": "", "MAXMOD_COMPILE": ""}) == Config()


@pytest.mark.parametrize(
    ("text", "value"),
    [("1", True), ("true", True), ("YES", True), ("0", False), ("False", False)],
)
def test_flags(text: str, value: bool) -> None:
    assert from_environment({"MAXMOD_VERIFY": text}).verify is value


def test_other_types() -> None:
    found = from_environment({"MAXMOD_DEBUG": " 3", "MAXMOD_DUMP": "some folder"})
    assert (found.debug, found.dump) == (3, "some folder")


@pytest.mark.parametrize("text", ["7", "-1", "--1", "x", "²"])
def test_illegal_number(text: str) -> None:
    with pytest.raises(ConfigError, match="MAXMOD_DEBUG: expected 0 to 6, got"):
        from_environment({"MAXMOD_DEBUG": text})


def test_illegal_flag() -> None:
    with pytest.raises(ConfigError, match="MAXMOD_SYNC: expected 0 or 1, got 'maybe'"):
        from_environment({"MAXMOD_SYNC": "maybe"})


def test_unknown_variable_is_a_warning() -> None:
    expected = r"MAXMOD_DEBUGG is not a maxmod variable. Did you mean 'MAXMOD_DEBUG'\?"
    with pytest.warns(MaxmodWarning, match=expected):
        assert from_environment({"MAXMOD_DEBUGG": "1"}) == Config()


def test_configure_nests_and_restores() -> None:
    before = config.current()
    with maxmod.configure(debug=2) as outer:
        assert outer.debug == 2
        with maxmod.configure(dump="folder"):
            assert (config.current().debug, config.current().dump) == (2, "folder")
        assert config.current() == outer
    assert config.current() == before


def test_configure_restores_after_an_error() -> None:
    before = config.current()
    with pytest.raises(RuntimeError, match="inner"), maxmod.configure(debug=2):
        raise RuntimeError("inner")
    assert config.current() == before


def test_configure_refuses_unknown_names() -> None:
    expected = r"configure: unknown variable 'verfy'. Did you mean 'verify'\?"
    with pytest.raises(ConfigError, match=expected), maxmod.configure(verfy=True):
        pass


@pytest.mark.parametrize("values", [{"debug": 9}, {"debug": "1"}, {"verify": 1}, {"dump": None}])
def test_configure_refuses_illegal_values(values: dict[str, object]) -> None:
    before = config.current()
    with pytest.raises(ConfigError, match="expected"), maxmod.configure(**values):
        pass
    assert config.current() == before


def test_a_thread_starts_with_the_environment() -> None:
    seen = []
    with maxmod.configure(debug=5):
        thread = threading.Thread(target=lambda: seen.append(config.current()))
        thread.start()
        thread.join()
    assert seen == [from_environment()]


def test_the_test_suite_verifies() -> None:
    assert config.current().verify
