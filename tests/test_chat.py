"""Chat templates: the text that transformers renders, and rejected templates."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from maxmod.errors import ArgumentError, ModelError
from maxmod.generate.chat import ChatTemplate, open_chat_template
from maxmod.generate.tokenizer_files import open_tokenizer

FOLDER = Path(__file__).parent / "assets" / "llama" / "chat"
GOLDEN = json.loads((FOLDER / "golden.json").read_text("utf-8"))
USER = [{"role": "user", "content": "Hello"}]


@pytest.mark.parametrize("case", GOLDEN["chats"], ids=lambda case: case["messages"][-1]["content"])
def test_text_and_tokens(case: dict) -> None:
    template = open_chat_template(FOLDER)
    is_question = case["messages"][-1]["role"] == "user"
    text = template.render(case["messages"], add_generation_prompt=is_question)
    assert text == case["text"]
    assert open_tokenizer(FOLDER).encode(text, special=False) == case["ids"]


@pytest.mark.parametrize("case", GOLDEN["plain"], ids=lambda case: repr(case["text"]))
def test_plain_text_starts_as_the_tokenizer_says(case: dict) -> None:
    tokenizer = open_tokenizer(FOLDER)
    assert tokenizer.encode(case["text"]) == case["ids"]
    assert tokenizer.encode(case["text"], special=False) == case["ids"][1:]


def _render(source: str, **variables: object) -> str:
    return ChatTemplate(source, {"bos_token": "<s>"}, "here").render(USER, **variables)


def test_templates_use_filters_functions_and_loop_controls() -> None:
    assert _render("{{ bos_token }}{{ messages | length }}") == "<s>1"
    assert _render("{% if tools %}t{% else %}n{% endif %}") == "n"
    assert _render("{{ tools | tojson }}", tools=[{"a": "<é>"}]) == '[{"a": "<é>"}]'
    assert _render("{{ tools | tojson(indent=1) }}", tools=[1]) == "[\n 1\n]"
    assert len(_render("{{ strftime_now('%Y') }}")) == 4
    # Loop controls, a namespace, and lines of tags that leave nothing behind.
    source = """
    {%- set ns = namespace(found=0) %}
    {% for n in range(9) %}
        {% if n == 3 %}{% set ns.found = n %}{% break %}{% endif %}
    {% endfor %}
    {{- ns.found }}"""
    assert _render(source) == "3"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ range(100000000) | list }}",
        "{% include 'secret' %}",
    ],
)
def test_templates_are_in_a_sandbox(source: str) -> None:
    with pytest.raises(ModelError, match="here: the chat template failed"):
        _render(source)


def test_refused_messages() -> None:
    template = open_chat_template(FOLDER)
    with pytest.raises(ModelError, match="the chat template failed: unknown role robot"):
        template.render([{"role": "robot", "content": "x"}])
    for wrong in ({"role": "user"}, {"content": "x"}, "text", None):
        with pytest.raises(ArgumentError, match="message 1: expected a mapping with 'role' and"):
            template.render([*USER, wrong])


@pytest.mark.parametrize("source", ["{% for %}", "{{ 1 + }}", "{{ x | nosuchfilter }}"])
def test_malformed_templates(source: str) -> None:
    with pytest.raises(ModelError, match="here: the chat template is malformed"):
        ChatTemplate(source, {}, "here")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FOLDER, tmp_path / "model"))


def _change(folder: Path, **changes: object) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def test_where_templates_stand(folder: Path) -> None:
    _change(folder, chat_template="one {{ bos_token }}", bos_token={"content": "<b>"})
    assert open_chat_template(folder).render(USER) == "one <b>"
    named = [{"name": "rag", "template": "no"}, {"name": "default", "template": "two"}]
    _change(folder, chat_template=named)
    assert open_chat_template(folder).render(USER) == "two"
    (folder / "chat_template.jinja").write_text("three {{ eos_token }}", "utf-8")
    assert open_chat_template(folder).render(USER) == "three <|end|>"


def test_templates_know_the_tokens_of_the_older_file(folder: Path) -> None:
    source = "{{ bos_token }} {{ eos_token }} {{ pad_token }} {{ unk_token }}"
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": source}))
    older = {"bos_token": "<b>", "eos_token": {"content": "<e>"}, "pad_token": "<p>"}
    older["unk_token"] = "<u>"
    (folder / "special_tokens_map.json").write_text(json.dumps(older))
    assert open_chat_template(folder).render(USER) == "<b> <e> <p> <u>"


@pytest.mark.parametrize("template", [None, [], 3, [{"name": "rag", "template": "x"}]])
def test_folders_without_a_template(folder: Path, template: object) -> None:
    _change(folder, chat_template=template)
    with pytest.raises(ModelError, match="there is no chat template: expected the field") as caught:
        open_chat_template(folder)
    assert str(folder) in str(caught.value)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ModelError, match="there is no chat template"):
        open_chat_template(folder)


def test_unreadable_templates(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ModelError, match="expected text in UTF-8"):
        open_chat_template(folder)
    path.write_bytes(b" " * (1 << 21))
    with pytest.raises(ModelError, match="expected at most 1048576 bytes"):
        open_chat_template(folder)


def test_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(ModelError, match=r"need the package jinja2.*pip install 'maxmod\[text\]'"):
        open_chat_template(FOLDER)
